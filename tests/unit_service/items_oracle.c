#include "items_oracle.h"

#include <rdrive/v1/writer.pb-c.h>

static bool equal(rd_span a, ProtobufCBinaryData b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static uint64_t hash_of(ProtobufCBinaryData key)
{
    return rd_hash((rd_span){.data = key.data, .len = key.len});
}

static bool is_legal(ProtobufCBinaryData payload, uint64_t payload_max) /* F-09 */
{
    return payload.len <= payload_max && payload.len > 0 && (payload.len > 1 || payload.data[0] != 0);
}

/* ---- batches ---- */

struct wanted_items {
    size_t count;
    Rdrive__V1__WriteItem **by_key;
    Rdrive__V1__HashedWriteItem **by_hash; /* one of them is NULL, unless there are none */
};

static uint64_t wanted_hash(const struct wanted_items *wanted, size_t i)
{
    return wanted->by_hash != NULL ? wanted->by_hash[i]->key_hash : hash_of(wanted->by_key[i]->key);
}

static ProtobufCBinaryData wanted_payload(const struct wanted_items *wanted, size_t i)
{
    return wanted->by_hash != NULL ? wanted->by_hash[i]->payload : wanted->by_key[i]->payload;
}

static const char *judge(const struct wanted_items *wanted, uint64_t max, uint64_t payload_max,
                         const struct item_decoder *got, enum decode_result result)
{
    if (wanted->count > max)
        return result == DECODE_TOO_MANY && got->count == wanted->count ? NULL
                                                                        : "too many items are not refused as such";
    for (size_t i = 0; i < wanted->count; i++) {
        ProtobufCBinaryData payload = wanted_payload(wanted, i);
        if (!is_legal(payload, payload_max))
            return result == DECODE_PAYLOAD && got->bad_index == i && got->bad_len == payload.len
                       ? NULL
                       : "the first illegal payload is not refused as such";
    }
    if (result != DECODE_OK)
        return "a good request is refused";
    if (got->count != wanted->count)
        return "another number of items";
    for (size_t i = 0; i < wanted->count; i++)
        if (got->items[i].key_hash != wanted_hash(wanted, i) ||
            !equal(got->items[i].payload, wanted_payload(wanted, i)))
            return "another item";
    return NULL;
}

const char *items_judge(const uint8_t *bytes, size_t len, bool by_hash, uint64_t max, uint64_t payload_max,
                        enum decode_result *out_result)
{
    struct arena arena;
    struct item_decoder decoder;
    enum decode_result result = DECODE_MORE;
    arena_init(&arena, NULL);
    item_decoder_init(&decoder, bytes, len, by_hash, max, payload_max, &arena);
    while (result == DECODE_MORE)
        result = item_decoder_run(&decoder);

    const char *wrong = NULL;
    ProtobufCMessage *message =
        protobuf_c_message_unpack(by_hash ? &rdrive__v1__batch_write_with_key_hashes_request__descriptor
                                          : &rdrive__v1__batch_write_request__descriptor,
                                  NULL, len, bytes);
    if (message == NULL) {
        if (result == DECODE_OK || result == DECODE_NOMEM) /* refused for what comes first in it */
            wrong = "a malformed request is not refused";
    } else {
        const Rdrive__V1__BatchWriteRequest *keys = (void *)message;
        const Rdrive__V1__BatchWriteWithKeyHashesRequest *hashes = (void *)message;
        struct wanted_items wanted = {.count = by_hash ? hashes->n_items : keys->n_items,
                                      .by_key = by_hash ? NULL : keys->items,
                                      .by_hash = by_hash ? hashes->items : NULL};
        wrong = judge(&wanted, max, payload_max, &decoder, result);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    arena_fini(&arena);
    *out_result = result;
    return wrong;
}

/* ---- one item ---- */

const char *item_judge(const uint8_t *bytes, size_t len, bool by_hash)
{
    rd_write_item item;
    bool good = decode_item(bytes, len, by_hash, &item);
    ProtobufCMessage *message = protobuf_c_message_unpack(by_hash ? &rdrive__v1__write_with_key_hash_request__descriptor
                                                                  : &rdrive__v1__write_request__descriptor,
                                                          NULL, len, bytes);
    if (message == NULL)
        return good ? "a malformed item is taken" : NULL;
    const Rdrive__V1__WriteRequest *plain = (void *)message;
    const Rdrive__V1__WriteWithKeyHashRequest *hashed = (void *)message;
    const char *wrong = NULL;
    if (!good)
        wrong = "a good item is refused";
    else if (item.key_hash != (by_hash ? hashed->key_hash : hash_of(plain->key)))
        wrong = "another hash";
    else if (!equal(item.payload, by_hash ? hashed->payload : plain->payload))
        wrong = "another payload";
    protobuf_c_message_free_unpacked(message, NULL);
    return wrong;
}

/* ---- a stream's message ---- */

static const char *judge_pieces(const struct upload_message *got, ProtobufCBinaryData data)
{
    size_t at = 0;
    for (size_t i = 0; i < got->piece_count; i++) {
        rd_span piece = got->pieces[i];
        if (piece.len == 0 || piece.len > data.len - at || memcmp(piece.data, data.data + at, piece.len) != 0)
            return "another piece of data";
        at += piece.len;
    }
    return at == data.len && got->data_len == data.len ? NULL : "less data than came";
}

static const char *judge_upload(const struct upload_message *got, const Rdrive__V1__WriteStreamRequest *wanted)
{
    switch (wanted->selector_case) {
    case RDRIVE__V1__WRITE_STREAM_REQUEST__SELECTOR_KEY:
        if (got->selector != UPLOAD_KEY || got->key_hash != hash_of(wanted->key))
            return "another key";
        break;
    case RDRIVE__V1__WRITE_STREAM_REQUEST__SELECTOR_KEY_HASH:
        if (got->selector != UPLOAD_HASH || got->key_hash != wanted->key_hash)
            return "another hash";
        break;
    case RDRIVE__V1__WRITE_STREAM_REQUEST__SELECTOR__NOT_SET:
    case _RDRIVE__V1__WRITE_STREAM_REQUEST__SELECTOR__CASE_IS_INT_SIZE:
        if (got->selector != UPLOAD_NONE)
            return "a selector where none came";
        break;
    }
    return judge_pieces(got, wanted->data);
}

const char *upload_judge(const uint8_t *bytes, size_t len, const grpc_byte_buffer *message,
                         enum decode_result *out_result)
{
    struct arena arena;
    struct upload_message got;
    arena_init(&arena, NULL);
    enum decode_result result = decode_upload(message, &arena, &got);
    const char *wrong = NULL;
    Rdrive__V1__WriteStreamRequest *wanted = rdrive__v1__write_stream_request__unpack(NULL, len, bytes);
    if (result != (wanted != NULL ? DECODE_OK : DECODE_MALFORMED))
        wrong = "another result";
    else if (wanted != NULL)
        wrong = judge_upload(&got, wanted);
    if (wanted != NULL)
        rdrive__v1__write_stream_request__free_unpacked(wanted, NULL);
    arena_fini(&arena);
    *out_result = result;
    return wrong;
}
