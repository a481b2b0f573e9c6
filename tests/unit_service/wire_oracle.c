#include "wire_oracle.h"

/* A varint at `*at`, moved behind it. Returns: its bytes, or 0 where it does not end. */
static size_t scan_varint(const uint8_t *bytes, size_t len, size_t *at, uint64_t *out_value)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 10 && *at < len; i++) {
        uint8_t byte = bytes[(*at)++];
        if (i < 9 || byte < 2)
            value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *out_value = value;
            return i + 1;
        }
    }
    return 0;
}

enum verdict { GOES_ON, DIFFERS, MALFORMED };

/* What comes behind a tag, moved over. */
static enum verdict scan_field(const uint8_t *bytes, size_t len, size_t *at, unsigned type, bool is_flag, bool is_inner)
{
    size_t start = *at;
    uint64_t value = 0;
    if (is_flag && type != 0)
        return DIFFERS;
    if (type == 0) {
        size_t took = scan_varint(bytes, len, at, &value);
        if (took == 10 && is_flag && bytes[start + 9] > 1)
            return DIFFERS;
        return took > 0 ? GOES_ON : MALFORMED;
    }
    if (type == 2) {
        size_t took = scan_varint(bytes, len, at, &value);
        if (took == 0 || took > 5)
            return took > 5 ? DIFFERS : MALFORMED;
    } else if (type == 1 || type == 5) {
        value = type == 1 ? 8 : 4;
    } else {
        return MALFORMED;
    }
    if (value > len - *at)
        return MALFORMED;
    start = *at;
    *at += (size_t)value;
    return is_inner && type == 2 && wire_differs(bytes + start, (size_t)value, 0, 0) ? DIFFERS : GOES_ON;
}

bool wire_differs(const uint8_t *bytes, size_t len, uint32_t flag, uint32_t inner)
{
    for (size_t at = 0; at < len;) {
        uint64_t tag;
        size_t took = scan_varint(bytes, len, &at, &tag);
        if (took == 0)
            return false;
        uint64_t field = tag >> 3;
        if (took > 5 || (took > 1 && field == 0) || field >= 1 << 29)
            return true;
        enum verdict verdict =
            scan_field(bytes, len, &at, tag & 7, flag != 0 && field == flag, inner != 0 && field == inner);
        if (verdict != GOES_ON)
            return verdict == DIFFERS;
    }
    return false;
}
