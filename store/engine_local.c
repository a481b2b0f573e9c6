/* The embedded engine: the asynchronous interface over a store of this process. */
#include "base.h"
#include "engine_internal.h"

#define COMMIT_GROUP_MAX 256 /* commits that share a sync */

static struct local_engine *engine_of(rd_engine *engine)
{
    return (struct local_engine *)engine;
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

/* What an operation asks of the store. */
static struct commit commit_of(rd_op *op)
{
    static const rd_write_item none;
    switch (op->kind) {
    case RD_OP_WRITE: return (struct commit){.items = op->item_count > 0 ? op->items : &none, .count = op->item_count};
    case RD_OP_RENAME: return (struct commit){.keys = op->keys, .count = 2, .rename = true};
    case RD_OP_STREAM: return stream_commit(op);
    case RD_OP_DELETE:
    case RD_OP_READ:
    case RD_OP_LAST:
    case RD_OP_INFO:
    case RD_OP_COMPACT: break;
    }
    return (struct commit){.keys = op->keys, .count = op->key_count};
}

static void complete_commit(rd_op *op, const struct commit *commit)
{
    op->written = commit->written;
    if (op->kind == RD_OP_STREAM)
        stream_committed(op, commit);
    else
        op_complete(op, commit->err);
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
        if (op_is_cancelled(op)) {
            op->more = false;
            op_complete(op, RD_E_CANCELLED);
            continue;
        }
        commits[count] = commit_of(op);
        commits[count].cancel = &local_of(op)->cancelled;
        group[count] = &commits[count];
        ops[count++] = op;
    }
    store_commit(engine->store, group, count);
    for (size_t i = 0; i < count; i++)
        complete_commit(ops[i], &commits[i]);
}

/* A worker's job. */
static void run_job(void *context, struct job *job)
{
    struct engine_job *one = (struct engine_job *)job; /* at a time */
    one->run(context, one);
}

static void local_submit(rd_engine *base, rd_op *op)
{
    struct local_engine *engine = engine_of(base);
    struct local_op *local = local_of(op);
    *local = (struct local_op){.op = op};
    atomic_init(&local->cancelled, false);
    switch (op->kind) {
    case RD_OP_READ: read_submit(engine, op); return;
    case RD_OP_LAST: last_submit(engine, op); return;
    case RD_OP_INFO: submit_info(engine, op); return;
    case RD_OP_WRITE:
    case RD_OP_DELETE:
    case RD_OP_RENAME: pool_submit(engine->committer, &local->job.job); return;
    case RD_OP_STREAM: stream_submit(engine, op); return;
    case RD_OP_COMPACT: compact_submit(engine, op); return;
    }
    op_complete(op, RD_E_UNSUPPORTED);
}

static void local_next(rd_engine *base, rd_op *op)
{
    switch (op->kind) {
    case RD_OP_STREAM: stream_next(engine_of(base), op); return;
    case RD_OP_COMPACT: compact_next(op); return;
    case RD_OP_READ:
    case RD_OP_LAST:
    case RD_OP_INFO:
    case RD_OP_WRITE:
    case RD_OP_DELETE:
    case RD_OP_RENAME: break;
    }
    read_next(engine_of(base), op);
}

static void local_cancel(rd_engine *base, rd_op *op)
{
    (void)base;
    atomic_store_explicit(&local_of(op)->cancelled, true, memory_order_relaxed);
    if (op->kind == RD_OP_COMPACT)
        compact_cancel(op);
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
    snapshot_release(&local_of(op)->snapshot);
    if (op->kind == RD_OP_INFO)
        free(local_of(op)->ranges);
    else if (op->kind == RD_OP_STREAM)
        stream_finish(engine_of(base), op);
    else if (op->kind == RD_OP_COMPACT)
        compact_finish(op);
}

static void local_destroy(rd_engine *base)
{
    struct local_engine *engine = engine_of(base);
    pool_destroy(engine->workers);
    pool_destroy(engine->committer);
    pool_destroy(engine->compactor);
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
    rd_err err = pool_create(worker_count, 1, run_job, engine, &engine->workers);
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
