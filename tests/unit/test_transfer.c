/* Rename, copy and move: values on their way to another key or another store. */
#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const rd_open_options open_always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};
static const rd_open_options open_unchecked = {.writable = true, .verify = RD_VERIFY_OFF};

static uint64_t hash_of(const char *key)
{
    return rd_hash(text_span(key));
}

static rd_err rename_key(rd_store *store, const char *old_key, const char *new_key)
{
    rd_written done;
    return rd_store_rename(store, text_span(old_key), text_span(new_key), &done);
}

/* ---- Rename ----------------------------------------------------------------------------------------------------- */

static void a_rename_is_a_copy_and_then_a_tombstone(void **state)
{
    const size_t lens[] = {1, 65536, 65537, 3 << 20};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        AUTO_BYTES value = bytes_xorshift(40 + i, lens[i]);
        AUTO_BYTES want = {0};
        value.data[0] = 1; /* never the reserved byte */
        rd_written done = {0};
        rd_store *store = store_make(state, "s");
        store_put(store, "old", value.data, value.len);
        store_put(store, "new", "covered", 7);
        assert_int_equal(rd_store_rename(store, text_span("old"), text_span("new"), &done), RD_OK);
        build_entry(&want, hash_of("old"), bytes_span(&value), 64);
        build_entry(&want, hash_of("new"), text_span("covered"), 64);
        build_entry(&want, hash_of("new"), bytes_span(&value), 64);
        build_tombstone(&want, hash_of("old"));
        assert_int_equal(done.tail_off, want.len);
        store_expect(store, hash_of("new"), value.data, value.len);
        store_expect_absent(store, hash_of("old"));
        rd_store_info info = store_info(store);
        assert_int_equal(info.live_keys, 1);
        assert_int_equal(info.entries, 4);
        assert_int_equal(info.live_bytes, lens[i]);
        rd_store_close(store);
        file_expect(temp_path(state, "s"), want.data, want.len, "renamed");
        file_save(temp_path(state, "s"), "", 0);
    }
}

static void what_cannot_be_renamed_writes_nothing(void **state)
{
    rd_written done;
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    store_put(store, "gone", "value", 5);
    assert_int_equal(rd_store_delete(store, text_span("gone"), &done), RD_OK);
    uint64_t len = file_len(temp_path(state, "s"));
    assert_int_equal(rename_key(store, "never", "other"), RD_ABSENT);
    assert_int_equal(rename_key(store, "gone", "other"), RD_ABSENT);
    assert_int_equal(rename_key(store, "k", "k"), RD_E_INVALID);
    assert_int_equal(rename_key(store, "never", "never"), RD_E_INVALID);
    assert_int_equal(file_len(temp_path(state, "s")), len);
    store_expect(store, hash_of("k"), "value", 5);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(rename_key(store, "k", "other"), RD_E_READ_ONLY);
    rd_store_close(store);
}

struct queued {
    rd_store *store;
    int kind; /* 0: write "a"; 1: rename it to "b" */
    rd_err err;
};

static void *run_queued(void *arg)
{
    struct queued *queued = arg;
    rd_written done;
    if (queued->kind == 0)
        queued->err = rd_store_write(queued->store, text_span("a"), text_span("of this group"), &done);
    else
        queued->err = rd_store_rename(queued->store, text_span("a"), text_span("b"), &done);
    return NULL;
}

struct holding {
    rd_store *store;
    struct queued queued[2];
    pthread_t threads[2];
    bool held;
};

/* As the first sync begins, have both wait, one after the other. */
static void queue_both(enum call call, const char *name, void *arg)
{
    struct holding *holding = arg;
    if (call != CALL_FDATASYNC || strcmp(name, "s") != 0 || holding->held)
        return;
    holding->held = true;
    for (size_t i = 0; i < 2; i++) {
        holding->queued[i] = (struct queued){.store = holding->store, .kind = (int)i, .err = RD_E_INVALID};
        pthread_create(&holding->threads[i], NULL, run_queued, &holding->queued[i]);
        faults_await_waiting(i + 1);
    }
}

static void a_rename_sees_what_was_written_before_it_in_its_group(void **state)
{
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    struct holding holding = {.store = store};
    store_put(store, "first", "1", 1);
    faults_clear();
    faults_hook(queue_both, &holding);
    store_put(store, "a", "before", 6);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(holding.threads[i], NULL), 0);
        assert_int_equal(holding.queued[i].err, RD_OK);
    }
    assert_int_equal(faults_count(CALL_FDATASYNC), 2); /* they were one group */
    faults_hook(NULL, NULL);
    store_expect(store, hash_of("b"), "of this group", 13);
    store_expect_absent(store, hash_of("a"));
    rd_store_close(store);
}

struct renamer {
    rd_store *store;
    atomic_bool done;
    rd_err err;
};

static void *rename_to_and_fro(void *arg)
{
    struct renamer *renamer = arg;
    for (int i = 0; i < 500 && renamer->err == RD_OK; i++)
        renamer->err = i % 2 == 0 ? rename_key(renamer->store, "a", "b") : rename_key(renamer->store, "b", "a");
    atomic_store(&renamer->done, true);
    return NULL;
}

static void a_renamed_value_is_under_one_key_at_each_instant(void **state)
{
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "value", 5);
    struct renamer renamer = {.store = store};
    const rd_span keys[2] = {text_span("a"), text_span("b")};
    size_t wrong = 0;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, rename_to_and_fro, &renamer), 0);
    while (!atomic_load(&renamer.done)) {
        rd_batch_item items[2];
        if (rd_store_batch_read(store, keys, 2, items) != RD_OK)
            break;
        wrong += (items[0].err == RD_OK) == (items[1].err == RD_OK);
        for (size_t i = 0; i < 2; i++)
            rd_entry_release(&items[i].entry);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(renamer.err, RD_OK);
    assert_int_equal(wrong, 0);
    store_expect(store, hash_of("a"), "value", 5);
    rd_store_close(store);
}

/* A value too large for opening to check it, with one flipped bit. Returns: the store's bytes. */
static struct bytes make_damaged(void **state, const char *name)
{
    AUTO_BYTES big = bytes_xorshift(50, 100000);
    rd_store *store = store_make(state, name);
    store_put(store, "first", "value", 5);
    store_put(store, "bad", big.data, big.len);
    store_put(store, "last", "value", 5);
    assert_int_equal(rd_store_sync(store), RD_OK); /* what was synced is damaged, not torn */
    rd_store_close(store);
    file_poke(temp_path(state, name), 5000, 4);
    return file_load(temp_path(state, name));
}

static void damage_is_neither_renamed_nor_copied(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES before = make_damaged(state, "s");
    rd_store *target = store_make(state, "target");
    rd_store *store = store_open_ok(path, &open_unchecked);
    rd_written done;
    assert_int_equal(rename_key(store, "bad", "good"), RD_E_DAMAGED);
    assert_int_equal(rd_store_copy_hash(store, hash_of("bad"), target, &done), RD_E_DAMAGED);
    assert_int_equal(rd_store_move_hash(store, hash_of("bad"), target, &done), RD_E_DAMAGED);
    file_expect(path, before.data, before.len, "the source");
    assert_int_equal(file_len(temp_path(state, "target")), 0);
    store_put(store, "bad", "healed", 6);
    assert_int_equal(rename_key(store, "bad", "good"), RD_OK);
    store_expect(store, hash_of("good"), "healed", 6);
    rd_store_close(store);
    rd_store_close(target);
}

/* ---- Copy and move ---------------------------------------------------------------------------------------------- */

static void a_copy_has_the_value_and_leaves_the_source(void **state)
{
    const size_t lens[] = {5, 65536, 65537, 2 << 20};
    rd_store *store = store_make(state, "s");
    rd_store *target = store_make(state, "target");
    store_put(target, "own", "1", 1);
    for (uint64_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        AUTO_BYTES value = bytes_xorshift(60 + i, lens[i]);
        rd_written done = {0};
        assert_int_equal(rd_store_write_hash(store, i, bytes_span(&value), &done), RD_OK);
        uint64_t len = file_len(temp_path(state, "s"));
        assert_int_equal(rd_store_copy_hash(store, i, target, &done), RD_OK);
        assert_int_equal(done.tail_off, store_info(target).tail_off);
        store_expect(target, i, value.data, value.len);
        store_expect(store, i, value.data, value.len);
        assert_int_equal(file_len(temp_path(state, "s")), len);
    }
    rd_store_close(store);
    rd_store_close(target);
}

static void a_store_is_no_target_of_its_own(void **state)
{
    rd_written done;
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    uint64_t len = file_len(temp_path(state, "s"));
    assert_int_equal(link(temp_path(state, "s"), temp_path(state, "other name")), 0);
    rd_store *same = store_open_ok(temp_path(state, "other name"), &open_reading);
    assert_int_equal(rd_store_copy_hash(store, hash_of("k"), store, &done), RD_E_INVALID);
    assert_int_equal(rd_store_copy_hash(same, hash_of("k"), store, &done), RD_E_INVALID);
    assert_int_equal(rd_store_move_hash(store, hash_of("k"), store, &done), RD_E_INVALID);
    assert_int_equal(rd_store_copy_hash(store, hash_of("k"), same, &done), RD_E_READ_ONLY);
    assert_int_equal(rd_store_move_hash(same, hash_of("k"), store, &done), RD_E_READ_ONLY);
    assert_int_equal(file_len(temp_path(state, "s")), len);
    rd_store_close(same);
    rd_store_close(store);
}

static void what_is_absent_is_not_copied(void **state)
{
    rd_written done = {.tail_off = 4711};
    rd_store *store = store_make(state, "s");
    rd_store *target = store_make(state, "target");
    store_put(target, "k", "kept", 4);
    assert_int_equal(rd_store_copy_hash(store, hash_of("k"), target, &done), RD_ABSENT);
    assert_int_equal(rd_store_move_hash(store, hash_of("k"), target, &done), RD_ABSENT);
    assert_int_equal(done.tail_off, 4711);
    store_expect(target, hash_of("k"), "kept", 4);
    rd_store_close(store);
    rd_store_close(target);
}

static void a_move_is_durable_in_the_target_before_the_source_forgets_it(void **state)
{
    rd_written done = {0};
    rd_store *store = store_make(state, "s");
    rd_store *target = store_make(state, "target");
    store_put(store, "k", "value", 5);
    store_put(target, "own", "1", 1);
    faults_clear();
    assert_int_equal(rd_store_move_hash(store, hash_of("k"), target, &done), RD_OK);
    assert_string_equal(faults_log(), "pwritev target\nfdatasync target\npwritev s\n");
    assert_true(done.durable);
    assert_int_equal(done.tail_off, store_info(target).tail_off);
    store_expect(target, hash_of("k"), "value", 5);
    store_expect_absent(store, hash_of("k"));
    rd_store_close(store);
    rd_store_close(target);
}

static void a_move_that_fails_keeps_the_source(void **state)
{
    const struct {
        enum call call;
        size_t nth;
        rd_err err;
    } cases[] = {{CALL_PWRITEV, 1, RD_E_IO}, {CALL_FDATASYNC, 1, RD_E_SYNC}, {CALL_PWRITEV, 2, RD_E_IO}};
    for (size_t i = 0; i < 3; i++) {
        rd_written done = {0};
        rd_store *store = store_make(state, "s");
        rd_store *target = store_make(state, "target");
        store_put(store, "k", "value", 5);
        store_put(target, "own", "1", 1);
        faults_clear();
        faults_fail(cases[i].call, cases[i].nth, EIO);
        assert_int_equal(rd_store_move_hash(store, hash_of("k"), target, &done), cases[i].err);
        store_expect(store, hash_of("k"), "value", 5);
        assert_int_equal(file_len(temp_path(state, "s")), store_info(store).tail_off);
        rd_store_close(store);
        rd_store_close(target);
        file_save(temp_path(state, "s"), "", 0);
        file_save(temp_path(state, "target"), "", 0);
    }
}

struct meddler {
    rd_store *store;
    const char *newer; /* NULL: delete it */
    bool done;
    rd_err err;
};

/* Between the copy and the deletion somebody else writes the key, or deletes it. */
static void meddle(enum call call, const char *name, void *arg)
{
    struct meddler *meddler = arg;
    rd_written done;
    if (call != CALL_FDATASYNC || strcmp(name, "target") != 0 || meddler->done)
        return;
    meddler->done = true;
    if (meddler->newer != NULL)
        meddler->err = rd_store_write(meddler->store, text_span("k"), text_span(meddler->newer), &done);
    else
        meddler->err = rd_store_delete(meddler->store, text_span("k"), &done);
}

static void a_move_never_deletes_what_it_has_not_copied(void **state)
{
    rd_written done;
    rd_store *store = store_make(state, "s");
    rd_store *target = store_make(state, "target");
    store_put(store, "k", "old", 3);
    store_put(target, "own", "1", 1);
    struct meddler meddler = {.store = store, .newer = "newer"};
    faults_hook(meddle, &meddler);
    assert_int_equal(rd_store_move_hash(store, hash_of("k"), target, &done), RD_OK);
    assert_int_equal(meddler.err, RD_OK);
    store_expect(target, hash_of("k"), "newer", 5);
    store_expect_absent(store, hash_of("k"));
    store_put(store, "k", "again", 5);
    meddler = (struct meddler){.store = store};
    assert_int_equal(rd_store_move_hash(store, hash_of("k"), target, &done), RD_OK); /* then it was moved before */
    store_expect(target, hash_of("k"), "again", 5);
    store_expect_absent(store, hash_of("k"));
    faults_hook(NULL, NULL);
    rd_store_close(store);
    rd_store_close(target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(a_rename_is_a_copy_and_then_a_tombstone),
        FAULT_TEST(what_cannot_be_renamed_writes_nothing),
        FAULT_TEST(a_rename_sees_what_was_written_before_it_in_its_group),
        FAULT_TEST(a_renamed_value_is_under_one_key_at_each_instant),
        FAULT_TEST(damage_is_neither_renamed_nor_copied),
        FAULT_TEST(a_copy_has_the_value_and_leaves_the_source),
        FAULT_TEST(a_store_is_no_target_of_its_own),
        FAULT_TEST(what_is_absent_is_not_copied),
        FAULT_TEST(a_move_is_durable_in_the_target_before_the_source_forgets_it),
        FAULT_TEST(a_move_that_fails_keeps_the_source),
        FAULT_TEST(a_move_never_deletes_what_it_has_not_copied),
    };
    return cmocka_run_group_tests_name("transfer", tests, NULL, NULL);
}
