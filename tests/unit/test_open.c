/* What rd_store_open takes, refuses and leaves alone. */
#include "support.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void missing_path_is_an_io_error_that_names_it(void **state)
{
    const char *path = temp_path(state, "nowhere");
    rd_fault fault = {0};
    rd_store *store = NULL;
    assert_int_equal(rd_store_open(path, &open_reading, &fault, &store), RD_E_IO);
    assert_int_equal(fault.os_error, ENOENT);
    assert_non_null(strstr(fault.text, path));
    store_open_fails(path, &open_writing, RD_E_IO);
    store_open_fails(temp_path(state, "no/folder/store"), &open_making, RD_E_IO);
    assert_int_equal(temp_count(state), 0); /* nothing was made */
}

static void fault_may_be_left_out(void **state)
{
    rd_store *store = NULL;
    assert_int_equal(rd_store_open(temp_path(state, "nowhere"), &open_reading, NULL, &store), RD_E_IO);
    assert_null(store);
}

static void only_a_writer_that_asks_for_it_creates(void **state)
{
    const char *path = temp_path(state, "s");
    rd_open_options options = {.create = true}; /* without `writable` it has no meaning, and makes nothing */
    rd_store *store = NULL;
    assert_int_not_equal(rd_store_open(path, &options, NULL, &store), RD_OK);
    assert_null(store);
    assert_int_equal(temp_count(state), 0);

    store = store_open_ok(path, &open_making);
    assert_int_equal(file_len(path), 0); /* F-01 */
    assert_true(rd_store_is_empty(store));
    rd_store_close(store);
    store = store_open_ok(path, &open_making); /* there already: opened, not emptied */
    store_put(store, "k", "v", 1);
    rd_store_close(store);
    store = store_open_ok(path, &open_making);
    assert_int_equal(rd_store_len(store), 1);
    rd_store_close(store);
}

static void empty_file_is_an_empty_store(void **state)
{
    const char *path = temp_path(state, "s");
    file_save(path, "", 0);
    rd_store *store = store_open_ok(path, &open_reading);
    rd_store_info info = store_info(store);
    rd_entry entry = {0};
    assert_true(rd_store_is_empty(store));
    assert_int_equal(rd_store_len(store), 0);
    assert_int_equal(info.tail_off, 0);
    assert_int_equal(info.unread_bytes, 0);
    assert_int_equal(info.entries, 0);
    assert_false(info.writable);
    assert_int_equal(rd_store_read_last(store, &entry), RD_ABSENT);
    assert_int_equal(rd_store_read(store, text_span("k"), &entry), RD_ABSENT);
    rd_iter *iter = NULL;
    assert_int_equal(rd_iter_create(store, &iter), RD_OK);
    assert_int_equal(rd_iter_next(iter, &entry), RD_ABSENT);
    rd_iter_destroy(iter);
    rd_store_close(store);
    store = store_open_ok(path, &open_writing);
    assert_true(store_info(store).writable);
    rd_store_close(store);
}

static void what_is_no_regular_file_is_refused_at_once(void **state)
{
    const char *folder = temp_path(state, "folder");
    const char *fifo = temp_path(state, "fifo");
    assert_int_equal(mkdir(folder, 0755), 0);
    assert_int_equal(mkfifo(fifo, 0644), 0); /* a blocking open of it would wait for a peer for ever */
    const char *paths[] = {folder, fifo, "/dev/null", "/dev/zero"};
    const rd_open_options *modes[] = {&open_reading, &open_writing, &open_making};
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++)
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
            store_open_fails(paths[p], modes[m], RD_E_NOT_FILE);
}

static void socket_is_refused(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, temp_path(state, "socket"), sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    store_open_fails(temp_path(state, "socket"), &open_reading, RD_E_NOT_FILE); /* though open(2) itself says ENXIO */
    store_open_fails(temp_path(state, "socket"), &open_writing, RD_E_NOT_FILE);
    close(fd);
}

static void symlink_opens_what_it_names(void **state)
{
    const char *link = temp_path(state, "link");
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    assert_int_equal(symlink("s", link), 0);
    store = store_open_ok(link, &open_reading);
    store_expect(store, rd_hash(text_span("k")), "value", 5);
    rd_store_close(store);
    store_open_fails(temp_path(state, "dangling"), &open_reading, RD_E_IO);
}

/* In a child that is nobody: root may read everything. Returns the child's verdict. */
static int open_as_nobody(const char *path, bool writable)
{
    pid_t child = fork();
    EXPECT(child >= 0, "%s", strerror(errno));
    if (child == 0) {
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(99);
        rd_fault fault = {0};
        rd_store *store = NULL;
        rd_open_options options = {.writable = writable};
        rd_err err = rd_store_open(path, &options, &fault, &store);
        _exit(err == RD_E_IO && fault.os_error == EACCES && store == NULL ? 0 : 1);
    }
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child, "%s", strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void file_without_permission_is_an_io_error(void **state)
{
    const char *path = temp_path(state, "s");
    char folder[256];
    strncpy(folder, path, sizeof folder - 1);
    folder[strlen(path) - 2] = '\0';
    assert_int_equal(chmod(folder, 0755), 0);
    file_save(path, "", 0);
    assert_int_equal(chmod(path, 0), 0);
    assert_int_equal(open_as_nobody(path, false), 0);
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(open_as_nobody(path, true), 0);
    assert_int_equal(temp_count(state), 1);
}

static void file_that_may_only_be_read_opens_for_reading(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    assert_int_equal(chmod(path, 0444), 0);
    store = store_open_ok(path, &open_reading);
    store_expect(store, rd_hash(text_span("k")), "value", 5);
    rd_store_close(store);
}

static void second_writer_is_refused_while_readers_may_open(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *writer = store_make(state, "s");
    store_put(writer, "k", "value", 5);
    store_open_fails(path, &open_writing, RD_E_LOCKED);
    store_open_fails(path, &open_making, RD_E_LOCKED);
    rd_store *reader = store_open_ok(path, &open_reading);
    store_expect(reader, rd_hash(text_span("k")), "value", 5);
    store_put(writer, "k", "newer", 5);
    store_expect(writer, rd_hash(text_span("k")), "newer", 5);
    store_open_fails(path, &open_writing, RD_E_LOCKED); /* a reader's close doesn't give the lock away */
    rd_store_close(reader);
    store_open_fails(path, &open_writing, RD_E_LOCKED);
    rd_store_close(writer);
    writer = store_open_ok(path, &open_writing);
    store_expect(writer, rd_hash(text_span("k")), "newer", 5);
    rd_store_close(writer);
}

static void writer_of_another_process_locks_too(void **state)
{
    const char *path = temp_path(state, "s");
    int go[2];
    assert_int_equal(pipe(go), 0);
    pid_t child = fork(); /* before there is a store, so that no lock is inherited */
    assert_true(child >= 0);
    if (child == 0) {
        char byte;
        rd_store *store = NULL;
        if (read(go[0], &byte, 1) != 1 || rd_store_open(path, &open_writing, NULL, &store) != RD_E_LOCKED)
            _exit(1);
        _exit(rd_store_open(path, &open_reading, NULL, &store) == RD_OK && rd_store_len(store) == 1 ? 0 : 2);
    }
    rd_store *writer = store_make(state, "s");
    store_put(writer, "k", "value", 5);
    assert_int_equal(write(go[1], "g", 1), 1);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child ended with %#x", (unsigned)status);
    rd_store_close(writer);
    close(go[0]);
    close(go[1]);
}

static void refused_open_gives_its_lock_back(void **state)
{
    const char *path = temp_path(state, "s");
    file_save(path, "this is no store, only forty bytes of text", 42);
    store_open_fails(path, &open_writing, RD_E_NOT_STORE);
    file_save(path, "", 0);
    rd_store_close(store_open_ok(path, &open_writing));
}

static void reader_ignores_what_a_writer_adds_later(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *writer = store_make(state, "s");
    store_put(writer, "k", "value", 5);
    rd_store *reader = store_open_ok(path, &open_reading);
    uint64_t tail = store_info(reader).tail_off;
    store_fill(writer, 0, 2000);
    uint64_t bytes = 0;
    assert_int_equal(rd_store_file_size(reader, &bytes), RD_OK);
    assert_int_equal(bytes, file_len(path)); /* the file's size is the file's */
    assert_int_equal(store_info(reader).tail_off, tail);
    assert_int_equal(rd_store_len(reader), 1);
    store_expect(reader, rd_hash(text_span("k")), "value", 5);
    store_expect_absent(reader, fill_hash(7));
    rd_store_close(reader);
    rd_store_close(writer);
}

static void set_cancel_flag_ends_opening(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 100000);
    rd_store_close(store);
    atomic_bool cancel = true;
    rd_open_options options = {.cancel = &cancel};
    store_open_fails(path, &options, RD_E_CANCELLED);
    options.writable = true;
    store_open_fails(path, &options, RD_E_CANCELLED);
    atomic_store(&cancel, false);
    store = store_open_ok(path, &options); /* the lock came back */
    assert_int_equal(rd_store_len(store), 100000);
    rd_store_close(store);
}

static void closing_nothing_is_fine(void **state)
{
    (void)state;
    rd_entry entry = {0};
    rd_store_close(NULL);
    rd_iter_destroy(NULL);
    rd_entry_release(&entry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(missing_path_is_an_io_error_that_names_it),
        TEMP_TEST(fault_may_be_left_out),
        TEMP_TEST(only_a_writer_that_asks_for_it_creates),
        TEMP_TEST(empty_file_is_an_empty_store),
        TEMP_TEST(what_is_no_regular_file_is_refused_at_once),
        TEMP_TEST(socket_is_refused),
        TEMP_TEST(symlink_opens_what_it_names),
        TEMP_TEST(file_without_permission_is_an_io_error),
        TEMP_TEST(file_that_may_only_be_read_opens_for_reading),
        TEMP_TEST(second_writer_is_refused_while_readers_may_open),
        TEMP_TEST(writer_of_another_process_locks_too),
        TEMP_TEST(refused_open_gives_its_lock_back),
        TEMP_TEST(reader_ignores_what_a_writer_adds_later),
        TEMP_TEST(set_cancel_flag_ends_opening),
        TEMP_TEST(closing_nothing_is_fine),
    };
    return cmocka_run_group_tests_name("open", tests, NULL, NULL);
}
