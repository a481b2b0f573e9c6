/* Many keys: BatchRead in one answer, BatchReadStream and BatchReadHashedKeys message by message. */
#include "access.h"
#include "method.h"
#include "server.h"

#define ITEM_BYTES    64u  /* about what an item takes besides its payload */
#define WINDOW_VALUES 128u /* results brought at a time */

/* Field numbers of proto/rdrive/v1/reader.proto. */
static const struct key_fields by_key = {.keys = 1, .omit_metadata = 2};
static const struct key_fields by_hash = {.key_hashes = 1, .keys = 2, .omit_metadata = 3};

/* Go on decoding, and then ask. */
static enum step decode(struct call *call)
{
    struct key_decoder *decoder = &call->u.batch.decoder;
    const struct config *config = call->queue->server->config;
    enum step step;
    if (!call_run_decoder(call, decoder, &step))
        return step;
    rd_value *values = arena_alloc(&call->arena, WINDOW_VALUES * sizeof(*values));
    if (values == NULL)
        return call_fail(call, RD_E_NOMEM);
    call->op = (rd_op){.kind = RD_OP_READ,
                       .keys = decoder->keys,
                       .key_count = decoder->count,
                       .values = values,
                       .value_max = WINDOW_VALUES,
                       .window_bytes_max = config->chunk_bytes};
    if (call->method->begin == batch_read_begin) /* all of it has to fit one answer */
        call->op.payload_max = config->max_response_bytes;
    return STEP_ASK;
}

static enum step begin(struct call *call, const struct key_fields *fields)
{
    if (!call_begin_decoder(call, &call->u.batch.decoder, fields))
        return STEP_FAIL;
    return decode(call);
}

enum step batch_read_begin(struct call *call)
{
    return begin(call, &by_key);
}

enum step batch_stream_begin(struct call *call)
{
    return begin(call, &by_key);
}

enum step batch_hashed_begin(struct call *call)
{
    return begin(call, &by_hash);
}

static enum step refuse_size(struct call *call, size_t items, uint64_t size)
{
    call_tell(call, "size", size);
    call_tell(call, "limit", call->queue->server->config->max_response_bytes);
    call_tell_text(call, "use", "BatchReadStream");
    return call_refuse(call, REFUSE_RESPONSE,
                       "the answer's first %zu items of %zu take %llu bytes and at most %llu are allowed; use "
                       "BatchReadStream or smaller batches",
                       items, call->op.key_count, (unsigned long long)size,
                       (unsigned long long)call->queue->server->config->max_response_bytes);
}

/* Whether there is room for what of this window is going to be copied, behind what of the message was; for `most`, if
 * that is not little and more windows come. Else STEP_ROOM. */
static bool has_room(struct call *call, uint64_t most)
{
    if (call->room > 0)
        return true;
    bool by_reference = access_is_plain(call);
    uint64_t bytes = call->reply.total - call->reply.referred;
    for (size_t i = call->u.batch.next; i < call->op.value_count; i++) {
        size_t len = call->op.values[i].payload.len;
        bytes += ITEM_BYTES + (by_reference && len >= ENCODE_REFER_MIN ? 0 : len);
    }
    if (bytes > most || (call->op.more && bytes > CALL_SMALL_ANSWER))
        bytes = most;
    return call_has_room(call, bytes);
}

enum step batch_read_resume(struct call *call)
{
    if (call->last == STEP_YIELD)
        return decode(call);
    if (!has_room(call, call->queue->server->config->max_response_bytes))
        return STEP_ROOM;
    bool omit_metadata = call->u.batch.decoder.omit_metadata;
    struct encode_source source = call_source(call);
    uint64_t limit = call->queue->server->config->max_response_bytes;
    reply_reserve(&call->reply, 0);
    for (size_t i = 0; i < call->op.value_count; i++) {
        uint32_t index = (uint32_t)(call->op.first + i);
        const rd_value *value = &call->op.values[i];
        if (value->err == RD_E_TOO_LARGE) /* it was not loaded, but its size is known */
            return refuse_size(call, (size_t)index + 1, call->reply.total + value->payload.len);
        encode_item(&call->reply, &source, index, value, omit_metadata);
        if (call->reply.total > limit)
            return refuse_size(call, (size_t)index + 1, call->reply.total);
    }
    return call->op.more ? STEP_NEXT : STEP_END;
}

/* ---- a message of a stream ---- */

struct filling {
    struct call *call;
    struct encode_source source;
    size_t chunk;
    bool omit_metadata;
};

/* Put a run of a payload that is larger than a chunk. Returns: whether the message is full with it. */
static bool put_run(const struct filling *filling, uint32_t index, const rd_value *value)
{
    struct batch_progress *batch = &filling->call->u.batch;
    size_t most = filling->chunk - ENCODE_FRAGMENT_OVERHEAD;
    uint64_t left = value->payload.len - batch->sent_len;
    struct encode_run run = {.offset = batch->sent_len,
                             .len = left < most ? (size_t)left : most,
                             .with_metadata = batch->sent_len == 0 && !filling->omit_metadata};
    encode_fragment_item(&filling->call->reply, &filling->source, index, value, &run);
    batch->sent_len += run.len;
    if (batch->sent_len < value->payload.len)
        return true;
    batch->sent_len = 0;
    batch->next++;
    return false;
}

/* Put what of the next value fits. Returns: whether the message is full. */
static bool put_next(const struct filling *filling)
{
    struct call *call = filling->call;
    struct batch_progress *batch = &call->u.batch;
    const rd_value *value = &call->op.values[batch->next];
    uint32_t index = (uint32_t)(call->op.first + batch->next);
    size_t total = call->reply.total;
    if (total + value->payload.len + ENCODE_ITEM_OVERHEAD > filling->chunk) { /* it may not fit: look closer */
        size_t size = encode_item_size(index, value, filling->omit_metadata);
        if (total > 0 && total + size > filling->chunk)
            return true;
        if (size > filling->chunk)
            return put_run(filling, index, value);
    }
    encode_item(&call->reply, &filling->source, index, value, filling->omit_metadata);
    batch->next++;
    return false;
}

enum step batch_stream_resume(struct call *call)
{
    struct batch_progress *batch = &call->u.batch;
    if (call->last == STEP_YIELD)
        return decode(call);
    if (!has_room(call, call->queue->server->config->chunk_bytes))
        return STEP_ROOM;
    struct filling filling = {.call = call,
                              .source = call_source(call),
                              .chunk = call->queue->server->config->chunk_bytes,
                              .omit_metadata = batch->decoder.omit_metadata};
    if (call->op.more && call->reply.total == 0) /* once, instead of growing to it */
        reply_reserve(&call->reply, filling.chunk < REPLY_PIECE ? filling.chunk : REPLY_PIECE);
    while (batch->next < call->op.value_count)
        if (put_next(&filling))
            return STEP_SEND;
    if (!call->op.more)
        return STEP_END;
    batch->next = 0;
    return STEP_NEXT;
}
