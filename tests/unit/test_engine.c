/* The asynchronous interface over the embedded engine: windows, kinds, holds, cancelling. */
#include "asyncop.h"

#include <stdlib.h>
#include <string.h>

#define VALUES_MAX 1000

/* A store at "s" with keys 0 to count-1 of store_fill. */
static void make_filled(void **state, uint64_t count)
{
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, count);
    rd_store_close(store);
}

static rd_key *make_keys(uint64_t count)
{
    rd_key *keys = calloc(count, sizeof *keys);
    EXPECT(keys != NULL, "no memory");
    for (uint64_t i = 0; i < count; i++)
        keys[i].hash = fill_hash(i);
    return keys;
}

/* A READ of `keys` into a place of its own. */
static void read_init(struct asyncop *a, rd_key *keys, size_t count, size_t value_max, size_t window_bytes_max)
{
    asyncop_init(a, RD_OP_READ);
    a->op.keys = keys;
    a->op.key_count = count;
    a->op.values = calloc(value_max, sizeof *a->op.values);
    a->op.value_max = value_max;
    a->op.window_bytes_max = window_bytes_max;
    EXPECT(a->op.values != NULL, "no memory");
}

static void read_finish(rd_engine *engine, struct asyncop *a)
{
    rd_value *values = a->op.values;
    asyncop_finish(engine, a);
    free(values);
}

/* Read all windows; every key i of `live` ones must be i's 8 bytes, the rest absent. Returns the number of windows. */
static size_t read_windows(rd_engine *engine, struct asyncop *a, uint64_t live)
{
    size_t windows = 1, expect_first = 0;
    rd_err err = asyncop_run(engine, a);
    for (;; windows++) {
        EXPECT(err == RD_OK, "window %zu: %s", windows, rd_err_text(err));
        EXPECT(a->op.first == expect_first, "window %zu begins at %zu", windows, a->op.first);
        EXPECT(a->op.value_count >= 1 && a->op.value_count <= a->op.value_max, "%zu values", a->op.value_count);
        for (size_t i = 0; i < a->op.value_count; i++) {
            const rd_value *value = &a->op.values[i];
            uint64_t number = a->op.first + i;
            EXPECT(value->err == (number < live ? RD_OK : RD_ABSENT), "key %zu: %s", i, rd_err_text(value->err));
            if (value->err == RD_OK)
                EXPECT(value->payload.len == 8 && load_le64(value->payload.data) == number &&
                           value->meta.key_hash == fill_hash(number),
                       "key %zu", (size_t)number);
        }
        expect_first += a->op.value_count;
        EXPECT(a->op.more == (expect_first < a->op.key_count), "more after %zu", expect_first);
        if (!a->op.more)
            return windows;
        asyncop_next(engine, a);
        asyncop_wait(a);
        err = a->op.err;
    }
}

static void windows_bring_every_key_in_its_order(void **state)
{
    enum { KEYS = 2500 };
    make_filled(state, 2400);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    const size_t maxima[] = {1, 7, 1000};
    for (size_t m = 0; m < 3; m++) {
        struct asyncop a;
        rd_key *keys = make_keys(KEYS);
        read_init(&a, keys, KEYS, maxima[m], SIZE_MAX);
        assert_int_equal(read_windows(engine, &a, 2400), (KEYS + maxima[m] - 1) / maxima[m]);
        read_finish(engine, &a);
        free(keys);
    }
    rd_engine_destroy(engine);
}

static void window_ends_once_its_bytes_are_reached(void **state)
{
    enum { KEYS = 100, SIZE = 1000 };
    AUTO_BYTES payload = bytes_xorshift(4, SIZE);
    rd_store *store = store_make(state, "s");
    rd_written done;
    for (uint64_t i = 0; i < KEYS; i++)
        assert_int_equal(rd_store_write_hash(store, fill_hash(i), bytes_span(&payload), &done), RD_OK);
    rd_store_close(store);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    const size_t maxima[] = {1, SIZE, 2 * SIZE + 500, 10 * SIZE, SIZE_MAX};
    for (size_t m = 0; m < sizeof maxima / sizeof *maxima; m++) {
        struct asyncop a;
        rd_key *keys = make_keys(KEYS);
        size_t seen = 0;
        read_init(&a, keys, KEYS, VALUES_MAX, maxima[m]);
        for (asyncop_submit(engine, &a);; asyncop_next(engine, &a)) {
            asyncop_wait(&a);
            assert_int_equal(a.op.err, RD_OK);
            assert_int_equal(a.op.first, seen);
            assert_true(a.op.value_count >= 1); /* its first value always fits */
            EXPECT((a.op.value_count - 1) * SIZE < maxima[m], "%zu values of %zu bytes", a.op.value_count, maxima[m]);
            for (size_t i = 0; i < a.op.value_count; i++)
                assert_true(span_equal(a.op.values[i].payload, payload.data, payload.len));
            seen += a.op.value_count;
            if (!a.op.more)
                break;
        }
        assert_int_equal(seen, KEYS);
        read_finish(engine, &a);
        free(keys);
    }
    rd_engine_destroy(engine);
}

static void read_of_no_keys_completes_with_no_values(void **state)
{
    make_filled(state, 3);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    struct asyncop a;
    read_init(&a, NULL, 0, 1, SIZE_MAX);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    assert_int_equal(a.op.value_count, 0);
    assert_false(a.op.more);
    read_finish(engine, &a);
    rd_engine_destroy(engine);
}

static void skipped_keys_are_absent(void **state)
{
    enum { KEYS = 10 };
    make_filled(state, KEYS);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    rd_key *keys = make_keys(KEYS);
    struct asyncop a;
    for (size_t i = 0; i < KEYS; i += 3)
        keys[i].cookie = RD_KEY_SKIP;
    read_init(&a, keys, KEYS, KEYS, SIZE_MAX);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    assert_int_equal(a.op.value_count, KEYS);
    for (size_t i = 0; i < KEYS; i++)
        assert_int_equal(a.op.values[i].err, i % 3 == 0 ? RD_ABSENT : RD_OK);
    read_finish(engine, &a);
    free(keys);
    rd_engine_destroy(engine);
}

static void reading_without_payload_brings_the_metadata_alone(void **state)
{
    AUTO_BYTES big = bytes_xorshift(9, 1 << 20);
    rd_store *store = store_make(state, "s");
    store_put(store, "first", "first", 5); /* a large first value would be checked: its link, 0, proves nothing */
    store_put(store, "big", big.data, big.len);
    store_put(store, "small", "value", 5);
    assert_int_equal(rd_store_sync(store), RD_OK); /* what is unsynced is checked at opening */
    rd_store_close(store);
    file_poke(temp_path(state, "s"), 500, 1); /* nobody looks */
    rd_engine *engine = asyncop_engine(state, &open_reading);
    rd_key keys[3] = {{.hash = rd_hash(text_span("big"))}, {.hash = rd_hash(text_span("small"))}, {.hash = 3}};
    struct asyncop a;
    read_init(&a, keys, 3, 3, 1);
    a.op.no_payload = true;
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    assert_int_equal(a.op.value_count, 3); /* no bytes, so no window of bytes ends */
    assert_int_equal(a.op.values[0].err, RD_OK);
    assert_int_equal(a.op.values[0].meta.checksum, sum_crc32(big.data, big.len));
    assert_int_equal(a.op.values[0].payload.len, 0);
    assert_int_equal(a.op.values[1].err, RD_OK);
    assert_int_equal(a.op.values[1].meta.prev_off, 64 + big.len + 20);
    assert_int_equal(a.op.values[2].err, RD_ABSENT);
    read_finish(engine, &a);
    rd_engine_destroy(engine);
}

static rd_value read_last(rd_engine *engine, rd_value *place)
{
    struct asyncop a;
    asyncop_init(&a, RD_OP_LAST);
    a.op.values = place;
    a.op.value_max = 1;
    a.op.window_bytes_max = SIZE_MAX;
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    assert_int_equal(a.op.value_count, 1);
    assert_false(a.op.more);
    rd_value value = *place;
    if (value.err == RD_OK && !value.meta.tombstone)
        assert_int_equal(sum_crc32(value.payload.data, value.payload.len), value.meta.checksum);
    asyncop_finish(engine, &a);
    return value;
}

static rd_err write_one(rd_engine *engine, const char *key, rd_span payload, rd_written *out_written)
{
    rd_write_item one = {rd_hash(text_span(key)), payload};
    struct asyncop a;
    asyncop_init(&a, RD_OP_WRITE);
    a.op.items = &one;
    a.op.item_count = 1;
    rd_err err = asyncop_run(engine, &a);
    if (err == RD_OK)
        *out_written = a.op.written;
    asyncop_finish(engine, &a);
    return err;
}

static rd_err delete_keys(rd_engine *engine, rd_key *keys, size_t count, rd_written *out_written)
{
    struct asyncop a;
    asyncop_init(&a, RD_OP_DELETE);
    a.op.keys = keys;
    a.op.key_count = count;
    rd_err err = asyncop_run(engine, &a);
    if (err == RD_OK)
        *out_written = a.op.written;
    asyncop_finish(engine, &a);
    return err;
}

static void skipped_keys_are_not_deleted(void **state)
{
    make_filled(state, 3);
    rd_engine *engine = asyncop_engine(state, &open_writing);
    rd_key keys[3] = {{.hash = fill_hash(0)}, {fill_hash(1), RD_KEY_SKIP}, {.hash = fill_hash(2)}};
    rd_written written = {0};
    assert_int_equal(delete_keys(engine, keys, 3, &written), RD_OK);
    assert_int_equal(written.deleted_count, 2);
    rd_engine_destroy(engine);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    uint64_t one = htole64(1);
    store_expect(store, fill_hash(1), &one, sizeof one);
    assert_int_equal(rd_store_len(store), 1);
    rd_store_close(store);
}

static rd_engine_info read_info(rd_engine *engine)
{
    struct asyncop a;
    asyncop_init(&a, RD_OP_INFO);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    rd_engine_info info = a.op.info;
    asyncop_finish(engine, &a);
    return info;
}

static void writes_and_deletes_show_in_last_and_info(void **state)
{
    const rd_open_options always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};
    rd_engine *engine = asyncop_engine(state, &always);
    rd_value place;
    rd_written written = {0};
    assert_int_equal(read_last(engine, &place).err, RD_ABSENT);
    assert_int_equal(write_one(engine, "hello", text_span("world"), &written), RD_OK);
    assert_int_equal(written.tail_off, 25);
    assert_true(written.durable);
    rd_value last = read_last(engine, &place);
    assert_int_equal(last.err, RD_OK);
    assert_int_equal(last.meta.key_hash, rd_hash(text_span("hello")));
    assert_int_equal(write_one(engine, "x", (rd_span){"", 1}, &written), RD_E_PAYLOAD);

    rd_key keys[3] = {{.hash = 1}, {.hash = rd_hash(text_span("hello"))}, {.hash = 2}};
    assert_int_equal(delete_keys(engine, keys, 3, &written), RD_OK);
    assert_int_equal(written.deleted_count, 1);
    assert_int_equal(written.tail_off, 46);
    last = read_last(engine, &place);
    assert_int_equal(last.err, RD_OK);
    assert_true(last.meta.tombstone && last.payload.len == 0); /* E-11 */

    rd_engine_info info = read_info(engine);
    assert_int_equal(info.live_keys, 0);
    assert_int_equal(info.entries, 2);
    assert_int_equal(info.tail_off, 46);
    assert_int_equal(info.file_size, 46);
    assert_int_equal(info.damaged_entries, 0);
    assert_int_equal(info.damaged_range_count, 0);
    assert_true(info.writable && info.atomic_batches);
    assert_non_null(info.engine);
    rd_engine_destroy(engine);
    assert_int_equal(file_len(temp_path(state, "s")), 46);
}

static void reader_engine_refuses_writes(void **state)
{
    make_filled(state, 3);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    rd_key key = {.hash = fill_hash(1)};
    rd_written written = {0};
    assert_int_equal(write_one(engine, "x", text_span("y"), &written), RD_E_READ_ONLY);
    assert_int_equal(delete_keys(engine, &key, 1, &written), RD_E_READ_ONLY);
    assert_false(read_info(engine).writable);
    assert_int_equal(read_info(engine).live_keys, 3);
    rd_engine_destroy(engine);
}

static void more_keys_than_fit_inline_are_all_answered(void **state)
{
    enum { KEYS = 60000, LIVE = 55000 };
    make_filled(state, LIVE);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    const size_t maxima[] = {VALUES_MAX, KEYS};
    for (size_t m = 0; m < 2; m++) {
        struct asyncop a;
        rd_key *keys = make_keys(KEYS);
        read_init(&a, keys, KEYS, maxima[m], SIZE_MAX);
        size_t fewest = KEYS / maxima[m];
        assert_in_range(read_windows(engine, &a, LIVE), fewest, fewest + 2); /* one may be cut for a worker to go on */
        read_finish(engine, &a);
        free(keys);
    }
    rd_engine_destroy(engine);
}

static void long_check_leaves_the_callers_thread(void **state)
{
    const rd_open_options always = {.verify = RD_VERIFY_ALWAYS};
    AUTO_BYTES big = bytes_xorshift(9, (4 << 20) + 5);
    rd_store *store = store_make(state, "s");
    store_put(store, "small", "value", 5);
    store_put(store, "big", big.data, big.len);
    rd_store_close(store);
    rd_engine *engine = asyncop_engine(state, &always);
    rd_key keys[3] = {{.hash = rd_hash(text_span("small"))}, {.hash = rd_hash(text_span("big"))}, {.hash = 5}};
    struct asyncop a;
    read_init(&a, keys, 3, 1, SIZE_MAX);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    assert_true(span_equal(a.op.values[0].payload, "value", 5));
    asyncop_next(engine, &a);
    asyncop_wait(&a);
    assert_int_equal(a.op.err, RD_OK);
    assert_true(span_equal(a.op.values[0].payload, big.data, big.len));
    assert_false(a.on_caller);
    asyncop_next(engine, &a);
    asyncop_wait(&a);
    assert_int_equal(a.op.values[0].err, RD_ABSENT);
    assert_false(a.op.more);
    read_finish(engine, &a);
    rd_value place;
    assert_int_equal(read_last(engine, &place).err, RD_OK); /* the same entry, and as long */
    rd_engine_destroy(engine);
}

/* Each check is short, together they are not: they may not all be made inside one submit or next. */
static void checks_that_add_up_leave_the_callers_thread(void **state)
{
    enum { KEYS = 12, SIZE = 1 << 20, INLINE_MAX = 4 << 20 };
    const rd_open_options always = {.verify = RD_VERIFY_ALWAYS};
    AUTO_BYTES payload = bytes_xorshift(4, SIZE);
    rd_store *store = store_make(state, "s");
    rd_written done;
    for (uint64_t i = 0; i < KEYS; i++)
        assert_int_equal(rd_store_write_hash(store, fill_hash(i), bytes_span(&payload), &done), RD_OK);
    rd_store_close(store);
    rd_engine *engine = asyncop_engine(state, &always);
    rd_key *keys = make_keys(KEYS);
    struct asyncop a;
    size_t seen = 0;
    read_init(&a, keys, KEYS, KEYS, SIZE_MAX);
    for (asyncop_submit(engine, &a);; asyncop_next(engine, &a)) {
        asyncop_wait(&a);
        assert_int_equal(a.op.err, RD_OK);
        EXPECT(!a.on_caller || a.op.value_count * SIZE <= INLINE_MAX + SIZE, "%zu MiB inline", a.op.value_count);
        for (size_t i = 0; i < a.op.value_count; i++)
            assert_true(span_equal(a.op.values[i].payload, payload.data, payload.len));
        seen += a.op.value_count;
        if (!a.op.more)
            break;
    }
    assert_int_equal(seen, KEYS);
    read_finish(engine, &a);
    free(keys);
    rd_engine_destroy(engine);
}

static void damaged_key_fails_alone(void **state)
{
    AUTO_BYTES big = bytes_xorshift(9, 5 << 20);
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "value", 5);
    store_put(store, "big", big.data, big.len);
    store_put(store, "b", "other", 5);
    assert_int_equal(rd_store_sync(store), RD_OK); /* what is unsynced is checked at opening */
    rd_store_close(store);
    file_poke(temp_path(state, "s"), 1 << 20, 4);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    rd_key keys[3] = {
        {.hash = rd_hash(text_span("a"))}, {.hash = rd_hash(text_span("big"))}, {.hash = rd_hash(text_span("b"))}};
    const rd_err want[3] = {RD_OK, RD_E_DAMAGED, RD_OK};
    struct asyncop a;
    size_t seen = 0;
    read_init(&a, keys, 3, 3, SIZE_MAX);
    for (asyncop_submit(engine, &a);; asyncop_next(engine, &a)) {
        asyncop_wait(&a);
        assert_int_equal(a.op.err, RD_OK);
        for (size_t i = 0; i < a.op.value_count; i++, seen++) {
            assert_int_equal(a.op.values[i].err, want[a.op.first + i]);
            assert_int_equal(a.op.values[i].payload.len, want[a.op.first + i] == RD_OK ? 5 : 0);
        }
        if (!a.op.more)
            break;
    }
    assert_int_equal(seen, 3);
    read_finish(engine, &a);
    rd_engine_destroy(engine);
}

static void *release_hold(void *arg)
{
    rd_hold *hold = arg;
    hold->release(hold->arg);
    return NULL;
}

static void hold_outlives_its_operation_and_later_writes(void **state)
{
    make_filled(state, 100);
    rd_engine *engine = asyncop_engine(state, &open_writing);
    rd_key *keys = make_keys(10);
    struct asyncop a;
    rd_span spans[10];
    rd_hold holds[10];
    read_init(&a, keys, 10, 10, SIZE_MAX);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    for (size_t i = 0; i < 10; i++) {
        spans[i] = a.op.values[i].payload;
        assert_int_equal(rd_engine_hold(engine, &a.op, &a.op.values[i], &holds[i]), RD_OK);
    }
    read_finish(engine, &a);
    free(keys);
    AUTO_BYTES big = bytes_xorshift(1, 1 << 20);
    rd_written written = {0};
    for (int i = 0; i < 20; i++)
        assert_int_equal(write_one(engine, "key-0", bytes_span(&big), &written), RD_OK);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(load_le64(spans[i].data), i);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, release_hold, &holds[i]), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    rd_engine_destroy(engine);
}

static void destroying_nothing_is_fine(void **state)
{
    (void)state;
    rd_engine_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(windows_bring_every_key_in_its_order),
        TEMP_TEST(window_ends_once_its_bytes_are_reached),
        TEMP_TEST(read_of_no_keys_completes_with_no_values),
        TEMP_TEST(skipped_keys_are_absent),
        TEMP_TEST(reading_without_payload_brings_the_metadata_alone),
        TEMP_TEST(writes_and_deletes_show_in_last_and_info),
        TEMP_TEST(skipped_keys_are_not_deleted),
        TEMP_TEST(reader_engine_refuses_writes),
        TEMP_TEST(more_keys_than_fit_inline_are_all_answered),
        TEMP_TEST(long_check_leaves_the_callers_thread),
        TEMP_TEST(checks_that_add_up_leave_the_callers_thread),
        TEMP_TEST(damaged_key_fails_alone),
        TEMP_TEST(hold_outlives_its_operation_and_later_writes),
        cmocka_unit_test(destroying_nothing_is_fine),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
