/* What is written: items of a batch, and a stream's messages. */
#include "decode.h"

enum {
    ITEMS_FIELD = 1,
    ITEM_KEY = 1,
    ITEM_PAYLOAD = 2,
    UPLOAD_FIELD_KEY = 1,
    UPLOAD_FIELD_HASH = 2,
    UPLOAD_FIELD_DATA = 3
};

/* The next of a message's fields, which are counted. */
static bool next_field(struct wire_cursor *cursor, size_t *fields, uint32_t *out_field, enum wire_type *out_type)
{
    return ++*fields <= DECODE_FIELDS_MAX && wire_read_tag(cursor, out_field, out_type);
}

/* A length and the bytes behind it, which lie together. */
static bool read_span(struct wire_cursor *cursor, enum wire_type type, rd_span *out_span)
{
    uint64_t len;
    const uint8_t *at = NULL;
    if (type != WIRE_LEN || !wire_read_varint(cursor, &len) || len > cursor->left)
        return false;
    *out_span = (rd_span){.len = wire_read_piece(cursor, len, &at)};
    out_span->data = at;
    return true;
}

/* One item; of a field that comes twice the later counts. `*fields` is how many it has. */
static bool read_item(struct wire_cursor cursor, bool by_hash, size_t *fields, rd_write_item *out_item)
{
    rd_span key = {0};
    rd_write_item item = {0};
    uint32_t field;
    enum wire_type type;
    while (cursor.left > 0) {
        if (!next_field(&cursor, fields, &field, &type))
            return false;
        bool good;
        if (field == ITEM_KEY && by_hash)
            good = type == WIRE_FIXED64 && wire_read_bytes(&cursor, &item.key_hash, sizeof(item.key_hash));
        else if (field == ITEM_KEY)
            good = read_span(&cursor, type, &key);
        else if (field == ITEM_PAYLOAD)
            good = read_span(&cursor, type, &item.payload);
        else
            good = wire_skip_field(&cursor, type);
        if (!good)
            return false;
    }
    if (!by_hash)
        item.key_hash = rd_hash(key);
    *out_item = item;
    return true;
}

bool decode_key(const uint8_t *bytes, size_t len, bool by_hash, uint64_t *out_hash)
{
    struct wire_cursor cursor = wire_cursor_over(bytes, len);
    rd_span key = {0};
    uint64_t hash = 0;
    size_t fields = 0;
    uint32_t field;
    enum wire_type type;
    while (cursor.left > 0) {
        bool good = next_field(&cursor, &fields, &field, &type);
        if (good && field != ITEM_KEY)
            good = wire_skip_field(&cursor, type);
        else if (good && by_hash)
            good = type == WIRE_FIXED64 && wire_read_bytes(&cursor, &hash, sizeof(hash));
        else if (good)
            good = read_span(&cursor, type, &key);
        if (!good)
            return false;
    }
    *out_hash = by_hash ? hash : rd_hash(key);
    return true;
}

bool decode_item(const uint8_t *bytes, size_t len, bool by_hash, rd_write_item *out_item)
{
    size_t fields = 0;
    return read_item(wire_cursor_over(bytes, len), by_hash, &fields, out_item);
}

bool decode_payload_is_legal(rd_span payload, uint64_t payload_max)
{
    return payload.len <= payload_max && (payload.len > 1 || (payload.len == 1 && *(const uint8_t *)payload.data != 0));
}

void item_decoder_init(struct item_decoder *decoder, const uint8_t *bytes, size_t len, bool by_hash, uint64_t max,
                       uint64_t payload_max, struct arena *arena)
{
    struct wire_cursor cursor = wire_cursor_over(bytes, len);
    *decoder = (struct item_decoder){
        .cursor = cursor, .start = cursor, .arena = arena, .by_hash = by_hash, .max = max, .payload_max = payload_max};
}

/* Its turn is shorter by `count`. */
static void spend_turn(struct item_decoder *decoder, size_t count)
{
    decoder->turn_left -= count < decoder->turn_left ? count : decoder->turn_left;
}

/* The item's place in the second pass. */
static enum decode_result take_item(struct item_decoder *decoder, rd_span bytes)
{
    rd_write_item *item = &decoder->items[decoder->count];
    size_t fields = 0;
    if (!read_item(wire_cursor_over(bytes.data, bytes.len), decoder->by_hash, &fields, item))
        return DECODE_MALFORMED;
    spend_turn(decoder, fields);
    if (!decode_payload_is_legal(item->payload, decoder->payload_max)) {
        decoder->bad_index = decoder->count;
        decoder->bad_len = item->payload.len;
        return DECODE_PAYLOAD;
    }
    return DECODE_OK;
}

static enum decode_result pass(struct item_decoder *decoder)
{
    uint32_t field;
    enum wire_type type;
    decoder->turn_left = DECODE_TURN;
    while (decoder->cursor.left > 0) {
        rd_span bytes;
        if (decoder->turn_left == 0)
            return DECODE_MORE;
        spend_turn(decoder, 1);
        if (!wire_read_tag(&decoder->cursor, &field, &type))
            return DECODE_MALFORMED;
        if (field != ITEMS_FIELD) {
            if (!wire_skip_field(&decoder->cursor, type))
                return DECODE_MALFORMED;
            continue;
        }
        if (!read_span(&decoder->cursor, type, &bytes))
            return DECODE_MALFORMED;
        enum decode_result result = decoder->counted ? take_item(decoder, bytes) : DECODE_OK;
        if (result != DECODE_OK)
            return result;
        decoder->count++;
    }
    return DECODE_OK;
}

enum decode_result item_decoder_run(struct item_decoder *decoder)
{
    enum decode_result result = pass(decoder);
    if (result != DECODE_OK || decoder->counted)
        return result;
    if (decoder->count > decoder->max)
        return DECODE_TOO_MANY;
    decoder->items = arena_alloc(decoder->arena, decoder->count * sizeof(*decoder->items));
    if (decoder->items == NULL)
        return DECODE_NOMEM;
    decoder->counted = true;
    decoder->count = 0;
    decoder->cursor = decoder->start;
    return decoder->turn_left > 0 ? pass(decoder) : DECODE_MORE;
}

/* ---- a message of WriteStream ---- */

/* Note where `len` bytes lie. */
static enum decode_result take_pieces(struct wire_cursor *cursor, uint64_t len, struct upload_message *message,
                                      size_t piece_max)
{
    message->piece_count = 0; /* of a field that comes twice the later counts */
    message->data_len = len;
    while (len > 0) {
        const uint8_t *at;
        size_t got = wire_read_piece(cursor, len, &at);
        if (message->piece_count == piece_max)
            return DECODE_MALFORMED; /* there are no more slices than that */
        message->pieces[message->piece_count++] = (rd_span){.data = at, .len = got};
        len -= got;
    }
    return DECODE_OK;
}

static enum decode_result take_selector(struct wire_cursor *cursor, enum wire_type type, struct arena *arena,
                                        struct upload_message *message)
{
    uint64_t len;
    if (type != WIRE_LEN || !wire_read_varint(cursor, &len) || len > cursor->left)
        return DECODE_MALFORMED;
    const uint8_t *at = NULL;
    size_t got = wire_read_piece(cursor, len, &at);
    if (got < len) { /* it lies in several slices */
        uint8_t *whole = arena_alloc(arena, (size_t)len);
        if (whole == NULL)
            return DECODE_NOMEM;
        memcpy(whole, at, got);
        if (!wire_read_bytes(cursor, whole + got, (size_t)len - got))
            return DECODE_MALFORMED;
        at = whole;
    }
    message->key_hash = rd_hash((rd_span){.data = at, .len = (size_t)len});
    message->selector = UPLOAD_KEY;
    return DECODE_OK;
}

/* What comes behind a tag. */
static enum decode_result take_field(struct wire_cursor *cursor, uint32_t field, enum wire_type type,
                                     struct arena *arena, size_t piece_max, struct upload_message *message)
{
    uint64_t len;
    bool good;
    if (field == UPLOAD_FIELD_KEY)
        return take_selector(cursor, type, arena, message);
    if (field == UPLOAD_FIELD_DATA) {
        good = type == WIRE_LEN && wire_read_varint(cursor, &len) && len <= cursor->left;
        return good ? take_pieces(cursor, len, message, piece_max) : DECODE_MALFORMED;
    }
    if (field == UPLOAD_FIELD_HASH) {
        good = type == WIRE_FIXED64 && wire_read_bytes(cursor, &message->key_hash, sizeof(message->key_hash));
        message->selector = UPLOAD_HASH;
    } else {
        good = wire_skip_field(cursor, type);
    }
    return good ? DECODE_OK : DECODE_MALFORMED;
}

enum decode_result decode_upload(const grpc_byte_buffer *request, struct arena *arena, struct upload_message *out)
{
    struct wire_cursor cursor;
    size_t piece_max = request->data.raw.slice_buffer.count;
    struct upload_message message = {.pieces = arena_alloc(arena, piece_max * sizeof(rd_span))};
    enum decode_result result = DECODE_OK;
    size_t fields = 0;
    uint32_t field;
    enum wire_type type;
    if (message.pieces == NULL)
        return DECODE_NOMEM;
    wire_cursor_init(&cursor, request);
    while (cursor.left > 0 && result == DECODE_OK) {
        if (!next_field(&cursor, &fields, &field, &type))
            return DECODE_MALFORMED;
        result = take_field(&cursor, field, type, arena, piece_max, &message);
    }
    if (result == DECODE_OK)
        *out = message;
    return result;
}
