/* What the daemon can be told: defaults, limits, the environment, and what it says of anything else. */
#include "message.h"
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARGUMENTS_MAX 40

extern char **environ;

/* One parse; `config` is static since the environment's pieces live as long as it. */
static struct {
    struct config config;
    enum options_result result;
    char *out;
    char *err;
} parsed;

static int setup(void **state)
{
    (void)state;
    clearenv();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(parsed.out);
    free(parsed.err);
    parsed.out = parsed.err = NULL;
    return 0;
}

/* Parse a command line, its words separated by blanks, after "rdrived". */
static void parse(const char *line)
{
    static char words[4096];
    char *argv[ARGUMENTS_MAX + 1] = {(char *)(uintptr_t) "rdrived"};
    int argc = 1;
    size_t out_len;
    size_t err_len;
    teardown(NULL);
    snprintf(words, sizeof words, "%s", line);
    for (char *rest = words, *word; (word = strsep(&rest, " ")) != NULL && argc < ARGUMENTS_MAX;)
        argv[argc++] = word;
    FILE *out = open_memstream(&parsed.out, &out_len);
    FILE *err = open_memstream(&parsed.err, &err_len);
    char *none[] = {NULL}; /* clearenv leaves no list at all, which no process begins with */
    parsed.result = options_parse(argc, argv, environ != NULL ? environ : none, out, err, &parsed.config);
    fclose(out);
    fclose(err);
}

static void expect_run(const char *line)
{
    parse(line);
    EXPECT(parsed.result == OPTIONS_RUN, "%s: %s", line, parsed.err);
    EXPECT(parsed.err[0] == '\0', "%s: %s", line, parsed.err);
}

/* Refused, in one line that holds each of `says`. */
static void expect_wrong(const char *line, const char *says, const char *says_too)
{
    parse(line);
    EXPECT(parsed.result == OPTIONS_WRONG, "%s", line);
    EXPECT(strncmp(parsed.err, "rdrived: ", 9) == 0, "%s", parsed.err);
    EXPECT(strchr(parsed.err, '\n') == parsed.err + strlen(parsed.err) - 1, "more than a line: %s", parsed.err);
    EXPECT(strstr(parsed.err, says) != NULL, "%s: '%s' is missing in %s", line, says, parsed.err);
    EXPECT(strstr(parsed.err, says_too) != NULL, "%s: '%s' is missing in %s", line, says_too, parsed.err);
    EXPECT(parsed.out[0] == '\0', "%s", parsed.out);
}

/* ---- The table, as the design has it ------------------------------------------------------------------------------
 */

#define K           1024ull
#define M           (1024 * K)
#define G           (1024 * M)
#define FIELD(name) offsetof(struct config, name)

static const struct row {
    const char *name;
    const char *environment;
    size_t field;
    uint64_t standard;
    uint64_t min;
    uint64_t max;
    bool bytes;
    const char *allowed; /* as a message says it */
} rows[] = {
    {"threads", "RDRIVED_THREADS", FIELD(threads), 0, 1, 64, false, "1 to 64"},
    {"max-batch-keys", "RDRIVED_MAX_BATCH_KEYS", FIELD(max_batch_keys), 1000000, 1, 100000000, false, "1 to 100000000"},
    {"max-request-bytes", "RDRIVED_MAX_REQUEST_BYTES", FIELD(max_request_bytes), 16 * M, 64 * K, G, true,
     "64K to 1G, with K, M or G"},
    {"max-response-bytes", "RDRIVED_MAX_RESPONSE_BYTES", FIELD(max_response_bytes), 4 * M, 64 * K, 2 * G - 1, true,
     "64K to 2147483647, with K, M or G"},
    {"scrub-rate", "RDRIVED_SCRUB_RATE", FIELD(scrub_rate), 32 * M, 0, 1024 * G, true, "0 to 1024G, with K, M or G"},
    {"max-inflight", "RDRIVED_MAX_INFLIGHT", FIELD(max_inflight), 4096, 1, 1000000, false, "1 to 1000000"},
    {"max-memory", "RDRIVED_MAX_MEMORY", FIELD(max_memory), 256 * M, 16 * M, 1024 * G, true, "16M to 1024G"},
    {"max-value-bytes", "RDRIVED_MAX_VALUE_BYTES", FIELD(max_value_bytes), G, 64 * K, 1024 * G, true, "64K to 1024G"},
    {"max-queued-bytes", "RDRIVED_MAX_QUEUED_BYTES", FIELD(max_queued_bytes), 256 * M, M, 1024 * G, true,
     "1M to 1024G"},
    {"stall-timeout", "RDRIVED_STALL_TIMEOUT", FIELD(stall_timeout_s), 60, 0, 86400, false, "0 to 86400"},
    {"slow-ms", "RDRIVED_SLOW_MS", FIELD(slow_ms), 0, 0, 3600000, false, "0 to 3600000"},
    {"max-connection-age", "RDRIVED_MAX_CONNECTION_AGE", FIELD(max_connection_age_s), 0, 0, 31536000, false,
     "0 to 31536000"},
    {"drain-delay", "RDRIVED_DRAIN_DELAY", FIELD(drain_delay_s), 0, 0, 3600, false, "0 to 3600"},
    {"drain-grace", "RDRIVED_DRAIN_GRACE", FIELD(drain_grace_s), 20, 1, 3600, false, "1 to 3600"},
};
#define ROWS (sizeof rows / sizeof rows[0])

static uint64_t number_of(const struct row *row)
{
    return *(uint64_t *)((char *)&parsed.config + row->field);
}

static void what_is_not_said_is_as_the_design_says(void **state)
{
    (void)state;
    const struct config *config = &parsed.config;
    expect_run("/store");
    EXPECT(strcmp(config->store_path, "/store") == 0, "%s", config->store_path);
    EXPECT(config->listen.count == 1 && strcmp(config->listen.at[0], "127.0.0.1:50051") == 0, "%s",
           config->listen.at[0]);
    EXPECT(config->verify == RD_VERIFY_FIRST, "%d", config->verify);
    EXPECT(strcmp(config->index, "auto") == 0, "%s", config->index);
    EXPECT(config->log_format == LOG_LOGFMT && config->log_level == LOG_INFO, "log");
    EXPECT(config->unix_mode == 0660, "%o", (unsigned)config->unix_mode);
    EXPECT(!config->writable && !config->create && !config->probe, "a flag is set");
    EXPECT(config->sync.mode == RD_SYNC_ALWAYS, "%d", config->sync.mode);
    EXPECT(config->tls_cert == NULL && config->tls_key == NULL && config->tls_client_ca == NULL, "TLS");
    EXPECT(config->allow_writer.count == 0, "%zu", config->allow_writer.count);
    EXPECT(config->chunk_bytes == M, "%llu", (unsigned long long)config->chunk_bytes);
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].field != FIELD(threads))
            EXPECT(number_of(&rows[i]) == rows[i].standard, "%s is %llu", rows[i].name,
                   (unsigned long long)number_of(&rows[i]));
    uint64_t cores = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
    EXPECT(config->threads == (cores > 64 ? 64 : cores), "%llu", (unsigned long long)config->threads);
}

static void numbers_are_taken_up_to_their_limits_and_not_beyond(void **state)
{
    (void)state;
    char line[200];
    for (size_t i = 0; i < ROWS; i++) {
        const struct row *row = &rows[i];
        const uint64_t good[] = {row->min, row->max};
        const uint64_t wrong[] = {row->min - 1, row->max + 1, UINT64_MAX};
        bool lowers_chunk = row->field == FIELD(max_response_bytes);
        for (size_t k = 0; k < 2; k++) {
            snprintf(line, sizeof line, "/store --%s%s%llu", row->name, k == 0 ? "=" : " ",
                     (unsigned long long)good[k]);
            expect_run(line);
            EXPECT(number_of(row) == good[k], "%s", line);
            EXPECT(parsed.config.chunk_bytes == (lowers_chunk && k == 0 ? 64 * K : M), "the chunk follows");
        }
        for (size_t k = row->min == 0 ? 1 : 0; k < 3; k++) {
            snprintf(line, sizeof line, "/store --%s %llu", row->name, (unsigned long long)wrong[k]);
            expect_wrong(line, row->name, row->allowed);
        }
    }
}

static void what_is_no_number_is_refused(void **state)
{
    (void)state;
    static const char *const words[] = {"",
                                        "-1",
                                        "+5",
                                        "5 ",
                                        "0x10",
                                        "1e3",
                                        "five",
                                        "64KB",
                                        "64Q",
                                        "1.5",
                                        "K",
                                        "64 K",
                                        "1KK",
                                        "99999999999999999999",
                                        "18446744073709551616",
                                        "5\n",
                                        "1,2",
                                        "''"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        for (size_t k = 0; k < ROWS; k++) {
            char value[64];
            setenv(rows[k].environment, words[i], 1); /* blanks and all */
            snprintf(value, sizeof value, "'%s' is not allowed", words[i]);
            if (strcmp(words[i], "5\n") == 0) {
                parse("/store");
                EXPECT(parsed.result == OPTIONS_WRONG, "%s", rows[k].name);
            } else {
                expect_wrong("/store", value, rows[k].environment);
            }
            clearenv();
        }
    }
}

static void sizes_take_units_and_counts_do_not(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } units[] = {{"64K", 64 * K}, {"64k", 64 * K}, {"2M", 2 * M}, {"1g", G}, {"1G", G}, {"65536", 64 * K}};
    char line[100];
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        snprintf(line, sizeof line, "/store --max-request-bytes %s", units[i].text);
        expect_run(line);
        EXPECT(parsed.config.max_request_bytes == units[i].bytes, "%s", line);
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (!rows[i].bytes) {
            snprintf(line, sizeof line, "/store --%s 1K", rows[i].name);
            expect_wrong(line, rows[i].name, "'1K' is not allowed");
        }
    }
    expect_wrong("/store --max-memory 17179869184G", "max-memory", "not allowed"); /* 2^64: not 0 */
    expect_wrong("/store --max-memory 17179869185G", "max-memory", "not allowed");
}

static void choices_are_words_of_the_list(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *const words[5];
        size_t field;
    } choices[] = {{"verify", {"first", "always", "off"}, FIELD(verify)},
                   {"log-format", {"logfmt", "json"}, FIELD(log_format)},
                   {"log-level", {"error", "warn", "info", "debug"}, FIELD(log_level)}};
    char line[100];
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        for (int k = 0; choices[i].words[k] != NULL; k++) {
            snprintf(line, sizeof line, "/store --%s=%s", choices[i].name, choices[i].words[k]);
            expect_run(line);
            EXPECT(*(int *)((char *)&parsed.config + choices[i].field) == k, "%s", line);
            snprintf(line, sizeof line, "/store --%s=%sx", choices[i].name, choices[i].words[k]);
            expect_wrong(line, choices[i].name, choices[i].words[0]);
        }
        snprintf(line, sizeof line, "/store --%s=", choices[i].name);
        expect_wrong(line, choices[i].name, choices[i].words[1]);
    }
}

static void the_mode_is_octal(void **state)
{
    (void)state;
    expect_run("/store --unix-mode 0600");
    EXPECT(parsed.config.unix_mode == 0600, "%o", (unsigned)parsed.config.unix_mode);
    expect_run("/store --unix-mode 777");
    EXPECT(parsed.config.unix_mode == 0777, "%o", (unsigned)parsed.config.unix_mode);
    expect_wrong("/store --unix-mode 1000", "unix-mode", "0 to 0777, octal");
    expect_wrong("/store --unix-mode 0680", "unix-mode", "0 to 0777, octal");
    expect_wrong("/store --unix-mode u=rw", "unix-mode", "0 to 0777, octal");
}

static void addresses_are_host_and_port_or_a_socket(void **state)
{
    (void)state;
    static const char *const good[] = {"127.0.0.1:0", "[::1]:65535", "localhost:1", "unix:/s", "unix:s", "unix:/a:b"};
    static const char *const wrong[] = {"",      "50051",   ":50051", "host:",    "host:65536", "host:-1",
                                        "unix:", "host:1x", "host",   "host:+80", "/socket"};
    char line[100];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(line, sizeof line, "/store --listen=%s", good[i]);
        expect_run(line);
        EXPECT(parsed.config.listen.count == 1 && strcmp(parsed.config.listen.at[0], good[i]) == 0, "%s", line);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(line, sizeof line, "/store --listen=%s", wrong[i]);
        expect_wrong(line, "--listen", "host:port or unix:/path");
    }
}

static void listen_may_be_repeated_sixteen_times(void **state)
{
    (void)state;
    char line[2000] = "/store";
    for (size_t i = 0; i <= LISTEN_MAX; i++) {
        size_t used = strlen(line);
        snprintf(line + used, sizeof line - used, " --listen unix:/%zu", i);
        if (i == LISTEN_MAX) {
            expect_wrong(line, "--listen", "at most 16");
            break;
        }
        expect_run(line);
        EXPECT(parsed.config.listen.count == i + 1, "%zu", parsed.config.listen.count);
    }
}

static void a_flag_is_on_where_it_stands_or_as_its_value_says(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        bool on;
    } words[] = {{"true", true},   {"1", true},  {"yes", true}, {"on", true},   {"TRUE", true},
                 {"false", false}, {"0", false}, {"no", false}, {"off", false}, {"Off", false}};
    char line[100];
    expect_run("--writable /store"); /* the word behind it is no value of it */
    EXPECT(parsed.config.writable && strcmp(parsed.config.store_path, "/store") == 0, "%s", parsed.config.store_path);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        snprintf(line, sizeof line, "/store --writable=%s", words[i].word);
        expect_run(line);
        EXPECT(parsed.config.writable == words[i].on, "%s", line);
        setenv("RDRIVED_WRITABLE", words[i].word, 1);
        expect_run("/store");
        EXPECT(parsed.config.writable == words[i].on, "RDRIVED_WRITABLE=%s", words[i].word);
        snprintf(line, sizeof line, "/store --writable=%s", words[i].on ? "false" : "true");
        expect_run(line);
        EXPECT(parsed.config.writable == !words[i].on, "the command line wins: %s", line);
        clearenv();
    }
    expect_wrong("/store --writable=maybe", "--writable", "nothing, true or false");
    expect_wrong("/store --writable=", "--writable", "nothing, true or false");
    setenv("RDRIVED_CREATE", "2", 1);
    expect_wrong("/store", "RDRIVED_CREATE", "nothing, true or false");
    clearenv();
    expect_wrong("/store --create", "--create", "--writable");
    expect_run("/store --create --writable");
    EXPECT(parsed.config.create, "create");
}

static void sync_is_a_word_or_an_interval(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        rd_sync mode;
        uint32_t interval_ms;
    } good[] = {{"always", RD_SYNC_ALWAYS, 0},
                {"none", RD_SYNC_NONE, 0},
                {"interval:1", RD_SYNC_INTERVAL, 1},
                {"interval:3600000", RD_SYNC_INTERVAL, 3600000}};
    static const char *const wrong[] = {"",           "never",       "interval",         "interval:",  "interval:0",
                                        "interval:x", "interval:1s", "interval:3600001", "interval:-1"};
    char line[100];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(line, sizeof line, "/store --sync %s", good[i].value);
        expect_run(line);
        EXPECT(parsed.config.sync.mode == good[i].mode, "%s", line);
        EXPECT(parsed.config.sync.interval_ms == good[i].interval_ms, "%s", line);
        setenv("RDRIVED_SYNC", good[i].value, 1);
        expect_run("/store");
        EXPECT(parsed.config.sync.mode == good[i].mode, "RDRIVED_SYNC=%s", good[i].value);
        clearenv();
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(line, sizeof line, "/store --sync=%s", wrong[i]);
        expect_wrong(line, "--sync", "always, none, or interval:<ms>");
    }
}

/* Whoever reaches a plain address that takes writes may write. */
static void writing_is_for_this_machine_or_for_certified_names(void **state)
{
    (void)state;
    static const char *const local[] = {"127.0.0.1:1", "127.255.0.9:1", "localhost:1",
                                        "LocalHost:1", "[::1]:1",       "unix:/s"};
    static const char *const reached[] = {"0.0.0.0:1",     "[::]:1",       "10.0.0.1:1",   "example.org:1",
                                          "127.0.0.1.x:1", "1270.0.0.1:1", "[::ffff:1]:1", "localhost.x:1"};
    char line[200];
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++) {
        snprintf(line, sizeof line, "/store --writable --listen %s", local[i]);
        expect_run(line);
    }
    for (size_t i = 0; i < sizeof reached / sizeof reached[0]; i++) {
        snprintf(line, sizeof line, "/store --listen %s", reached[i]);
        expect_run(line); /* reading is for everybody */
        snprintf(line, sizeof line, "/store --writable --listen unix:/s --listen %s", reached[i]);
        expect_wrong(line, reached[i], "--tls-cert");
        snprintf(line, sizeof line,
                 "/store --writable --listen %s --tls-cert c --tls-key k --tls-client-ca a --allow-writer n",
                 reached[i]);
        expect_run(line);
    }
}

static void tls_is_whole_or_not_at_all(void **state)
{
    (void)state;
    expect_run("/store --tls-cert c --tls-key k");
    EXPECT(strcmp(parsed.config.tls_cert, "c") == 0 && strcmp(parsed.config.tls_key, "k") == 0, "the pair");
    expect_run("/store --tls-cert c --tls-key k --tls-client-ca a");
    expect_wrong("/store --tls-cert c", "--tls-cert", "--tls-key");
    expect_wrong("/store --tls-key k", "--tls-cert", "--tls-key");
    expect_wrong("/store --tls-client-ca a", "--tls-client-ca", "--tls-cert");
    expect_wrong("/store --writable --tls-cert c --tls-key k", "--writable", "--allow-writer");
    expect_wrong("/store --writable --tls-cert c --tls-key k --tls-client-ca a", "--writable", "--allow-writer");
    expect_wrong("/store --writable --tls-cert c --tls-key k --allow-writer n", "--allow-writer", "--tls-client-ca");
}

static void writers_are_names(void **state)
{
    (void)state;
    expect_run("/store --allow-writer a.example --allow-writer cn:x");
    EXPECT(parsed.config.allow_writer.count == 2, "%zu", parsed.config.allow_writer.count);
    EXPECT(strcmp(parsed.config.allow_writer.at[1], "cn:x") == 0, "%s", parsed.config.allow_writer.at[1]);
    setenv("RDRIVED_ALLOW_WRITER", "a,spiffe://b/c", 1);
    expect_run("/store");
    EXPECT(parsed.config.allow_writer.count == 2, "%zu", parsed.config.allow_writer.count);
    EXPECT(strcmp(parsed.config.allow_writer.at[1], "spiffe://b/c") == 0, "%s", parsed.config.allow_writer.at[1]);
    setenv("RDRIVED_ALLOW_WRITER", "a,,b", 1);
    expect_wrong("/store", "RDRIVED_ALLOW_WRITER", "'' is not allowed");
    clearenv();
    expect_wrong("/store --allow-writer=", "--allow-writer", "DNS or URI name");
    expect_wrong("/store --allow-writer=cn:", "--allow-writer", "DNS or URI name");
}

/* It needs no store, nor anything to fit the rest: it asks another daemon. */
static void a_probe_takes_an_address_or_the_first_in_force(void **state)
{
    (void)state;
    expect_run("--probe");
    EXPECT(parsed.config.probe && parsed.config.probe_address == NULL, "no address");
    EXPECT(strcmp(parsed.config.listen.at[0], "127.0.0.1:50051") == 0, "%s", parsed.config.listen.at[0]);
    expect_run("--probe 127.0.0.1:7");
    EXPECT(parsed.config.probe && strcmp(parsed.config.probe_address, "127.0.0.1:7") == 0, "an address apart");
    expect_run("--probe=unix:/s");
    EXPECT(parsed.config.probe && strcmp(parsed.config.probe_address, "unix:/s") == 0, "an address behind =");
    expect_run("--probe --listen unix:/s");
    EXPECT(parsed.config.probe && parsed.config.probe_address == NULL, "an option is no address");
    EXPECT(strcmp(parsed.config.listen.at[0], "unix:/s") == 0, "%s", parsed.config.listen.at[0]);
    setenv("RDRIVED_LISTEN", "unix:/t,127.0.0.1:7", 1);
    expect_run("--probe");
    EXPECT(strcmp(parsed.config.listen.at[0], "unix:/t") == 0, "%s", parsed.config.listen.at[0]);
    clearenv();
    expect_run("--probe --create");
    expect_wrong("--probe nowhere", "--probe", "host:port or unix:/path");
    expect_wrong("--probe=", "--probe", "host:port or unix:/path");
    parse("/store");
    EXPECT(!parsed.config.probe, "not asked for");
}

static void the_chunk_fits_the_answer(void **state)
{
    (void)state;
    expect_run("/store --chunk-bytes 4K");
    EXPECT(parsed.config.chunk_bytes == 4 * K, "%llu", (unsigned long long)parsed.config.chunk_bytes);
    expect_run("/store --chunk-bytes 64K --max-response-bytes 64K");
    expect_run("/store --chunk-bytes 2M");
    expect_wrong("/store --chunk-bytes 65K --max-response-bytes 64K", "--chunk-bytes", "--max-response-bytes");
    expect_wrong("/store --chunk-bytes 5M", "--chunk-bytes", "--max-response-bytes");
    expect_wrong("/store --chunk-bytes 4095", "--chunk-bytes", "4K to");
}

static void the_environment_says_what_the_command_line_does_not(void **state)
{
    (void)state;
    char value[40];
    for (size_t i = 0; i < ROWS; i++) {
        snprintf(value, sizeof value, "%llu", (unsigned long long)rows[i].max);
        setenv(rows[i].environment, value, 1);
        expect_run("/store");
        EXPECT(number_of(&rows[i]) == rows[i].max, "%s", rows[i].environment);
        char line[100];
        snprintf(line, sizeof line, "/store --%s %llu", rows[i].name, (unsigned long long)rows[i].min);
        expect_run(line);
        EXPECT(number_of(&rows[i]) == rows[i].min, "the command line wins: %s", line);
        clearenv();
    }
    setenv("RDRIVED_VERIFY", "never", 1);
    expect_wrong("/store", "RDRIVED_VERIFY", "first, always, off");
}

static void a_list_in_the_environment_is_cut_at_commas(void **state)
{
    (void)state;
    setenv("RDRIVED_LISTEN", "127.0.0.1:1,unix:/a,[::1]:2", 1);
    expect_run("/store");
    EXPECT(parsed.config.listen.count == 3, "%zu", parsed.config.listen.count);
    EXPECT(strcmp(parsed.config.listen.at[1], "unix:/a") == 0, "%s", parsed.config.listen.at[1]);
    EXPECT(strcmp(parsed.config.listen.at[2], "[::1]:2") == 0, "%s", parsed.config.listen.at[2]);
    expect_run("/store --listen unix:/b");
    EXPECT(parsed.config.listen.count == 1 && strcmp(parsed.config.listen.at[0], "unix:/b") == 0, "the line wins");
    setenv("RDRIVED_LISTEN", "127.0.0.1:1,,unix:/a", 1);
    expect_wrong("/store", "RDRIVED_LISTEN", "'' is not allowed");
    setenv("RDRIVED_LISTEN", "nowhere", 1);
    expect_wrong("/store", "RDRIVED_LISTEN", "'nowhere' is not allowed");
}

static void what_kubernetes_injects_is_passed_over_and_the_rest_is_one_warning(void **state)
{
    (void)state;
    static const char *const injected[] = {"RDRIVED_SERVICE_HOST",        "RDRIVED_SERVICE_PORT",
                                           "RDRIVED_SERVICE_PORT_GRPC",   "RDRIVED_PORT",
                                           "RDRIVED_PORT_50051_TCP",      "RDRIVED_PORT_50051_TCP_ADDR",
                                           "RDRIVED_PORT_50051_TCP_PORT", "RDRIVED_PORT_50051_TCP_PROTO",
                                           "RDRIVED_READER_SERVICE_HOST", "RDRIVED_READER_PORT_9464_TCP"};
    for (size_t i = 0; i < sizeof injected / sizeof injected[0]; i++)
        setenv(injected[i], "tcp://10.0.0.1:50051", 1);
    setenv("RDRIVEDX", "1", 1);
    setenv("OTHER_RDRIVED_THING", "1", 1);
    expect_run("/store");
    setenv("RDRIVED_THREAD", "3", 1);
    setenv("RDRIVED_HELP", "1", 1);
    setenv("RDRIVED_PORTS", "1", 1);
    setenv("RDRIVED_", "1", 1);
    parse("/store");
    EXPECT(parsed.result == OPTIONS_RUN, "a warning is no error");
    EXPECT(strchr(parsed.err, '\n') == parsed.err + strlen(parsed.err) - 1, "one line: %s", parsed.err);
    for (size_t i = 0; i < sizeof injected / sizeof injected[0]; i++) {
        char word[64];
        snprintf(word, sizeof word, " %s ", injected[i]);
        EXPECT(strstr(parsed.err, word) == NULL, "%s", parsed.err);
    }
    EXPECT(strstr(parsed.err, "RDRIVED_THREAD") != NULL && strstr(parsed.err, "RDRIVED_HELP") != NULL &&
               strstr(parsed.err, "RDRIVED_PORTS") != NULL && strstr(parsed.err, "warning") != NULL,
           "%s", parsed.err);
}

static void a_wrong_command_line_is_one_line_that_helps(void **state)
{
    (void)state;
    expect_wrong("/store --treads 3", "--treads", "--help");
    expect_wrong("/store --threads", "--threads needs a value", "1 to 64");
    expect_wrong("/store -t 3", "-t", "--help");
    expect_wrong("/store --thread=3", "--thread", "--help");
    expect_wrong("/store other", "'other'", "/store");
    expect_wrong("--threads 3", "no STORE", "--help");
    expect_wrong("", "no STORE", "--help");
    expect_run("-- --odd-name");
    EXPECT(strcmp(parsed.config.store_path, "--odd-name") == 0, "%s", parsed.config.store_path);
    expect_run("--threads 3 /store --drain-grace 5");
}

static void help_and_version_answer_and_name_every_option(void **state)
{
    (void)state;
    parse("--version");
    EXPECT(parsed.result == OPTIONS_DONE && strncmp(parsed.out, "rdrived ", 8) == 0, "%s", parsed.out);
    parse("/store --help");
    EXPECT(parsed.result == OPTIONS_DONE && parsed.err[0] == '\0', "%s", parsed.err);
    for (size_t i = 0; i < ROWS; i++) {
        char name[64];
        snprintf(name, sizeof name, "--%s ", rows[i].name);
        EXPECT(strstr(parsed.out, name) != NULL, "%s", name);
        EXPECT(strstr(parsed.out, rows[i].allowed) != NULL, "%s: %s", name, rows[i].allowed);
    }
}

#define OPTIONS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        OPTIONS_TEST(what_is_not_said_is_as_the_design_says),
        OPTIONS_TEST(numbers_are_taken_up_to_their_limits_and_not_beyond),
        OPTIONS_TEST(what_is_no_number_is_refused),
        OPTIONS_TEST(sizes_take_units_and_counts_do_not),
        OPTIONS_TEST(choices_are_words_of_the_list),
        OPTIONS_TEST(the_mode_is_octal),
        OPTIONS_TEST(addresses_are_host_and_port_or_a_socket),
        OPTIONS_TEST(listen_may_be_repeated_sixteen_times),
        OPTIONS_TEST(a_flag_is_on_where_it_stands_or_as_its_value_says),
        OPTIONS_TEST(sync_is_a_word_or_an_interval),
        OPTIONS_TEST(writing_is_for_this_machine_or_for_certified_names),
        OPTIONS_TEST(tls_is_whole_or_not_at_all),
        OPTIONS_TEST(writers_are_names),
        OPTIONS_TEST(a_probe_takes_an_address_or_the_first_in_force),
        OPTIONS_TEST(the_chunk_fits_the_answer),
        OPTIONS_TEST(the_environment_says_what_the_command_line_does_not),
        OPTIONS_TEST(a_list_in_the_environment_is_cut_at_commas),
        OPTIONS_TEST(what_kubernetes_injects_is_passed_over_and_the_rest_is_one_warning),
        OPTIONS_TEST(a_wrong_command_line_is_one_line_that_helps),
        OPTIONS_TEST(help_and_version_answer_and_name_every_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
