#include "log.h"
#include <grpc/support/log.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048u /* longer lines are cut: one write a line, so that threads don't mix theirs */

static enum log_level level_max = LOG_INFO;
static atomic_bool core_is_quiet;
static enum log_format line_format = LOG_LOGFMT;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

struct line {
    char text[LINE_MAX_BYTES];
    size_t used;
};

static void put_char(struct line *line, char c)
{
    if (line->used < sizeof(line->text) - 3) /* room for the closing quote, brace and newline */
        line->text[line->used++] = c;
}

static void put_text(struct line *line, const char *text)
{
    while (*text != '\0')
        put_char(line, *text++);
}

static void put_quoted(struct line *line, const char *text)
{
    put_char(line, '"');
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char escape[8];
        if (c == '"' || c == '\\') {
            put_char(line, '\\');
            put_char(line, (char)c);
        } else if (c < 0x20 || c == 0x7f) {
            snprintf(escape, sizeof(escape), "\\u%04x", c);
            put_text(line, escape);
        } else {
            put_char(line, (char)c);
        }
    }
    line->text[line->used++] = '"';
}

/* logfmt quotes what has anything but plain characters in it. */
static void put_value(struct line *line, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/[]%+*@,";
    if (line_format == LOG_LOGFMT && *text != '\0' && text[strspn(text, plain)] == '\0')
        put_text(line, text);
    else
        put_quoted(line, text);
}

static void put_name(struct line *line, const char *name)
{
    bool json = line_format == LOG_JSON;
    if (line->used > (json ? 1u : 0u))
        put_char(line, json ? ',' : ' ');
    if (json) {
        put_quoted(line, name);
        put_char(line, ':');
    } else {
        put_text(line, name);
        put_char(line, '=');
    }
}

static void put_time(struct line *line)
{
    struct timespec now;
    struct tm utc;
    char text[40];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + used, sizeof(text) - used, ".%03ldZ", now.tv_nsec / 1000000);
    put_name(line, "ts");
    put_value(line, text);
}

void log_configure(enum log_level level, enum log_format format)
{
    level_max = level;
    line_format = format;
}

void log_event(enum log_level level, const char *event, const struct log_field *fields)
{
    if (level > level_max)
        return;
    struct line line = {.used = 0};
    if (line_format == LOG_JSON)
        put_char(&line, '{');
    put_time(&line);
    put_name(&line, "level");
    put_value(&line, level_names[level]);
    put_name(&line, "event");
    put_value(&line, event);
    for (; fields->name != NULL; fields++) {
        char number[24];
        put_name(&line, fields->name);
        if (fields->text != NULL) {
            put_value(&line, fields->text);
            continue;
        }
        snprintf(number, sizeof(number), "%lld", (long long)fields->number);
        put_text(&line, number);
    }
    if (line_format == LOG_JSON)
        line.text[line.used++] = '}';
    line.text[line.used++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line.text, line.used); /* nobody to tell if that fails */
    (void)ignored;
}

static void core_line(gpr_log_func_args *arguments)
{
    enum log_level level = LOG_DEBUG;
    switch (arguments->severity) {
    case GPR_LOG_SEVERITY_ERROR: level = LOG_ERROR; break;
    case GPR_LOG_SEVERITY_INFO: level = LOG_INFO; break;
    case GPR_LOG_SEVERITY_DEBUG: level = LOG_DEBUG; break;
    }
    if (atomic_load(&core_is_quiet))
        level = LOG_DEBUG;
    LOG(level, "grpc", LOG_TEXT("text", arguments->message), LOG_TEXT("file", arguments->file),
        LOG_NUMBER("line", arguments->line));
}

void log_quieten_core(void)
{
    atomic_store(&core_is_quiet, true);
}

void log_adopt_core(void)
{
    gpr_set_log_function(core_line);
}
