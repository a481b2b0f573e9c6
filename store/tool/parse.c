#include "parse.h"

#include "in.h"
#include "ops.h"
#include "text.h"
#include <jansson.h>
#include <nettle/base64.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/** Note why; for `return refuse(…)`. */
__attribute__((format(printf, 2, 3))) static rd_err refuse(struct parse_why *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why->text, sizeof(why->text), format, args);
    va_end(args);
    return RD_E_INVALID;
}

/** The rules that every value obeys; `value` is what was appended last to `values`, from `start` on. */
static rd_err check_value(struct buf *values, size_t start, struct parse_why *why)
{
    rd_span value = {values->data + start, values->len - start};
    if (value.len <= IN_VALUE_MAX && payload_is_legal(value))
        return RD_OK;
    values->len = start;
    if (value.len > IN_VALUE_MAX)
        return refuse(why, "the value has %zu bytes; allowed: up to %zu", value.len, IN_VALUE_MAX);
    return RD_E_PAYLOAD;
}

rd_err parse_tsv(rd_span line, struct buf *values, uint64_t *out_hash, struct parse_why *out_why)
{
    const char *text = line.data;
    const char *tab = line.len == 0 ? NULL : memchr(text, '\t', line.len);
    size_t start = values->len;
    if (tab == NULL)
        return refuse(out_why, "%s has no tab; allowed: key<TAB>value", QUOTED(line));
    size_t key_len = (size_t)(tab - text);
    if (!buf_add(values, (rd_span){tab + 1, line.len - key_len - 1}))
        return RD_E_NOMEM;
    rd_err err = check_value(values, start, out_why);
    if (err == RD_OK)
        *out_hash = rd_hash((rd_span){text, key_len});
    return err;
}

/* ---- JSON lines ------------------------------------------------------------------------------------------------- */

typedef rd_err key_field(rd_span text, uint64_t *out_hash, struct parse_why *why);
typedef rd_err value_field(rd_span text, struct buf *values, struct parse_why *why);

static rd_err key_text(rd_span text, uint64_t *out_hash, struct parse_why *why)
{
    (void)why;
    *out_hash = rd_hash(text);
    return RD_OK;
}

static rd_err key_hex(rd_span text, uint64_t *out_hash, struct parse_why *why)
{
    AUTO_BUF bytes = {0};
    if (!buf_reserve(&bytes, text.len / 2 + 1))
        return RD_E_NOMEM;
    if (!text_parse_hex(text, bytes.data))
        return refuse(why, "\"key_hex\": %s came; allowed: hex digits, two for each byte", QUOTED(text));
    *out_hash = rd_hash((rd_span){bytes.data, text.len / 2});
    return RD_OK;
}

static rd_err key_hash(rd_span text, uint64_t *out_hash, struct parse_why *why)
{
    if (!text_parse_hash(text, out_hash))
        return refuse(why, "\"key_hash\": %s came; allowed: 16 hex digits", QUOTED(text));
    return RD_OK;
}

static rd_err value_text(rd_span text, struct buf *values, struct parse_why *why)
{
    (void)why;
    return buf_add(values, text) ? RD_OK : RD_E_NOMEM;
}

static rd_err value_base64(rd_span text, struct buf *values, struct parse_why *why)
{
    const char *chars = text.data;
    struct base64_decode_ctx decoder;
    size_t len = 0;
    if (!buf_reserve(values, BASE64_DECODE_LENGTH(text.len)))
        return RD_E_NOMEM;
    size_t pad = text.len >= 2 ? (size_t)(chars[text.len - 1] == '=') + (size_t)(chars[text.len - 2] == '=') : 0;
    base64_decode_init(&decoder);
    /* nettle passes over white space; then fewer bytes come out than the text's length promises. */
    if (text.len % 4 != 0 || base64_decode_update(&decoder, &len, values->data + values->len, text.len, chars) != 1 ||
        base64_decode_final(&decoder) != 1 || len != text.len / 4 * 3 - pad)
        return refuse(why, "\"value_base64\": %s came; allowed: base64 of RFC 4648 with its padding and nothing else",
                      QUOTED(text));
    values->len += len;
    return RD_OK;
}

#define FIELDS_ALLOWED "one of \"key\", \"key_hex\", \"key_hash\" and one of \"value\", \"value_base64\", each a string"

/* A field names a key or a value: the one function it has tells. */
static const struct field {
    const char *name;
    key_field *key;
    value_field *value;
} fields[] = {
    {"key", key_text, NULL},     {"key_hex", key_hex, NULL},           {"key_hash", key_hash, NULL},
    {"value", NULL, value_text}, {"value_base64", NULL, value_base64},
};

static const struct field *find_field(const char *name)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: break;
    }
    return "null";
}

struct pick {
    const struct field *key;
    const struct field *value;
};

/** The key field and the value field of `object`, where it has them; a second of a kind, or anything else, is refused.
 */
static rd_err pick_fields(json_t *object, struct pick *pick, struct parse_why *why)
{
    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at)) {
        const char *name = json_object_iter_key(at);
        const struct field *field = find_field(name);
        if (field == NULL)
            return refuse(why, "unknown field %s; allowed: " FIELDS_ALLOWED, QUOTED(text_span(name)));
        if (!json_is_string(json_object_iter_value(at)))
            return refuse(why, "\"%s\" is %s; allowed: a string", name, type_name(json_object_iter_value(at)));
        const struct field **place = field->key != NULL ? &pick->key : &pick->value;
        if (*place != NULL)
            return refuse(why, "both \"%s\" and \"%s\" came; allowed: " FIELDS_ALLOWED, (*place)->name, name);
        *place = field;
    }
    return RD_OK;
}

static rd_span field_text(const json_t *object, const struct field *field)
{
    const json_t *text = json_object_get(object, field->name);
    return (rd_span){json_string_value(text), json_string_length(text)};
}

/**
 * A line just as `export` writes it, without the detour over a JSON tree, which takes ten times the time. What has this
 * shape and decodes is that object, as base64 has no character that JSON would escape. Returns: whether that was it.
 */
static bool take_exported(rd_span line, struct buf *values, uint64_t *out_hash)
{
    static const char head[] = "{\"key_hash\":\"", middle[] = "\",\"value_base64\":\"", end[] = "\"}";
    enum { HEAD = sizeof(head) - 1, MIDDLE = sizeof(middle) - 1, END = sizeof(end) - 1, HASH = 16 };
    const char *text = line.data;
    struct parse_why ignored;
    if (line.len < HEAD + HASH + MIDDLE + END || memcmp(text, head, HEAD) != 0 ||
        memcmp(text + HEAD + HASH, middle, MIDDLE) != 0 || memcmp(text + line.len - END, end, END) != 0)
        return false;
    rd_span value = {text + HEAD + HASH + MIDDLE, line.len - HEAD - HASH - MIDDLE - END};
    return text_parse_hash((rd_span){text + HEAD, HASH}, out_hash) && value_base64(value, values, &ignored) == RD_OK;
}

static rd_err parse_object(rd_span line, struct buf *values, uint64_t *out_hash, struct parse_why *why)
{
    struct pick pick = {NULL, NULL};
    json_error_t fault;
    json_auto_t *object = json_loadb(line.data, line.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &fault);
    if (object == NULL && json_error_code(&fault) == json_error_out_of_memory)
        return RD_E_NOMEM;
    text_tame(fault.text); /* it quotes the line */
    if (object == NULL)
        return refuse(why, "not JSON: %s (column %d); allowed: an object with " FIELDS_ALLOWED, fault.text,
                      fault.column);
    if (!json_is_object(object))
        return refuse(why, "%s came; allowed: an object with " FIELDS_ALLOWED, type_name(object));
    rd_err err = pick_fields(object, &pick, why);
    if (err != RD_OK)
        return err;
    if (pick.key == NULL || pick.value == NULL)
        return refuse(why, "no %s came; allowed: " FIELDS_ALLOWED, pick.key == NULL ? "key" : "value");
    err = pick.key->key(field_text(object, pick.key), out_hash, why);
    return err == RD_OK ? pick.value->value(field_text(object, pick.value), values, why) : err;
}

rd_err parse_jsonl(rd_span line, struct buf *values, uint64_t *out_hash, struct parse_why *out_why)
{
    size_t start = values->len;
    rd_err err = take_exported(line, values, out_hash) ? RD_OK : parse_object(line, values, out_hash, out_why);
    return err == RD_OK ? check_value(values, start, out_why) : err;
}
