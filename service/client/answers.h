/* The answers of a batch, decoded by hand: the client's side of encode.h. What a server sends may be any bytes. */
#ifndef CLIENT_ANSWERS_H
#define CLIENT_ANSWERS_H

#include <grpc/byte_buffer.h>
#include <rdrive/store.h>

/* Bytes that items point into: a message, or a payload that came in fragments. */
struct answers_piece {
    struct answers_piece *next;
    size_t len;
    uint8_t bytes[];
};

/* Items as they come, message by message. Zeroed but for `items` and `count` it is ready. */
struct answers {
    rd_batch_item *items;
    size_t count;                 /* that were asked for */
    size_t next;                  /* the item that must come next */
    struct answers_piece *pieces; /* all that is held */
    struct answers_piece *joined; /* of `items[next]`, whose fragments are still coming; NULL: none are */
    size_t joined_len;
};

/* Copy a message to where it stays as long as the items. `buffer` is destroyed. NULL: out of memory. */
struct answers_piece *answers_hold(struct answers *items, grpc_byte_buffer *buffer);

/**
 * Take the items of a message of a batch stream, or (`answers_take_entry`) the one of a ReadResponse.
 * Returns: NULL, or what is wrong with them.
 */
const char *answers_take(struct answers *items, const struct answers_piece *message);
const char *answers_take_entry(struct answers *items, const struct answers_piece *message);

/* After the last message. Returns: NULL, or what is wrong. */
const char *answers_end(const struct answers *items);

/* Let go of what is held; the items are no longer valid. */
void answers_fini(struct answers *items);

#endif
