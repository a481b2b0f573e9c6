/* Protobuf's wire format: sizes and bytes of what is packed by hand, and a cursor over a request's slices. */
#ifndef WIRE_H
#define WIRE_H

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LEN = 2, WIRE_FIXED32 = 5 };

/* Fields up to 15 only: their tags are one byte. */
#define WIRE_TAG(field, type) ((uint8_t)((field) << 3 | (type)))

static inline size_t wire_varint_size(uint64_t value)
{
    return (size_t)(63 - __builtin_clzll(value | 1)) / 7 + 1;
}

static inline uint8_t *wire_put_varint(uint8_t *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

/* Tag, length and content of a field of `len` bytes. */
static inline size_t wire_len_size(size_t len)
{
    return 1 + wire_varint_size(len) + len;
}

static inline uint8_t *wire_put_len(uint8_t *at, unsigned field, size_t len)
{
    *at++ = WIRE_TAG(field, WIRE_LEN);
    return wire_put_varint(at, len);
}

/* proto3 leaves zeros out: each of these writes nothing for 0. */
static inline size_t wire_varint_field_size(uint64_t value)
{
    return value == 0 ? 0 : 1 + wire_varint_size(value);
}

static inline uint8_t *wire_put_varint_field(uint8_t *at, unsigned field, uint64_t value)
{
    if (value == 0)
        return at;
    *at++ = WIRE_TAG(field, WIRE_VARINT);
    return wire_put_varint(at, value);
}

static inline uint8_t *wire_put_fixed64_field(uint8_t *at, unsigned field, uint64_t value)
{
    if (value == 0)
        return at;
    *at++ = WIRE_TAG(field, WIRE_FIXED64);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static inline uint8_t *wire_put_fixed32_field(uint8_t *at, unsigned field, uint32_t value)
{
    if (value == 0)
        return at;
    *at++ = WIRE_TAG(field, WIRE_FIXED32);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

/* Reads a message that lies in several slices, without gathering it. Each call returns false at malformed bytes. */
struct wire_cursor {
    const grpc_slice *slices;
    size_t count;
    const uint8_t *at;
    const uint8_t *end; /* of the current slice */
    uint64_t left;      /* bytes of the message not yet read */
};

void wire_cursor_init(struct wire_cursor *cursor, const grpc_byte_buffer *message);

/* Over bytes that lie together; where there are none, `bytes` may be NULL, to which C lets nobody add even 0. */
static inline struct wire_cursor wire_cursor_over(const uint8_t *bytes, size_t len)
{
    return (struct wire_cursor){.at = bytes, .end = len > 0 ? bytes + len : bytes, .left = len};
}

bool wire_read_long_varint(struct wire_cursor *cursor, uint64_t *out_value);

static inline bool wire_read_varint(struct wire_cursor *cursor, uint64_t *out_value)
{
    if (cursor->at == cursor->end || (*cursor->at & 0x80) != 0)
        return wire_read_long_varint(cursor, out_value);
    *out_value = *cursor->at++;
    cursor->left--;
    return true;
}

/* Up to `len` bytes that lie together; fewer where a slice ends. Never 0 unless `len` is. Requires: len <= left. */
size_t wire_read_piece(struct wire_cursor *cursor, uint64_t len, const uint8_t **out_piece);

bool wire_read_bytes(struct wire_cursor *cursor, void *out, size_t len);
bool wire_skip(struct wire_cursor *cursor, uint64_t len);

/* A field's number and type. Groups and numbers outside 1 to 2^29-1 are malformed. */
bool wire_read_tag(struct wire_cursor *cursor, uint32_t *out_field, enum wire_type *out_type);
bool wire_skip_field(struct wire_cursor *cursor, enum wire_type type);

#endif
