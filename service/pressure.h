/**
 * The last bound on memory: where it grows beyond what the limits allow, the connections that cost most are dropped.
 *
 * The core's quota knows the messages that are arriving, and little else. A connection may send headers without end,
 * a million of them in a few megabytes, or calls that it resets at once, or watches that it leaves open, faster than
 * they are dealt with: a client that acknowledges no settings is held to no limit at all, and takes hundreds of
 * megabytes a second. A thread looks at what the process holds, and where that is more than
 *   what it held when serving began, twice the index, twice --max-memory and --max-request-bytes, --max-queued-bytes,
 *   --max-response-bytes, and PRESSURE_SLACK,
 * it resets the connections that cost most: whose calls are open, where those explain what is held, or else who brought
 * most bytes since memory began to grow that reached no method of ours. Their calls end, and what they hold is freed.
 * Where that doesn't help, those who cost less are next. Calls whose request is not wholly there are known to the core
 * alone: they count by their bytes. Unix sockets are spared: the kernel doesn't count there, and who comes by one is no
 * stranger.
 */
#ifndef PRESSURE_H
#define PRESSURE_H

#include "server.h"

#define PRESSURE_SLACK      ((uint64_t)64 << 20)
#define PRESSURE_COST_MIN   ((uint64_t)32 << 10) /* who costs less is innocent, whatever the others did */
#define PRESSURE_CALL_BYTES ((uint64_t)11 << 10) /* what an open call takes here and in the core */
#define PRESSURE_LOOK_MS    50
#define PRESSURE_REST_MS    2000 /* for what was dropped to be freed; before, only further growth drops more */
#define PRESSURE_ROUND_MAX  16

/* What is held, and by whom. */
struct pressure_scene {
    uint64_t grown; /* bytes held beyond those when serving began */
    uint64_t local; /* calls open by unix sockets */
    unsigned round; /* drops before that didn't help */
};

/**
 * Choose who is dropped: `received` of each connection is what it brought and didn't reach us, `calls` how many
 * of its calls are open. Puts the chosen first, the costliest of them at the front. Returns: how many.
 */
size_t pressure_choose(struct traffic *list, size_t count, const struct pressure_scene *scene);

struct pressure {
    struct server *server;
    rd_store *store;
    uint64_t begun;   /* bytes held when serving began, the index apart */
    uint64_t allowed; /* beyond that and the index */
    /* of the thread alone: */
    uint64_t index; /* its bytes, as of index_ms */
    int64_t index_ms;
    bool growing;
    struct traffic *earlier; /* what each connection had brought when memory began to grow */
    size_t earlier_count;
    uint64_t dropped_held; /* bytes held when connections were last dropped */
    int64_t dropped_ms;
    unsigned round; /* drops since memory was last within the limit */
    int stop_fd;
    pthread_t thread;
    bool running;
};

/**
 * Look after memory from now on. Requires: `pressure` is zeroed; `store` is open, and stays until pressure_stop.
 * Returns: whether it does; if not, the log says why.
 */
bool pressure_start(struct pressure *pressure, struct server *server, rd_store *store);

/* End at once. Does nothing where it never started, or has stopped. One thread. */
void pressure_stop(struct pressure *pressure);

#endif
