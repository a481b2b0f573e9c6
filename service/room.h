/* Room for what answers copy and the core has not sent yet (--max-queued-bytes): streams take it in order of arrival.
 */
#ifndef ROOM_H
#define ROOM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct call;

/* A call that waits for room; guarded by the room's lock. */
struct room_place {
    struct call *next;
    struct call *before;
    size_t bytes;
    bool waits;
};

struct room {
    atomic_size_t used;   /* by those who asked */
    atomic_size_t passed; /* by small answers, which don't ask */
    size_t max;
    atomic_size_t waiting; /* how many are on the list */
    pthread_mutex_t lock;  /* guards the list */
    struct call *first;
    struct call *last;
};

void room_init(struct room *room, size_t max);
void room_fini(struct room *room);

/* Count a small answer, which waits for nobody and keeps nobody waiting. Any thread. */
void room_pass(struct room *room, size_t bytes);
void room_passed(struct room *room, size_t bytes); /* it is gone */

/* One who has room turns out to need more. Any thread. */
void room_force(struct room *room, size_t bytes);

/**
 * Take room for `bytes` in turn; more than `max` is given while nobody has any.
 * Returns: true it is taken; false `call` waits: call_room (call.h) is called once it was taken for it, on any thread.
 */
bool room_take(struct room *room, struct call *call, size_t bytes);

/* Give room back; those who wait for it are told. Any thread. */
void room_give(struct room *room, size_t bytes);

/* Stop waiting. Returns: false where room was taken already: call_room has been, or is being, called. */
bool room_leave(struct room *room, struct call *call);

#endif
