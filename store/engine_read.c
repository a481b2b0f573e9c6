/* The embedded engine's reads: what is short is done where it is asked for, the rest by a worker. */
#include "base.h"
#include "engine_internal.h"

/* What a window's next value costs the thread that fetches it. */
static uint64_t value_work(rd_store *store, rd_op *op, const rd_key *key, const struct trailer *trailer)
{
    if (op->no_payload)
        return INLINE_KEY_WORK;
    uint64_t check_len = store_check_len(store, &local_of(op)->snapshot, key->cookie, trailer);
    bool too_large = op->payload_max > 0 && check_len > op->payload_max;
    return INLINE_KEY_WORK + (too_large ? 0 : check_len);
}

/* Returns: the bytes that the value adds to its window. */
static size_t load_value(rd_store *store, rd_op *op, const rd_key *key, const struct trailer *trailer, rd_value *value)
{
    struct local_op *local = local_of(op);
    struct wanted wanted = {.no_payload = op->no_payload, .payload_max = op->payload_max};
    *value = (rd_value){0};
    value->err = store_load(store, &local->snapshot, key->hash, key->cookie, trailer, wanted, &local->cancelled,
                            &value->payload, &value->meta);
    return value->err == RD_OK ? value->payload.len : 0;
}

/**
 * Fill the next window. Without `patient`, stop before what the caller's thread has done for this operation since a
 * worker last had it gets long: windows asked for one after the other are one stretch of work.
 * Returns: whether there is something to complete with; else a worker has to go on.
 */
static bool fill_window(rd_store *store, rd_op *op, bool patient)
{
    struct local_op *local = local_of(op);
    struct trailer trailers[TRAILERS_MAX]; /* of the keys from `first` on */
    size_t first = local->next_key;
    size_t count = 0;
    size_t bytes = 0;
    op->first = local->next_key;
    op->value_count = 0;
    while (local->next_key < op->key_count && op->value_count < op->value_max &&
           (op->value_count == 0 || bytes < op->window_bytes_max)) {
        const rd_key *key = &op->keys[local->next_key];
        if (local->next_key == first + count) {
            if (op_is_cancelled(op))
                break;
            size_t left = op->key_count - local->next_key;
            first = local->next_key;
            count = at_most(at_most(left, TRAILERS_MAX), op->value_max - op->value_count);
            snapshot_trailers(&local->snapshot, key, count, at_most(left - count, TRAILERS_MAX), trailers);
            if (!op->no_payload)
                snapshot_prefetch_payloads(&local->snapshot, trailers, count);
        }
        const struct trailer *trailer = &trailers[local->next_key - first];
        local->inline_work += value_work(store, op, key, trailer);
        if (!patient && local->inline_work > INLINE_CHECK_MAX)
            break;
        bytes += load_value(store, op, key, trailer, &op->values[op->value_count]);
        op->value_count++;
        local->next_key++;
    }
    if (patient)
        local->inline_work = 0;
    op->more = local->next_key < op->key_count;
    return op->value_count > 0 || !op->more;
}

/* Returns: false where it was cancelled. */
static bool resolve(rd_store *store, rd_op *op)
{
    struct local_op *local = local_of(op);
    return store_resolve(store, op->keys, op->key_count, &local->cancelled, &local->snapshot);
}

/* A worker's part. */
static void run_read(struct local_engine *engine, struct engine_job *job)
{
    rd_op *op = ((struct local_op *)job)->op;
    struct local_op *local = local_of(op);
    if (local->snapshot.mapping != NULL || resolve(engine->store, op))
        fill_window(engine->store, op, true);
    op_complete(op, op_is_cancelled(op) ? RD_E_CANCELLED : RD_OK);
}

static void go_on(struct local_engine *engine, rd_op *op)
{
    struct local_op *local = local_of(op);
    bool inline_keys = local->snapshot.mapping != NULL || op->key_count <= INLINE_KEYS_MAX;
    bool resolved = local->snapshot.mapping != NULL || (inline_keys && resolve(engine->store, op));
    if (resolved && fill_window(engine->store, op, false)) {
        op_complete(op, op_is_cancelled(op) ? RD_E_CANCELLED : RD_OK);
        return;
    }
    local->job.run = run_read;
    pool_submit(engine->workers, &local->job.job);
}

void read_submit(struct local_engine *engine, rd_op *op)
{
    go_on(engine, op);
}

void read_next(struct local_engine *engine, rd_op *op)
{
    if (op_is_cancelled(op))
        op_complete(op, RD_E_CANCELLED);
    else
        go_on(engine, op);
}

/* ---- the newest entry ---- */

static void load_last(rd_store *store, rd_op *op)
{
    struct local_op *local = local_of(op);
    rd_value *value = &op->values[0];
    *value = (rd_value){0};
    value->err = store_load_last(store, &local->snapshot, &local->cancelled, &value->payload, &value->meta);
    op->first = 0;
    op->value_count = 1;
    op->more = false;
    op_complete(op, op_is_cancelled(op) ? RD_E_CANCELLED : RD_OK);
}

static void run_last(struct local_engine *engine, struct engine_job *job)
{
    load_last(engine->store, ((struct local_op *)job)->op);
}

void last_submit(struct local_engine *engine, rd_op *op)
{
    struct local_op *local = local_of(op);
    store_snapshot(engine->store, &local->snapshot);
    uint64_t word = store_last_word(engine->store, &local->snapshot);
    if (store_check_len(engine->store, &local->snapshot, word, NULL) <= INLINE_CHECK_MAX) {
        load_last(engine->store, op);
        return;
    }
    local->job.run = run_last;
    pool_submit(engine->workers, &local->job.job);
}
