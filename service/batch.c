/* Many keys: BatchRead in one answer, BatchReadStream and BatchReadHashedKeys message by message. */
#include "decode.h"
#include "encode.h"
#include "method.h"
#include "server.h"
#include <stdlib.h>

#define RESERVE_MAX   ((size_t)1 << 20)
#define WINDOW_VALUES 128u /* results brought at a time */

/* Field numbers of proto/rdrive/v1/reader.proto. */
static const struct key_fields by_key = {.keys = 1, .omit_metadata = 2};
static const struct key_fields by_hash = {.key_hashes = 1, .keys = 2, .omit_metadata = 3};

static enum step refuse_keys(struct call *call, enum decode_result result, const struct decoded_keys *decoded)
{
    size_t most = decoded->hash_count > decoded->key_count ? decoded->hash_count : decoded->key_count;
    switch (result) {
    case DECODE_TOO_MANY:
        return call_refuse(call, REFUSE_BATCH,
                           "%zu keys came and at most %llu are allowed (--max-batch-keys); split the batch", most,
                           (unsigned long long)call->queue->server->config->max_batch_keys);
    case DECODE_LENGTHS:
        return call_refuse(call, REFUSE_LENGTHS,
                           "key_hashes has %zu elements and keys has %zu; send as many of both, or no keys",
                           decoded->hash_count, decoded->key_count);
    case DECODE_NOMEM: return call_fail(call, RD_E_NOMEM);
    case DECODE_MALFORMED:
    case DECODE_OK: break;
    }
    return call_refuse(call, REFUSE_MALFORMED, "the request's %zu bytes are not a message of this method",
                       call->request->data.raw.slice_buffer.length);
}

static enum step begin(struct call *call, const struct key_fields *fields)
{
    const struct config *config = call->queue->server->config;
    if (call->request == NULL)
        return call_refuse(call, REFUSE_MALFORMED, "no message came before the half close; send exactly one");
    struct decoded_keys decoded;
    enum decode_result result = decode_keys(call->request, fields, config->max_batch_keys, &decoded);
    if (result != DECODE_OK)
        return refuse_keys(call, result, &decoded);
    grpc_byte_buffer_destroy(call->request); /* nothing points into it any more */
    call->request = NULL;
    call->keys = decoded.keys;
    call->u.batch = (struct batch_progress){.omit_metadata = decoded.omit_metadata};
    rd_value *values = arena_alloc(&call->arena, WINDOW_VALUES * sizeof(*values));
    if (values == NULL)
        return call_fail(call, RD_E_NOMEM);
    call->op = (rd_op){.kind = RD_OP_READ,
                       .keys = decoded.keys,
                       .key_count = decoded.count,
                       .values = values,
                       .value_max = WINDOW_VALUES,
                       .window_bytes_max = config->chunk_bytes};
    return STEP_ASK;
}

void batch_release(struct call *call)
{
    free(call->keys);
    call->keys = NULL;
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
    return call_refuse(call, REFUSE_RESPONSE,
                       "the answer's first %zu items of %zu take %llu bytes and at most %llu are allowed; use "
                       "BatchReadStream or smaller batches",
                       items, call->op.key_count, (unsigned long long)size,
                       (unsigned long long)call->queue->server->config->max_response_bytes);
}

enum step batch_read_resume(struct call *call)
{
    struct batch_progress *batch = &call->u.batch;
    struct encode_source source = {.engine = call->engine, .op = &call->op};
    uint64_t limit = call->queue->server->config->max_response_bytes;
    reply_reserve(&call->reply, 0);
    for (size_t i = 0; i < call->op.value_count; i++) {
        uint32_t index = (uint32_t)(call->op.first + i);
        batch->size += encode_item_size(index, &call->op.values[i], batch->omit_metadata);
        if (batch->size > limit)
            return refuse_size(call, (size_t)index + 1, batch->size);
        encode_item(&call->reply, &source, index, &call->op.values[i], batch->omit_metadata);
        batch->size = call->reply.total; /* an item whose payload vanished may take more than was expected */
        if (batch->size > limit)
            return refuse_size(call, (size_t)index + 1, batch->size);
    }
    return call->op.more ? STEP_NEXT : STEP_END;
}

/* Put a run of a payload that is larger than a chunk. Returns: whether the message is full with it. */
static bool put_run(struct call *call, uint32_t index, const rd_value *value)
{
    struct batch_progress *batch = &call->u.batch;
    struct encode_source source = {.engine = call->engine, .op = &call->op};
    size_t most = call->queue->server->config->chunk_bytes - ENCODE_FRAGMENT_OVERHEAD;
    uint64_t left = value->payload.len - batch->sent_len;
    struct encode_run run = {.offset = batch->sent_len,
                             .len = left < most ? (size_t)left : most,
                             .with_metadata = batch->sent_len == 0 && !batch->omit_metadata};
    encode_fragment_item(&call->reply, &source, index, value, &run);
    batch->sent_len += run.len;
    if (batch->sent_len < value->payload.len)
        return true;
    batch->sent_len = 0;
    batch->next++;
    return false;
}

/* Put what of the next value fits the message. Returns: whether the message is full. */
static bool put_next(struct call *call)
{
    struct batch_progress *batch = &call->u.batch;
    struct encode_source source = {.engine = call->engine, .op = &call->op};
    size_t chunk = call->queue->server->config->chunk_bytes;
    const rd_value *value = &call->op.values[batch->next];
    uint32_t index = (uint32_t)(call->op.first + batch->next);
    size_t size = encode_item_size(index, value, batch->omit_metadata);
    bool fits = call->reply.total == 0 || (size <= chunk && call->reply.total + size <= chunk);
    if (!fits)
        return true;
    if (size > chunk)
        return put_run(call, index, value);
    encode_item(&call->reply, &source, index, value, batch->omit_metadata);
    batch->next++;
    return false;
}

enum step batch_stream_resume(struct call *call)
{
    struct batch_progress *batch = &call->u.batch;
    size_t chunk = call->queue->server->config->chunk_bytes;
    if (call->op.more && call->reply.total == 0) /* once, instead of growing to it */
        reply_reserve(&call->reply, chunk < RESERVE_MAX ? chunk : RESERVE_MAX);
    while (batch->next < call->op.value_count)
        if (put_next(call))
            return STEP_SEND;
    if (!call->op.more)
        return STEP_END;
    batch->next = 0;
    return STEP_NEXT;
}
