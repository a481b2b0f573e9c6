/**
 * The asynchronous engine interface: what a service needs of a store, and all it may assume of one.
 *
 * Caveats first:
 * - An operation is memory of the caller's. From submit (or next) until its completion it belongs to the engine: don't
 *   touch, move or free it.
 * - It completes exactly once for each submit and each next, by its `done` hook: on any thread, perhaps before submit
 *   returns, perhaps long after. A hook must not block, and may call nothing of the engine but rd_engine_cancel on
 * other operations.
 * - Nothing here promises a mapping, a file, an offset or an immediate answer: an engine may answer over a network.
 *
 * Keys travel as their hashes: a hash is a pure function of its key (F-07), so checking a key in hand against a hash
 * (F-15) is the caller's one comparison and needs no engine.
 */
#ifndef RDRIVE_ENGINE_H
#define RDRIVE_ENGINE_H

#include <rdrive/store.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rd_engine rd_engine;
typedef struct rd_op rd_op;

typedef enum rd_op_kind {
    RD_OP_READ,    /* `keys` → `values`, in windows */
    RD_OP_LAST,    /* → `values[0]`: the newest entry, deletions included */
    RD_OP_INFO,    /* → `info` */
    RD_OP_WRITE,   /* `items` → `written` */
    RD_OP_DELETE,  /* `keys` → `written` */
    RD_OP_RENAME,  /* the value of `keys[0]` goes to `keys[1]` → `written`; RD_ABSENT: there is none */
    RD_OP_STREAM,  /* `keys[0]` is given the value that arrives as `pieces` → `written`, `streamed`; see below */
    RD_OP_COMPACT, /* → `compacted`, window by window: how far it has come, and at last (`more` false) the outcome */
} rd_op_kind;

/*
 * RD_OP_STREAM completes with `more` when its pieces were taken: the caller sets the following `pieces` (or `last`,
 * with or without pieces) and calls rd_engine_next. Where `last` was set the value is written as by WRITE, at that
 * instant, and `more` is false. rd_engine_finish before that aborts it: nothing is written.
 *
 * RD_OP_COMPACT runs on whether or not next is called: a slow caller holds nothing up, and its next answers with what
 * is true by then. rd_engine_finish before the end asks it to end, and doesn't wait for that.
 */

/** A key of an operation: 16 bytes, all that a batch of millions keeps of each. */
typedef struct rd_key {
    uint64_t hash;
    uint64_t cookie; /* 0 to look it up, RD_KEY_SKIP to answer RD_ABSENT; the engine's own from submit to finish */
} rd_key;
#define RD_KEY_SKIP UINT64_MAX

/** One key's result. Its bytes are borrowed: valid until the next call of rd_engine_next or rd_engine_finish. */
typedef struct rd_value {
    rd_err err; /* RD_OK, RD_ABSENT, RD_E_DAMAGED or another error of this key alone */
    rd_span payload;
    rd_metadata meta;
} rd_value;

/** Keeps a value's bytes valid beyond its operation, until `release(arg)` is called, once, on any thread. */
typedef struct rd_hold {
    void (*release)(void *arg);
    void *arg;
} rd_hold;

typedef struct rd_engine_info {
    uint64_t live_keys, entries, tail_off, file_size, generation, damaged_entries, unidentified_ranges, unread_bytes;
    rd_file_state file_state;
    const rd_range *damaged_ranges; /* valid until rd_engine_finish */
    size_t damaged_range_count;
    bool writable;
    bool atomic_batches; /* a batch read is resolved at one instant */
    const char *engine;  /* its name; a literal */
} rd_engine_info;

/** What became of a stream: its payload's size and CRC-32. */
typedef struct rd_streamed {
    uint64_t size;
    uint32_t checksum;
} rd_streamed;

/** How far a compaction is, or, at its end, what it did. */
typedef struct rd_engine_compacted {
    uint64_t entries_done, entries_total, bytes_written;
    uint64_t bytes_reclaimed; /* at the end only */
} rd_engine_compacted;

/** An operation. The caller zeroes it and fills what its kind needs. */
struct rd_op {
    rd_op_kind kind;
    void (*done)(rd_op *op);

    /* READ, DELETE, RENAME and STREAM; must stay until finish */
    rd_key *keys;
    size_t key_count;
    bool no_payload;      /* READ: hash, link and checksum only; no payload is loaded or checked */
    uint64_t payload_max; /* READ: a larger payload is neither loaded nor checked: RD_E_TOO_LARGE, with its length (and
                             no bytes) and metadata; 0: no bound */

    /* READ and LAST: where results go, window by window */
    rd_value *values;
    size_t value_max;        /* places in `values`, at least 1 */
    size_t window_bytes_max; /* a window ends once its payloads reach this; its first value always fits */

    /* WRITE */
    const rd_write_item *items;
    size_t item_count;

    /* STREAM */
    const rd_span *pieces; /* must stay until the submit or next that carries them has completed */
    size_t piece_count;
    bool last; /* no more pieces follow these */

    /* results */
    rd_err err;         /* of the operation as a whole; each value has its own */
    size_t first;       /* values[0] answers keys[first] */
    size_t value_count; /* results in this window; at least 1 unless the operation failed or has no keys */
    bool more;          /* keys are left: rd_engine_next brings the following window */
    rd_written written;
    rd_engine_info info;
    rd_streamed streamed;
    rd_engine_compacted compacted;

    void *priv[10]; /* the engine's own, from submit to finish */
};

typedef struct rd_engine_vtable {
    void (*submit)(rd_engine *engine, rd_op *op);
    void (*next)(rd_engine *engine, rd_op *op);
    void (*cancel)(rd_engine *engine, rd_op *op);
    rd_err (*hold)(rd_engine *engine, rd_op *op, const rd_value *value, rd_hold *out_hold);
    void (*finish)(rd_engine *engine, rd_op *op);
    void (*destroy)(rd_engine *engine);
} rd_engine_vtable;

/** Every engine begins with this. */
struct rd_engine {
    const rd_engine_vtable *vtable;
};

/** Start `op`. Never blocks. Completes through `op->done`; then results are valid until next or finish. */
static inline void rd_engine_submit(rd_engine *engine, rd_op *op)
{
    engine->vtable->submit(engine, op);
}

/** Bring the following window. Requires: completed with RD_OK and `more`. Completes through `op->done`. */
static inline void rd_engine_next(rd_engine *engine, rd_op *op)
{
    engine->vtable->next(engine, op);
}

/**
 * Ask that a submitted `op` end early. It still completes exactly once: with RD_E_CANCELLED if the engine could stop
 * it, else as it would have. Harmless between completion and finish. A write may or may not have been done.
 */
static inline void rd_engine_cancel(rd_engine *engine, rd_op *op)
{
    engine->vtable->cancel(engine, op);
}

/**
 * Keep the payload of a value of the current window beyond the operation.
 * Returns: RD_OK `*out_hold` is the caller's, to be released once; RD_E_NOMEM: copy the bytes instead.
 */
RD_MUST_CHECK static inline rd_err rd_engine_hold(rd_engine *engine, rd_op *op, const rd_value *value,
                                                  rd_hold *out_hold)
{
    return engine->vtable->hold(engine, op, value, out_hold);
}

/** Let go of all the engine keeps for `op`. Requires: every submit and next has completed. Once, after a submit. */
static inline void rd_engine_finish(rd_engine *engine, rd_op *op)
{
    engine->vtable->finish(engine, op);
}

/** End the engine. Requires: every operation is finished and every hold released. NULL is fine. */
static inline void rd_engine_destroy(rd_engine *engine)
{
    if (engine != NULL)
        engine->vtable->destroy(engine);
}

/**
 * The embedded engine over `store`. What is short and in memory completes inside submit; checking more than 4 MiB and
 * resolving more than 50,000 keys go to `worker_count` (1 to 64) threads, as do pieces of a stream beyond its first
 * MiB; writes go to one commit thread, which makes all that wait durable with one sync, and a compaction has a thread
 * of its own. Returns: RD_OK the engine, which owns `store` from now on and closes it when destroyed; RD_E_NOMEM the
 * store is still the caller's.
 */
RD_MUST_CHECK rd_err rd_engine_create_local(rd_store *store, size_t worker_count, rd_engine **out_engine);

#ifdef __cplusplus
}
#endif

#endif
