#include "options.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define K (UINT64_C(1) << 10)
#define M (UINT64_C(1) << 20)
#define G (UINT64_C(1) << 30)

enum option_kind {
    KIND_TEXTS, /* repeatable; comma-separated in the environment */
    KIND_COUNT, /* a plain number */
    KIND_BYTES, /* a number with K, M or G */
    KIND_OCTAL,
    KIND_INDEX,  /* auto, off, or a path */
    KIND_CHOICE, /* one of `choices`, stored as its place in the list */
    KIND_HELP,
    KIND_VERSION,
};

struct option_row {
    const char *name;
    enum option_kind kind;
    size_t field; /* offset in struct config */
    const char *standard;
    uint64_t min;
    uint64_t max;
    const char *const *choices;
    const char *help;
};

static const char *const verify_choices[] = {
    [RD_VERIFY_FIRST] = "first", [RD_VERIFY_ALWAYS] = "always", [RD_VERIFY_OFF] = "off", NULL};
static const char *const format_choices[] = {[LOG_LOGFMT] = "logfmt", [LOG_JSON] = "json", NULL};
static const char *const level_choices[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug", NULL};

#define FIELD(name) offsetof(struct config, name)

/* `standard` is read like a value from the user; NULL: filled in by set_standards. */
static const struct option_row option_rows[] = {
    {"listen", KIND_TEXTS, FIELD(listen), "127.0.0.1:50051", 0, 0, NULL,
     "address to serve on: host:port or unix:/path; repeatable"},
    {"verify", KIND_CHOICE, FIELD(verify), "first", 0, 0, verify_choices,
     "check payload checksums: once an entry and open, at each read, or only what opening checks"},
    {"index", KIND_INDEX, FIELD(index), "auto", 0, 0, NULL,
     "the snapshot index that saves reading the whole store at start, where it can be trusted: STORE.idx, none, or "
     "another file; rdrive index makes one"},
    {"scrub-rate", KIND_BYTES, FIELD(scrub_rate), "32M", 0, 1024 * G, NULL,
     "bytes a second at which payloads above 64K, which opening leaves unchecked, are checked in the background; 0: "
     "off"},
    {"threads", KIND_COUNT, FIELD(threads), NULL, 1, 64, NULL,
     "threads that serve calls, each with its own completion queue; default: cores"},
    {"max-batch-keys", KIND_COUNT, FIELD(max_batch_keys), "1000000", 1, 100000000, NULL, "keys one batch may name"},
    {"max-request-bytes", KIND_BYTES, FIELD(max_request_bytes), "16M", 64 * K, G, NULL,
     "serialized bytes of one request"},
    {"max-response-bytes", KIND_BYTES, FIELD(max_response_bytes), "4M", 64 * K, 2 * G - 1, NULL,
     "serialized bytes of one unary answer; larger values travel by the streaming calls"},
    {"chunk-bytes", KIND_BYTES, FIELD(chunk_bytes), NULL, 4 * K, 2 * G - 1, NULL,
     "bytes of one streamed message, at most --max-response-bytes; default: 1M, or that if it is less"},
    {"max-inflight", KIND_COUNT, FIELD(max_inflight), "4096", 1, 1000000, NULL,
     "calls served at once; more are answered UNAVAILABLE; health and GetStoreInfo are never shed"},
    {"max-memory", KIND_BYTES, FIELD(max_memory), "256M", 16 * M, 1024 * G, NULL,
     "memory for requests that are still arriving"},
    {"max-connection-age", KIND_COUNT, FIELD(max_connection_age_s), "0", 0, 31536000, NULL,
     "seconds until a connection is asked to be made anew, so that clients rebalance; 0: never"},
    {"drain-delay", KIND_COUNT, FIELD(drain_delay_s), "0", 0, 3600, NULL,
     "seconds after SIGTERM during which health says NOT_SERVING and all is still served"},
    {"drain-grace", KIND_COUNT, FIELD(drain_grace_s), "20", 1, 3600, NULL,
     "seconds, after the delay, for open calls to end"},
    {"unix-mode", KIND_OCTAL, FIELD(unix_mode), "0660", 0, 0777, NULL, "permissions of unix sockets"},
    {"log-format", KIND_CHOICE, FIELD(log_format), "logfmt", 0, 0, format_choices, "how log lines look"},
    {"log-level", KIND_CHOICE, FIELD(log_level), "info", 0, 0, level_choices, "the least urgent line to log"},
    {"version", KIND_VERSION, 0, NULL, 0, 0, NULL, "print the version and exit"},
    {"help", KIND_HELP, 0, NULL, 0, 0, NULL, "print this and exit"},
};
#define OPTION_COUNT (sizeof(option_rows) / sizeof(option_rows[0]))

struct parser {
    struct config *config;
    bool given[OPTION_COUNT]; /* by the command line: the environment is not asked */
    FILE *out;
    FILE *err;
};

static void *field_of(struct config *config, const struct option_row *row)
{
    return (char *)config + row->field;
}

static bool takes_value(const struct option_row *row)
{
    return row->kind != KIND_HELP && row->kind != KIND_VERSION;
}

/* "65536", "64K": what people write for sizes. Returns false where it isn't one. */
static bool parse_number(const char *text, int base, bool with_unit, uint64_t *out_number)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, base);
    if (errno != 0)
        return false;
    uint64_t unit = 1;
    if (with_unit && *end != '\0') {
        static const char letters[] = "KMG";
        const char *letter = strchr(letters, toupper((unsigned char)*end));
        if (letter == NULL)
            return false;
        unit = UINT64_C(1) << (10 * (letter - letters + 1));
        end++;
    }
    if (*end != '\0' || number > UINT64_MAX / unit)
        return false;
    *out_number = number * unit;
    return true;
}

static void format_bytes(uint64_t bytes, char out[24])
{
    static const struct {
        uint64_t unit;
        char letter;
    } units[] = {{G, 'G'}, {M, 'M'}, {K, 'K'}};
    for (size_t i = 0; i < 3; i++) {
        if (bytes >= units[i].unit && bytes % units[i].unit == 0) {
            snprintf(out, 24, "%llu%c", (unsigned long long)(bytes / units[i].unit), units[i].letter);
            return;
        }
    }
    snprintf(out, 24, "%llu", (unsigned long long)bytes);
}

/* What a row allows, for --help and for errors. */
static void describe_allowed(const struct option_row *row, char out[128])
{
    char low[24];
    char high[24];
    size_t used = 0;
    switch (row->kind) {
    case KIND_TEXTS: snprintf(out, 128, "host:port or unix:/path, at most %d of them", LISTEN_MAX); return;
    case KIND_COUNT:
        snprintf(out, 128, "%llu to %llu", (unsigned long long)row->min, (unsigned long long)row->max);
        return;
    case KIND_BYTES:
        format_bytes(row->min, low);
        format_bytes(row->max, high);
        snprintf(out, 128, "%s to %s, with K, M or G", low, high);
        return;
    case KIND_OCTAL: snprintf(out, 128, "0 to 0777, octal"); return;
    case KIND_INDEX: snprintf(out, 128, "auto, off, or a path"); return;
    case KIND_CHOICE:
        out[0] = '\0';
        for (const char *const *choice = row->choices; *choice != NULL; choice++)
            used += (size_t)snprintf(out + used, 128 - used, "%s%s", used > 0 ? ", " : "", *choice);
        return;
    case KIND_HELP:
    case KIND_VERSION: out[0] = '\0'; return;
    }
}

static bool refuse(const struct parser *parser, const struct option_row *row, const char *source, const char *value)
{
    char allowed[128];
    describe_allowed(row, allowed);
    fprintf(parser->err, "rdrived: %s: '%s' is not allowed; allowed: %s\n", source, value, allowed);
    return false;
}

/* The core decodes %XX in paths, and would listen elsewhere than our lock and mode are. */
static bool is_unix_path(const char *path)
{
    return *path != '\0' && strchr(path, '%') == NULL;
}

/* A name or an IPv4 address, or [an IPv6 address], and a port. Other schemes that the core knows are not offered. */
static bool is_host_and_port(const char *value)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    const char *colon = strrchr(value, ':');
    uint64_t port;
    if (colon == NULL || !parse_number(colon + 1, 10, false, &port) || port > 65535)
        return false;
    size_t len = (size_t)(colon - value);
    bool bracketed = len > 2 && value[0] == '[' && colon[-1] == ']';
    return bracketed ? strcspn(value, "%/]") == len - 1 : len > 0 && strspn(value, name) == len;
}

static bool add_listen(struct parser *parser, const struct option_row *row, const char *source, const char *value)
{
    if (parser->config->listen_count == LISTEN_MAX)
        return refuse(parser, row, source, value);
    bool is_unix = strncmp(value, "unix:", 5) == 0;
    if (is_unix ? !is_unix_path(value + 5) : !is_host_and_port(value))
        return refuse(parser, row, source, value);
    parser->config->listen[parser->config->listen_count++] = value;
    return true;
}

static bool set_value(struct parser *parser, const struct option_row *row, const char *source, const char *value)
{
    void *field = field_of(parser->config, row);
    uint64_t number;
    int choice = 0;
    switch (row->kind) {
    case KIND_TEXTS: return add_listen(parser, row, source, value);
    case KIND_COUNT:
    case KIND_BYTES:
    case KIND_OCTAL:
        if (!parse_number(value, row->kind == KIND_OCTAL ? 8 : 10, row->kind == KIND_BYTES, &number) ||
            number < row->min || number > row->max)
            return refuse(parser, row, source, value);
        *(uint64_t *)field = number;
        return true;
    case KIND_INDEX:
        if (*value == '\0')
            return refuse(parser, row, source, value);
        *(const char **)field = value;
        return true;
    case KIND_CHOICE:
        while (row->choices[choice] != NULL && strcmp(row->choices[choice], value) != 0)
            choice++;
        if (row->choices[choice] == NULL)
            return refuse(parser, row, source, value);
        *(int *)field = choice;
        return true;
    case KIND_HELP:
    case KIND_VERSION: return true;
    }
    return false;
}

static void print_help(FILE *out)
{
    fputs("rdrived STORE [options]: serves a simd-r-drive store over gRPC.\n"
          "Each option may also stand in the environment as RDRIVED_<OPTION>, such as RDRIVED_MAX_BATCH_KEYS\n"
          "(repeatable ones comma-separated); the command line wins.\n\n",
          out);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        char allowed[128];
        describe_allowed(row, allowed);
        fprintf(out, "  --%s%s\n      %s\n", row->name, takes_value(row) ? " VALUE" : "", row->help);
        if (takes_value(row))
            fprintf(out, "      allowed: %s%s%s\n", allowed, row->standard != NULL ? "; default: " : "",
                    row->standard != NULL ? row->standard : "");
    }
    fputs("\nExit status: 0 after a clean stop, 2 if the store can't be opened or an address can't be served,\n"
          "64 for a wrong option.\n",
          out);
}

static const struct option_row *row_named(const char *name, size_t len)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strlen(option_rows[i].name) == len && strncmp(option_rows[i].name, name, len) == 0)
            return &option_rows[i];
    return NULL;
}

/* RDRIVED_MAX_BATCH_KEYS for max-batch-keys. */
static void environment_name(const struct option_row *row, char out[64])
{
    size_t used = (size_t)snprintf(out, 64, "RDRIVED_%s", row->name);
    for (size_t i = 0; i < used; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* One argument that begins with "--". Moves `*at` over a value that stands apart. */
static enum options_result parse_option(struct parser *parser, int argc, char **argv, int *at)
{
    const char *name = argv[*at] + 2;
    const char *equals = strchr(name, '=');
    const struct option_row *row = row_named(name, equals != NULL ? (size_t)(equals - name) : strlen(name));
    if (row == NULL) {
        fprintf(parser->err, "rdrived: %s: no such option; rdrived --help lists them\n", argv[*at]);
        return OPTIONS_WRONG;
    }
    if (row->kind == KIND_HELP) {
        print_help(parser->out);
        return OPTIONS_DONE;
    }
    if (row->kind == KIND_VERSION) {
        fputs("rdrived " RDRIVE_VERSION "\n", parser->out);
        return OPTIONS_DONE;
    }
    const char *value = equals != NULL ? equals + 1 : *at + 1 < argc ? argv[++*at] : NULL;
    char source[64];
    snprintf(source, sizeof(source), "--%s", row->name);
    if (value == NULL) {
        char allowed[128];
        describe_allowed(row, allowed);
        fprintf(parser->err, "rdrived: %s needs a value; allowed: %s\n", source, allowed);
        return OPTIONS_WRONG;
    }
    parser->given[row - option_rows] = true;
    return set_value(parser, row, source, value) ? OPTIONS_RUN : OPTIONS_WRONG;
}

static enum options_result parse_arguments(struct parser *parser, int argc, char **argv)
{
    bool only_values = false;
    for (int i = 1; i < argc; i++) {
        if (!only_values && strcmp(argv[i], "--") == 0) {
            only_values = true;
        } else if (!only_values && argv[i][0] == '-' && argv[i][1] != '\0') {
            if (argv[i][1] != '-') {
                fprintf(parser->err, "rdrived: %s: no such option; rdrived --help lists them\n", argv[i]);
                return OPTIONS_WRONG;
            }
            enum options_result result = parse_option(parser, argc, argv, &i);
            if (result != OPTIONS_RUN)
                return result;
        } else if (parser->config->store_path != NULL) {
            fprintf(parser->err, "rdrived: '%s': one STORE only, and '%s' is it\n", argv[i],
                    parser->config->store_path);
            return OPTIONS_WRONG;
        } else {
            parser->config->store_path = argv[i];
        }
    }
    return OPTIONS_RUN;
}

/* A repeatable option's value: each part between commas. */
static bool set_texts(struct parser *parser, const struct option_row *row, const char *source, const char *value)
{
    static char *kept[OPTION_COUNT]; /* the pieces stay for the life of the process */
    char *rest = kept[row - option_rows] = strdup(value);
    bool good = rest != NULL;
    while (good && rest != NULL)
        good = set_value(parser, row, source, strsep(&rest, ","));
    return good;
}

static bool parse_environment(struct parser *parser)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        char name[64];
        environment_name(row, name);
        const char *value = takes_value(row) && !parser->given[i] ? getenv(name) : NULL;
        if (value == NULL)
            continue;
        parser->given[i] = true;
        if (!(row->kind == KIND_TEXTS ? set_texts : set_value)(parser, row, name, value))
            return false;
    }
    return true;
}

/* Kubernetes sets these for a Service named rdrived in the same namespace. */
static bool is_from_kubernetes(const char *name)
{
    regex_t shape;
    if (regcomp(&shape, "^RDRIVED(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_[A-Z0-9_]+)$",
                REG_EXTENDED | REG_NOSUB) != 0)
        return false;
    bool matches = regexec(&shape, name, 0, NULL, 0) == 0;
    regfree(&shape);
    return matches;
}

static bool is_an_option(const char *name)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char known[64];
        environment_name(&option_rows[i], known);
        if (takes_value(&option_rows[i]) && strcmp(known, name) == 0)
            return true;
    }
    return false;
}

static void warn_of_unknown(const struct parser *parser, char **environment)
{
    char unknown[512];
    size_t used = 0;
    for (; *environment != NULL; environment++) {
        char name[128];
        size_t len = strcspn(*environment, "=");
        if (strncmp(*environment, "RDRIVED_", 8) != 0 || len >= sizeof(name))
            continue;
        memcpy(name, *environment, len);
        name[len] = '\0';
        if (!is_an_option(name) && !is_from_kubernetes(name) && used + len + 2 < sizeof(unknown))
            used += (size_t)snprintf(unknown + used, sizeof(unknown) - used, " %s", name);
    }
    if (used > 0)
        fprintf(parser->err, "rdrived: warning: no such option, ignored:%s\n", unknown);
}

static void set_standards(struct parser *parser)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (!parser->given[i] && option_rows[i].standard != NULL)
            set_value(parser, &option_rows[i], option_rows[i].name, option_rows[i].standard);
    struct config *config = parser->config;
    if (config->threads == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        config->threads = cores < 1 ? 1 : cores > 64 ? 64 : (uint64_t)cores;
    }
    if (config->chunk_bytes == 0)
        config->chunk_bytes = config->max_response_bytes < M ? config->max_response_bytes : M;
}

static bool check_together(const struct parser *parser)
{
    const struct config *config = parser->config;
    if (config->store_path == NULL || *config->store_path == '\0') {
        fputs("rdrived: no STORE given: rdrived STORE [options]; rdrived --help lists them\n", parser->err);
        return false;
    }
    if (config->chunk_bytes > config->max_response_bytes) {
        fprintf(parser->err, "rdrived: --chunk-bytes %llu is more than --max-response-bytes %llu; lower the first\n",
                (unsigned long long)config->chunk_bytes, (unsigned long long)config->max_response_bytes);
        return false;
    }
    return true;
}

enum options_result options_parse(int argc, char **argv, char **environment, FILE *out, FILE *err,
                                  struct config *out_config)
{
    *out_config = (struct config){0};
    struct parser parser = {.config = out_config, .out = out, .err = err};
    enum options_result result = parse_arguments(&parser, argc, argv);
    if (result != OPTIONS_RUN)
        return result;
    if (!parse_environment(&parser))
        return OPTIONS_WRONG;
    warn_of_unknown(&parser, environment);
    set_standards(&parser);
    return check_together(&parser) ? OPTIONS_RUN : OPTIONS_WRONG;
}
