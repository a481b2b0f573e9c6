#include "pressure.h"
#include "clock.h"
#include "memory.h"
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* The sanitizers hold many times what the program does. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OVERHEAD 16
#else
#define OVERHEAD 1
#endif
#define INDEX_MS 1000 /* its size is asked for so often */

static uint64_t index_bytes(const struct pressure *pressure)
{
    rd_store_info info;
    return rd_store_info_get(pressure->store, &info) == RD_OK ? info.index_bytes : 0;
}

/* ---- who costs most ---- */

static int by_cookie(const void *left, const void *right)
{
    const struct traffic *a = left;
    const struct traffic *b = right;
    return (a->cookie > b->cookie) - (a->cookie < b->cookie);
}

static int dearest_first(const void *left, const void *right)
{
    const struct traffic *a = left;
    const struct traffic *b = right;
    return (a->cost < b->cost) - (a->cost > b->cost);
}

size_t pressure_choose(struct traffic *list, size_t count, const struct pressure_scene *scene)
{
    uint64_t half = scene->grown / 2;
    uint64_t calls = 0;
    size_t chosen = 0;
    for (size_t i = 0; i < count; i++)
        calls += list[i].calls;
    if (scene->local * PRESSURE_CALL_BYTES >= half)
        return 0; /* theirs, who are spared, and nobody else's */
    /* Bytes may be gone, or under the core's quota; so they only count where open calls don't explain what is held. */
    bool bytes_count = calls * PRESSURE_CALL_BYTES < half;
    for (size_t i = 0; i < count; i++)
        list[i].cost = list[i].calls * PRESSURE_CALL_BYTES + (bytes_count ? list[i].received : 0);
    if (count > 0)
        qsort(list, count, sizeof(*list), dearest_first);
    while (chosen < count && list[chosen].cost >= PRESSURE_COST_MIN &&
           list[chosen].cost >= list[0].cost >> (1 + scene->round))
        chosen++;
    return chosen;
}

static void forget(struct pressure *pressure)
{
    free(pressure->earlier);
    pressure->earlier = NULL;
    pressure->earlier_count = 0;
    pressure->growing = false;
    pressure->round = 0;
    atomic_store(&pressure->server->count_peers, false);
    census_forget();
}

/* Memory grows: from now on it counts who brings what, and queues count their calls. */
static void remember(struct pressure *pressure)
{
    pressure->growing = true;
    census_forget(); /* what came since a queue saw that counting had ended */
    pressure->earlier_count = listen_traffic(pressure->server, &pressure->earlier);
    if (pressure->earlier_count > 0)
        qsort(pressure->earlier, pressure->earlier_count, sizeof(*pressure->earlier), by_cookie);
    for (size_t i = 0; i < pressure->server->queue_count; i++) /* of the last time */
        free(atomic_exchange(&pressure->server->queues[i].census, NULL));
    atomic_store(&pressure->server->count_peers, true);
}

/* Bytes that a connection brought since `earlier`, all of them where it is newer, and that have not reached us. */
static uint64_t undelivered(const struct pressure *pressure, const struct traffic *now)
{
    const struct traffic *was = NULL;
    if (pressure->earlier_count > 0)
        was = bsearch(now, pressure->earlier, pressure->earlier_count, sizeof(*now), by_cookie);
    uint64_t bytes = was == NULL ? now->received : now->received - was->received;
    uint64_t reached = census_delivered(&now->peer);
    return bytes > reached ? bytes - reached : 0;
}

static bool all_counted(const struct server *server)
{
    for (size_t i = 0; i < server->queue_count; i++)
        if (atomic_load(&server->queues[i].census) == NULL)
            return false;
    return true;
}

/* Give each connection its open calls. Returns: how many there are by unix sockets. */
static uint64_t count_calls(struct server *server, struct traffic *list, size_t count)
{
    uint64_t local = 0;
    traffic_sort(list, count);
    for (size_t i = 0; i < server->queue_count; i++) {
        struct census *census = atomic_exchange(&server->queues[i].census, NULL);
        if (census == NULL)
            continue;
        local += census->local;
        for (size_t k = 0; k < census->count; k++) {
            struct traffic *found = traffic_find(list, count, &census->peers[k]);
            if (found != NULL)
                found->calls++;
        }
        free(census);
    }
    return local;
}

static void tell(const struct traffic *first, size_t dropped, uint64_t held, uint64_t limit, uint64_t local)
{
    static struct log_limit log_limit;
    int64_t untold;
    char peer[PEER_TEXT_MAX] = "";
    if (!log_due(&log_limit, &untold))
        return;
    if (dropped == 0) { /* it is by unix sockets, or what was dropped is not freed yet */
        LOG(LOG_WARN, "memory is short", LOG_NUMBER("held_bytes", held), LOG_NUMBER("limit_bytes", limit),
            LOG_NUMBER("dropped_connections", 0), LOG_NUMBER("unix_calls", local), LOG_NUMBER("others_before", untold));
        return;
    }
    peer_text(&first->peer, peer);
    LOG(LOG_WARN, "memory is short", LOG_NUMBER("held_bytes", held), LOG_NUMBER("limit_bytes", limit),
        LOG_NUMBER("dropped_connections", dropped), LOG_TEXT("peer", peer), LOG_NUMBER("open_calls", first->calls),
        LOG_NUMBER("undelivered_bytes", first->received), LOG_NUMBER("others_before", untold));
}

/* Returns: how many were dropped. */
static size_t drop_dearest(struct pressure *pressure, uint64_t held, uint64_t limit)
{
    struct traffic *now = NULL;
    size_t count = listen_traffic(pressure->server, &now);
    size_t dropped = 0;
    for (size_t i = 0; i < count; i++)
        now[i].received = undelivered(pressure, &now[i]);
    struct pressure_scene scene = {
        .grown = held > limit - pressure->allowed ? held - (limit - pressure->allowed) : 0,
        .local = count_calls(pressure->server, now, count),
        .round = pressure->round,
    };
    size_t chosen = pressure_choose(now, count, &scene);
    for (size_t i = 0; i < chosen; i++)
        if (listen_drop(&now[i]))
            dropped++;
    tell(now, dropped, held, limit, scene.local);
    free(now);
    return dropped;
}

/* ---- the thread ---- */

/* Returns: the bytes that the process may hold. */
static uint64_t limit_now(struct pressure *pressure, int64_t now)
{
    if (pressure->index == 0 || now - pressure->index_ms >= INDEX_MS) {
        pressure->index = index_bytes(pressure);
        pressure->index_ms = now;
    }
    return pressure->begun + 2 * pressure->index + pressure->allowed;
}

static void look(struct pressure *pressure)
{
    int64_t now = clock_ms();
    uint64_t held = memory_held();
    uint64_t limit = limit_now(pressure, now);
    if (held < limit - pressure->allowed / 2) {
        if (pressure->growing)
            forget(pressure);
        return;
    }
    if (!pressure->growing)
        remember(pressure);
    if (held <= limit)
        pressure->round = 0;
    bool rests = pressure->dropped_ms != 0 && now - pressure->dropped_ms < PRESSURE_REST_MS;
    if (held <= limit || (rests && held <= pressure->dropped_held))
        return;
    if (held <= limit + pressure->allowed / 2 && !all_counted(pressure->server))
        return;     /* there is time to wait for the queues' next sweep */
    malloc_trim(0); /* what is free and was kept isn't the clients' */
    held = memory_held();
    if (held <= limit)
        return;
    drop_dearest(pressure, held, limit);
    if (!rests && pressure->round < PRESSURE_ROUND_MAX)
        pressure->round++;
    pressure->dropped_ms = now;
    pressure->dropped_held = held + PRESSURE_SLACK / 2;
}

static void *pressure_thread(void *argument)
{
    struct pressure *pressure = argument;
    struct pollfd stop = {.fd = pressure->stop_fd, .events = POLLIN};
    while (poll(&stop, 1, PRESSURE_LOOK_MS) <= 0)
        look(pressure);
    return NULL;
}

bool pressure_start(struct pressure *pressure, struct server *server, rd_store *store)
{
    const struct config *config = server->config;
    *pressure = (struct pressure){.server = server, .store = store};
    uint64_t held = memory_held();
    uint64_t index = index_bytes(pressure);
    pressure->begun = held > index ? held - index : 0;
    pressure->allowed = (2 * (config->max_memory + config->max_request_bytes) + config->max_queued_bytes +
                         config->max_response_bytes + PRESSURE_SLACK) *
                        OVERHEAD;
    /* what a container needs, apart from the store's pages, which the kernel takes back */
    LOG(LOG_INFO, "memory limit", LOG_NUMBER("bytes", limit_now(pressure, clock_ms())));
    pressure->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pressure->stop_fd >= 0) {
        pressure->running = pthread_create(&pressure->thread, NULL, pressure_thread, pressure) == 0;
        if (!pressure->running)
            close(pressure->stop_fd);
    }
    if (!pressure->running)
        LOG(LOG_ERROR, "cannot start", LOG_TEXT("why", "the system refuses a thread"));
    return pressure->running;
}

void pressure_stop(struct pressure *pressure)
{
    uint64_t one = 1;
    if (!pressure->running)
        return;
    ssize_t ignored = write(pressure->stop_fd, &one, sizeof(one)); /* a fresh eventfd always takes it */
    (void)ignored;
    pthread_join(pressure->thread, NULL);
    close(pressure->stop_fd);
    forget(pressure);
    pressure->running = false;
}
