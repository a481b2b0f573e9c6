/* Verification: every stored payload is looked at, on all threads, and what fails is recovered around. */
#include "support.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define LARGE ((size_t)100000) /* opening leaves it unchecked */

static rd_verified verify_ok(rd_store *store, size_t threads)
{
    rd_verified verified = {.failed = 999};
    rd_err err = rd_store_verify(store, threads, NULL, NULL, &verified);
    EXPECT(err == RD_OK, "verify on %zu threads: %s", threads, rd_err_text(err));
    return verified;
}

/* Where a payload ends that store_put wrote, from the tail behind it. */
static uint64_t payload_end(rd_written done)
{
    return done.tail_off - 20;
}

/* "first", "big", "between", "big" again, "last"; synced. Says where the two big ones' trailers lie. */
static void make_store(void **state, uint64_t out_trailers[2])
{
    AUTO_BYTES big = bytes_xorshift(9, LARGE);
    rd_store *store = store_make(state, "s");
    store_put(store, "first", "value 1", 7);
    out_trailers[0] = payload_end(store_put(store, "big", big.data, big.len));
    store_put(store, "between", "value 2", 7);
    out_trailers[1] = payload_end(store_put(store, "big", big.data, big.len));
    store_put(store, "last", "value 3", 7);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
}

static void expect_small(rd_store *store)
{
    store_expect(store, rd_hash(text_span("first")), "value 1", 7);
    store_expect(store, rd_hash(text_span("between")), "value 2", 7);
    store_expect(store, rd_hash(text_span("last")), "value 3", 7);
}

static void every_entry_is_checked_however_many_threads(void **state)
{
    const size_t threads[] = {1, 2, 3, 64};
    rd_store *store = store_make(state, "s");
    rd_written done;
    assert_int_equal(verify_ok(store, 2).entries, 0); /* nothing yet */
    store_fill(store, 0, 20000);
    store_fill(store, 0, 5000);
    assert_int_equal(rd_store_delete(store, text_span("key-77"), &done), RD_OK);
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        rd_verified verified = verify_ok(store, threads[i]);
        assert_int_equal(verified.entries, 25001);
        assert_int_equal(verified.bytes, 25000 * 8 + 1);
        assert_int_equal(verified.failed, 0);
    }
    assert_int_equal(store_info(store).generation, 1);
    rd_store_close(store);
}

static void flipped_bit_in_a_superseded_value_is_found(void **state)
{
    uint64_t trailers[2];
    AUTO_BYTES big = bytes_xorshift(9, LARGE);
    make_store(state, trailers);
    file_poke(temp_path(state, "s"), trailers[0] - 5000, 0x01);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(store_info(store).damaged_ranges, 0);
    rd_verified verified = verify_ok(store, 2);
    assert_int_equal(verified.failed, 1);
    assert_int_equal(verified.entries, 5);
    rd_range ranges[4];
    assert_int_equal(rd_store_damage(store, ranges, 4), 1);
    assert_int_equal(ranges[0].key_hash, rd_hash(text_span("big")));
    assert_int_equal(ranges[0].offset + ranges[0].size, trailers[0] + 20);
    assert_int_equal(store_info(store).damaged_entries, 0); /* the newer one is whole */
    expect_small(store);
    store_expect(store, rd_hash(text_span("big")), big.data, big.len);
    verified = verify_ok(store, 2);
    assert_int_equal(verified.failed, 0); /* known by now */
    assert_int_equal(verified.entries, 4);
    rd_store_close(store);
}

static void flipped_bit_in_the_newest_value_makes_its_key_damaged(void **state)
{
    uint64_t trailers[2];
    rd_entry entry = {0};
    make_store(state, trailers);
    file_poke(temp_path(state, "s"), trailers[1] - 1, 0x80);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(rd_store_len(store), 4);
    assert_int_equal(verify_ok(store, 1).failed, 1);
    assert_int_equal(rd_store_len(store), 3);
    assert_int_equal(store_info(store).damaged_entries, 1);
    assert_int_equal(rd_store_read(store, text_span("big"), &entry), RD_E_DAMAGED);
    expect_small(store);
    rd_store_close(store);
}

/* A large value's link isn't proven until the value is checked: here it leads past its true neighbour. */
static void keys_that_an_unchecked_link_hid_are_found(void **state)
{
    uint64_t trailers[2];
    AUTO_BYTES big = bytes_xorshift(9, LARGE);
    make_store(state, trailers);
    AUTO_BYTES bytes = file_load(temp_path(state, "s"));
    uint64_t link = trailers[0] + 20; /* past "between" */
    memcpy(bytes.data + trailers[1] + 8, &link, sizeof link);
    file_save(temp_path(state, "s"), bytes.data, bytes.len);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    store_expect_absent(store, rd_hash(text_span("between")));
    assert_int_equal(verify_ok(store, 2).failed, 1);
    expect_small(store);
    store_expect(store, rd_hash(text_span("big")), big.data, big.len); /* its link alone is damaged */
    rd_store_close(store);
}

/* ---- Progress ---------------------------------------------------------------------------------------------------- */

struct watch {
    pthread_t thread;
    uint64_t bytes, entries, total;
    int calls;
    int cancel_at; /* 0: never */
    bool wrong;
};

static bool watch_progress(void *arg, uint64_t bytes_done, uint64_t bytes_total, uint64_t entries_done)
{
    struct watch *watch = arg;
    watch->wrong = watch->wrong || !pthread_equal(watch->thread, pthread_self()) || bytes_done < watch->bytes ||
                   entries_done < watch->entries || bytes_done > bytes_total;
    watch->bytes = bytes_done;
    watch->entries = entries_done;
    watch->total = bytes_total;
    return ++watch->calls != watch->cancel_at;
}

static void progress_comes_from_the_caller_and_ends_at_the_whole(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_verified verified;
    store_fill(store, 0, 50000);
    struct watch watch = {.thread = pthread_self()};
    assert_int_equal(rd_store_verify(store, 2, watch_progress, &watch, &verified), RD_OK);
    assert_false(watch.wrong);
    assert_true(watch.calls > 50000 / 4096);
    assert_int_equal(watch.bytes, store_info(store).tail_off);
    assert_int_equal(watch.total, watch.bytes);
    assert_int_equal(watch.entries, 50000);
    rd_store_close(store);
}

static void verification_can_be_cancelled_at_each_call(void **state)
{
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 30000);
    for (int at = 1; at <= 8; at++) {
        struct watch watch = {.thread = pthread_self(), .cancel_at = at};
        rd_verified verified = {.entries = 12345};
        assert_int_equal(rd_store_verify(store, 2, watch_progress, &watch, &verified), RD_E_CANCELLED);
        assert_int_equal(verified.entries, 12345);
    }
    assert_int_equal(verify_ok(store, 2).entries, 30000);
    rd_store_close(store);
}

static void file_that_was_cut_is_not_called_damaged(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_verified verified;
    store_fill(store, 0, 10);
    rd_store_info before = store_info(store);
    assert_int_equal(truncate(temp_path(state, "s"), (off_t)before.tail_off - 30), 0); /* inside the last page */
    assert_int_equal(rd_store_verify(store, 2, NULL, NULL, &verified), RD_E_TRUNCATED);
    assert_int_equal(store_info(store).damaged_ranges, 0);
    assert_int_equal(rd_store_len(store), 10);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(every_entry_is_checked_however_many_threads),
        TEMP_TEST(flipped_bit_in_a_superseded_value_is_found),
        TEMP_TEST(flipped_bit_in_the_newest_value_makes_its_key_damaged),
        TEMP_TEST(keys_that_an_unchecked_link_hid_are_found),
        TEMP_TEST(progress_comes_from_the_caller_and_ends_at_the_whole),
        TEMP_TEST(verification_can_be_cancelled_at_each_call),
        TEMP_TEST(file_that_was_cut_is_not_called_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
