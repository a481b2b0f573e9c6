/**
 * Messages in slices of any cut, fixed-seed dice, and an engine that only holds.
 */
#ifndef UNIT_SERVICE_MESSAGE_H
#define UNIT_SERVICE_MESSAGE_H

#include "support.h"

#include <grpc/byte_buffer.h>
#include <rdrive/engine.h>

/* ---- Chance, the same at each run ------------------------------------------------------------------------------- */

struct dice {
    uint64_t state; /* the seed; not 0 */
};

uint64_t dice_roll(struct dice *dice, uint64_t sides); /* below `sides` */
/* 64 bits, often with few of them set, so that varints of all lengths occur. */
uint64_t dice_number(struct dice *dice);

/* ---- Messages --------------------------------------------------------------------------------------------------- */

/* Cuts: where a message is cut into slices. Each slice is memory of its own, so that a step beyond it is found. */
grpc_byte_buffer *message_whole(const uint8_t *bytes, size_t len);
grpc_byte_buffer *message_pieces(const uint8_t *bytes, size_t len, size_t piece); /* of `piece` bytes each */
grpc_byte_buffer *message_cut(const uint8_t *bytes, size_t len, size_t at);       /* in two, one perhaps empty */
grpc_byte_buffer *message_shattered(struct dice *dice, const uint8_t *bytes, size_t len);

/* For what a failed check says; valid until the next call. */
const char *message_hex(const grpc_byte_buffer *message);

/* All bytes of a message, which is destroyed. */
struct bytes message_eat(grpc_byte_buffer *message);

/* ---- Wire format, written by hand -------------------------------------------------------------------------------- */

/* `pad` more bytes than needed. */
void put_varint(struct bytes *message, uint64_t value, size_t pad);
void put_tag(struct bytes *message, uint64_t field, unsigned type);
void put_fixed(struct bytes *message, uint64_t value, size_t len); /* `len` bytes of it */
void put_len(struct bytes *message, uint64_t field, const void *data, size_t len);

/* ---- An engine that only holds ---------------------------------------------------------------------------------- */

struct holder {
    rd_engine engine; /* first */
    bool refuses;
    unsigned held;
    unsigned released;
};

struct holder holder_make(bool refuses);

/* ---- Memory that runs out (memory.c) ------------------------------------------------------------------------------
 */

/* The allocation after `count` more of ours fails, and all that follow; UINT64_MAX: none does. */
void memory_fail_after(uint64_t count);
/* Whether one has failed since then. */
bool memory_has_failed(void);

#endif
