/* STORE.writer: who writes, and up to where it is known to be durable. */
#include "store_internal.h"

#include "faults.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const rd_open_options open_always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};

/* The last part of this test's folder. */
static const char *dir_name(void **state)
{
    static char name[64];
    snprintf(name, sizeof name, "%s", temp_path(state, "s"));
    *strrchr(name, '/') = '\0';
    return strrchr(name, '/') + 1;
}

static void expect_log(void **state, const char *before_dir, const char *behind_dir)
{
    char want[512];
    snprintf(want, sizeof want, "%sfsync %s\n%s", before_dir, dir_name(state), behind_dir);
    assert_string_equal(faults_log(), want);
}

static struct writer_said said_of(void **state)
{
    struct writer_said said = {0};
    assert_true(writer_line_read(temp_path(state, "s"), &said));
    return said;
}

static uint64_t inode_of(const char *path)
{
    struct stat at;
    assert_int_equal(stat(path, &at), 0);
    return (uint64_t)at.st_ino;
}

/* ---- When ------------------------------------------------------------------------------------------------------- */

static void the_line_is_durable_before_the_first_append(void **state)
{
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    assert_int_equal(temp_count(state), 1); /* opening alone writes none */
    faults_clear();
    store_put(store, "k", "value", 5);
    expect_log(state, "pwritev s.writer\nftruncate s.writer\nfsync s.writer\n", "pwritev s\nfdatasync s\n");
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_always);
    faults_clear();
    store_put(store, "k", "value", 5); /* what the file held is made durable first, since the line says that it is */
    expect_log(state, "fdatasync s\npwritev s.writer\nftruncate s.writer\nfsync s.writer\n",
               "pwritev s\nfdatasync s\n");
    rd_store_close(store);
}

static void nothing_written_means_no_line(void **state)
{
    rd_written done;
    rd_store *store = store_make(state, "s");
    assert_int_equal(rd_store_delete(store, text_span("absent"), &done), RD_OK);
    assert_int_equal(rd_store_batch_write(store, NULL, 0, &done), RD_OK);
    assert_int_equal(rd_store_write(store, text_span("k"), (rd_span){0}, &done), RD_E_PAYLOAD);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    assert_int_equal(temp_count(state), 1);
}

static void sync_makes_durable_what_an_earlier_opening_left(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_written done = store_put(store, "k", "value", 5);
    rd_store_close(store);
    assert_int_equal(said_of(state).synced_off, 0);
    store = store_open_ok(temp_path(state, "s"), &open_writing);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    assert_int_equal(said_of(state).synced_off, done.tail_off);
}

/* It rests on what that opening left, which the old line would go on calling torn. */
static void a_durable_delete_of_nothing_makes_the_line_say_so(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_written done = store_put(store, "k", "value", 5);
    rd_store_close(store);
    assert_int_equal(said_of(state).synced_off, 0);
    store = store_open_ok(temp_path(state, "s"), &open_always);
    rd_written deleted;
    assert_int_equal(rd_store_delete(store, text_span("absent"), &deleted), RD_OK);
    assert_true(deleted.durable);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    assert_int_equal(said_of(state).synced_off, done.tail_off);
}

/* As one has that the crate wrote, or that was copied. */
static void sync_makes_durable_what_a_file_without_a_line_of_its_own_holds(void **state)
{
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    rd_written done = store_put(store, "k", "value", 5);
    rd_store_close(store);
    AUTO_BYTES line = file_load(temp_path(state, "s.writer"));
    for (int round = 0; round < 2; round++) {
        AUTO_BYTES file = file_load(temp_path(state, "s"));
        assert_int_equal(rename(temp_path(state, "s"), temp_path(state, "kept")), 0); /* a copy has another inode */
        file_save(temp_path(state, "s"), file.data, file.len);
        if (round == 0)
            file_save(temp_path(state, "s.writer"), line.data, line.len);
        else
            assert_int_equal(remove(temp_path(state, "s.writer")), 0);
        store = store_open_ok(temp_path(state, "s"), &open_writing);
        faults_clear();
        assert_int_equal(rd_store_sync(store), RD_OK);
        assert_true(faults_count(CALL_FDATASYNC) > 0);
        faults_clear();
        assert_int_equal(rd_store_sync(store), RD_OK); /* once is enough */
        assert_int_equal(faults_count(CALL_FDATASYNC), 0);
        rd_store_close(store);
        assert_int_equal(said_of(state).synced_off, done.tail_off);
        assert_int_equal(said_of(state).inode, inode_of(temp_path(state, "s")));
    }
}

static void the_line_follows_syncs_at_most_once_a_second_and_unsynced(void **state)
{
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    faults_clock(1000);
    store_put(store, "k", "value", 5);
    assert_int_equal(said_of(state).synced_off, 0);
    size_t fsyncs = faults_count(CALL_FSYNC);
    rd_written done = store_put(store, "k", "value", 5);
    assert_int_equal(said_of(state).synced_off, 0); /* not within the second */
    faults_clock(1001);
    done = store_put(store, "k", "value", 5);
    assert_int_equal(said_of(state).synced_off, done.tail_off);
    rd_written last = store_put(store, "k", "value", 5);
    assert_int_equal(said_of(state).synced_off, done.tail_off);
    rd_store_close(store);
    assert_int_equal(said_of(state).synced_off, last.tail_off); /* closing tells all */
    assert_int_equal(faults_count(CALL_FSYNC), fsyncs);
}

static void the_line_never_promises_what_was_not_synced(void **state)
{
    faults_clock(1000);
    rd_store *store = store_make(state, "s");
    rd_written synced = store_put(store, "k", "value", 5);
    assert_int_equal(rd_store_sync(store), RD_OK);
    store_put(store, "k", "value", 5);
    faults_clock(2000);
    rd_store_close(store);
    assert_true(said_of(state).synced_off <= synced.tail_off);
}

/* ---- What ------------------------------------------------------------------------------------------------------- */

static void the_line_is_one_sector_of_text_that_names_its_writer(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_open_ok(path, &open_always);
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    AUTO_BYTES line = file_load(temp_path(state, "s.writer"));
    assert_int_equal(line.len, 512);
    for (size_t i = 0; i < 511; i++)
        EXPECT(line.data[i] >= ' ' && line.data[i] <= '~', "byte %zu", i);
    assert_int_equal(line.data[511], '\n');
    struct stat at;
    assert_int_equal(stat(temp_path(state, "s.writer"), &at), 0);
    assert_int_equal(at.st_mode & 0133, 0);

    char host[65] = {0};
    struct writer_said said = said_of(state);
    assert_int_equal(gethostname(host, sizeof host - 1), 0);
    assert_int_equal(said.pid, getpid());
    assert_string_equal(said.host, host);
    assert_int_equal(said.inode, inode_of(path));
    assert_int_equal(said.synced_off, file_len(path));
    assert_true(said.start > 1600000000 && said.start <= (uint64_t)time(NULL));
}

static void whoever_reads_the_store_reads_the_line(void **state)
{
    const mode_t modes[] = {0600, 0640, 0644, 0660};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        struct stat at;
        rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
        assert_int_equal(chmod(temp_path(state, "s"), modes[i]), 0);
        store_put(store, "k", "value", 5);
        rd_store_close(store);
        assert_int_equal(stat(temp_path(state, "s.writer"), &at), 0);
        assert_int_equal(at.st_mode & 07777, (modes[i] & 0444) | 0600);
    }
}

static void no_damaged_line_is_believed(void **state)
{
    const char *path = temp_path(state, "s");
    const char *line_path = temp_path(state, "s.writer");
    struct writer_said said;
    rd_store *store = store_open_ok(path, &open_always);
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    AUTO_BYTES line = file_load(line_path);
    for (uint64_t i = 0; i < line.len; i++) {
        file_poke(line_path, i, 1);
        EXPECT(!writer_line_read(path, &said), "byte %llu", (unsigned long long)i);
        file_poke(line_path, i, 1);
    }
    for (size_t len = 0; len < line.len; len += 73) {
        file_save(line_path, line.data, len);
        EXPECT(!writer_line_read(path, &said), "%zu bytes", len);
    }
    bytes_append(&line, "\n", 1);
    file_save(line_path, line.data, line.len);
    assert_false(writer_line_read(path, &said));
    file_save(line_path, line.data, 512);
    assert_true(writer_line_read(path, &said));
    assert_int_equal(remove(line_path), 0);
    assert_false(writer_line_read(path, &said));
    assert_int_equal(mkfifo(line_path, 0600), 0); /* refused, not waited for */
    assert_false(writer_line_read(path, &said));
}

static void a_damaged_line_is_replaced(void **state)
{
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    file_save(temp_path(state, "s.writer"), temp_path(state, "s"), 20);
    store_put(store, "k", "value", 5);
    assert_int_equal(said_of(state).pid, getpid());
    rd_store_close(store);
}

/* Write a line that says these fields, checksum and all. */
static void save_line(void **state, const char *fields)
{
    char line[513];
    char text[400];
    snprintf(text, sizeof text, "%s checksum=%08x", fields, (unsigned)sum_crc32(fields, strlen(fields)));
    snprintf(line, sizeof line, "%-511s\n", text);
    file_save(temp_path(state, "s.writer"), line, 512);
}

static void only_a_host_that_can_be_quoted_is_believed(void **state)
{
    const char *hosts[] = {"a\x1b[31mb", "a\tb", "a\x7f", "caf\xc3\xa9", "", " "};
    struct writer_said said;
    for (size_t i = 0; i <= sizeof hosts / sizeof *hosts; i++) {
        char fields[200];
        bool plain = i == sizeof hosts / sizeof *hosts;
        snprintf(fields, sizeof fields, "rdrive-writer pid=1 host=%s start=2 inode=3 synced=4",
                 plain ? "host-1.example" : hosts[i]);
        save_line(state, fields);
        EXPECT(writer_line_read(temp_path(state, "s"), &said) == plain, "host %zu", i);
    }
    assert_int_equal(said.torn.count, 0); /* as lines were before they told of torn ranges */
}

static void only_torn_ranges_as_we_write_them_are_believed(void **state)
{
    const char *lists[] = {" torn=",
                           " torn=9",
                           " torn=9:",
                           " torn=9:1",
                           " torn=9:1-2",
                           " torn=9:1-2/",
                           " torn=9:1-2/1,",
                           " torn=9:1-2/1,3",
                           " torn=9:01-2/1",
                           " torn=9:1--2/1",
                           " torn=9: 1-2/1",
                           " torn=1-2/1",
                           " torn=9:1-2/1 torn=9:3-4/1",
                           ",1-2/1",
                           " torn=9:1-99999999999999999999/1",
                           " torn=9:6-6/0,5-5/0,4-4/0,3-3/0,2-2/0,1-1/0",
                           " torn=9,1-2/1",
                           " torn=9:1-2/1:1-2/1"};
    struct writer_said said;
    char fields[300];
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        snprintf(fields, sizeof fields, "rdrive-writer pid=1 host=h start=2 inode=3 synced=4%s", lists[i]);
        save_line(state, fields);
        EXPECT(!writer_line_read(temp_path(state, "s"), &said), "%s", lists[i]);
    }
    snprintf(fields, sizeof fields, "rdrive-writer pid=1 host=h start=2 inode=3 synced=4 torn=9:30-40/10,10-20/9");
    save_line(state, fields);
    assert_true(writer_line_read(temp_path(state, "s"), &said));
    assert_int_equal(said.torn_inode, 9);
    assert_int_equal(said.torn.count, 2);
    assert_int_equal(said.torn.ranges[1].begin_off, 10);
    assert_int_equal(said.torn.ranges[1].end_off, 20);
    assert_int_equal(said.torn.ranges[1].torn_bytes, 9);
}

/* Torn ranges of ten bytes that begin there, each with damage in front of it. */
static struct layout *layout_of(const uint64_t *begins, size_t count)
{
    struct layout *layout = NULL;
    assert_int_equal(layout_create(&layout), RD_OK);
    for (size_t i = 0; i < count; i++) {
        struct damage torn = {.begin_off = begins[i], .end_off = begins[i] + 10, .kind = DAMAGE_TORN};
        struct damage lost = {.begin_off = begins[i] - 10, .end_off = begins[i], .kind = RD_DAMAGE_RANGE};
        assert_int_equal(layout_add(layout, &torn), RD_OK);
        assert_int_equal(layout_add(layout, &lost), RD_OK);
    }
    return layout;
}

static void the_closest_torn_ranges_are_joined_until_they_fit_a_line_of_the_largest_store(void **state)
{
    const uint64_t top = (UINT64_C(1) << 48) - 10;
    const uint64_t begins[] = {top, top - 100, top - 120, top - 230, top - 300, top - 400, top - 425, top - 450};
    struct layout *layout = layout_of(begins, sizeof begins / sizeof *begins);
    struct writer_line *line = NULL;
    struct file file;
    rd_store_close(store_make(state, "s"));
    assert_int_equal(file_open(temp_path(state, "s"), &open_writing, &file), RD_OK);
    assert_int_equal(writer_line_create(temp_path(state, "s"), &line), RD_OK);
    assert_int_equal(writer_line_begin(line, &file, layout, top + 10), RD_OK);
    struct writer_said said = said_of(state);
    const struct torn_range want[] = {
        {top, top + 10, 10},        {top - 120, top - 90, 20},  {top - 230, top - 220, 10},
        {top - 300, top - 290, 10}, {top - 450, top - 390, 30},
    };
    assert_int_equal(said.torn.count, TORN_RANGES_MAX);
    assert_memory_equal(said.torn.ranges, want, sizeof want);
    writer_line_synced(line, top + 11, true); /* it goes on saying so */
    assert_int_equal(said_of(state).synced_off, top + 11);
    assert_int_equal(said_of(state).torn.count, TORN_RANGES_MAX);
    assert_int_equal(writer_line_move(line, &file, NULL, &file, 0), RD_OK);
    assert_int_equal(said_of(state).torn.count, 0);
    writer_line_destroy(line);
    file_close(&file);
    layout_unref(layout);
}

/* ---- Where ------------------------------------------------------------------------------------------------------ */

static void every_name_of_a_linked_store_finds_the_line(void **state)
{
    assert_int_equal(mkdir(temp_path(state, "elsewhere"), 0700), 0);
    const char *real = temp_path(state, "elsewhere/real");
    assert_int_equal(symlink(real, temp_path(state, "s")), 0);
    rd_store_close(store_make(state, "elsewhere/real"));
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    assert_int_equal(file_len(temp_path(state, "elsewhere/real.writer")), 512);
    assert_int_equal(temp_count(state), 2);
    struct writer_said said;
    assert_true(writer_line_read(real, &said));
    assert_int_equal(said_of(state).inode, inode_of(real));
}

/* What lies in the line's place and is none. */
enum squatter { A_LINK, A_DANGLING_LINK, A_SECOND_NAME, A_LONGER_FILE, A_FOLDER, A_FIFO, SQUATTERS };

static void squat(void **state, enum squatter kind)
{
    const char *victim = temp_path(state, "victim");
    const char *line = temp_path(state, "s.writer");
    char longer[513] = "another store, say";
    file_save(victim, "precious", 8);
    switch (kind) {
    case A_LINK: assert_int_equal(symlink(victim, line), 0); break;
    case A_DANGLING_LINK: assert_int_equal(symlink("nowhere", line), 0); break;
    case A_SECOND_NAME: assert_int_equal(link(victim, line), 0); break;
    case A_LONGER_FILE: file_save(line, longer, sizeof longer); break;
    case A_FOLDER: assert_int_equal(mkdir(line, 0700), 0); break;
    case A_FIFO: assert_int_equal(mkfifo(line, 0600), 0); break;
    case SQUATTERS: fail(); break;
    }
}

static void expect_untouched(void **state, enum squatter kind)
{
    static const rd_open_options read_only = {0};
    rd_store_close(store_open_ok(temp_path(state, "s"), &read_only)); /* who reads needs no line */
    file_expect(temp_path(state, "victim"), "precious", 8, "the victim");
    assert_int_equal(file_len(temp_path(state, "s")), 0);
    if (kind == A_LONGER_FILE)
        assert_int_equal(file_len(temp_path(state, "s.writer")), 513);
    if (kind == A_DANGLING_LINK)
        assert_int_equal(access(temp_path(state, "nowhere"), F_OK), -1);
}

static void what_is_no_line_is_left_alone(void **state)
{
    for (enum squatter kind = 0; kind < SQUATTERS; kind++) {
        rd_written done;
        rd_fault fault;
        rd_store *refused = NULL;
        rd_store *store = store_make(state, "s");
        squat(state, kind); /* under a writer that has noted nothing yet */
        EXPECT(rd_store_write(store, text_span("k"), text_span("value"), &done) == RD_E_IO, "kind %u", kind);
        expect_untouched(state, kind);
        rd_store_close(store);
        EXPECT(rd_store_open(temp_path(state, "s"), &open_always, &fault, &refused) == RD_E_IO, "kind %u", kind);
        EXPECT(strstr(fault.text, "STORE.writer can't be written") != NULL, "kind %u: %s", kind, fault.text);
        expect_untouched(state, kind);
        assert_int_equal(remove(temp_path(state, "s.writer")), 0);
        store = store_open_ok(temp_path(state, "s"), &open_always); /* the store goes on */
        store_put(store, "k", "value", 5);
        rd_store_close(store);
        assert_int_equal(remove(temp_path(state, "s")), 0);
        assert_int_equal(remove(temp_path(state, "s.writer")), 0);
    }
}

static void a_store_whose_name_leaves_none_for_a_line_is_read(void **state)
{
    static const rd_open_options read_only = {0};
    rd_fault fault;
    rd_store *store = NULL;
    char name[256] = {0};
    memset(name, 'x', 250);
    file_save(temp_path(state, name), "", 0);
    rd_store_close(store_open_ok(temp_path(state, name), &read_only));
    assert_int_equal(rd_store_open(temp_path(state, name), &open_always, &fault, &store), RD_E_IO);
    assert_int_equal(fault.os_error, ENAMETOOLONG);
}

/* As a backup by hard links has one. */
static void a_line_with_a_second_name_is_written(void **state)
{
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    assert_int_equal(link(temp_path(state, "s.writer"), temp_path(state, "kept")), 0);
    store = store_open_ok(temp_path(state, "s"), &open_always);
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    assert_int_equal(said_of(state).synced_off, file_len(temp_path(state, "s")));
}

static void a_moved_line_speaks_of_the_new_file(void **state)
{
    struct writer_line *line = NULL;
    rd_store_close(store_make(state, "s"));
    file_save(temp_path(state, "new"), "", 0);
    struct file old_file, new_file;
    assert_int_equal(file_open(temp_path(state, "s"), &open_writing, &old_file), RD_OK);
    assert_int_equal(file_open(temp_path(state, "new"), &open_writing, &new_file), RD_OK);
    assert_int_equal(writer_line_create(temp_path(state, "s"), &line), RD_OK);
    assert_int_equal(writer_line_begin(line, &old_file, NULL, 100), RD_OK);
    assert_int_equal(said_of(state).inode, inode_of(temp_path(state, "s")));
    assert_int_equal(said_of(state).synced_off, 100);
    faults_clear();
    assert_int_equal(writer_line_move(line, &old_file, NULL, &new_file, 64),
                     RD_OK); /* less than before, of another file */
    expect_log(state, "pwritev s.writer\nftruncate s.writer\nfsync s.writer\n", "");
    assert_int_equal(said_of(state).inode, inode_of(temp_path(state, "new")));
    assert_int_equal(said_of(state).synced_off, 64);
    assert_int_equal(writer_line_begin(line, &new_file, NULL, 64), RD_OK); /* nothing is left to do */
    assert_int_equal(faults_count(CALL_PWRITEV), 1);
    faults_fail(CALL_FSYNC, 1, EIO);
    assert_int_equal(writer_line_move(line, &new_file, NULL, &old_file, 100),
                     RD_E_IO);                                              /* the new file's place comes to nothing */
    assert_int_equal(writer_line_begin(line, &old_file, NULL, 100), RD_OK); /* so it is written before an append */
    assert_int_equal(said_of(state).inode, inode_of(temp_path(state, "s")));
    writer_line_destroy(line);
    file_close(&old_file);
    file_close(&new_file);
}

/* ---- Failure ---------------------------------------------------------------------------------------------------- */

static void no_line_no_append(void **state)
{
    const struct {
        enum call call;
        size_t nth;
        int error;
        rd_err err;
    } cases[] = {
        {CALL_PWRITEV, 1, ENOSPC, RD_E_NO_SPACE}, {CALL_PWRITEV, 1, EIO, RD_E_IO}, {CALL_FTRUNCATE, 1, EIO, RD_E_IO},
        {CALL_FSYNC, 1, ENOSPC, RD_E_NO_SPACE},   {CALL_FSYNC, 1, EIO, RD_E_IO},   {CALL_FSYNC, 2, EIO, RD_E_IO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rd_written done;
        rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
        faults_clear();
        faults_clock(1000); /* no second passes, after which the line would follow */
        faults_fail(cases[i].call, cases[i].nth, cases[i].error);
        rd_err err = rd_store_write(store, text_span("k"), text_span("value"), &done);
        EXPECT(err == cases[i].err, "case %zu: %s", i, rd_err_text(err));
        EXPECT(strstr(faults_log(), "pwritev s\n") == NULL, "case %zu", i);
        assert_int_equal(file_len(temp_path(state, "s")), 0);
        store_put(store, "k", "value", 5); /* the store goes on, with a whole line */
        assert_int_equal(said_of(state).synced_off, 0);
        rd_store_close(store);
        assert_int_equal(remove(temp_path(state, "s")), 0);
        assert_int_equal(remove(temp_path(state, "s.writer")), 0);
    }
}

static void a_line_that_cannot_be_rewritten_harms_nobody(void **state)
{
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_always);
    faults_clock(1000);
    store_put(store, "k", "value", 5);
    faults_clock(1001);
    faults_fail(CALL_PWRITEV, 2, EIO); /* the entry's own write comes first */
    rd_written done = store_put(store, "k", "value", 5);
    assert_int_equal(said_of(state).synced_off, 0);
    store_put(store, "k", "value", 5);
    faults_clock(1002);
    done = store_put(store, "k", "value", 5);
    assert_int_equal(said_of(state).synced_off, done.tail_off);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(the_line_is_durable_before_the_first_append),
        FAULT_TEST(nothing_written_means_no_line),
        FAULT_TEST(sync_makes_durable_what_an_earlier_opening_left),
        FAULT_TEST(a_durable_delete_of_nothing_makes_the_line_say_so),
        FAULT_TEST(sync_makes_durable_what_a_file_without_a_line_of_its_own_holds),
        FAULT_TEST(the_line_follows_syncs_at_most_once_a_second_and_unsynced),
        FAULT_TEST(the_line_never_promises_what_was_not_synced),
        FAULT_TEST(the_line_is_one_sector_of_text_that_names_its_writer),
        FAULT_TEST(whoever_reads_the_store_reads_the_line),
        FAULT_TEST(no_damaged_line_is_believed),
        FAULT_TEST(a_damaged_line_is_replaced),
        FAULT_TEST(only_a_host_that_can_be_quoted_is_believed),
        FAULT_TEST(only_torn_ranges_as_we_write_them_are_believed),
        FAULT_TEST(the_closest_torn_ranges_are_joined_until_they_fit_a_line_of_the_largest_store),
        FAULT_TEST(every_name_of_a_linked_store_finds_the_line),
        FAULT_TEST(what_is_no_line_is_left_alone),
        FAULT_TEST(a_store_whose_name_leaves_none_for_a_line_is_read),
        FAULT_TEST(a_line_with_a_second_name_is_written),
        FAULT_TEST(a_moved_line_speaks_of_the_new_file),
        FAULT_TEST(no_line_no_append),
        FAULT_TEST(a_line_that_cannot_be_rewritten_harms_nobody),
    };
    return cmocka_run_group_tests_name("writer_line", tests, NULL, NULL);
}
