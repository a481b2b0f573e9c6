/*
 * Any bytes at all as a store. Opening answers in bounded time with a store or
 * with a refusal; nothing whose checksum fails is served; reading changes no
 * byte; recovery on threads finds what it finds alone; what is written into such a file is there afterwards, and what
 * was served before still is.
 */
#include "../model/image.h"
#include "scratch.h"
#include "threads.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

#define NEW_HASH UINT64_C(0x6e65772076616c75)

/* What a store serves: each key once. */
struct served {
    uint64_t hash;
    rd_err err;
    uint32_t crc;
    size_t len;
};
struct served_list {
    struct served *list;
    size_t count;
};

static void take_entry(rd_store *store, struct served_list *served, rd_err err, const rd_entry *got, size_t max)
{
    uint64_t hash = got->meta.key_hash;
    rd_entry read = {0};
    uint32_t crc = err == RD_OK ? image_crc(got->payload.data, got->payload.len) : 0;
    REQUIRE(err == RD_OK || err == RD_E_DAMAGED, "iteration: %s", rd_err_text(err));
    REQUIRE(err != RD_OK || (got->payload.len > 0 && !got->meta.tombstone), "%016" PRIx64 " has no payload", hash);
    REQUIRE(err != RD_OK || crc == got->meta.checksum, "%016" PRIx64 " fails its checksum", hash);
    rd_err single = rd_store_read_hash(store, hash, &read);
    REQUIRE(single == err, "%016" PRIx64 " is iterated as '%s' and read as '%s'", hash, rd_err_text(err),
            rd_err_text(single));
    REQUIRE(err != RD_OK || scratch_equal(read.payload, got->payload), "%016" PRIx64 " is read differently", hash);
    rd_entry_release(&read);
    REQUIRE(served->count < max, "iteration does not end");
    served->list[served->count++] = (struct served){hash, err, crc, got->payload.len};
}

static int by_hash(const void *left, const void *right)
{
    const struct served *a = left, *b = right;
    return (a->hash > b->hash) - (a->hash < b->hash);
}

static void check_damage(rd_store *store, const rd_store_info *info)
{
    rd_range ranges[RD_DAMAGE_LISTED_MAX];
    size_t count = rd_store_damage(store, ranges, RD_DAMAGE_LISTED_MAX);
    uint64_t above = info->file_size;
    REQUIRE(count == info->damaged_ranges || (count == RD_DAMAGE_LISTED_MAX && info->damaged_ranges > count),
            "%zu ranges are listed, %" PRIu64 " counted", count, info->damaged_ranges);
    REQUIRE(info->unidentified_ranges <= info->damaged_ranges, "more ranges hide keys than there are");
    for (size_t i = 0; i < count; i++) {
        REQUIRE(ranges[i].kind < RD_DAMAGE_KINDS && ranges[i].what == rd_damage_text(ranges[i].kind), "range %zu", i);
        REQUIRE(ranges[i].size > 0 && ranges[i].offset <= above && ranges[i].size <= above - ranges[i].offset,
                "range %zu, at %" PRIu64 ", is not below the one before it", i, ranges[i].offset);
        above = ranges[i].offset;
    }
}

/* Read everything. */
static struct served_list read_all(rd_store *store)
{
    rd_store_info info;
    rd_iter *iter = NULL;
    rd_entry got = {0};
    uint64_t live = 0, bytes = 0;
    REQUIRE(rd_store_info_get(store, &info) == RD_OK && rd_iter_create(store, &iter) == RD_OK, "no info");
    size_t max = (size_t)info.file_size / 21 + 1;
    struct served_list served = {.list = malloc(max * sizeof(struct served))};
    REQUIRE(served.list != NULL, "no memory");
    for (rd_err err = rd_iter_next(iter, &got); err != RD_ABSENT; err = rd_iter_next(iter, &got)) {
        take_entry(store, &served, err, &got, max);
        live += err == RD_OK;
        bytes += err == RD_OK ? got.payload.len : 0;
    }
    rd_iter_destroy(iter);
    qsort(served.list, served.count, sizeof(*served.list), by_hash);
    for (size_t i = 1; i < served.count; i++)
        REQUIRE(served.list[i].hash != served.list[i - 1].hash, "%016" PRIx64 " comes twice", served.list[i].hash);
    REQUIRE(live == info.live_keys && bytes == info.live_bytes, "the counts of live keys or bytes are wrong");
    REQUIRE(served.count - live == info.damaged_entries, "%zu damaged keys are iterated, %" PRIu64 " counted",
            served.count - (size_t)live, info.damaged_entries);
    REQUIRE(rd_store_len(store) == live && rd_store_is_empty(store) == (live == 0), "len and is_empty");
    REQUIRE(info.tail_off <= info.file_size, "the tail lies behind the file");
    check_damage(store, &info);
    rd_err err = rd_store_read_last(store, &got);
    REQUIRE(err == RD_OK || err == RD_ABSENT || err == RD_E_DAMAGED, "read_last: %s", rd_err_text(err));
    if (err == RD_OK)
        REQUIRE(got.meta.tombstone || image_crc(got.payload.data, got.payload.len) == got.meta.checksum,
                "the last entry fails its checksum");
    rd_entry_release(&got);
    return served;
}

static bool is_refusal(rd_err err)
{
    return err == RD_E_NOT_STORE || err == RD_E_ALIGNMENT;
}

static rd_store *open_checked(const char *path, const rd_open_options *options)
{
    rd_store *store = NULL;
    rd_fault fault;
    rd_err err = rd_store_open(path, options, &fault, &store);
    REQUIRE(err == RD_OK, "%s", fault.text);
    return store;
}

/* Whether damage ends where the file did: what was written behind it proves
   that something ends there, and all below is judged anew. */
static bool is_end_damaged(rd_store *store, const rd_store_info *info)
{
    rd_range range;
    return rd_store_damage(store, &range, 1) == 1 && range.offset + range.size == info->tail_off;
}

static size_t next_of_old(const struct served_list *served, size_t i)
{
    while (i < served->count && served->list[i].hash == NEW_HASH)
        i++;
    return i;
}

/* Every key but the new one is answered as in `before`. */
static void expect_same(const struct served_list *before, const struct served_list *after)
{
    size_t k = next_of_old(before, 0), i = next_of_old(after, 0);
    for (; k < before->count && i < after->count; k = next_of_old(before, k + 1), i = next_of_old(after, i + 1)) {
        const struct served *was = &before->list[k], *is = &after->list[i];
        REQUIRE(was->hash == is->hash, "%016" PRIx64 " or %016" PRIx64 " came or went with a write to another key",
                was->hash, is->hash);
        REQUIRE(was->err == is->err && is->crc == was->crc && is->len == was->len,
                "%016" PRIx64 " changed with a write to another key", is->hash);
    }
    REQUIRE(k == before->count && i == after->count, "a key came or went with a write to another key");
}

static void expect_torn_saved(rd_span bytes, const rd_store_info *info)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "s.torn-%" PRIu64, info->tail_off);
    if (info->unread_bytes == 0)
        return;
    REQUIRE(scratch_has(name), "the torn tail was not saved as %s", name);
    rd_span saved = scratch_load(scratch_path(name));
    rd_span cut = {(const uint8_t *)bytes.data + info->tail_off, bytes.len - (size_t)info->tail_off};
    REQUIRE(scratch_equal(saved, cut), "%s does not hold what was cut", name);
    free((void *)(uintptr_t)saved.data);
}

static void write_into(const char *path, rd_span bytes, const struct served_list *before, const rd_store_info *info,
                       bool end_damaged)
{
    const rd_open_options writing = {.writable = true, .sync = RD_SYNC_NONE};
    const rd_open_options reading = {.verify = RD_VERIFY_FIRST};
    rd_written written;
    rd_entry got = {0};
    rd_store *store = open_checked(path, &writing);
    expect_torn_saved(bytes, info);
    REQUIRE(rd_store_write_hash(store, NEW_HASH, (rd_span){"new value", 9}, &written) == RD_OK, "a write fails");
    REQUIRE(rd_store_sync(store) == RD_OK, "a sync fails");
    rd_store_close(store);
    store = open_checked(path, &reading);
    REQUIRE(rd_store_read_hash(store, NEW_HASH, &got) == RD_OK && scratch_equal(got.payload, (rd_span){"new value", 9}),
            "what was written is gone");
    rd_entry_release(&got);
    struct served_list after = read_all(store);
    if (!end_damaged)
        expect_same(before, &after);
    free(after.list);
    rd_store_close(store);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    scratch_open();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const rd_open_options reading = {.verify = (rd_verify)(size % 3)};
    const char *path = scratch_path("s");
    rd_store *store = NULL;
    rd_fault fault;
    rd_store_info info;
    threads_check((rd_span){data, size});
    scratch_clear();
    scratch_save(path, (rd_span){data, size});
    rd_err err = rd_store_open(path, &reading, &fault, &store);
    REQUIRE(err == RD_OK || (size > 0 && is_refusal(err)), "opening: %s", fault.text);
    struct served_list served = {0};
    bool end_damaged = false;
    if (err == RD_OK) {
        rd_verified verified;
        free(read_all(store).list);
        REQUIRE(rd_store_info_get(store, &info) == RD_OK, "no info");
        if (size % 4 == 0) /* its threads are what takes longest */
            REQUIRE(rd_store_verify(store, 1 + size / 4 % 2, NULL, NULL, &verified) == RD_OK &&
                        verified.entries <= info.entries && verified.failed == 0,
                    "verify finds in so small a file what opening did not");
        served = read_all(store);
        end_damaged = is_end_damaged(store, &info);
        rd_store_close(store);
    }
    rd_span left = scratch_load(path);
    REQUIRE(scratch_equal(left, (rd_span){data, size}), "reading changed the file");
    free((void *)(uintptr_t)left.data);
    if (err == RD_OK)
        write_into(path, (rd_span){data, size}, &served, &info, end_damaged);
    free(served.list);
    return 0;
}

/* Beside libFuzzer's own changes: make an entry hold somewhere, which no blind
 * change ever would. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, max_size);
    if (seed % 2 == 0 || size <= IMAGE_TRAILER + 1)
        return size;
    uint64_t state = seed | UINT64_C(1) << 32;
    for (unsigned rounds = seed % 3 + 1; rounds > 0; rounds--) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        bool at_end = (state >> 33) % 4 == 0;
        size_t trailer_off = at_end ? size - IMAGE_TRAILER : 1 + (size_t)(state >> 40) % (size - IMAGE_TRAILER);
        uint8_t *trailer = data + trailer_off;
        uint64_t link = image_le64(trailer + 8);
        if (link >= trailer_off || (state >> 35) % 4 == 0)
            link = (state >> 20) % trailer_off;
        size_t start_off = (size_t)link + -(size_t)link % 64;
        if (start_off >= trailer_off)
            start_off = (size_t)link; /* not an entry, unless it is a tombstone's byte */
        uint32_t crc = image_crc(data + start_off, trailer_off - start_off);
        for (int i = 0; i < 8; i++)
            trailer[8 + i] = (uint8_t)(link >> 8 * i);
        for (int i = 0; i < 4; i++)
            trailer[16 + i] = (uint8_t)(crc >> 8 * i);
    }
    return size;
}
