/* Protobuf's wire format, read from bytes that lie together: what a peer sent, so any bytes at all. */
#ifndef CLIENT_FIELDS_H
#define CLIENT_FIELDS_H

#include "wire.h"
#include <rdrive/store.h>

struct field {
    uint32_t number;
    enum wire_type type;
    uint64_t value; /* WIRE_VARINT, WIRE_FIXED64, WIRE_FIXED32 */
    rd_span bytes;  /* WIRE_LEN */
};

enum field_result { FIELD_OK, FIELD_END, FIELD_MALFORMED };

/* Take the next field off the front of `rest`. A group, or what goes beyond the end, is malformed. */
enum field_result field_next(rd_span *rest, struct field *out_field);

#endif
