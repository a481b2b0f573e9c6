/* The options that are more than a number, what they ask of one another, and what is said of a wrong line. */
#include "parsing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    EXPECT(parsed.config.chunk_bytes == 4 * KIB, "%llu", (unsigned long long)parsed.config.chunk_bytes);
    expect_run("/store --chunk-bytes 64K --max-response-bytes 64K");
    expect_run("/store --chunk-bytes 2M");
    expect_wrong("/store --chunk-bytes 65K --max-response-bytes 64K", "--chunk-bytes", "--max-response-bytes");
    expect_wrong("/store --chunk-bytes 5M", "--chunk-bytes", "--max-response-bytes");
    expect_wrong("/store --chunk-bytes 4095", "--chunk-bytes", "4K to");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        OPTIONS_TEST(addresses_are_host_and_port_or_a_socket),
        OPTIONS_TEST(listen_may_be_repeated_sixteen_times),
        OPTIONS_TEST(a_flag_is_on_where_it_stands_or_as_its_value_says),
        OPTIONS_TEST(sync_is_a_word_or_an_interval),
        OPTIONS_TEST(writing_is_for_this_machine_or_for_certified_names),
        OPTIONS_TEST(tls_is_whole_or_not_at_all),
        OPTIONS_TEST(writers_are_names),
        OPTIONS_TEST(a_probe_takes_an_address_or_the_first_in_force),
        OPTIONS_TEST(the_chunk_fits_the_answer),
        OPTIONS_TEST(a_list_in_the_environment_is_cut_at_commas),
        OPTIONS_TEST(what_kubernetes_injects_is_passed_over_and_the_rest_is_one_warning),
        OPTIONS_TEST(a_wrong_command_line_is_one_line_that_helps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
