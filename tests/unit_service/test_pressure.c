/* Who is dropped where memory is short, by made-up connections; and what is looked at for it. */
#include "memory.h"
#include "message.h"
#include "pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define MIB         ((uint64_t)1 << 20)
#define CONNECTIONS 8

/* A connection, numbered by its descriptor. */
static struct traffic connection(int fd, uint64_t brought, uint64_t calls)
{
    return (struct traffic){.fd = fd, .received = brought, .calls = calls};
}

static bool is_among(const struct traffic *list, size_t count, int fd)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].fd == fd)
            return true;
    return false;
}

static void expect_chosen(struct traffic *list, size_t count, struct pressure_scene scene, const int *fds,
                          size_t expected)
{
    size_t chosen = pressure_choose(list, count, &scene);
    EXPECT(chosen == expected, "%zu chosen, not %zu", chosen, expected);
    for (size_t i = 0; i < expected; i++)
        EXPECT(is_among(list, chosen, fds[i]), "not %d", fds[i]);
    for (size_t i = 1; i < count; i++)
        EXPECT(list[i - 1].cost >= list[i].cost, "%zu before %zu", i - 1, i);
}
#define EXPECT_CHOSEN(list, scene, ...)                                                                                \
    expect_chosen((list), sizeof(list) / sizeof((list)[0]), (scene), (const int[]){__VA_ARGS__},                       \
                  sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

static void nobody_is_chosen_of_nobody(void **state)
{
    (void)state;
    struct pressure_scene scene = {.grown = 100 * MIB};
    EXPECT(pressure_choose(NULL, 0, &scene) == 0, "some");
}

static void where_calls_explain_what_is_held_bytes_dont_count(void **state)
{
    (void)state;
    struct traffic list[] = {connection(1, 500 * MIB, 1), connection(2, MIB, 4000), connection(3, 0, 2500),
                             connection(4, MIB, 1900), connection(5, 0, 0)};
    EXPECT_CHOSEN(list, ((struct pressure_scene){.grown = 100 * MIB}), 2, 3);
}

static void where_they_dont_bytes_and_calls_count(void **state)
{
    (void)state;
    struct traffic list[] = {connection(1, 20 * MIB, 0), connection(2, 0, 1000), connection(3, 9 * MIB, 0),
                             connection(4, 100, 3)};
    EXPECT_CHOSEN(list, ((struct pressure_scene){.grown = 400 * MIB}), 1, 2);
}

static void who_costs_least_is_spared_whatever_the_others_did(void **state)
{
    (void)state;
    struct traffic list[] = {connection(1, PRESSURE_COST_MIN - 1, 0), connection(2, 0, 2), connection(3, 0, 0)};
    struct pressure_scene scene = {.grown = 400 * MIB, .round = PRESSURE_ROUND_MAX};
    EXPECT(pressure_choose(list, 3, &scene) == 0, "some");
}

static void what_calls_by_unix_sockets_hold_is_nobody_elses(void **state)
{
    (void)state;
    struct traffic list[] = {connection(1, 20 * MIB, 1000)};
    uint64_t local = 50 * MIB / PRESSURE_CALL_BYTES;
    EXPECT_CHOSEN(list, ((struct pressure_scene){.grown = 100 * MIB, .local = local - 1}), 1);
    struct pressure_scene scene = {.grown = 100 * MIB, .local = local + 1};
    EXPECT(pressure_choose(list, 1, &scene) == 0, "some");
}

/* Where dropping the costliest doesn't help, the next are chosen, in the end all who may cost anything. */
static void each_round_chooses_those_who_cost_half_as_much(void **state)
{
    (void)state;
    struct traffic list[CONNECTIONS];
    for (unsigned round = 0; round <= PRESSURE_ROUND_MAX; round++) {
        for (int i = 0; i < CONNECTIONS; i++)
            list[i] = connection(i, (4 * MIB) >> i, 0);
        struct pressure_scene scene = {.grown = 400 * MIB, .round = round};
        size_t expected = round + 2 < CONNECTIONS ? round + 2 : CONNECTIONS;
        size_t chosen = pressure_choose(list, CONNECTIONS, &scene);
        EXPECT(chosen == expected, "round %u: %zu, not %zu", round, chosen, expected);
        EXPECT(list[0].fd == 0, "%d is at the front", list[0].fd);
    }
}

static void a_peer_is_read_as_grpc_writes_it_and_told_as_people_do(void **state)
{
    (void)state;
    static const struct {
        const char *grpc;
        const char *told;
    } rows[] = {{"ipv4:127.0.0.1:50051", "127.0.0.1:50051"},
                {"ipv6:[::1]:65535", "[::1]:65535"},
                {"ipv6:%5B::1%5D:1", "[::1]:1"},
                {"ipv6:%5b2001:db8::7%5d:80", "[2001:db8::7]:80"},
                {"ipv6:[fe80::1%25eth0]:80", "[fe80::1]:80"},
                {"ipv6:%5Bfe80::1%25eth0%5D:80", "[fe80::1]:80"},
                {"ipv6:[::ffff:1.2.3.4]:5", "1.2.3.4:5"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct peer peer;
        char told[PEER_TEXT_MAX];
        EXPECT(peer_parse(rows[i].grpc, &peer), "%s", rows[i].grpc);
        peer_text(&peer, told);
        EXPECT(strcmp(told, rows[i].told) == 0, "%s: %s", rows[i].grpc, told);
    }
}

static void what_is_no_peer_by_tcp_is_refused(void **state)
{
    (void)state;
    static const char *const others[] = {"",
                                         "unix:",
                                         "unix:/run/x:5",
                                         "unknown",
                                         "ipv4:",
                                         "ipv6:",
                                         "ipv4:1.2.3.4",
                                         "ipv4:1.2.3:5",
                                         "ipv4:1.2.3.4:65536",
                                         "ipv6:[::1",
                                         "ipv6:[x]:5",
                                         "ipv6:[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd]:5"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct peer peer;
        EXPECT(!peer_parse(others[i], &peer), "%s", others[i]);
    }
}

static void the_same_peer_by_either_family_is_one(void **state)
{
    (void)state;
    struct peer by_v4, by_v6, other;
    EXPECT(peer_parse("ipv4:1.2.3.4:5", &by_v4) && peer_parse("ipv6:[::ffff:1.2.3.4]:5", &by_v6), "not read");
    EXPECT(peer_parse("ipv4:1.2.3.4:6", &other), "not read");
    EXPECT(peer_compare(&by_v4, &by_v6) == 0, "two");
    EXPECT(peer_compare(&by_v4, &other) < 0 && peer_compare(&other, &by_v4) > 0, "one");
}

static void connections_are_found_by_their_peers(void **state)
{
    (void)state;
    struct traffic list[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) {
        list[i] = connection(i, 0, 0);
        list[i].peer.port = (uint32_t)(i * 5 % CONNECTIONS);
    }
    traffic_sort(list, CONNECTIONS);
    for (uint32_t port = 0; port <= CONNECTIONS; port++) {
        const struct traffic *found = traffic_find(list, CONNECTIONS, &(struct peer){.port = port});
        EXPECT((found != NULL) == (port < CONNECTIONS), "port %u", port);
        EXPECT(found == NULL || found->fd * 5 % CONNECTIONS == (int)port, "port %u", port);
    }
    EXPECT(traffic_find(NULL, 0, &(struct peer){0}) == NULL, "of none");
}

static void memory_is_known_also_where_no_descriptor_is_left(void **state)
{
    (void)state;
    struct rlimit limit;
    EXPECT(memory_prepare(), "%s", strerror(errno));
    EXPECT(getrlimit(RLIMIT_NOFILE, &limit) == 0, "%s", strerror(errno));
    struct rlimit none = {.rlim_cur = 0, .rlim_max = limit.rlim_max};
    EXPECT(setrlimit(RLIMIT_NOFILE, &none) == 0, "%s", strerror(errno));
    bool refused = open("/proc/self/statm", O_RDONLY | O_CLOEXEC) < 0 && errno == EMFILE;
    uint64_t held = memory_held();
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0, "%s", strerror(errno));
    EXPECT(refused, "a descriptor was left");
    EXPECT(held > 0, "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_chosen_of_nobody),
        cmocka_unit_test(where_calls_explain_what_is_held_bytes_dont_count),
        cmocka_unit_test(where_they_dont_bytes_and_calls_count),
        cmocka_unit_test(who_costs_least_is_spared_whatever_the_others_did),
        cmocka_unit_test(what_calls_by_unix_sockets_hold_is_nobody_elses),
        cmocka_unit_test(each_round_chooses_those_who_cost_half_as_much),
        cmocka_unit_test(a_peer_is_read_as_grpc_writes_it_and_told_as_people_do),
        cmocka_unit_test(what_is_no_peer_by_tcp_is_refused),
        cmocka_unit_test(the_same_peer_by_either_family_is_one),
        cmocka_unit_test(connections_are_found_by_their_peers),
        cmocka_unit_test(memory_is_known_also_where_no_descriptor_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
