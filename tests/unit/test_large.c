/* Payloads above 64 KiB: opening trusts their links, the first read or a verification finds out. */
#include "oracle.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static void expect_verified(rd_store *store)
{
    rd_verified verified = {0};
    rd_err err = rd_store_verify(store, 2, NULL, NULL, &verified);
    EXPECT(err == RD_OK, "verify: %s", rd_err_text(err));
}

/* Four keys with one and the same value of 1 MiB; returns where each ends. */
static struct bytes build_equal(uint64_t ends[4])
{
    AUTO_BYTES value = bytes_xorshift(42, MIB);
    struct bytes file = {0};
    for (uint64_t i = 0; i < 4; i++) {
        build_entry(&file, fill_hash(i), bytes_span(&value), 64);
        ends[i] = file.len;
    }
    return file;
}

/* Whatever the key answers, it is no false value. */
static rd_err read_truly(rd_store *store, uint64_t key_hash, const uint8_t *value, size_t len)
{
    rd_entry entry = {0};
    rd_err err = rd_store_read_hash(store, key_hash, &entry);
    EXPECT(err == RD_OK || err == RD_ABSENT || err == RD_E_DAMAGED, "%s", rd_err_text(err));
    EXPECT(err != RD_OK || span_equal(entry.payload, value, len), "%zu bytes", entry.payload.len);
    rd_entry_release(&entry);
    return err;
}

static void flipped_link_between_equal_values_hides_nothing_after_a_verification(void **state)
{
    const char *path = temp_path(state, "s");
    uint64_t ends[4];
    AUTO_BYTES file = build_equal(ends);
    file_save(path, file.data, file.len);
    for (int bit = 0; bit < 64; bit++) {
        uint64_t at = ends[2] - 12 + (uint64_t)bit / 8;
        file_poke(path, at, (uint8_t)(1 << bit % 8));
        rd_store *store = store_open_ok(path, &open_reading);
        for (uint64_t i = 4; i-- > 0;)
            read_truly(store, fill_hash(i), file.data, MIB);
        expect_verified(store);
        for (uint64_t i = 0; i < 4; i++)
            store_expect(store, fill_hash(i), file.data, MIB);
        rd_store_info info = store_info(store);
        EXPECT(rd_store_len(store) == 4 && info.entries == 4 && info.damaged_ranges == 1, "bit %d", bit);
        rd_store_close(store);
        file_poke(path, at, (uint8_t)(1 << bit % 8));
    }
    file_expect(path, file.data, file.len, "reading");
}

static void set_link(const char *path, uint64_t end, uint64_t old, uint64_t link)
{
    for (uint64_t i = 0; i < 8; i++)
        file_poke(path, end - 12 + i, (uint8_t)((old ^ link) >> (8 * i)));
}

/* The third entry's link names the end of the first: the chain is sound, and the second key is hidden. */
static void link_to_another_boundary_is_found_by_the_first_read(void **state)
{
    const char *path = temp_path(state, "s");
    uint64_t ends[4];
    AUTO_BYTES file = build_equal(ends);
    file_save(path, file.data, file.len);
    set_link(path, ends[2], ends[1], ends[0]);
    for (rd_verify mode = RD_VERIFY_FIRST; mode <= RD_VERIFY_ALWAYS; mode++) {
        rd_open_options options = {.verify = mode};
        rd_store *store = store_open_ok(path, &options);
        uint64_t generation = store_info(store).generation;
        assert_int_equal(rd_store_exists_hash(store, fill_hash(1)), RD_ABSENT);
        assert_int_equal(store_info(store).entries, 3);
        assert_int_equal(read_truly(store, fill_hash(2), file.data, MIB), RD_E_DAMAGED);
        expect_verified(store);
        for (uint64_t i = 0; i < 4; i++)
            store_expect(store, fill_hash(i), file.data, MIB);
        assert_int_equal(store_info(store).entries, 4);
        assert_int_equal(store_info(store).damaged_ranges, 1);
        assert_int_equal(store_info(store).damaged_entries, 0);
        assert_true(store_info(store).generation > generation);
        rd_store_close(store);
    }
}

/* A value of 100 KiB whose link names the end of the entry before the one before it, which it hides. */
static void make_hiding(void **state, const struct bytes *value, uint64_t link)
{
    rd_store *store = store_make(state, "s");
    uint64_t first = store_put(store, "a", "first value", 11).tail_off;
    uint64_t hidden = store_put(store, "hidden", "hidden value", 12).tail_off;
    uint64_t large = store_put(store, "large", value->data, value->len).tail_off;
    store_put(store, "b", "second value", 12);
    assert_int_equal(rd_store_sync(store), RD_OK); /* what was not would be checked at opening, and torn */
    rd_store_close(store);
    set_link(temp_path(state, "s"), large, hidden, link == UINT64_MAX ? first : link);
}

static void expect_nothing_hidden(rd_store *store, const struct bytes *value)
{
    store_expect(store, rd_hash(text_span("a")), "first value", 11);
    store_expect(store, rd_hash(text_span("hidden")), "hidden value", 12);
    store_expect(store, rd_hash(text_span("b")), "second value", 12);
    store_expect(store, rd_hash(text_span("large")), value->data, value->len);
    assert_int_equal(rd_store_len(store), 4);
    rd_range range;
    assert_int_equal(rd_store_damage(store, &range, 1), 1);
    assert_int_equal(range.kind, RD_DAMAGE_LINK);
    assert_int_equal(range.key_hash, rd_hash(text_span("large")));
}

static void what_a_large_entrys_link_hid_appears_after_a_verification(void **state)
{
    AUTO_BYTES value = bytes_xorshift(7, 100 << 10);
    make_hiding(state, &value, UINT64_MAX);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    store_expect_absent(store, rd_hash(text_span("hidden")));
    assert_int_equal(rd_store_len(store), 3);
    expect_verified(store);
    expect_nothing_hidden(store, &value);
    rd_store_close(store);
}

/* 0 is what lost sectors leave and any payload could follow; a link at which nothing holds is plainly wrong. */
static void large_entry_whose_link_is_not_plausible_is_checked_at_opening(void **state)
{
    const uint64_t links[] = {0, 40, 100, UINT64_C(1) << 40};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        AUTO_BYTES value = bytes_xorshift(7, 100 << 10);
        make_hiding(state, &value, links[i]);
        rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
        expect_nothing_hidden(store, &value);
        rd_store_close(store);
        unlink(temp_path(state, "s"));
        unlink(temp_path(state, "s.writer"));
    }
}

/* STORE.writer says that nothing of it was ever synced: then it is torn, and its older version is served. */
static void large_payload_that_was_never_synced_is_checked_at_opening(void **state)
{
    AUTO_BYTES value = bytes_xorshift(7, MIB);
    rd_store *store = store_make(state, "s");
    store_put(store, "large", "older value", 11);
    store_put(store, "large", value.data, value.len);
    store_put(store, "b", "second value", 12);
    rd_store_close(store);
    file_poke(temp_path(state, "s"), MIB / 2, 1);
    store = store_open_ok(temp_path(state, "s"), &open_reading);
    store_expect(store, rd_hash(text_span("large")), "older value", 11);
    store_expect(store, rd_hash(text_span("b")), "second value", 12);
    assert_int_equal(store_info(store).damaged_entries, 0);
    rd_store_close(store);
}

static void damaged_large_payload_is_counted_once_it_is_known(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES value = bytes_xorshift(7, MIB);
    rd_store *store = store_make(state, "s");
    store_put(store, "large", "older value", 11);
    store_put(store, "large", value.data, value.len);
    store_put(store, "b", "second value", 12);
    assert_int_equal(rd_store_sync(store), RD_OK); /* what was not would be checked at opening, and torn */
    rd_store_close(store);
    file_poke(path, MIB / 2, 1);

    store = store_open_ok(path, &open_reading);
    assert_int_equal(rd_store_len(store), 2);
    assert_int_equal(read_truly(store, rd_hash(text_span("large")), value.data, value.len), RD_E_DAMAGED);
    assert_int_equal(rd_store_len(store), 1);
    assert_int_equal(store_info(store).damaged_entries, 1);
    rd_verified verified = {0};
    assert_int_equal(rd_store_verify(store, 1, NULL, NULL, &verified), RD_OK);
    assert_int_equal(read_truly(store, rd_hash(text_span("large")), value.data, value.len), RD_E_DAMAGED);
    assert_int_equal(rd_store_len(store), 1);
    assert_int_equal(store_info(store).damaged_entries, 1);
    assert_int_equal(store_info(store).damaged_ranges, 1);
    store_expect(store, rd_hash(text_span("b")), "second value", 12);
    rd_store_close(store);
}

/* What was taken before a late recovery stays valid through it. */
static void entries_in_hand_survive_a_late_recovery(void **state)
{
    const char *path = temp_path(state, "s");
    uint64_t ends[4];
    AUTO_BYTES file = build_equal(ends);
    file_save(path, file.data, file.len);
    set_link(path, ends[2], ends[1], ends[0]);
    rd_store *store = store_open_ok(path, &open_reading);
    rd_entry held = {0};
    assert_int_equal(rd_store_read_hash(store, fill_hash(3), &held), RD_OK);
    expect_verified(store);
    store_expect(store, fill_hash(1), file.data, MIB);
    assert_true(span_equal(held.payload, file.data, MIB));
    rd_entry_release(&held);
    rd_store_close(store);
}

/* Appended while nobody knew of the damage below: kept, and newer than what appears. */
static void late_recovery_keeps_what_was_written_since(void **state)
{
    const char *path = temp_path(state, "s");
    uint64_t ends[4];
    AUTO_BYTES file = build_equal(ends);
    file_save(path, file.data, file.len);
    set_link(path, ends[2], ends[1], ends[0]);
    rd_store *store = store_open_ok(path, &open_writing);
    store_expect_absent(store, fill_hash(1));
    rd_written done = {0};
    assert_int_equal(rd_store_write_hash(store, fill_hash(1), text_span("newer"), &done), RD_OK);
    assert_int_equal(rd_store_write_hash(store, fill_hash(8), text_span("another"), &done), RD_OK);
    uint64_t doomed = fill_hash(0);
    assert_int_equal(rd_store_batch_delete(store, &doomed, 1, &done), RD_OK);
    expect_verified(store);
    store_expect_absent(store, doomed);
    store_expect(store, fill_hash(1), "newer", 5);
    store_expect(store, fill_hash(2), file.data, MIB);
    store_expect(store, fill_hash(3), file.data, MIB);
    store_expect(store, fill_hash(8), "another", 7);
    assert_int_equal(rd_store_len(store), 4);
    assert_int_equal(store_info(store).entries, 7);
    assert_int_equal(rd_store_write_hash(store, fill_hash(9), text_span("later"), &done), RD_OK);
    store_expect(store, fill_hash(9), "later", 5);
    rd_store_close(store);
    store = store_open_ok(path, &open_reading);
    expect_verified(store);
    assert_int_equal(rd_store_len(store), 5);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(flipped_link_between_equal_values_hides_nothing_after_a_verification),
        TEMP_TEST(link_to_another_boundary_is_found_by_the_first_read),
        TEMP_TEST(what_a_large_entrys_link_hid_appears_after_a_verification),
        TEMP_TEST(large_entry_whose_link_is_not_plausible_is_checked_at_opening),
        TEMP_TEST(large_payload_that_was_never_synced_is_checked_at_opening),
        TEMP_TEST(damaged_large_payload_is_counted_once_it_is_known),
        TEMP_TEST(entries_in_hand_survive_a_late_recovery),
        TEMP_TEST(late_recovery_keeps_what_was_written_since),
    };
    return cmocka_run_group_tests_name("large", tests, NULL, NULL);
}
