/* The gRPC server: its queues and their threads, its listeners, the calls it waits for, and how it ends. */
#ifndef SERVER_H
#define SERVER_H

#include "call.h"
#include "census.h"
#include "health.h"
#include "method.h"
#include "options.h"
#include "room.h"
#include "tls.h"
#include <netinet/in.h>
#include <pthread.h>
#include <sys/un.h>

enum server_phase {
    SERVER_SERVING,
    SERVER_REFUSING, /* new connections are refused, new calls answered UNAVAILABLE */
    SERVER_DROPPING, /* and open ones ended with UNAVAILABLE */
    SERVER_STOPPING, /* none are taken any more */
};

/* What is open is counted apart: calls by their epoch, and watches, which no drain's grace waits for. */
enum { OPEN_WATCHES = 2, OPEN_KINDS };

#define SERVER_END_MS 5000
#define LISTENERS_MAX 64 /* an address may resolve to several */

/**
 * Requests for one method that a queue has posted. A call that comes while none is costs the core 2,000 instructions
 * more, and each that is posted costs it some at every event: so their number follows how often the method is called.
 */
struct posts {
    unsigned posted;
    unsigned target; /* POSTS_MAX at most */
    unsigned taken;  /* since the last sweep */
};

struct queue {
    struct server *server;
    grpc_completion_queue *core;
    pthread_t thread;
    bool running;
    /* of this queue's thread alone: */
    struct call *open_calls; /* every call that a client has begun, watches included */
    bool dropped;            /* those were ended: SERVER_DROPPING was seen */
    int64_t now_ms;          /* when its last event came */
    int64_t sweep_ms;        /* when calls were last looked at for stalls */
    struct call *turns;      /* calls that yielded, in order */
    struct call **last_turn; /* the list's end */
    struct call *free_calls;
    size_t free_count;
    atomic_int finishing;               /* calls that have their status, and are open only until that has left */
    struct posts posts[METHOD_MAX + 1]; /* the last: of the unknown method */
    _Atomic(struct census *) census;    /* of any thread: the latest, for whoever takes it out; NULL: none */
};

/* The lock file of a unix socket. */
struct listen_lock {
    int fd;
    char *path;
};

/* Where a socket is bound, as far as it tells listeners apart: TCP by port alone, since a socket may take both
 * families. */
struct listen_place {
    in_port_t port;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* A listening socket of the core's. */
struct listener {
    int fd;
    struct listen_place place;
};

struct server {
    const struct config *config;
    grpc_server *core;
    struct queue *queues;
    size_t queue_count;
    void *registered[METHOD_MAX]; /* the core's handle of methods[i] */
    struct health health;
    struct tls tls;
    struct room room;            /* --max-queued-bytes */
    struct budget budget;        /* --max-memory */
    _Atomic(rd_engine *) engine; /* NULL until the store is open */
    atomic_int phase;            /* enum server_phase */
    atomic_uint epoch;           /* calls that began before and after the drain's delay are counted apart: 0 or 1 */
    atomic_size_t open_calls[OPEN_KINDS];
    atomic_size_t calls;     /* all that may still post a tag: waiting, open and watching */
    atomic_bool count_peers; /* each sweep of a queue leaves a census */
    atomic_bool tell_ends;   /* write to wake_fd when a call ends */
    int wake_fd;             /* an eventfd: the daemon's main thread waits on it */
    struct listen_lock locks[LISTEN_MAX];
    size_t lock_count;
    struct listener listeners[LISTENERS_MAX];
    size_t listener_count;
};

/**
 * Make the server, listen and start serving: NOT_READY until server_set_engine.
 * Returns: whether it serves; if not, the log says why and server_end is still to be called.
 */
bool server_start(struct server *server, const struct config *config, int wake_fd);

/* From now on calls reach `engine`, and health says SERVING. */
void server_set_engine(struct server *server, rd_engine *engine);

/* A call for `method` has come to `queue`: post more, unless the server is stopping. */
void server_taken(struct queue *queue, const struct method *method);

/* The monotonic clock. */
int64_t server_now_us(void);

/* Watches apart. */
size_t server_open_calls(const struct server *server);

/* Whether as many calls are being served as --max-inflight allows: those that only wait to be told that their client
 * has its answer don't count, since that client may be back already. */
bool server_is_full(const struct server *server);

/* Wake whoever waits on wake_fd. Any thread. */
void server_wake(const struct server *server);

/* Refuse new connections and new calls. */
void server_refuse(struct server *server);

/* End the calls that are still open with UNAVAILABLE, each on its queue's thread, within QUEUE_TURN_MS. */
void server_drop(struct server *server);

/**
 * Drop connections, shut the core down and join the threads. Afterwards no call of ours exists and no slice points into
 * the store, so the engine may go. For a half-started server too.
 * Returns: false where an engine still owed answers after SERVER_END_MS: then only leaving the process is safe.
 */
bool server_end(struct server *server);

/* listen.c: Returns: whether it listens on all that the configuration names; else the log says why. */
bool listen_all(struct server *server);
void listen_release(struct server *server);

/* Let the kernel refuse new connections; those there are stay. */
void listen_stop(const struct server *server);

/* Send each peer the end of the stream, behind all that was written. */
void listen_half_close(const struct server *server);

/* Connections there are now, by the kernel's account, and the bytes that their peers have not taken. */
size_t listen_connections(const struct server *server, uint64_t *out_unsent);

/* A connection, and the bytes that went by it. */
struct traffic {
    int fd;
    uint64_t cookie; /* the kernel's number for it, never used again */
    uint64_t received;
    uint64_t acknowledged; /* by the peer, of what was sent */
    struct peer peer;
    uint64_t calls; /* open ones, where they were counted */
    uint64_t cost;  /* pressure.h */
};

/* The TCP connections there are now, calls and cost 0. Returns: how many; `*out_list` is to be freed; 0 also when out
 * of memory. */
size_t listen_traffic(const struct server *server, struct traffic **out_list);

/* By peer, and then to be found by one; NULL where it isn't there. */
void traffic_sort(struct traffic *list, size_t count);
struct traffic *traffic_find(struct traffic *list, size_t count, const struct peer *peer);

/* What TCP connections have moved both ways, taken and acknowledged. */
struct moves {
    struct traffic *list;
    size_t count;
    bool made;
};

/* Of the connection of `peer`, as the core names it; 0 where that can't be told, as of unix sockets. `moves` is made at
 * the first call, and free(moves->list) is the caller's. */
uint64_t listen_moved(const struct server *server, struct moves *moves, const char *peer);

/* End a connection, whatever is under way on it. Returns: false where it is gone already. */
bool listen_drop(const struct traffic *connection);

#endif
