#include "pressure.h"
#include "memory.h"
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The sanitizers hold many times what the program does. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OVERHEAD 16
#else
#define OVERHEAD 1
#endif
#define INDEX_MS 1000 /* its size is asked for so often */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t index_bytes(const struct pressure *pressure)
{
    rd_store_info info;
    return rd_store_info_get(pressure->store, &info) == RD_OK ? info.index_bytes : 0;
}

/* ---- who sent most ---- */

static int by_cookie(const void *left, const void *right)
{
    const struct traffic *a = left;
    const struct traffic *b = right;
    return (a->cookie > b->cookie) - (a->cookie < b->cookie);
}

static void forget(struct pressure *pressure)
{
    free(pressure->earlier);
    pressure->earlier = NULL;
    pressure->earlier_count = 0;
}

/* Bytes that a connection brought since `earlier`; all of them where it is newer. */
static uint64_t brought(const struct pressure *pressure, const struct traffic *now)
{
    const struct traffic *was = NULL;
    if (pressure->earlier_count > 0)
        was = bsearch(now, pressure->earlier, pressure->earlier_count, sizeof(*now), by_cookie);
    return was == NULL ? now->received : now->received - was->received;
}

/* Returns: how many were dropped. */
static size_t drop_busiest(struct pressure *pressure, uint64_t held, uint64_t limit)
{
    struct traffic *now = NULL;
    size_t count = listen_traffic(pressure->server, &now);
    uint64_t most = 0;
    size_t dropped = 0;
    for (size_t i = 0; i < count; i++) {
        now[i].received = brought(pressure, &now[i]);
        most = now[i].received > most ? now[i].received : most;
    }
    for (size_t i = 0; most >= PRESSURE_BROUGHT && i < count; i++)
        if (now[i].received >= PRESSURE_BROUGHT && now[i].received >= most / 2 && listen_drop(&now[i]))
            dropped++;
    free(now);
    if (dropped > 0)
        LOG(LOG_WARN, "memory is short", LOG_NUMBER("held_bytes", held), LOG_NUMBER("limit_bytes", limit),
            LOG_NUMBER("dropped_connections", dropped), LOG_NUMBER("brought_bytes", most));
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
    int64_t now = now_ms();
    uint64_t held = memory_held();
    uint64_t limit = limit_now(pressure, now);
    if (held < limit - pressure->allowed / 2) {
        forget(pressure);
        return;
    }
    if (pressure->earlier == NULL) {
        pressure->earlier_count = listen_traffic(pressure->server, &pressure->earlier);
        if (pressure->earlier_count > 0)
            qsort(pressure->earlier, pressure->earlier_count, sizeof(*pressure->earlier), by_cookie);
    }
    bool rests = pressure->dropped_ms != 0 && now - pressure->dropped_ms < PRESSURE_REST_MS;
    if (held <= limit || (rests && held <= pressure->dropped_held))
        return;
    malloc_trim(0); /* what is free and was kept isn't the clients' */
    held = memory_held();
    if (held > limit && drop_busiest(pressure, held, limit) > 0) {
        pressure->dropped_ms = now;
        pressure->dropped_held = held + PRESSURE_SLACK / 2;
    }
}

static void *pressure_thread(void *argument)
{
    struct pressure *pressure = argument;
    struct pollfd stop = {.fd = pressure->stop_fd, .events = POLLIN};
    while (poll(&stop, 1, PRESSURE_LOOK_MS) <= 0)
        look(pressure);
    return NULL;
}

bool pressure_start(struct pressure *pressure, const struct server *server, rd_store *store)
{
    const struct config *config = server->config;
    *pressure = (struct pressure){.server = server, .store = store};
    uint64_t held = memory_held();
    uint64_t index = index_bytes(pressure);
    pressure->begun = held > index ? held - index : 0;
    pressure->allowed = (2 * (config->max_memory + config->max_request_bytes) + config->max_queued_bytes +
                         config->max_response_bytes + PRESSURE_SLACK) *
                        OVERHEAD;
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
