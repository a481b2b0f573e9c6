/* Requests with repeated keys, decoded by hand: protobuf-c would turn 4 MiB of empty keys into 160 MiB. */
#ifndef DECODE_H
#define DECODE_H

#include <grpc/byte_buffer.h>
#include <rdrive/engine.h>

/* Which field of the message is what; 0 where it has none. */
struct key_fields {
    uint32_t key_hashes; /* repeated fixed64 */
    uint32_t keys;       /* repeated bytes */
    uint32_t omit_metadata;
};

/* A byte key is kept only as its hash, so either way a key takes sizeof(rd_key). */
struct decoded_keys {
    rd_key
        *keys; /* the caller's, to be freed; where both lists came, a key that hasn't its hash is RD_KEY_SKIP (F-15) */
    size_t count;
    size_t hash_count; /* as they came, also after DECODE_LENGTHS and DECODE_TOO_MANY */
    size_t key_count;
    bool omit_metadata;
};

enum decode_result {
    DECODE_OK,
    DECODE_MALFORMED,
    DECODE_TOO_MANY, /* more than `max` of either */
    DECODE_LENGTHS,  /* both lists, of different lengths */
    DECODE_NOMEM,
};

/* `out_keys->keys` is set only with DECODE_OK. Allocates nothing before the counts are known to be allowed. */
enum decode_result decode_keys(const grpc_byte_buffer *request, const struct key_fields *fields, uint64_t max,
                               struct decoded_keys *out_keys);

#endif
