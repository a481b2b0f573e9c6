/* What the parts of the chaos engine share. */
#ifndef CHAOS_INTERNAL_H
#define CHAOS_INTERNAL_H

#include "chaos.h"
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define CHAOS_THREADS_MAX 16

/* The user broke the contract, or this engine did. */
#define CHAOS_REQUIRE(condition)                                                                                       \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "chaos: %s:%d: not %s\n", __FILE__, __LINE__, #condition);                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

struct chaos {
    rd_engine engine; /* first */
    rd_engine *inner;
    struct chaos_config config;
    atomic_uint_fast64_t decisions;

    pthread_mutex_t lock;  /* guards all below, and each operation's phase and place in the queue */
    pthread_cond_t work;   /* the queue or the gate has changed; by CLOCK_MONOTONIC */
    pthread_cond_t change; /* a count has changed */
    uint64_t counts[CHAOS_COUNT_MAX];
    struct chaos_op *queue; /* in no order: it is short */
    bool gate_closed;
    bool ending;

    pthread_t threads[CHAOS_THREADS_MAX];
    size_t thread_count;
    struct control *control;
};

/* ---- plan.c: decisions ---- */

/* How one submit or next goes. */
struct plan {
    bool meanwhile;    /* another thread answers while submit still runs */
    bool asks_late;    /* the inner engine is asked after the delay, not before it */
    uint64_t delay_ns; /* 0: answered at once */
    rd_err err;        /* not RD_OK: the answer, without asking anybody */
    size_t value_max;  /* of this window */
};

struct plan plan_make(struct chaos *chaos, const rd_op *op);
bool plan_chance(struct chaos *chaos, uint64_t per_mille);

/* ---- operations ---- */

struct buffer;

/*
 * One operation. A submit or next goes
 *
 *   IDLE ─► ASKING ─► INNER ─► ANSWERING ─► IDLE      at once, on the caller's thread or the inner engine's
 *     └─► TO_ASK ──┘      └─► TO_ANSWER ──┘           by way of the queue, on a thread of ours
 *
 * and a cancel that is heeded takes TO_ASK and TO_ANSWER straight to ANSWERING.
 */
enum phase { IDLE, TO_ASK, ASKING, INNER, TO_ANSWER, ANSWERING };

struct chaos_op {
    struct chaos *chaos;
    rd_op *outer;
    rd_op inner;
    atomic_uint refs; /* the user's until finish, and that of a thread inside ask() */
    bool inner_open;
    bool can_next;          /* the last window said `more` */
    unsigned serial;        /* of the submit or next under way */
    uint64_t keys_sum;      /* of the hashes, which must stay as they are until finish */
    uint64_t sent_sum;      /* of pieces and items, which must until they are taken */
    struct buffer **window; /* the payloads of the window that the user sees; of a stream, the pieces as the inner
                               engine sees them */
    size_t window_count;
    rd_span *pieces;
    rd_range *ranges;
    struct plan plan; /* of the submit or next under way */

    /* under the lock */
    enum phase phase;
    struct chaos_op *next;
    struct chaos_op **link; /* what points at this one, while it is queued */
    uint64_t due_ns;
    sem_t *answered; /* the submit that waits until another thread has answered; such a one passes the gate */
    pthread_t asker;

    rd_value values[]; /* the inner operation's */
};

/* ---- queue.c: what waits, its threads, the gate, the counts ---- */

static inline struct chaos *chaos_of(rd_engine *engine)
{
    return (struct chaos *)engine;
}

/* Requires: the lock. Any thread of ours may take it after `delay_ns`, unless the gate keeps it. */
void queue_put_locked(struct chaos_op *op, enum phase phase, uint64_t delay_ns);
void queue_remove_locked(struct chaos_op *op);

/* Add to a count; wakes those that wait for one. With the lock held, or not. */
void count_locked(struct chaos *chaos, enum chaos_count count, int64_t change);
void count(struct chaos *chaos, enum chaos_count count, int64_t change);

/* A thread of ours. */
void *queue_run(void *chaos);

/* ---- answer.c: from the inner engine's results to the user's ---- */

/* Ask the inner engine. Requires: the phase is ASKING. */
void op_ask(struct chaos_op *op);

/* Reads all pieces and items, so that a user who has changed them, or let them go, is found out. */
uint64_t op_sum_sent(const rd_op *op);

/* Complete. Requires: the phase is ANSWERING, which is this thread's alone. The operation may be gone afterwards. */
void op_answer(struct chaos_op *op);

/* The inner operation's hook. */
void op_inner_done(rd_op *inner);

/* End what the last window lent, or the pieces. */
void op_drop_window(struct chaos_op *op);

void op_unref(struct chaos_op *op);

/* ---- buffers.c: payloads in memory that ends when the contract says so ---- */

/* A copy of `bytes`; NULL when out of memory. */
struct buffer *buffer_create(struct chaos *chaos, rd_span bytes);
rd_span buffer_span(const struct buffer *buffer);
void buffer_unref(struct buffer *buffer);
rd_hold buffer_hold(struct buffer *buffer);

/* ---- control.c: tests talk to it ---- */

/* Returns: NULL where the socket can't be made. */
struct control *control_create(struct chaos *chaos, const char *path);
void control_destroy(struct control *control);

extern const char *const chaos_count_names[CHAOS_COUNT_MAX];

#endif
