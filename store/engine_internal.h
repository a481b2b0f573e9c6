/* What the parts of the embedded engine share. */
#ifndef RD_ENGINE_INTERNAL_H
#define RD_ENGINE_INTERNAL_H

#include "pool.h"
#include "store_internal.h"

struct local_engine {
    rd_engine engine; /* first */
    rd_store *store;
    struct pool *workers;
    struct pool *committer;
    struct pool *compactor; /* made by the first compaction; who has set `compacting` may change it */
    atomic_bool compacting; /* one runs, its operation finished or not */
};

/* A worker's job. */
struct engine_job {
    struct job job; /* first */
    void (*run)(struct local_engine *engine, struct engine_job *job);
};

struct engine_stream;
struct engine_compaction;

/* What the engine keeps in an operation's `priv`. */
struct __attribute__((may_alias)) local_op {
    struct engine_job job; /* first: a worker's or the committer's */
    rd_op *op;
    struct snapshot snapshot; /* READ, LAST: pinned from the first window to finish */
    size_t next_key;
    uint64_t inline_work; /* in bytes checked, and keys as if they were */
    union {               /* until finish; NULL: nothing */
        rd_range *ranges; /* INFO */
        struct engine_stream *stream;
        struct engine_compaction *compaction;
    };
    atomic_bool cancelled;
};
_Static_assert(sizeof(struct local_op) <= sizeof(((rd_op *)0)->priv), "an operation has room for it");

static inline struct local_op *local_of(rd_op *op)
{
    return (struct local_op *)(void *)op->priv;
}

/* The operation may be gone when this returns. */
static inline void op_complete(rd_op *op, rd_err err)
{
    op->err = err;
    op->done(op);
}

static inline bool op_is_cancelled(rd_op *op)
{
    return atomic_load_explicit(&local_of(op)->cancelled, memory_order_relaxed);
}

/* ---- engine_read.c: READ and LAST ---- */

void read_submit(struct local_engine *engine, rd_op *op);
void read_next(struct local_engine *engine, rd_op *op);
void last_submit(struct local_engine *engine, rd_op *op);

/* ---- engine_stream.c ---- */

void stream_submit(struct local_engine *engine, rd_op *op);
void stream_next(struct local_engine *engine, rd_op *op);
void stream_finish(struct local_engine *engine, rd_op *op);

/* What the committer is to do for a stream that is whole. */
struct commit stream_commit(rd_op *op);

/* That was done: complete. */
void stream_committed(rd_op *op, const struct commit *commit);

/* ---- engine_compact.c ---- */

void compact_submit(struct local_engine *engine, rd_op *op);
void compact_next(rd_op *op);
void compact_cancel(rd_op *op);
void compact_finish(rd_op *op);

#endif
