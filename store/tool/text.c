#include "text.h"

#include <stdio.h>
#include <string.h>

rd_span text_span(const char *text)
{
    return (rd_span){text, strlen(text)};
}

char *text_join(const char *text, const char *suffix)
{
    char *joined = NULL;
    return asprintf(&joined, "%s%s", text, suffix) < 0 ? NULL : joined;
}

size_t text_utf8_len(const uint8_t *bytes, size_t left)
{
    uint8_t lead = bytes[0];
    if (lead < 0x80)
        return 1;
    size_t len = lead >= 0xc2 && lead < 0xe0   ? 2
                 : lead >= 0xe0 && lead < 0xf0 ? 3
                 : lead >= 0xf0 && lead < 0xf5 ? 4
                                               : 0;
    if (len == 0 || len > left)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    /* overlong forms, surrogates, and what lies beyond U+10FFFF */
    if ((lead == 0xe0 && bytes[1] < 0xa0) || (lead == 0xed && bytes[1] > 0x9f) || (lead == 0xf0 && bytes[1] < 0x90) ||
        (lead == 0xf4 && bytes[1] > 0x8f))
        return 0;
    return len;
}

/** Whether a character may go to a terminal as it is: no control character (C1 among them), no quote, no backslash. */
static bool is_plain(const uint8_t *at, size_t len)
{
    if (len == 1)
        return at[0] >= 0x20 && at[0] != 0x7f && at[0] != '"' && at[0] != '\\';
    return len > 1 && !(at[0] == 0xc2 && at[1] < 0xa0);
}

const char *text_quote(rd_span bytes, struct text_quoted *out)
{
    const uint8_t *from = bytes.data;
    size_t shown = bytes.len < TEXT_QUOTED_BYTES ? bytes.len : TEXT_QUOTED_BYTES;
    char *to = out->text;
    *to++ = '"';
    for (size_t i = 0; i < shown;) {
        size_t len = text_utf8_len(from + i, shown - i);
        if (is_plain(from + i, len)) {
            memcpy(to, from + i, len);
            to += len;
            i += len;
        } else {
            to += sprintf(to, "\\x%02x", from[i]);
            i++;
        }
    }
    memcpy(to, shown < bytes.len ? "\"..." : "\"", shown < bytes.len ? 5 : 2);
    return out->text;
}

void text_tame(char *message)
{
    uint8_t *at = (uint8_t *)message;
    for (size_t left = strlen(message); left > 0;) {
        size_t len = text_utf8_len(at, left);
        if (!is_plain(at, len) && *at != '"' && *at != '\\') {
            *at = '?';
            len = 1;
        }
        at += len;
        left -= len;
    }
}

/** The digit's value, or -1. */
static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool text_parse_hash(rd_span text, uint64_t *out_hash)
{
    uint64_t hash = 0;
    const char *digits = text.data;
    if (text.len != 16)
        return false;
    for (size_t i = 0; i < 16; i++) {
        int digit = hex_digit(digits[i]);
        if (digit < 0)
            return false;
        hash = hash << 4 | (uint64_t)digit;
    }
    *out_hash = hash;
    return true;
}

bool text_parse_hex(rd_span text, uint8_t *out)
{
    const char *digits = text.data;
    if (text.len % 2 != 0)
        return false;
    for (size_t i = 0; i < text.len; i += 2) {
        int high = hex_digit(digits[i]), low = hex_digit(digits[i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i / 2] = (uint8_t)(high << 4 | low);
    }
    return true;
}
