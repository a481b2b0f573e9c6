/* When a write is durable, when it is visible, who shares a sync, and what a failed one ends. */
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const rd_open_options open_always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};
static const rd_open_options open_interval = {
    .writable = true, .create = true, .sync = RD_SYNC_INTERVAL, .sync_interval_ms = 3600000};

static uint64_t hash_of(const char *key)
{
    return rd_hash(text_span(key));
}

/* ---- Sharing ---------------------------------------------------------------------------------------------------- */

#define WRITERS 8

struct writer {
    rd_store *store;
    uint64_t key_hash;
    rd_err err;
    rd_written done;
};

static void *write_one(void *arg)
{
    struct writer *writer = arg;
    rd_span payload = {&writer->key_hash, sizeof writer->key_hash};
    writer->err = rd_store_write_hash(writer->store, writer->key_hash, payload, &writer->done);
    return NULL;
}

/* The first sync of the store lasts until all others wait. */
static void hold_first_sync(enum call call, const char *name, void *arg)
{
    size_t *held = arg;
    if (call == CALL_FDATASYNC && strcmp(name, "s") == 0 && (*held)++ == 0)
        faults_await_waiting(WRITERS - 1);
}

/* Run all at once; how often `nth` is not 0, that append fails. Returns: how many syncs it took. */
static size_t write_all_at_once(rd_store *store, struct writer writers[WRITERS], size_t failing_append)
{
    pthread_t threads[WRITERS];
    size_t held = 0;
    faults_clear();
    faults_hook(hold_first_sync, &held);
    if (failing_append != 0)
        faults_fail(CALL_PWRITEV, failing_append, EIO);
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.store = store, .key_hash = 1000 + i};
        assert_int_equal(pthread_create(&threads[i], NULL, write_one, &writers[i]), 0);
    }
    for (size_t i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    faults_hook(NULL, NULL);
    return faults_count(CALL_FDATASYNC);
}

static void writers_that_wait_share_one_sync(void **state)
{
    struct writer writers[WRITERS];
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    store_put(store, "first", "1", 1);
    assert_int_equal(write_all_at_once(store, writers, 0), 2); /* the first one's own, and one for the seven others */
    for (size_t i = 0; i < WRITERS; i++) {
        assert_int_equal(writers[i].err, RD_OK);
        assert_true(writers[i].done.durable);
        store_expect(store, writers[i].key_hash, &writers[i].key_hash, 8);
    }
    assert_int_equal(rd_store_len(store), WRITERS + 1);
    rd_store_close(store);
}

static void a_commit_that_fails_leaves_the_others_of_its_group(void **state)
{
    const char *path = temp_path(state, "s");
    for (size_t nth = 2; nth <= WRITERS; nth++) { /* each of the seven in turn */
        struct writer writers[WRITERS];
        size_t failed = 0;
        rd_store *store = store_open_ok(path, &open_always);
        store_put(store, "first", "1", 1);
        assert_int_equal(write_all_at_once(store, writers, nth), 2);
        for (size_t i = 0; i < WRITERS; i++) {
            failed += writers[i].err == RD_E_IO;
            if (writers[i].err == RD_E_IO)
                store_expect_absent(store, writers[i].key_hash);
            else
                store_expect(store, writers[i].key_hash, &writers[i].key_hash, 8);
        }
        assert_int_equal(failed, 1);
        assert_int_equal(file_len(path), store_info(store).tail_off);
        rd_store_close(store);
        store = store_open_ok(path, &open_reading);
        assert_int_equal(rd_store_len(store), WRITERS);
        rd_store_close(store);
        file_save(path, "", 0);
    }
}

/* ---- Visible and durable ---------------------------------------------------------------------------------------- */

struct look {
    rd_store *store;
    rd_err during; /* of the key "k", as the store's sync begins */
};

static void look_during_sync(enum call call, const char *name, void *arg)
{
    struct look *look = arg;
    if (call == CALL_FDATASYNC && strcmp(name, "s") == 0)
        look->during = rd_store_exists_hash(look->store, rd_hash(text_span("k")));
}

static void always_shows_nothing_before_it_is_durable(void **state)
{
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    struct look look = {.store = store};
    faults_hook(look_during_sync, &look);
    assert_true(store_put(store, "k", "value", 5).durable);
    assert_int_equal(look.during, RD_ABSENT);
    assert_int_equal(rd_store_exists(store, text_span("k")), RD_OK);
    rd_store_close(store);
}

static void interval_and_none_show_at_once_and_sync_when_asked(void **state)
{
    const rd_open_options *modes[] = {&open_interval, &open_making};
    for (size_t i = 0; i < 2; i++) {
        rd_store *store = store_open_ok(temp_path(state, i == 0 ? "interval" : "none"), modes[i]);
        faults_clear();
        assert_false(store_put(store, "k", "value", 5).durable);
        store_expect(store, hash_of("k"), "value", 5);
        assert_int_equal(faults_count(CALL_FDATASYNC), 0);
        assert_int_equal(rd_store_sync(store), RD_OK);
        assert_int_equal(faults_count(CALL_FDATASYNC), 1);
        assert_int_equal(rd_store_sync(store), RD_OK); /* nothing is left to sync */
        assert_int_equal(faults_count(CALL_FDATASYNC), 1);
        rd_store_close(store);
    }
}

static void write_during_sync(enum call call, const char *name, void *arg)
{
    struct writer *writer = arg;
    if (call != CALL_FDATASYNC || strcmp(name, "s") != 0 || writer->done.tail_off != 0)
        return;
    write_one(writer);
}

static void writers_go_on_while_a_sync_runs_and_are_not_taken_for_synced(void **state)
{
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    struct writer writer = {.store = store, .key_hash = 7, .err = RD_E_INVALID};
    faults_clear();
    faults_hook(write_during_sync, &writer);
    assert_int_equal(rd_store_sync(store), RD_OK);
    assert_int_equal(writer.err, RD_OK);
    store_expect(store, 7, &writer.key_hash, 8);
    assert_int_equal(faults_count(CALL_FDATASYNC), 1);
    assert_int_equal(rd_store_sync(store), RD_OK);
    assert_int_equal(faults_count(CALL_FDATASYNC), 2);
    rd_store_close(store);
}

/* Count the descriptors that a program started now would inherit: with one of the store's goes its lock. */
static void count_inherited(enum call call, const char *name, void *arg)
{
    size_t *inherited = arg;
    (void)call;
    (void)name;
    for (int fd = STDERR_FILENO + 1; fd < 256; fd++) {
        char path[64];
        char target[4096];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t len = readlink(path, target, sizeof(target));
        bool is_store = len > 2 && memcmp(target + len - 2, "/s", 2) == 0;
        *inherited += is_store && (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0;
    }
}

static void a_program_that_is_started_during_a_sync_does_not_keep_the_lock(void **state)
{
    rd_store *store = store_make(state, "s");
    size_t inherited = 0;
    store_put(store, "k", "value", 5);
    faults_clear();
    faults_hook(count_inherited, &inherited);
    assert_int_equal(rd_store_sync(store), RD_OK);
    assert_int_equal(faults_count(CALL_FDATASYNC), 1);
    assert_int_equal(inherited, 0);
    rd_store_close(store);
}

/* ---- Failure ---------------------------------------------------------------------------------------------------- */

static void expect_ended(rd_store *store)
{
    rd_written done;
    uint64_t hash = hash_of("first");
    size_t writes = faults_count(CALL_PWRITEV);
    assert_int_equal(rd_store_write(store, text_span("k"), text_span("again"), &done), RD_E_ENDED);
    assert_int_equal(rd_store_batch_delete(store, &hash, 1, &done), RD_E_ENDED);
    assert_int_equal(rd_store_rename(store, text_span("first"), text_span("other"), &done), RD_E_ENDED);
    assert_int_equal(rd_store_sync(store), RD_E_ENDED);
    assert_int_equal(faults_count(CALL_PWRITEV), writes);
    store_expect(store, hash, "1", 1); /* reading goes on */
}

static void a_failed_sync_of_a_write_ends_writing_and_shows_nothing(void **state)
{
    const int errors[] = {EIO, ENOSPC, EDQUOT};
    for (size_t i = 0; i < 3; i++) {
        rd_written done;
        rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
        store_put(store, "first", "1", 1);
        faults_fail(CALL_FDATASYNC, 1, errors[i]);
        assert_int_equal(rd_store_write(store, text_span("k"), text_span("value"), &done), RD_E_SYNC);
        store_expect_absent(store, hash_of("k"));
        expect_ended(store);
        rd_store_close(store);
        store = store_open_ok(temp_path(state, "s"), &open_always); /* reopened, it is whole or not at all */
        rd_err err = rd_store_exists(store, text_span("k"));
        assert_true(err == RD_OK || err == RD_ABSENT);
        store_put(store, "k", "new", 3);
        rd_store_close(store);
        file_save(temp_path(state, "s"), "", 0);
    }
}

static void a_failed_sync_that_was_asked_for_ends_writing(void **state)
{
    rd_store *store = store_make(state, "s");
    store_put(store, "first", "1", 1);
    faults_fail(CALL_FDATASYNC, 1, EIO);
    assert_int_equal(rd_store_sync(store), RD_E_SYNC);
    expect_ended(store);
    rd_store_close(store);
}

/* What a file held when it was opened may still be on its way to the disk: it is synced before more is appended. */
static void a_failed_sync_of_what_was_there_before_appends_nothing(void **state)
{
    rd_written done;
    rd_store *store = store_make(state, "s");
    store_put(store, "first", "1", 1);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_writing);
    faults_clear();
    faults_fail(CALL_FDATASYNC, 1, EIO);
    assert_int_equal(rd_store_write(store, text_span("k"), text_span("value"), &done), RD_E_SYNC);
    expect_ended(store);
    assert_int_equal(file_len(temp_path(state, "s")), 21);
    rd_store_close(store);
}

/* It writes no tombstone, but what it answers rests on one. */
static void a_delete_of_what_an_earlier_opening_deleted_unsynced_syncs_that(void **state)
{
    rd_written done;
    const char *path = temp_path(state, "s");
    rd_store *store = store_open_ok(path, &open_always);
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    store = store_open_ok(path, &open_writing);
    assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK);
    assert_false(done.durable);
    rd_store_close(store);
    store = store_open_ok(path, &open_always);
    for (size_t syncs = 1; syncs <= 2; syncs++) { /* once is enough */
        faults_clear();
        assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK);
        assert_true(done.durable);
        assert_int_equal(done.deleted_count, 0);
        assert_int_equal(faults_count(CALL_FDATASYNC), syncs == 1 ? 2 : 0); /* for the answer, and for the line */
    }
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(writers_that_wait_share_one_sync),
        FAULT_TEST(a_commit_that_fails_leaves_the_others_of_its_group),
        FAULT_TEST(always_shows_nothing_before_it_is_durable),
        FAULT_TEST(interval_and_none_show_at_once_and_sync_when_asked),
        FAULT_TEST(writers_go_on_while_a_sync_runs_and_are_not_taken_for_synced),
        FAULT_TEST(a_program_that_is_started_during_a_sync_does_not_keep_the_lock),
        FAULT_TEST(a_failed_sync_of_a_write_ends_writing_and_shows_nothing),
        FAULT_TEST(a_failed_sync_that_was_asked_for_ends_writing),
        FAULT_TEST(a_failed_sync_of_what_was_there_before_appends_nothing),
        FAULT_TEST(a_delete_of_what_an_earlier_opening_deleted_unsynced_syncs_that),
    };
    return cmocka_run_group_tests_name("sync", tests, NULL, NULL);
}
