/* The embedded engine's streams: pieces are taken where they are brought as long as they stay in memory, else by a
   worker; the value goes with the group of all that waits for the committer. */
#include "base.h"
#include "engine_internal.h"

struct engine_stream {
    struct engine_job job; /* first: to give back what takes its time */
    rd_stream *stream;
    struct commit commit; /* once it is whole */
};

/* Take the pieces, in their order; between two of them the caller may change its mind. */
static rd_err take_pieces(rd_op *op)
{
    for (size_t i = 0; i < op->piece_count; i++) {
        if (op_is_cancelled(op))
            return RD_E_CANCELLED;
        RD_TRY(rd_stream_append(local_of(op)->stream->stream, op->pieces[i]));
    }
    return op_is_cancelled(op) ? RD_E_CANCELLED : RD_OK;
}

static void go_on(struct local_engine *engine, rd_op *op)
{
    struct engine_stream *stream = local_of(op)->stream;
    rd_err err = take_pieces(op);
    if (err == RD_OK && op->last)
        err = stream_seal(stream->stream, &stream->commit);
    if (err == RD_OK && op->last) {
        pool_submit(engine->committer, &local_of(op)->job.job);
        return;
    }
    op->more = err == RD_OK;
    op_complete(op, err);
}

static void run_pieces(struct local_engine *engine, struct engine_job *job)
{
    go_on(engine, ((struct local_op *)job)->op);
}

static bool is_short(const rd_op *op, const rd_stream *stream)
{
    uint64_t len = 0;
    for (size_t i = 0; i < op->piece_count; i++)
        if (__builtin_add_overflow(len, op->pieces[i].len, &len))
            return false;
    return stream_stays_in_memory(stream, len) && !(op->last && stream_has_file(stream));
}

void stream_next(struct local_engine *engine, rd_op *op)
{
    struct local_op *local = local_of(op);
    if (is_short(op, local->stream->stream)) {
        go_on(engine, op);
        return;
    }
    local->job.run = run_pieces;
    pool_submit(engine->workers, &local->job.job);
}

void stream_submit(struct local_engine *engine, rd_op *op)
{
    struct engine_stream *stream = calloc(1, sizeof(*stream));
    rd_err err = stream == NULL ? RD_E_NOMEM : rd_stream_begin(engine->store, op->keys[0].hash, &stream->stream);
    if (err != RD_OK) {
        free(stream);
        op->more = false;
        op_complete(op, err);
        return;
    }
    local_of(op)->stream = stream;
    stream_next(engine, op);
}

struct commit stream_commit(rd_op *op)
{
    return local_of(op)->stream->commit;
}

void stream_committed(rd_op *op, const struct commit *commit)
{
    rd_streamed streamed;
    stream_measure(local_of(op)->stream->stream, &streamed.size, &streamed.checksum);
    if (commit->err == RD_OK)
        op->streamed = streamed;
    op->more = false;
    op_complete(op, commit->err);
}

static void stream_destroy(struct engine_stream *stream)
{
    rd_stream_abort(stream->stream);
    free(stream);
}

static void run_destroy(struct local_engine *engine, struct engine_job *job)
{
    (void)engine;
    stream_destroy((struct engine_stream *)job);
}

void stream_finish(struct local_engine *engine, rd_op *op)
{
    struct engine_stream *stream = local_of(op)->stream;
    if (stream == NULL)
        return;
    if (!stream_has_file(stream->stream)) {
        stream_destroy(stream);
        return;
    }
    stream->job.run = run_destroy; /* the system takes long to free a large file */
    pool_submit(engine->workers, &stream->job.job);
}
