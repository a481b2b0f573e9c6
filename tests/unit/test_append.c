/* Appends that fail or meet somebody else's bytes, and the figures that writing keeps. */
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const rd_open_options open_always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};

static uint64_t hash_of(const char *key)
{
    return rd_hash(text_span(key));
}

/* ---- Failing appends -------------------------------------------------------------------------------------------- */

#define BATCH 40

/* A batch that takes several writes: small entries gathered, large payloads from where they are. */
static rd_err write_batch(rd_store *store, const struct bytes *big)
{
    rd_write_item items[BATCH];
    rd_written done;
    for (uint64_t i = 0; i < BATCH; i++)
        items[i] = (rd_write_item){100 + i, {big->data, i % 8 == 3 ? big->len : 60000}};
    return rd_store_batch_write(store, items, BATCH, &done);
}

static void each_failing_append_is_cut_back_and_the_store_goes_on(void **state)
{
    const struct {
        int error;
        rd_err err;
    } cases[] = {{ENOSPC, RD_E_NO_SPACE}, {EDQUOT, RD_E_NO_SPACE}, {EFBIG, RD_E_NO_SPACE}, {EIO, RD_E_IO}};
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(70, 100000);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        faults_clear();
        rd_store *store = store_make(state, "s");
        store_put(store, "k", "value", 5);
        AUTO_BYTES before = file_load(path);
        size_t nth = 1;
        for (;; nth++) {
            faults_clear();
            faults_fail(CALL_PWRITEV, nth, cases[c].error);
            rd_err err = write_batch(store, &big);
            if (faults_count(CALL_PWRITEV) < nth)
                break;
            EXPECT(err == cases[c].err, "the %zuth: %s", nth, rd_err_text(err));
            file_expect(path, before.data, before.len, "after a failed batch");
            assert_int_equal(rd_store_len(store), 1);
            assert_int_equal(store_info(store).entries, 1);
        }
        assert_true(nth > 5);
        assert_int_equal(rd_store_len(store), 1 + BATCH);
        store_expect(store, 103, big.data, big.len);
        rd_store_close(store);
        store = store_open_ok(path, &open_reading);
        assert_int_equal(rd_store_len(store), 1 + BATCH);
        rd_store_close(store);
        file_save(path, "", 0);
    }
}

static void short_and_interrupted_writes_are_gone_on_with(void **state)
{
    AUTO_BYTES big = bytes_xorshift(71, 70001);
    rd_store *store = store_make(state, "whole");
    assert_int_equal(write_batch(store, &big), RD_OK);
    rd_store_close(store);
    AUTO_BYTES want = file_load(temp_path(state, "whole"));
    store = store_make(state, "s");
    faults_short_writes(9973);
    assert_int_equal(write_batch(store, &big), RD_OK);
    rd_store_close(store);
    file_expect(temp_path(state, "s"), want.data, want.len, "written in short steps");
}

static void where_even_the_cut_fails_writing_ends_and_reopening_mends(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(72, 100000);
    rd_written done;
    rd_store *store = store_make(state, "s");
    uint64_t tail = store_put(store, "k", "value", 5).tail_off;
    faults_clear();
    faults_fail(CALL_PWRITEV, 3, ENOSPC);
    faults_fail(CALL_FTRUNCATE, 1, EIO);
    assert_int_equal(write_batch(store, &big), RD_E_NO_SPACE);
    assert_true(file_len(path) > tail);
    assert_int_equal(store_info(store).tail_off, tail);
    assert_int_equal(rd_store_write(store, text_span("k"), text_span("more"), &done), RD_E_ENDED);
    assert_int_equal(rd_store_sync(store), RD_E_ENDED);
    store_expect(store, hash_of("k"), "value", 5);
    rd_store_close(store);
    store = store_open_ok(path, &open_writing);
    store_expect(store, hash_of("k"), "value", 5);
    store_put(store, "k", "goes on", 7);
    rd_store_close(store);
    store = store_open_ok(path, &open_reading);
    store_expect(store, hash_of("k"), "goes on", 7);
    rd_store_close(store);
}

/* A power cut may keep what reached the file and lose the cut; no mode of syncs is to serve what was refused. */
static void what_was_cut_back_is_gone_for_good(void **state)
{
    static const rd_sync modes[] = {RD_SYNC_ALWAYS, RD_SYNC_INTERVAL, RD_SYNC_NONE};
    AUTO_BYTES big = bytes_xorshift(75, 3 << 20);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        rd_written done;
        const rd_open_options options = {
            .writable = true, .create = true, .sync = modes[i], .sync_interval_ms = 1000000};
        rd_store *store = store_open_ok(temp_path(state, "s"), &options);
        store_put(store, "k", "value", 5);
        const rd_write_item items[] = {{hash_of("k"), {"newer", 5}}, {hash_of("l"), {big.data, big.len}}};
        for (int sync_fails = 0; sync_fails < 2; sync_fails++) {
            faults_clear();
            faults_fail(CALL_PWRITEV, 2, ENOSPC);
            if (sync_fails)
                faults_fail(CALL_FDATASYNC, 1, EIO);
            assert_int_equal(rd_store_batch_write(store, items, 2, &done), RD_E_NO_SPACE);
            assert_string_equal(faults_log(), "pwritev s\npwritev s\nftruncate s\nfdatasync s\n");
            store_expect(store, hash_of("k"), "value", 5);
            assert_int_equal(rd_store_write(store, text_span("m"), text_span("more"), &done),
                             sync_fails ? RD_E_ENDED : RD_OK);
        }
        rd_store_close(store);
        assert_int_equal(remove(temp_path(state, "s")), 0);
    }
}

/* ---- A file that changes behind our back ------------------------------------------------------------------------ */

static void foreign_bytes_are_neither_overwritten_nor_cut(void **state)
{
    const rd_open_options *modes[] = {&open_making, &open_always};
    const char *path = temp_path(state, "s");
    for (size_t i = 0; i < 2; i++) {
        rd_written done;
        rd_store *store = store_open_ok(path, modes[i]);
        store_put(store, "k", "value", 5);
        AUTO_BYTES bytes = file_load(path);
        build_entry(&bytes, 7, text_span("of another writer"), 64);
        file_save(path, bytes.data, bytes.len);
        for (int round = 0; round < 2; round++)
            assert_int_equal(rd_store_write(store, text_span("k"), text_span("more"), &done), RD_E_ENDED);
        assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_E_ENDED);
        store_expect(store, hash_of("k"), "value", 5);
        rd_store_close(store);
        file_expect(path, bytes.data, bytes.len, "the other's bytes");
        store = store_open_ok(path, modes[i]);
        store_expect(store, 7, "of another writer", 17);
        store_put(store, "k", "more", 4);
        rd_store_close(store);
        file_save(path, "", 0);
    }
}

static void nothing_is_durable_in_a_file_without_a_name(void **state)
{
    const rd_open_options *modes[] = {&open_making, &open_always};
    const char *path = temp_path(state, "s");
    for (size_t i = 0; i < 2; i++) {
        rd_written done;
        rd_store *store = store_open_ok(path, modes[i]);
        store_put(store, "k", "value", 5);
        assert_int_equal(unlink(path), 0);
        if (modes[i] == &open_always) {
            assert_int_equal(rd_store_write(store, text_span("k"), text_span("more"), &done), RD_E_ENDED);
        } else {
            assert_int_equal(rd_store_write(store, text_span("k"), text_span("more"), &done), RD_OK);
            assert_false(done.durable);
            assert_int_equal(rd_store_sync(store), RD_E_ENDED);
        }
        assert_int_equal(rd_store_write(store, text_span("k"), text_span("again"), &done), RD_E_ENDED);
        rd_store_close(store);
    }
}

static void a_file_that_was_cut_is_not_written_to(void **state)
{
    const char *path = temp_path(state, "s");
    rd_written done;
    rd_store *store = store_make(state, "s");
    store_put(store, "first", "1", 1);
    store_put(store, "k", "value", 5);
    AUTO_BYTES bytes = file_load(path);
    assert_int_equal(truncate(path, 30), 0);
    for (int round = 0; round < 2; round++)
        assert_int_equal(rd_store_write(store, text_span("k"), text_span("more"), &done), RD_E_TRUNCATED);
    assert_int_equal(file_len(path), 30);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, bytes.data, bytes.len, 0), bytes.len); /* put back as it was, it is written again */
    close(fd);
    store_put(store, "k", "more", 4);
    store_expect(store, hash_of("k"), "more", 4);
    rd_store_close(store);
}

/* ---- Figures ---------------------------------------------------------------------------------------------------- */

/* What writing has counted is what opening counts. */
static void expect_figures_as_opened(void **state, rd_store *store)
{
    rd_store_info kept = store_info(store);
    rd_store *reader = store_open_ok(temp_path(state, "s"), &open_reading);
    rd_store_info found = store_info(reader);
    rd_store_close(reader);
    assert_int_equal(kept.live_keys, found.live_keys);
    assert_int_equal(kept.entries, found.entries);
    assert_int_equal(kept.live_bytes, found.live_bytes);
    assert_int_equal(kept.reclaimable_bytes, found.reclaimable_bytes);
    assert_int_equal(kept.damaged_entries, found.damaged_entries);
    assert_int_equal(kept.tail_off, found.tail_off);
}

static void figures_stay_what_opening_would_find(void **state)
{
    AUTO_BYTES big = bytes_xorshift(73, 100000);
    uint64_t rolled = 88172645463325252u;
    rd_store *store = store_make(state, "s");
    for (size_t i = 0; i < 600; i++) {
        rd_written done;
        rolled ^= rolled << 13;
        rolled ^= rolled >> 7;
        rolled ^= rolled << 17;
        uint64_t keys[2] = {rolled % 20, rolled / 32 % 20};
        rd_span value = {big.data, 2 + (size_t)(rolled / 1024 % 300) * (rolled % 31 == 0 ? 300 : 1)};
        rd_err err = RD_OK;
        switch (rolled / 1000003 % 5) {
        case 0: err = rd_store_batch_delete(store, keys, 2, &done); break;
        case 1: err = rd_store_rename_hash(store, keys[0], keys[1], &done); break;
        default: err = rd_store_write_hash(store, keys[0], value, &done); break;
        }
        EXPECT(err == RD_OK || err == RD_ABSENT || err == RD_E_INVALID, "step %zu: %s", i, rd_err_text(err));
        if (i % 50 == 0)
            expect_figures_as_opened(state, store);
    }
    expect_figures_as_opened(state, store);
    rd_store_close(store);
}

static void damage_that_is_written_over_counts_no_more(void **state)
{
    const char *path = temp_path(state, "s");
    rd_written done;
    rd_store *store = store_make(state, "s");
    store_put(store, "first", "1", 1);
    uint64_t tail = store_put(store, "a", "value of a", 10).tail_off;
    store_put(store, "b", "value of b", 10);
    store_put(store, "last", "1", 1);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    file_poke(path, tail - 25, 1);
    file_poke(path, tail + 64 - tail % 64, 1);
    store = store_open_ok(path, &open_writing);
    assert_int_equal(store_info(store).damaged_entries, 2);
    assert_int_equal(rd_store_len(store), 2);
    assert_int_equal(rd_store_exists(store, text_span("a")), RD_E_DAMAGED);
    assert_int_equal(rd_store_rename(store, text_span("a"), text_span("c"), &done), RD_E_DAMAGED);
    store_put(store, "a", "healed", 6);
    assert_int_equal(rd_store_delete(store, text_span("b"), &done), RD_OK); /* F-14: what it had is gone too */
    assert_int_equal(done.deleted_count, 1);
    assert_int_equal(store_info(store).damaged_entries, 0);
    assert_int_equal(rd_store_len(store), 3);
    store_expect(store, hash_of("a"), "healed", 6);
    store_expect_absent(store, hash_of("b"));
    expect_figures_as_opened(state, store);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(each_failing_append_is_cut_back_and_the_store_goes_on),
        FAULT_TEST(short_and_interrupted_writes_are_gone_on_with),
        FAULT_TEST(where_even_the_cut_fails_writing_ends_and_reopening_mends),
        FAULT_TEST(what_was_cut_back_is_gone_for_good),
        FAULT_TEST(foreign_bytes_are_neither_overwritten_nor_cut),
        FAULT_TEST(nothing_is_durable_in_a_file_without_a_name),
        FAULT_TEST(a_file_that_was_cut_is_not_written_to),
        FAULT_TEST(figures_stay_what_opening_would_find),
        FAULT_TEST(damage_that_is_written_over_counts_no_more),
    };
    return cmocka_run_group_tests_name("append", tests, NULL, NULL);
}
