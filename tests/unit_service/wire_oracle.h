/**
 * Where protobuf-c and what is decoded by hand are known to differ: both are stricter than the other somewhere, and no
 * protobuf library writes such bytes.
 * - A tag or a length in more than five bytes: protobuf-c refuses it, ours takes up to ten.
 * - A tag that names field 0 in several bytes, or a field above 2^29-1: protobuf-c takes it, for whatever its lower
 *   bits say; ours refuses it.
 * - A bool in ten bytes, of which only bits above the 64th are set: true to protobuf-c, false to ours.
 * - More than DECODE_FIELDS_MAX fields in what is decoded in one go: ours refuses it. wire_differs() doesn't look for
 *   this one: no input made by chance is that long.
 * - A bool as anything but a varint: protobuf-c looks for bits in whatever came; ours refuses it.
 */
#ifndef WIRE_ORACLE_H
#define WIRE_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether a message meets one of these before anything in it is malformed to both. `flag` is its bool field, `inner`
 * its field of messages, which are looked into; 0 where it has none. */
bool wire_differs(const uint8_t *bytes, size_t len, uint32_t flag, uint32_t inner);

#endif
