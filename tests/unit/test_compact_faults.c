/* Each system call of a compaction fails in turn: the store stays whole, open for reading and, unless its own sync
   failed, for writing. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* X(name, type, its failure, parameters, arguments) */
#define CALLS(X)                                                                                                       \
    X(pwritev, ssize_t, -1, (int fd, const struct iovec *parts, int count, off_t offset), (fd, parts, count, offset))  \
    X(fdatasync, int, -1, (int fd), (fd))                                                                              \
    X(fsync, int, -1, (int fd), (fd))                                                                                  \
    X(ftruncate, int, -1, (int fd, off_t bytes), (fd, bytes))                                                          \
    X(rename, int, -1, (const char *from, const char *to), (from, to))                                                 \
    X(unlink, int, -1, (const char *path), (path))                                                                     \
    X(flock, int, -1, (int fd, int operation), (fd, operation))                                                        \
    X(fchmod, int, -1, (int fd, mode_t mode), (fd, mode))                                                              \
    X(fchown, int, -1, (int fd, uid_t owner, gid_t group), (fd, owner, group))                                         \
    X(fstat, int, -1, (int fd, struct stat *out), (fd, out))                                                           \
    X(stat, int, -1, (const char *path, struct stat *out), (path, out))                                                \
    X(realpath, char *, NULL, (const char *path, char *out), (path, out))                                              \
    X(mmap, void *, MAP_FAILED, (void *at, size_t len, int prot, int flags, int fd, off_t offset),                     \
      (at, len, prot, flags, fd, offset))

static struct {
    bool armed;
    pthread_t thread;
    size_t count;
    size_t fail_at;
    int error;
    const char *only; /* NULL, or the one call that is counted */
    const char *failed;
} faults;

static bool fails(const char *name)
{
    if (!faults.armed || !pthread_equal(faults.thread, pthread_self()) ||
        (faults.only != NULL && strcmp(faults.only, name) != 0) || ++faults.count != faults.fail_at)
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

/* Compact while the `nth` call fails. */
static rd_err compact_failing(rd_store *store, const char *only, size_t nth, int error, rd_fault *out_fault)
{
    rd_compacted done;
    faults.armed = true;
    faults.thread = pthread_self();
    faults.count = 0;
    faults.fail_at = nth;
    faults.error = error;
    faults.only = only;
    faults.failed = NULL;
    rd_err err = rd_store_compact(store, NULL, out_fault, &done);
    faults.armed = false;
    return err;
}

/* ---- The store --------------------------------------------------------------------------------------------------- */

enum { KEYS = 40 };

/* With what a killed compaction and an old index leave beside it. */
static rd_store *make_store(void **state, rd_sync sync, bool reopened, struct bytes *want)
{
    const rd_open_options options = {.writable = true, .create = true, .sync = sync};
    AUTO_BYTES large = bytes_xorshift(5, 100000);
    rd_written done;
    unlink(temp_path(state, "s"));
    unlink(temp_path(state, "s.writer"));
    rd_store *store = store_open_ok(temp_path(state, "s"), &options);
    store_put(store, "large", large.data, large.len);
    store_fill(store, 0, KEYS);
    store_fill(store, 0, KEYS);
    assert_int_equal(rd_store_delete(store, text_span("key-0"), &done), RD_OK);
    if (reopened) {
        assert_int_equal(rd_store_sync(store), RD_OK);
        rd_store_close(store);
        store = store_open_ok(temp_path(state, "s"), &options);
    }
    file_save(temp_path(state, "s.idx"), "rdrv-idx", 8);
    file_save(temp_path(state, "s.compact"), "left over", 9);
    bytes_free(want);
    build_entry(want, rd_hash(text_span("large")), bytes_span(&large), 64);
    for (uint64_t i = 1; i < KEYS; i++) {
        uint64_t value = htole64(i);
        build_entry(want, fill_hash(i), (rd_span){&value, sizeof value}, 64);
    }
    return store;
}

static void expect_all(rd_store *store)
{
    AUTO_BYTES large = bytes_xorshift(5, 100000);
    store_expect(store, rd_hash(text_span("large")), large.data, large.len);
    store_expect_absent(store, fill_hash(0));
    for (uint64_t i = 1; i < KEYS; i++) {
        uint64_t value = htole64(i);
        store_expect(store, fill_hash(i), &value, sizeof value);
    }
}

static uint64_t inode_of(const char *path)
{
    struct stat st;
    EXPECT(stat(path, &st) == 0, "%s: %s", path, strerror(errno));
    return st.st_ino;
}

/* The file that STORE.writer speaks of. */
static uint64_t inode_said(void **state)
{
    uint64_t inode = 0;
    AUTO_BYTES line = file_load(temp_path(state, "s.writer"));
    bytes_append(&line, "", 1);
    const char *at = strstr((const char *)line.data, " inode=");
    EXPECT(at != NULL && sscanf(at, " inode=%" SCNu64, &inode) == 1, "%s", line.data);
    return inode;
}

/* Write where that goes on, reopen, and compact after all. */
static void expect_goes_on(void **state, rd_store *store, const char *failed)
{
    rd_written done;
    rd_err err = rd_store_write(store, text_span("more"), text_span("goes on"), &done);
    bool ended = err == RD_E_ENDED &&
                 (strcmp(failed, "fdatasync") == 0 || strcmp(failed, "fsync") == 0 || strcmp(failed, "open") == 0);
    EXPECT(err == RD_OK || ended, "%s failed, and then a write: %s", failed, rd_err_text(err));
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_writing);
    expect_all(store);
    assert_int_equal(store_info(store).damaged_ranges, 0);
    assert_int_equal(rd_store_len(store), KEYS + (err == RD_OK ? 1 : 0));
    rd_fault fault;
    assert_int_equal(compact_failing(store, NULL, 0, 0, &fault), RD_OK);
    expect_all(store);
    rd_store_close(store);
}

/* What a compaction must have left when its `nth` call failed. Returns: false once no call was left to fail. */
static bool fail_one(void **state, rd_sync sync, bool reopened, size_t nth, int error)
{
    AUTO_BYTES want = {0};
    rd_fault fault = {0};
    const char *path = temp_path(state, "s");
    rd_store *store = make_store(state, sync, reopened, &want);
    AUTO_BYTES before = file_load(path);
    uint64_t inode = inode_of(path);
    rd_err err = compact_failing(store, NULL, nth, error, &fault);
    const char *failed = faults.failed;
    bool placed = inode_of(path) != inode;
    expect_all(store);
    if (failed == NULL) {
        assert_int_equal(err, RD_OK);
        failed = "nothing";
    }
    EXPECT(err == RD_OK || fault.text[0] != '\0', "call %zu, %s: no text", nth, failed);
    EXPECT(placed == (err == RD_OK) || (err == RD_E_SYNC && strstr(fault.text, "in place") != NULL),
           "call %zu, %s: %s (%s)", nth, failed, rd_err_text(err), fault.text);
    EXPECT(inode_said(state) == inode_of(path), "call %zu, %s: STORE.writer", nth, failed);
    EXPECT(access(temp_path(state, "s.compact"), F_OK) != 0 || strcmp(failed, "unlink") == 0 ||
               (err != RD_OK && file_len(temp_path(state, "s.compact")) == 9), /* not reached yet */
           "call %zu, %s: STORE.compact is left", nth, failed);
    if (placed)
        file_expect(path, want.data, want.len, failed);
    else
        file_expect(path, before.data, before.len, failed);
    expect_goes_on(state, store, failed);
    return strcmp(failed, "nothing") != 0;
}

static void any_failing_call_leaves_the_store_whole(void **state)
{
    const struct {
        rd_sync sync;
        bool reopened;
        int error;
    } runs[] = {{RD_SYNC_ALWAYS, false, EIO}, {RD_SYNC_NONE, true, ENOSPC}, {RD_SYNC_NONE, false, EINTR}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        size_t nth = 1;
        while (fail_one(state, runs[i].sync, runs[i].reopened, nth, runs[i].error))
            nth++;
        assert_true(nth > 30); /* the calls were counted at all */
    }
}

/* A bind mount of one file: the kernel refuses to replace it. */
static void mount_point_is_refused_with_advice(void **state)
{
    AUTO_BYTES want = {0};
    rd_fault fault = {0};
    rd_store *store = make_store(state, RD_SYNC_NONE, false, &want);
    assert_int_equal(compact_failing(store, "rename", 1, EBUSY, &fault), RD_E_IO);
    assert_int_equal(fault.os_error, EBUSY);
    assert_non_null(strstr(fault.text, "mount the directory, not the file"));
    expect_all(store);
    expect_goes_on(state, store, "rename");
}

static void full_disk_is_told_as_such(void **state)
{
    AUTO_BYTES want = {0};
    rd_fault fault = {0};
    rd_store *store = make_store(state, RD_SYNC_NONE, false, &want);
    assert_int_equal(compact_failing(store, "pwritev", 1, ENOSPC, &fault), RD_E_NO_SPACE);
    assert_int_equal(fault.os_error, ENOSPC);
    assert_non_null(strstr(fault.text, strerror(ENOSPC)));
    assert_non_null(strstr(fault.text, "nothing was changed"));
    assert_int_not_equal(access(temp_path(state, "s.compact"), F_OK), 0);
    expect_goes_on(state, store, "pwritev");
}

/* A power cut may bring the old file back: what would be appended to the new one would be lost, though acknowledged. */
static void writing_ends_where_the_rename_may_not_last(void **state)
{
    AUTO_BYTES want = {0};
    rd_fault fault = {0};
    rd_written done;
    rd_store *store = make_store(state, RD_SYNC_NONE, false, &want);
    size_t syncs = 1;
    while (compact_failing(store, "fsync", syncs, EIO, &fault) != RD_E_SYNC) {
        rd_store_close(store);
        store = make_store(state, RD_SYNC_NONE, false, &want);
        syncs++;
        assert_true(syncs < 20);
    }
    assert_non_null(strstr(fault.text, "power cut"));
    file_expect(temp_path(state, "s"), want.data, want.len, "in place");
    assert_int_equal(rd_store_write(store, text_span("k"), text_span("value"), &done), RD_E_ENDED);
    assert_int_equal(compact_failing(store, NULL, 0, 0, &fault), RD_E_ENDED);
    expect_goes_on(state, store, "fsync");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(any_failing_call_leaves_the_store_whole),
        TEMP_TEST(mount_point_is_refused_with_advice),
        TEMP_TEST(full_disk_is_told_as_such),
        TEMP_TEST(writing_ends_where_the_rename_may_not_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
