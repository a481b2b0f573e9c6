/* What methods use of a call: its request, its refusals, its operation. */
#include "access.h"
#include "call.h"
#include "server.h"
#include <stdarg.h>
#include <stdio.h>

#define DECODE_SLACK 65536 /* what decoding a request may take beyond the request's own size */

static const struct {
    grpc_status_code status;
    const char *reason;
} refusals[] = {
#define REFUSAL_ROW(name, status, reason) [name] = {status, reason},
    REFUSALS(REFUSAL_ROW)
#undef REFUSAL_ROW
};

static enum step set_status(struct call *call, grpc_status_code status, const char *reason)
{
    call->status = status;
    call->reason = reason;
    reply_fini(&call->reply);
    return STEP_FAIL;
}

enum step call_refuse(struct call *call, enum refusal refusal, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(call->status_text, sizeof(call->status_text), format, arguments);
    va_end(arguments);
    for (char *c = call->status_text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 ||
            (unsigned char)*c >= 0x7f) /* it may quote what a client sent, and must be valid UTF-8 */
            *c = '?';
    return set_status(call, refusals[refusal].status, refusals[refusal].reason);
}

enum step call_fail(struct call *call, rd_err err)
{
    if (err == RD_E_NOMEM && call->arena.refused) {
        uint64_t limit = call->queue->server->config->max_memory;
        call_tell(call, "limit", limit);
        return call_refuse(call, REFUSE_OVERLOADED,
                           "the calls being served take the %llu bytes of --max-memory; retry later or elsewhere",
                           (unsigned long long)limit);
    }
    snprintf(call->status_text, sizeof(call->status_text), "%s", rd_err_text(err));
    return set_status(call, (grpc_status_code)rd_err_status(err), rd_err_reason(err));
}

void call_tell_text(struct call *call, const char *name, const char *text)
{
    if (call->detail_count == CALL_DETAILS_MAX)
        return;
    struct call_detail *detail = &call->detail[call->detail_count++];
    detail->name = name;
    snprintf(detail->value, sizeof(detail->value), "%s", text);
}

void call_tell(struct call *call, const char *name, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
    call_tell_text(call, name, text);
}

const uint8_t *call_request_bytes(struct call *call, size_t *out_len)
{
    const grpc_slice_buffer *slices = &call->request->data.raw.slice_buffer;
    *out_len = slices->length;
    if (slices->count == 1)
        return GRPC_SLICE_START_PTR(slices->slices[0]);
    uint8_t *bytes = arena_alloc(&call->arena, slices->length + 1);
    size_t used = 0;
    for (size_t i = 0; bytes != NULL && i < slices->count; i++) {
        memcpy(bytes + used, GRPC_SLICE_START_PTR(slices->slices[i]), GRPC_SLICE_LENGTH(slices->slices[i]));
        used += GRPC_SLICE_LENGTH(slices->slices[i]);
    }
    return bytes;
}

void *call_decode(struct call *call, const ProtobufCMessageDescriptor *descriptor)
{
    if (call->request == NULL) {
        call_refuse(call, REFUSE_MALFORMED, "no message came before the half close; send exactly one %s",
                    descriptor->name);
        return NULL;
    }
    size_t len;
    const uint8_t *bytes = call_request_bytes(call, &len);
    if (bytes == NULL) {
        call_fail(call, RD_E_NOMEM);
        return NULL;
    }
    /* protobuf-c keeps 40 bytes and more of each unknown field, however small: 15 MiB of them would take 570 */
    arena_limit(&call->arena, len + DECODE_SLACK);
    void *message = protobuf_c_message_unpack(descriptor, &call->allocator, len, bytes);
    arena_limit(&call->arena, SIZE_MAX);
    if (message == NULL && call->arena.refused)
        call_fail(call, RD_E_NOMEM);
    else if (message == NULL)
        call_refuse(call, REFUSE_MALFORMED, "the request's %zu bytes are not a %s, or mostly fields it doesn't have",
                    len, descriptor->name);
    return message;
}

enum step call_refuse_batch(struct call *call, uint64_t count)
{
    uint64_t limit = call->queue->server->config->max_batch_keys;
    call_tell(call, "count", count);
    call_tell(call, "limit", limit);
    return call_refuse(call, REFUSE_BATCH,
                       "%llu keys came and at most %llu are allowed (--max-batch-keys); split the batch",
                       (unsigned long long)count, (unsigned long long)limit);
}

enum step call_refuse_malformed(struct call *call)
{
    if (call->request == NULL)
        return call_refuse(call, REFUSE_MALFORMED, "no message came before the half close; send exactly one");
    return call_refuse(call, REFUSE_MALFORMED,
                       "the request's %zu bytes are not a message of this method, or have far too many fields",
                       call->request->data.raw.slice_buffer.length);
}

static enum step refuse_keys(struct call *call, enum decode_result result, const struct key_decoder *decoder)
{
    size_t most = decoder->hash_count > decoder->key_count ? decoder->hash_count : decoder->key_count;
    switch (result) {
    case DECODE_MORE: return STEP_YIELD;
    case DECODE_TOO_MANY: return call_refuse_batch(call, most);
    case DECODE_LENGTHS:
        call_tell(call, "key_hashes", decoder->hash_count);
        call_tell(call, "keys", decoder->key_count);
        return call_refuse(call, REFUSE_LENGTHS,
                           "key_hashes has %zu elements and keys has %zu; send as many of both, or no keys",
                           decoder->hash_count, decoder->key_count);
    case DECODE_NOMEM: return call_fail(call, RD_E_NOMEM);
    case DECODE_MALFORMED:
    case DECODE_PAYLOAD:
    case DECODE_OK: break;
    }
    return call_refuse_malformed(call);
}

bool call_begin_decoder(struct call *call, struct key_decoder *decoder, const struct key_fields *fields)
{
    if (call->request == NULL) {
        call_refuse_malformed(call);
        return false;
    }
    key_decoder_init(decoder, call->request, fields, call->queue->server->config->max_batch_keys, &call->arena);
    return true;
}

bool call_run_decoder(struct call *call, struct key_decoder *decoder, enum step *out_step)
{
    enum decode_result result = key_decoder_run(decoder);
    if (result != DECODE_OK) {
        *out_step = refuse_keys(call, result, decoder);
        return false;
    }
    call->key_count = decoder->count;
    grpc_byte_buffer_destroy(call->request); /* nothing points into it any more */
    call->request = NULL;
    return true;
}

struct encode_source call_source(struct call *call)
{
    return (struct encode_source){.engine = call->engine, .op = &call->op, .by_reference = access_is_plain(call)};
}

bool call_has_room(struct call *call, uint64_t bytes)
{
    if (call->room > 0 || bytes <= CALL_SMALL_ANSWER)
        return true;
    call->wanted = (size_t)bytes;
    return false;
}

void call_pack(struct call *call, const ProtobufCMessage *message)
{
    encode_message(&call->reply, message);
}

void call_ask_one(struct call *call, uint64_t key_hash, bool no_payload)
{
    call->key[0] = (rd_key){.hash = key_hash};
    call->op = (rd_op){.kind = RD_OP_READ,
                       .keys = call->key,
                       .key_count = 1,
                       .no_payload = no_payload,
                       .values = &call->value,
                       .value_max = 1};
    call->key_count = 1;
}
