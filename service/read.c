/* One key, one answer: Exists, Read, ReadLastEntry, ReadMetadata. */
#include "encode.h"
#include "method.h"
#include "server.h"
#include <rdrive/v1/reader.pb-c.h>

/* Requests of one field, a key or its hash: there are too many of them for protobuf-c, which takes ten times as long.
 */
static enum step begin(struct call *call, bool by_hash, bool no_payload)
{
    uint64_t key_hash;
    size_t len;
    if (call->request == NULL)
        return call_refuse_malformed(call);
    const uint8_t *bytes = call_request_bytes(call, &len);
    if (bytes == NULL)
        return call_fail(call, RD_E_NOMEM);
    if (!decode_key(bytes, len, by_hash, &key_hash))
        return call_refuse_malformed(call);
    call_ask_one(call, key_hash, no_payload);
    /* a value that no answer can hold is neither loaded nor checked */
    call->op.payload_max = call->queue->server->config->max_response_bytes;
    return STEP_ASK;
}

enum step exists_begin(struct call *call)
{
    return begin(call, false, true);
}

enum step exists_hash_begin(struct call *call)
{
    return begin(call, true, true);
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
    return begin(call, false, false);
}

enum step read_hash_begin(struct call *call)
{
    return begin(call, true, false);
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
    return begin(call, false, true);
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
