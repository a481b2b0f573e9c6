#include "reply.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_MIN ((size_t)256)

void reply_fini(struct reply *reply)
{
    if (reply->capacity > 0)
        grpc_slice_unref(reply->open);
    for (size_t i = 0; i < reply->closed_count; i++)
        grpc_slice_unref(reply->closed[i]);
    free(reply->closed);
    *reply = (struct reply){0};
}

void reply_fail(struct reply *reply, rd_err err)
{
    if (reply->err == RD_OK)
        reply->err = err;
}

/* Close the open slice and put `slice` (or, NULL, nothing) behind it. */
static void close_open(struct reply *reply, const grpc_slice *slice)
{
    if (reply->closed_count + 2 > reply->closed_capacity) {
        size_t capacity = reply->closed_capacity == 0 ? 4 : 2 * reply->closed_capacity;
        grpc_slice *closed = realloc(reply->closed, capacity * sizeof(*closed));
        if (closed == NULL) {
            reply_fail(reply, RD_E_NOMEM);
            if (slice != NULL)
                grpc_slice_unref(*slice);
            return;
        }
        reply->closed = closed;
        reply->closed_capacity = capacity;
    }
    if (reply->capacity > 0) {
        GRPC_SLICE_SET_LENGTH(reply->open, reply->used);
        reply->closed[reply->closed_count++] = reply->open;
        reply->capacity = 0;
        reply->used = 0;
    }
    if (slice != NULL)
        reply->closed[reply->closed_count++] = *slice;
}

/* An open slice of at least `capacity`; what the present one holds moves over, or, from a piece on, is closed. */
static bool grow(struct reply *reply, size_t len)
{
    size_t wanted = 2 * reply->capacity > reply->used + len ? 2 * reply->capacity : reply->used + len;
    grpc_slice grown;
    if (wanted > REPLY_PIECE && reply->used > 0) {
        close_open(reply, NULL);
        wanted = len > REPLY_PIECE ? len : REPLY_PIECE;
    }
    if (reply->err != RD_OK)
        return false;
    grown = grpc_slice_malloc(wanted > OPEN_MIN ? wanted : OPEN_MIN);
    if (reply->capacity > 0) {
        memcpy(GRPC_SLICE_START_PTR(grown), GRPC_SLICE_START_PTR(reply->open), reply->used);
        grpc_slice_unref(reply->open);
    }
    reply->open = grown;
    reply->capacity = GRPC_SLICE_LENGTH(grown);
    return true;
}

uint8_t *reply_reserve(struct reply *reply, size_t len)
{
    reply->any = true;
    if (reply->err != RD_OK || (reply->capacity - reply->used < len && !grow(reply, len)))
        return NULL;
    return GRPC_SLICE_START_PTR(reply->open) + reply->used;
}

void reply_commit(struct reply *reply, size_t len)
{
    reply->used += len;
    reply->total += len;
}

void reply_put(struct reply *reply, const void *bytes, size_t len)
{
    uint8_t *at = reply_reserve(reply, len);
    if (at == NULL || len == 0)
        return;
    memcpy(at, bytes, len);
    reply_commit(reply, len);
}

void reply_put_payload(struct reply *reply, rd_span bytes)
{
    uint8_t *at = reply_reserve(reply, bytes.len);
    if (at == NULL)
        return;
    if (rd_copy(at, bytes))
        reply_commit(reply, bytes.len);
    else
        reply_fail(reply, RD_E_TRUNCATED);
}

/* What a slice of somebody else's memory needs to give it back. */
struct reference {
    /* set last, read first: the core's own count is invisible to the thread sanitizer */
    _Atomic(void (*)(void *)) release;
    void *arg;
};

static atomic_size_t references;

size_t reply_references(void)
{
    return atomic_load(&references);
}

static void reference_release(void *argument)
{
    struct reference *reference = argument;
    void (*release)(void *) = atomic_load_explicit(&reference->release, memory_order_acquire);
    release(reference->arg);
    free(reference);
    atomic_fetch_sub(&references, 1);
}

void reply_refer(struct reply *reply, rd_span bytes, rd_hold hold)
{
    struct reference *reference = malloc(sizeof(*reference));
    reply->any = true;
    if (reference == NULL) {
        hold.release(hold.arg);
        reply_fail(reply, RD_E_NOMEM);
        return;
    }
    atomic_fetch_add(&references, 1);
    reference->arg = hold.arg;
    atomic_store_explicit(&reference->release, hold.release, memory_order_release);
    grpc_slice slice =
        grpc_slice_new_with_user_data((void *)(uintptr_t)bytes.data, bytes.len, reference_release, reference);
    close_open(reply, &slice);
    reply->total += bytes.len;
    reply->referred += bytes.len;
}

grpc_byte_buffer *reply_take(struct reply *reply)
{
    if (reply->err == RD_OK && reply->closed_count == 0 && reply->capacity > 0) { /* no list is needed for one slice */
        GRPC_SLICE_SET_LENGTH(reply->open, reply->used);
        grpc_byte_buffer *single = grpc_raw_byte_buffer_create(&reply->open, 1);
        reply_fini(reply);
        return single;
    }
    close_open(reply, NULL);
    grpc_byte_buffer *message =
        reply->err == RD_OK ? grpc_raw_byte_buffer_create(reply->closed, reply->closed_count) : NULL;
    reply_fini(reply);
    return message;
}
