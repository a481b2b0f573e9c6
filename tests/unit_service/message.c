#include "message.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Chance ----------------------------------------------------------------------------------------------------- */

static uint64_t roll(struct dice *dice)
{
    uint64_t x = dice->state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    dice->state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

uint64_t dice_roll(struct dice *dice, uint64_t sides)
{
    return (roll(dice) >> 11) % sides;
}

uint64_t dice_number(struct dice *dice)
{
    return roll(dice) >> dice_roll(dice, 64);
}

/* ---- Messages --------------------------------------------------------------------------------------------------- */

/* Not one that the core would keep inside the slice or join with its neighbour. */
static grpc_slice slice_of(const uint8_t *bytes, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    if (len > 0)
        memcpy(copy, bytes, len);
    return grpc_slice_new_with_user_data(copy, len, free, copy);
}

static grpc_byte_buffer *message_of(grpc_slice *slices, size_t count)
{
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(slices, count);
    for (size_t i = 0; i < count; i++)
        grpc_slice_unref(slices[i]);
    return message;
}

grpc_byte_buffer *message_whole(const uint8_t *bytes, size_t len)
{
    return message_pieces(bytes, len, len > 0 ? len : 1);
}

grpc_byte_buffer *message_pieces(const uint8_t *bytes, size_t len, size_t piece)
{
    size_t count = (len + piece - 1) / piece;
    grpc_slice *slices = malloc((count + 1) * sizeof(*slices));
    for (size_t i = 0; i < count; i++)
        slices[i] = slice_of(bytes + i * piece, i + 1 < count ? piece : len - i * piece);
    grpc_byte_buffer *message = message_of(slices, count);
    free(slices);
    return message;
}

grpc_byte_buffer *message_cut(const uint8_t *bytes, size_t len, size_t at)
{
    grpc_slice slices[2] = {slice_of(bytes, at), slice_of(bytes + at, len - at)};
    return message_of(slices, 2);
}

grpc_byte_buffer *message_shattered(struct dice *dice, const uint8_t *bytes, size_t len)
{
    grpc_slice *slices = malloc((2 * len + 2) * sizeof(*slices));
    size_t count = 0;
    uint64_t most = 1 + dice_roll(dice, 12);
    for (size_t at = 0; at < len;) {
        size_t piece = (size_t)dice_roll(dice, most + 1);
        piece = piece > len - at ? len - at : piece;
        if (piece == 0 && count > len) /* not only empty ones */
            piece = 1;
        slices[count++] = slice_of(bytes + at, piece);
        at += piece;
    }
    grpc_byte_buffer *message = message_of(slices, count);
    free(slices);
    return message;
}

const char *message_hex(const grpc_byte_buffer *message)
{
    static char hex[2 * 300 + 1];
    size_t used = 0;
    const grpc_slice_buffer *slices = &message->data.raw.slice_buffer;
    for (size_t i = 0; i < slices->count; i++)
        for (size_t k = 0; k < GRPC_SLICE_LENGTH(slices->slices[i]) && used + 2 < sizeof hex; k++, used += 2)
            snprintf(hex + used, 3, "%02x", GRPC_SLICE_START_PTR(slices->slices[i])[k]);
    hex[used] = '\0';
    return hex;
}

struct bytes message_eat(grpc_byte_buffer *message)
{
    struct bytes all = {0};
    grpc_slice_buffer *slices = &message->data.raw.slice_buffer;
    for (size_t i = 0; i < slices->count; i++)
        bytes_append(&all, GRPC_SLICE_START_PTR(slices->slices[i]), GRPC_SLICE_LENGTH(slices->slices[i]));
    grpc_byte_buffer_destroy(message);
    return all;
}

/* ---- Wire format ------------------------------------------------------------------------------------------------ */

void put_varint(struct bytes *message, uint64_t value, size_t pad)
{
    uint8_t byte;
    for (; value >= 0x80; value >>= 7) {
        byte = (uint8_t)(value | 0x80);
        bytes_append(message, &byte, 1);
    }
    for (; pad > 0; pad--, value = 0) {
        byte = (uint8_t)(value | 0x80);
        bytes_append(message, &byte, 1);
    }
    byte = (uint8_t)value;
    bytes_append(message, &byte, 1);
}

void put_tag(struct bytes *message, uint64_t field, unsigned type)
{
    put_varint(message, field << 3 | type, 0);
}

void put_fixed(struct bytes *message, uint64_t value, size_t len)
{
    bytes_append(message, &value, len);
}

void put_len(struct bytes *message, uint64_t field, const void *data, size_t len)
{
    put_tag(message, field, 2);
    put_varint(message, len, 0);
    bytes_append(message, data, len);
}

/* ---- An engine that only holds ---------------------------------------------------------------------------------- */

static void holder_release(void *holder)
{
    ((struct holder *)holder)->released++;
}

static rd_err holder_hold(rd_engine *engine, rd_op *op, const rd_value *value, rd_hold *out_hold)
{
    struct holder *holder = (struct holder *)engine;
    (void)op;
    EXPECT(value->err == RD_OK && value->payload.len > 0, "a hold of nothing");
    if (holder->refuses)
        return RD_E_NOMEM;
    holder->held++;
    *out_hold = (rd_hold){.release = holder_release, .arg = holder};
    return RD_OK;
}

struct holder holder_make(bool refuses)
{
    static const rd_engine_vtable vtable = {.hold = holder_hold};
    return (struct holder){.engine = {.vtable = &vtable}, .refuses = refuses};
}
