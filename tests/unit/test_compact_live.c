/* Compaction while readers and writers go on. */
#include "compacting.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* ---- Readers and writers go on ----------------------------------------------------------------------------------- */

static void entries_and_iterators_of_before_stay_as_they_are(void **state)
{
    AUTO_BYTES want = {0};
    AUTO_BYTES large = bytes_xorshift(3, 100000);
    rd_store *store = make_mixed(state, &want);
    rd_entry entry = {0}, first = {0}, at = {0};
    rd_iter *iter = NULL;
    assert_int_equal(rd_store_read_hash(store, 2, &entry), RD_OK);
    assert_int_equal(rd_iter_create(store, &iter), RD_OK);
    assert_int_equal(rd_iter_next(iter, &first), RD_OK);
    assert_int_equal(first.meta.key_hash, UINT64_MAX);
    for (int round = 0; round < 3; round++) {
        put_hash(store, 2, text_span("newer"));
        remove_key(store, UINT64_MAX);
        compact_ok(store);
        put_hash(store, UINT64_MAX, text_span("again"));
    }
    assert_true(span_equal(entry.payload, large.data, large.len));
    assert_true(span_equal(first.payload, "last", 4));
    uint64_t count = 1;
    for (; rd_iter_next(iter, &at) == RD_OK; count++)
        EXPECT(at.meta.key_hash != 2 || span_equal(at.payload, large.data, large.len), "the value of then");
    assert_int_equal(count, 253);
    rd_iter_destroy(iter);
    rd_entry_release(&entry);
    store_expect(store, 2, "newer", 5);
    rd_store_close(store);
}

/* What progress does in the middle of a compaction: as writers would, at a moment that is known. */
struct meanwhile {
    rd_store *store;
    int calls;
    struct bytes large;
};

static bool write_meanwhile(void *arg, const rd_compact_progress *progress)
{
    struct meanwhile *meanwhile = arg;
    EXPECT(progress->entries_done <= progress->entries_total, "%" PRIu64, progress->entries_done);
    if (meanwhile->calls++ != 2) /* the third: what was live is copied, nothing else is */
        return true;
    put_hash(meanwhile->store, fill_hash(7), text_span("written meanwhile"));
    put_hash(meanwhile->store, fill_hash(9), text_span("written"));
    remove_key(meanwhile->store, fill_hash(9));
    remove_key(meanwhile->store, fill_hash(11));
    put_hash(meanwhile->store, fill_hash(11), text_span("back again"));
    for (int i = 0; i < 4; i++) /* more than is copied while writers are held */
        put_hash(meanwhile->store, 2, bytes_span(&meanwhile->large));
    store_fill(meanwhile->store, 5000, 3000);
    return true;
}

static void what_is_written_meanwhile_is_kept(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    struct meanwhile meanwhile = {.store = store, .large = bytes_xorshift(8, 1 << 20)};
    const rd_compact_options options = {.progress = write_meanwhile, .arg = &meanwhile};
    rd_compacted done;
    rd_fault fault;
    assert_int_equal(rd_store_compact(store, &options, &fault, &done), RD_OK);
    assert_true(meanwhile.calls > 3);
    for (int pass = 0; pass < 2; pass++) {
        store_expect(store, fill_hash(7), "written meanwhile", 17);
        store_expect_absent(store, fill_hash(9));
        store_expect(store, fill_hash(11), "back again", 10);
        store_expect(store, 2, meanwhile.large.data, meanwhile.large.len);
        uint64_t value = htole64(7999);
        store_expect(store, fill_hash(7999), &value, sizeof value);
        assert_int_equal(rd_store_len(store), 253 - 1 + 3000);
        assert_int_equal(store_info(store).entries, 253 + 9 + 3000);
        assert_int_equal(store_info(store).tail_off, done.bytes_written);
        assert_int_equal(done.entries, 253 + 9 + 3000);
        assert_int_equal(done.bytes_reclaimed, 0); /* it grew meanwhile */
        rd_store_info info = store_info(store);
        rd_store_close(store);
        store = store_open_ok(temp_path(state, "s"), &open_reading);
        assert_int_equal(store_info(store).live_bytes, info.live_bytes); /* counted as opening counts */
        assert_int_equal(store_info(store).reclaimable_bytes, info.reclaimable_bytes);
    }
    bytes_free(&meanwhile.large);
    rd_store_close(store);
}

enum { WRITERS = 2, READERS = 2, KEYS = 16, BATCHES = 300, COMPACTIONS = 8 };

struct crowd {
    rd_store *store;
    uint64_t number; /* of the thread */
    atomic_int *writing;
    atomic_uint *batches;
    const char *wrong; /* NULL: all was well */
};

/* A writer's keys change together, in one batch: all have the same value, or each is deleted. */
static void *crowd_write(void *arg)
{
    struct crowd *crowd = arg;
    for (uint64_t round = 1; round <= BATCHES && crowd->wrong == NULL; round++) {
        rd_write_item items[KEYS];
        uint64_t hashes[KEYS];
        uint64_t value[64] = {round};
        rd_written done;
        for (uint64_t i = 0; i < KEYS; i++) {
            hashes[i] = crowd->number * 1000 + i;
            items[i] = (rd_write_item){hashes[i], {value, 8 * (1 + round % 64)}};
        }
        if (round % 10 == 0 && rd_store_batch_delete(crowd->store, hashes, KEYS, &done) != RD_OK)
            crowd->wrong = "a delete failed";
        if (round % 10 != 0 && rd_store_batch_write(crowd->store, items, KEYS, &done) != RD_OK)
            crowd->wrong = "a write failed";
        atomic_fetch_add(crowd->batches, 1);
    }
    atomic_fetch_sub(crowd->writing, 1);
    return NULL;
}

static const char *judge_items(const rd_batch_item *items, uint64_t *seen)
{
    uint64_t round = 0;
    for (size_t i = 0; i < KEYS; i++) {
        if (items[i].err != items[0].err)
            return "a batch in part";
        if (items[i].err == RD_ABSENT)
            continue;
        if (items[i].err != RD_OK)
            return rd_err_text(items[i].err);
        memcpy(&round, items[i].entry.payload.data, sizeof round);
        if (items[i].entry.payload.len != 8 * (1 + round % 64))
            return "a payload of another length";
        if (memcmp(items[i].entry.payload.data, items[0].entry.payload.data, 8) != 0)
            return "two batches at once";
    }
    if (items[0].err == RD_OK && round < *seen)
        return "an older value than was seen before";
    *seen = items[0].err == RD_OK ? round : *seen;
    return NULL;
}

static void *crowd_read(void *arg)
{
    struct crowd *crowd = arg;
    uint64_t seen[WRITERS] = {0};
    while (atomic_load(crowd->writing) > 0 && crowd->wrong == NULL) {
        for (uint64_t writer = 0; writer < WRITERS && crowd->wrong == NULL; writer++) {
            uint64_t hashes[KEYS];
            rd_batch_item items[KEYS];
            for (uint64_t i = 0; i < KEYS; i++)
                hashes[i] = writer * 1000 + i;
            if (rd_store_batch_read_hashed(crowd->store, hashes, NULL, KEYS, items) != RD_OK)
                crowd->wrong = "no memory";
            else
                crowd->wrong = judge_items(items, &seen[writer]);
            for (size_t i = 0; i < KEYS && (crowd->wrong == NULL || items[i].err == RD_OK); i++)
                rd_entry_release(&items[i].entry);
        }
    }
    return NULL;
}

/* E-08 */
static void readers_and_writers_see_nothing_of_compactions(void **state)
{
    rd_store *store = store_make(state, "s");
    atomic_int writing = WRITERS;
    atomic_uint batches = 0;
    pthread_t threads[WRITERS + READERS];
    struct crowd crowd[WRITERS + READERS];
    store_fill(store, 0, 1000);
    for (uint64_t i = 0; i < WRITERS + READERS; i++) {
        crowd[i] = (struct crowd){.store = store, .number = i, .writing = &writing, .batches = &batches};
        assert_int_equal(pthread_create(&threads[i], NULL, i < WRITERS ? crowd_write : crowd_read, &crowd[i]), 0);
    }
    int compactions = 0;
    while (atomic_load(&writing) > 0 || compactions < COMPACTIONS) {
        compact_ok(store);
        compactions++;
    }
    for (size_t i = 0; i < WRITERS + READERS; i++) {
        pthread_join(threads[i], NULL);
        EXPECT(crowd[i].wrong == NULL, "thread %zu: %s", i, crowd[i].wrong);
    }
    uint64_t tail = store_info(store).tail_off;
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(rd_store_len(store), 1000); /* the last round of each writer deleted */
        store_expect_absent(store, 1003);
        uint64_t value = htole64(999);
        store_expect(store, fill_hash(999), &value, sizeof value);
        rd_store_close(store);
        assert_int_equal(file_len(temp_path(state, "s")), tail);
        store = store_open_ok(temp_path(state, "s"), &open_reading);
        assert_int_equal(store_info(store).damaged_ranges, 0);
    }
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(entries_and_iterators_of_before_stay_as_they_are),
        TEMP_TEST(what_is_written_meanwhile_is_kept),
        TEMP_TEST(readers_and_writers_see_nothing_of_compactions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
