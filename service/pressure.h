/**
 * The last bound on memory: where it grows beyond what the limits allow, the connections that sent most are dropped.
 *
 * The core's quota knows the messages that are arriving, and little else. A connection may send headers without end,
 * a million of them in a few megabytes, or calls that it resets at once, faster than they are dealt with: a client that
 * acknowledges no settings is held to no limit at all, and takes hundreds of megabytes a second. A thread looks at what
 * the process holds, and where that is more than
 *   what it held when serving began, twice the index, twice --max-memory and --max-request-bytes, --max-queued-bytes,
 *   --max-response-bytes, and PRESSURE_SLACK,
 * it resets the connection that brought most bytes since memory began to grow, with all those that brought half as
 * much or more. Their calls end, and what they hold is freed. Unix sockets are spared: the kernel doesn't count there,
 * and who comes by one is no stranger.
 */
#ifndef PRESSURE_H
#define PRESSURE_H

#include "server.h"

#define PRESSURE_SLACK   ((uint64_t)64 << 20)
#define PRESSURE_BROUGHT ((uint64_t)32 << 10) /* who brought less is innocent, whatever the others did */
#define PRESSURE_LOOK_MS 50
#define PRESSURE_REST_MS 2000 /* for what was dropped to be freed; before, only further growth drops more */

struct pressure {
    const struct server *server;
    rd_store *store;
    uint64_t begun;   /* bytes held when serving began, the index apart */
    uint64_t allowed; /* beyond that and the index */
    /* of the thread alone: */
    uint64_t index; /* its bytes, as of index_ms */
    int64_t index_ms;
    struct traffic *earlier; /* what each connection had brought when memory began to grow; NULL: it doesn't */
    size_t earlier_count;
    uint64_t dropped_held; /* bytes held when connections were last dropped */
    int64_t dropped_ms;
    int stop_fd;
    pthread_t thread;
    bool running;
};

/**
 * Look after memory from now on. Requires: `pressure` is zeroed; `store` is open, and stays until pressure_stop.
 * Returns: whether it does; if not, the log says why.
 */
bool pressure_start(struct pressure *pressure, const struct server *server, rd_store *store);

/* End at once. Does nothing where it never started, or has stopped. One thread. */
void pressure_stop(struct pressure *pressure);

#endif
