/* Repair: what can be proven of a store, and nothing else, in a new one. */
#include "manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTES_MAX 16

struct notes {
    uint64_t hashes[NOTES_MAX];
    bool written[NOTES_MAX];
    size_t count;
};

static void note(void *arg, uint64_t key_hash, bool written)
{
    struct notes *notes = arg;
    EXPECT(notes->count < NOTES_MAX, "%" PRIx64, key_hash);
    notes->hashes[notes->count] = key_hash;
    notes->written[notes->count++] = written;
}

/* Repair the file "s" into "new". */
static rd_repaired repair_ok(void **state, bool older_versions, struct notes *notes)
{
    rd_repaired repaired = {0};
    *notes = (struct notes){0};
    AUTO_BYTES before = file_load(temp_path(state, "s"));
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    unlink(temp_path(state, "new"));
    rd_store *target = store_make(state, "new");
    rd_err err = rd_store_repair(store, target, older_versions, note, notes, &repaired);
    EXPECT(err == RD_OK, "repair: %s", rd_err_text(err));
    assert_int_equal(repaired.older + repaired.left_out, notes->count);
    assert_int_equal(rd_store_len(target), repaired.written);
    assert_int_equal(rd_store_sync(target), RD_OK);
    rd_store_close(target);
    rd_store_close(store);
    file_expect(temp_path(state, "s"), before.data, before.len, "repaired from");
    target = store_open_ok(temp_path(state, "new"), &open_reading);
    assert_int_equal(rd_store_len(target), repaired.written);
    assert_int_equal(store_info(target).damaged_ranges, 0);
    assert_int_equal(store_info(target).damaged_entries, 0);
    rd_store_close(target);
    return repaired;
}

static void close_synced(rd_store *store)
{
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
}

/* Flip a bit of the payload of which `tail_off` is the end. */
static void damage_payload(void **state, rd_written done)
{
    file_poke(temp_path(state, "s"), done.tail_off - 21, 0x04);
}

static void whole_store_comes_out_as_a_compaction_leaves_it(void **state)
{
    struct notes notes;
    AUTO_BYTES want = {0};
    AUTO_BYTES large = bytes_xorshift(2, 200000);
    rd_store *store = store_make(state, "s");
    rd_written done;
    store_fill(store, 0, 3000);
    store_put(store, "large", large.data, large.len);
    store_put(store, "key-5", "newer", 5);
    assert_int_equal(rd_store_delete(store, text_span("key-6"), &done), RD_OK);
    close_synced(store);
    for (uint64_t i = 0; i < 3000; i++) {
        uint64_t value = htole64(i);
        if (i != 5 && i != 6)
            build_entry(&want, fill_hash(i), (rd_span){&value, sizeof value}, 64);
    }
    build_entry(&want, rd_hash(text_span("large")), bytes_span(&large), 64);
    build_entry(&want, fill_hash(5), text_span("newer"), 64);
    rd_repaired repaired = repair_ok(state, true, &notes);
    assert_int_equal(repaired.written, 3000);
    assert_int_equal(notes.count, 0);
    file_expect(temp_path(state, "new"), want.data, want.len, "repaired");
}

static void older_version_is_written_only_when_asked_for(void **state)
{
    struct notes notes;
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "oldest", 6);
    store_put(store, "k", "older", 5);
    store_put(store, "other", "value", 5);
    rd_written second = store_put(store, "k", "newer", 5);
    rd_written newest = store_put(store, "k", "newest", 6);
    store_put(store, "last", "value", 5);
    close_synced(store);
    damage_payload(state, second);
    damage_payload(state, newest);

    rd_repaired repaired = repair_ok(state, false, &notes);
    assert_int_equal(repaired.written, 2);
    assert_int_equal(repaired.left_out, 1);
    assert_int_equal(notes.hashes[0], rd_hash(text_span("k")));
    assert_false(notes.written[0]);
    rd_store *target = store_open_ok(temp_path(state, "new"), &open_reading);
    store_expect_absent(target, rd_hash(text_span("k")));
    rd_store_close(target);

    repaired = repair_ok(state, true, &notes);
    assert_int_equal(repaired.written, 3);
    assert_int_equal(repaired.older, 1);
    assert_int_equal(repaired.left_out, 0);
    assert_true(notes.written[0]);
    AUTO_BYTES want = {0}; /* in file order */
    build_entry(&want, rd_hash(text_span("k")), text_span("older"), 64);
    build_entry(&want, rd_hash(text_span("other")), text_span("value"), 64);
    build_entry(&want, rd_hash(text_span("last")), text_span("value"), 64);
    file_expect(temp_path(state, "new"), want.data, want.len, "repaired with older versions");
}

/* What was provably there before the damaged value was nothing. */
static void key_that_was_deleted_before_its_damaged_value_is_left_out(void **state)
{
    struct notes notes;
    rd_store *store = store_make(state, "s");
    rd_written done;
    store_put(store, "k", "older", 5);
    assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK);
    rd_written newest = store_put(store, "k", "newest", 6);
    rd_written only = store_put(store, "once", "value", 5);
    store_put(store, "last", "value", 5);
    close_synced(store);
    damage_payload(state, newest);
    damage_payload(state, only);
    rd_repaired repaired = repair_ok(state, true, &notes);
    assert_int_equal(repaired.written, 1);
    assert_int_equal(repaired.left_out, 2);
    assert_true(notes.count == 2 && !notes.written[0] && !notes.written[1]);
}

static void key_that_was_written_again_after_its_damage_is_no_loss(void **state)
{
    struct notes notes;
    rd_store *store = store_make(state, "s");
    rd_written damaged = store_put(store, "k", "older", 5);
    store_put(store, "k", "newest", 6);
    close_synced(store);
    damage_payload(state, damaged);
    rd_repaired repaired = repair_ok(state, true, &notes);
    assert_int_equal(repaired.written, 1);
    assert_int_equal(notes.count, 0);
}

/* Nothing that opening left unchecked is taken for proven. */
static void large_values_are_checked_before_anything_is_written(void **state)
{
    struct notes notes;
    AUTO_BYTES older = bytes_xorshift(1, 100000);
    AUTO_BYTES newer = bytes_xorshift(2, 100000);
    rd_store *store = store_make(state, "s");
    store_put(store, "k", older.data, older.len);
    rd_written newest = store_put(store, "k", newer.data, newer.len);
    store_put(store, "last", "value", 5);
    close_synced(store);
    damage_payload(state, newest);
    rd_repaired repaired = repair_ok(state, false, &notes);
    assert_int_equal(repaired.written, 1);
    assert_int_equal(repaired.left_out, 1);
    repaired = repair_ok(state, true, &notes);
    assert_int_equal(repaired.older, 1);
    rd_store *target = store_open_ok(temp_path(state, "new"), &open_reading);
    store_expect(target, rd_hash(text_span("k")), older.data, older.len);
    rd_store_close(target);
}

/* ---- The damaged fixtures ---------------------------------------------------------------------------------------- */

static bool noted(const struct notes *notes, uint64_t hash)
{
    for (size_t i = 0; i < notes->count; i++)
        if (notes->hashes[i] == hash)
            return true;
    return false;
}

/* That the repaired file has each key that the case says, and of damaged ones no other bytes. */
static void expect_case(void **state, const json_t *item, const struct notes *notes)
{
    const char *name = field_text(item, "file");
    rd_store *target = store_open_ok(temp_path(state, "new"), &open_reading);
    const char *hash = NULL;
    json_t *want = NULL;
    size_t i = 0;
    json_object_foreach(field(item, "serve"), hash, want)
    {
        rd_entry entry = {0};
        rd_err err = rd_store_read_hash(target, hash_of_hex(hash), &entry);
        EXPECT(err == RD_OK && entry.payload.len == field_u64(want, "len") &&
                   entry.meta.checksum == field_hash(want, "crc"),
               "%s: %s: %s", name, hash, rd_err_text(err));
        EXPECT(!noted(notes, hash_of_hex(hash)), "%s: %s is no loss", name, hash);
        rd_entry_release(&entry);
    }
    json_array_foreach(json_object_get(item, "damaged"), i, want)
        store_expect_absent(target, hash_of_hex(json_string_value(want)));
    json_array_foreach(json_object_get(item, "deleted"), i, want)
        store_expect_absent(target, hash_of_hex(json_string_value(want)));
    json_array_foreach(json_object_get(item, "never"), i, want)
        store_expect_absent(target, hash_of_hex(json_string_value(want)));
    rd_store_close(target);
}

static void damaged_fixtures_come_out_whole(void **state)
{
    json_t *expect = expect_load();
    json_t *item = NULL;
    size_t i = 0, repaired = 0;
    json_array_foreach(field(expect, "cases"), i, item)
    {
        if (!json_is_true(field(item, "opens")))
            continue;
        char name[128];
        struct notes notes;
        snprintf(name, sizeof name, "damaged/%s", field_text(item, "file"));
        AUTO_BYTES bytes = fixture_load(name);
        file_save(temp_path(state, "s"), bytes.data, bytes.len);
        for (int older = 0; older < 2; older++) {
            repair_ok(state, older != 0, &notes);
            expect_case(state, item, &notes);
        }
        repaired++;
    }
    assert_true(repaired > 30);
    json_decref(expect);
}

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static void target_must_be_another_empty_store(void **state)
{
    rd_repaired repaired = {.written = 12345};
    rd_store *store = store_make(state, "s");
    rd_store *target = store_make(state, "new");
    store_put(store, "k", "value", 5);
    assert_int_equal(rd_store_repair(store, store, false, NULL, NULL, &repaired), RD_E_INVALID);
    store_put(target, "theirs", "value", 5);
    assert_int_equal(rd_store_repair(store, target, false, NULL, NULL, &repaired), RD_E_INVALID);
    assert_int_equal(rd_store_len(target), 1);
    rd_store_close(target);
    file_save(temp_path(state, "empty"), "", 0);
    target = store_open_ok(temp_path(state, "empty"), &open_reading);
    assert_int_equal(rd_store_repair(store, target, false, NULL, NULL, &repaired), RD_E_READ_ONLY);
    assert_int_equal(repaired.written, 12345);
    rd_store_close(target);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(whole_store_comes_out_as_a_compaction_leaves_it),
        TEMP_TEST(older_version_is_written_only_when_asked_for),
        TEMP_TEST(key_that_was_deleted_before_its_damaged_value_is_left_out),
        TEMP_TEST(key_that_was_written_again_after_its_damage_is_no_loss),
        TEMP_TEST(large_values_are_checked_before_anything_is_written),
        TEMP_TEST(damaged_fixtures_come_out_whole),
        TEMP_TEST(target_must_be_another_empty_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
