#include "decode.h"
#include <stdlib.h>

/* The hash of the next `len` bytes, gathered only where they lie in several slices. */
static bool read_key(struct key_decoder *decoder, uint64_t len, uint64_t *out_hash)
{
    const uint8_t *piece = NULL;
    if (len > decoder->cursor.left)
        return false;
    size_t got = wire_read_piece(&decoder->cursor, len, &piece);
    if (got == len) {
        *out_hash = rd_hash((rd_span){.data = piece, .len = got});
        return true;
    }
    uint8_t *whole = malloc((size_t)len);
    if (whole == NULL) {
        decoder->out_of_memory = true;
        return false;
    }
    memcpy(whole, piece, got);
    bool complete = wire_read_bytes(&decoder->cursor, whole + got, (size_t)len - got);
    *out_hash = rd_hash((rd_span){.data = whole, .len = (size_t)len});
    free(whole);
    return complete;
}

static bool take_hash(struct key_decoder *decoder)
{
    uint64_t hash;
    if (!wire_read_bytes(&decoder->cursor, &hash, sizeof(hash)))
        return false;
    if (decoder->keys != NULL)
        decoder->keys[decoder->hash_count].hash = hash;
    decoder->hash_count++;
    return true;
}

/* What is left of a packed run, as far as this turn goes: by whole slices, and hash by hash where one is cut. */
static bool take_run(struct key_decoder *decoder)
{
    struct wire_cursor *cursor = &decoder->cursor;
    while (decoder->run_len > 0 && decoder->turn_left > 0) {
        size_t here = (size_t)(cursor->end - cursor->at) / 8;
        size_t left = (size_t)(decoder->run_len / 8);
        size_t count = here < left ? here : left;
        count = count < decoder->turn_left ? count : decoder->turn_left;
        for (size_t i = 0; i < count; i++)
            memcpy(&decoder->keys[decoder->hash_count + i].hash, cursor->at + 8 * i, 8);
        cursor->at += 8 * count;
        cursor->left -= 8 * count;
        decoder->hash_count += count;
        if (count == 0) {
            if (!take_hash(decoder))
                return false;
            count = 1;
        }
        decoder->turn_left -= count;
        decoder->run_len -= 8 * count;
    }
    return true;
}

/* One hash, or a packed run of them. */
static bool take_hashes(struct key_decoder *decoder, enum wire_type type)
{
    uint64_t len;
    if (type == WIRE_FIXED64)
        return take_hash(decoder);
    if (type != WIRE_LEN || !wire_read_varint(&decoder->cursor, &len) || len > decoder->cursor.left || len % 8 != 0)
        return false;
    if (!decoder->counted) {
        decoder->hash_count += len / 8;
        return wire_skip(&decoder->cursor, len);
    }
    decoder->run_len = len;
    return take_run(decoder);
}

static bool take_key(struct key_decoder *decoder, enum wire_type type)
{
    uint64_t len;
    if (type != WIRE_LEN || !wire_read_varint(&decoder->cursor, &len))
        return false;
    if (!decoder->counted) {
        decoder->key_count++;
        return wire_skip(&decoder->cursor, len);
    }
    uint64_t hash;
    if (!read_key(decoder, len, &hash))
        return false;
    decoder->keys[decoder->key_count++].cookie = hash; /* compared with its pair when both are there */
    return true;
}

static bool take_field(struct key_decoder *decoder)
{
    const struct key_fields *fields = decoder->fields;
    uint32_t field;
    enum wire_type type;
    uint64_t flag;
    if (!wire_read_tag(&decoder->cursor, &field, &type))
        return false;
    if (field == fields->key_hashes)
        return take_hashes(decoder, type);
    if (field == fields->keys)
        return take_key(decoder, type);
    if (field != fields->omit_metadata)
        return wire_skip_field(&decoder->cursor, type);
    bool good = type == WIRE_VARINT && wire_read_varint(&decoder->cursor, &flag);
    decoder->omit_metadata = good && flag != 0;
    return good;
}

/* Go on with a pass. Returns: DECODE_OK at its end. */
static enum decode_result pass(struct key_decoder *decoder)
{
    decoder->turn_left = DECODE_TURN;
    if (!take_run(decoder))
        return DECODE_MALFORMED;
    while (decoder->cursor.left > 0) {
        if (decoder->turn_left == 0)
            return DECODE_MORE;
        decoder->turn_left--;
        if (!take_field(decoder))
            return decoder->out_of_memory ? DECODE_NOMEM : DECODE_MALFORMED;
    }
    return DECODE_OK;
}

/* The first pass is over. */
static enum decode_result make_keys(struct key_decoder *decoder)
{
    if (decoder->hash_count > decoder->max || decoder->key_count > decoder->max)
        return DECODE_TOO_MANY;
    if (decoder->fields->key_hashes != 0 && decoder->key_count > 0 && decoder->key_count != decoder->hash_count)
        return DECODE_LENGTHS;
    decoder->count = decoder->hash_count > 0 ? decoder->hash_count : decoder->key_count;
    decoder->keys = arena_alloc(decoder->arena, decoder->count * sizeof(*decoder->keys));
    if (decoder->keys == NULL)
        return DECODE_NOMEM;
    decoder->counted = true;
    decoder->hash_count = 0;
    decoder->key_count = 0;
    wire_cursor_init(&decoder->cursor, decoder->request);
    return DECODE_OK;
}

/* From what the fields gave to what the engine is asked. */
static void settle_keys(struct key_decoder *decoder)
{
    bool both = decoder->hash_count > 0 && decoder->key_count > 0;
    for (size_t i = 0; i < decoder->count; i++) {
        rd_key *key = &decoder->keys[i];
        if (both) {
            key->cookie = key->cookie == key->hash ? 0 : RD_KEY_SKIP;
        } else if (decoder->key_count > 0) {
            key->hash = key->cookie;
            key->cookie = 0;
        } else {
            key->cookie = 0;
        }
    }
}

void key_decoder_init(struct key_decoder *decoder, const grpc_byte_buffer *request, const struct key_fields *fields,
                      uint64_t max, struct arena *arena)
{
    *decoder = (struct key_decoder){.fields = fields, .request = request, .arena = arena, .max = max};
    wire_cursor_init(&decoder->cursor, request);
}

enum decode_result key_decoder_run(struct key_decoder *decoder)
{
    enum decode_result result = pass(decoder);
    if (result != DECODE_OK)
        return result;
    if (!decoder->counted) {
        result = make_keys(decoder);
        if (result == DECODE_OK) /* as little work as a small batch is needs no second turn */
            result = decoder->turn_left > 0 ? pass(decoder) : DECODE_MORE;
        if (result != DECODE_OK)
            return result;
    }
    settle_keys(decoder);
    return DECODE_OK;
}
