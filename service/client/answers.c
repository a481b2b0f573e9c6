#include "answers.h"
#include "fields.h"
#include "outcome.h"
#include <grpc/byte_buffer_reader.h>
#include <stdio.h>
#include <stdlib.h>

/* Field numbers of rdrive/v1. Every answer that holds items or an entry has them under number 1. */
enum {
    ANSWER_CONTENT = 1,
    ITEM_INDEX = 1,
    ITEM_ENTRY = 2,
    ITEM_FRAGMENT = 3,
    ITEM_ERROR = 4,
    ITEM_ABSENT = 5,
    ENTRY_PAYLOAD = 1,
    ENTRY_METADATA = 2,
    METADATA_KEY_HASH = 1,
    METADATA_PREV_OFFSET = 2,
    METADATA_CHECKSUM = 3,
    METADATA_TOMBSTONE = 4,
    FRAGMENT_DATA = 1,
    FRAGMENT_OFFSET = 2,
    FRAGMENT_SIZE = 3,
    FRAGMENT_METADATA = 4,
    ERROR_CODE = 1,
    ERROR_MESSAGE = 2,
    ERROR_REASON = 3,
};

#define PAYLOAD_MAX ((uint64_t)1 << 36) /* that we make room for, on the word of a server */

static const char malformed[] = "a message is malformed";

/* ---- what is held ---- */

static struct answers_piece *piece_create(struct answers *items, size_t len)
{
    struct answers_piece *piece = malloc(sizeof(*piece) + len); /* `len` is far from where this wraps around */
    if (piece == NULL)
        return NULL;
    piece->next = items->pieces;
    piece->len = len;
    items->pieces = piece;
    return piece;
}

struct answers_piece *answers_hold(struct answers *items, grpc_byte_buffer *buffer)
{
    struct answers_piece *piece = piece_create(items, grpc_byte_buffer_length(buffer));
    grpc_byte_buffer_reader reader;
    if (piece != NULL && grpc_byte_buffer_reader_init(&reader, buffer) != 0) {
        grpc_slice *slice = NULL;
        for (size_t at = 0; grpc_byte_buffer_reader_peek(&reader, &slice) != 0; at += GRPC_SLICE_LENGTH(*slice))
            memcpy(piece->bytes + at, GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
        grpc_byte_buffer_reader_destroy(&reader);
    }
    grpc_byte_buffer_destroy(buffer);
    return piece;
}

void answers_fini(struct answers *items)
{
    for (struct answers_piece *piece = items->pieces; piece != NULL;) {
        struct answers_piece *next = piece->next;
        free(piece);
        piece = next;
    }
    *items = (struct answers){0};
}

/* ---- messages, from the inside out ---- */

static bool decode_metadata(rd_span message, rd_metadata *meta)
{
    struct field field;
    enum field_result result = FIELD_END;
    while ((result = field_next(&message, &field)) == FIELD_OK) {
        if (field.number == METADATA_KEY_HASH && field.type == WIRE_FIXED64)
            meta->key_hash = field.value;
        else if (field.number == METADATA_PREV_OFFSET && field.type == WIRE_VARINT)
            meta->prev_off = field.value;
        else if (field.number == METADATA_CHECKSUM && field.type == WIRE_FIXED32)
            meta->checksum = (uint32_t)field.value;
        else if (field.number == METADATA_TOMBSTONE && field.type == WIRE_VARINT)
            meta->tombstone = field.value != 0;
    }
    return result == FIELD_END;
}

static bool decode_entry(rd_span message, rd_entry *entry)
{
    struct field field;
    enum field_result result = FIELD_END;
    while ((result = field_next(&message, &field)) == FIELD_OK) {
        if (field.type != WIRE_LEN)
            continue;
        if (field.number == ENTRY_PAYLOAD)
            entry->payload = field.bytes;
        else if (field.number == ENTRY_METADATA && !decode_metadata(field.bytes, &entry->meta))
            return false;
    }
    return result == FIELD_END;
}

struct fragment {
    rd_span data;
    uint64_t offset, size;
    rd_metadata meta;
};

static bool decode_fragment(rd_span message, struct fragment *fragment)
{
    struct field field;
    enum field_result result = FIELD_END;
    while ((result = field_next(&message, &field)) == FIELD_OK) {
        if (field.number == FRAGMENT_DATA && field.type == WIRE_LEN)
            fragment->data = field.bytes;
        else if (field.number == FRAGMENT_OFFSET && field.type == WIRE_VARINT)
            fragment->offset = field.value;
        else if (field.number == FRAGMENT_SIZE && field.type == WIRE_VARINT)
            fragment->size = field.value;
        else if (field.number == FRAGMENT_METADATA && field.type == WIRE_LEN &&
                 !decode_metadata(field.bytes, &fragment->meta))
            return false;
    }
    return result == FIELD_END;
}

static bool decode_error(rd_span message, rd_err *out_err)
{
    struct outcome outcome = {.status = GRPC_STATUS_UNKNOWN, .refused = true};
    struct field field;
    enum field_result result = FIELD_END;
    while ((result = field_next(&message, &field)) == FIELD_OK) {
        int len = field.bytes.len < INT16_MAX ? (int)field.bytes.len : INT16_MAX;
        if (field.number == ERROR_CODE && field.type == WIRE_VARINT)
            outcome.status = (grpc_status_code)(field.value & 0xff);
        else if (field.number == ERROR_MESSAGE && field.type == WIRE_LEN)
            (void)snprintf(outcome.text, sizeof(outcome.text), "%.*s", len, (const char *)field.bytes.data);
        else if (field.number == ERROR_REASON && field.type == WIRE_LEN)
            (void)snprintf(outcome.reason, sizeof(outcome.reason), "%.*s", len, (const char *)field.bytes.data);
    }
    rd_err err = outcome_error(&outcome);
    *out_err = err == RD_OK ? RD_E_UNAVAILABLE : err; /* an error that says OK is one still */
    return result == FIELD_END;
}

/* ---- items in their order ---- */

static void complete(struct answers *items, rd_err err, const rd_entry *entry)
{
    items->items[items->next++] = (rd_batch_item){.err = err, .entry = *entry};
}

/* Join a fragment to those that came before it. */
static const char *take_fragment(struct answers *items, rd_span message)
{
    struct fragment fragment = {0};
    rd_entry *entry = &items->items[items->next].entry;
    if (!decode_fragment(message, &fragment))
        return malformed;
    if (items->joined == NULL) {
        if (fragment.size > PAYLOAD_MAX || (items->joined = piece_create(items, (size_t)fragment.size)) == NULL)
            return "there is no memory for a payload of the size that it names";
        items->joined_len = 0;
        *entry = (rd_entry){.payload = {items->joined->bytes, (size_t)fragment.size}, .meta = fragment.meta};
    }
    if (fragment.data.len == 0 || fragment.offset != items->joined_len || fragment.size != items->joined->len ||
        fragment.data.len > items->joined->len - items->joined_len)
        return "a fragment is not the one that follows";
    memcpy(items->joined->bytes + items->joined_len, fragment.data.data, fragment.data.len);
    items->joined_len += fragment.data.len;
    if (items->joined_len == items->joined->len) {
        items->joined = NULL;
        items->items[items->next++].err = RD_OK;
    }
    return NULL;
}

static const char *take_outcome(struct answers *items, const struct field *outcome)
{
    rd_entry entry = {0};
    rd_err err = RD_OK;
    if (outcome->number == ITEM_FRAGMENT)
        return take_fragment(items, outcome->bytes);
    if (items->joined != NULL)
        return "a payload ends before its end";
    if (outcome->number == ITEM_ENTRY && !decode_entry(outcome->bytes, &entry))
        return malformed;
    if (outcome->number == ITEM_ERROR && !decode_error(outcome->bytes, &err))
        return malformed;
    complete(items, outcome->number == ITEM_ABSENT ? RD_ABSENT : err, &entry);
    return NULL;
}

static const char *take_item(struct answers *items, rd_span message)
{
    struct field field, outcome = {0};
    uint64_t index = 0;
    enum field_result result = FIELD_END;
    while ((result = field_next(&message, &field)) == FIELD_OK) {
        if (field.number == ITEM_INDEX && field.type == WIRE_VARINT)
            index = field.value;
        else if (field.type == WIRE_LEN && field.number >= ITEM_ENTRY && field.number <= ITEM_ABSENT)
            outcome = field;
    }
    if (result != FIELD_END)
        return malformed;
    if (items->next == items->count || index != items->next)
        return "an item is not the one that follows";
    if (outcome.number != 0)
        return take_outcome(items, &outcome);
    complete(items, RD_E_UNSUPPORTED, &(rd_entry){0}); /* the server is newer than this tool */
    return NULL;
}

const char *answers_take(struct answers *items, const struct answers_piece *message)
{
    rd_span rest = {message->bytes, message->len};
    struct field field;
    enum field_result result = FIELD_END;
    while ((result = field_next(&rest, &field)) == FIELD_OK) {
        const char *wrong = NULL;
        if (field.number == ANSWER_CONTENT && field.type == WIRE_LEN)
            wrong = take_item(items, field.bytes);
        if (wrong != NULL)
            return wrong;
    }
    return result == FIELD_END ? NULL : malformed;
}

const char *answers_take_entry(struct answers *items, const struct answers_piece *message)
{
    rd_span rest = {message->bytes, message->len};
    rd_entry entry = {0};
    rd_err err = RD_ABSENT;
    struct field field;
    enum field_result result = FIELD_END;
    while ((result = field_next(&rest, &field)) == FIELD_OK) {
        if (field.number != ANSWER_CONTENT || field.type != WIRE_LEN)
            continue;
        if (!decode_entry(field.bytes, &entry))
            return malformed;
        err = RD_OK;
    }
    if (result != FIELD_END)
        return malformed;
    complete(items, err, &entry);
    return NULL;
}

const char *answers_end(const struct answers *items)
{
    if (items->joined != NULL)
        return "a payload ends before its end";
    return items->next < items->count ? "items are missing" : NULL;
}
