/* STORE.writer remembers what a crash tore in the middle: it never becomes damage, and no damage is taken for it. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const rd_open_options open_always = {.writable = true, .sync = RD_SYNC_ALWAYS};

#define SECTOR ((uint64_t)512)

static void zero_sector(const char *path, uint64_t offset)
{
    static const uint8_t zeros[SECTOR];
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    EXPECT(fd >= 0 && pwrite(fd, zeros, sizeof zeros, (off_t)offset) == (ssize_t)SECTOR, "%s", strerror(errno));
    close(fd);
}

/* Append, unsynced, a value that ends where a sector does, which a crash loses with its trailer, and another behind it.
   Returns: where the torn range ends. */
static uint64_t tear_unnamed(void **state, uint64_t key, const rd_open_options *options)
{
    rd_written done;
    const char *path = temp_path(state, "s");
    AUTO_BYTES value = bytes_xorshift(key, 3 * SECTOR);
    uint64_t start = (file_len(path) + 63) / 64 * 64;
    uint64_t end = (start + 2 * SECTOR) / SECTOR * SECTOR; /* [end - SECTOR, end) holds nothing of the one before */
    rd_store *store = store_open_ok(path, options);
    rd_span torn = {.data = value.data, .len = end - 20 - start};
    assert_int_equal(rd_store_write_hash(store, key, torn, &done), RD_OK);
    assert_int_equal(done.tail_off, end);
    assert_int_equal(rd_store_write_hash(store, key + 1, text_span("whole"), &done), RD_OK);
    rd_store_close(store);
    zero_sector(path, end - SECTOR);
    return end;
}

static uint64_t make_unnamed(void **state)
{
    AUTO_BYTES large = bytes_xorshift(5, 100000);
    rd_store *store = store_make(state, "s");
    store_put(store, "large", large.data, large.len);
    store_put(store, "a", "durable", 7);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    return tear_unnamed(state, 10, &open_writing);
}

static void expect_ranges(rd_store *store, uint64_t damaged, uint64_t unidentified)
{
    assert_int_equal(store_info(store).damaged_ranges, damaged);
    assert_int_equal(store_info(store).unidentified_ranges, unidentified);
}

/* One more session, in which all becomes durable. */
static void write_and_sync(void **state, uint64_t damaged, uint64_t unidentified)
{
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_writing);
    expect_ranges(store, damaged, unidentified);
    store_put(store, "more", "value", 5);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
}

static size_t remembered(void **state)
{
    AUTO_BYTES line = file_load(temp_path(state, "s.writer"));
    size_t count = 0;
    const char *at = memmem(line.data, line.len, " torn=", 6);
    for (; at != NULL && (count == 0 || *at == ','); count++)
        at += 1 + strcspn(at + 1, ", ");
    return count;
}

static void expect_compacts(void **state, uint64_t keys)
{
    rd_fault fault;
    rd_compacted compacted;
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_writing);
    rd_err err = rd_store_compact(store, &(rd_compact_options){0}, &fault, &compacted);
    EXPECT(err == RD_OK, "%s", fault.text);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_writing);
    store_put(store, "more", "value", 5);
    rd_store_close(store);
    assert_int_equal(remembered(state), 0); /* the new file has none */
    store = store_open_ok(temp_path(state, "s"), &open_reading);
    expect_ranges(store, 0, 0);
    assert_int_equal(rd_store_len(store), keys);
    store_expect(store, 11, "whole", 5);
    store_expect_absent(store, 10);
    rd_store_close(store);
}

static void a_torn_range_of_unknown_keys_never_becomes_damage(void **state)
{
    make_unnamed(state);
    for (int round = 0; round < 3; round++) {
        write_and_sync(state, 0, 0);
        assert_int_equal(remembered(state), 1);
        rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
        expect_ranges(store, 0, 0);
        store_expect_absent(store, 10);
        store_expect(store, 11, "whole", 5);
        rd_store_close(store);
    }
    expect_compacts(state, 4);
}

/* A crash between the line of a compaction's new file and the rename leaves that line beside the old file. */
static void a_compaction_that_a_crash_ends_forgets_no_torn_range(void **state)
{
    make_unnamed(state);
    write_and_sync(state, 0, 0);
    AUTO_BYTES line = file_load(temp_path(state, "s.writer"));
    char fields[513] = {0};
    char moved[513];
    memcpy(fields, line.data, 512);
    char *inode = strstr(fields, " inode=");
    char *torn = strstr(fields, " torn=");
    char *checksum = strstr(fields, " checksum=");
    EXPECT(inode != NULL && torn != NULL && checksum != NULL, "%s", fields);
    *inode = *checksum = '\0';
    int used = snprintf(moved, sizeof moved, "%s inode=1 synced=64%s", fields, torn);
    used +=
        snprintf(moved + used, sizeof moved - (size_t)used, " checksum=%08x", (unsigned)sum_crc32(moved, (size_t)used));
    memset(moved + used, ' ', 511 - (size_t)used);
    moved[511] = '\n';
    file_save(temp_path(state, "s.writer"), moved, 512);
    for (int round = 0; round < 2; round++)
        write_and_sync(state, 0, 0);
    expect_compacts(state, 4);
}

/* A payload that opening leaves unchecked fails, so the file is recovered again. */
static void expect_late_recovery(void **state, const rd_open_options *options, bool sync)
{
    rd_verified verified;
    rd_store *store = store_open_ok(temp_path(state, "s"), options);
    if (sync) {
        store_put(store, "more", "value", 5);
        assert_int_equal(rd_store_sync(store), RD_OK);
    }
    file_poke(temp_path(state, "s"), 50000, 1);
    for (uint64_t generation = 1; generation <= 2; generation++) {
        assert_int_equal(rd_store_verify(store, 1, NULL, NULL, &verified), RD_OK);
        assert_int_equal(store_info(store).generation, 2);
        expect_ranges(store, 1, 0); /* that payload */
        store_expect(store, 11, "whole", 5);
        store_expect_absent(store, 10);
    }
    rd_store_close(store);
    file_poke(temp_path(state, "s"), 50000, 1);
}

static void a_late_recovery_knows_what_was_torn(void **state)
{
    make_unnamed(state);
    expect_late_recovery(state, &open_reading, false);
    expect_late_recovery(state, &open_writing, true); /* the session that finds it torn */
    expect_late_recovery(state, &open_writing, true); /* later ones, that are told */
    expect_late_recovery(state, &open_reading, false);
    write_and_sync(state, 0, 0);
    tear_unnamed(state, 20, &open_writing);
    expect_late_recovery(state, &open_reading, false); /* one of each */
    expect_late_recovery(state, &open_writing, true);
    expect_compacts(state, 5);
}

static void what_fails_late_behind_a_remembered_range_is_damage(void **state)
{
    const char *path = temp_path(state, "s");
    make_unnamed(state);
    AUTO_BYTES large = bytes_xorshift(7, 100000);
    rd_store *store = store_open_ok(path, &open_writing);
    uint64_t tail = store_put(store, "later", large.data, large.len).tail_off;
    store_put(store, "last", "value", 5);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    for (int round = 0; round < 2; round++) {
        rd_verified verified;
        rd_entry entry = {0};
        store = store_open_ok(path, round == 0 ? &open_reading : &open_writing);
        expect_ranges(store, 0, 0);
        file_poke(path, tail - 1000, 1);
        assert_int_equal(rd_store_verify(store, 1, NULL, NULL, &verified), RD_OK);
        expect_ranges(store, 1, 0);
        assert_int_equal(rd_store_read(store, text_span("later"), &entry), RD_E_DAMAGED);
        rd_store_close(store);
        file_poke(path, tail - 1000, 1);
    }
}

/* Opening leaves large payloads of synced entries unchecked; not so those that are known to be torn. */
static void a_large_torn_value_never_becomes_damage(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES large = bytes_xorshift(6, 200000);
    make_unnamed(state);
    uint64_t begin = file_len(path);
    rd_store *store = store_open_ok(path, &open_writing);
    store_put(store, "torn", large.data, large.len);
    store_put(store, "whole", "value", 5);
    rd_store_close(store);
    zero_sector(path, (begin + 100000) / SECTOR * SECTOR);
    for (int round = 0; round < 3; round++) {
        rd_verified verified;
        write_and_sync(state, 0, 0);
        assert_int_equal(remembered(state), 2);
        store = store_open_ok(path, &open_writing);
        assert_int_equal(rd_store_verify(store, 2, NULL, NULL, &verified), RD_OK);
        assert_int_equal(verified.failed, 0);
        assert_int_equal(store_info(store).generation, 1);
        store_expect_absent(store, rd_hash(text_span("torn")));
        rd_store_close(store);
    }
    expect_compacts(state, 5);
}

/* The lost sector takes the trailer's hash and its link's low byte, so that the link leads into the pad below "a". */
static void a_large_torn_value_hides_nothing_that_lies_below_it(void **state)
{
    enum { NEWER_OFF = 102400, TORN_START = 102464, TORN_END = 400 * 512 + 11 };
    const char *path = temp_path(state, "s");
    AUTO_BYTES large = bytes_xorshift(5, NEWER_OFF - 40 - 20 - 64);
    AUTO_BYTES torn = bytes_xorshift(6, TORN_END - 20 - TORN_START);
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "older", 5);
    store_put(store, "large", large.data, large.len);
    assert_int_equal(store_put(store, "a", "newer", 5).tail_off, NEWER_OFF + 25);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    store = store_open_ok(path, &open_writing);
    assert_int_equal(store_put(store, "torn", torn.data, torn.len).tail_off, TORN_END);
    store_put(store, "whole", "value", 5);
    rd_store_close(store);
    zero_sector(path, TORN_END - 11 - SECTOR);
    for (int round = 0; round < 3; round++) {
        write_and_sync(state, 0, 0);
        store = store_open_ok(path, &open_reading);
        expect_ranges(store, 0, 0);
        store_expect(store, rd_hash(text_span("a")), "newer", 5);
        rd_store_close(store);
    }
}

static void ranges_of_several_crashes_are_remembered_together(void **state)
{
    make_unnamed(state);
    tear_unnamed(state, 20, &open_writing); /* opened and crashed without a sync in between */
    write_and_sync(state, 0, 0);
    assert_int_equal(remembered(state), 2);
    tear_unnamed(state, 30, &open_writing);
    for (int round = 0; round < 3; round++) {
        write_and_sync(state, 0, 0);
        assert_int_equal(remembered(state), 3);
    }
    expect_compacts(state, 6);
}

static void damage_elsewhere_is_damage_beside_a_remembered_range(void **state)
{
    const char *path = temp_path(state, "s");
    uint64_t end = make_unnamed(state);
    write_and_sync(state, 0, 0);
    uint64_t lost = tear_unnamed(state, 20, &open_always); /* acknowledged, so not torn but lost */
    for (int round = 0; round < 3; round++)
        write_and_sync(state, 1, 1);
    rd_range range;
    rd_store *store = store_open_ok(path, &open_reading);
    assert_int_equal(rd_store_damage(store, &range, 1), 1);
    assert_int_equal(range.offset + range.size, lost);
    assert_true(range.offset > end);
    rd_store_close(store);
    assert_int_equal(remembered(state), 1);
}

/* The range that is lost then is a larger one, and no longer the one that was torn. */
static void damage_that_reaches_into_a_remembered_range_is_damage(void **state)
{
    uint64_t end = make_unnamed(state);
    write_and_sync(state, 0, 0);
    rd_store *writing = store_open_ok(temp_path(state, "s"), &open_writing);
    AUTO_BYTES large = bytes_xorshift(6, 5000);
    store_put(writing, "more", large.data, large.len);
    rd_store_close(writing);
    zero_sector(temp_path(state, "s"), end); /* what was written behind it */
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_true(store_info(store).unidentified_ranges > 0);
    rd_store_close(store);
}

/* Then what its key has without it is gone too. */
static void a_remembered_range_at_the_end_of_a_cut_file_is_damage(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES value = bytes_xorshift(6, 2000);
    make_unnamed(state);
    rd_store *store = store_open_ok(path, &open_writing);
    uint64_t end = store_put(store, "a", value.data, value.len).tail_off;
    store_put(store, "whole", "value", 5);
    rd_store_close(store);
    file_poke(path, end - 100, 1);
    write_and_sync(state, 0, 0);
    assert_int_equal(remembered(state), 2);
    assert_int_equal(truncate(path, (off_t)end), 0);
    store = store_open_ok(path, &open_reading);
    expect_ranges(store, 1, 0);
    rd_entry entry = {0};
    assert_int_equal(rd_store_read(store, text_span("a"), &entry), RD_E_DAMAGED);
    rd_store_close(store);
}

static void a_range_remembered_of_another_file_is_none(void **state)
{
    const char *path = temp_path(state, "s");
    make_unnamed(state);
    write_and_sync(state, 0, 0);
    AUTO_BYTES file = file_load(path), line = file_load(temp_path(state, "s.writer"));
    file_save(temp_path(state, "copy"), file.data, file.len);
    file_save(temp_path(state, "copy.writer"), line.data, line.len);
    rd_store *store = store_open_ok(temp_path(state, "copy"), &open_writing);
    expect_ranges(store, 1, 1);
    rd_store_close(store);
}

/* The file was written over in place, so the line is of its inode: but what is lost there now is another range. */
static void a_remembered_range_that_the_file_does_not_bear_out_forgives_nothing(void **state)
{
    const char *path = temp_path(state, "s");
    uint64_t end = make_unnamed(state);
    write_and_sync(state, 0, 0);
    AUTO_BYTES file = {0}, large = bytes_xorshift(5, 100000), value = bytes_xorshift(6, 80);
    build_entry(&file, 1, bytes_span(&large), 64);
    for (uint64_t key = 2; file.len < end + 4096; key++)
        build_entry(&file, key, bytes_span(&value), 64);
    memset(file.data + end - SECTOR, 0, SECTOR);
    file_save(path, file.data, file.len);
    rd_store *store = store_open_ok(path, &open_reading);
    assert_true(store_info(store).unidentified_ranges > 0);
    rd_store_close(store);
}

static void more_ranges_than_a_line_has_room_for_are_joined(void **state)
{
    const char *path = temp_path(state, "s");
    make_unnamed(state);
    for (uint64_t key = 20; key < 130; key += 10)
        tear_unnamed(state, key, &open_writing);
    for (int round = 0; round < 3; round++) {
        write_and_sync(state, 0, 0);
        assert_int_equal(remembered(state), 5);
    }
    AUTO_BYTES file = file_load(path);
    const uint8_t *at = file.data;
    for (size_t i = 0; i < 12; i++, at++) {
        at = memmem(at, file.len - (size_t)(at - file.data), "whole", 5);
        assert_non_null(at);
        file_poke(path, (uint64_t)(at - file.data), 1); /* what was durable in between is not forgiven with them */
        rd_store *store = store_open_ok(path, &open_reading);
        EXPECT(store_info(store).damaged_ranges > 0, "value %zu", i);
        rd_store_close(store);
        file_poke(path, (uint64_t)(at - file.data), 1);
    }
    expect_compacts(state, 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(a_torn_range_of_unknown_keys_never_becomes_damage),
        TEMP_TEST(a_compaction_that_a_crash_ends_forgets_no_torn_range),
        TEMP_TEST(a_late_recovery_knows_what_was_torn),
        TEMP_TEST(what_fails_late_behind_a_remembered_range_is_damage),
        TEMP_TEST(a_large_torn_value_never_becomes_damage),
        TEMP_TEST(a_large_torn_value_hides_nothing_that_lies_below_it),
        TEMP_TEST(ranges_of_several_crashes_are_remembered_together),
        TEMP_TEST(damage_elsewhere_is_damage_beside_a_remembered_range),
        TEMP_TEST(damage_that_reaches_into_a_remembered_range_is_damage),
        TEMP_TEST(a_remembered_range_at_the_end_of_a_cut_file_is_damage),
        TEMP_TEST(a_range_remembered_of_another_file_is_none),
        TEMP_TEST(a_remembered_range_that_the_file_does_not_bear_out_forgives_nothing),
        TEMP_TEST(more_ranges_than_a_line_has_room_for_are_joined),
    };
    return cmocka_run_group_tests_name("torn_remembered", tests, NULL, NULL);
}
