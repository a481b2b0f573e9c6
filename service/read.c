/* One key, one answer: Exists, Read, ReadLastEntry, ReadMetadata. */
#include "encode.h"
#include "method.h"
#include "server.h"
#include <rdrive/v1/reader.pb-c.h>

static rd_span span_of(const ProtobufCBinaryData *bytes)
{
    return (rd_span){.data = bytes->data, .len = bytes->len};
}

/* A value that no answer can hold is neither loaded nor checked. */
static enum step ask_one(struct call *call, uint64_t key_hash, bool no_payload)
{
    call_ask_one(call, key_hash, no_payload);
    call->op.payload_max = call->queue->server->config->max_response_bytes;
    return STEP_ASK;
}

/* Requests of one field: a key, or its hash. Decoded alike, since protobuf-c lays them out alike. */
static enum step begin_key(struct call *call, const ProtobufCMessageDescriptor *descriptor, bool no_payload)
{
    const Rdrive__V1__ReadRequest *request = call_decode(call, descriptor);
    if (request == NULL)
        return STEP_FAIL;
    return ask_one(call, rd_hash(span_of(&request->key)), no_payload);
}
_Static_assert(offsetof(Rdrive__V1__ReadRequest, key) == offsetof(Rdrive__V1__ExistsRequest, key) &&
                   offsetof(Rdrive__V1__ReadRequest, key) == offsetof(Rdrive__V1__ReadMetadataRequest, key),
               "begin_key reads all three");

static enum step begin_hash(struct call *call, const ProtobufCMessageDescriptor *descriptor, bool no_payload)
{
    const Rdrive__V1__ReadWithKeyHashRequest *request = call_decode(call, descriptor);
    if (request == NULL)
        return STEP_FAIL;
    return ask_one(call, request->key_hash, no_payload);
}
_Static_assert(offsetof(Rdrive__V1__ReadWithKeyHashRequest, key_hash) ==
                   offsetof(Rdrive__V1__ExistsWithKeyHashRequest, key_hash),
               "begin_hash reads both");

enum step exists_begin(struct call *call)
{
    return begin_key(call, &rdrive__v1__exists_request__descriptor, true);
}

enum step exists_hash_begin(struct call *call)
{
    return begin_hash(call, &rdrive__v1__exists_with_key_hash_request__descriptor, true);
}

enum step exists_resume(struct call *call)
{
    if (call->value.err != RD_OK && call->value.err != RD_ABSENT)
        return call_fail(call, call->value.err);
    Rdrive__V1__ExistsResponse response;
    rdrive__v1__exists_response__init(&response);
    response.exists = call->value.err == RD_OK;
    call_pack(call, &response.base);
    return STEP_END;
}

enum step read_begin(struct call *call)
{
    return begin_key(call, &rdrive__v1__read_request__descriptor, false);
}

enum step read_hash_begin(struct call *call)
{
    return begin_hash(call, &rdrive__v1__read_with_key_hash_request__descriptor, false);
}

enum step read_last_begin(struct call *call)
{
    if (call_decode(call, &rdrive__v1__read_last_entry_request__descriptor) == NULL)
        return STEP_FAIL;
    call->op = (rd_op){.kind = RD_OP_LAST, .values = &call->value, .value_max = 1};
    return STEP_ASK;
}

enum step read_resume(struct call *call)
{
    const rd_value *value = &call->value;
    uint64_t limit = call->queue->server->config->max_response_bytes;
    if (value->err == RD_ABSENT) {
        reply_reserve(&call->reply, 0); /* OK with nothing in it */
        return STEP_END;
    }
    if (value->err != RD_OK && value->err != RD_E_TOO_LARGE)
        return call_fail(call, value->err);
    size_t size = encode_entry_message_size(value);
    if (size > limit) {
        call_tell(call, "size", size);
        call_tell(call, "limit", limit);
        call_tell_text(call, "use", "ReadStream");
        return call_refuse(call, REFUSE_RESPONSE,
                           "the answer takes %zu bytes and at most %llu are allowed; use ReadStream", size,
                           (unsigned long long)limit);
    }
    struct encode_source source = call_source(call);
    encode_entry_message(&call->reply, &source, value);
    return STEP_END;
}

enum step metadata_begin(struct call *call)
{
    return begin_key(call, &rdrive__v1__read_metadata_request__descriptor, true);
}

enum step metadata_resume(struct call *call)
{
    if (call->value.err == RD_OK)
        encode_metadata_message(&call->reply, &call->value.meta);
    else if (call->value.err == RD_ABSENT)
        reply_reserve(&call->reply, 0);
    else
        return call_fail(call, call->value.err);
    return STEP_END;
}
