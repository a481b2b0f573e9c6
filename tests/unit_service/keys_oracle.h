/**
 * What protobuf-c says of requests with keys, for key_decoder and decode_key to be held against: by unit tests and by a
 * fuzzer. Uses nothing of either's.
 */
#ifndef KEYS_ORACLE_H
#define KEYS_ORACLE_H

#include "decode.h"
#include <protobuf-c/protobuf-c.h>

/* The requests that are decoded by hand. */
struct keys_kind {
    const ProtobufCMessageDescriptor *descriptor;
    struct key_fields fields;
};
extern const struct keys_kind keys_by_key, keys_by_stream, keys_by_hash, keys_to_delete, hashes_to_delete;

/* What the decoder says after all its turns. */
struct keys_got {
    struct arena arena;
    struct key_decoder decoder;
    size_t turns;
};
enum decode_result keys_decode(const grpc_byte_buffer *request, const struct key_fields *fields, uint64_t max,
                               struct keys_got *out_got);
void keys_got_fini(struct keys_got *got);

struct keys_wanted {
    enum decode_result result;
    ProtobufCMessage *message; /* NULL: malformed */
    size_t hash_count;
    size_t key_count;
    const uint64_t *hashes;
    const ProtobufCBinaryData *keys;
    bool omit_metadata;
};

struct keys_wanted keys_wanted_of(const struct keys_kind *kind, const uint8_t *bytes, size_t len, uint64_t max);
void keys_wanted_fini(struct keys_wanted *wanted);

/* Decode `message`. Returns: what is wrong with the outcome, or NULL. */
const char *keys_judge(const struct keys_kind *kind, const struct keys_wanted *wanted, uint64_t max,
                       const grpc_byte_buffer *message);

/* A request of one key, or by_hash of one hash. *out_good: what decode_key said. Returns: what is wrong, or NULL. The
 * bytes are none that wire_differs() says something of. */
const char *key_judge(const uint8_t *bytes, size_t len, bool by_hash, bool *out_good);

/* Whether the two are known to differ about the message (wire_oracle.h). */
bool keys_differ(const struct keys_kind *kind, const uint8_t *bytes, size_t len);

#endif
