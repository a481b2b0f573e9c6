/* A value that arrives in pieces: whole at its commit, or never there (E-05, E-06). */
#include "faults.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

/* Feed `payload` in pieces of `step`. Returns: what the first piece that was refused was refused with. */
static rd_err feed(rd_stream *stream, rd_span payload, size_t step)
{
    rd_err err = RD_OK;
    for (size_t at = 0; at < payload.len && err == RD_OK; at += step) {
        size_t left = payload.len - at;
        err = rd_stream_append(stream, (rd_span){(const uint8_t *)payload.data + at, left < step ? left : step});
    }
    return err;
}

static rd_stream *begin(rd_store *store, uint64_t key_hash)
{
    rd_stream *stream = NULL;
    assert_int_equal(rd_stream_begin(store, key_hash, &stream), RD_OK);
    return stream;
}

static void stream_ok(rd_store *store, uint64_t key_hash, rd_span payload, size_t step)
{
    rd_written done = {0};
    uint64_t size = 0;
    uint32_t crc = 0;
    rd_stream *stream = begin(store, key_hash);
    rd_err err = feed(stream, payload, step);
    EXPECT(err == RD_OK, "%zu bytes in pieces of %zu: %s", payload.len, step, rd_err_text(err));
    err = rd_stream_commit(stream, &done, &size, &crc);
    EXPECT(err == RD_OK, "%zu bytes in pieces of %zu: %s", payload.len, step, rd_err_text(err));
    EXPECT(size == payload.len && crc == sum_crc32(payload.data, payload.len), "%zu bytes in pieces of %zu",
           payload.len, step);
    EXPECT(done.tail_off == store_info(store).tail_off, "%zu bytes in pieces of %zu", payload.len, step);
}

static const size_t sizes[] = {1, 2, 65536, 65537, MIB - 1, MIB, MIB + 1, 2 * MIB + 1, 5 * MIB + 3};
#define SIZE_COUNT (sizeof sizes / sizeof *sizes)

static void a_streamed_value_has_the_bytes_of_a_written_one(void **state)
{
    const size_t steps[] = {977, 65536, MIB, 3 * MIB};
    AUTO_BYTES big = bytes_xorshift(31, sizes[SIZE_COUNT - 1]);
    rd_store *written = store_make(state, "written");
    for (uint64_t i = 0; i < SIZE_COUNT; i++) {
        rd_written done;
        assert_int_equal(rd_store_write_hash(written, i, (rd_span){big.data, sizes[i]}, &done), RD_OK);
    }
    rd_store_close(written);
    AUTO_BYTES want = file_load(temp_path(state, "written"));
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        rd_store *store = store_make(state, "s");
        for (uint64_t i = 0; i < SIZE_COUNT; i++)
            stream_ok(store, i, (rd_span){big.data, sizes[i]}, steps[s]);
        for (uint64_t i = 0; i < SIZE_COUNT; i++)
            store_expect(store, i, big.data, sizes[i]);
        rd_store_close(store);
        file_expect(temp_path(state, "s"), want.data, want.len, "streamed");
        assert_int_equal(temp_count(state), 4); /* two stores and their writers' lines: no file of a stream */
        file_save(temp_path(state, "s"), "", 0);
    }
}

static void a_file_system_without_unnamed_files_will_do(void **state)
{
    AUTO_BYTES big = bytes_xorshift(32, 3 * MIB);
    rd_store *store = store_make(state, "s");
    faults_refuse_unnamed();
    stream_ok(store, 7, bytes_span(&big), 65536);
    store_expect(store, 7, big.data, big.len);
    rd_stream *stream = begin(store, 8);
    assert_int_equal(feed(stream, bytes_span(&big), MIB), RD_OK);
    assert_int_equal(temp_count(state), 2); /* its name is gone while it lives */
    rd_stream_abort(stream);
    rd_store_close(store);
}

static void an_aborted_stream_leaves_no_byte(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(33, 3 * MIB);
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    AUTO_BYTES before = file_load(path);
    for (size_t i = 0; i < SIZE_COUNT && sizes[i] <= big.len; i++) {
        rd_stream *stream = begin(store, rd_hash(text_span("k")));
        assert_int_equal(feed(stream, (rd_span){big.data, sizes[i]}, 65536), RD_OK);
        rd_stream_abort(stream);
    }
    rd_stream_abort(NULL);
    rd_stream_abort(begin(store, 1));
    file_expect(path, before.data, before.len, "after streams that were aborted");
    store_expect(store, rd_hash(text_span("k")), "value", 5);
    store_put(store, "after", "2", 1); /* E-05: and the next write lands where it must */
    store_expect(store, rd_hash(text_span("after")), "2", 1);
    rd_store_close(store);
    assert_int_equal(temp_count(state), 2);
}

static void payloads_the_format_cannot_hold_are_refused_at_commit(void **state)
{
    const rd_span bad[] = {{NULL, 0}, {"", 1}}; /* F-09 */
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    for (size_t i = 0; i < 2; i++) {
        rd_written done = {.tail_off = 4711};
        uint64_t size = 4712;
        uint32_t crc = 4713;
        rd_stream *stream = begin(store, 1);
        assert_int_equal(rd_stream_append(stream, bad[i]), RD_OK);
        assert_int_equal(rd_stream_append(stream, (rd_span){NULL, 0}), RD_OK);
        assert_int_equal(rd_stream_commit(stream, &done, &size, &crc), RD_E_PAYLOAD);
        assert_int_equal(done.tail_off, 4711); /* outputs are written only on success */
        assert_int_equal(size, 4712);
        assert_int_equal(crc, 4713);
    }
    assert_int_equal(file_len(path), 0);
    assert_true(rd_store_is_empty(store));
    stream_ok(store, 1, (rd_span){"\0\0", 2}, 1); /* all zero, but two bytes: legal */
    store_expect(store, 1, "\0\0", 2);
    rd_store_close(store);
}

static void a_value_above_the_limit_is_refused_whole(void **state)
{
    const uint64_t limits[] = {1000, MIB, 2 * MIB};
    AUTO_BYTES big = bytes_xorshift(34, 2 * MIB + 1);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        rd_open_options options = open_making;
        options.max_value_bytes = limits[i];
        rd_store *store = store_open_ok(temp_path(state, "s"), &options);
        stream_ok(store, 1, (rd_span){big.data, (size_t)limits[i]}, 999);
        uint64_t len = file_len(temp_path(state, "s"));
        rd_written done;
        rd_stream *stream = begin(store, 2);
        assert_int_equal(feed(stream, (rd_span){big.data, (size_t)limits[i] + 1}, 999), RD_E_TOO_LARGE);
        assert_int_equal(rd_stream_append(stream, (rd_span){"x", 1}), RD_E_TOO_LARGE);
        assert_int_equal(rd_stream_commit(stream, &done, NULL, NULL), RD_E_TOO_LARGE); /* E-06: never the stump */
        assert_int_equal(file_len(temp_path(state, "s")), len);
        store_expect_absent(store, 2);
        rd_store_close(store);
        file_save(temp_path(state, "s"), "", 0);
    }
}

static void a_slow_stream_holds_nobody_up(void **state)
{
    AUTO_BYTES big = bytes_xorshift(35, 2 * MIB);
    rd_store *store = store_make(state, "s");
    rd_stream *first = begin(store, 1);
    rd_stream *second = begin(store, 2);
    for (size_t at = 0; at < big.len; at += 65536) {
        assert_int_equal(rd_stream_append(first, (rd_span){big.data + at, 65536}), RD_OK);
        store_put(store, "k", &at, sizeof at);
        assert_int_equal(rd_stream_append(second, (rd_span){big.data + at, 64}), RD_OK);
    }
    store_expect_absent(store, 1);
    assert_int_equal(rd_stream_commit(second, NULL, NULL, NULL), RD_OK);
    assert_int_equal(rd_stream_commit(first, NULL, NULL, NULL), RD_OK);
    store_expect(store, 1, big.data, big.len);
    assert_int_equal(rd_store_len(store), 3);
    rd_store_close(store);
}

static void a_store_that_is_read_only_takes_no_stream(void **state)
{
    rd_stream *stream = NULL;
    rd_store_close(store_make(state, "s"));
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(rd_stream_begin(store, 1, &stream), RD_E_READ_ONLY);
    assert_null(stream);
    rd_store_close(store);
}

static void without_room_a_stream_leaves_no_byte(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(36, 3 * MIB);
    signal(SIGXFSZ, SIG_IGN);
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    AUTO_BYTES before = file_load(path);
    rd_stream *stream = begin(store, 1); /* no room for its own file */
    faults_file_size_limit(MIB + 4096);
    assert_int_equal(feed(stream, bytes_span(&big), 65536), RD_E_NO_SPACE);
    assert_int_equal(rd_stream_commit(stream, NULL, NULL, NULL), RD_E_NO_SPACE);
    file_expect(path, before.data, before.len, "after a stream without room");
    faults_file_size_limit(RLIM_INFINITY);
    stream = begin(store, 1); /* none for the store's */
    assert_int_equal(feed(stream, bytes_span(&big), 65536), RD_OK);
    faults_file_size_limit(big.len);
    assert_int_equal(rd_stream_commit(stream, NULL, NULL, NULL), RD_E_NO_SPACE);
    file_expect(path, before.data, before.len, "after a commit without room");
    faults_file_size_limit(RLIM_INFINITY);
    stream_ok(store, 1, bytes_span(&big), 65536);
    store_expect(store, 1, big.data, big.len);
    rd_store_close(store);
    assert_int_equal(temp_count(state), 2);
}

static void each_failing_write_of_a_stream_leaves_no_byte(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(37, 4 * MIB);
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    AUTO_BYTES before = file_load(path);
    size_t nth = 1;
    for (;; nth++) {
        faults_clear();
        faults_fail(CALL_PWRITEV, nth, EIO);
        rd_stream *stream = begin(store, 1);
        rd_err fed = feed(stream, bytes_span(&big), MIB - 1);
        rd_err err = rd_stream_commit(stream, NULL, NULL, NULL);
        if (faults_count(CALL_PWRITEV) < nth)
            break;
        EXPECT(err == RD_E_IO && (fed == RD_OK || fed == RD_E_IO), "the %zuth: %s", nth, rd_err_text(err));
        file_expect(path, before.data, before.len, "after a failed stream");
        store_expect_absent(store, 1);
    }
    assert_true(nth > 4);
    store_expect(store, 1, big.data, big.len); /* the last one went well */
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULT_TEST(a_streamed_value_has_the_bytes_of_a_written_one),
        FAULT_TEST(a_file_system_without_unnamed_files_will_do),
        FAULT_TEST(an_aborted_stream_leaves_no_byte),
        FAULT_TEST(payloads_the_format_cannot_hold_are_refused_at_commit),
        FAULT_TEST(a_value_above_the_limit_is_refused_whole),
        FAULT_TEST(a_slow_stream_holds_nobody_up),
        FAULT_TEST(a_store_that_is_read_only_takes_no_stream),
        FAULT_TEST(without_room_a_stream_leaves_no_byte),
        FAULT_TEST(each_failing_write_of_a_stream_leaves_no_byte),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
