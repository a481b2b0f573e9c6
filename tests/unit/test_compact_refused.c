/* Stores that are not compacted: nothing changes, and one line says why. */
#include "compacting.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static void store_open_for_reading_is_not_compacted(void **state)
{
    AUTO_BYTES want = {0};
    rd_store_close(make_mixed(state, &want));
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    compact_fails(store, temp_path(state, "s"), NULL, RD_E_READ_ONLY, "reading only");
    rd_store_close(store);
}

static void damage_is_refused_and_repair_is_named(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "first value", 11);
    store_put(store, "b", "second value", 12);
    assert_int_equal(rd_store_sync(store), RD_OK); /* or it would count as torn by a crash */
    rd_store_close(store);
    file_poke(path, 3, 0x10);
    store = store_open_ok(path, &open_writing);
    compact_fails(store, path, NULL, RD_E_DAMAGED, "rdrive repair ");
    store_put(store, "a", "healed", 6); /* but other keys may lie in the range */
    store_expect(store, rd_hash(text_span("b")), "second value", 12);
    rd_store_close(store);
}

/* What a torn range in the middle comes to once its key was written again, and a link that a flip ruined. */
static void damage_that_hides_nothing_is_compacted_away(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "first", 5);
    store_put(store, "b", "second", 6);
    store_put(store, "between", "whole", 5);
    store_put(store, "c", "third", 5);
    store_put(store, "b", "again", 5);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    file_poke(path, 64, 1);                 /* b's first payload */
    file_poke(path, 192 + 5 + 8 + 1, 0x40); /* c's link */
    store = store_open_ok(path, &open_writing);
    assert_int_equal(store_info(store).damaged_ranges, 2);
    assert_int_equal(store_info(store).damaged_entries, 0);
    compact_ok(store);
    assert_int_equal(store_info(store).damaged_ranges, 0);
    rd_store_close(store);
    store = store_open_ok(path, &open_reading);
    assert_int_equal(store_info(store).damaged_ranges, 0);
    assert_int_equal(store_info(store).entries, 4);
    store_expect(store, rd_hash(text_span("a")), "first", 5);
    store_expect(store, rd_hash(text_span("b")), "again", 5);
    store_expect(store, rd_hash(text_span("c")), "third", 5);
    rd_store_close(store);
}

/* "big" twice; bit 3 of the `which`th is flipped. */
static rd_store *make_lazy_damage(void **state, int which)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(9, 100000);
    rd_store *store = store_make(state, "s");
    store_put(store, "small", "value", 5);
    store_put(store, "big", big.data, big.len);
    store_put(store, "big", big.data, big.len);
    store_put(store, "end", "value", 5);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    file_poke(path, which == 0 ? 5000 : 150000, 0x08);
    return store_open_ok(path, &open_writing);
}

static void damaged_value_that_opening_did_not_see_is_refused(void **state)
{
    rd_store *store = make_lazy_damage(state, 1);
    rd_entry entry = {0};
    assert_int_equal(store_info(store).damaged_ranges, 0);
    compact_fails(store, temp_path(state, "s"), NULL, RD_E_DAMAGED, "rdrive repair ");
    assert_int_equal(store_info(store).damaged_ranges, 1); /* known from now on */
    assert_int_equal(store_info(store).damaged_entries, 1);
    assert_int_equal(rd_store_read(store, text_span("big"), &entry), RD_E_DAMAGED);
    store_put(store, "more", "goes on", 7);
    store_expect(store, rd_hash(text_span("end")), "value", 5);
    rd_store_close(store);
}

/* A superseded value's link may hide keys, so it is checked too; this one's doesn't. */
static void superseded_value_that_fails_its_check_is_recovered_around(void **state)
{
    AUTO_BYTES big = bytes_xorshift(9, 100000);
    AUTO_BYTES want = {0};
    rd_store *store = make_lazy_damage(state, 0);
    compact_ok(store);
    store_expect(store, rd_hash(text_span("big")), big.data, big.len);
    assert_int_equal(store_info(store).damaged_ranges, 0); /* gone with it */
    build_entry(&want, rd_hash(text_span("small")), text_span("value"), 64);
    build_entry(&want, rd_hash(text_span("big")), bytes_span(&big), 64);
    build_entry(&want, rd_hash(text_span("end")), text_span("value"), 64);
    file_expect(temp_path(state, "s"), want.data, want.len, "compacted");
    rd_store_close(store);
}

/* A large superseded value whose link, damaged, leads past "hidden". */
static void keys_hidden_by_an_unchecked_link_are_not_thrown_away(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(9, 100000);
    rd_store *store = store_make(state, "s");
    uint64_t link = store_put(store, "small", "value", 5).tail_off;
    store_put(store, "hidden", "value", 5);
    uint64_t trailer = store_put(store, "big", big.data, big.len).tail_off - 20;
    store_put(store, "big", "newer", 5);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    AUTO_BYTES bytes = file_load(path);
    memcpy(bytes.data + trailer + 8, &link, sizeof link);
    file_save(path, bytes.data, bytes.len);
    store = store_open_ok(path, &open_writing);
    store_expect_absent(store, rd_hash(text_span("hidden")));
    compact_ok(store);
    store_expect(store, rd_hash(text_span("hidden")), "value", 5);
    store_expect(store, rd_hash(text_span("big")), "newer", 5);
    assert_int_equal(rd_store_len(store), 3);
    rd_store_close(store);
}

struct nested {
    rd_store *store;
    rd_err err;
};

static bool compact_inside(void *arg, const rd_compact_progress *progress)
{
    struct nested *nested = arg;
    rd_compacted done;
    (void)progress;
    nested->err = rd_store_compact(nested->store, NULL, NULL, &done);
    return true;
}

static void file_of_several_names_is_left_alone(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "first", 5);
    store_put(store, "a", "second", 6);
    AUTO_BYTES before = file_load(path);
    assert_int_equal(link(path, temp_path(state, "other")), 0);
    compact_fails(store, path, NULL, RD_E_UNSUPPORTED, "2 names");
    file_expect(path, before.data, before.len, "before");
    assert_int_equal(unlink(temp_path(state, "other")), 0);
    compact_ok(store);
    store_expect(store, rd_hash(text_span("a")), "second", 6);
    rd_store_close(store);
}

static void second_compaction_at_once_is_refused(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    struct nested nested = {.store = store, .err = RD_OK};
    const rd_compact_options options = {.progress = compact_inside, .arg = &nested};
    rd_compacted done;
    assert_int_equal(rd_store_compact(store, &options, NULL, &done), RD_OK);
    assert_int_equal(nested.err, RD_E_BUSY);
    compact_ok(store);
    expect_mixed(store);
    rd_store_close(store);
}

static bool cancel_at(void *arg, const rd_compact_progress *progress)
{
    int *left = arg;
    (void)progress;
    return (*left)-- > 0;
}

static void cancelled_compaction_changes_nothing(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    for (int at = 0; at < 3; at++) {
        int left = at;
        const rd_compact_options options = {.progress = cancel_at, .arg = &left};
        compact_fails(store, temp_path(state, "s"), &options, RD_E_CANCELLED, "cancelled");
        expect_mixed(store);
    }
    compact_ok(store);
    file_expect(temp_path(state, "s"), want.data, want.len, "compacted");
    rd_store_close(store);
}

/* The crate takes no lock: what it appends must not be lost. */
static void what_somebody_else_appended_is_not_thrown_away(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    AUTO_BYTES bytes = file_load(temp_path(state, "s"));
    build_entry(&bytes, 77, text_span("theirs"), 64);
    file_save(temp_path(state, "s"), bytes.data, bytes.len);
    compact_fails(store, temp_path(state, "s"), NULL, RD_E_ENDED, "appended");
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_writing);
    store_expect(store, 77, "theirs", 6);
    rd_store_close(store);
}

static void file_that_took_the_stores_name_is_left_alone(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    file_save(temp_path(state, "other"), "another file", 12);
    assert_int_equal(rename(temp_path(state, "other"), temp_path(state, "s")), 0);
    compact_fails(store, temp_path(state, "s"), NULL, RD_E_IO, "another file");
    assert_int_equal(remove(temp_path(state, "s")), 0);
    rd_compacted done;
    assert_int_equal(rd_store_compact(store, NULL, NULL, &done), RD_E_IO);
    assert_int_not_equal(access(temp_path(state, "s.compact"), F_OK), 0);
    expect_mixed(store);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(store_open_for_reading_is_not_compacted),
        TEMP_TEST(damage_is_refused_and_repair_is_named),
        TEMP_TEST(damage_that_hides_nothing_is_compacted_away),
        TEMP_TEST(damaged_value_that_opening_did_not_see_is_refused),
        TEMP_TEST(superseded_value_that_fails_its_check_is_recovered_around),
        TEMP_TEST(keys_hidden_by_an_unchecked_link_are_not_thrown_away),
        TEMP_TEST(file_of_several_names_is_left_alone),
        TEMP_TEST(second_compaction_at_once_is_refused),
        TEMP_TEST(cancelled_compaction_changes_nothing),
        TEMP_TEST(what_somebody_else_appended_is_not_thrown_away),
        TEMP_TEST(file_that_took_the_stores_name_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
