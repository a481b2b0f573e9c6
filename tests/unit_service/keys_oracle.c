#include "keys_oracle.h"
#include "wire_oracle.h"

#include <rdrive/v1/reader.pb-c.h>
#include <rdrive/v1/writer.pb-c.h>

const struct keys_kind keys_by_key = {&rdrive__v1__batch_read_request__descriptor, {.keys = 1, .omit_metadata = 2}};
const struct keys_kind keys_by_stream = {&rdrive__v1__batch_read_stream_request__descriptor,
                                         {.keys = 1, .omit_metadata = 2}};
const struct keys_kind keys_by_hash = {&rdrive__v1__batch_read_hashed_keys_request__descriptor,
                                       {.key_hashes = 1, .keys = 2, .omit_metadata = 3}};

const struct keys_kind keys_to_delete = {&rdrive__v1__batch_delete_request__descriptor, {.keys = 1}};
const struct keys_kind hashes_to_delete = {&rdrive__v1__batch_delete_key_hashes_request__descriptor, {.key_hashes = 1}};

enum decode_result keys_decode(const grpc_byte_buffer *request, const struct key_fields *fields, uint64_t max,
                               struct keys_got *out_got)
{
    enum decode_result result = DECODE_MORE;
    out_got->turns = 0;
    arena_init(&out_got->arena, NULL);
    key_decoder_init(&out_got->decoder, request, fields, max, &out_got->arena);
    for (; result == DECODE_MORE; out_got->turns++)
        result = key_decoder_run(&out_got->decoder);
    return result;
}

void keys_got_fini(struct keys_got *got)
{
    arena_fini(&got->arena);
}

/* The fields, from whichever message it is. */
static void take_message(const struct keys_kind *kind, struct keys_wanted *wanted)
{
    if (kind == &keys_by_hash) {
        const Rdrive__V1__BatchReadHashedKeysRequest *request = (void *)wanted->message;
        wanted->hash_count = request->n_key_hashes;
        wanted->hashes = request->key_hashes;
        wanted->key_count = request->n_keys;
        wanted->keys = request->keys;
        wanted->omit_metadata = request->omit_metadata;
    } else if (kind == &hashes_to_delete) {
        const Rdrive__V1__BatchDeleteKeyHashesRequest *request = (void *)wanted->message;
        wanted->hash_count = request->n_key_hashes;
        wanted->hashes = request->key_hashes;
    } else if (kind == &keys_to_delete) {
        const Rdrive__V1__BatchDeleteRequest *request = (void *)wanted->message;
        wanted->key_count = request->n_keys;
        wanted->keys = request->keys;
    } else { /* both others have the same fields */
        const Rdrive__V1__BatchReadRequest *request = (void *)wanted->message;
        wanted->key_count = request->n_keys;
        wanted->keys = request->keys;
        wanted->omit_metadata = request->omit_metadata;
    }
}

struct keys_wanted keys_wanted_of(const struct keys_kind *kind, const uint8_t *bytes, size_t len, uint64_t max)
{
    struct keys_wanted wanted = {.result = DECODE_MALFORMED};
    wanted.message = protobuf_c_message_unpack(kind->descriptor, NULL, len, bytes);
    if (wanted.message == NULL)
        return wanted;
    take_message(kind, &wanted);
    if (wanted.hash_count > max || wanted.key_count > max)
        wanted.result = DECODE_TOO_MANY;
    else if (kind == &keys_by_hash && wanted.key_count > 0 && wanted.key_count != wanted.hash_count)
        wanted.result = DECODE_LENGTHS;
    else
        wanted.result = DECODE_OK;
    return wanted;
}

void keys_wanted_fini(struct keys_wanted *wanted)
{
    if (wanted->message != NULL)
        protobuf_c_message_free_unpacked(wanted->message, NULL);
}

static const char *judge_keys(const struct keys_wanted *wanted, const struct key_decoder *got)
{
    size_t count = wanted->hash_count > 0 ? wanted->hash_count : wanted->key_count;
    if (got->count != count)
        return "another number of keys";
    if (got->omit_metadata != wanted->omit_metadata)
        return "omit_metadata";
    for (size_t i = 0; i < count; i++) {
        uint64_t of_key = 0;
        if (wanted->key_count > 0)
            of_key = rd_hash((rd_span){.data = wanted->keys[i].data, .len = wanted->keys[i].len});
        uint64_t hash = wanted->hash_count > 0 ? wanted->hashes[i] : of_key;
        bool mismatch = wanted->key_count > 0 && hash != of_key; /* F-15 */
        if (got->keys[i].hash != hash)
            return "another hash";
        if (got->keys[i].cookie != (mismatch ? RD_KEY_SKIP : 0))
            return "a key that has its hash is skipped, or one that hasn't is not";
    }
    return NULL;
}

const char *keys_judge(const struct keys_kind *kind, const struct keys_wanted *wanted, uint64_t max,
                       const grpc_byte_buffer *message)
{
    struct keys_got got;
    const char *wrong = NULL;
    enum decode_result result = keys_decode(message, &kind->fields, max, &got);
    bool counted = result != DECODE_MALFORMED;
    if (result != wanted->result)
        wrong = "another result";
    else if (counted && got.decoder.hash_count != wanted->hash_count)
        wrong = "another number of hashes came";
    else if (counted && got.decoder.key_count != wanted->key_count)
        wrong = "another number of keys came";
    else if (result == DECODE_OK)
        wrong = judge_keys(wanted, &got.decoder);
    keys_got_fini(&got);
    return wrong;
}

bool keys_differ(const struct keys_kind *kind, const uint8_t *bytes, size_t len)
{
    return wire_differs(bytes, len, kind->fields.omit_metadata, 0);
}

/* Read's stands for all of its kind: they have one field each, of one number and type. */
const char *key_judge(const uint8_t *bytes, size_t len, bool by_hash, bool *out_good)
{
    uint64_t hash = 0;
    bool good = decode_key(bytes, len, by_hash, &hash);
    ProtobufCMessage *message = protobuf_c_message_unpack(by_hash ? &rdrive__v1__read_with_key_hash_request__descriptor
                                                                  : &rdrive__v1__read_request__descriptor,
                                                          NULL, len, bytes);
    *out_good = good;
    if (message == NULL)
        return good ? "a malformed request is taken" : NULL;
    const Rdrive__V1__ReadRequest *plain = (void *)message;
    const Rdrive__V1__ReadWithKeyHashRequest *hashed = (void *)message;
    uint64_t wanted = by_hash ? hashed->key_hash : rd_hash((rd_span){.data = plain->key.data, .len = plain->key.len});
    protobuf_c_message_free_unpacked(message, NULL);
    if (!good)
        return "a good request is refused";
    return hash == wanted ? NULL : "another hash";
}
