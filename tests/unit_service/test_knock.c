/* The listeners' watchdog, against listeners that answer, and that fail in each way there is. */
#include "accept.h"
#include "knock.h"
#include "support.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS     60000 /* what takes this long hangs */
#define SETTINGS    "\0\0\0\4\0\0\0\0\0"
#define ALERT       "\x15\3\3\0\2\2\x28"
#define HELLO_BYTES 4096

enum manner {
    UNSERVED = -1, /* bound, and no thread behind it */
    ANSWERS,
    ANSWERS_IN_PIECES,
    ANSWERS_EVERY_OTHER,
    CLOSES,
    SPEAKS_OTHERWISE,
    IS_SILENT,
    ANSWERS_HELLO, /* with an alert, which is a record too */
    RUNS_SHORT,    /* accepts by accept4, without descriptors to spare */
};

/* A listener that somebody else serves: a thread here. */
struct fake {
    int fd;
    int stop_fd;
    pthread_t thread;
    atomic_int manner; /* enum manner */
    atomic_uint knocks;
    atomic_bool wrong_hello;
};

struct scene {
    struct config config;
    struct server server;
    struct fake fakes[4];
    struct knock knock;
    void **state;
    int stderr_fd; /* the real one, while the log goes to a file */
};

static const struct knock_timing patient = {.every_ms = 1, .again_ms = 1, .patience_ms = WAIT_MS};
static const struct knock_timing impatient = {.every_ms = 1, .again_ms = 1, .patience_ms = 100};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Fake listeners --------------------------------------------------------------------------------------------- */

static void say(int peer, const char *bytes, size_t len)
{
    ssize_t ignored = send(peer, bytes, len, MSG_NOSIGNAL);
    (void)ignored;
}

/* Read until the peer closes, or the test ends. */
static void wait_for_end(struct fake *fake, int peer)
{
    char some[64];
    struct pollfd fds[] = {{.fd = peer, .events = POLLIN}, {.fd = fake->stop_fd, .events = POLLIN}};
    while (poll(fds, 2, WAIT_MS) > 0 && fds[1].revents == 0 && recv(peer, some, sizeof some, 0) > 0)
        ;
}

static void take_hello(struct fake *fake, int peer)
{
    uint8_t hello[HELLO_BYTES];
    ssize_t len = recv(peer, hello, sizeof hello, 0); /* written at once, so it comes so */
    bool good = len > 5 && hello[0] == 22 && hello[1] == 3 && (hello[3] << 8 | hello[4]) == len - 5 && hello[5] == 1;
    if (len > 0 && !good) /* else the watch ended before it was sent */
        atomic_store(&fake->wrong_hello, true);
    say(peer, ALERT, sizeof ALERT - 1);
}

static void receive(struct fake *fake, int peer, enum manner manner, unsigned number)
{
    switch (manner) {
    case ANSWERS_EVERY_OTHER:
        if (number % 2 == 0)
            return;
        say(peer, SETTINGS, 9);
        break;
    case ANSWERS: say(peer, SETTINGS, 9); break;
    case ANSWERS_IN_PIECES:
        for (int i = 0; i < 9; i++)
            say(peer, &SETTINGS[i], 1);
        break;
    case SPEAKS_OTHERWISE: say(peer, "HTTP/1.1 200 OK\r\n", 17); break;
    case ANSWERS_HELLO: take_hello(fake, peer); break;
    case IS_SILENT: break;
    case UNSERVED:
    case CLOSES:
    case RUNS_SHORT: return;
    }
    wait_for_end(fake, peer);
}

static void *serve(void *argument)
{
    struct fake *fake = argument;
    for (;;) {
        struct pollfd fds[] = {{.fd = fake->fd, .events = POLLIN}, {.fd = fake->stop_fd, .events = POLLIN}};
        if (poll(fds, 2, -1) > 0 && fds[1].revents != 0)
            return NULL;
        enum manner manner = (enum manner)atomic_load(&fake->manner);
        int peer = manner == RUNS_SHORT ? accept4(fake->fd, NULL, NULL, 0) : accept(fake->fd, NULL, NULL);
        unsigned number = atomic_fetch_add(&fake->knocks, 1);
        if (peer < 0)
            continue;
        receive(fake, peer, manner, number);
        close(peer);
    }
}

static struct fake *add_fake(struct scene *scene, const struct sockaddr *address, socklen_t len, int manner)
{
    struct server *server = &scene->server;
    struct fake *fake = &scene->fakes[server->listener_count];
    fake->fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    fake->stop_fd = eventfd(0, EFD_CLOEXEC);
    EXPECT(fake->fd >= 0 && fake->stop_fd >= 0 && bind(fake->fd, address, len) == 0 && listen(fake->fd, 16) == 0,
           "listening");
    atomic_store(&fake->manner, manner);
    server->listeners[server->listener_count++].fd = fake->fd;
    if (manner != UNSERVED)
        assert_int_equal(pthread_create(&fake->thread, NULL, serve, fake), 0);
    return fake;
}

static struct fake *add_tcp(struct scene *scene, const char *host, int manner)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    inet_pton(AF_INET, host, &address.sin_addr);
    return add_fake(scene, (struct sockaddr *)&address, sizeof address, manner);
}

static struct fake *add_unix(struct scene *scene, const char *path, int manner)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return add_fake(scene, (struct sockaddr *)&address, sizeof address, manner);
}

/* ---- A scene: the log goes to a file ------------------------------------------------------------------------------
 */

static struct scene *begin(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    EXPECT(scene != NULL, "memory");
    scene->state = state;
    scene->server.config = &scene->config;
    scene->stderr_fd = -1;
    return scene;
}

static void watch(struct scene *scene, const struct knock_timing *timing)
{
    int log = open(temp_path(scene->state, "log"), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    scene->stderr_fd = dup(STDERR_FILENO);
    dup2(log, STDERR_FILENO);
    close(log);
    bool started = knock_start(&scene->knock, &scene->server, timing);
    if (!started)
        dup2(scene->stderr_fd, STDERR_FILENO);
    EXPECT(started, "no watch");
}

/* How often the log names an event. */
static unsigned logged(struct scene *scene, const char *event)
{
    AUTO_BYTES log = file_load(temp_path(scene->state, "log"));
    unsigned count = 0;
    size_t len = strlen(event);
    for (size_t at = 0; at + len <= log.len; at++)
        count += memcmp(log.data + at, event, len) == 0;
    return count;
}

static void unwatch(struct scene *scene)
{
    knock_stop(&scene->knock);
    dup2(scene->stderr_fd, STDERR_FILENO);
    close(scene->stderr_fd);
}

static void end(struct scene *scene)
{
    uint64_t one = 1;
    for (size_t i = 0; i < scene->server.listener_count; i++) {
        struct fake *fake = &scene->fakes[i];
        ssize_t ignored = write(fake->stop_fd, &one, sizeof one);
        (void)ignored;
        if (fake->thread != 0)
            pthread_join(fake->thread, NULL);
        close(fake->fd);
        close(fake->stop_fd);
    }
    free(scene);
}

static bool await_up(struct scene *scene, bool up)
{
    int64_t until = now_ms() + WAIT_MS;
    while (knock_all_up(&scene->knock) != up && now_ms() < until)
        poll(NULL, 0, 1);
    return knock_all_up(&scene->knock) == up;
}

static bool await_knocks(const struct fake *fake, unsigned more)
{
    unsigned wanted = atomic_load(&fake->knocks) + more;
    int64_t until = now_ms() + WAIT_MS;
    while (atomic_load(&fake->knocks) < wanted && now_ms() < until)
        poll(NULL, 0, 1);
    return atomic_load(&fake->knocks) >= wanted;
}

/* Five knocks pass without a line in the log. */
static void expect_up(void **state, struct scene *scene, const struct fake *fake, const char *which)
{
    watch(scene, &patient);
    bool knocked = await_knocks(fake, 6); /* the fifth is over when the sixth comes */
    bool up = knock_all_up(&scene->knock);
    unwatch(scene);
    EXPECT(knocked && up, "%s", which);
    EXPECT(file_len(temp_path(state, "log")) == 0, "%s", which);
}

/* It is found dead, told of once, and told of again when it answers (`fixed`, or never where it is negative). */
static void expect_dead(struct scene *scene, struct fake *fake, int fixed, const char *which)
{
    int manner = atomic_load(&fake->manner);
    watch(scene, manner == IS_SILENT || manner == UNSERVED ? &impatient : &patient); /* the others end by themselves */
    bool died = await_up(scene, false);
    bool more = manner == UNSERVED || await_knocks(fake, 4);
    if (fixed >= 0)
        atomic_store(&fake->manner, fixed);
    bool revived = fixed < 0 || await_up(scene, true);
    unwatch(scene);
    EXPECT(died && more && revived, "%s: died %d, revived %d", which, died, revived);
    EXPECT(logged(scene, "event=\"listener dead\"") == 1, "%s", which);
    EXPECT(logged(scene, "event=\"listener up again\"") == (fixed >= 0), "%s", which);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------ */

static void a_listener_that_answers_stays_up_and_the_log_silent(void **state)
{
    static const enum manner manners[] = {ANSWERS, ANSWERS_IN_PIECES};
    for (size_t i = 0; i < 2; i++) {
        struct scene *scene = begin(state);
        expect_up(state, scene, add_tcp(scene, "127.0.0.1", manners[i]), "TCP");
        end(scene);
        scene = begin(state);
        expect_up(state, scene, add_unix(scene, temp_path(state, i == 0 ? "a" : "b"), manners[i]), "unix");
        end(scene);
    }
}

static void a_wildcard_address_is_knocked_at_on_the_loopback(void **state)
{
    struct scene *scene = begin(state);
    expect_up(state, scene, add_tcp(scene, "0.0.0.0", ANSWERS), "0.0.0.0");
    EXPECT(strncmp(scene->knock.doors[0].name, "0.0.0.0:", 8) == 0, "%s", scene->knock.doors[0].name);
    end(scene);
    int v6 = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    if (v6 < 0) /* a system without it */
        return;
    close(v6);
    scene = begin(state);
    expect_up(state, scene, add_fake(scene, (struct sockaddr *)&address, sizeof address, ANSWERS), "[::]");
    EXPECT(strncmp(scene->knock.doors[0].name, "[::]:", 5) == 0, "%s", scene->knock.doors[0].name);
    end(scene);
}

static void one_miss_between_answers_is_no_death(void **state)
{
    struct scene *scene = begin(state);
    expect_up(state, scene, add_tcp(scene, "127.0.0.1", ANSWERS_EVERY_OTHER), "every other");
    end(scene);
}

static void two_misses_are_told_once_and_an_answer_is_told_then(void **state)
{
    static const struct {
        enum manner manner;
        const char *name;
    } rows[] = {{CLOSES, "closes"}, {SPEAKS_OTHERWISE, "speaks HTTP/1"}, {IS_SILENT, "is silent"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct scene *scene = begin(state);
        expect_dead(scene, add_tcp(scene, "127.0.0.1", rows[i].manner), ANSWERS_IN_PIECES, rows[i].name);
        end(scene);
        unlink(temp_path(state, "log"));
    }
}

static void a_socket_nobody_listens_on_is_dead(void **state)
{
    struct scene *scene = begin(state);
    struct fake *fake = add_tcp(scene, "127.0.0.1", UNSERVED);
    shutdown(fake->fd, SHUT_RD);
    expect_dead(scene, fake, -1, "refuses");
    end(scene);
    unlink(temp_path(state, "log"));
    scene = begin(state);
    fake = add_unix(scene, temp_path(state, "gone"), UNSERVED);
    unlink(temp_path(state, "gone"));
    expect_dead(scene, fake, -1, "removed");
    end(scene);
}

static void a_queue_of_connections_that_nobody_takes_is_dead(void **state)
{
    struct scene *scene = begin(state);
    expect_dead(scene, add_tcp(scene, "127.0.0.1", UNSERVED), -1, "the kernel alone answers");
    end(scene);
}

static void a_tls_listener_is_greeted_and_any_record_is_its_answer(void **state)
{
    struct scene *scene = begin(state);
    scene->config.tls_cert = "some";
    struct fake *fake = add_tcp(scene, "127.0.0.1", ANSWERS_HELLO);
    expect_up(state, scene, fake, "alert");
    EXPECT(!atomic_load(&fake->wrong_hello), "that was no ClientHello");
    end(scene);
}

static void a_tls_listener_that_speaks_plain_is_dead_and_a_unix_socket_is_plain(void **state)
{
    struct scene *scene = begin(state);
    scene->config.tls_cert = "some";
    add_unix(scene, temp_path(state, "a"), ANSWERS);
    struct fake *fake = add_tcp(scene, "127.0.0.1", ANSWERS);
    expect_dead(scene, fake, -1, "plain");
    EXPECT(atomic_load(&scene->knock.doors[0].up) && !atomic_load(&scene->knock.doors[1].up), "the TCP one alone");
    end(scene);
}

static void a_connection_refused_for_want_of_descriptors_is_an_answer(void **state)
{
    enum { LIMIT = 256, FREE_FROM = LIMIT - LIMIT / ACCEPT_HEADROOM_PART };
    struct rlimit limit;
    int fillers[LIMIT];
    size_t count = 0;
    uint64_t before = accept_refused();
    struct scene *scene = begin(state);
    struct fake *fake = add_tcp(scene, "127.0.0.1", RUNS_SHORT);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t was = limit.rlim_cur;
    limit.rlim_cur = LIMIT;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    do
        fillers[count] = dup(STDIN_FILENO);
    while (fillers[count++] < FREE_FROM);
    watch(scene, &patient);
    bool knocked = await_knocks(fake, 6);
    bool up = knock_all_up(&scene->knock);
    unwatch(scene);
    while (count > 0)
        close(fillers[--count]);
    limit.rlim_cur = was;
    setrlimit(RLIMIT_NOFILE, &limit);
    EXPECT(knocked && up, "it was heard");
    EXPECT(accept_refused() >= before + 5, "each was refused");
    EXPECT(logged(scene, "event=\"listener dead\"") == 0, "dead");
    EXPECT(logged(scene, "event=\"connections refused\"") >= 1, "untold");
    end(scene);
}

static void it_stops_at_once_amid_a_knock_and_between_two(void **state)
{
    static const struct knock_timing rare = {.every_ms = WAIT_MS, .again_ms = WAIT_MS, .patience_ms = WAIT_MS};
    struct scene *scene = begin(state);
    struct fake *fake = add_tcp(scene, "127.0.0.1", IS_SILENT);
    watch(scene, &patient);
    bool knocked = await_knocks(fake, 1);
    int64_t begun = now_ms();
    unwatch(scene);
    int64_t took = now_ms() - begun;
    EXPECT(knocked && took < WAIT_MS / 4, "amid a knock: %lld ms", (long long)took);
    scene->knock = (struct knock){0};
    watch(scene, &rare);
    begun = now_ms();
    unwatch(scene);
    took = now_ms() - begun;
    EXPECT(took < WAIT_MS / 4, "between two: %lld ms", (long long)took);
    knock_stop(&scene->knock); /* once more does nothing */
    EXPECT(logged(scene, "event=") == 0, "what was cut short is no miss");
    end(scene);
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void nothing_is_left_open(void **state)
{
    unsigned before = open_descriptors();
    one_miss_between_answers_is_no_death(state);
    it_stops_at_once_amid_a_knock_and_between_two(state);
    accept_end(); /* the reserve, which a shortage took */
    EXPECT(open_descriptors() == before, "%u before, %u after", before, open_descriptors());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(a_listener_that_answers_stays_up_and_the_log_silent),
        TEMP_TEST(a_wildcard_address_is_knocked_at_on_the_loopback),
        TEMP_TEST(one_miss_between_answers_is_no_death),
        TEMP_TEST(two_misses_are_told_once_and_an_answer_is_told_then),
        TEMP_TEST(a_socket_nobody_listens_on_is_dead),
        TEMP_TEST(a_queue_of_connections_that_nobody_takes_is_dead),
        TEMP_TEST(a_tls_listener_is_greeted_and_any_record_is_its_answer),
        TEMP_TEST(a_tls_listener_that_speaks_plain_is_dead_and_a_unix_socket_is_plain),
        TEMP_TEST(nothing_is_left_open),
        TEMP_TEST(it_stops_at_once_amid_a_knock_and_between_two),
        TEMP_TEST(a_connection_refused_for_want_of_descriptors_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
