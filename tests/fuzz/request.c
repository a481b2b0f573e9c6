#include "request.h"

#include "arena.h"
#include <sanitizer/allocator_interface.h>
#include <stdlib.h>
#include <string.h>

#define DECODE_MAX (65536 + 2 * ARENA_BLOCK) /* what decoding may take beyond twice the request's own size */

static grpc_slice slice_of(const uint8_t *bytes, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    REQUIRE(copy != NULL, "no memory");
    if (len > 0)
        memcpy(copy, bytes, len);
    return grpc_slice_new_with_user_data(copy, len, free, copy);
}

grpc_byte_buffer *request_message(rd_span bytes, size_t piece)
{
    if (piece == 0 || piece > bytes.len)
        piece = bytes.len > 0 ? bytes.len : 1;
    size_t count = 0;
    grpc_slice *slices = calloc(bytes.len / piece + 1, sizeof(*slices));
    REQUIRE(slices != NULL, "no memory");
    for (size_t at = 0; at < bytes.len; at += piece)
        slices[count++] = slice_of((const uint8_t *)bytes.data + at, piece < bytes.len - at ? piece : bytes.len - at);
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(slices, count);
    for (size_t i = 0; i < count; i++)
        grpc_slice_unref(slices[i]);
    free(slices);
    return message;
}

static void *allocator_alloc(void *arena, size_t bytes)
{
    return arena_alloc(arena, bytes);
}

static void allocator_free(void *arena, void *bytes)
{
    (void)arena;
    (void)bytes;
}

struct call *request_begin(grpc_byte_buffer *message)
{
    struct call *call = calloc(1, sizeof(*call));
    REQUIRE(call != NULL, "no memory");
    arena_init(&call->arena, NULL);
    call->allocator =
        (ProtobufCAllocator){.alloc = allocator_alloc, .free = allocator_free, .allocator_data = &call->arena};
    call->request = message;
    return call;
}

void request_end(struct call *call)
{
    reply_fini(&call->reply);
    arena_fini(&call->arena);
    grpc_byte_buffer_destroy(call->request);
    free(call);
}

void *request_decode(struct call *call, const ProtobufCMessageDescriptor *descriptor)
{
    size_t len = grpc_byte_buffer_length(call->request);
    size_t before = __sanitizer_get_current_allocated_bytes();
    void *message = call_decode(call, descriptor);
    size_t took = __sanitizer_get_current_allocated_bytes() - before;
    REQUIRE(took <= 2 * len + DECODE_MAX, "%zu bytes were taken to decode %zu as %s", took, len, descriptor->name);
    if (message == NULL)
        REQUIRE(call->status == GRPC_STATUS_INVALID_ARGUMENT, "refused with status %d", (int)call->status);
    return message;
}

rd_span request_pack(const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(len > 0 ? len : 1);
    REQUIRE(bytes != NULL, "no memory");
    REQUIRE(protobuf_c_message_pack(message, bytes) == len, "another size than was told");
    return (rd_span){.data = bytes, .len = len};
}

static void forget_within(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    uint8_t *at = (uint8_t *)message;
    void *member = at + field->offset;
    if (field->type != PROTOBUF_C_TYPE_MESSAGE)
        return;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t count = *(size_t *)(void *)(at + field->quantifier_offset);
        for (size_t i = 0; i < count; i++)
            request_forget_unknown((*(ProtobufCMessage ***)member)[i]);
        return;
    }
    bool is_other = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
                    *(uint32_t *)(void *)(at + field->quantifier_offset) != field->id;
    if (!is_other && *(ProtobufCMessage **)member != NULL)
        request_forget_unknown(*(ProtobufCMessage **)member);
}

void request_forget_unknown(ProtobufCMessage *message)
{
    message->n_unknown_fields = 0;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++)
        forget_within(message, &message->descriptor->fields[i]);
}
