#include "wire.h"

#define FIELD_MAX ((UINT32_C(1) << 29) - 1)

void wire_cursor_init(struct wire_cursor *cursor, const grpc_byte_buffer *message)
{
    const grpc_slice_buffer *buffer = &message->data.raw.slice_buffer;
    *cursor = (struct wire_cursor){.slices = buffer->slices, .count = buffer->count, .left = buffer->length};
}

/* Go to the next slice that has bytes. Requires: left > 0. */
static void refill(struct wire_cursor *cursor)
{
    while (cursor->at == cursor->end) {
        cursor->at = GRPC_SLICE_START_PTR(*cursor->slices);
        cursor->end = GRPC_SLICE_END_PTR(*cursor->slices);
        cursor->slices++;
        cursor->count--;
    }
}

size_t wire_read_piece(struct wire_cursor *cursor, uint64_t len, const uint8_t **out_piece)
{
    if (len == 0)
        return 0;
    refill(cursor);
    size_t here = (size_t)(cursor->end - cursor->at);
    size_t piece = here < len ? here : (size_t)len;
    *out_piece = cursor->at;
    cursor->at += piece;
    cursor->left -= piece;
    return piece;
}

bool wire_read_bytes(struct wire_cursor *cursor, void *out, size_t len)
{
    if (len > cursor->left)
        return false;
    uint8_t *to = out;
    while (len > 0) {
        const uint8_t *piece;
        size_t got = wire_read_piece(cursor, len, &piece);
        memcpy(to, piece, got);
        to += got;
        len -= got;
    }
    return true;
}

bool wire_skip(struct wire_cursor *cursor, uint64_t len)
{
    if (len > cursor->left)
        return false;
    while (len > 0) {
        const uint8_t *piece;
        len -= wire_read_piece(cursor, len, &piece);
    }
    return true;
}

bool wire_read_long_varint(struct wire_cursor *cursor, uint64_t *out_value)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        const uint8_t *byte;
        if (cursor->left == 0)
            return false;
        wire_read_piece(cursor, 1, &byte);
        if (shift < 64)
            value |= (uint64_t)(*byte & 0x7f) << shift;
        if ((*byte & 0x80) == 0) {
            *out_value = value;
            return true;
        }
    }
    return false;
}

bool wire_read_tag(struct wire_cursor *cursor, uint32_t *out_field, enum wire_type *out_type)
{
    uint64_t tag;
    if (!wire_read_varint(cursor, &tag) || (tag >> 3) == 0 || (tag >> 3) > FIELD_MAX)
        return false;
    switch (tag & 7) {
    case WIRE_VARINT: *out_type = WIRE_VARINT; break;
    case WIRE_FIXED64: *out_type = WIRE_FIXED64; break;
    case WIRE_LEN: *out_type = WIRE_LEN; break;
    case WIRE_FIXED32: *out_type = WIRE_FIXED32; break;
    default: return false;
    }
    *out_field = (uint32_t)(tag >> 3);
    return true;
}

bool wire_skip_field(struct wire_cursor *cursor, enum wire_type type)
{
    uint64_t len;
    switch (type) {
    case WIRE_VARINT: return wire_read_varint(cursor, &len);
    case WIRE_FIXED64: return wire_skip(cursor, 8);
    case WIRE_FIXED32: return wire_skip(cursor, 4);
    case WIRE_LEN: return wire_read_varint(cursor, &len) && wire_skip(cursor, len);
    }
    return false;
}
