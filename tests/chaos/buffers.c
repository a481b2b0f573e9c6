/* Payloads in memory of their own: no mapping, no offset, and gone as soon as the contract allows. */
#include "internal.h"
#include <string.h>

#define BUFFER_ALIVE UINT64_C(0x616c697665)

struct buffer {
    uint64_t alive;
    struct chaos *chaos;
    atomic_uint refs; /* the window's, and one a hold */
    size_t len;
    uint8_t bytes[]; /* last, so that the sanitizer sees a step beyond them */
};

struct buffer *buffer_create(struct chaos *chaos, rd_span bytes)
{
    struct buffer *buffer = malloc(sizeof(*buffer) + bytes.len);
    if (buffer == NULL)
        return NULL;
    buffer->alive = BUFFER_ALIVE;
    buffer->chaos = chaos;
    atomic_init(&buffer->refs, 1);
    buffer->len = bytes.len;
    memcpy(buffer->bytes, bytes.data, bytes.len);
    count(chaos, CHAOS_BUFFERS, 1);
    return buffer;
}

rd_span buffer_span(const struct buffer *buffer)
{
    return (rd_span){.data = buffer->bytes, .len = buffer->len};
}

void buffer_unref(struct buffer *buffer)
{
    CHAOS_REQUIRE(buffer->alive == BUFFER_ALIVE);
    if (atomic_fetch_sub(&buffer->refs, 1) > 1)
        return;
    struct chaos *chaos = buffer->chaos;
    buffer->alive = 0;
    memset(buffer->bytes, 0xdd, buffer->len); /* who still sends them sends what no store holds */
    free(buffer);
    count(chaos, CHAOS_BUFFERS, -1);
}

static void release(void *argument)
{
    struct buffer *buffer = argument;
    struct chaos *chaos = buffer->chaos;
    buffer_unref(buffer);
    count(chaos, CHAOS_HOLDS, -1);
}

rd_hold buffer_hold(struct buffer *buffer)
{
    atomic_fetch_add(&buffer->refs, 1);
    count(buffer->chaos, CHAOS_HOLDS, 1);
    count(buffer->chaos, CHAOS_HOLDS_TAKEN, 1);
    return (rd_hold){.release = release, .arg = buffer};
}
