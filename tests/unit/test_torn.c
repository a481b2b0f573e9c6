/* What opening for writing does with what a crash tore: the tail is saved and cut, the middle is superseded. */
#include "faults.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const rd_open_options open_always = {.writable = true, .sync = RD_SYNC_ALWAYS};

/* A store of two entries with `len` bytes of a third one behind them. Returns: where the tail is. */
static uint64_t save_torn(const char *path, size_t len)
{
    AUTO_BYTES file = {0};
    AUTO_BYTES big = bytes_xorshift(9, len + 1);
    build_entry(&file, 1, text_span("one"), 64);
    build_entry(&file, 2, text_span("two"), 64);
    uint64_t tail = file.len;
    build_entry(&file, 3, bytes_span(&big), 64);
    file_save(path, file.data, (size_t)tail + len);
    return tail;
}

static const char *torn_path(void **state, uint64_t tail, const char *more)
{
    char name[64];
    snprintf(name, sizeof name, "s.torn-%llu%s", (unsigned long long)tail, more);
    return temp_path(state, name);
}

static void expect_cut(const char *path, const struct bytes *before, uint64_t tail)
{
    rd_store *store = store_open_ok(path, &open_writing);
    assert_int_equal(store_info(store).tail_off, tail);
    file_expect(path, before->data, (size_t)tail, "the store");
    store_put(store, "k", "goes on", 7);
    store_expect(store, 2, "two", 3);
    rd_store_close(store);
}

static void a_torn_tail_is_saved_byte_for_byte_and_cut(void **state)
{
    const size_t lens[] = {1, 20, 63, 4096, 262143, 262144, 262145, 600000};
    const char *path = temp_path(state, "s");
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        uint64_t tail = save_torn(path, lens[i]);
        AUTO_BYTES before = file_load(path);
        expect_cut(path, &before, tail);
        file_expect(torn_path(state, tail, ""), before.data + tail, lens[i], "what was saved");
        assert_int_equal(remove(torn_path(state, tail, "")), 0);
    }
}

/* It may be larger than the room there is. */
static void a_hole_in_a_torn_tail_is_saved_as_one(void **state)
{
    const char *path = temp_path(state, "s");
    const uint64_t hole_len = UINT64_C(8) << 20;
    struct stat st;
    uint64_t tail = save_torn(path, 5000);
    uint64_t len = tail + 5000 + hole_len;
    assert_int_equal(truncate(path, (off_t)len), 0);
    AUTO_BYTES before = file_load(path);
    expect_cut(path, &before, tail);
    file_expect(torn_path(state, tail, ""), before.data + tail, (size_t)(len - tail), "what was saved");
    assert_int_equal(stat(torn_path(state, tail, ""), &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 < hole_len / 4);
}

static void a_saved_tail_is_used_again_and_another_one_never_overwritten(void **state)
{
    const char *path = temp_path(state, "s");
    const size_t lens[] = {500, 500, 400, 500, 400, 300};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        uint64_t tail = save_torn(path, lens[i]);
        AUTO_BYTES before = file_load(path);
        expect_cut(path, &before, tail);
    }
    uint64_t tail = save_torn(path, 0);
    assert_int_equal(file_len(torn_path(state, tail, "")), 500);
    assert_int_equal(file_len(torn_path(state, tail, ".1")), 400);
    assert_int_equal(file_len(torn_path(state, tail, ".2")), 300);
    assert_int_equal(temp_count(state), 5); /* the store and its writer's line beside them */
}

static void what_else_has_the_name_is_left_alone(void **state)
{
    const char *path = temp_path(state, "s");
    uint64_t tail = save_torn(path, 300);
    AUTO_BYTES before = file_load(path);
    file_save(temp_path(state, "victim"), before.data + tail, 300);
    assert_int_equal(symlink(temp_path(state, "victim"), torn_path(state, tail, "")), 0); /* never followed */
    assert_int_equal(mkdir(torn_path(state, tail, ".1"), 0700), 0);
    assert_int_equal(mkfifo(torn_path(state, tail, ".2"), 0600), 0);
    expect_cut(path, &before, tail);
    file_expect(torn_path(state, tail, ".3"), before.data + tail, 300, "what was saved");
    file_expect(temp_path(state, "victim"), before.data + tail, 300, "the victim");
}

static void reading_leaves_a_torn_tail_as_it_is(void **state)
{
    const char *path = temp_path(state, "s");
    uint64_t tail = save_torn(path, 300);
    AUTO_BYTES before = file_load(path);
    rd_store *store = store_open_ok(path, &open_reading);
    assert_int_equal(store_info(store).unread_bytes, 300);
    assert_int_equal(store_info(store).tail_off, tail);
    rd_store_close(store);
    file_expect(path, before.data, before.len, "the store");
    assert_int_equal(temp_count(state), 1);
}

static void without_room_for_the_tail_nothing_is_cut(void **state)
{
    const char *path = temp_path(state, "s");
    signal(SIGXFSZ, SIG_IGN);
    uint64_t tail = save_torn(path, 600000);
    AUTO_BYTES before = file_load(path);
    rd_fault fault;
    rd_store *store = NULL;
    faults_file_size_limit(300000);
    rd_err err = rd_store_open(path, &open_writing, &fault, &store);
    faults_file_size_limit(RLIM_INFINITY);
    assert_int_equal(err, RD_E_NO_SPACE);
    assert_null(store);
    assert_int_equal(fault.offset, tail);
    assert_int_equal(fault.os_error, EFBIG);
    EXPECT(strstr(fault.text, path) != NULL && strstr(fault.text, "nothing was cut") != NULL &&
               strchr(fault.text, '\n') == NULL,
           "%s", fault.text);
    assert_int_equal(temp_count(state), 1);
    file_expect(path, before.data, before.len, "the store");
    expect_cut(path, &before, tail); /* with room again */
}

/* One round with a failing call. Returns: whether it was reached. */
static bool fail_round(void **state, enum call call, size_t nth, int error)
{
    const char *path = temp_path(state, "s");
    uint64_t tail = save_torn(path, 600000);
    AUTO_BYTES before = file_load(path);
    rd_fault fault = {0};
    rd_store *store = NULL;
    faults_clear();
    faults_fail(call, nth, error);
    rd_err err = rd_store_open(path, &open_writing, &fault, &store);
    bool reached = faults_count(call) >= nth;
    faults_clear();
    EXPECT((err == RD_OK) == !reached, "call %d, the %zuth: %s", (int)call, nth, fault.text);
    EXPECT(err == RD_OK || (strstr(fault.text, path) != NULL && strchr(fault.text, '\n') == NULL), "%s", fault.text);
    rd_store_close(store);
    AUTO_BYTES after = file_load(path);
    bool is_cut = after.len == tail;
    EXPECT(is_cut || after.len == before.len, "%zu bytes", after.len);
    EXPECT(memcmp(after.data, before.data, after.len) == 0, "call %d, the %zuth", (int)call, nth);
    if (is_cut)
        file_expect(torn_path(state, tail, ""), before.data + tail, 600000, "what was saved");
    else
        EXPECT(temp_count(state) == 1, "call %d, the %zuth: a part of a copy is left", (int)call, nth);
    remove(torn_path(state, tail, ""));
    return reached;
}

static void no_failing_call_loses_a_byte_of_the_tail(void **state)
{
    const int errors[] = {EIO, ENOSPC};
    for (size_t e = 0; e < 2; e++) {
        for (size_t call = 0; call < CALL_KINDS; call++) {
            size_t nth = 1;
            while (fail_round(state, (enum call)call, nth, errors[e]))
                nth++;
            assert_true(nth > 1); /* each of them is made */
        }
    }
}

/* ---- Torn in the middle ----------------------------------------------------------------------------------------- */

/* What STORE.writer says, kept while the store changes. */
static struct bytes said(void **state)
{
    return file_load(temp_path(state, "s.writer"));
}

struct torn_middle {
    uint64_t synced;
    uint64_t torn_at; /* a byte of the payload that the crash lost */
};

/* Keys 1 and 3 have a durable value; then, never synced, 1 was written again, and 2 and 4. */
static struct torn_middle make_torn_middle(void **state)
{
    struct torn_middle torn;
    rd_written done;
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    assert_int_equal(rd_store_write_hash(store, 1, text_span("one, durable"), &done), RD_OK);
    assert_int_equal(rd_store_write_hash(store, 3, text_span("three, durable"), &done), RD_OK);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    torn.synced = done.tail_off;
    AUTO_BYTES line = said(state);
    store = store_open_ok(path, &open_writing);
    assert_int_equal(rd_store_write_hash(store, 1, text_span("one, newer"), &done), RD_OK);
    torn.torn_at = done.tail_off - 21;
    assert_int_equal(rd_store_write_hash(store, 2, text_span("two"), &done), RD_OK);
    assert_int_equal(rd_store_write_hash(store, 4, text_span("four"), &done), RD_OK);
    rd_store_close(store);
    file_save(temp_path(state, "s.writer"), line.data, line.len);
    file_poke(path, torn.torn_at, 1);
    return torn;
}

static void a_value_torn_in_the_middle_never_becomes_damage(void **state)
{
    const char *path = temp_path(state, "s");
    make_torn_middle(state);
    rd_written done;
    rd_store *store = store_open_ok(path, &open_reading);
    store_expect(store, 1, "one, durable", 12); /* nobody was promised the newer one */
    rd_store_close(store);
    store = store_open_ok(path, &open_always);
    store_expect(store, 1, "one, durable", 12);
    store_expect(store, 2, "two", 3);
    store_expect(store, 4, "four", 4);
    assert_int_equal(rd_store_write_hash(store, 5, text_span("five"), &done), RD_OK); /* synced behind the torn one */
    rd_store_close(store);
    for (int round = 0; round < 2; round++) {
        store = store_open_ok(path, &open_reading);
        store_expect(store, 1, "one, durable", 12);
        store_expect(store, 3, "three, durable", 14);
        store_expect(store, 5, "five", 4);
        assert_int_equal(store_info(store).damaged_entries, 0);
        assert_int_equal(rd_store_len(store), 5);
        rd_store_close(store);
        assert_true(round == 1 || remove(temp_path(state, "s.writer")) == 0); /* nor without the line */
    }
}

static void a_first_value_torn_in_the_middle_stays_absent(void **state)
{
    const char *path = temp_path(state, "s");
    struct torn_middle torn = make_torn_middle(state);
    file_poke(path, torn.torn_at, 1); /* whole again; now the value of the new key 2 */
    AUTO_BYTES bytes = file_load(path);
    const uint8_t *two = memmem(bytes.data, bytes.len, "two", 3);
    assert_non_null(two);
    file_poke(path, (uint64_t)(two - bytes.data), 1);
    rd_written done;
    rd_store *store = store_open_ok(path, &open_always);
    store_expect(store, 1, "one, newer", 10);
    store_expect_absent(store, 2);
    assert_int_equal(rd_store_write_hash(store, 5, text_span("five"), &done), RD_OK);
    rd_store_close(store);
    store = store_open_ok(path, &open_reading);
    store_expect_absent(store, 2);
    store_expect(store, 1, "one, newer", 10);
    store_expect(store, 4, "four", 4);
    rd_store_close(store);
}

static void a_torn_value_that_was_written_again_is_left_alone(void **state)
{
    const char *path = temp_path(state, "s");
    struct torn_middle torn = make_torn_middle(state);
    rd_written done;
    AUTO_BYTES line = said(state);
    file_poke(path, torn.torn_at, 1);
    rd_store *store = store_open_ok(path, &open_writing);
    assert_int_equal(rd_store_write_hash(store, 1, text_span("one, newest"), &done), RD_OK);
    rd_store_close(store);
    file_save(temp_path(state, "s.writer"), line.data, line.len);
    file_poke(path, torn.torn_at, 1);
    AUTO_BYTES before = file_load(path);
    store = store_open_ok(path, &open_always);
    store_expect(store, 1, "one, newest", 11);
    rd_store_close(store);
    file_expect(path, before.data, before.len, "nothing was to be appended");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(a_torn_tail_is_saved_byte_for_byte_and_cut),
        FAULT_TEST(a_hole_in_a_torn_tail_is_saved_as_one),
        FAULT_TEST(a_saved_tail_is_used_again_and_another_one_never_overwritten),
        FAULT_TEST(what_else_has_the_name_is_left_alone),
        FAULT_TEST(reading_leaves_a_torn_tail_as_it_is),
        FAULT_TEST(without_room_for_the_tail_nothing_is_cut),
        FAULT_TEST(no_failing_call_loses_a_byte_of_the_tail),
        FAULT_TEST(a_value_torn_in_the_middle_never_becomes_damage),
        FAULT_TEST(a_first_value_torn_in_the_middle_stays_absent),
        FAULT_TEST(a_torn_value_that_was_written_again_is_left_alone),
    };
    return cmocka_run_group_tests_name("torn", tests, NULL, NULL);
}
