#include "fields.h"

#define VARINT_BYTES_MAX 10u
#define NUMBER_MAX       ((UINT32_C(1) << 29) - 1)

static void advance(rd_span *rest, size_t len)
{
    rest->data = (const uint8_t *)rest->data + len;
    rest->len -= len;
}

static bool take_varint(rd_span *rest, uint64_t *out_value)
{
    const uint8_t *at = rest->data;
    uint64_t value = 0;
    for (size_t i = 0; i < rest->len && i < VARINT_BYTES_MAX; i++) {
        value |= (uint64_t)(at[i] & 0x7f) << (7 * i);
        if (at[i] < 0x80) {
            advance(rest, i + 1);
            *out_value = value;
            return true;
        }
    }
    return false;
}

static bool take_fixed(rd_span *rest, size_t len, uint64_t *out_value)
{
    uint64_t value = 0;
    if (rest->len < len)
        return false;
    for (size_t i = 0; i < len; i++)
        value |= (uint64_t)((const uint8_t *)rest->data)[i] << (8 * i);
    advance(rest, len);
    *out_value = value;
    return true;
}

static bool take_bytes(rd_span *rest, rd_span *out_bytes)
{
    uint64_t len = 0;
    if (!take_varint(rest, &len) || len > rest->len)
        return false;
    *out_bytes = (rd_span){rest->data, (size_t)len};
    advance(rest, (size_t)len);
    return true;
}

enum field_result field_next(rd_span *rest, struct field *out_field)
{
    uint64_t tag = 0;
    struct field field = {0};
    if (rest->len == 0)
        return FIELD_END;
    if (!take_varint(rest, &tag) || tag >> 3 == 0 || tag >> 3 > NUMBER_MAX)
        return FIELD_MALFORMED;
    field.number = (uint32_t)(tag >> 3);
    field.type = (enum wire_type)(tag & 7);
    bool ok = false;
    switch (field.type) {
    case WIRE_VARINT: ok = take_varint(rest, &field.value); break;
    case WIRE_FIXED64: ok = take_fixed(rest, 8, &field.value); break;
    case WIRE_LEN: ok = take_bytes(rest, &field.bytes); break;
    case WIRE_FIXED32: ok = take_fixed(rest, 4, &field.value); break;
    }
    if (!ok)
        return FIELD_MALFORMED;
    *out_field = field;
    return FIELD_OK;
}
