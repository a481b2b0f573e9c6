/* The limit of this machine: loops that do the least a store must do, with the same keys, formatted and hashed alike.
 * A look-up is two misses that depend on each other: a slot of a table as large as an index of 24 bytes a key (hash
 * and offset in 16, two thirds full, in huge pages), then the entry in the mapped file. Nothing is pinned, no CRC is
 * looked at, nothing is ready for a writer. */
#include "bare.h"
#include "child.h"
#include "shape.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define TRAILER_LEN 20u

static size_t slot_of(const struct bare *bare, uint64_t hash)
{
    return (size_t)(((unsigned __int128)(hash * UINT64_C(0x9e3779b97f4a7c15)) * bare->slot_count) >> 64);
}

/* The newest entries from the end of the file back to its start; each key is there once. */
static void index_entries(struct bare *bare)
{
    for (uint64_t tail = bare->file_len; tail != 0;) {
        const uint8_t *trailer = bare->file + tail - TRAILER_LEN;
        size_t slot = slot_of(bare, value_load(trailer));
        while (bare->slots[slot].trailer_off != 0)
            slot = slot + 1 == bare->slot_count ? 0 : slot + 1;
        bare->slots[slot] = (struct bare_slot){value_load(trailer), tail - TRAILER_LEN};
        tail = value_load(trailer + 8);
    }
}

void bare_load(struct bare *bare, const char *path, uint64_t keys)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    CHECK(file >= 0 && fstat(file, &facts) == 0);
    bare->file_len = (size_t)facts.st_size;
    bare->file = mmap(NULL, bare->file_len, PROT_READ, MAP_SHARED, file, 0);
    CHECK(bare->file != MAP_FAILED);
    close(file);
    bare->slot_count = keys + keys / 2 + 1;
    size_t len = bare->slot_count * sizeof *bare->slots;
    bare->slots = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(bare->slots != MAP_FAILED);
    madvise(bare->slots, len, MADV_HUGEPAGE);
    index_entries(bare);
}

static inline uint64_t hash_key(uint64_t i)
{
    char key[KEY_LEN_MAX];
    size_t len = key_format(key, i);
    return XXH3_64bits(key, len);
}

/* The first miss. */
static inline uint64_t find(const struct bare *bare, uint64_t hash)
{
    size_t slot = slot_of(bare, hash);
    while (bare->slots[slot].hash != hash) {
        CHECK(bare->slots[slot].trailer_off != 0);
        slot = slot + 1 == bare->slot_count ? 0 : slot + 1;
    }
    return bare->slots[slot].trailer_off;
}

/* The second. Returns: the value. */
static inline uint64_t check_entry(const struct bare *bare, uint64_t trailer_off, uint64_t hash, uint64_t i)
{
    const uint8_t *trailer = bare->file + trailer_off;
    uint64_t start = (value_load(trailer + 8) + 63) & ~UINT64_C(63), value = hidden(value_load(bare->file + start));
    CHECK(value_load(trailer) == hash && trailer_off - start == VALUE_LEN && value == i);
    return hidden(value);
}

uint64_t bare_read_one(void *arg, uint64_t i)
{
    const struct bare *bare = arg;
    uint64_t hash = hash_key(i);
    return check_entry(bare, find(bare, hash), hash, i);
}

static uint64_t random_reads(struct bare *bare, uint64_t keys, uint64_t count, uint64_t seed)
{
    uint64_t state = seed, began = busy_ns();
    for (uint64_t i = 0; i < count; i++)
        bare_read_one(bare, pick_below(&state, keys));
    return busy_ns() - began;
}

/* Each pick waits for the value before it, so that no processor looks up two keys at once. */
static uint64_t chained_reads(struct bare *bare, uint64_t keys, uint64_t count)
{
    uint64_t state = PICK_SEED, began = busy_ns();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t pick = pick_below(&state, keys);
        state += bare_read_one(bare, pick) - pick;
    }
    return busy_ns() - began;
}

/* The fastest of 8 to 1024 where it was tried, with 1 M keys and with 10 M. */
#define WINDOW 24u

static void read_window(const struct bare *bare, uint64_t first, size_t count)
{
    uint64_t hashes[WINDOW], offsets[WINDOW];
    for (size_t i = 0; i < count; i++) {
        hashes[i] = hash_key(first + i);
        __builtin_prefetch(&bare->slots[slot_of(bare, hashes[i])]);
    }
    for (size_t i = 0; i < count; i++) {
        offsets[i] = find(bare, hashes[i]);
        __builtin_prefetch(bare->file + offsets[i]);
    }
    for (size_t i = 0; i < count; i++)
        check_entry(bare, offsets[i], hashes[i], first + i);
}

static uint64_t batch_reads(const struct bare *bare, uint64_t keys, uint64_t count)
{
    uint64_t began = busy_ns(), first = 0;
    for (uint64_t done = 0; done < count;) {
        uint64_t left = keys - first < count - done ? keys - first : count - done;
        size_t here = left < WINDOW ? (size_t)left : WINDOW;
        read_window(bare, first, here);
        done += here;
        first = (first + here) % keys;
    }
    return busy_ns() - began;
}

static uint64_t walk(const struct bare *bare, uint64_t keys)
{
    uint64_t began = busy_ns(), left = keys;
    for (uint64_t tail = bare->file_len; tail != 0;) {
        uint64_t trailer_off = tail - TRAILER_LEN, prev = value_load(bare->file + trailer_off + 8);
        CHECK(value_load(bare->file + ((prev + 63) & ~UINT64_C(63))) == --left);
        tail = prev;
    }
    CHECK(left == 0);
    return busy_ns() - began;
}

void bare_reads(const struct job *job)
{
    struct bare bare;
    bare_load(&bare, job->path, job->keys);
    print_figure("random_ns", (double)random_reads(&bare, job->keys, job->count, PICK_SEED) / (double)job->count);
    print_figure("chained_ns", (double)chained_reads(&bare, job->keys, job->count) / (double)job->count);
    print_figure("batch_ns", (double)batch_reads(&bare, job->keys, job->count) / (double)job->count);
    print_figure("iterate_ns", (double)walk(&bare, job->keys) / (double)job->keys);
}

struct reader {
    struct bare *bare;
    const struct job *job;
    uint64_t seed;
};

static void *reader_run(void *arg)
{
    struct reader *reader = arg;
    random_reads(reader->bare, reader->job->keys, reader->job->count, reader->seed);
    return NULL;
}

void bare_threads(const struct job *job)
{
    struct bare bare;
    bare_load(&bare, job->path, job->keys);
    struct reader readers[2] = {{&bare, job, PICK_SEED}, {&bare, job, PICK_SEED + 1}};
    print_scaling(reader_run, readers, sizeof readers[0]);
}
