/* I-09 to I-12: making the snapshot index, and writing to a store that has one. */
#include "index_file_format.h"

#include "indexing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const rd_open_options open_always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};
static const rd_open_options open_indexing = {.writable = true, .create = true, .index_after = 1};

/* ---- A store that goes on (I-09) --------------------------------------------------------------------------------- */

/* Overwrite, delete and add, one after the other: superseded and new keys on both sides of T. */
static void change(rd_store *store, unsigned round)
{
    rd_written done;
    AUTO_BYTES large = bytes_xorshift(round + 100, 90000);
    char key[32];
    snprintf(key, sizeof key, "new-%u", round);
    store_put(store, key, "is new", 6);
    snprintf(key, sizeof key, "key-%u", 4 + round % 9);
    store_put(store, key, large.data, large.len);
    assert_int_equal(rd_store_delete(store, text_span("last"), &done), RD_OK);
    store_put(store, "large", "is small now", 12);
    snprintf(key, sizeof key, "key-%u", 5 + round % 9);
    assert_int_equal(rd_store_delete(store, text_span(key), &done), RD_OK);
    store_put(store, "last", &round, sizeof round);
}

static void what_our_writer_appended_is_merged(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    for (unsigned round = 0; round < 6; round++) {
        rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
        assert_int_equal(store_info(store).index_source, RD_INDEX_SNAPSHOT);
        change(store, round);
        rd_store_close(store);
        expect_source(state, "s", RD_INDEX_SNAPSHOT, "appended");
    }
}

/* As kill -9 leaves it: nothing is closed. */
static void work_and_die(void **state, unsigned round, bool torn)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        rd_store *store = NULL;
        rd_fault fault;
        if (rd_store_open(temp_path(state, "s"), torn ? &open_writing : &open_always, &fault, &store) != RD_OK)
            _exit(2);
        change(store, round);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    if (torn)
        assert_int_equal(truncate(temp_path(state, "s"), (off_t)file_len(temp_path(state, "s")) - 3), 0);
}

static void a_writer_that_was_killed_leaves_it_good(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    for (unsigned round = 0; round < 4; round++) {
        work_and_die(state, round, round % 2 == 1);
        expect_source(state, "s", RD_INDEX_SNAPSHOT, "killed");
    }
}

static void a_late_tail_of_bytes_that_lead_elsewhere_refuses_it(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    work_and_die(state, 1, false);
    AUTO_BYTES file = file_load(temp_path(state, "s"));
    uint64_t ends[3] = {file.len};
    for (size_t i = 1; i < 3; i++)
        ends[i] = load_le64(file.data + ends[i - 1] - 12);
    file.data[ends[1] - 21] ^= 1; /* the payload of the last but one */
    file_save(temp_path(state, "s"), file.data, file.len);
    expect_source(state, "s", RD_INDEX_BROKEN, "damage above");
    file.data[ends[1] - 21] ^= 1;
    file_save(temp_path(state, "s"), file.data, file.len);
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "as it was");
}

static void the_newest_payload_is_checked(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    file_poke(temp_path(state, "s"), file_len(temp_path(state, "s")) - 21, 1);
    expect_source(state, "s", RD_INDEX_CHANGED, "a flipped bit in it");
}

/* ---- Making it (I-10, I-11) ---------------------------------------------------------------------------------------
 */

static bool has_index(void **state)
{
    return access(temp_path(state, "s.idx"), F_OK) == 0;
}

static void closing_makes_it_where_enough_has_come(void **state)
{
    rd_open_options options = {.writable = true, .create = true, .sync = RD_SYNC_NONE};
    rd_store *store = store_open_ok(temp_path(state, "s"), &options);
    store_fill(store, 0, 99999);
    rd_store_close(store);
    assert_false(has_index(state));
    store = store_open_ok(temp_path(state, "s"), &options);
    store_fill(store, 0, 1);
    rd_store_close(store); /* 100,000, of more than one opening, and synced for it */
    assert_true(has_index(state));
    assert_int_equal(source_of(state, "s"), RD_INDEX_SNAPSHOT);
    uint64_t bytes = file_len(temp_path(state, "s.idx"));
    AUTO_BYTES before = file_load(temp_path(state, "s.idx"));
    store = store_open_ok(temp_path(state, "s"), &options);
    assert_int_equal(store_info(store).index_source, RD_INDEX_SNAPSHOT);
    store_fill(store, 200000, 90000);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store); /* not yet */
    file_expect(temp_path(state, "s.idx"), before.data, bytes, "too few have come");
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "as it was");
    store = store_open_ok(temp_path(state, "s"), &options);
    store_fill(store, 300000, 10000);
    rd_store_close(store);
    assert_true(file_len(temp_path(state, "s.idx")) > bytes);
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "anew");
}

static void off_makes_and_believes_none(void **state)
{
    rd_open_options options = open_indexing;
    options.index = "off";
    rd_store *store = store_open_ok(temp_path(state, "s"), &options);
    store_put(store, "k", "v", 1);
    rd_store_close(store);
    assert_false(has_index(state));
    index_ok(state, "s");
    store = store_open_ok(temp_path(state, "s"), &options);
    assert_int_equal(store_info(store).index_source, RD_INDEX_OFF);
    rd_store_close(store);
}

static void it_may_lie_elsewhere(void **state)
{
    rd_open_options options = open_indexing;
    options.index = temp_path(state, "elsewhere");
    rd_store *store = store_open_ok(temp_path(state, "s"), &options);
    store_put(store, "k", "v", 1);
    rd_store_close(store);
    assert_false(has_index(state));
    rd_open_options reading = {.index = temp_path(state, "elsewhere")};
    store = store_open_ok(temp_path(state, "s"), &reading);
    assert_int_equal(store_info(store).index_source, RD_INDEX_SNAPSHOT);
    rd_store_close(store);
    assert_int_equal(symlink(temp_path(state, "elsewhere"), temp_path(state, "link")), 0);
    reading.index = temp_path(state, "link"); /* who names it may name a link, as volumes are made of */
    store = store_open_ok(temp_path(state, "s"), &reading);
    assert_int_equal(store_info(store).index_source, RD_INDEX_SNAPSHOT);
    rd_store_close(store);
}

static void it_lies_beside_the_file_that_a_link_leads_to(void **state)
{
    indexed_make(state);
    assert_int_equal(symlink(temp_path(state, "s"), temp_path(state, "link")), 0);
    index_ok(state, "link");
    assert_true(has_index(state));
    expect_source(state, "link", RD_INDEX_SNAPSHOT, "by the link");
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "by its name");
}

static void reading_makes_and_removes_nothing(void **state)
{
    rd_open_options options = {.index_after = 1};
    indexed_make(state);
    rd_store *store = store_open_ok(temp_path(state, "s"), &options);
    rd_store_close(store);
    assert_false(has_index(state));
    index_ok(state, "s");
    file_poke(temp_path(state, "s.idx"), 200, 1);
    AUTO_BYTES index = file_load(temp_path(state, "s.idx"));
    expect_source(state, "s", RD_INDEX_HARMED, "harmed");
    file_expect(temp_path(state, "s.idx"), index.data, index.len, "left alone");
}

static void opening_for_writing_removes_a_stale_one(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    file_poke(temp_path(state, "s.idx"), 200, 1);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_writing);
    assert_int_equal(store_info(store).index_source, RD_INDEX_HARMED);
    assert_false(has_index(state));
    rd_store_close(store);
}

/* I-12: such as another store of that name. */
static void what_is_no_index_is_neither_removed_nor_replaced(void **state)
{
    static const char *const names[] = {"s.idx", "s.idx.new"};
    for (size_t i = 0; i < 2; i++) {
        rd_fault fault;
        rd_indexed done;
        indexed_make(state);
        copy_file(temp_path(state, "s"), temp_path(state, names[i]));
        AUTO_BYTES other = file_load(temp_path(state, names[i]));
        rd_store *store = store_open_ok(temp_path(state, "s"), &open_indexing);
        assert_int_equal(rd_store_save_index(store, NULL, &fault, &done), RD_E_IO);
        assert_int_equal(fault.os_error, EEXIST);
        assert_non_null(strstr(fault.text, "move it away"));
        store_put(store, "more", "value", 5);
        rd_store_close(store);
        file_expect(temp_path(state, names[i]), other.data, other.len, names[i]);
        unlink(temp_path(state, names[i]));
    }
}

/* I-12: neither where its first value begins as an index does, nor under another name. */
static void the_store_itself_is_never_taken_for_its_index(void **state)
{
    static const char *const names[] = {"s", "linked"};
    rd_store *store = store_make(state, "s");
    store_put(store, "first", "rdrv-idx and more", 17);
    store_fill(store, 0, 10);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    assert_int_equal(link(temp_path(state, "s"), temp_path(state, "linked")), 0);
    AUTO_BYTES before = file_load(temp_path(state, "s"));
    for (size_t i = 0; i < 2; i++) {
        rd_fault fault;
        rd_indexed done;
        const rd_open_options options = {.writable = true, .index = temp_path(state, names[i]), .index_after = 1};
        store = store_open_ok(temp_path(state, "s"), &open_recovering);
        assert_int_equal(rd_store_save_index(store, temp_path(state, names[i]), &fault, &done), RD_E_IO);
        assert_non_null(strstr(fault.text, "move it away"));
        rd_store_close(store);
        file_expect(temp_path(state, names[i]), before.data, before.len, names[i]);
        store = store_open_ok(temp_path(state, "s"), &options);
        assert_int_equal(store_info(store).index_source, RD_INDEX_OTHER);
        rd_store_close(store);
        file_expect(temp_path(state, names[i]), before.data, before.len, names[i]);
    }
    unlink(temp_path(state, "linked")); /* a file with a second name is not compacted */
    const rd_open_options options = {.writable = true, .index = temp_path(state, "s"), .index_after = 1};
    store = store_open_ok(temp_path(state, "s"), &options);
    rd_compacted compacted;
    assert_int_equal(rd_store_compact(store, NULL, NULL, &compacted), RD_OK);
    rd_store_close(store);
    assert_int_equal(source_of(state, "s"), RD_INDEX_NONE);
}

/* It would be removed as what a crash left of an index that is to be "s". */
static void a_store_by_the_name_of_a_new_index_is_left_alone(void **state)
{
    rd_fault fault;
    rd_indexed done;
    rd_store *store = store_make(state, "s.new");
    store_put(store, "first", "rdrv-idx and more", 17);
    assert_int_equal(rd_store_save_index(store, temp_path(state, "s"), &fault, &done), RD_E_IO);
    assert_non_null(strstr(fault.text, "move it away"));
    rd_store_close(store);
    assert_int_equal(source_of(state, "s.new"), RD_INDEX_NONE);
}

static void an_empty_file_is_not_replaced(void **state)
{
    rd_fault fault;
    rd_indexed done;
    indexed_make(state);
    file_save(temp_path(state, "other"), "", 0);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_recovering);
    assert_int_equal(rd_store_save_index(store, temp_path(state, "other"), &fault, &done), RD_E_IO);
    assert_non_null(strstr(fault.text, "move it away"));
    rd_store_close(store);
    assert_int_equal(file_len(temp_path(state, "other")), 0);
}

static void a_link_in_its_place_is_not_followed(void **state)
{
    rd_fault fault;
    rd_indexed done;
    indexed_make(state);
    assert_int_equal(symlink(temp_path(state, "target"), temp_path(state, "s.idx")), 0);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_recovering);
    assert_int_equal(rd_store_save_index(store, NULL, &fault, &done), RD_E_IO);
    assert_non_null(strstr(fault.text, "symbolic link"));
    rd_store_close(store);
    assert_int_not_equal(access(temp_path(state, "target"), F_OK), 0);
}

static void opening_by_it_can_be_cancelled(void **state)
{
    atomic_bool cancel = true;
    const rd_open_options options = {.cancel = &cancel};
    indexed_make(state);
    index_ok(state, "s");
    store_open_fails(temp_path(state, "s"), &options, RD_E_CANCELLED);
}

static void what_a_crash_left_of_one_is_removed(void **state)
{
    indexed_make(state);
    file_save(temp_path(state, "s.idx.new"), "rdrv-idx, half of it", 20);
    index_ok(state, "s");
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "made");
    assert_int_equal(temp_count(state), 3);
    file_save(temp_path(state, "s.idx.new"), "", 0);
    index_ok(state, "s");
    assert_int_equal(temp_count(state), 3);
}

static void one_that_is_being_made_is_left_to_its_maker(void **state)
{
    rd_fault fault;
    rd_indexed done;
    indexed_make(state);
    file_save(temp_path(state, "s.idx.new"), "rdrv-idx", 8);
    int fd = open(temp_path(state, "s.idx.new"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_recovering);
    assert_int_equal(rd_store_save_index(store, NULL, &fault, &done), RD_E_LOCKED);
    file_expect(temp_path(state, "s.idx.new"), "rdrv-idx", 8, "its maker's");
    close(fd);
    assert_int_equal(rd_store_save_index(store, NULL, &fault, &done), RD_OK);
    rd_store_close(store);
}

static void an_empty_store_needs_none(void **state)
{
    rd_fault fault;
    rd_indexed done;
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_indexing);
    assert_int_equal(rd_store_save_index(store, NULL, &fault, &done), RD_ABSENT);
    assert_non_null(strstr(fault.text, "no entry"));
    rd_store_close(store);
    assert_int_equal(temp_count(state), 1);
}

/* I-05: what it is depends on what will be appended. */
static void damage_at_the_end_allows_none(void **state)
{
    rd_fault fault;
    rd_indexed done;
    indexed_make(state);
    file_poke(temp_path(state, "s"), file_len(temp_path(state, "s")) - 21, 1);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_recovering);
    assert_int_equal(store_info(store).damaged_ranges, 1);
    assert_int_equal(rd_store_save_index(store, NULL, &fault, &done), RD_E_DAMAGED);
    rd_store_close(store);
}

static void a_compaction_removes_it_and_closing_makes_another(void **state)
{
    rd_fault fault;
    rd_compacted compacted;
    indexed_make(state);
    index_ok(state, "s");
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_indexing);
    assert_int_equal(rd_store_compact(store, NULL, &fault, &compacted), RD_OK);
    assert_false(has_index(state));
    rd_store_close(store);
    assert_true(has_index(state));
    expect_source(state, "s", RD_INDEX_SNAPSHOT, "of the compacted file");
}

/* ---- What no accident makes ---------------------------------------------------------------------------------------
 */

/* The file with one field changed and its sums right. */
static void expect_resealed(void **state, const struct bytes *index, uint64_t offset, size_t len, uint64_t add,
                            const char *what)
{
    struct bytes changed = {.data = malloc(index->len), .len = index->len};
    uint64_t value = 0;
    assert_non_null(changed.data);
    memcpy(changed.data, index->data, index->len);
    memcpy(&value, changed.data + offset, len);
    value += add;
    memcpy(changed.data + offset, &value, len);
    index_reseal(&changed);
    file_save(temp_path(state, "s.idx"), changed.data, changed.len);
    rd_index_source source = source_of(state, "s");
    EXPECT(source == RD_INDEX_HARMED || source == RD_INDEX_SHORTENED || source == RD_INDEX_CHANGED, "%s: %s", what,
           rd_index_text(source));
    bytes_free(&changed);
}

#define FIELD(name) offsetof(struct raw_index_head, name), sizeof(((struct raw_index_head *)NULL)->name)

/* I-02, I-03, I-05 */
static void what_no_store_has_is_refused_whatever_the_sums_say(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    AUTO_BYTES index = file_load(temp_path(state, "s.idx"));
    static const uint64_t most = (uint64_t)1 << 63;
    const struct {
        uint64_t offset;
        size_t len;
        uint64_t add;
        const char *what;
    } changes[] = {
        {FIELD(mark_count), 1, "one mark more"},
        {FIELD(mark_count), (uint32_t)-1, "the last mark is missing"},
        {FIELD(mark_count), 1000, "more marks than have room"},
        {FIELD(file_len), 4096, "another length"},
        {FIELD(tail_off), 1, "another tail"},
        {FIELD(tail_off), most, "a tail behind everything"},
        {FIELD(secret), 1, "another secret"},
        {FIELD(used), 1, "a slot that isn't there"},
        {FIELD(used), most, "all slots there are"},
        {FIELD(blocks_log2), 1, "twice the blocks"},
        {FIELD(blocks_log2), 60, "blocks without end"},
        {FIELD(block_slots), 4, "larger blocks"},
        {FIELD(block_slots), (uint32_t)-64, "no slots"},
        {FIELD(entries), most, "entries without end"},
        {FIELD(live_keys), 100, "more keys than slots"},
        {FIELD(live_keys), (uint64_t)-1, "fewer keys than slots"},
        {FIELD(live_bytes), most, "more bytes than the store has"},
        {FIELD(live_stored), most, "more stored bytes"},
        {FIELD(damaged_keys), 1, "damaged keys without damage"},
        {FIELD(damage_count), most, "ranges without end"},
        {FIELD(damage_count), 1, "a range of zeros"},
        {FIELD(provisional_count), most, "provisional payloads without end"},
        {FIELD(provisional_count), 1, "a provisional payload at 0"},
        {FIELD(recent), 1, "another sum of the newest trailers"},
        {offsetof(struct raw_index_head, marks), 8, most, "a mark behind everything"},
        {offsetof(struct raw_index_head, marks) + 28, 8, (uint64_t)-1000000, "marks that descend"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        expect_resealed(state, &index, changes[i].offset, changes[i].len, changes[i].add, changes[i].what);
    for (uint64_t at = 4096; at < index.len; at += 16) {
        if (load_le64(index.data + at + 8) == 0)
            continue;
        expect_resealed(state, &index, at + 8, 8, (uint64_t)1 << 40, "an offset behind T");
        expect_resealed(state, &index, at + 8, 8, (uint64_t)1 << 49, "a flag of an opening");
        expect_resealed(state, &index, at + 8, 8, (uint64_t)1 << 50, "a damaged key without damage");
        expect_resealed(state, &index, at + 8, 8, (uint64_t)1 << 63, "a flag of a table that moves");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(what_our_writer_appended_is_merged),
        TEMP_TEST(a_writer_that_was_killed_leaves_it_good),
        TEMP_TEST(a_late_tail_of_bytes_that_lead_elsewhere_refuses_it),
        TEMP_TEST(the_newest_payload_is_checked),
        TEMP_TEST(closing_makes_it_where_enough_has_come),
        TEMP_TEST(off_makes_and_believes_none),
        TEMP_TEST(it_may_lie_elsewhere),
        TEMP_TEST(it_lies_beside_the_file_that_a_link_leads_to),
        TEMP_TEST(reading_makes_and_removes_nothing),
        TEMP_TEST(opening_for_writing_removes_a_stale_one),
        TEMP_TEST(what_is_no_index_is_neither_removed_nor_replaced),
        TEMP_TEST(the_store_itself_is_never_taken_for_its_index),
        TEMP_TEST(a_store_by_the_name_of_a_new_index_is_left_alone),
        TEMP_TEST(an_empty_file_is_not_replaced),
        TEMP_TEST(a_link_in_its_place_is_not_followed),
        TEMP_TEST(opening_by_it_can_be_cancelled),
        TEMP_TEST(what_a_crash_left_of_one_is_removed),
        TEMP_TEST(one_that_is_being_made_is_left_to_its_maker),
        TEMP_TEST(an_empty_store_needs_none),
        TEMP_TEST(damage_at_the_end_allows_none),
        TEMP_TEST(a_compaction_removes_it_and_closing_makes_another),
        TEMP_TEST(what_no_store_has_is_refused_whatever_the_sums_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
