/* STORE.writer at opening: what isn't durable may be torn anywhere, and is no damage; torn tails are saved and cut. */
#include "oracle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Append bytes in place: the inode, which STORE.writer names, stays. */
static void append_in_place(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    EXPECT(fd >= 0, "%s: %s", path, strerror(errno));
    EXPECT(write(fd, data, len) == (ssize_t)len, "%s: %s", path, strerror(errno));
    close(fd);
}

/**
 * A store "s" whose writer synced three entries, "z", "a" and "b", and then appended unsynced: a second version of "a"
 * whose payload didn't reach the disk, and "c", which did. Returns the offset of what was synced.
 */
static uint64_t make_unsynced_value(void **state, rd_span newer)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_put(store, "z", "zeroth", 6);
    store_put(store, "a", "older", 5);
    store_put(store, "b", "second", 6);
    EXPECT(rd_store_sync(store) == RD_OK, "sync");
    uint64_t synced = store_info(store).tail_off;
    rd_store_close(store);
    AUTO_BYTES file = file_load(path);
    EXPECT(file.len == synced, "%zu bytes", file.len);
    build_entry(&file, rd_hash(text_span("a")), newer, 64);
    harm_flip(&file, file.len - 21, 0);
    build_entry(&file, rd_hash(text_span("c")), text_span("third"), 64);
    append_in_place(path, file.data + synced, file.len - synced);
    return synced;
}

static uint64_t make_unsynced(void **state)
{
    return make_unsynced_value(state, text_span("newer"));
}

static void expect_torn_quietly(rd_store *store)
{
    store_expect(store, rd_hash(text_span("a")), "older", 5);
    store_expect(store, rd_hash(text_span("b")), "second", 6);
    store_expect(store, rd_hash(text_span("c")), "third", 5); /* unacknowledged, but whole */
    rd_store_info info = store_info(store);
    assert_int_equal(info.live_keys, 4);
    assert_int_equal(info.damaged_entries, 0);
    assert_int_equal(info.damaged_ranges, 0);
    rd_store_close(store);
}

/* Without a line to trust the same bytes are damage: R-04b. */
static void expect_damage(rd_store *store)
{
    rd_entry entry = {0};
    assert_int_equal(rd_store_read(store, text_span("a"), &entry), RD_E_DAMAGED);
    store_expect(store, rd_hash(text_span("b")), "second", 6);
    store_expect(store, rd_hash(text_span("c")), "third", 5);
    assert_int_equal(store_info(store).damaged_entries, 1);
    assert_int_equal(store_info(store).damaged_ranges, 1);
    rd_store_close(store);
}

static void what_was_never_synced_is_torn_and_not_damaged(void **state)
{
    const char *path = temp_path(state, "s");
    make_unsynced(state);
    AUTO_BYTES before = file_load(path);
    expect_torn_quietly(store_open_ok(path, &open_reading));
    file_expect(path, before.data, before.len, "reading");
    expect_torn_quietly(store_open_ok(path, &open_writing));
    expect_torn_quietly(store_open_ok(path, &open_reading));
}

/* Its first read may not be the first to find out. */
static void large_value_that_was_never_synced_is_checked_at_opening(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES newer = bytes_xorshift(7, 100000);
    make_unsynced_value(state, bytes_span(&newer));
    expect_torn_quietly(store_open_ok(path, &open_reading));
    expect_torn_quietly(store_open_ok(path, &open_writing));
    expect_torn_quietly(store_open_ok(path, &open_reading));
}

/* Once more is synced behind it, a torn range must not turn into damage. */
static void torn_range_stays_torn_when_the_writer_goes_on(void **state)
{
    const char *path = temp_path(state, "s");
    make_unsynced(state);
    for (int round = 0; round < 2; round++) {
        rd_store *store = store_open_ok(path, &open_writing);
        store_put(store, "d", "fourth", 6);
        assert_int_equal(rd_store_sync(store), RD_OK);
        rd_store_close(store);
        store = store_open_ok(path, &open_reading);
        store_expect(store, rd_hash(text_span("a")), "older", 5);
        store_expect(store, rd_hash(text_span("c")), "third", 5);
        store_expect(store, rd_hash(text_span("d")), "fourth", 6);
        assert_int_equal(store_info(store).damaged_entries, 0);
        rd_store_close(store);
    }
}

static void damage_below_what_was_synced_stays_damage(void **state)
{
    const char *path = temp_path(state, "s");
    make_unsynced(state);
    file_poke(path, 2, 0x04); /* in "zeroth" */
    for (int round = 0; round < 2; round++) {
        rd_store *store = store_open_ok(path, round == 0 ? &open_reading : &open_writing);
        rd_entry entry = {0};
        assert_int_equal(rd_store_read(store, text_span("z"), &entry), RD_E_DAMAGED);
        store_expect(store, rd_hash(text_span("a")), "older", 5);
        assert_int_equal(store_info(store).damaged_entries, 1);
        rd_store_close(store);
    }
}

static void line_of_another_file_says_nothing(void **state)
{
    make_unsynced(state);
    AUTO_BYTES file = file_load(temp_path(state, "s")), line = file_load(temp_path(state, "s.writer"));
    file_save(temp_path(state, "copy"), file.data, file.len);
    file_save(temp_path(state, "copy.writer"), line.data, line.len);
    expect_damage(store_open_ok(temp_path(state, "copy"), &open_reading));
    expect_damage(store_open_ok(temp_path(state, "copy"), &open_writing));
}

static void line_with_any_flipped_bit_says_nothing(void **state)
{
    const char *path = temp_path(state, "s"), *line = temp_path(state, "s.writer");
    make_unsynced(state);
    AUTO_BYTES said = file_load(line);
    size_t text = strnlen((const char *)said.data, said.len);
    const char *newline = memchr(said.data, '\n', said.len);
    if (newline != NULL)
        text = (size_t)(newline - (const char *)said.data);
    for (size_t at = 0; at < text; at++) {
        file_poke(line, at, 0x01);
        expect_damage(store_open_ok(path, &open_reading));
        file_poke(line, at, 0x01);
    }
    expect_torn_quietly(store_open_ok(path, &open_reading));
}

static void line_that_is_cut_or_missing_says_nothing(void **state)
{
    const char *path = temp_path(state, "s"), *line = temp_path(state, "s.writer");
    make_unsynced(state);
    AUTO_BYTES said = file_load(line);
    const char *newline = memchr(said.data, '\n', said.len);
    size_t text = newline != NULL ? (size_t)(newline - (const char *)said.data) : strnlen((char *)said.data, said.len);
    file_save(line, said.data, text / 2);
    expect_damage(store_open_ok(path, &open_reading));
    file_save(line, "", 0);
    expect_damage(store_open_ok(path, &open_reading));
    unlink(line);
    expect_damage(store_open_ok(path, &open_reading));
}

/* Without a file descriptor left nobody knows what it says; taken for none, what is torn would become damage for good.
 */
static void line_that_cannot_be_read_now_is_an_error_and_not_none(void **state)
{
    const char *path = temp_path(state, "s");
    struct rlimit all;
    make_unsynced(state);
    int lowest = dup(0);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    const struct rlimit one = {.rlim_cur = (rlim_t)lowest + 1, .rlim_max = all.rlim_max};
    for (int round = 0; round < 2; round++) {
        const rd_open_options *options = round == 0 ? &open_reading : &open_writing;
        rd_store *store = NULL;
        rd_fault fault;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &one), 0);
        rd_err err = rd_store_open(path, options, &fault, &store);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
        assert_int_equal(err, RD_E_IO);
        assert_int_equal(fault.os_error, EMFILE);
        assert_non_null(strstr(fault.text, "s.writer"));
    }
    expect_torn_quietly(store_open_ok(path, &open_writing));
}

/* The file was written over since: no entry begins or ends where the line says. */
static void line_that_names_no_boundary_says_nothing(void **state)
{
    const char *path = temp_path(state, "s");
    make_unsynced(state);
    AUTO_BYTES file = {0};
    build_entry(&file, rd_hash(text_span("b")), text_span("second"), 64);
    AUTO_BYTES long_value = bytes_xorshift(1, 300);
    build_entry(&file, rd_hash(text_span("z")), bytes_span(&long_value), 64);
    build_entry(&file, rd_hash(text_span("a")), text_span("newer"), 64);
    harm_flip(&file, file.len - 21, 0);
    build_entry(&file, rd_hash(text_span("c")), text_span("third"), 64);
    file_save(path, file.data, file.len); /* in place */
    expect_damage(store_open_ok(path, &open_reading));
}

/* ---- A torn first write ----------------------------------------------------------------------------------------- */

/* A store "s" of which a writer synced nothing, cut inside its first entry. */
static struct bytes make_torn_first(void **state, size_t cut)
{
    rd_store *store = store_make(state, "s");
    AUTO_BYTES value = bytes_xorshift(3, 200);
    store_put(store, "a", value.data, value.len);
    rd_store_close(store);
    EXPECT(truncate(temp_path(state, "s"), (off_t)cut) == 0, "%s", strerror(errno));
    return file_load(temp_path(state, "s"));
}

static void torn_first_write_is_an_empty_store_while_its_writers_line_says_so(void **state)
{
    const char *path = temp_path(state, "s");
    const size_t cuts[] = {1, 19, 20, 21, 100, 200, 219};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        AUTO_BYTES torn = make_torn_first(state, cuts[i]);
        rd_store *store = store_open_ok(path, &open_reading);
        assert_true(rd_store_is_empty(store));
        assert_int_equal(store_info(store).unread_bytes, cuts[i]);
        assert_int_equal(store_info(store).damaged_ranges, 0);
        rd_store_close(store);
        file_expect(path, torn.data, torn.len, "reading");
        store = store_open_ok(path, &open_writing);
        assert_int_equal(file_len(path), 0);
        file_expect(temp_path(state, "s.torn-0"), torn.data, torn.len, "what was cut");
        store_put(store, "b", "value", 5);
        rd_store_close(store);
        store = store_open_ok(path, &open_reading);
        assert_int_equal(rd_store_len(store), 1);
        rd_store_close(store);
        unlink(path);
        unlink(temp_path(state, "s.writer"));
        unlink(temp_path(state, "s.torn-0"));
    }
}

static void torn_first_write_without_its_writers_line_is_no_store(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES torn = make_torn_first(state, 100);
    unlink(temp_path(state, "s.writer"));
    store_open_fails(path, &open_reading, RD_E_NOT_STORE);
    store_open_fails(path, &open_writing, RD_E_NOT_STORE);
    store_open_fails(path, &open_making, RD_E_NOT_STORE);
    file_expect(path, torn.data, torn.len, "no store");
    assert_int_equal(temp_count(state), 1);
}

/* A line that says more was synced: then this is not a first write that was torn, and nothing may be cut. */
static void file_without_entries_is_no_store_where_more_was_synced(void **state)
{
    const char *path = temp_path(state, "s");
    make_unsynced(state);
    EXPECT(truncate(path, 20) == 0, "%s", strerror(errno));
    AUTO_BYTES torn = file_load(path);
    store_open_fails(path, &open_reading, RD_E_NOT_STORE);
    store_open_fails(path, &open_writing, RD_E_NOT_STORE);
    file_expect(path, torn.data, torn.len, "no store");
}

/* ---- A torn tail ------------------------------------------------------------------------------------------------ */

static void torn_tail_is_saved_beside_the_store_before_it_is_cut(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "value", 5);
    uint64_t tail = store_info(store).tail_off;
    rd_store_close(store);
    assert_int_equal(tail, 25);
    AUTO_BYTES torn = bytes_xorshift(8, 70000);
    append_in_place(path, torn.data, torn.len);
    store = store_open_ok(path, &open_reading);
    assert_int_equal(store_info(store).unread_bytes, torn.len);
    rd_store_close(store);
    assert_int_equal(access(temp_path(state, "s.torn-25"), F_OK), -1); /* only a writer saves */
    store = store_open_ok(path, &open_writing);
    file_expect(temp_path(state, "s.torn-25"), torn.data, torn.len, "what was cut");
    assert_int_equal(file_len(path), tail);
    assert_int_equal(store_info(store).unread_bytes, 0);
    store_expect(store, rd_hash(text_span("a")), "value", 5);
    rd_store_close(store);
}

static void whole_store_leaves_no_torn_file(void **state)
{
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "value", 5);
    rd_store_close(store);
    rd_store_close(store_open_ok(temp_path(state, "s"), &open_writing));
    assert_int_equal(access(temp_path(state, "s.torn-25"), F_OK), -1);
    assert_int_equal(temp_count(state), 2); /* the store and its writer's line */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(what_was_never_synced_is_torn_and_not_damaged),
        TEMP_TEST(large_value_that_was_never_synced_is_checked_at_opening),
        TEMP_TEST(torn_range_stays_torn_when_the_writer_goes_on),
        TEMP_TEST(damage_below_what_was_synced_stays_damage),
        TEMP_TEST(line_of_another_file_says_nothing),
        TEMP_TEST(line_with_any_flipped_bit_says_nothing),
        TEMP_TEST(line_that_is_cut_or_missing_says_nothing),
        TEMP_TEST(line_that_cannot_be_read_now_is_an_error_and_not_none),
        TEMP_TEST(line_that_names_no_boundary_says_nothing),
        TEMP_TEST(torn_first_write_is_an_empty_store_while_its_writers_line_says_so),
        TEMP_TEST(torn_first_write_without_its_writers_line_is_no_store),
        TEMP_TEST(file_without_entries_is_no_store_where_more_was_synced),
        TEMP_TEST(torn_tail_is_saved_beside_the_store_before_it_is_cut),
        TEMP_TEST(whole_store_leaves_no_torn_file),
    };
    return cmocka_run_group_tests_name("recover_writer", tests, NULL, NULL);
}
