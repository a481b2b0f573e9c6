#include "decode.h"
#include "wire.h"
#include <stdlib.h>

struct decoder {
    struct wire_cursor cursor;
    const struct key_fields *fields;
    struct decoded_keys *decoded; /* `keys` NULL: the pass that only counts */
    bool out_of_memory;
};

/* The hash of the next `len` bytes, gathered only where they lie in several slices. */
static bool read_key(struct decoder *decoder, uint64_t len, uint64_t *out_hash)
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

static bool take_hash(struct decoder *decoder)
{
    struct decoded_keys *decoded = decoder->decoded;
    uint64_t hash;
    if (!wire_read_bytes(&decoder->cursor, &hash, sizeof(hash)))
        return false;
    if (decoded->keys != NULL)
        decoded->keys[decoded->hash_count].hash = hash;
    decoded->hash_count++;
    return true;
}

/* One hash, or a packed run of them. */
static bool take_hashes(struct decoder *decoder, enum wire_type type)
{
    uint64_t len;
    if (type == WIRE_FIXED64)
        return take_hash(decoder);
    if (type != WIRE_LEN || !wire_read_varint(&decoder->cursor, &len) || len > decoder->cursor.left || len % 8 != 0)
        return false;
    if (decoder->decoded->keys == NULL) {
        decoder->decoded->hash_count += len / 8;
        return wire_skip(&decoder->cursor, len);
    }
    for (uint64_t i = 0; i < len / 8; i++)
        if (!take_hash(decoder))
            return false;
    return true;
}

static bool take_key(struct decoder *decoder, enum wire_type type)
{
    struct decoded_keys *decoded = decoder->decoded;
    uint64_t len;
    if (type != WIRE_LEN || !wire_read_varint(&decoder->cursor, &len))
        return false;
    if (decoded->keys == NULL) {
        decoded->key_count++;
        return wire_skip(&decoder->cursor, len);
    }
    uint64_t hash;
    if (!read_key(decoder, len, &hash))
        return false;
    decoded->keys[decoded->key_count++].cookie = hash; /* compared with its pair when both are there */
    return true;
}

/* Go through the message once. */
static bool pass(struct decoder *decoder, const grpc_byte_buffer *request)
{
    const struct key_fields *fields = decoder->fields;
    decoder->decoded->hash_count = 0;
    decoder->decoded->key_count = 0;
    wire_cursor_init(&decoder->cursor, request);
    while (decoder->cursor.left > 0) {
        uint32_t field;
        enum wire_type type;
        uint64_t flag;
        if (!wire_read_tag(&decoder->cursor, &field, &type))
            return false;
        bool good;
        if (field == fields->key_hashes) {
            good = take_hashes(decoder, type);
        } else if (field == fields->keys) {
            good = take_key(decoder, type);
        } else if (field == fields->omit_metadata) {
            good = type == WIRE_VARINT && wire_read_varint(&decoder->cursor, &flag);
            decoder->decoded->omit_metadata = good && flag != 0;
        } else {
            good = wire_skip_field(&decoder->cursor, type);
        }
        if (!good)
            return false;
    }
    return true;
}

/* From what the fields gave to what the engine is asked. */
static void settle_keys(struct decoded_keys *decoded)
{
    bool both = decoded->hash_count > 0 && decoded->key_count > 0;
    for (size_t i = 0; i < decoded->count; i++) {
        rd_key *key = &decoded->keys[i];
        if (both) {
            key->cookie = key->cookie == key->hash ? 0 : RD_KEY_SKIP;
        } else if (decoded->key_count > 0) {
            key->hash = key->cookie;
            key->cookie = 0;
        }
    }
}

enum decode_result decode_keys(const grpc_byte_buffer *request, const struct key_fields *fields, uint64_t max,
                               struct decoded_keys *out_keys)
{
    *out_keys = (struct decoded_keys){0};
    struct decoder decoder = {.fields = fields, .decoded = out_keys};
    if (!pass(&decoder, request))
        return DECODE_MALFORMED;
    if (out_keys->hash_count > max || out_keys->key_count > max)
        return DECODE_TOO_MANY;
    if (fields->key_hashes != 0 && out_keys->key_count > 0 && out_keys->key_count != out_keys->hash_count)
        return DECODE_LENGTHS;
    size_t count = out_keys->hash_count > 0 ? out_keys->hash_count : out_keys->key_count;
    rd_key *keys = calloc(count > 0 ? count : 1, sizeof(*keys));
    if (keys == NULL)
        return DECODE_NOMEM;
    out_keys->keys = keys;
    out_keys->count = count;
    if (!pass(&decoder, request)) {
        free(keys);
        out_keys->keys = NULL;
        return decoder.out_of_memory ? DECODE_NOMEM : DECODE_MALFORMED;
    }
    settle_keys(out_keys);
    return DECODE_OK;
}
