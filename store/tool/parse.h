/** One line of an import, from text to a key's hash and a value. */
#ifndef RDRIVE_TOOL_PARSE_H
#define RDRIVE_TOOL_PARSE_H

#include "buf.h"

/** Why a line is refused: what came, what is allowed. */
struct parse_why {
    char text[512];
};

/**
 * Understand `line`, and append its value to `values`.
 * Returns: RD_OK; RD_E_INVALID `out_why` says; RD_E_PAYLOAD the format can't hold the value; RD_E_NOMEM. On errors
 *          `values` has its old length.
 */
typedef rd_err parse_line(rd_span line, struct buf *values, uint64_t *out_hash, struct parse_why *out_why);

/** In the order of the choices of --format. */
enum parse_format { PARSE_TSV, PARSE_JSONL };

parse_line parse_tsv;   /* key<TAB>value; the key up to the first tab, all else is the value */
parse_line parse_jsonl; /* {"key"|"key_hex"|"key_hash": …, "value"|"value_base64": …} */

#endif
