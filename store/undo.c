#include "undo.h"
#include "base.h"
#include "epoch.h"
#include "index.h"

#define CHUNK_RECORDS ((size_t)4096)

struct record {
    uint64_t trailer_off;
    uint64_t before;
};

/* The records of some publications, none of them in part. They are only ever added, so readers search them freely. */
struct undo_chunk {
    struct undo_chunk *_Atomic older;
    size_t capacity;
    atomic_size_t count;
    uint64_t epoch; /* of its latest publication */
    struct record records[];
};

void undo_fini(struct undo *undo)
{
    struct undo_chunk *chunk = atomic_load(&undo->newest);
    while (chunk != NULL) {
        struct undo_chunk *older = atomic_load(&chunk->older);
        free(chunk);
        chunk = older;
    }
    atomic_store(&undo->newest, NULL);
}

static rd_err push_chunk(struct undo *undo, struct undo_chunk *newest, size_t capacity)
{
    struct undo_chunk *chunk = malloc(sizeof(*chunk) + capacity * sizeof(struct record));
    if (chunk == NULL)
        return RD_E_NOMEM;
    atomic_init(&chunk->older, newest);
    atomic_init(&chunk->count, 0);
    chunk->capacity = capacity;
    chunk->epoch = 0;
    atomic_store_explicit(&undo->newest, chunk, memory_order_release);
    return RD_OK;
}

rd_err undo_reserve(struct undo *undo, size_t count)
{
    struct undo_chunk *newest = atomic_load_explicit(&undo->newest, memory_order_relaxed);
    if (newest != NULL && newest->capacity - atomic_load_explicit(&newest->count, memory_order_relaxed) >= count)
        return RD_OK;
    RD_TRY(push_chunk(undo, newest, count > CHUNK_RECORDS ? count : CHUNK_RECORDS));
    if (newest != NULL && newest->epoch == 0) /* never used: its publication failed */
        newest->epoch = epoch_retire();
    return RD_OK;
}

void undo_note(struct undo *undo, uint64_t trailer_off, uint64_t before)
{
    struct undo_chunk *newest = atomic_load_explicit(&undo->newest, memory_order_relaxed);
    size_t count = atomic_load_explicit(&newest->count, memory_order_relaxed);
    newest->records[count] = (struct record){.trailer_off = trailer_off, .before = before};
    atomic_store_explicit(&newest->count, count + 1, memory_order_release);
}

/* Unlink and free all older than `chunk`, which nobody can be reading. */
static void drop_older(struct undo_chunk *chunk)
{
    struct undo_chunk *older = atomic_exchange(&chunk->older, NULL);
    while (older != NULL) {
        struct undo_chunk *next = atomic_load(&older->older);
        free(older);
        older = next;
    }
}

uint64_t undo_published(struct undo *undo, uint64_t tail_off)
{
    struct undo_chunk *newest = atomic_load_explicit(&undo->newest, memory_order_relaxed);
    newest->epoch = epoch_retire();
    if (epoch_passed(newest->epoch)) {
        drop_older(newest);
        if (newest->capacity > CHUNK_RECORDS && push_chunk(undo, newest, CHUNK_RECORDS) == RD_OK)
            drop_older(atomic_load_explicit(&undo->newest, memory_order_relaxed));
        return tail_off;
    }
    uint64_t settled_off = tail_off;
    for (struct undo_chunk *chunk = newest, *older; chunk != NULL; chunk = older) {
        if (atomic_load_explicit(&chunk->count, memory_order_relaxed) > 0)
            settled_off = chunk->records[0].trailer_off;
        older = atomic_load_explicit(&chunk->older, memory_order_relaxed);
        if (older != NULL && epoch_passed(older->epoch)) {
            drop_older(chunk);
            older = NULL;
        }
    }
    return settled_off;
}

/* The place of an offset among those of a chunk, or `count`. */
static size_t find_record(const struct undo_chunk *chunk, size_t count, uint64_t trailer_off)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (chunk->records[middle].trailer_off < trailer_off)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && chunk->records[low].trailer_off == trailer_off ? low : count;
}

uint64_t undo_before(const struct undo *undo, uint64_t trailer_off)
{
    const struct undo_chunk *chunk = atomic_load_explicit(&undo->newest, memory_order_acquire);
    for (; chunk != NULL; chunk = atomic_load_explicit(&chunk->older, memory_order_acquire)) {
        size_t count = atomic_load_explicit(&chunk->count, memory_order_acquire);
        if (count == 0 || chunk->records[0].trailer_off > trailer_off)
            continue;
        size_t at = find_record(chunk, count, trailer_off);
        return at < count ? chunk->records[at].before : WORD_NONE;
    }
    return WORD_NONE;
}
