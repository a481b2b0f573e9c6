/* Renames through the asynchronous interface. */
#include "asyncop.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

static const rd_open_options always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};

static void rename_init(struct asyncop *a, rd_key keys[2])
{
    asyncop_init(a, RD_OP_RENAME);
    a->op.keys = keys;
    a->op.key_count = 2;
}

static rd_err rename_keys(rd_engine *engine, rd_key from, rd_key to, rd_written *out_written)
{
    rd_key keys[2] = {from, to};
    struct asyncop a;
    rename_init(&a, keys);
    rd_err err = asyncop_run(engine, &a);
    if (err == RD_OK)
        *out_written = a.op.written;
    assert_false(a.op.more);
    asyncop_finish(engine, &a);
    return err;
}

static void rename_moves_a_value_and_leaves_a_tombstone(void **state)
{
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 3);
    rd_store_close(store);
    rd_engine *engine = asyncop_engine(state, &always);
    rd_written written = {0};
    uint64_t one = htole64(1);
    assert_int_equal(rename_keys(engine, (rd_key){.hash = fill_hash(1)}, (rd_key){.hash = 77}, &written), RD_OK);
    assert_true(written.durable);
    assert_int_equal(written.tail_off, asyncop_tail(engine));
    assert_int_equal(asyncop_read(engine, fill_hash(1), NULL, 0), RD_ABSENT);
    assert_int_equal(asyncop_read(engine, 77, &one, sizeof one), RD_OK);
    rd_engine_destroy(engine);
    store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(rd_store_len(store), 3);
    assert_int_equal(store_info(store).entries, 5);
    rd_store_close(store);
}

static void refused_rename_writes_nothing(void **state)
{
    AUTO_BYTES big = bytes_xorshift(9, MIB);
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "value", 5);
    store_put(store, "big", big.data, big.len);
    store_put(store, "b", "other", 5);
    assert_int_equal(rd_store_sync(store), RD_OK); /* what is unsynced is checked at opening */
    rd_store_close(store);
    file_poke(temp_path(state, "s"), MIB / 2, 4);
    AUTO_BYTES before = file_load(temp_path(state, "s"));
    rd_engine *engine = asyncop_engine(state, &open_writing);
    rd_key a = {.hash = rd_hash(text_span("a"))}, none = {.hash = 5}, fresh = {.hash = 6};
    rd_key big_key = {.hash = rd_hash(text_span("big"))}, skipped = {a.hash, RD_KEY_SKIP};
    rd_written written;
    assert_int_equal(rename_keys(engine, none, fresh, &written), RD_ABSENT);
    assert_int_equal(rename_keys(engine, skipped, fresh, &written), RD_ABSENT);
    assert_int_equal(rename_keys(engine, a, a, &written), RD_E_INVALID);
    assert_int_equal(rename_keys(engine, big_key, fresh, &written), RD_E_DAMAGED);
    rd_engine_destroy(engine);
    file_expect(temp_path(state, "s"), before.data, before.len, "after refused renames");
    engine = asyncop_engine(state, &open_reading);
    assert_int_equal(rename_keys(engine, a, fresh, &written), RD_E_READ_ONLY);
    rd_engine_destroy(engine);
}

static void renames_that_wait_follow_the_writes_before_them(void **state)
{
    enum { OPS = 300 }; /* more than share one sync */
    rd_engine *engine = asyncop_engine(state, &always);
    struct asyncop *ops = calloc(OPS, sizeof *ops);
    rd_key(*keys)[2] = calloc(OPS, sizeof *keys);
    const rd_write_item item = {0, text_span("carried on")};
    assert_true(ops != NULL && keys != NULL);
    asyncop_write_init(&ops[0], &item);
    asyncop_submit(engine, &ops[0]);
    for (uint64_t i = 1; i < OPS; i++) {
        keys[i][0].hash = i - 1;
        keys[i][1].hash = i;
        rename_init(&ops[i], keys[i]);
        asyncop_submit(engine, &ops[i]);
    }
    for (size_t i = 0; i < OPS; i++) {
        asyncop_wait(&ops[i]);
        EXPECT(ops[i].op.err == RD_OK, "op %zu: %s", i, rd_err_text(ops[i].op.err));
        asyncop_finish(engine, &ops[i]);
    }
    assert_int_equal(asyncop_read(engine, OPS - 1, "carried on", 10), RD_OK);
    assert_int_equal(asyncop_read(engine, OPS - 2, NULL, 0), RD_ABSENT);
    rd_engine_destroy(engine);
    free(keys);
    free(ops);
}

struct watch {
    rd_engine *engine;
    atomic_bool over;
    atomic_uint wrong;
};

/* Of two keys between which a value goes back and forth, exactly one has it. */
static void *watch_two(void *argument)
{
    struct watch *watch = argument;
    while (!atomic_load(&watch->over)) {
        rd_key keys[2] = {{.hash = 1}, {.hash = 2}};
        rd_value values[2];
        struct asyncop a;
        asyncop_init(&a, RD_OP_READ);
        a.op.keys = keys;
        a.op.key_count = 2;
        a.op.values = values;
        a.op.value_max = 2;
        a.op.window_bytes_max = SIZE_MAX;
        if (asyncop_run(watch->engine, &a) != RD_OK || (values[0].err == RD_OK) == (values[1].err == RD_OK))
            atomic_fetch_add(&watch->wrong, 1);
        rd_engine_finish(watch->engine, &a.op);
        asyncop_fini(&a);
    }
    return NULL;
}

static void rename_is_seen_whole_or_not_at_all(void **state)
{
    rd_engine *engine = asyncop_engine(state, &open_making);
    struct watch watch = {.engine = engine};
    const rd_write_item item = {1, text_span("here or there")};
    struct asyncop a;
    pthread_t thread;
    rd_written written;
    asyncop_write_init(&a, &item);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    asyncop_finish(engine, &a);
    assert_int_equal(pthread_create(&thread, NULL, watch_two, &watch), 0);
    for (uint64_t i = 0; i < 500; i++) {
        rd_key from = {.hash = 1 + i % 2}, to = {.hash = 2 - i % 2};
        assert_int_equal(rename_keys(engine, from, to, &written), RD_OK);
    }
    atomic_store(&watch.over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(watch.wrong, 0);
    rd_engine_destroy(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(rename_moves_a_value_and_leaves_a_tombstone),
        TEMP_TEST(refused_rename_writes_nothing),
        TEMP_TEST(renames_that_wait_follow_the_writes_before_them),
        TEMP_TEST(rename_is_seen_whole_or_not_at_all),
    };
    return cmocka_run_group_tests_name("engine_rename", tests, NULL, NULL);
}
