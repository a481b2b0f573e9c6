/* Compaction: the live entries alone, in file order, while readers and writers go on; or nothing changes. */
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static rd_compacted compact_ok(rd_store *store)
{
    rd_compacted done = {0};
    rd_fault fault = {0};
    rd_err err = rd_store_compact(store, NULL, &fault, &done);
    EXPECT(err == RD_OK, "compact: %s (%s)", rd_err_text(err), fault.text);
    return done;
}

/* Compact, expecting `want` and a text that has `part`; nothing may have changed. */
static void compact_fails(rd_store *store, const char *path, const rd_compact_options *options, rd_err want,
                          const char *part)
{
    AUTO_BYTES before = file_load(path);
    rd_compacted done = {.entries = 12345};
    rd_fault fault = {0};
    char left_over[512];
    uint64_t generation = store_info(store).generation;
    rd_err err = rd_store_compact(store, options, &fault, &done);
    EXPECT(err == want, "%s instead of %s (%s)", rd_err_text(err), rd_err_text(want), fault.text);
    EXPECT(strstr(fault.text, part) != NULL && strchr(fault.text, '\n') == NULL, "%s: %s", part, fault.text);
    assert_int_equal(done.entries, 12345);
    file_expect(path, before.data, before.len, "after a refused compaction");
    EXPECT(want == RD_E_DAMAGED || store_info(store).generation == generation, "%s", rd_err_text(want));
    snprintf(left_over, sizeof left_over, "%s.compact", path);
    EXPECT(access(left_over, F_OK) != 0 || want == RD_E_LOCKED || want == RD_E_BUSY, "%s is left", left_over);
}

static void remove_key(rd_store *store, uint64_t hash)
{
    rd_written done;
    rd_err err = rd_store_batch_delete(store, &hash, 1, &done);
    EXPECT(err == RD_OK && done.deleted_count == 1, "delete: %s", rd_err_text(err));
}

static void put_hash(rd_store *store, uint64_t hash, rd_span payload)
{
    rd_written done;
    rd_err err = rd_store_write_hash(store, hash, payload, &done);
    EXPECT(err == RD_OK, "write: %s", rd_err_text(err));
}

/* ---- What is left ------------------------------------------------------------------------------------------------ */

/* A store of many kinds of entries, and the bytes that a compaction must leave. */
static rd_store *make_mixed(void **state, struct bytes *want)
{
    AUTO_BYTES large = bytes_xorshift(3, 100000);
    AUTO_BYTES larger = bytes_xorshift(4, 70000);
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 300);
    put_hash(store, 1, text_span("superseded"));
    put_hash(store, 2, bytes_span(&large));
    put_hash(store, 3, bytes_span(&larger));
    put_hash(store, 1, (rd_span){"\0\0", 2});
    store_fill(store, 100, 100); /* once more */
    for (uint64_t i = 0; i < 50; i++)
        remove_key(store, fill_hash(2 * i));
    remove_key(store, 3);
    put_hash(store, UINT64_MAX, text_span("last"));

    for (uint64_t i = 0; i < 300; i++) {
        uint64_t value = htole64(i);
        if ((i < 100 && i % 2 != 0) || i >= 200)
            build_entry(want, fill_hash(i), (rd_span){&value, sizeof value}, 64);
    }
    build_entry(want, 2, bytes_span(&large), 64);
    build_entry(want, 1, (rd_span){"\0\0", 2}, 64);
    for (uint64_t i = 100; i < 200; i++) {
        uint64_t value = htole64(i);
        build_entry(want, fill_hash(i), (rd_span){&value, sizeof value}, 64);
    }
    build_entry(want, UINT64_MAX, text_span("last"), 64);
    return store;
}

/* The answers of make_mixed's store. */
static void expect_mixed(rd_store *store)
{
    AUTO_BYTES large = bytes_xorshift(3, 100000);
    for (uint64_t i = 0; i < 300; i++) {
        uint64_t value = htole64(i);
        if (i < 100 && i % 2 == 0)
            store_expect_absent(store, fill_hash(i));
        else
            store_expect(store, fill_hash(i), &value, sizeof value);
    }
    store_expect(store, 1, "\0\0", 2);
    store_expect(store, 2, large.data, large.len);
    store_expect_absent(store, 3);
    store_expect(store, UINT64_MAX, "last", 4);
    assert_int_equal(rd_store_len(store), 253);
}

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

/* ---- Readers and writers go on ----------------------------------------------------------------------------------- */

static void entries_and_iterators_of_before_stay_as_they_are(void **state)
{
    AUTO_BYTES want = {0};
    AUTO_BYTES large = bytes_xorshift(3, 100000);
    rd_store *store = make_mixed(state, &want);
    rd_entry entry = {0}, first = {0}, at = {0};
    rd_iter *iter = NULL;
    assert_int_equal(rd_store_read_hash(store, 2, &entry), RD_OK);
    assert_int_equal(rd_iter_create(store, &iter), RD_OK);
    assert_int_equal(rd_iter_next(iter, &first), RD_OK);
    assert_int_equal(first.meta.key_hash, UINT64_MAX);
    for (int round = 0; round < 3; round++) {
        put_hash(store, 2, text_span("newer"));
        remove_key(store, UINT64_MAX);
        compact_ok(store);
        put_hash(store, UINT64_MAX, text_span("again"));
    }
    assert_true(span_equal(entry.payload, large.data, large.len));
    assert_true(span_equal(first.payload, "last", 4));
    uint64_t count = 1;
    for (; rd_iter_next(iter, &at) == RD_OK; count++)
        EXPECT(at.meta.key_hash != 2 || span_equal(at.payload, large.data, large.len), "the value of then");
    assert_int_equal(count, 253);
    rd_iter_destroy(iter);
    rd_entry_release(&entry);
    store_expect(store, 2, "newer", 5);
    rd_store_close(store);
}

/* What progress does in the middle of a compaction: as writers would, at a moment that is known. */
struct meanwhile {
    rd_store *store;
    int calls;
    struct bytes large;
};

static bool write_meanwhile(void *arg, const rd_compact_progress *progress)
{
    struct meanwhile *meanwhile = arg;
    EXPECT(progress->entries_done <= progress->entries_total, "%" PRIu64, progress->entries_done);
    if (meanwhile->calls++ != 1) /* the second: what was live is copied, nothing else is */
        return true;
    put_hash(meanwhile->store, fill_hash(7), text_span("written meanwhile"));
    put_hash(meanwhile->store, fill_hash(9), text_span("written"));
    remove_key(meanwhile->store, fill_hash(9));
    remove_key(meanwhile->store, fill_hash(11));
    put_hash(meanwhile->store, fill_hash(11), text_span("back again"));
    for (int i = 0; i < 4; i++) /* more than is copied while writers are held */
        put_hash(meanwhile->store, 2, bytes_span(&meanwhile->large));
    store_fill(meanwhile->store, 5000, 3000);
    return true;
}

static void what_is_written_meanwhile_is_kept(void **state)
{
    AUTO_BYTES want = {0};
    rd_store *store = make_mixed(state, &want);
    struct meanwhile meanwhile = {.store = store, .large = bytes_xorshift(8, 1 << 20)};
    const rd_compact_options options = {.progress = write_meanwhile, .arg = &meanwhile};
    rd_compacted done;
    rd_fault fault;
    assert_int_equal(rd_store_compact(store, &options, &fault, &done), RD_OK);
    assert_true(meanwhile.calls > 2);
    for (int pass = 0; pass < 2; pass++) {
        store_expect(store, fill_hash(7), "written meanwhile", 17);
        store_expect_absent(store, fill_hash(9));
        store_expect(store, fill_hash(11), "back again", 10);
        store_expect(store, 2, meanwhile.large.data, meanwhile.large.len);
        uint64_t value = htole64(7999);
        store_expect(store, fill_hash(7999), &value, sizeof value);
        assert_int_equal(rd_store_len(store), 253 - 1 + 3000);
        assert_int_equal(store_info(store).entries, 253 + 9 + 3000);
        assert_int_equal(store_info(store).tail_off, done.bytes_written);
        assert_int_equal(done.entries, 253 + 9 + 3000);
        assert_int_equal(done.bytes_reclaimed, 0); /* it grew meanwhile */
        rd_store_info info = store_info(store);
        rd_store_close(store);
        store = store_open_ok(temp_path(state, "s"), &open_reading);
        assert_int_equal(store_info(store).live_bytes, info.live_bytes); /* counted as opening counts */
        assert_int_equal(store_info(store).reclaimable_bytes, info.reclaimable_bytes);
    }
    bytes_free(&meanwhile.large);
    rd_store_close(store);
}

enum { WRITERS = 2, READERS = 2, KEYS = 16, BATCHES = 300, COMPACTIONS = 8 };

struct crowd {
    rd_store *store;
    uint64_t number; /* of the thread */
    atomic_int *writing;
    atomic_uint *batches;
    const char *wrong; /* NULL: all was well */
};

/* A writer's keys change together, in one batch: all have the same value, or each is deleted. */
static void *crowd_write(void *arg)
{
    struct crowd *crowd = arg;
    for (uint64_t round = 1; round <= BATCHES && crowd->wrong == NULL; round++) {
        rd_write_item items[KEYS];
        uint64_t hashes[KEYS];
        uint64_t value[64] = {round};
        rd_written done;
        for (uint64_t i = 0; i < KEYS; i++) {
            hashes[i] = crowd->number * 1000 + i;
            items[i] = (rd_write_item){hashes[i], {value, 8 * (1 + round % 64)}};
        }
        if (round % 10 == 0 && rd_store_batch_delete(crowd->store, hashes, KEYS, &done) != RD_OK)
            crowd->wrong = "a delete failed";
        if (round % 10 != 0 && rd_store_batch_write(crowd->store, items, KEYS, &done) != RD_OK)
            crowd->wrong = "a write failed";
        atomic_fetch_add(crowd->batches, 1);
    }
    atomic_fetch_sub(crowd->writing, 1);
    return NULL;
}

static const char *judge_items(const rd_batch_item *items, uint64_t *seen)
{
    uint64_t round = 0;
    for (size_t i = 0; i < KEYS; i++) {
        if (items[i].err != items[0].err)
            return "a batch in part";
        if (items[i].err == RD_ABSENT)
            continue;
        if (items[i].err != RD_OK)
            return rd_err_text(items[i].err);
        memcpy(&round, items[i].entry.payload.data, sizeof round);
        if (items[i].entry.payload.len != 8 * (1 + round % 64))
            return "a payload of another length";
        if (memcmp(items[i].entry.payload.data, items[0].entry.payload.data, 8) != 0)
            return "two batches at once";
    }
    if (items[0].err == RD_OK && round < *seen)
        return "an older value than was seen before";
    *seen = items[0].err == RD_OK ? round : *seen;
    return NULL;
}

static void *crowd_read(void *arg)
{
    struct crowd *crowd = arg;
    uint64_t seen[WRITERS] = {0};
    while (atomic_load(crowd->writing) > 0 && crowd->wrong == NULL) {
        for (uint64_t writer = 0; writer < WRITERS && crowd->wrong == NULL; writer++) {
            uint64_t hashes[KEYS];
            rd_batch_item items[KEYS];
            for (uint64_t i = 0; i < KEYS; i++)
                hashes[i] = writer * 1000 + i;
            if (rd_store_batch_read_hashed(crowd->store, hashes, NULL, KEYS, items) != RD_OK)
                crowd->wrong = "no memory";
            else
                crowd->wrong = judge_items(items, &seen[writer]);
            for (size_t i = 0; i < KEYS && (crowd->wrong == NULL || items[i].err == RD_OK); i++)
                rd_entry_release(&items[i].entry);
        }
    }
    return NULL;
}

/* E-08 */
static void readers_and_writers_see_nothing_of_compactions(void **state)
{
    rd_store *store = store_make(state, "s");
    atomic_int writing = WRITERS;
    atomic_uint batches = 0;
    pthread_t threads[WRITERS + READERS];
    struct crowd crowd[WRITERS + READERS];
    store_fill(store, 0, 1000);
    for (uint64_t i = 0; i < WRITERS + READERS; i++) {
        crowd[i] = (struct crowd){.store = store, .number = i, .writing = &writing, .batches = &batches};
        assert_int_equal(pthread_create(&threads[i], NULL, i < WRITERS ? crowd_write : crowd_read, &crowd[i]), 0);
    }
    int compactions = 0;
    while (atomic_load(&writing) > 0 || compactions < COMPACTIONS) {
        compact_ok(store);
        compactions++;
    }
    for (size_t i = 0; i < WRITERS + READERS; i++) {
        pthread_join(threads[i], NULL);
        EXPECT(crowd[i].wrong == NULL, "thread %zu: %s", i, crowd[i].wrong);
    }
    uint64_t tail = store_info(store).tail_off;
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(rd_store_len(store), 1000); /* the last round of each writer deleted */
        store_expect_absent(store, 1003);
        uint64_t value = htole64(999);
        store_expect(store, fill_hash(999), &value, sizeof value);
        rd_store_close(store);
        assert_int_equal(file_len(temp_path(state, "s")), tail);
        store = store_open_ok(temp_path(state, "s"), &open_reading);
        assert_int_equal(store_info(store).damaged_ranges, 0);
    }
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
    file_save(temp_path(state, "s.idx"), "of the old file", 15);
    file_save(temp_path(state, "s.compact"), "left over", 9);
    file_save(temp_path(state, "s.bk"), "the crate's", 11);
    compact_ok(store);
    assert_int_not_equal(access(temp_path(state, "s.idx"), F_OK), 0);
    assert_int_not_equal(access(temp_path(state, "s.compact"), F_OK), 0);
    file_expect(temp_path(state, "s.bk"), "the crate's", 11, "not ours");
    file_expect(temp_path(state, "s"), want.data, want.len, "compacted");
    rd_store_close(store);
    assert_int_equal(symlink("s", temp_path(state, "s.compact")), 0);
    store = store_open_ok(temp_path(state, "s"), &open_writing);
    compact_ok(store); /* the link goes, not what it leads to */
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
    for (int at = 0; at < 2; at++) {
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
        TEMP_TEST(live_entries_alone_are_left_in_their_order),
        TEMP_TEST(second_compaction_changes_no_byte),
        TEMP_TEST(estimate_is_what_a_compaction_saves),
        TEMP_TEST(store_without_live_keys_becomes_an_empty_file),
        TEMP_TEST(crates_store_compacts_to_the_keys_of_its_own_compaction),
        TEMP_TEST(entries_and_iterators_of_before_stay_as_they_are),
        TEMP_TEST(what_is_written_meanwhile_is_kept),
        TEMP_TEST(readers_and_writers_see_nothing_of_compactions),
        TEMP_TEST(link_stays_a_link),
        TEMP_TEST(new_file_has_the_mode_of_the_old),
        TEMP_TEST(other_writers_stay_locked_out),
        TEMP_TEST(writers_line_names_the_new_file),
        TEMP_TEST(snapshot_of_the_index_and_left_overs_go),
        TEMP_TEST(left_over_that_somebody_has_open_is_not_taken),
        TEMP_TEST(store_open_for_reading_is_not_compacted),
        TEMP_TEST(damage_is_refused_and_repair_is_named),
        TEMP_TEST(damage_that_hides_nothing_is_compacted_away),
        TEMP_TEST(damaged_value_that_opening_did_not_see_is_refused),
        TEMP_TEST(superseded_value_that_fails_its_check_is_recovered_around),
        TEMP_TEST(keys_hidden_by_an_unchecked_link_are_not_thrown_away),
        TEMP_TEST(second_compaction_at_once_is_refused),
        TEMP_TEST(cancelled_compaction_changes_nothing),
        TEMP_TEST(what_somebody_else_appended_is_not_thrown_away),
        TEMP_TEST(file_that_took_the_stores_name_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
