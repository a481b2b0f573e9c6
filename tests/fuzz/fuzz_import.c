/*
 * The lines of an import. Any line is understood or refused with a reason; a
 * refused one leaves nothing behind; and what is understood comes back the same
 * through the other ways of writing it down.
 */
#include "scratch.h"

#include "parse.h"
#include <inttypes.h>
#include <nettle/base64.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char before[] = "what was understood before";

/* Whether it may go to a terminal: one line, and nothing that the terminal would obey. */
static bool is_plain(const char *text)
{
    const char *at = text;
    while ((uint8_t)*at >= 0x20 && *at != 0x7f)
        at++;
    return at > text && *at == '\0';
}

/* Understand `line` behind other values. Returns: as a parse_line; `out_value`
 * points into `values`. */
static rd_err understand(parse_line *parse, rd_span line, struct buf *values, uint64_t *out_hash, rd_span *out_value)
{
    struct parse_why why = {{0}};
    rd_span kept = {before, sizeof(before)};
    REQUIRE(buf_add(values, kept), "no memory");
    rd_err err = parse(line, values, out_hash, &why);
    REQUIRE(err == RD_OK || err == RD_E_INVALID || err == RD_E_PAYLOAD, "%s", rd_err_text(err));
    REQUIRE(memcmp(values->data, before, sizeof(before)) == 0, "a line changed the values before it");
    if (err != RD_OK) {
        REQUIRE(values->len == kept.len, "a refused line left %zu bytes", values->len - kept.len);
        REQUIRE(err != RD_E_INVALID || is_plain(why.text), "a line is refused without a reason for people to read");
        return err;
    }
    *out_value = (rd_span){values->data + kept.len, values->len - kept.len};
    REQUIRE(out_value->len > 1 || (out_value->len == 1 && *(const uint8_t *)out_value->data != 0), "F-09");
    return RD_OK;
}

/* Write (hash, value) as `export` does, and understand that. */
static void expect_exported_comes_back(uint64_t hash, rd_span value)
{
    AUTO_BUF values = {0};
    rd_span again;
    uint64_t hash_again = ~hash;
    size_t head = 64, line_max = head + BASE64_ENCODE_RAW_LENGTH(value.len) + 3;
    char *line = malloc(line_max);
    REQUIRE(line != NULL, "no memory");
    size_t at = (size_t)snprintf(line, head, "{\"key_hash\":\"%016" PRIx64 "\",\"value_base64\":\"", hash);
    base64_encode_raw(line + at, value.len, value.data);
    at += BASE64_ENCODE_RAW_LENGTH(value.len);
    memcpy(line + at, "\"}", 2);
    rd_err err = understand(parse_jsonl, (rd_span){line, at + 2}, &values, &hash_again, &again);
    REQUIRE(err == RD_OK && hash_again == hash && scratch_equal(again, value), "what is exported does not come back");
    /* the same through the JSON parser, which a space keeps from being passed by
     */
    memmove(line + 2, line + 1, at + 1);
    line[1] = ' ';
    AUTO_BUF others = {0};
    err = understand(parse_jsonl, (rd_span){line, at + 3}, &others, &hash_again, &again);
    REQUIRE(err == RD_OK && hash_again == hash && scratch_equal(again, value), "the two JSON paths disagree");
    free(line);
}

/* A line of key<TAB>value, written as JSON with its key in hex, means the same.
 */
static void expect_hex_is_the_same(rd_span line, uint64_t hash, rd_span value)
{
    AUTO_BUF values = {0};
    const uint8_t *key = line.data;
    size_t key_len = (size_t)((const uint8_t *)memchr(key, '\t', line.len) - key);
    size_t line_max = 64 + 2 * key_len + BASE64_ENCODE_RAW_LENGTH(value.len);
    char *json = malloc(line_max);
    REQUIRE(json != NULL, "no memory");
    size_t at = (size_t)snprintf(json, line_max, "{\"value_base64\":\"");
    base64_encode_raw(json + at, value.len, value.data);
    at += BASE64_ENCODE_RAW_LENGTH(value.len);
    at += (size_t)snprintf(json + at, line_max - at, "\",\"key_hex\":\"");
    for (size_t i = 0; i < key_len; i++)
        at += (size_t)snprintf(json + at, line_max - at, i % 2 == 0 ? "%02x" : "%02X", key[i]);
    at += (size_t)snprintf(json + at, line_max - at, "\"}");
    rd_span again;
    uint64_t hash_again = ~hash;
    rd_err err = understand(parse_jsonl, (rd_span){json, at}, &values, &hash_again, &again);
    REQUIRE(err == RD_OK && hash_again == hash && scratch_equal(again, value), "key_hex is another key");
    free(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (memchr(data, '\n', size) != NULL)
        return -1; /* two lines */
    AUTO_BUF of_tsv = {0};
    AUTO_BUF of_json = {0};
    uint64_t hash = 0;
    rd_span line = {data, size}, value;
    if (understand(parse_tsv, line, &of_tsv, &hash, &value) == RD_OK) {
        const uint8_t *tab = memchr(data, '\t', size);
        size_t key_len = (size_t)(tab - data);
        REQUIRE(hash == rd_hash((rd_span){data, key_len}), "another key");
        REQUIRE(scratch_equal(value, (rd_span){tab + 1, size - key_len - 1}), "another value");
        expect_exported_comes_back(hash, value);
        expect_hex_is_the_same(line, hash, value);
    }
    if (understand(parse_jsonl, line, &of_json, &hash, &value) == RD_OK)
        expect_exported_comes_back(hash, value);
    return 0;
}
