/* The options that are numbers and words: defaults, limits, units, and the environment. */
#include "parsing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The table, as the design has it. */
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
    {"max-request-bytes", "RDRIVED_MAX_REQUEST_BYTES", FIELD(max_request_bytes), 16 * MIB, 64 * KIB, GIB, true,
     "64K to 1G, with K, M or G"},
    {"max-response-bytes", "RDRIVED_MAX_RESPONSE_BYTES", FIELD(max_response_bytes), 4 * MIB, 64 * KIB, 2 * GIB - 1,
     true, "64K to 2147483647, with K, M or G"},
    {"scrub-rate", "RDRIVED_SCRUB_RATE", FIELD(scrub_rate), 32 * MIB, 0, 1024 * GIB, true,
     "0 to 1024G, with K, M or G"},
    {"max-inflight", "RDRIVED_MAX_INFLIGHT", FIELD(max_inflight), 4096, 1, 1000000, false, "1 to 1000000"},
    {"max-memory", "RDRIVED_MAX_MEMORY", FIELD(max_memory), 256 * MIB, 16 * MIB, 1024 * GIB, true, "16M to 1024G"},
    {"max-value-bytes", "RDRIVED_MAX_VALUE_BYTES", FIELD(max_value_bytes), GIB, 64 * KIB, 1024 * GIB, true,
     "64K to 1024G"},
    {"max-queued-bytes", "RDRIVED_MAX_QUEUED_BYTES", FIELD(max_queued_bytes), 256 * MIB, MIB, 1024 * GIB, true,
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
    EXPECT(config->chunk_bytes == MIB, "%llu", (unsigned long long)config->chunk_bytes);
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
            EXPECT(parsed.config.chunk_bytes == (lowers_chunk && k == 0 ? 64 * KIB : MIB), "the chunk follows");
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
    } units[] = {{"64K", 64 * KIB}, {"64k", 64 * KIB}, {"2M", 2 * MIB}, {"1g", GIB}, {"1G", GIB}, {"65536", 64 * KIB}};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        OPTIONS_TEST(what_is_not_said_is_as_the_design_says),
        OPTIONS_TEST(numbers_are_taken_up_to_their_limits_and_not_beyond),
        OPTIONS_TEST(what_is_no_number_is_refused),
        OPTIONS_TEST(sizes_take_units_and_counts_do_not),
        OPTIONS_TEST(choices_are_words_of_the_list),
        OPTIONS_TEST(the_mode_is_octal),
        OPTIONS_TEST(the_environment_says_what_the_command_line_does_not),
        OPTIONS_TEST(help_and_version_answer_and_name_every_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
