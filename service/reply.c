#include "reply.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_MIN  ((size_t)256)
#define BLOCK_MIN ((size_t)16 << 10)  /* what is smaller lies in memory of the core's */
#define REFER_MAX ((size_t)128 << 10) /* a reference of more travels in several slices */

/* Shared by a call's reply and the slices that are under way. */
struct pace {
    atomic_size_t owners;
    atomic_size_t done; /* slices that the core let go of */
};

static struct pace *pace_ref(struct reply *reply)
{
    if (reply->pace == NULL) {
        struct pace *pace = malloc(sizeof(*pace));
        if (pace == NULL)
            return NULL;
        atomic_init(&pace->owners, 1);
        atomic_init(&pace->done, 0);
        reply->pace = pace;
    }
    atomic_fetch_add(&reply->pace->owners, 1);
    return reply->pace;
}

static void pace_unref(struct pace *pace)
{
    if (pace != NULL && atomic_fetch_sub(&pace->owners, 1) == 1)
        free(pace);
}

/* A slice is done with. */
static void pace_step(struct pace *pace)
{
    if (pace != NULL)
        atomic_fetch_add(&pace->done, 1);
    pace_unref(pace);
}

size_t reply_pace(const struct reply *reply)
{
    return reply->pace == NULL ? 0 : atomic_load(&reply->pace->done);
}

/* Memory that a slice brings along. The atomic is set last and read first: the core's own count is invisible to the
 * thread sanitizer. */
struct block {
    _Atomic(struct pace *) pace;
    uint8_t bytes[];
};

static void block_release(void *argument)
{
    struct block *block = argument;
    pace_step(atomic_load_explicit(&block->pace, memory_order_acquire));
    free(block);
}

/* Returns: false when out of memory. */
static bool make_open(struct reply *reply, size_t capacity, grpc_slice *out_slice)
{
    if (capacity < BLOCK_MIN) {
        *out_slice = grpc_slice_malloc(capacity);
        return true;
    }
    struct block *block = malloc(sizeof(*block) + capacity);
    if (block == NULL)
        return false;
    atomic_store_explicit(&block->pace, pace_ref(reply), memory_order_release);
    *out_slice = grpc_slice_new_with_user_data(block->bytes, capacity, block_release, block);
    return true;
}

/* All but the pace, which lasts as long as the call. */
static void clear(struct reply *reply)
{
    struct pace *pace = reply->pace;
    if (reply->capacity > 0)
        grpc_slice_unref(reply->open);
    for (size_t i = 0; i < reply->closed_count; i++)
        grpc_slice_unref(reply->closed[i]);
    free(reply->closed);
    *reply = (struct reply){.pace = pace};
}

void reply_fini(struct reply *reply)
{
    clear(reply);
    pace_unref(reply->pace);
    reply->pace = NULL;
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
    if (!make_open(reply, wanted > OPEN_MIN ? wanted : OPEN_MIN, &grown)) {
        reply_fail(reply, RD_E_NOMEM);
        return false;
    }
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

/* What slices of somebody else's memory need to give it back. */
struct reference {
    atomic_size_t slices; /* set last, read first: as block.pace */
    struct pace *pace;
    rd_hold hold;
};

static atomic_size_t references;

size_t reply_references(void)
{
    return atomic_load(&references);
}

static void reference_release(void *argument)
{
    struct reference *reference = argument;
    (void)atomic_load_explicit(&reference->slices, memory_order_acquire); /* before what was set before it */
    struct pace *pace = reference->pace;
    if (pace != NULL)
        atomic_fetch_add(&pace->done, 1);
    if (atomic_fetch_sub(&reference->slices, 1) > 1)
        return;
    reference->hold.release(reference->hold.arg);
    pace_unref(pace);
    free(reference);
    atomic_fetch_sub(&references, 1);
}

void reply_refer(struct reply *reply, rd_span bytes, rd_hold hold)
{
    size_t count = (bytes.len + REFER_MAX - 1) / REFER_MAX;
    struct reference *reference = bytes.len > 0 ? malloc(sizeof(*reference)) : NULL;
    reply->any = true;
    if (reference == NULL) {
        hold.release(hold.arg);
        if (bytes.len > 0)
            reply_fail(reply, RD_E_NOMEM);
        return;
    }
    atomic_fetch_add(&references, 1);
    reference->pace = pace_ref(reply);
    reference->hold = hold;
    atomic_store_explicit(&reference->slices, count, memory_order_release);
    uint8_t *at = (void *)(uintptr_t)bytes.data;
    for (size_t left = bytes.len; left > 0;) {
        size_t len = left < REFER_MAX ? left : REFER_MAX;
        grpc_slice slice = grpc_slice_new_with_user_data(at, len, reference_release, reference);
        close_open(reply, &slice);
        at += len;
        left -= len;
    }
    reply->total += bytes.len;
    reply->referred += bytes.len;
}

grpc_byte_buffer *reply_take(struct reply *reply)
{
    if (reply->err == RD_OK && reply->closed_count == 0 && reply->capacity > 0) { /* no list is needed for one slice */
        GRPC_SLICE_SET_LENGTH(reply->open, reply->used);
        grpc_byte_buffer *single = grpc_raw_byte_buffer_create(&reply->open, 1);
        clear(reply);
        return single;
    }
    close_open(reply, NULL);
    grpc_byte_buffer *message =
        reply->err == RD_OK ? grpc_raw_byte_buffer_create(reply->closed, reply->closed_count) : NULL;
    clear(reply);
    return message;
}
