/* Compaction: the live entries alone, in file order, in a file that takes the place of the old one in all. */
#include "compacting.h"
#include "manifest.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- What is left ------------------------------------------------------------------------------------------------ */

static void live_entries_alone_are_left_in_their_order(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    rd_store_info before = store_info(store);
    rd_compacted done = compact_ok(store);
    file_expect(temp_path(state, "s"), want.data, want.len, "compacted");
    expect_mixed(store);
    rd_store_info after = store_info(store);
    assert_int_equal(done.entries, 253);
    assert_int_equal(done.bytes_written, want.len);
    assert_int_equal(done.bytes_reclaimed, before.file_size - want.len);
    assert_int_equal(done.bytes_reclaimed, before.reclaimable_bytes);
    assert_int_equal(after.entries, 253);
    assert_int_equal(after.tail_off, want.len);
    assert_int_equal(after.live_keys, before.live_keys);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_int_equal(after.reclaimable_bytes, 0);
    assert_int_equal(after.generation, before.generation + 1);
    store_put(store, "more", "goes on", 7);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_reading);
    store_expect(store, rd_hash(text_span("more")), "goes on", 7);
    assert_int_equal(rd_store_len(store), 254);
    assert_int_equal(store_info(store).live_bytes, before.live_bytes + 7);
    rd_store_close(store);
}

static void second_compaction_changes_no_byte(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    compact_ok(store);
    rd_compacted done = compact_ok(store);
    assert_int_equal(done.bytes_reclaimed, 0);
    file_expect(temp_path(state, "s"), want.data, want.len, "compacted twice");
    expect_mixed(store);
    rd_store_close(store);
}

static void estimate_is_what_a_compaction_saves(void **state)
{
    rd_store *store = store_make(state, "s");
    for (uint64_t round = 1; round < 40; round++) {
        AUTO_BYTES value = bytes_xorshift(round, round * 3);
        store_put(store, "a", value.data, value.len);
        store_put(store, "b", value.data, value.len / 2 + 2);
        if (round % 3 == 0)
            remove_key(store, rd_hash(text_span("a")));
        rd_store_info info = store_info(store);
        rd_compacted done = compact_ok(store);
        /* the pad behind the newest entry is not saved where that is a deletion */
        uint64_t slack = round % 3 == 0 ? 63 : 0;
        EXPECT(done.bytes_reclaimed <= info.reclaimable_bytes + slack &&
                   done.bytes_reclaimed + slack >= info.reclaimable_bytes,
               "round %" PRIu64 ": %" PRIu64 ", estimated %" PRIu64, round, done.bytes_reclaimed,
               info.reclaimable_bytes);
    }
    rd_store_close(store);
}

static void store_without_live_keys_becomes_an_empty_file(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_compacted done = compact_ok(store);
    assert_int_equal(done.bytes_written, 0);
    assert_int_equal(file_len(temp_path(state, "s")), 0);
    store_fill(store, 0, 100);
    for (uint64_t i = 0; i < 100; i++)
        remove_key(store, fill_hash(i));
    uint64_t estimate = store_info(store).reclaimable_bytes;
    done = compact_ok(store);
    assert_int_equal(done.entries, 0);
    assert_int_equal(done.bytes_reclaimed, estimate);
    assert_int_equal(file_len(temp_path(state, "s")), 0);
    assert_true(rd_store_is_empty(store));
    rd_entry last = {0};
    assert_int_equal(rd_store_read_last(store, &last), RD_ABSENT);
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_reading);
    store_expect(store, rd_hash(text_span("k")), "value", 5);
    assert_int_equal(rd_store_len(store), 1);
    rd_store_close(store);
}

static void crates_store_compacts_to_the_keys_of_its_own_compaction(void **state)
{
    AUTO_FIXTURE before = fixture_get("15_before_compaction.srd");
    AUTO_FIXTURE theirs = fixture_get("15_compacted.srd");
    const char *path = temp_path(state, "s");
    file_save(path, before.file.data, before.file.len);
    rd_store *store = store_open_ok(path, &open_writing);
    compact_ok(store);
    rd_store_close(store);
    store = store_open_ok(path, &open_reading);
    size_t i;
    json_t *key;
    uint64_t live = 0;
    json_array_foreach(field(theirs.manifest, "keys"), i, key)
    {
        rd_entry entry = {0};
        rd_err err = rd_store_read_hash(store, field_hash(key, "key_hash"), &entry);
        bool is_live = field_is(key, "state", "live");
        EXPECT(err == (is_live ? RD_OK : RD_ABSENT), "%s: %s", field_text(key, "key_hash"), rd_err_text(err));
        EXPECT(!is_live || payload_matches(key, entry.payload), "%s", field_text(key, "key_hash"));
        live += is_live;
        rd_entry_release(&entry);
    }
    assert_int_equal(rd_store_len(store), live);
    /* the order differs, and with it what the last entry needs no pad for */
    assert_int_equal((file_len(path) + 63) / 64, (theirs.file.len + 63) / 64);
    rd_store_close(store);
}

/* ---- The file's surroundings ------------------------------------------------------------------------------------- */

static void link_stays_a_link(void **state)
{
    AUTO_BYTES want = {0};
    rd_store_close(make_mixed(state, &want));
    struct stat st;
    assert_int_equal(symlink("s", temp_path(state, "link")), 0);
    rd_store *store = store_open_ok(temp_path(state, "link"), &open_writing);
    compact_ok(store);
    rd_store_close(store);
    assert_int_equal(lstat(temp_path(state, "link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(lstat(temp_path(state, "s"), &st), 0);
    assert_true(S_ISREG(st.st_mode));
    file_expect(temp_path(state, "s"), want.data, want.len, "behind the link");
}

static void new_file_has_the_mode_of_the_old(void **state)
{
    const mode_t modes[] = {0600, 0640, 0666};
    struct stat st;
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        assert_int_equal(chmod(temp_path(state, "s"), modes[i]), 0);
        compact_ok(store);
        assert_int_equal(stat(temp_path(state, "s"), &st), 0);
        assert_int_equal(st.st_mode & 07777, modes[i]);
    }
    rd_store_close(store);
}

static void other_writers_stay_locked_out(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    store_open_fails(temp_path(state, "s"), &open_writing, RD_E_LOCKED);
    compact_ok(store);
    store_open_fails(temp_path(state, "s"), &open_writing, RD_E_LOCKED);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_writing);
    expect_mixed(store);
    rd_store_close(store);
}

/* STORE.writer must speak for the new file, or a crash would be judged without it. */
static void writers_line_names_the_new_file(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    struct stat st;
    compact_ok(store);
    assert_int_equal(stat(temp_path(state, "s"), &st), 0);
    AUTO_BYTES line = file_load(temp_path(state, "s.writer"));
    bytes_append(&line, "", 1);
    uint64_t inode = 0, synced = 0;
    const char *at = strstr((const char *)line.data, " inode=");
    EXPECT(at != NULL && sscanf(at, " inode=%" SCNu64 " synced=%" SCNu64, &inode, &synced) == 2, "%s", line.data);
    assert_int_equal(inode, st.st_ino);
    assert_int_equal(synced, want.len);
    rd_store_close(store);
}

/* E-08 */
static void snapshot_of_the_index_and_left_overs_go(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    file_save(temp_path(state, "s.idx"), "rdrv-idx of the old file", 24); /* I-12 */
    file_save(temp_path(state, "s.compact"), "left over", 9);
    file_save(temp_path(state, "s.bk"), "the crate's", 11);
    compact_ok(store);
    assert_int_not_equal(access(temp_path(state, "s.idx"), F_OK), 0);
    assert_int_not_equal(access(temp_path(state, "s.compact"), F_OK), 0);
    file_expect(temp_path(state, "s.bk"), "the crate's", 11, "not ours");
    file_expect(temp_path(state, "s"), want.data, want.len, "compacted");
    rd_store_close(store);
    assert_int_equal(symlink("s", temp_path(state, "s.compact")), 0);
    file_save(temp_path(state, "s.idx"), "is no index", 11);
    store = store_open_ok(temp_path(state, "s"), &open_writing);
    compact_ok(store); /* the link goes, not what it leads to */
    file_expect(temp_path(state, "s.idx"), "is no index", 11, "not ours");
    file_expect(temp_path(state, "s"), want.data, want.len, "compacted");
    rd_store_close(store);
}

static void left_over_that_somebody_has_open_is_not_taken(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    const char *path = temp_path(state, "s.compact");
    file_save(path, "theirs", 6);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    compact_fails(store, temp_path(state, "s"), NULL, RD_E_LOCKED, ".compact");
    file_expect(path, "theirs", 6, "somebody's");
    close(fd);
    compact_ok(store);
    expect_mixed(store);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(live_entries_alone_are_left_in_their_order),
        TEMP_TEST(second_compaction_changes_no_byte),
        TEMP_TEST(estimate_is_what_a_compaction_saves),
        TEMP_TEST(store_without_live_keys_becomes_an_empty_file),
        TEMP_TEST(crates_store_compacts_to_the_keys_of_its_own_compaction),
        TEMP_TEST(link_stays_a_link),
        TEMP_TEST(new_file_has_the_mode_of_the_old),
        TEMP_TEST(other_writers_stay_locked_out),
        TEMP_TEST(writers_line_names_the_new_file),
        TEMP_TEST(snapshot_of_the_index_and_left_overs_go),
        TEMP_TEST(left_over_that_somebody_has_open_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
