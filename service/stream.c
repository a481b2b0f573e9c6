/* ReadStream: one payload, or a range of it, in fragments. */
#include "encode.h"
#include "method.h"
#include "server.h"
#include <rdrive/v1/reader.pb-c.h>

enum step read_stream_begin(struct call *call)
{
    const Rdrive__V1__ReadStreamRequest *request = call_decode(call, &rdrive__v1__read_stream_request__descriptor);
    if (request == NULL)
        return STEP_FAIL;
    uint64_t hash = 0;
    if (request->selector_case == RDRIVE__V1__READ_STREAM_REQUEST__SELECTOR_KEY)
        hash = rd_hash((rd_span){.data = request->key.data, .len = request->key.len});
    else if (request->selector_case == RDRIVE__V1__READ_STREAM_REQUEST__SELECTOR_KEY_HASH)
        hash = request->key_hash;
    else
        return call_refuse(call, REFUSE_SELECTOR, "neither key nor key_hash is set; set one of them");
    /* `end` holds the limit until the payload's size is known */
    call->u.stream = (struct stream_progress){.offset = request->offset, .end = request->limit};
    call_ask_one(call, hash, false);
    return STEP_ASK;
}

/* The value is there: turn offset and limit into a range of it. */
static bool begin_range(struct call *call)
{
    struct stream_progress *stream = &call->u.stream;
    uint64_t size = call->value.payload.len;
    if (stream->offset > size) {
        call_tell(call, "offset", stream->offset);
        call_tell(call, "size", size);
        call_refuse(call, REFUSE_OFFSET, "offset %llu is beyond the payload's %llu bytes",
                    (unsigned long long)stream->offset, (unsigned long long)size);
        return false;
    }
    uint64_t left = size - stream->offset;
    uint64_t limit = stream->end;
    stream->end = stream->offset + (limit == 0 || limit > left ? left : limit);
    return true;
}

enum step read_stream_resume(struct call *call)
{
    struct stream_progress *stream = &call->u.stream;
    const rd_value *value = &call->value;
    if (value->err != RD_OK)
        return value->err == RD_ABSENT ? STEP_END : call_fail(call, value->err);
    bool first = !stream->begun;
    if (first && !begin_range(call))
        return STEP_FAIL;
    stream->begun = true;
    uint64_t left = stream->end - stream->offset;
    if (left == 0)
        return STEP_END;
    size_t most = call->queue->server->config->chunk_bytes - ENCODE_FRAGMENT_OVERHEAD;
    struct encode_run run = {
        .offset = stream->offset, .len = left < most ? (size_t)left : most, .with_metadata = first};
    struct encode_source source = call_source(call);
    encode_fragment_message(&call->reply, &source, value, &run);
    stream->offset += run.len;
    return stream->offset < stream->end ? STEP_SEND : STEP_END;
}
