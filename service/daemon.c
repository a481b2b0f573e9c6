#include "daemon.h"
#include "accept.h"
#include "clock.h"
#include "knock.h"
#include "memory.h"
#include "pressure.h"
#include "probe.h"
#include "reply.h"
#include "server.h"
#include "storewatch.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define EXIT_NOT_SERVING 1
#define EXIT_CANNOT      2
#define EXIT_USAGE       64
#define DESCRIPTORS_MAX  1000000u
#define OPEN_CANCEL_MS   500 /* after which an opening that doesn't heed its cancel flag is left behind */
#define REFUSE_MS        1000
#define CORE_END_MS      500
#define PROBE_MS         1500
#define LOOK_MS          1000
#define OPEN_FIRST_MS    1000 /* after which an opening is said to go on, and then again and again */
#define OPEN_AGAIN_MS    5000

struct opener {
    pthread_t thread;
    const struct config *config;
    rd_engine *(*wrap)(rd_engine *);
    const struct server *server;
    atomic_bool cancel;
    rd_open_progress progress;
    atomic_bool done;
    rd_err err;
    rd_fault fault;
    rd_engine *engine;
    rd_store *store; /* the engine's */
    rd_store_info info;
};

struct daemon {
    struct config config;
    struct server server;
    struct knock knock;
    struct pressure pressure;
    struct opener opener;
    struct storewatch watch;
    int signal_fd;
    int wake_fd;
    bool hurried; /* a second signal came: drop everything now */
};

extern char **environ;

/* For pthread_timedjoin_np, which goes by the wall clock. */
static struct timespec deadline_after(int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return until;
}

/* ---- opening the store ---- */

static void *open_store(void *argument)
{
    struct opener *opener = argument;
    const struct config *config = opener->config;
    rd_open_options options = {.writable = config->writable,
                               .create = config->create,
                               .sync = config->sync.mode,
                               .sync_interval_ms = config->sync.interval_ms,
                               .max_value_bytes = config->max_value_bytes,
                               .verify = (rd_verify)config->verify,
                               .index = config->index,
                               .scrub_rate = config->scrub_rate,
                               .watch = true,
                               .cancel = &opener->cancel,
                               .progress = &opener->progress};
    rd_store *store = NULL;
    rd_engine *engine = NULL;
    rd_err err = rd_store_open(config->store_path, &options, &opener->fault, &store);
    if (err == RD_OK)
        err = rd_store_info_get(store, &opener->info);
    if (err == RD_OK)
        err = rd_engine_create_local(store, config->threads, &engine);
    if (err != RD_OK)
        rd_store_close(store);
    if (err == RD_OK && opener->wrap != NULL && (engine = opener->wrap(engine)) == NULL)
        err = RD_E_NOMEM;
    if (opener->fault.text[0] == '\0' && err != RD_OK)
        snprintf(opener->fault.text, sizeof(opener->fault.text), "%s: %s", config->store_path, rd_err_text(err));
    opener->err = err;
    opener->store = store;
    opener->engine = engine;
    atomic_store(&opener->done, true);
    server_wake(opener->server);
    return NULL;
}

/* A signal came while the store is being opened: nothing is lost by leaving at once. */
static void abandon_opening(struct daemon *daemon)
{
    struct opener *opener = &daemon->opener;
    struct timespec until = deadline_after(OPEN_CANCEL_MS);
    atomic_store(&opener->cancel, true);
    if (pthread_timedjoin_np(opener->thread, NULL, &until) != 0) {
        LOG(LOG_WARN, "stopped while opening the store");
        listen_release(&daemon->server);
        _exit(EXIT_SUCCESS);
    }
}

/* ---- waiting ---- */

static void drink(int fd)
{
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof(count));
    (void)ignored;
}

/* Wait for a signal or a wake until `deadline_ms`. Returns: the signal, or 0. */
static int wait_event(struct daemon *daemon, int64_t deadline_ms)
{
    struct pollfd fds[] = {{.fd = daemon->signal_fd, .events = POLLIN}, {.fd = daemon->wake_fd, .events = POLLIN}};
    int64_t left = deadline_ms - clock_ms();
    if (left <= 0)
        return 0;
    if (poll(fds, 2, left > INT32_MAX ? INT32_MAX : (int)left) <= 0)
        return 0;
    if (fds[1].revents != 0)
        drink(daemon->wake_fd);
    struct signalfd_siginfo info;
    if (fds[0].revents != 0 && read(daemon->signal_fd, &info, sizeof(info)) == sizeof(info))
        return (int)info.ssi_signo;
    return 0;
}

static bool old_calls_ended(const struct server *server)
{
    return atomic_load(&server->open_calls[0]) == 0;
}

static bool all_ended(const struct server *server)
{
    return server_open_calls(server) == 0 && atomic_load(&server->open_calls[OPEN_WATCHES]) == 0;
}

static bool never(const struct server *server)
{
    (void)server;
    return false;
}

/* Wait until `ended`, the deadline, or a further signal, which hurries all that follows. */
static void wait_until(struct daemon *daemon, bool (*ended)(const struct server *), int64_t deadline_ms)
{
    while (!daemon->hurried && !ended(&daemon->server) && clock_ms() < deadline_ms)
        daemon->hurried = wait_event(daemon, deadline_ms) != 0;
}

/* ---- the drain ---- */

static void drain(struct daemon *daemon, int signal)
{
    struct server *server = &daemon->server;
    const struct config *config = &daemon->config;
    LOG(LOG_INFO, "draining", LOG_TEXT("signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"),
        LOG_NUMBER("open_calls", server_open_calls(server)));
    /* 1: say so, and serve on; then until the calls open at the delay's end have ended */
    health_set(&server->health, false, false);
    if (signal == SIGTERM)
        wait_until(daemon, never, clock_ms() + (int64_t)config->drain_delay_s * 1000);
    atomic_store(&server->tell_ends, true);
    atomic_store(&server->epoch, 1);
    wait_until(daemon, old_calls_ended, clock_ms() + (int64_t)config->drain_grace_s * 1000 - REFUSE_MS);
    /* 2: refuse new calls, so that those still being served are the last */
    knock_stop(&daemon->knock);
    server_refuse(server);
    wait_until(daemon, all_ended, clock_ms() + REFUSE_MS / 2);
    /* and what is still open then can't be waited for */
    size_t left = server_open_calls(server);
    if (left > 0)
        LOG(LOG_WARN, "calls cut off", LOG_NUMBER("open_calls", left),
            LOG_NUMBER("drain_grace", config->drain_grace_s));
    server_drop(server);
    wait_until(daemon, all_ended, clock_ms() + REFUSE_MS / 2);
    LOG(LOG_INFO, "stopping", LOG_NUMBER("open_calls", server_open_calls(server)));
}

/* ---- life ---- */

/* Descriptors are connections. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    rlim_t wanted = limit.rlim_max < DESCRIPTORS_MAX ? limit.rlim_max : DESCRIPTORS_MAX;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Signals are read in one place. Before any thread starts, so that all of them inherit the mask. */
static bool take_signals(struct daemon *daemon)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return false;
    daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    daemon->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return daemon->signal_fd >= 0 && daemon->wake_fd >= 0;
}

static void log_serving(const struct daemon *daemon)
{
    const rd_store_info *info = &daemon->opener.info;
    LOG(LOG_INFO, "serving", LOG_TEXT("version", RDRIVE_VERSION), LOG_NUMBER("pid", getpid()),
        LOG_TEXT("store", daemon->config.store_path), LOG_TEXT("writable", daemon->config.writable ? "yes" : "no"),
        LOG_NUMBER("keys", info->live_keys), LOG_NUMBER("entries", info->entries),
        LOG_NUMBER("file_bytes", info->file_size), LOG_NUMBER("index_bytes", info->index_bytes),
        LOG_TEXT("index", rd_index_text(info->index_source)));
    if (info->unread_bytes > 0)
        LOG(LOG_WARN, "unfinished tail", LOG_NUMBER("offset", info->tail_off), LOG_NUMBER("bytes", info->unread_bytes));
}

/* Look after memory and file until a signal comes. Returns: the signal. */
static int keep(struct daemon *daemon)
{
    struct storewatch_state told = {.whole = true, .writing = daemon->config.writable};
    int64_t memory_due = clock_ms();
    int signal = 0;
    while (signal == 0) {
        if (clock_ms() >= memory_due)
            memory_due = clock_ms() + memory_give_back();
        signal = wait_event(daemon, clock_ms() + LOOK_MS);
        accept_tell();
        struct storewatch_state now = storewatch_look(&daemon->watch);
        if (now.whole != told.whole ||
            now.writing != told.writing) /* a file that was cut is no store to send anybody to */
            health_set(&daemon->server.health, now.whole, now.writing);
        told = now;
    }
    return signal;
}

static void log_opening(const struct daemon *daemon)
{
    uint64_t total = atomic_load(&daemon->opener.progress.bytes_total);
    uint64_t bytes = atomic_load(&daemon->opener.progress.bytes_done);
    double part = total == 0 ? 0 : (double)bytes / (double)total;
    LOG(LOG_INFO, "opening the store", LOG_TEXT("store", daemon->config.store_path), LOG_NUMBER("percent", part * 100),
        LOG_NUMBER("bytes", bytes), LOG_NUMBER("file_bytes", total));
}

/* Returns: the signal that came before it was there, or 0. */
static int wait_for_store(struct daemon *daemon)
{
    int signal = 0;
    int64_t due = clock_ms() + OPEN_FIRST_MS;
    while (signal == 0 && !atomic_load(&daemon->opener.done)) {
        signal = wait_event(daemon, due);
        if (clock_ms() < due)
            continue;
        log_opening(daemon);
        due = clock_ms() + OPEN_AGAIN_MS;
    }
    return signal;
}

/* Wait for the store, then for the signal that ends it all. Returns: the exit status. */
static int serve(struct daemon *daemon)
{
    struct opener *opener = &daemon->opener;
    int signal = wait_for_store(daemon);
    if (signal != 0 && !atomic_load(&opener->done)) {
        abandon_opening(daemon);
        return EXIT_SUCCESS;
    }
    pthread_join(opener->thread, NULL);
    if (opener->err != RD_OK) {
        LOG(LOG_ERROR, "cannot open the store", LOG_TEXT("why", opener->fault.text));
        return EXIT_CANNOT;
    }
    if (!pressure_start(&daemon->pressure, &daemon->server, opener->store))
        return EXIT_CANNOT;
    server_set_engine(&daemon->server, opener->engine);
    log_serving(daemon);
    storewatch_begin(&daemon->watch, opener->store, &opener->info);
    if (signal == 0) /* else it came as the opening ended */
        signal = keep(daemon);
    drain(daemon, signal);
    return EXIT_SUCCESS;
}

static int run(struct daemon *daemon, rd_engine *(*wrap)(rd_engine *))
{
    int status = EXIT_CANNOT;
    struct opener *opener = &daemon->opener;
    *opener = (struct opener){.config = &daemon->config, .wrap = wrap, .server = &daemon->server};
    if (server_start(&daemon->server, &daemon->config, daemon->wake_fd) &&
        knock_start(&daemon->knock, &daemon->server, NULL)) {
        if (pthread_create(&opener->thread, NULL, open_store, opener) == 0)
            status = serve(daemon);
        else
            LOG(LOG_ERROR, "cannot start", LOG_TEXT("why", "the system refuses a thread"));
    }
    pressure_stop(&daemon->pressure);
    knock_stop(&daemon->knock); /* where no drain did */
    if (!server_end(&daemon->server)) {
        LOG(LOG_WARN, "stopped without the engine's last answers");
        _exit(status); /* every client has its status, and nothing unsaved is held */
    }
    return status;
}

static void *core_shutdown(void *unused)
{
    grpc_shutdown_blocking();
    return unused;
}

/**
 * End the core. After a write that found its socket full it waits up to 10 s for a thread that polls, for nothing.
 * Returns: whether it ended within CORE_END_MS.
 */
static bool end_core(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, core_shutdown, NULL) != 0)
        return false;
    struct timespec until = deadline_after(CORE_END_MS);
    return pthread_timedjoin_np(thread, NULL, &until) == 0;
}

/* --probe: the exit status. */
static int probe(const struct config *config)
{
    char why[256] = "--probe: every --listen in force speaks TLS; add --listen unix:/path and probe that";
    const char *address = config->probe_address;
    for (size_t i = 0; address == NULL && i < config->listen.count; i++)
        if (config->tls_cert == NULL || strncmp(config->listen.at[i], "unix:", 5) == 0)
            address = config->listen.at[i];
    if (address != NULL && probe_health(address, PROBE_MS, why, sizeof(why)))
        return EXIT_SUCCESS;
    fprintf(stderr, "rdrived: %s\n", why);
    return EXIT_NOT_SERVING;
}

int daemon_main(int argc, char **argv, rd_engine *(*wrap)(rd_engine *))
{
    static struct daemon daemon; /* large, and one a process */
    switch (options_parse(argc, argv, environ, stdout, stderr, &daemon.config)) {
    case OPTIONS_RUN: break;
    case OPTIONS_DONE: return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_CANNOT;
    case OPTIONS_WRONG: return EXIT_USAGE;
    }
    if (daemon.config.probe)
        return probe(&daemon.config);
    memory_configure();
    log_configure((enum log_level)daemon.config.log_level, (enum log_format)daemon.config.log_format);
    raise_descriptor_limit();
    accept_prepare();
    if (!memory_prepare() || !take_signals(&daemon)) {
        LOG(LOG_ERROR, "cannot start", LOG_TEXT("why", strerror(errno)));
        return EXIT_CANNOT;
    }
    log_adopt_core();
    if (rd_sigbus_install() != RD_OK) { /* before the core's threads: a file may be cut while it is served */
        LOG(LOG_ERROR, "cannot start", LOG_TEXT("why", strerror(errno)));
        return EXIT_CANNOT;
    }
    grpc_init();
    int status = run(&daemon, wrap);
    bool core_ended = end_core();
    if (reply_references() == 0) /* no slice points into the store any more */
        rd_engine_destroy(daemon.opener.engine);
    else
        LOG(LOG_WARN, "stopped without closing the store", LOG_NUMBER("answers_under_way", reply_references()));
    accept_end();
    close(daemon.signal_fd);
    close(daemon.wake_fd);
    LOG(LOG_INFO, "stopped", LOG_NUMBER("status", status));
    if (!core_ended)
        _exit(status); /* its threads are still at work */
    return status;
}
