/**
 * Requests with repeated fields, decoded by hand: protobuf-c would turn 4 MiB of empty keys into 160 MiB. Each decoder
 * goes on where it stopped, so that a request of millions of keys doesn't hold its thread.
 */
#ifndef DECODE_H
#define DECODE_H

#include "arena.h"
#include "wire.h"
#include <rdrive/engine.h>

/* Keys, items or fields of items after which a decoder lets others have their turn. */
#define DECODE_TURN 20000u

/* What is decoded in one go has two or three fields: more than this many are malformed, or 16 MiB of empty ones would
 * hold a thread for 50 ms. */
#define DECODE_FIELDS_MAX 1000u

enum decode_result {
    DECODE_OK,
    DECODE_MORE, /* call again */
    DECODE_MALFORMED,
    DECODE_TOO_MANY, /* more than `max` */
    DECODE_LENGTHS,  /* both lists, of different lengths */
    DECODE_PAYLOAD,  /* an item's payload is illegal (F-09) */
    DECODE_NOMEM,
};

/* ---- keys ---- */

/* Which field of the message is what; 0 where it has none. */
struct key_fields {
    uint32_t key_hashes; /* repeated fixed64 */
    uint32_t keys;       /* repeated bytes */
    uint32_t omit_metadata;
};

/**
 * Two passes: the first counts, so that nothing is allocated before the counts are known to be allowed; the second
 * hashes. A byte key is kept only as its hash, so either way a key takes sizeof(rd_key).
 */
struct key_decoder {
    const struct key_fields *fields;
    struct wire_cursor cursor;
    const grpc_byte_buffer *request;
    struct arena *arena;
    uint64_t max;
    uint64_t run_len; /* bytes left of a packed run of hashes */
    size_t turn_left;

    rd_key *keys; /* in the arena; where both lists came, a key that hasn't its hash is RD_KEY_SKIP (F-15) */
    size_t count;
    size_t hash_count; /* as they came, also after DECODE_LENGTHS and DECODE_TOO_MANY */
    size_t key_count;
    bool omit_metadata;
    bool counted; /* the first pass is over */
    bool out_of_memory;
};

void key_decoder_init(struct key_decoder *decoder, const grpc_byte_buffer *request, const struct key_fields *fields,
                      uint64_t max, struct arena *arena);

/* `keys` and `count` are there with DECODE_OK; nothing points into the request then. */
enum decode_result key_decoder_run(struct key_decoder *decoder);

/**
 * `message { key bytes or key_hash fixed64 = 1 }`, as most unary requests are; its bytes lie together.
 * Returns: false where it is malformed, or has more than DECODE_FIELDS_MAX fields.
 */
bool decode_key(const uint8_t *bytes, size_t len, bool by_hash, uint64_t *out_hash);

/* ---- items to write ---- */

/**
 * `repeated` messages `items = 1`, each {`key` bytes or `key_hash` fixed64 = 1; `payload` bytes = 2}. Payloads point
 * into `bytes`, which must stay. Two passes, as for keys.
 */
struct item_decoder {
    struct wire_cursor cursor;
    struct wire_cursor start;
    struct arena *arena;
    size_t turn_left;
    uint64_t max;
    uint64_t payload_max;
    bool by_hash;

    rd_write_item *items; /* in the arena */
    size_t count;
    bool counted;
    size_t bad_index; /* DECODE_PAYLOAD: which item, */
    size_t bad_len;   /* and its payload's length */
};

void item_decoder_init(struct item_decoder *decoder, const uint8_t *bytes, size_t len, bool by_hash, uint64_t max,
                       uint64_t payload_max, struct arena *arena);
enum decode_result item_decoder_run(struct item_decoder *decoder);

/* One item alone, as Write and WriteWithKeyHash have it. Returns: false where it is malformed, or has more than
 * DECODE_FIELDS_MAX fields; so it is with a batch's. */
bool decode_item(const uint8_t *bytes, size_t len, bool by_hash, rd_write_item *out_item);

/* F-09, and the server's own limit. */
bool decode_payload_is_legal(rd_span payload, uint64_t payload_max);

/* ---- a message of WriteStream ---- */

enum upload_selector { UPLOAD_NONE, UPLOAD_KEY, UPLOAD_HASH };

struct upload_message {
    enum upload_selector selector;
    uint64_t key_hash; /* of either */
    rd_span *pieces;   /* the data where it lies in the request's slices, in order; in the arena */
    size_t piece_count;
    uint64_t data_len;
};

/* Returns: DECODE_OK, DECODE_MALFORMED (also for more than DECODE_FIELDS_MAX fields), DECODE_NOMEM. Pieces point into
 * `request`. */
enum decode_result decode_upload(const grpc_byte_buffer *request, struct arena *arena, struct upload_message *out);

#endif
