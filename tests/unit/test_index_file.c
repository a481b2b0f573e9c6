/* I-01 to I-12: when the snapshot index is believed, and that nothing is answered by it that the store wouldn't say. */
#include "indexing.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- It is believed --------------------------------------------------------------------------------------------- */

static void a_store_opened_by_it_is_as_one_recovered(void **state)
{
    indexed_make(state);
    expect_source(state, "s", RD_INDEX_NONE, "without one");
    rd_indexed done = index_ok(state, "s");
    struct stat st;
    assert_int_equal(stat(temp_path(state, "s.idx"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, done.bytes);
    assert_int_equal(done.covered_bytes, file_len(temp_path(state, "s")));
    assert_int_equal(done.keys, 23);
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "with one");
    assert_int_equal(temp_count(state), 3); /* store, writer's line, index: nothing is left of making it */
}

static void try_fixture(void **state, const char *folder, const char *name)
{
    char path[128];
    rd_store *store = NULL;
    rd_fault fault;
    rd_indexed done;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    AUTO_BYTES file = fixture_load(path);
    unlink(temp_path(state, "f.idx"));
    file_save(temp_path(state, "f"), file.data, file.len);
    if (rd_store_open(temp_path(state, "f"), &open_recovering, &fault, &store) != RD_OK)
        return; /* not a store */
    rd_store_info info = store_info(store);
    rd_err err = rd_store_save_index(store, NULL, &fault, &done);
    rd_store_close(store);
    bool whole = info.damaged_ranges == 0 && info.unread_bytes == 0;
    EXPECT(err == RD_OK || (err == RD_ABSENT && info.entries == 0) || (err == RD_E_DAMAGED && !whole), "%s: %s (%s)",
           path, rd_err_text(err), fault.text);
    rd_index_source source = source_if_same(state, "f", path);
    EXPECT((source == RD_INDEX_NONE) == (err != RD_OK), "%s: %s", path, rd_index_text(source));
    EXPECT(source == RD_INDEX_SNAPSHOT || err != RD_OK || info.unread_bytes > 0, "%s: %s", path, rd_index_text(source));
}

static void try_fixtures(void **state, const char *folder, const char *suffix)
{
    char *path = fixture_path(folder);
    DIR *dir = opendir(path);
    size_t count = 0;
    assert_non_null(dir);
    for (struct dirent *at = readdir(dir); at != NULL; at = readdir(dir)) {
        size_t len = strlen(at->d_name);
        if (len < 4 || strcmp(at->d_name + len - 4, suffix) != 0)
            continue;
        try_fixture(state, folder, at->d_name);
        count++;
    }
    closedir(dir);
    free(path);
    assert_true(count > 10);
}

static void every_fixture_is_served_the_same(void **state)
{
    try_fixtures(state, "valid", ".srd");
    try_fixtures(state, "damaged", ".bin");
}

static void a_plain_copy_of_both_files_is_accepted(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    copy_file(temp_path(state, "s"), temp_path(state, "c"));
    copy_file(temp_path(state, "s.idx"), temp_path(state, "c.idx"));
    expect_source(state, "c", RD_INDEX_SNAPSHOT, "a copy");
}

static void damage_goes_with_it(void **state)
{
    indexed_make(state);
    AUTO_BYTES file = file_load(temp_path(state, "s"));
    uint64_t end = file.len;
    uint64_t ends[8];
    for (size_t i = 0; i < 8; i++) { /* the last entries */
        end = load_le64(file.data + end - 12);
        ends[i] = end;
    }
    file.data[ends[1] - 21] ^= 1;               /* a payload */
    memset(file.data + ends[5] - 20, 0xab, 20); /* a whole trailer */
    file.data[ends[3] - 12] ^= 1;               /* a link */
    unlink(temp_path(state, "s.writer"));       /* it would call them torn */
    file_save(temp_path(state, "s"), file.data, file.len);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_recovering);
    assert_true(store_info(store).damaged_ranges > 1);
    rd_store_close(store);
    index_ok(state, "s");
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "damage");
}

static void a_large_store_is_loaded_by_several_threads(void **state)
{
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 300000);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    unlink(temp_path(state, "s.idx"));
    rd_indexed done = index_ok(state, "s");
    assert_true(done.bytes > (4 << 20));
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "large");
    file_poke(temp_path(state, "s.idx"), done.bytes - 1000, 1);
    assert_int_equal(source_of(state, "s"), RD_INDEX_HARMED);
}

/* ---- It is refused: the file (I-04, I-06) ---------------------------------------------------------------------- */

static void a_flipped_bit_anywhere_in_it_is_noticed(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    AUTO_BYTES index = file_load(temp_path(state, "s.idx"));
    for (size_t at = 0; at < index.len; at++) {
        index.data[at] ^= (uint8_t)(1 << at % 8);
        file_save(temp_path(state, "s.idx"), index.data, index.len);
        rd_index_source source = source_of(state, "s");
        EXPECT(source == RD_INDEX_HARMED || (source == RD_INDEX_OTHER && at < 8) ||
                   (source == RD_INDEX_VERSION && at >= 16 && at < 20),
               "byte %zu: %s", at, rd_index_text(source));
        index.data[at] ^= (uint8_t)(1 << at % 8);
    }
    file_save(temp_path(state, "s.idx"), index.data, index.len);
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "as it was");
}

static void cut_at_any_length_it_is_noticed(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    AUTO_BYTES index = file_load(temp_path(state, "s.idx"));
    for (size_t len = 0; len <= index.len + 1; len++) {
        uint8_t more = 0;
        file_save(temp_path(state, "s.idx"), index.data, len < index.len ? len : index.len);
        if (len > index.len) {
            int fd = open(temp_path(state, "s.idx"), O_WRONLY | O_APPEND | O_CLOEXEC);
            assert_int_equal(write(fd, &more, 1), 1);
            close(fd);
        }
        rd_index_source source = source_of(state, "s");
        EXPECT((source == RD_INDEX_SNAPSHOT) == (len == index.len), "%zu bytes: %s", len, rd_index_text(source));
    }
}

static void what_others_could_have_written_is_not_believed(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    assert_int_equal(chmod(temp_path(state, "s"), 0640), 0);
    assert_int_equal(chmod(temp_path(state, "s.idx"), 0660), 0);
    expect_source(state, "s", RD_INDEX_UNSAFE, "by the group");
    assert_int_equal(chmod(temp_path(state, "s"), 0660), 0); /* who may write the store may write its index */
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "the store too");
    if (geteuid() == 0) {
        assert_int_equal(chown(temp_path(state, "s.idx"), 0, 4711), 0);
        expect_source(state, "s", RD_INDEX_UNSAFE, "by another group");
    }
    assert_int_equal(chmod(temp_path(state, "s.idx"), 0602), 0);
    expect_source(state, "s", RD_INDEX_UNSAFE, "by everybody");
    assert_int_equal(chmod(temp_path(state, "s.idx"), 0600), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(temp_path(state, "s.idx"), 4711, 0), 0);
        expect_source(state, "s", RD_INDEX_UNSAFE, "by another user");
    }
}

static void what_is_no_index_is_passed_over(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    assert_int_equal(rename(temp_path(state, "s.idx"), temp_path(state, "kept")), 0);
    assert_int_equal(symlink(temp_path(state, "kept"), temp_path(state, "s.idx")), 0);
    expect_source(state, "s", RD_INDEX_OTHER, "a link");
    unlink(temp_path(state, "s.idx"));
    assert_int_equal(mkfifo(temp_path(state, "s.idx"), 0600), 0);
    expect_source(state, "s", RD_INDEX_OTHER, "a FIFO"); /* and doesn't hang */
    unlink(temp_path(state, "s.idx"));
    copy_file(temp_path(state, "s"), temp_path(state, "s.idx"));
    expect_source(state, "s", RD_INDEX_OTHER, "a store");
}

/* ---- It is refused: the store (I-07, I-09) --------------------------------------------------------------------- */

static void another_stores_index_is_refused(void **state)
{
    indexed_make(state);
    rd_store *store = store_make(state, "other");
    store_fill(store, 0, 10);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    index_ok(state, "other");
    copy_file(temp_path(state, "other.idx"), temp_path(state, "s.idx"));
    expect_source(state, "s", RD_INDEX_CHANGED, "a smaller store's");
    index_ok(state, "s");
    copy_file(temp_path(state, "s.idx"), temp_path(state, "other.idx"));
    expect_source(state, "other", RD_INDEX_SHORTENED, "a larger store's");
}

static void a_store_cut_anywhere_refuses_it(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    AUTO_BYTES file = file_load(temp_path(state, "s"));
    unlink(temp_path(state, "s.writer"));
    for (uint64_t end = load_le64(file.data + file.len - 12); end > 0; end = load_le64(file.data + end - 12)) {
        assert_int_equal(truncate(temp_path(state, "s"), (off_t)end), 0);
        expect_source(state, "s", RD_INDEX_SHORTENED, "cut");
    }
}

static void set_modified(const char *path, struct timespec when)
{
    assert_int_equal(utimensat(AT_FDCWD, path, (const struct timespec[]){{.tv_nsec = UTIME_OMIT}, when}, 0), 0);
}

/* I-07: where no mark shows what was written. */
static void the_very_file_modified_since_refuses_it_and_a_copy_does_not(void **state)
{
    struct stat before;
    indexed_make(state);
    index_ok(state, "s");
    assert_int_equal(stat(temp_path(state, "s"), &before), 0);
    set_modified(temp_path(state, "s"), (struct timespec){.tv_sec = before.st_mtim.tv_sec, .tv_nsec = 1});
    expect_source(state, "s", RD_INDEX_CHANGED, "modified");
    copy_file(temp_path(state, "s"), temp_path(state, "copy"));
    copy_file(temp_path(state, "s.idx"), temp_path(state, "copy.idx"));
    expect_source(state, "copy", RD_INDEX_SNAPSHOT, "a copy of both");
    set_modified(temp_path(state, "s"), before.st_mtim);
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "as it was");
}

/* Cut after so many entries from the end, then as many of the same sizes, and then `identical` as they were. */
static void cut_and_append(void **state, const struct bytes *file, size_t cut, size_t identical)
{
    uint64_t ends[64];
    uint64_t end = file->len;
    for (size_t i = 0; i <= cut; i++) {
        ends[i] = end;
        end = load_le64(file->data + end - 12);
    }
    AUTO_BYTES other = {0};
    bytes_append(&other, file->data, ends[cut]);
    for (size_t i = cut; i-- > 0;) {
        uint64_t hash = load_le64(file->data + ends[i] - 20);
        uint64_t start = (ends[i + 1] + 63) / 64 * 64;
        bool tombstone = ends[i] - ends[i + 1] == 21;
        if (tombstone)
            build_tombstone(&other, i < identical ? hash : hash + 1);
        else
            build_entry(&other, i < identical ? hash : hash + 1, (rd_span){file->data + start, ends[i] - 20 - start},
                        64);
    }
    assert_int_equal(other.len, file->len);
    struct stat before;
    assert_int_equal(stat(temp_path(state, "s"), &before), 0);
    file_save(temp_path(state, "s"), other.data, other.len);
    set_modified(temp_path(state, "s"), before.st_mtim); /* the bytes alone are to tell */
    char what[64];
    snprintf(what, sizeof what, "%zu cut, the last %zu the same", cut, identical);
    expect_source(state, "s", RD_INDEX_CHANGED, what);
}

static void a_store_cut_and_filled_to_the_same_size_refuses_it(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    unlink(temp_path(state, "s.writer"));
    AUTO_BYTES file = file_load(temp_path(state, "s"));
    for (size_t cut = 1; cut < 12; cut++)
        for (size_t identical = 0; identical < cut; identical++)
            cut_and_append(state, &file, cut, identical);
}

/* As the crate does it: in the same file, without a word. */
static void what_something_else_appended_refuses_it(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    AUTO_BYTES file = file_load(temp_path(state, "s"));
    build_entry(&file, 4711, text_span("by the crate"), 64);
    build_entry(&file, fill_hash(7), text_span("it too"), 64);
    file_save(temp_path(state, "s"), file.data, file.len); /* the same inode: the line still fits */
    expect_source(state, "s", RD_INDEX_APPENDED, "after our writer");
    unlink(temp_path(state, "s.writer"));
    expect_source(state, "s", RD_INDEX_APPENDED, "without a line");
}

/* The crate's own: each store that it went on with is a beginning, and what it appended. */
static void what_the_crate_appended_refuses_it(void **state)
{
    static const char *const names[] = {"valid/03_bench1000.srd", "valid/04_overwrites.srd", "valid/05_deletes.srd",
                                        "valid/10_payload_sizes.srd", "valid/15_before_compaction.srd"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        AUTO_BYTES file = fixture_load(names[i]);
        uint64_t end = file.len;
        for (size_t back = 0; back < 3; back++)
            end = load_le64(file.data + end - 12);
        file_save(temp_path(state, "c"), file.data, end);
        index_ok(state, "c");
        expect_source(state, "c", RD_INDEX_SNAPSHOT, names[i]);
        file_save(temp_path(state, "c"), file.data, file.len);
        expect_source(state, "c", RD_INDEX_APPENDED, names[i]);
    }
}

static void what_the_crate_compacted_refuses_it(void **state)
{
    AUTO_BYTES before = fixture_load("valid/15_before_compaction.srd");
    AUTO_BYTES after = fixture_load("valid/15_compacted.srd");
    file_save(temp_path(state, "c"), before.data, before.len);
    index_ok(state, "c");
    file_save(temp_path(state, "c"), after.data, after.len);
    expect_source(state, "c", RD_INDEX_SHORTENED, "smaller");
    index_ok(state, "c");
    file_save(temp_path(state, "c"), before.data, before.len);
    expect_source(state, "c", RD_INDEX_CHANGED, "and back");
}

/* The order of a hash table, all sizes equal: each trailer lies where another was. */
static void a_compaction_of_equal_sizes_refuses_it(void **state)
{
    static const size_t counts[] = {2, 3, 40, 63, 64, 65, 1000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        AUTO_BYTES before = {0};
        AUTO_BYTES after = {0};
        for (uint64_t i = 0; i < counts[c]; i++) {
            uint64_t value = i;
            build_entry(&before, fill_hash(i), (rd_span){&value, sizeof value}, 64);
            value = counts[c] - 1 - i;
            build_entry(&after, fill_hash(value), (rd_span){&value, sizeof value}, 64);
        }
        assert_int_equal(before.len, after.len);
        file_save(temp_path(state, "c"), before.data, before.len);
        index_ok(state, "c");
        file_save(temp_path(state, "c"), after.data, after.len);
        expect_source(state, "c", RD_INDEX_CHANGED, "equal sizes");
    }
}

static void a_line_that_knows_of_more_refuses_it(void **state)
{
    indexed_make(state);
    AUTO_BYTES file = file_load(temp_path(state, "s"));
    uint64_t end = load_le64(file.data + file.len - 12);
    assert_int_equal(truncate(temp_path(state, "s"), (off_t)end), 0);
    index_ok(state, "s"); /* of what is left; the line says that there was one more */
    expect_source(state, "s", RD_INDEX_SHORTENED, "cut since");
}

/* ---- What was torn (I-08) ---------------------------------------------------------------------------------------- */

static void what_was_torn_goes_by_the_line(void **state)
{
    static const rd_open_options open_always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};
    rd_written torn;
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    store_put(store, "a", "durable", 7);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_writing);
    torn = store_put(store, "a", "torn by a power cut", 19);
    store_put(store, "b", "behind it", 9);
    rd_store_close(store);
    file_poke(temp_path(state, "s"), torn.tail_off - 25, 1);
    index_ok(state, "s");
    expect_source(state, "s", RD_INDEX_TORN, "nobody has put it right yet");
    store = store_open_ok(temp_path(state, "s"), &open_always); /* what is torn is superseded and remembered */
    store_put(store, "c", "goes on", 7);
    rd_store_close(store);
    index_ok(state, "s");
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "remembered");
    assert_int_equal(rename(temp_path(state, "s.writer"), temp_path(state, "line")), 0);
    expect_source(state, "s", RD_INDEX_TORN, "the line is lost");
    index_ok(state, "s");
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "damage, without a line");
    assert_int_equal(rename(temp_path(state, "line"), temp_path(state, "s.writer")), 0);
    expect_source(state, "s", RD_INDEX_TORN, "the line is back");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(a_store_opened_by_it_is_as_one_recovered),
        TEMP_TEST(every_fixture_is_served_the_same),
        TEMP_TEST(a_plain_copy_of_both_files_is_accepted),
        TEMP_TEST(damage_goes_with_it),
        TEMP_TEST(a_large_store_is_loaded_by_several_threads),
        TEMP_TEST(a_flipped_bit_anywhere_in_it_is_noticed),
        TEMP_TEST(cut_at_any_length_it_is_noticed),
        TEMP_TEST(what_others_could_have_written_is_not_believed),
        TEMP_TEST(what_is_no_index_is_passed_over),
        TEMP_TEST(another_stores_index_is_refused),
        TEMP_TEST(a_store_cut_anywhere_refuses_it),
        TEMP_TEST(a_store_cut_and_filled_to_the_same_size_refuses_it),
        TEMP_TEST(the_very_file_modified_since_refuses_it_and_a_copy_does_not),
        TEMP_TEST(what_something_else_appended_refuses_it),
        TEMP_TEST(what_the_crate_appended_refuses_it),
        TEMP_TEST(what_the_crate_compacted_refuses_it),
        TEMP_TEST(a_compaction_of_equal_sizes_refuses_it),
        TEMP_TEST(a_line_that_knows_of_more_refuses_it),
        TEMP_TEST(what_was_torn_goes_by_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
