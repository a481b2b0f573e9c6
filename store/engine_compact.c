/* The embedded engine's compaction: it has a thread of its own, which waits for nobody. An operation that asks is
   answered at the next report of how far it has come, at most one each REPORT_NS, and at the end. */
#include "base.h"
#include "engine_internal.h"
#include <time.h>

#define REPORT_NS UINT64_C(200000000)

/* It outlives its operation where that is finished before the end. */
struct engine_compaction {
    struct job job;     /* first */
    atomic_bool ending; /* it is to end */

    pthread_mutex_t lock; /* guards what follows; nothing else is taken under it */
    rd_op *asking;        /* submit or next, not completed yet */
    uint64_t due_ns;      /* when it may be told how far it is; 0: at once */
    unsigned refs;        /* the operation, and the thread */
    bool ended;
    rd_err err;                  /* the outcome */
    rd_engine_compacted outcome; /* where that is RD_OK */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void compaction_unref(struct engine_compaction *compaction)
{
    pthread_mutex_lock(&compaction->lock);
    bool last = --compaction->refs == 0;
    pthread_mutex_unlock(&compaction->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&compaction->lock);
    free(compaction);
}

static bool is_ending(struct engine_compaction *compaction)
{
    return atomic_load_explicit(&compaction->ending, memory_order_relaxed);
}

/* The store's report, from its compaction's thread. */
static bool report(void *argument, const rd_compact_progress *progress)
{
    struct engine_compaction *compaction = argument;
    rd_op *op = NULL;
    if (is_ending(compaction))
        return false;
    pthread_mutex_lock(&compaction->lock);
    if (compaction->asking != NULL && now_ns() >= compaction->due_ns) {
        op = compaction->asking;
        compaction->asking = NULL;
        compaction->due_ns = now_ns() + REPORT_NS;
    }
    pthread_mutex_unlock(&compaction->lock);
    if (op != NULL) {
        op->compacted = (rd_engine_compacted){.entries_done = progress->entries_done,
                                              .entries_total = progress->entries_total,
                                              .bytes_written = progress->bytes_written};
        op->more = true;
        op_complete(op, RD_OK);
    }
    return !is_ending(compaction);
}

/* Requires: it has ended. */
static void complete_end(const struct engine_compaction *compaction, rd_op *op)
{
    if (compaction->err == RD_OK)
        op->compacted = compaction->outcome;
    op->more = false;
    op_complete(op, compaction->err);
}

static void run_compaction(void *context, struct job *job)
{
    struct local_engine *engine = context;
    struct engine_compaction *compaction = (struct engine_compaction *)job; /* one at a time */
    const rd_compact_options options = {.progress = report, .arg = compaction};
    rd_compacted done = {0};
    rd_err err = is_ending(compaction) ? RD_E_CANCELLED : rd_store_compact(engine->store, &options, NULL, &done);
    atomic_store(&engine->compacting, false); /* before anybody hears of the end */
    pthread_mutex_lock(&compaction->lock);
    compaction->ended = true;
    compaction->err = err;
    compaction->outcome = (rd_engine_compacted){.entries_done = done.entries,
                                                .entries_total = done.entries,
                                                .bytes_written = done.bytes_written,
                                                .bytes_reclaimed = done.bytes_reclaimed};
    rd_op *op = compaction->asking;
    compaction->asking = NULL;
    pthread_mutex_unlock(&compaction->lock);
    if (op != NULL)
        complete_end(compaction, op);
    compaction_unref(compaction);
}

/* Requires: this thread has set `compacting`. */
static rd_err start(struct local_engine *engine, rd_op *op)
{
    if (engine->compactor == NULL)
        RD_TRY(pool_create(1, 1, run_compaction, engine, &engine->compactor));
    struct engine_compaction *compaction = calloc(1, sizeof(*compaction));
    if (compaction == NULL)
        return RD_E_NOMEM;
    pthread_mutex_init(&compaction->lock, NULL);
    compaction->asking = op;
    compaction->refs = 2;
    local_of(op)->compaction = compaction;
    pool_submit(engine->compactor, &compaction->job);
    return RD_OK;
}

void compact_submit(struct local_engine *engine, rd_op *op)
{
    bool idle = false;
    rd_err err = engine->store->options.writable ? RD_OK : RD_E_READ_ONLY;
    if (err == RD_OK && !atomic_compare_exchange_strong(&engine->compacting, &idle, true))
        err = RD_E_BUSY;
    if (err == RD_OK) {
        err = start(engine, op);
        if (err == RD_OK)
            return;
        atomic_store(&engine->compacting, false);
    }
    op->more = false;
    op_complete(op, err);
}

void compact_next(rd_op *op)
{
    struct engine_compaction *compaction = local_of(op)->compaction;
    pthread_mutex_lock(&compaction->lock);
    bool ended = compaction->ended;
    if (!ended)
        compaction->asking = op;
    pthread_mutex_unlock(&compaction->lock);
    if (ended)
        complete_end(compaction, op);
}

static void end(struct engine_compaction *compaction)
{
    if (compaction != NULL)
        atomic_store_explicit(&compaction->ending, true, memory_order_relaxed);
}

void compact_cancel(rd_op *op)
{
    end(local_of(op)->compaction);
}

void compact_finish(rd_op *op)
{
    struct engine_compaction *compaction = local_of(op)->compaction;
    if (compaction == NULL)
        return;
    end(compaction);
    compaction_unref(compaction);
}
