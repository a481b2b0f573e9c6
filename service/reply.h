/* A message on its way out: bytes of ours, and payloads by reference between them. */
#ifndef REPLY_H
#define REPLY_H

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <rdrive/engine.h>

/* Copied bytes lie in pieces of this size, which malloc has at hand: larger ones it maps anew for each message. */
#define REPLY_PIECE ((size_t)64 << 10)

struct reply {
    grpc_slice open; /* being filled; `used` of it holds bytes */
    size_t used;
    size_t capacity; /* of `open`; 0: there is none */
    grpc_slice *closed;
    size_t closed_count;
    size_t closed_capacity;
    size_t total;    /* bytes of the message so far */
    size_t referred; /* of these: by reference */
    bool any;        /* a message was begun, if only an empty one */
    rd_err err;      /* RD_E_NOMEM, RD_E_TRUNCATED: the message must not be sent */
};

/* Zeroed storage is an empty reply. */
void reply_fini(struct reply *reply);

/**
 * Room for `len` bytes in one piece, to be confirmed by reply_commit; NULL once the reply has failed. The core's slices
 * abort where memory is out, so ask for what is needed.
 */
uint8_t *reply_reserve(struct reply *reply, size_t len);
void reply_commit(struct reply *reply, size_t len);

/* Copy bytes in. */
void reply_put(struct reply *reply, const void *bytes, size_t len);

/* Copy bytes of a store in; the reply fails with RD_E_TRUNCATED where they vanish. */
void reply_put_payload(struct reply *reply, rd_span bytes);

/* The message can't be finished. */
void reply_fail(struct reply *reply, rd_err err);

/* Point at bytes that `hold` keeps valid; it is released when the core is done with them. */
void reply_refer(struct reply *reply, rd_span bytes, rd_hold hold);

/* References that the core still holds, over all replies. Any thread. */
size_t reply_references(void);

/* The message; the reply is empty again. NULL when out of memory. */
grpc_byte_buffer *reply_take(struct reply *reply);

#endif
