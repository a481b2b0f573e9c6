/** Bytes that people typed, and bytes shown to people. */
#ifndef RDRIVE_TOOL_TEXT_H
#define RDRIVE_TOOL_TEXT_H

#include <rdrive/store.h>

/** `text` without its NUL. */
rd_span text_span(const char *text);

/** Both, one behind the other, to be freed. Returns: NULL if there is no memory. */
char *text_join(const char *text, const char *suffix);

/** Length of the UTF-8 character at `bytes`, 1 to 4, or 0 if there is none. Requires: `left` > 0. */
size_t text_utf8_len(const uint8_t *bytes, size_t left);

#define TEXT_QUOTED_BYTES 60 /* of the original, before it is cut short */
struct text_quoted {
    char text[TEXT_QUOTED_BYTES * 4 + 8];
};

/** `bytes` in double quotes on one line, what is not plain text as \xNN, cut short where long. Returns out->text. */
const char *text_quote(rd_span bytes, struct text_quoted *out);

/** text_quote into a temporary that lives as long as the block around it. */
#define QUOTED(span) text_quote((span), &(struct text_quoted){{0}})

/** Put a '?' in place of each byte of a message that a terminal might obey, or that is no UTF-8. */
void text_tame(char *message);

/** Sixteen hex digits, of either case. Returns: false if it is anything else. */
RD_MUST_CHECK bool text_parse_hash(rd_span text, uint64_t *out_hash);

/** Pairs of hex digits; `out` has room for text.len / 2. Returns: false if it is anything else. */
RD_MUST_CHECK bool text_parse_hex(rd_span text, uint8_t *out);

#endif
