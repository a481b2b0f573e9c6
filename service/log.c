#include "log.h"
#include <grpc/support/log.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES  4096u /* PIPE_BUF: a pipe that poll calls writable takes it whole, at once */
#define VALUE_BYTES 1024u /* longer texts are cut */

static enum log_level level_max = LOG_INFO;
static atomic_bool core_is_quiet;
static enum log_format line_format = LOG_LOGFMT;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

struct line {
    char text[LINE_BYTES];
    size_t used;
    bool full; /* something did not fit: the field is taken back */
};

static void put(struct line *line, const char *bytes, size_t len)
{
    if (len > sizeof(line->text) - 2 - line->used) { /* room for the closing brace and newline */
        line->full = true;
        return;
    }
    memcpy(line->text + line->used, bytes, len);
    line->used += len;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* The length of the UTF-8 sequence at `text`, or 0 where there is none. */
static size_t utf8_len(const unsigned char *text)
{
    size_t len = text[0] < 0x80   ? 1
                 : text[0] < 0xc2 ? 0
                 : text[0] < 0xe0 ? 2
                 : text[0] < 0xf0 ? 3
                 : text[0] < 0xf5 ? 4
                                  : 0;
    for (size_t i = 1; i < len; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    if (len == 3 && ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f)))
        return 0; /* overlong, or half of a surrogate pair */
    if (len == 4 && ((text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f)))
        return 0;
    return len;
}

static void put_quoted(struct line *line, const char *text)
{
    put_text(line, "\"");
    for (size_t at = 0, len; text[at] != '\0'; at += len) {
        const unsigned char *c = (const unsigned char *)text + at;
        char escape[8];
        len = utf8_len(c);
        if (at + len > VALUE_BYTES) {
            put_text(line, "...");
            break;
        }
        if (len == 0) {
            put_text(line, "\xef\xbf\xbd"); /* U+FFFD for a byte that is not UTF-8 */
            len = 1;
        } else if (*c == '"' || *c == '\\') {
            snprintf(escape, sizeof(escape), "\\%c", *c);
            put_text(line, escape);
        } else if (*c < 0x20 || *c == 0x7f) {
            snprintf(escape, sizeof(escape), "\\u%04x", *c);
            put_text(line, escape);
        } else {
            put(line, text + at, len);
        }
    }
    put_text(line, "\"");
}

/* logfmt quotes what has anything but plain characters in it. */
static void put_value(struct line *line, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/[]%+*@,";
    size_t len = strspn(text, plain);
    if (line_format == LOG_LOGFMT && len > 0 && len <= VALUE_BYTES && text[len] == '\0')
        put(line, text, len);
    else
        put_quoted(line, text);
}

/* One field, whole or not at all. */
static void put_field(struct line *line, const struct log_field *field)
{
    bool json = line_format == LOG_JSON;
    size_t before = line->used;
    char number[24];
    put_text(line, before > 1 ? json ? "," : " " : ""); /* 1: a brace */
    if (json) {
        put_quoted(line, field->name);
        put_text(line, ":");
    } else {
        put_text(line, field->name);
        put_text(line, "=");
    }
    if (field->text != NULL) {
        put_value(line, field->text);
    } else {
        snprintf(number, sizeof(number), "%lld", (long long)field->number);
        put_text(line, number);
    }
    if (line->full)
        line->used = before;
    line->full = false;
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
    put_field(line, &LOG_TEXT("ts", text));
}

void log_configure(enum log_level level, enum log_format format)
{
    level_max = level;
    line_format = format;
}

static void make_line(struct line *line, enum log_level level, const char *event, const struct log_field *fields)
{
    line->used = 0;
    line->full = false;
    if (line_format == LOG_JSON)
        put_text(line, "{");
    put_time(line);
    put_field(line, &LOG_TEXT("level", level_names[level]));
    put_field(line, &LOG_TEXT("event", event));
    for (; fields->name != NULL; fields++)
        put_field(line, fields);
    if (line_format == LOG_JSON)
        line->text[line->used++] = '}';
    line->text[line->used++] = '\n';
}

/* Returns: false where that would have to wait for whoever reads the log. */
static bool write_line(const struct line *line)
{
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0)
        return false;
    ssize_t ignored = write(STDERR_FILENO, line->text, line->used); /* nobody to tell if that fails */
    (void)ignored;
    return true;
}

/* Those who serve never wait for the log: what its reader doesn't take is counted, and told once there is room. */
void log_event(enum log_level level, const char *event, const struct log_field *fields)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t lost; /* guarded by the lock */
    struct line line;
    if (level > level_max)
        return;
    pthread_mutex_lock(&lock);
    if (lost > 0) {
        make_line(&line, LOG_WARN, "log lines lost", (const struct log_field[]){LOG_NUMBER("lines", lost), {0}});
        if (write_line(&line))
            lost = 0;
    }
    make_line(&line, level, event, fields);
    if (lost > 0 || !write_line(&line))
        lost++;
    pthread_mutex_unlock(&lock);
}

bool log_due(struct log_limit *limit, int64_t *out_untold)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int_fast64_t last_s = atomic_load(&limit->told_s);
    int_fast64_t now_s = (int_fast64_t)now.tv_sec + 1;
    if (now_s == last_s || !atomic_compare_exchange_strong(&limit->told_s, &last_s, now_s)) {
        atomic_fetch_add(&limit->untold, 1);
        return false;
    }
    *out_untold = atomic_exchange(&limit->untold, 0);
    return true;
}

/* Whoever connects can make handshakes fail, and the core calls each an error. */
static void tell_handshake(const char *message)
{
    static struct log_limit limit;
    int64_t untold;
    const char *reason = strrchr(message, ':'); /* "Handshake failed with ... SSL routines::unsupported protocol." */
    if (log_due(&limit, &untold))
        LOG(LOG_INFO, "tls handshake failed", LOG_TEXT("why", reason != NULL ? reason + 1 : message),
            LOG_NUMBER("others_before", untold));
}

static void core_line(gpr_log_func_args *arguments)
{
    if (strncmp(arguments->message, "Handshake failed", strlen("Handshake failed")) == 0) {
        tell_handshake(arguments->message);
        return;
    }
    static struct log_limit limits[64]; /* clients can make it say the same as often as they like */
    int64_t untold = 0;
    enum log_level level = LOG_DEBUG;
    switch (arguments->severity) {
    case GPR_LOG_SEVERITY_ERROR: level = LOG_ERROR; break;
    case GPR_LOG_SEVERITY_INFO: level = LOG_INFO; break;
    case GPR_LOG_SEVERITY_DEBUG: level = LOG_DEBUG; break;
    }
    if (atomic_load(&core_is_quiet))
        level = LOG_DEBUG;
    if (level <= level_max && log_due(&limits[(unsigned)arguments->line % 64], &untold))
        LOG(level, "grpc", LOG_TEXT("text", arguments->message), LOG_TEXT("file", arguments->file),
            LOG_NUMBER("line", arguments->line), LOG_NUMBER("others_before", untold));
}

void log_quieten_core(void)
{
    atomic_store(&core_is_quiet, true);
}

void log_adopt_core(void)
{
    gpr_set_log_function(core_line);
}
