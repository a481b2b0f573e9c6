/* Streams through the asynchronous interface. */
#include "asyncop.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define MIB ((size_t)1 << 20)

static const rd_open_options always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};

struct stream {
    struct asyncop a; /* first */
    rd_key key;
    void *bytes; /* of the pieces under way */
    rd_span pieces[4];
};

static void stream_init(struct stream *stream, uint64_t hash)
{
    *stream = (struct stream){.key = {.hash = hash}};
    asyncop_init(&stream->a, RD_OP_STREAM);
    stream->a.op.keys = &stream->key;
    stream->a.op.key_count = 1;
}

/* Bring `payload` as up to three pieces with an empty one between them, which end with their completion. */
static void stream_send(rd_engine *engine, struct stream *stream, rd_span payload, bool last)
{
    size_t third = payload.len / 3;
    uint8_t *bytes = malloc(payload.len + 1);
    EXPECT(bytes != NULL, "no memory");
    if (payload.len > 0)
        memcpy(bytes, payload.data, payload.len);
    stream->bytes = bytes;
    stream->pieces[0] = (rd_span){bytes, third};
    stream->pieces[1] = (rd_span){0};
    stream->pieces[2] = (rd_span){bytes + third, third};
    stream->pieces[3] = (rd_span){bytes + 2 * third, payload.len - 2 * third};
    stream->a.op.pieces = stream->pieces;
    stream->a.op.piece_count = payload.len > 0 ? 4 : 0;
    stream->a.op.last = last;
    if (stream->a.started == 0)
        asyncop_submit(engine, &stream->a);
    else
        asyncop_next(engine, &stream->a);
}

static rd_err stream_wait(struct stream *stream)
{
    asyncop_wait(&stream->a);
    free(stream->bytes);
    stream->bytes = NULL;
    EXPECT(stream->a.op.more == (stream->a.op.err == RD_OK && !stream->a.op.last), "%s", rd_err_text(stream->a.op.err));
    return stream->a.op.err;
}

static rd_err stream_step(rd_engine *engine, struct stream *stream, rd_span payload, bool last)
{
    stream_send(engine, stream, payload, last);
    return stream_wait(stream);
}

static void expect_streamed(const struct stream *stream, rd_span payload)
{
    assert_int_equal(stream->a.op.streamed.size, payload.len);
    assert_int_equal(stream->a.op.streamed.checksum, sum_crc32(payload.data, payload.len));
}

static void stream_whole(rd_engine *engine, uint64_t hash, rd_span payload, size_t step)
{
    struct stream stream;
    stream_init(&stream, hash);
    for (size_t at = 0; at < payload.len; at += step) {
        size_t left = payload.len - at;
        rd_span part = {(const uint8_t *)payload.data + at, left < step ? left : step};
        rd_err err = stream_step(engine, &stream, part, left <= step);
        EXPECT(err == RD_OK, "%zu of %zu: %s", at, payload.len, rd_err_text(err));
    }
    expect_streamed(&stream, payload);
    assert_int_equal(stream.a.op.written.tail_off, asyncop_tail(engine));
    asyncop_finish(engine, &stream.a);
}

static void a_streamed_value_has_the_bytes_of_a_written_one(void **state)
{
    const size_t sizes[] = {1, 2, 65537, MIB, MIB + 1, 3 * MIB + 7};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    const size_t steps[] = {4099, MIB, 4 * MIB};
    AUTO_BYTES big = bytes_xorshift(31, sizes[SIZES - 1]);
    rd_store *written = store_make(state, "written");
    for (uint64_t i = 0; i < SIZES; i++) {
        rd_written done;
        assert_int_equal(rd_store_write_hash(written, i, (rd_span){big.data, sizes[i]}, &done), RD_OK);
    }
    rd_store_close(written);
    AUTO_BYTES want = file_load(temp_path(state, "written"));
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        rd_engine *engine = asyncop_engine(state, &open_making);
        for (uint64_t i = 0; i < SIZES; i++)
            stream_whole(engine, i, (rd_span){big.data, sizes[i]}, steps[s]);
        rd_engine_destroy(engine);
        file_expect(temp_path(state, "s"), want.data, want.len, "streamed");
        assert_int_equal(temp_count(state), 4); /* two stores and their writers' lines: no file of a stream */
        file_save(temp_path(state, "s"), "", 0);
    }
}

static void pieces_are_taken_inline_as_long_as_they_stay_in_memory(void **state)
{
    AUTO_BYTES big = bytes_xorshift(32, 2 * MIB);
    rd_engine *engine = asyncop_engine(state, &open_making);
    struct stream stream;
    stream_init(&stream, 1);
    assert_int_equal(stream_step(engine, &stream, (rd_span){big.data, MIB - 1}, false), RD_OK);
    assert_true(stream.a.on_caller);
    assert_int_equal(stream_step(engine, &stream, (rd_span){big.data + MIB - 1, 2}, false), RD_OK);
    assert_false(stream.a.on_caller);
    assert_int_equal(stream_step(engine, &stream, (rd_span){big.data + MIB + 1, MIB - 1}, true), RD_OK);
    assert_false(stream.a.on_caller);
    expect_streamed(&stream, bytes_span(&big));
    asyncop_finish(engine, &stream.a);
    assert_int_equal(asyncop_read(engine, 1, big.data, big.len), RD_OK);
    rd_engine_destroy(engine);
}

static void stream_may_bring_no_pieces_but_no_value_is_empty(void **state)
{
    rd_engine *engine = asyncop_engine(state, &always);
    struct stream stream;
    stream_init(&stream, 1);
    assert_int_equal(stream_step(engine, &stream, (rd_span){0}, false), RD_OK);
    assert_int_equal(stream_step(engine, &stream, text_span("value"), false), RD_OK);
    assert_int_equal(stream_step(engine, &stream, (rd_span){0}, false), RD_OK);
    assert_int_equal(stream_step(engine, &stream, (rd_span){0}, true), RD_OK);
    assert_true(stream.a.op.written.durable);
    expect_streamed(&stream, text_span("value"));
    asyncop_finish(engine, &stream.a);
    assert_int_equal(asyncop_read(engine, 1, "value", 5), RD_OK);
    uint64_t tail_off = asyncop_tail(engine);

    const rd_span refused[] = {{NULL, 0}, {"", 1}}; /* F-09 */
    for (size_t i = 0; i < 2; i++) {
        stream_init(&stream, 2);
        assert_int_equal(stream_step(engine, &stream, refused[i], true), RD_E_PAYLOAD);
        asyncop_finish(engine, &stream.a);
    }
    assert_int_equal(asyncop_tail(engine), tail_off);
    assert_int_equal(asyncop_read(engine, 2, NULL, 0), RD_ABSENT);
    rd_engine_destroy(engine);
}

static void stream_that_is_not_whole_leaves_nothing(void **state)
{
    AUTO_BYTES big = bytes_xorshift(33, 3 * MIB);
    const size_t sizes[] = {0, 10, 2 * MIB, 3 * MIB};
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 3);
    rd_store_close(store);
    AUTO_BYTES before = file_load(temp_path(state, "s"));
    size_t names = temp_count(state);
    rd_engine *engine = asyncop_engine(state, &open_writing);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct stream finished, cancelled;
        stream_init(&finished, fill_hash(0));
        stream_init(&cancelled, fill_hash(1));
        assert_int_equal(stream_step(engine, &finished, (rd_span){big.data, sizes[i]}, false), RD_OK);
        assert_int_equal(stream_step(engine, &cancelled, (rd_span){big.data, sizes[i]}, false), RD_OK);
        asyncop_finish(engine, &finished.a);
        rd_engine_cancel(engine, &cancelled.a.op);
        rd_span rest = i < 2 ? text_span("more") : (rd_span){0};
        assert_int_equal(stream_step(engine, &cancelled, rest, i % 2 == 0), RD_E_CANCELLED);
        asyncop_finish(engine, &cancelled.a);
    }
    rd_engine_destroy(engine);
    file_expect(temp_path(state, "s"), before.data, before.len, "after streams that were given up");
    assert_int_equal(temp_count(state), names);
}

static void cancelled_stream_is_written_whole_or_not_at_all(void **state)
{
    enum { OPS = 60 };
    AUTO_BYTES big = bytes_xorshift(34, MIB + 100);
    rd_engine *engine = asyncop_engine(state, &open_making);
    struct stream *streams = calloc(OPS, sizeof *streams);
    assert_non_null(streams);
    for (uint64_t i = 0; i < OPS; i++) {
        stream_init(&streams[i], i);
        stream_send(engine, &streams[i], i % 4 == 1 ? bytes_span(&big) : text_span("small"), true);
        if (i % 2 == 1)
            rd_engine_cancel(engine, &streams[i].a.op);
    }
    for (uint64_t i = 0; i < OPS; i++) {
        rd_err err = stream_wait(&streams[i]);
        EXPECT(err == RD_OK || (i % 2 == 1 && err == RD_E_CANCELLED), "%s", rd_err_text(err));
        asyncop_finish(engine, &streams[i].a);
        rd_span want = i % 4 == 1 ? bytes_span(&big) : text_span("small");
        rd_err read = asyncop_read(engine, i, want.data, want.len);
        EXPECT(read == (err == RD_OK ? RD_OK : RD_ABSENT), "%s, %s", rd_err_text(err), rd_err_text(read));
    }
    rd_engine_destroy(engine);
    free(streams);
}

static void stream_beyond_the_largest_value_is_refused(void **state)
{
    const size_t maxima[] = {100, 2 * MIB};
    AUTO_BYTES big = bytes_xorshift(35, 2 * MIB);
    for (size_t m = 0; m < 2; m++) {
        rd_open_options options = open_making;
        options.max_value_bytes = maxima[m];
        rd_engine *engine = asyncop_engine(state, &options);
        struct stream exact, beyond;
        stream_init(&exact, 1);
        assert_int_equal(stream_step(engine, &exact, (rd_span){big.data, maxima[m]}, true), RD_OK);
        asyncop_finish(engine, &exact.a);
        uint64_t tail_off = asyncop_tail(engine);
        stream_init(&beyond, 1);
        assert_int_equal(stream_step(engine, &beyond, (rd_span){big.data, maxima[m]}, false), RD_OK);
        assert_int_equal(stream_step(engine, &beyond, (rd_span){"x", 1}, false), RD_E_TOO_LARGE);
        asyncop_finish(engine, &beyond.a);
        assert_int_equal(asyncop_tail(engine), tail_off);
        assert_int_equal(asyncop_read(engine, 1, big.data, maxima[m]), RD_OK);
        rd_engine_destroy(engine);
    }
}

/* At the piece that has no room, or, where what is in memory has to follow it, at the end; writers go on. */
static void stream_that_finds_no_room_fails_alone(void **state)
{
    AUTO_BYTES big = bytes_xorshift(36, 3 * MIB);
    rd_engine *engine = asyncop_engine(state, &open_making);
    struct rlimit unlimited, limited;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    for (int at_end = 0; at_end < 2; at_end++) {
        struct stream stream, small;
        limited = unlimited;
        limited.rlim_cur = 2 * MIB;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
        stream_init(&stream, 1);
        rd_err first = stream_step(engine, &stream, (rd_span){big.data, 2 * MIB - 9 * (size_t)at_end}, false);
        rd_err then = stream_step(engine, &stream, (rd_span){big.data, at_end == 1 ? 10 : 2 * MIB}, at_end == 1);
        asyncop_finish(engine, &stream.a);
        stream_init(&small, 2);
        rd_err other = stream_step(engine, &small, text_span("small"), true);
        asyncop_finish(engine, &small.a);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
        assert_int_equal(first, RD_OK);
        assert_int_equal(then, RD_E_NO_SPACE);
        assert_int_equal(other, RD_OK);
        assert_int_equal(asyncop_read(engine, 1, NULL, 0), RD_ABSENT);
        assert_int_equal(asyncop_read(engine, 2, "small", 5), RD_OK);
    }
    signal(SIGXFSZ, SIG_DFL);
    rd_engine_destroy(engine);
}

static void reader_engine_refuses_streams(void **state)
{
    rd_store_close(store_make(state, "s"));
    rd_engine *engine = asyncop_engine(state, &open_reading);
    struct stream stream;
    stream_init(&stream, 1);
    assert_int_equal(stream_step(engine, &stream, text_span("value"), true), RD_E_READ_ONLY);
    asyncop_finish(engine, &stream.a);
    rd_engine_destroy(engine);
}

/* ---- Streams at once, with writers ------------------------------------------------------------------------------ */

enum { STREAMERS = 4, ROUNDS = 12 };

struct streamer {
    rd_engine *engine;
    uint64_t number;
    struct bytes payload;
    unsigned failed;
    pthread_t thread;
};

/* Half of them stream, in steps that go to a file; half write. */
static void *run_streamer(void *argument)
{
    struct streamer *streamer = argument;
    const struct bytes *payload = &streamer->payload;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        struct stream stream;
        rd_span halves[2] = {{payload->data, payload->len / 2},
                             {payload->data + payload->len / 2, payload->len - payload->len / 2}};
        rd_write_item item = {streamer->number, bytes_span(payload)};
        if (streamer->number % 2 == 0) {
            stream_init(&stream, streamer->number);
            stream.a.op.pieces = &halves[0];
            stream.a.op.piece_count = 1;
            streamer->failed += asyncop_run(streamer->engine, &stream.a) != RD_OK;
            stream.a.op.pieces = &halves[1];
            stream.a.op.last = true;
            asyncop_next(streamer->engine, &stream.a);
            asyncop_wait(&stream.a);
        } else {
            asyncop_write_init(&stream.a, &item);
            asyncop_run(streamer->engine, &stream.a);
        }
        streamer->failed += stream.a.op.err != RD_OK || !stream.a.op.written.durable;
        rd_engine_finish(streamer->engine, &stream.a.op);
        asyncop_fini(&stream.a);
    }
    return NULL;
}

static void streams_and_writes_go_on_at_once(void **state)
{
    rd_engine *engine = asyncop_engine(state, &always);
    struct streamer streamers[STREAMERS];
    for (uint64_t i = 0; i < STREAMERS; i++) {
        streamers[i] = (struct streamer){
            .engine = engine, .number = i, .payload = bytes_xorshift(40 + i, i < 2 ? 100000 : 2 * MIB + i)};
        assert_int_equal(pthread_create(&streamers[i].thread, NULL, run_streamer, &streamers[i]), 0);
    }
    for (size_t i = 0; i < STREAMERS; i++)
        assert_int_equal(pthread_join(streamers[i].thread, NULL), 0);
    for (size_t i = 0; i < STREAMERS; i++) {
        assert_int_equal(streamers[i].failed, 0);
        assert_int_equal(asyncop_read(engine, i, streamers[i].payload.data, streamers[i].payload.len), RD_OK);
        bytes_free(&streamers[i].payload);
    }
    rd_engine_destroy(engine);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(store_info(store).entries, STREAMERS * ROUNDS);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(a_streamed_value_has_the_bytes_of_a_written_one),
        TEMP_TEST(pieces_are_taken_inline_as_long_as_they_stay_in_memory),
        TEMP_TEST(stream_may_bring_no_pieces_but_no_value_is_empty),
        TEMP_TEST(stream_that_is_not_whole_leaves_nothing),
        TEMP_TEST(cancelled_stream_is_written_whole_or_not_at_all),
        TEMP_TEST(stream_beyond_the_largest_value_is_refused),
        TEMP_TEST(stream_that_finds_no_room_fails_alone),
        TEMP_TEST(reader_engine_refuses_streams),
        TEMP_TEST(streams_and_writes_go_on_at_once),
    };
    return cmocka_run_group_tests_name("engine_stream", tests, NULL, NULL);
}
