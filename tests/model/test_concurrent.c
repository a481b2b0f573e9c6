/*
 * Writers, readers, compactions and verifications of one store at once. Each writer alone writes its own keys, with a
 * count that only grows, so every reader knows what it must see at least; and batches write one stamp under all keys of
 * a group, so every batch read and every iteration must find one stamp there, or none (F-13). In the end, and after a
 * reopening, the store holds what was written last.
 */
#include "folder.h"
#include "image.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WRITERS        3
#define BATCH_WRITERS  2
#define READERS        2
#define KEYS_PER       16
#define GROUP          24 /* keys of a batch */
#define VALUE_WORDS    4
#define LARGE_WORDS    9000 /* 72,000 bytes: one that opening does not check */
#define COMPACTION_GAP ((uint64_t)64 << 10)

/* What a value says: who wrote it, which key, how often that key was written. Repeated over the whole payload. */
struct stamp {
    uint64_t writer, key, count;
};

static rd_store *store;
static uint64_t rounds = 300;
static atomic_bool writing_ended;
static _Atomic uint64_t counts[WRITERS][KEYS_PER]; /* written and returned; 0: never */
static _Atomic uint64_t batch_counts[BATCH_WRITERS];

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

static uint64_t key_hash(uint64_t writer, uint64_t key)
{
    const uint64_t bytes[2] = {writer, key};
    return rd_hash((rd_span){bytes, sizeof(bytes)});
}

/* `words` is a multiple of three words and more. */
static size_t fill(uint64_t *words, struct stamp stamp, size_t count)
{
    for (size_t i = 0; i + 3 <= count; i += 3) {
        words[i] = stamp.writer;
        words[i + 1] = stamp.key;
        words[i + 2] = stamp.count;
    }
    return count / 3 * 3 * sizeof(*words);
}

static struct stamp read_stamp(rd_span payload)
{
    struct stamp stamp;
    CHECK(payload.len >= sizeof(stamp) && payload.len % sizeof(stamp) == 0, "a value of %zu bytes", payload.len);
    memcpy(&stamp, payload.data, sizeof(stamp));
    for (size_t at = 0; at < payload.len; at += sizeof(stamp))
        CHECK(memcmp((const uint8_t *)payload.data + at, &stamp, sizeof(stamp)) == 0, "a value of two halves");
    return stamp;
}

/* ---- Writers ---------------------------------------------------------------------------------------------------- */

/* Its own keys, one at a time: written, streamed, and now and then deleted, which counts as a write. */
static void *write_singly(void *arg)
{
    uint64_t writer = (uint64_t)(uintptr_t)arg;
    uint64_t *words = malloc(LARGE_WORDS * sizeof(*words));
    CHECK(words != NULL, "no memory");
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t key = i % KEYS_PER, count = counts[writer][key] + 1, hash = key_hash(writer, key);
        size_t len = fill(words, (struct stamp){writer, key, count}, i % 97 == 0 ? LARGE_WORDS : VALUE_WORDS + i % 30);
        rd_written written;
        rd_stream *stream;
        if (i % 5 == 4) {
            CHECK_OK(rd_stream_begin(store, hash, &stream));
            CHECK_OK(rd_stream_append(stream, (rd_span){words, len / 2}));
            CHECK_OK(rd_stream_append(stream, (rd_span){(uint8_t *)words + len / 2, len - len / 2}));
            CHECK_OK(rd_stream_commit(stream, &written, &(uint64_t){0}, &(uint32_t){0}));
        } else {
            CHECK_OK(rd_store_write_hash(store, hash, (rd_span){words, len}, &written));
        }
        atomic_store(&counts[writer][key], count);
    }
    free(words);
    return NULL;
}

/* One stamp under all keys of the group, again and again; another thread does the same to the same keys. */
static void *write_batches(void *arg)
{
    uint64_t writer = (uint64_t)(uintptr_t)arg;
    uint64_t words[GROUP][6];
    rd_write_item items[GROUP];
    uint64_t hashes[GROUP];
    rd_written written;
    for (uint64_t i = 1; i <= rounds / 4; i++) {
        for (size_t k = 0; k < GROUP; k++) {
            hashes[k] = key_hash(WRITERS, k);
            size_t len = fill(words[k], (struct stamp){writer, 0, i}, 3 + k % 4);
            items[k] = (rd_write_item){hashes[k], {words[k], len}};
        }
        if (i % 10 == 0)
            CHECK_OK(rd_store_batch_delete(store, hashes, GROUP, &written));
        CHECK_OK(rd_store_batch_write(store, items, GROUP, &written));
        atomic_store(&batch_counts[writer], i);
    }
    return NULL;
}

/* ---- Readers ---------------------------------------------------------------------------------------------------- */

static void check_single(uint64_t writer, uint64_t key)
{
    uint64_t least = atomic_load(&counts[writer][key]);
    rd_entry entry = {0};
    rd_err err = rd_store_read_hash(store, key_hash(writer, key), &entry);
    CHECK(err == RD_OK || (err == RD_ABSENT && least == 0), "key %llu of %llu, written %llu times: %s",
          (unsigned long long)key, (unsigned long long)writer, (unsigned long long)least, rd_err_text(err));
    if (err != RD_OK)
        return;
    struct stamp stamp = read_stamp(entry.payload);
    CHECK(stamp.writer == writer && stamp.key == key && stamp.count >= least, "write %llu is read after write %llu",
          (unsigned long long)stamp.count, (unsigned long long)least);
    rd_entry_release(&entry);
}

/* `seen` is per reader: of each batch writer the latest batch it has met, and they only get later. */
static void check_group(uint64_t seen[BATCH_WRITERS])
{
    uint64_t hashes[GROUP];
    rd_batch_item items[GROUP];
    for (size_t k = 0; k < GROUP; k++)
        hashes[k] = key_hash(WRITERS, k);
    CHECK_OK(rd_store_batch_read_hashed(store, hashes, NULL, GROUP, items));
    struct stamp first = {0};
    for (size_t k = 0; k < GROUP; k++) {
        CHECK(items[k].err == items[0].err && (items[k].err == RD_OK || items[k].err == RD_ABSENT),
              "half a batch is seen: %s, %s", rd_err_text(items[0].err), rd_err_text(items[k].err));
        if (items[k].err != RD_OK)
            continue;
        struct stamp stamp = read_stamp(items[k].entry.payload);
        if (k == 0)
            first = stamp;
        CHECK(memcmp(&stamp, &first, sizeof(stamp)) == 0, "two batches are seen at once");
        rd_entry_release(&items[k].entry);
    }
    if (items[0].err != RD_OK)
        return;
    CHECK(first.writer < BATCH_WRITERS && first.count >= seen[first.writer], "an older batch came back");
    seen[first.writer] = first.count;
}

static void check_iteration(void)
{
    rd_iter *iter = NULL;
    rd_entry entry = {0};
    struct stamp first = {0};
    size_t group = 0;
    CHECK_OK(rd_iter_create(store, &iter));
    for (rd_err err = rd_iter_next(iter, &entry); err != RD_ABSENT; err = rd_iter_next(iter, &entry)) {
        CHECK_OK(err);
        struct stamp stamp = read_stamp(entry.payload);
        if (entry.meta.key_hash == key_hash(stamp.writer, stamp.key) && stamp.writer < WRITERS)
            continue;
        if (group++ == 0)
            first = stamp;
        CHECK(memcmp(&stamp, &first, sizeof(stamp)) == 0, "an iteration sees two batches");
    }
    CHECK(group == 0 || group == GROUP, "an iteration sees %zu keys of a batch of %d", group, GROUP);
    rd_iter_destroy(iter);
}

static void *read_on(void *arg)
{
    uint64_t seen[BATCH_WRITERS] = {0};
    uint64_t i = (uint64_t)(uintptr_t)arg;
    while (!atomic_load(&writing_ended)) {
        check_single(i % WRITERS, i / WRITERS % KEYS_PER);
        check_group(seen);
        if (i++ % 16 == 0)
            check_iteration();
    }
    return NULL;
}

/* ---- Upkeep ----------------------------------------------------------------------------------------------------- */

static void *keep_up(void *arg)
{
    uint64_t *compactions = arg;
    while (!atomic_load(&writing_ended)) {
        rd_store_info info;
        rd_verified verified;
        rd_compacted compacted;
        rd_fault fault;
        CHECK_OK(rd_store_info_get(store, &info));
        CHECK(info.damaged_ranges == 0 && info.live_keys <= WRITERS * KEYS_PER + GROUP, "info");
        CHECK_OK(rd_store_verify(store, 2, NULL, NULL, &verified));
        CHECK(verified.failed == 0, "%llu entries failed", (unsigned long long)verified.failed);
        CHECK_OK(rd_store_sync(store));
        if (info.reclaimable_bytes < COMPACTION_GAP)
            continue;
        CHECK(rd_store_compact(store, NULL, &fault, &compacted) == RD_OK, "%s", fault.text);
        ++*compactions;
    }
    return NULL;
}

/* ---- One run ---------------------------------------------------------------------------------------------------- */

static void check_end(void)
{
    uint64_t seen[BATCH_WRITERS] = {0};
    for (uint64_t writer = 0; writer < WRITERS; writer++)
        for (uint64_t key = 0; key < KEYS_PER; key++)
            check_single(writer, key);
    check_group(seen);
    for (uint64_t writer = 0; writer < BATCH_WRITERS; writer++)
        CHECK(seen[writer] == 0 || seen[writer] == batch_counts[writer], "the last batch is not the one that is seen");
    check_iteration();
    CHECK(rd_store_len(store) == WRITERS * KEYS_PER + GROUP, "%llu keys", (unsigned long long)rd_store_len(store));
}

static pthread_t start(void *(*run)(void *), uint64_t number)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, (void *)(uintptr_t)number) == 0, "no thread");
    return thread;
}

static void run_once(const char *path, rd_sync sync)
{
    const rd_open_options making = {.writable = true, .create = true, .sync = sync, .sync_interval_ms = 5};
    const rd_open_options reading = {.verify = RD_VERIFY_ALWAYS};
    pthread_t writers[WRITERS + BATCH_WRITERS], readers[READERS], upkeep;
    uint64_t compactions = 0;
    memset(counts, 0, sizeof(counts));
    memset(batch_counts, 0, sizeof(batch_counts));
    atomic_store(&writing_ended, false);
    CHECK_OK(rd_store_open(path, &making, NULL, &store));
    for (uint64_t i = 0; i < WRITERS + BATCH_WRITERS; i++)
        writers[i] = i < WRITERS ? start(write_singly, i) : start(write_batches, i - WRITERS);
    for (uint64_t i = 0; i < READERS; i++)
        readers[i] = start(read_on, i);
    CHECK(pthread_create(&upkeep, NULL, keep_up, &compactions) == 0, "no thread");
    for (size_t i = 0; i < WRITERS + BATCH_WRITERS; i++)
        pthread_join(writers[i], NULL);
    atomic_store(&writing_ended, true);
    for (size_t i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    pthread_join(upkeep, NULL);
    check_end();
    rd_store_close(store);
    CHECK_OK(rd_store_open(path, &reading, NULL, &store));
    check_end();
    rd_store_close(store);
    printf("sync mode %d: as written, through %llu compactions\n", (int)sync, (unsigned long long)compactions);
}

int main(int argc, char **argv)
{
    char folder[FOLDER_MAX], path[FOLDER_MAX + 16];
    if (argc == 3 && strcmp(argv[1], "--rounds") == 0)
        rounds = strtoull(argv[2], NULL, 10);
    else if (argc != 1 || rounds == 0) {
        fprintf(stderr, "usage: test_concurrent [--rounds N]\n");
        return 64;
    }
    CHECK(folder_make("concurrent", folder), "no temporary folder");
    for (int sync = RD_SYNC_ALWAYS; sync <= RD_SYNC_NONE; sync++) {
        (void)snprintf(path, sizeof(path), "%s/%d", folder, sync);
        run_once(path, (rd_sync)sync);
    }
    CHECK(folder_remove(folder), "%s is not empty", folder);
    return 0;
}
