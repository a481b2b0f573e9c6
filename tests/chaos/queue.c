/* What waits for its time, the threads that take it up then, the gate, and the counts. */
#include "internal.h"
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- counts ---- */

void count_locked(struct chaos *chaos, enum chaos_count count, int64_t change)
{
    CHAOS_REQUIRE(change >= 0 || chaos->counts[count] >= (uint64_t)-change);
    chaos->counts[count] += (uint64_t)change;
    pthread_cond_broadcast(&chaos->change);
}

void count(struct chaos *chaos, enum chaos_count count, int64_t change)
{
    pthread_mutex_lock(&chaos->lock);
    count_locked(chaos, count, change);
    pthread_mutex_unlock(&chaos->lock);
}

uint64_t chaos_count(rd_engine *engine, enum chaos_count count)
{
    struct chaos *chaos = chaos_of(engine);
    pthread_mutex_lock(&chaos->lock);
    uint64_t value = chaos->counts[count];
    pthread_mutex_unlock(&chaos->lock);
    return value;
}

/* ---- the queue and the gate. Requires the lock where the name says so. ---- */

/* Whether the gate keeps it while it is closed. */
static bool is_held_locked(const struct chaos_op *op)
{
    return op->answered == NULL;
}

static void count_held_locked(struct chaos *chaos)
{
    uint64_t held = 0;
    for (struct chaos_op *op = chaos->queue; op != NULL && chaos->gate_closed; op = op->next)
        held += is_held_locked(op);
    count_locked(chaos, CHAOS_HELD, (int64_t)held - (int64_t)chaos->counts[CHAOS_HELD]);
}

void queue_put_locked(struct chaos_op *op, enum phase phase, uint64_t delay_ns)
{
    struct chaos *chaos = op->chaos;
    op->phase = phase;
    op->due_ns = now_ns() + delay_ns;
    op->next = chaos->queue;
    op->link = &chaos->queue;
    if (op->next != NULL)
        op->next->link = &op->next;
    chaos->queue = op;
    count_held_locked(chaos);
    pthread_cond_broadcast(&chaos->work);
}

void queue_remove_locked(struct chaos_op *op)
{
    *op->link = op->next;
    if (op->next != NULL)
        op->next->link = op->link;
    op->link = NULL;
    count_held_locked(op->chaos);
}

void chaos_gate(rd_engine *engine, bool closed)
{
    struct chaos *chaos = chaos_of(engine);
    pthread_mutex_lock(&chaos->lock);
    chaos->gate_closed = closed;
    count_held_locked(chaos);
    pthread_cond_broadcast(&chaos->work);
    pthread_mutex_unlock(&chaos->lock);
}

/* ---- our threads ---- */

/* What is due, taken off the queue; or NULL, and when to look again. */
static struct chaos_op *take_due_locked(struct chaos *chaos, uint64_t *out_wake_ns)
{
    uint64_t now = now_ns();
    struct chaos_op *best = NULL;
    for (struct chaos_op *op = chaos->queue; op != NULL; op = op->next)
        if ((!chaos->gate_closed || !is_held_locked(op)) && (best == NULL || op->due_ns < best->due_ns))
            best = op;
    *out_wake_ns = best != NULL ? best->due_ns : UINT64_MAX;
    if (best == NULL || best->due_ns > now)
        return NULL;
    queue_remove_locked(best);
    return best;
}

static void wait_until(struct chaos *chaos, uint64_t wake_ns)
{
    if (wake_ns == UINT64_MAX) {
        pthread_cond_wait(&chaos->work, &chaos->lock);
        return;
    }
    struct timespec until = {.tv_sec = (time_t)(wake_ns / UINT64_C(1000000000)),
                             .tv_nsec = (long)(wake_ns % UINT64_C(1000000000))};
    pthread_cond_timedwait(&chaos->work, &chaos->lock, &until);
}

void *queue_run(void *argument)
{
    struct chaos *chaos = argument;
    uint64_t wake_ns;
    pthread_mutex_lock(&chaos->lock);
    while (!chaos->ending) {
        struct chaos_op *op = take_due_locked(chaos, &wake_ns);
        if (op == NULL) {
            wait_until(chaos, wake_ns);
            continue;
        }
        bool asks = op->phase == TO_ASK;
        op->phase = asks ? ASKING : ANSWERING;
        pthread_mutex_unlock(&chaos->lock);
        if (asks)
            op_ask(op);
        else
            op_answer(op);
        pthread_mutex_lock(&chaos->lock);
    }
    pthread_mutex_unlock(&chaos->lock);
    return NULL;
}
