/*
 * A store grows under readers, then is compacted under readers and a writer: every answer is checked, throughout, and
 * the reads are timed. `test_growth` is quick; `test_growth --full` grows from 1 M to 8 M keys; or say from where to
 * where.
 */
#include "folder.h"
#include "histogram.h"

#include <pthread.h>
#include <rdrive/store.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define READERS     2
#define BATCH       1000 /* keys that are written at a time */
#define READ_BATCH  256  /* read, each 16th time */
#define COMPACTIONS 2    /* at least */

/* What a value says: whose it is, and how often that key was written before. */
struct value {
    uint64_t key, version;
};

static rd_store *store;
static uint64_t keys_max;
static _Atomic uint64_t there;      /* keys below it were written */
static _Atomic uint32_t *versions;  /* of each key the latest whose write returned */
static _Atomic uint32_t *beginning; /* and the latest whose write was begun */
static atomic_bool ended;           /* a phase */
static atomic_bool overwritten;

#define CHECK(cond, ...)                                                                                               \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond);                                                 \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            _exit(1); /* other threads are at work */                                                                  \
        }                                                                                                              \
    } while (0)
#define CHECK_OK(call)                                                                                                 \
    do {                                                                                                               \
        rd_err check_err = (call);                                                                                     \
        CHECK(check_err == RD_OK, "%s", rd_err_text(check_err));                                                       \
    } while (0)

static uint64_t hash_of(uint64_t key)
{
    return rd_hash((rd_span){&key, sizeof(key)});
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

/* Write `count` keys once more, at one instant. */
static void write_again(const uint64_t *keys, size_t count)
{
    struct value values[BATCH];
    rd_write_item items[BATCH] = {0};
    rd_written written;
    for (size_t i = 0; i < count; i++) {
        values[i] = (struct value){keys[i], atomic_fetch_add(&beginning[keys[i]], 1) + 1};
        items[i] = (rd_write_item){hash_of(keys[i]), {&values[i], sizeof(values[i])}};
    }
    CHECK_OK(rd_store_batch_write(store, items, count, &written));
    for (size_t i = 0; i < count; i++)
        atomic_store(&versions[keys[i]], (uint32_t)values[i].version);
}

static void grow_to(uint64_t end)
{
    uint64_t keys[BATCH] = {0};
    for (uint64_t from = atomic_load(&there), next; from < end; from = next) {
        next = from + BATCH < end ? from + BATCH : end;
        for (uint64_t key = from; key < next; key++)
            keys[key - from] = key;
        write_again(keys, (size_t)(next - from));
        atomic_store(&there, next);
    }
}

/* So many writes that the file, without compactions, would be as large as thrice what is live. */
static void *overwrite(void *arg)
{
    uint64_t random = 4711, keys[BATCH] = {0};
    (void)arg;
    for (uint64_t left = 2 * keys_max, count; left > 0; left -= count) {
        uint64_t first = random_next(&random) % (keys_max - BATCH);
        count = 1 + random % BATCH < left ? 1 + random % BATCH : left;
        for (uint64_t i = 0; i < count; i++)
            keys[i] = first + i;
        write_again(keys, (size_t)count);
    }
    atomic_store(&overwritten, true);
    return NULL;
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

/* `least`: the version that had been written when the read began. */
static void check_value(uint64_t key, uint32_t least, rd_err err, rd_span payload)
{
    struct value value = {0};
    uint32_t most = atomic_load(&beginning[key]);
    CHECK(err == RD_OK && payload.len == sizeof(value), "key %llu: %s", (unsigned long long)key, rd_err_text(err));
    memcpy(&value, payload.data, sizeof(value));
    CHECK(value.key == key && value.version >= least && value.version <= most,
          "key %llu, version %u to %u: key %llu, version %llu", (unsigned long long)key, least, most,
          (unsigned long long)value.key, (unsigned long long)value.version);
}

static void read_batch(const uint64_t *keys, size_t count)
{
    uint64_t hashes[READ_BATCH] = {0};
    uint32_t least[READ_BATCH];
    rd_batch_item items[READ_BATCH];
    for (size_t i = 0; i < count; i++) {
        hashes[i] = hash_of(keys[i]);
        least[i] = atomic_load(&versions[keys[i]]);
    }
    CHECK_OK(rd_store_batch_read_hashed(store, hashes, NULL, count, items));
    for (size_t i = 0; i < count; i++) {
        check_value(keys[i], least[i], items[i].err, items[i].entry.payload);
        rd_entry_release(&items[i].entry);
    }
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct reader {
    pthread_t thread;
    uint64_t random;
    struct histogram elapsed;
    uint64_t longest_own; /* of the thread's own time: what others ran in between doesn't count */
};

static void read_one(struct reader *reader, uint64_t key)
{
    uint32_t least = atomic_load(&versions[key]);
    uint64_t hash = hash_of(key);
    rd_entry entry = {0};
    uint64_t own = now_ns(CLOCK_THREAD_CPUTIME_ID), begun = now_ns(CLOCK_MONOTONIC);
    rd_err err = rd_store_read_hash(store, hash, &entry);
    histogram_add(&reader->elapsed, now_ns(CLOCK_MONOTONIC) - begun);
    own = now_ns(CLOCK_THREAD_CPUTIME_ID) - own;
    reader->longest_own = own > reader->longest_own ? own : reader->longest_own;
    check_value(key, least, err, entry.payload);
    rd_entry_release(&entry);
}

static void *read_on(void *arg)
{
    struct reader *reader = arg;
    uint64_t keys[READ_BATCH];
    for (uint64_t reads = 0; reads < BATCH || !atomic_load(&ended); reads++) {
        uint64_t end = atomic_load(&there);
        read_one(reader, random_next(&reader->random) % end);
        if (reads % 16 != 0)
            continue;
        for (size_t i = 0; i < READ_BATCH; i++)
            keys[i] = random_next(&reader->random) % end;
        read_batch(keys, READ_BATCH);
        rd_entry entry;
        uint64_t absent = hash_of(keys_max + reads);
        CHECK(rd_store_read_hash(store, absent, &entry) == RD_ABSENT, "a key is there that was never written");
    }
    return NULL;
}

/* ---- The phases ------------------------------------------------------------------------------------------------- */

static void readers_start(struct reader readers[READERS])
{
    atomic_store(&ended, false);
    for (size_t i = 0; i < READERS; i++) {
        memset(&readers[i], 0, sizeof(readers[i]));
        readers[i].random = 20261124 + i;
        CHECK(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]) == 0, "no thread");
    }
}

static void readers_end(struct reader readers[READERS], const char *phase)
{
    struct histogram all = {0};
    uint64_t longest_own = 0;
    atomic_store(&ended, true);
    for (size_t i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        histogram_merge(&all, &readers[i].elapsed);
        longest_own = readers[i].longest_own > longest_own ? readers[i].longest_own : longest_own;
    }
    printf("%-12s %9llu reads, ns: p50 %llu, p99 %llu, p99.9 %llu, longest %llu (of own time %llu)\n", phase,
           (unsigned long long)all.count, (unsigned long long)histogram_percentile(&all, 50),
           (unsigned long long)histogram_percentile(&all, 99), (unsigned long long)histogram_percentile(&all, 99.9),
           (unsigned long long)all.max, (unsigned long long)longest_own);
}

static void check_all(void)
{
    uint64_t keys[READ_BATCH];
    for (uint64_t from = 0; from < keys_max; from += READ_BATCH) {
        uint64_t count = from + READ_BATCH < keys_max ? READ_BATCH : keys_max - from;
        for (uint64_t i = 0; i < count; i++)
            keys[i] = from + i;
        read_batch(keys, (size_t)count);
    }
    CHECK(rd_store_len(store) == keys_max, "%llu keys", (unsigned long long)rd_store_len(store));
}

static void compact_under_load(struct reader readers[READERS])
{
    pthread_t writer;
    readers_start(readers);
    CHECK(pthread_create(&writer, NULL, overwrite, NULL) == 0, "no thread");
    for (int i = 0; i < COMPACTIONS || !atomic_load(&overwritten); i++) {
        rd_compacted compacted;
        rd_fault fault;
        CHECK(rd_store_compact(store, NULL, &fault, &compacted) == RD_OK, "%s", fault.text);
        CHECK(compacted.entries >= keys_max, "%llu entries", (unsigned long long)compacted.entries);
    }
    pthread_join(writer, NULL);
    readers_end(readers, "compactions");
}

static void run(const char *path, uint64_t from)
{
    static struct reader readers[READERS];
    const rd_open_options making = {.writable = true, .create = true, .sync = RD_SYNC_NONE};
    const rd_open_options reading = {.verify = RD_VERIFY_ALWAYS};
    CHECK_OK(rd_store_open(path, &making, NULL, &store));
    grow_to(from);
    readers_start(readers);
    readers_end(readers, "idle");
    readers_start(readers);
    grow_to(keys_max);
    readers_end(readers, "growth");
    check_all();
    compact_under_load(readers);
    check_all();
    rd_store_close(store);
    CHECK_OK(rd_store_open(path, &reading, NULL, &store));
    check_all();
    rd_store_close(store);
}

int main(int argc, char **argv)
{
    char folder[FOLDER_MAX], path[FOLDER_MAX + 16];
    uint64_t from = 20000;
    keys_max = 300000;
    if (argc == 2 && strcmp(argv[1], "--full") == 0) {
        from = 1000000;
        keys_max = 8000000;
    } else if (argc == 3) {
        from = strtoull(argv[1], NULL, 10);
        keys_max = strtoull(argv[2], NULL, 10);
    } else if (argc != 1)
        keys_max = 0;
    if (from == 0 || keys_max <= from || keys_max <= BATCH) {
        fprintf(stderr, "usage: test_growth [--full | FROM TO]\n");
        return 64;
    }
    versions = calloc(keys_max, sizeof(*versions));
    beginning = calloc(keys_max, sizeof(*beginning));
    CHECK(versions != NULL && beginning != NULL, "no memory");
    CHECK(folder_make("growth", folder), "no temporary folder");
    (void)snprintf(path, sizeof(path), "%s/s", folder);
    run(path, from);
    CHECK(folder_remove(folder), "%s is not empty", folder);
    free((void *)versions);
    free((void *)beginning);
    return 0;
}
