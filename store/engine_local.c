/* The embedded engine: the asynchronous interface over a store of this process. */
#include "base.h"
#include "pool.h"
#include "store_internal.h"

#define COMMIT_GROUP_MAX 256 /* commits that share a sync */

struct local_engine {
    rd_engine engine; /* first */
    rd_store *store;
    struct pool *workers;
    struct pool *committer;
};

/* What the engine keeps in an operation's `priv`. */
struct __attribute__((may_alias)) local_op {
    struct job job; /* first */
    rd_op *op;
    struct snapshot snapshot; /* READ, LAST: pinned from the first window to finish */
    size_t next_key;
    uint64_t inline_work; /* in bytes checked, and keys as if they were */
    rd_range *ranges;     /* INFO, until finish */
    atomic_bool cancelled;
};
_Static_assert(sizeof(struct local_op) <= sizeof(((rd_op *)0)->priv), "an operation has room for it");

static struct local_op *local_of(rd_op *op)
{
    return (struct local_op *)(void *)op->priv;
}

static struct local_engine *engine_of(rd_engine *engine)
{
    return (struct local_engine *)engine;
}

static void op_complete(rd_op *op, rd_err err)
{
    op->err = err;
    op->done(op);
}

static bool is_cancelled(rd_op *op)
{
    return atomic_load_explicit(&local_of(op)->cancelled, memory_order_relaxed);
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
            size_t left = op->key_count - local->next_key;
            first = local->next_key;
            count = at_most(at_most(left, TRAILERS_MAX), op->value_max - op->value_count);
            snapshot_trailers(&local->snapshot, key, count, at_most(left - count, TRAILERS_MAX), trailers);
        }
        const struct trailer *trailer = &trailers[local->next_key - first];
        local->inline_work += INLINE_KEY_WORK;
        if (!op->no_payload)
            local->inline_work += store_check_len(store, &local->snapshot, key->cookie, trailer);
        if (!patient && local->inline_work > INLINE_CHECK_MAX)
            break;
        rd_value *value = &op->values[op->value_count];
        *value = (rd_value){0};
        value->err = store_load(store, &local->snapshot, key->hash, key->cookie, trailer, op->no_payload,
                                &local->cancelled, &value->payload, &value->meta);
        op->value_count++;
        local->next_key++;
        bytes += value->payload.len;
    }
    if (patient)
        local->inline_work = 0;
    op->more = local->next_key < op->key_count;
    return op->value_count > 0 || !op->more;
}

static void resolve(rd_store *store, rd_op *op)
{
    store_resolve(store, op->keys, op->key_count, &local_of(op)->snapshot);
}

static void load_last(rd_store *store, rd_op *op)
{
    rd_value *value = &op->values[0];
    *value = (rd_value){0};
    value->err =
        store_load_last(store, &local_of(op)->snapshot, &local_of(op)->cancelled, &value->payload, &value->meta);
    op->first = 0;
    op->value_count = 1;
    op->more = false;
}

/* A worker's part of an operation: whatever takes long. */
static void run_long(void *context, struct job *jobs)
{
    struct local_engine *engine = context;
    rd_op *op = ((struct local_op *)jobs)->op; /* one at a time */
    struct local_op *local = local_of(op);
    if (is_cancelled(op)) {
        op_complete(op, RD_E_CANCELLED);
        return;
    }
    if (op->kind == RD_OP_LAST) {
        load_last(engine->store, op);
    } else {
        if (local->snapshot.mapping == NULL)
            resolve(engine->store, op);
        fill_window(engine->store, op, true);
    }
    op_complete(op, is_cancelled(op) ? RD_E_CANCELLED : RD_OK);
}

static void go_on(struct local_engine *engine, rd_op *op)
{
    struct local_op *local = local_of(op);
    bool inline_keys = local->snapshot.mapping != NULL || op->key_count <= INLINE_KEYS_MAX;
    if (inline_keys && local->snapshot.mapping == NULL)
        resolve(engine->store, op);
    if (inline_keys && fill_window(engine->store, op, false))
        op_complete(op, RD_OK);
    else
        pool_submit(engine->workers, &local->job);
}

static void submit_last(struct local_engine *engine, rd_op *op)
{
    struct snapshot *snapshot = &local_of(op)->snapshot;
    store_snapshot(engine->store, snapshot);
    uint64_t word = store_last_word(engine->store, snapshot);
    if (store_check_len(engine->store, snapshot, word, NULL) > INLINE_CHECK_MAX) {
        pool_submit(engine->workers, &local_of(op)->job);
        return;
    }
    load_last(engine->store, op);
    op_complete(op, RD_OK);
}

/* The damaged ranges, where there are any. Returns: RD_OK, RD_E_NOMEM. */
static rd_err list_damage(rd_store *store, const rd_store_info *info, rd_op *op)
{
    if (info->damaged_ranges == 0)
        return RD_OK;
    rd_range *ranges = calloc(RD_DAMAGE_LISTED_MAX, sizeof(*ranges));
    if (ranges == NULL)
        return RD_E_NOMEM;
    local_of(op)->ranges = ranges;
    op->info.damaged_ranges = ranges;
    op->info.damaged_range_count = rd_store_damage(store, ranges, RD_DAMAGE_LISTED_MAX);
    return RD_OK;
}

static void submit_info(struct local_engine *engine, rd_op *op)
{
    rd_store_info info;
    rd_err err = rd_store_info_get(engine->store, &info);
    if (err == RD_OK) {
        op->info = (rd_engine_info){.live_keys = info.live_keys,
                                    .entries = info.entries,
                                    .tail_off = info.tail_off,
                                    .file_size = info.file_size,
                                    .generation = info.generation,
                                    .damaged_entries = info.damaged_entries,
                                    .unidentified_ranges = info.unidentified_ranges,
                                    .unread_bytes = info.unread_bytes,
                                    .file_state = info.file_state,
                                    .writable = info.writable,
                                    .atomic_batches = true,
                                    .engine = "embedded"};
        err = list_damage(engine->store, &info, op);
    }
    op_complete(op, err);
}

/* The commit thread: all that waits, appended in order and made durable by one sync. */
static void run_commits(void *context, struct job *jobs)
{
    struct local_engine *engine = context;
    struct commit commits[COMMIT_GROUP_MAX];
    struct commit *group[COMMIT_GROUP_MAX];
    rd_op *ops[COMMIT_GROUP_MAX];
    size_t count = 0;
    for (struct job *job = jobs, *next; job != NULL; job = next) {
        next = job->next;
        rd_op *op = ((struct local_op *)job)->op;
        if (is_cancelled(op)) {
            op_complete(op, RD_E_CANCELLED);
            continue;
        }
        static const rd_write_item none;
        commits[count] = (struct commit){0};
        if (op->kind == RD_OP_WRITE) {
            commits[count].items = op->item_count > 0 ? op->items : &none;
            commits[count].count = op->item_count;
        } else {
            commits[count].keys = op->keys;
            commits[count].count = op->key_count;
        }
        group[count] = &commits[count];
        ops[count++] = op;
    }
    store_commit(engine->store, group, count);
    for (size_t i = 0; i < count; i++) {
        ops[i]->written = commits[i].written;
        op_complete(ops[i], commits[i].err);
    }
}

static void local_submit(rd_engine *base, rd_op *op)
{
    struct local_engine *engine = engine_of(base);
    struct local_op *local = local_of(op);
    *local = (struct local_op){.op = op};
    atomic_init(&local->cancelled, false);
    switch (op->kind) {
    case RD_OP_READ: go_on(engine, op); return;
    case RD_OP_LAST: submit_last(engine, op); return;
    case RD_OP_INFO: submit_info(engine, op); return;
    case RD_OP_WRITE:
    case RD_OP_DELETE: pool_submit(engine->committer, &local->job); return;
    case RD_OP_RENAME:
    case RD_OP_STREAM:
    case RD_OP_COMPACT: break;
    }
    op_complete(op, RD_E_UNSUPPORTED);
}

static void local_next(rd_engine *base, rd_op *op)
{
    if (is_cancelled(op))
        op_complete(op, RD_E_CANCELLED);
    else
        go_on(engine_of(base), op);
}

static void local_cancel(rd_engine *base, rd_op *op)
{
    (void)base;
    atomic_store_explicit(&local_of(op)->cancelled, true, memory_order_relaxed);
}

static void hold_release(void *pin)
{
    pin_return(pin, 1);
}

static rd_err local_hold(rd_engine *base, rd_op *op, const rd_value *value, rd_hold *out_hold)
{
    (void)base;
    (void)value;
    struct pin *pin = local_of(op)->snapshot.pin;
    pin_more(pin, 1);
    *out_hold = (rd_hold){.release = hold_release, .arg = pin};
    return RD_OK;
}

static void local_finish(rd_engine *base, rd_op *op)
{
    (void)base;
    snapshot_release(&local_of(op)->snapshot);
    free(local_of(op)->ranges);
}

static void local_destroy(rd_engine *base)
{
    struct local_engine *engine = engine_of(base);
    pool_destroy(engine->workers);
    pool_destroy(engine->committer);
    rd_store_close(engine->store);
    free(engine);
}

rd_err rd_engine_create_local(rd_store *store, size_t worker_count, rd_engine **out_engine)
{
    static const rd_engine_vtable vtable = {
        .submit = local_submit,
        .next = local_next,
        .cancel = local_cancel,
        .hold = local_hold,
        .finish = local_finish,
        .destroy = local_destroy,
    };
    struct local_engine *engine = calloc(1, sizeof(*engine));
    if (engine == NULL)
        return RD_E_NOMEM;
    engine->engine.vtable = &vtable;
    rd_err err = pool_create(worker_count, 1, run_long, engine, &engine->workers);
    if (err == RD_OK)
        err = pool_create(1, COMMIT_GROUP_MAX, run_commits, engine, &engine->committer);
    if (err != RD_OK) {
        pool_destroy(engine->workers);
        free(engine);
        return err;
    }
    engine->store = store;
    *out_engine = &engine->engine;
    return RD_OK;
}
