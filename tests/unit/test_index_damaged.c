/* I-13: what was damaged since the snapshot index was made is found when it is read, and recovered around. */
#include "indexing.h"

#include <sched.h>
#include <time.h>
#include <unistd.h>

#define WAIT_S 60

static void wait_generation(rd_store *store, uint64_t generation)
{
    time_t until = time(NULL) + WAIT_S;
    while (store_info(store).generation < generation) {
        EXPECT(time(NULL) < until, "no late recovery");
        sched_yield();
    }
}

static void expect_damaged(rd_store *store, const char *key)
{
    rd_entry entry = {0};
    EXPECT(rd_store_read(store, text_span(key), &entry) == RD_E_DAMAGED, "%s", key);
}

/* Where the newest entry of a key ends. */
static uint64_t end_of(void **state, const char *key)
{
    rd_entry entry = {0};
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_recovering);
    EXPECT(rd_store_read(store, text_span(key), &entry) == RD_OK, "%s", key);
    uint64_t start = (entry.meta.prev_off + 63) / 64 * 64;
    uint64_t end = start + entry.payload.len + 20;
    rd_entry_release(&entry);
    rd_store_close(store);
    return end;
}

/* With so many entries that most are no marks. */
static void make_longer(void **state)
{
    indexed_make(state);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_writing);
    store_fill(store, 1000, 3000);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
}

/* Harm one byte behind the index's back. Returns: the store opened by it, which has found out by reading `key`, and has
   recovered. */
static rd_store *harm_and_read(void **state, const char *key, uint64_t back, uint8_t flip)
{
    make_longer(state);
    uint64_t end = end_of(state, key);
    index_ok(state, "s");
    file_poke(temp_path(state, "s"), end - back, flip);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(store_info(store).index_source, RD_INDEX_SNAPSHOT);
    expect_damaged(store, key);
    wait_generation(store, 2);
    return store;
}

/* As a store that is recovered now. */
static void expect_as_recovered(void **state, rd_store *store, const char *what)
{
    unlink(temp_path(state, "s.idx"));
    rd_store *recovered = store_open_ok(temp_path(state, "s"), &open_recovering);
    rd_store_info a = store_info(store);
    rd_store_info b = store_info(recovered);
    EXPECT(a.live_keys == b.live_keys && a.entries == b.entries && a.live_bytes == b.live_bytes &&
               a.damaged_entries == b.damaged_entries && a.damaged_ranges == b.damaged_ranges &&
               a.reclaimable_bytes == b.reclaimable_bytes,
           "%s", what);
    rd_store_close(recovered);
    rd_store_close(store);
}

static void a_payload_that_was_damaged_since_is_found_at_its_first_read(void **state)
{
    rd_store *store = harm_and_read(state, "key-8", 21, 1);
    assert_int_equal(store_info(store).damaged_entries, 1);
    expect_damaged(store, "key-8");
    store_expect(store, rd_hash(text_span("first")), "for ever", 8);
    expect_as_recovered(state, store, "a payload");
}

static void a_link_that_was_damaged_since_is_mended(void **state)
{
    rd_store *store = harm_and_read(state, "key-8", 12, 0x40);
    uint64_t value = 8;
    store_expect(store, fill_hash(8), &value, sizeof value);
    assert_int_equal(store_info(store).damaged_ranges, 1);
    expect_as_recovered(state, store, "a link");
    store = harm_and_read(state, "key-8", 6, 0x40); /* far beyond the file */
    store_expect(store, fill_hash(8), &value, sizeof value);
    expect_as_recovered(state, store, "a link that leads out of the file");
}

static void a_hash_that_was_damaged_since_is_not_taken_for_anothers(void **state)
{
    rd_store *store = harm_and_read(state, "key-8", 20, 1);
    expect_as_recovered(state, store, "a hash");
}

static void iteration_finds_out_too(void **state)
{
    rd_iter *iter = NULL;
    rd_entry entry;
    rd_err err = RD_OK;
    size_t failed = 0;
    make_longer(state);
    uint64_t end = end_of(state, "key-19");
    index_ok(state, "s");
    file_poke(temp_path(state, "s"), end - 6, 0x40);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(store_info(store).index_source, RD_INDEX_SNAPSHOT);
    assert_int_equal(rd_iter_create(store, &iter), RD_OK);
    while (err != RD_ABSENT) {
        err = rd_iter_next(iter, &entry);
        failed += err == RD_E_DAMAGED;
    }
    rd_iter_destroy(iter);
    assert_int_equal(failed, 1);
    wait_generation(store, 2);
    expect_as_recovered(state, store, "iterated");
}

/* Nobody reads what is superseded; but its link, if it leads to an entry further down, hides all that it passes. */
static void iteration_notices_keys_that_a_superseded_link_hides(void **state)
{
    rd_iter *iter = NULL;
    rd_entry entry;
    rd_err err = RD_OK;
    size_t failed = 0;
    make_longer(state);
    uint64_t end = end_of(state, "key-2000");
    uint64_t link = end - 64; /* where the one before ends: all of these are of one size */
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_writing);
    store_put(store, "key-2000", "newer", 5);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    index_ok(state, "s");
    uint8_t second = (uint8_t)(link >> 8);
    file_poke(temp_path(state, "s"), end - 11,
              (uint8_t)(second & (0u - second))); /* a bit that is set: down by 256 bytes, or more */
    store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(store_info(store).index_source, RD_INDEX_SNAPSHOT);
    assert_int_equal(rd_iter_create(store, &iter), RD_OK);
    while (err != RD_ABSENT) {
        err = rd_iter_next(iter, &entry);
        failed += err == RD_E_DAMAGED;
    }
    rd_iter_destroy(iter);
    assert_int_equal(failed, 1);
    wait_generation(store, 2);
    expect_as_recovered(state, store, "iterated");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(a_payload_that_was_damaged_since_is_found_at_its_first_read),
        TEMP_TEST(a_link_that_was_damaged_since_is_mended),
        TEMP_TEST(a_hash_that_was_damaged_since_is_not_taken_for_anothers),
        TEMP_TEST(iteration_finds_out_too),
        TEMP_TEST(iteration_notices_keys_that_a_superseded_link_hides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
