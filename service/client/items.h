/* The answers of a batch, decoded by hand: the client's side of encode.h. What a server sends may be any bytes. */
#ifndef CLIENT_ITEMS_H
#define CLIENT_ITEMS_H

#include <grpc/byte_buffer.h>
#include <rdrive/store.h>

/* Bytes that items point into: a message, or a payload that came in fragments. */
struct items_piece {
    struct items_piece *next;
    size_t len;
    uint8_t bytes[];
};

/* Items as they come, message by message. Zeroed but for `items` and `count` it is ready. */
struct items {
    rd_batch_item *items;
    size_t count;               /* that were asked for */
    size_t next;                /* the item that must come next */
    struct items_piece *pieces; /* all that is held */
    struct items_piece *joined; /* of `items[next]`, whose fragments are still coming; NULL: none are */
    size_t joined_len;
};

/* Copy a message to where it stays as long as the items. `buffer` is destroyed. NULL: out of memory. */
struct items_piece *items_hold(struct items *items, grpc_byte_buffer *buffer);

/**
 * Take the items of a message of a batch stream, or (`items_take_entry`) the one of a ReadResponse.
 * Returns: NULL, or what is wrong with them.
 */
const char *items_take(struct items *items, const struct items_piece *message);
const char *items_take_entry(struct items *items, const struct items_piece *message);

/* After the last message. Returns: NULL, or what is wrong. */
const char *items_end(const struct items *items);

/* Let go of what is held; the items are no longer valid. */
void items_fini(struct items *items);

#endif
