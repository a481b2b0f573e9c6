#include "options_internal.h"
#include <ctype.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const verify_choices[] = {
    [RD_VERIFY_FIRST] = "first", [RD_VERIFY_ALWAYS] = "always", [RD_VERIFY_OFF] = "off", NULL};
static const char *const format_choices[] = {[LOG_LOGFMT] = "logfmt", [LOG_JSON] = "json", NULL};
static const char *const level_choices[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug", NULL};

#define FIELD(name) offsetof(struct config, name)

/* `standard` is read like a value from the user; NULL: filled in by set_standards. */
static const struct option_row option_rows[] = {
    {"listen", KIND_ADDRESSES, FIELD(listen), "127.0.0.1:50051", 0, 0, NULL,
     "address to serve on: host:port or unix:/path; repeatable"},
    {"writable", KIND_FLAG, FIELD(writable), NULL, 0, 0, NULL,
     "take the store's writer lock and offer the writer service: to whoever connects to a loopback or unix address, "
     "or, with TLS, to callers whose certificate has a name in --allow-writer"},
    {"create", KIND_FLAG, FIELD(create), NULL, 0, 0, NULL, "with --writable: make an empty store where there is none"},
    {"sync", KIND_SYNC, FIELD(sync), "always", 0, 3600000, NULL,
     "when a write is durable: before it is answered, within so many milliseconds, or when the kernel likes"},
    {"verify", KIND_CHOICE, FIELD(verify), "first", 0, 0, verify_choices,
     "check payload checksums: once an entry and open, at each read, or only what opening checks"},
    {"index", KIND_INDEX, FIELD(index), "auto", 0, 0, NULL,
     "the snapshot index that saves reading the whole store at start, where it can be trusted: STORE.idx, none, or "
     "another file; rdrive index makes one"},
    {"scrub-rate", KIND_BYTES, FIELD(scrub_rate), "32M", 0, 1024 * GIB, NULL,
     "bytes a second at which payloads above 64K, which opening leaves unchecked, are checked in the background; 0: "
     "off"},
    {"max-value-bytes", KIND_BYTES, FIELD(max_value_bytes), "1G", 64 * KIB, 1024 * GIB, NULL,
     "the largest value that may be written; WriteStream gathers up to 1M of each in memory, and what is more in an "
     "unnamed file beside the store"},
    {"threads", KIND_COUNT, FIELD(threads), NULL, 1, 64, NULL,
     "threads that serve calls, each with its own completion queue; default: cores"},
    {"max-batch-keys", KIND_COUNT, FIELD(max_batch_keys), "1000000", 1, 100000000, NULL, "keys one batch may name"},
    {"max-request-bytes", KIND_BYTES, FIELD(max_request_bytes), "16M", 64 * KIB, GIB, NULL,
     "serialized bytes of one request"},
    {"max-response-bytes", KIND_BYTES, FIELD(max_response_bytes), "4M", 64 * KIB, 2 * GIB - 1, NULL,
     "serialized bytes of one unary answer; larger values travel by the streaming calls"},
    {"chunk-bytes", KIND_BYTES, FIELD(chunk_bytes), NULL, 4 * KIB, 2 * GIB - 1, NULL,
     "bytes of one streamed message, at most --max-response-bytes; default: 1M, or that if it is less"},
    {"max-inflight", KIND_COUNT, FIELD(max_inflight), "4096", 1, 1000000, NULL,
     "calls served at once; more are answered UNAVAILABLE; health, reflection and GetStoreInfo are never shed; one "
     "connection has a quarter of them at most, or 100 if that is more, and its further calls wait in the client"},
    {"max-memory", KIND_BYTES, FIELD(max_memory), "256M", 16 * MIB, 1024 * GIB, NULL,
     "memory for requests that are still arriving, and again as much for what calls keep while they are served; the "
     "process may hold 2 x (this + --max-request-bytes + the index) + --max-queued-bytes + --max-response-bytes + 64M, "
     "beyond which it resets the connections that cost most"},
    {"max-queued-bytes", KIND_BYTES, FIELD(max_queued_bytes), "256M", MIB, 1024 * GIB, NULL,
     "copied bytes of answers not sent yet, over all calls: at the limit streams wait in order of arrival"},
    {"stall-timeout", KIND_COUNT, FIELD(stall_timeout_s), "60", 0, 86400, NULL,
     "seconds after which a call ends with RESOURCE_EXHAUSTED that waits for its client, to take of its answer or to "
     "send of its upload, while their connection moves next to nothing; over unix sockets, no whole message; 0: never"},
    {"max-connection-age", KIND_COUNT, FIELD(max_connection_age_s), "0", 0, 31536000, NULL,
     "seconds until a connection is asked to be made anew, so that clients rebalance; 0: never"},
    {"drain-delay", KIND_COUNT, FIELD(drain_delay_s), "0", 0, 3600, NULL,
     "seconds after SIGTERM during which health says NOT_SERVING and all is still served"},
    {"drain-grace", KIND_COUNT, FIELD(drain_grace_s), "20", 1, 3600, NULL,
     "seconds, after the delay, for open calls to end"},
    {"unix-mode", KIND_OCTAL, FIELD(unix_mode), "0660", 0, 0777, NULL, "permissions of unix sockets"},
    {"tls-cert", KIND_PATH, FIELD(tls_cert), NULL, 0, 0, NULL,
     "certificate chain, PEM: TLS on every TCP listener; read anew when it changes"},
    {"tls-key", KIND_PATH, FIELD(tls_key), NULL, 0, 0, NULL, "its private key, PEM"},
    {"tls-client-ca", KIND_PATH, FIELD(tls_client_ca), NULL, 0, 0, NULL,
     "certificates, PEM, one of which must have signed every caller's"},
    {"allow-writer", KIND_NAMES, FIELD(allow_writer), NULL, 0, 0, NULL,
     "who may write, by a name in the verified certificate; repeatable; plain callers may not then"},
    {"log-format", KIND_CHOICE, FIELD(log_format), "logfmt", 0, 0, format_choices, "how log lines look"},
    {"log-level", KIND_CHOICE, FIELD(log_level), "info", 0, 0, level_choices, "the least urgent line to log"},
    {"slow-ms", KIND_COUNT, FIELD(slow_ms), "0", 0, 3600000, NULL,
     "log each call that takes as many milliseconds or more, however it ends, without its keys; 0: none"},
    {"probe", KIND_PROBE, FIELD(probe), NULL, 0, 0, NULL,
     "ask the daemon at the address (default: the first --listen in force) whether it serves: exit status 0 or 1"},
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

static bool takes_value(const struct option_row *row)
{
    return row->kind < KIND_PROBE;
}

static bool refuse(const struct parser *parser, const struct option_row *row, const char *source, const char *value)
{
    char allowed[ALLOWED_MAX];
    option_describe(row, allowed);
    fprintf(parser->err, "rdrived: %s: '%s' is not allowed; allowed: %s\n", source, value, allowed);
    return false;
}

static bool set_value(struct parser *parser, const struct option_row *row, const char *source, const char *value)
{
    return option_set(row, value, parser->config) || refuse(parser, row, source, value);
}

static void print_help(FILE *out)
{
    fputs("rdrived STORE [options]: serves a simd-r-drive store over gRPC.\n"
          "Each option that takes a value may also stand in the environment as RDRIVED_<OPTION>, such as\n"
          "RDRIVED_MAX_BATCH_KEYS (repeatable ones comma-separated); the command line wins.\n\n",
          out);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_row *row = &option_rows[i];
        char allowed[ALLOWED_MAX];
        option_describe(row, allowed);
        const char *value = row->kind == KIND_PROBE ? " [ADDRESS]" : row->kind == KIND_FLAG ? "" : " VALUE";
        fprintf(out, "  --%s%s\n      %s\n", row->name, row->kind > KIND_PROBE ? "" : value, row->help);
        if (takes_value(row))
            fprintf(out, "      allowed: %s%s%s\n", allowed, row->standard != NULL ? "; default: " : "",
                    row->standard != NULL ? row->standard : "");
    }
    fputs("\nExit status: 0 after a clean stop, 2 if the store can't be opened or an address can't be served,\n"
          "64 for a wrong option; of --probe 0 or 1.\n",
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
    bool alone = equals == NULL && (row->kind == KIND_FLAG || row->kind == KIND_PROBE);
    if (row->kind == KIND_PROBE) {
        parser->config->probe = true;
        if (alone && *at + 1 < argc && argv[*at + 1][0] != '-')
            equals = argv[++*at] - 1;
        else if (alone)
            return OPTIONS_RUN;
    }
    const char *value = equals != NULL ? equals + 1 : alone ? "true" : *at + 1 < argc ? argv[++*at] : NULL;
    char source[64];
    snprintf(source, sizeof(source), "--%s", row->name);
    if (value == NULL) {
        char allowed[ALLOWED_MAX];
        option_describe(row, allowed);
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

static bool is_repeatable(const struct option_row *row)
{
    return row->kind == KIND_ADDRESSES || row->kind == KIND_NAMES;
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
        if (!(is_repeatable(row) ? set_texts : set_value)(parser, row, name, value))
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
        config->chunk_bytes = config->max_response_bytes < MIB ? config->max_response_bytes : MIB;
}

static bool wrong(const struct parser *parser, const char *text)
{
    fprintf(parser->err, "rdrived: %s\n", text);
    return false;
}

/* Whoever connects to a plain address may write, so those must be of this machine only. */
static bool check_writers(const struct parser *parser)
{
    const struct config *config = parser->config;
    if (config->create && !config->writable)
        return wrong(parser, "--create makes a store to write to; add --writable, or leave it out");
    if (!config->writable)
        return true;
    if (config->tls_cert != NULL && config->allow_writer.count == 0)
        return wrong(parser, "--writable with TLS needs --allow-writer NAME: whose certificates may write");
    if (config->tls_cert != NULL && config->tls_client_ca == NULL)
        return wrong(parser, "--allow-writer with TLS needs --tls-client-ca: without it no caller shows a certificate");
    for (size_t i = 0; config->tls_cert == NULL && i < config->listen.count; i++) {
        if (option_is_local(config->listen.at[i]))
            continue;
        fprintf(parser->err,
                "rdrived: --writable with the plain address %s, where whoever reaches it could write; listen on "
                "127.0.0.1, [::1], localhost or a unix socket, or give --tls-cert, --tls-key, --tls-client-ca and "
                "--allow-writer\n",
                config->listen.at[i]);
        return false;
    }
    return true;
}

static bool check_together(const struct parser *parser)
{
    const struct config *config = parser->config;
    if (config->probe)
        return true;
    if (config->store_path == NULL || *config->store_path == '\0')
        return wrong(parser, "no STORE given: rdrived STORE [options]; rdrived --help lists them");
    if (config->chunk_bytes > config->max_response_bytes) {
        fprintf(parser->err, "rdrived: --chunk-bytes %llu is more than --max-response-bytes %llu; lower the first\n",
                (unsigned long long)config->chunk_bytes, (unsigned long long)config->max_response_bytes);
        return false;
    }
    if ((config->tls_cert == NULL) != (config->tls_key == NULL))
        return wrong(parser, "--tls-cert and --tls-key go together; give both or neither");
    if (config->tls_client_ca != NULL && config->tls_cert == NULL)
        return wrong(parser, "--tls-client-ca needs --tls-cert and --tls-key");
    return check_writers(parser);
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
