/* Each system call, and each piece of memory, that making or loading a snapshot index asks for is refused in turn: the
   old one or none is there, the store is as it was, and what can't be loaded is recovered. */
#include "index_file.h"

#include "indexing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* X(name, type, its failure, parameters, arguments) */
#define CALLS(X)                                                                                                       \
    X(pwritev, ssize_t, -1, (int fd, const struct iovec *parts, int count, off_t offset), (fd, parts, count, offset))  \
    X(pread, ssize_t, -1, (int fd, void *into, size_t len, off_t offset), (fd, into, len, offset))                     \
    X(fdatasync, int, -1, (int fd), (fd))                                                                              \
    X(fsync, int, -1, (int fd), (fd))                                                                                  \
    X(rename, int, -1, (const char *from, const char *to), (from, to))                                                 \
    X(unlink, int, -1, (const char *path), (path))                                                                     \
    X(flock, int, -1, (int fd, int operation), (fd, operation))                                                        \
    X(fchown, int, -1, (int fd, uid_t owner, gid_t group), (fd, owner, group))                                         \
    X(fstat, int, -1, (int fd, struct stat *out), (fd, out))                                                           \
    X(stat, int, -1, (const char *path, struct stat *out), (path, out))                                                \
    X(realpath, char *, NULL, (const char *path, char *out), (path, out))                                              \
    X(malloc, void *, NULL, (size_t size), (size))                                                                     \
    X(calloc, void *, NULL, (size_t count, size_t size), (count, size))                                                \
    X(realloc, void *, NULL, (void *old, size_t size), (old, size))                                                    \
    X(aligned_alloc, void *, NULL, (size_t alignment, size_t size), (alignment, size))                                 \
    X(mmap, void *, MAP_FAILED, (void *at, size_t len, int prot, int flags, int fd, off_t offset),                     \
      (at, len, prot, flags, fd, offset))

static struct {
    bool armed;
    pthread_t thread;
    size_t count;
    size_t fail_at;
    int error;
    const char *failed;
} faults;

static bool fails(const char *name)
{
    if (!faults.armed || !pthread_equal(faults.thread, pthread_self()) || ++faults.count != faults.fail_at)
        return false;
    faults.failed = name;
    errno = faults.error;
    return true;
}

#define DECLARE(name, type, failure, parameters, arguments)                                                            \
    type __real_##name parameters;                                                                                     \
    type __wrap_##name parameters;
CALLS(DECLARE)
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

#define DEFINE(name, type, failure, parameters, arguments)                                                             \
    type __wrap_##name parameters                                                                                      \
    {                                                                                                                  \
        return fails(#name) ? failure : __real_##name arguments;                                                       \
    }
CALLS(DEFINE)

int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return fails("open") ? -1 : __real_open(path, flags, mode);
}

static void arm(size_t nth, int error)
{
    faults.thread = pthread_self();
    faults.count = 0;
    faults.fail_at = nth;
    faults.error = error;
    faults.failed = NULL;
    faults.armed = true;
}

static void disarm(void)
{
    faults.armed = false;
}

static bool is_there(void **state, const char *name)
{
    return access(temp_path(state, name), F_OK) == 0;
}

/* ---- Making it --------------------------------------------------------------------------------------------------- */

/* What must be left when the `nth` call of `make` failed. `old`: the index that was there, empty for none. */
static void expect_left(void **state, const struct bytes *store, const struct bytes *old, bool made, size_t nth)
{
    char what[64];
    snprintf(what, sizeof what, "call %zu, %s", nth, faults.failed != NULL ? faults.failed : "nothing");
    file_expect(temp_path(state, "s"), store->data, store->len, what);
    EXPECT(!is_there(state, "s.idx.new") || strcmp(faults.failed, "unlink") == 0 ||
               strcmp(faults.failed, "stat") == 0, /* not told to be ours any more */
           "%s: a half made one is left", what);
    unlink(temp_path(state, "s.idx.new"));
    if (!made && old->len > 0)
        file_expect(temp_path(state, "s.idx"), old->data, old->len, what);
    EXPECT(made || old->len > 0 || !is_there(state, "s.idx"), "%s: there was none", what);
    rd_index_source source = source_if_same(state, "s", what);
    EXPECT(source == (made || old->len > 0 ? RD_INDEX_SNAPSHOT : RD_INDEX_NONE), "%s: %s", what, rd_index_text(source));
}

/* Returns: false once no call was left to fail. */
static bool fail_making(void **state, size_t nth, int error, bool has_old)
{
    rd_fault fault = {0};
    rd_indexed done;
    AUTO_BYTES old = {0};
    indexed_make(state);
    if (has_old) {
        index_ok(state, "s");
        rd_store *store = store_open_ok(temp_path(state, "s"), &open_writing);
        store_put(store, "more", "since then", 10);
        assert_int_equal(rd_store_sync(store), RD_OK);
        rd_store_close(store);
        old = file_load(temp_path(state, "s.idx"));
    }
    AUTO_BYTES file = file_load(temp_path(state, "s"));
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_recovering);
    arm(nth, error);
    rd_err err = rd_store_save_index(store, NULL, &fault, &done);
    disarm();
    bool failed = faults.failed != NULL;
    EXPECT(failed || err == RD_OK, "nothing failed: %s", fault.text);
    EXPECT(err == RD_OK || fault.text[0] != '\0', "call %zu, %s: no text", nth, faults.failed);
    rd_store_close(store);
    bool made = err == RD_OK || strstr(fault.text, "was put in place") != NULL;
    expect_left(state, &file, &old, made, nth);
    return failed;
}

/* I-10 */
static void any_failing_call_of_making_leaves_the_old_one_or_none(void **state)
{
    static const int errors[] = {EIO, ENOSPC, ENOMEM};
    for (size_t i = 0; i < 3; i++) {
        size_t nth = 1;
        while (fail_making(state, nth, errors[i], i != 1))
            nth++;
        assert_true(nth > 15); /* they were counted at all */
    }
}

static bool fail_closing(void **state, size_t nth)
{
    const rd_open_options options = {.writable = true, .sync = RD_SYNC_NONE, .index_after = 1};
    AUTO_BYTES old = {0};
    indexed_make(state);
    rd_store *store = store_open_ok(temp_path(state, "s"), &options);
    store_put(store, "more", "before it is closed", 19);
    AUTO_BYTES file = file_load(temp_path(state, "s"));
    arm(nth, EIO);
    rd_store_close(store);
    disarm();
    expect_left(state, &file, &old, is_there(state, "s.idx"), nth);
    return faults.failed != NULL;
}

/* I-11 */
static void any_failing_call_of_closing_costs_no_more_than_the_index(void **state)
{
    size_t nth = 1;
    while (fail_closing(state, nth))
        nth++;
    assert_true(nth > 20);
    assert_true(is_there(state, "s.idx"));
}

/* ---- Loading it -------------------------------------------------------------------------------------------------- */

/* Load beside an open store, where nothing else asks for anything. */
static bool fail_loading(void **state, rd_store *store, size_t nth)
{
    struct index_file file = {.path = (char *)(uintptr_t)temp_path(state, "s.idx"), .beside = true};
    const struct recover_options options = {.synced_off = SYNCED_UNKNOWN};
    const struct index_file_call call = {.store_path = temp_path(state, "s"),
                                         .file = &store->file,
                                         .mapping = store->view->mapping,
                                         .bytes = store_info(store).file_size,
                                         .options = &options};
    struct recovered found;
    arm(nth, EIO);
    rd_err err = index_file_load(&file, &call, &found);
    disarm();
    bool failed = faults.failed != NULL;
    EXPECT(err == RD_OK || (failed && err == RD_ABSENT), "call %zu, %s: %s", nth, faults.failed, rd_err_text(err));
    EXPECT((err == RD_OK) == (file.source == RD_INDEX_SNAPSHOT), "call %zu", nth);
    if (err == RD_OK) {
        EXPECT(found.live_keys == rd_store_len(store), "call %zu", nth);
        recovered_fini(&found);
    }
    return failed;
}

static void any_failing_call_of_loading_leaves_it_to_recovery(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    for (int grown = 0; grown < 2; grown++) {
        rd_store *store = store_open_ok(temp_path(state, "s"), &open_recovering);
        size_t nth = 1;
        while (fail_loading(state, store, nth))
            nth++;
        assert_true(nth > 8);
        rd_store_close(store);
        store = store_open_ok(temp_path(state, "s"), &open_writing); /* and then what lies above T too */
        store_fill(store, 1000, 50);
        assert_int_equal(rd_store_sync(store), RD_OK);
        rd_store_close(store);
        assert_int_equal(source_of(state, "s"), RD_INDEX_SNAPSHOT);
    }
}

static void any_failing_call_of_opening_is_an_error_or_none(void **state)
{
    indexed_make(state);
    index_ok(state, "s");
    for (size_t nth = 1;; nth++) {
        rd_store *store = NULL;
        rd_fault fault = {0};
        arm(nth, EIO);
        rd_err err = rd_store_open(temp_path(state, "s"), &open_reading, &fault, &store);
        disarm();
        EXPECT(err == RD_OK || err == RD_E_IO || err == RD_E_NOMEM, "call %zu, %s: %s", nth, faults.failed, fault.text);
        if (err == RD_OK)
            EXPECT(rd_store_len(store) == 19, "call %zu, %s: %llu keys", nth, faults.failed,
                   (unsigned long long)rd_store_len(store));
        rd_store_close(store);
        if (faults.failed == NULL)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(any_failing_call_of_making_leaves_the_old_one_or_none),
        TEMP_TEST(any_failing_call_of_closing_costs_no_more_than_the_index),
        TEMP_TEST(any_failing_call_of_loading_leaves_it_to_recovery),
        TEMP_TEST(any_failing_call_of_opening_is_an_error_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
