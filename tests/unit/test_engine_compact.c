/* Compaction through the asynchronous interface: reports, the outcome, and ways to end it. */
#include "asyncop.h"
#include "compacting.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A compaction whose first completion holds its thread up, as no service may, so that its middle lasts. */
struct held {
    struct asyncop a; /* first */
    void (*done)(rd_op *op);
    bool holds; /* at the next completion */
    sem_t may_go;
};

static void held_done(rd_op *op)
{
    struct held *held = (struct held *)op;
    bool holds = held->holds;
    held->holds = false;
    held->done(op);
    while (holds && sem_wait(&held->may_go) != 0) {
    }
}

static void held_init(struct held *held)
{
    asyncop_init(&held->a, RD_OP_COMPACT);
    held->done = held->a.op.done;
    held->a.op.done = held_done;
    held->holds = true;
    sem_init(&held->may_go, 0, 0);
}

/* Returns once it is in the middle. */
static void held_start(rd_engine *engine, struct held *held)
{
    held_init(held);
    assert_int_equal(asyncop_run(engine, &held->a), RD_OK);
    assert_true(held->a.op.more);
}

/* A store that compaction makes smaller. */
static uint64_t make_sparse(void **state, uint64_t count)
{
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, count);
    store_fill(store, 0, count / 2);
    rd_store_close(store);
    return file_len(temp_path(state, "s"));
}

static rd_err compact_whole(rd_engine *engine, rd_engine_compacted *out_compacted)
{
    struct asyncop a;
    asyncop_init(&a, RD_OP_COMPACT);
    asyncop_run(engine, &a);
    while (a.op.err == RD_OK && a.op.more) {
        asyncop_next(engine, &a);
        asyncop_wait(&a);
    }
    rd_err err = a.op.err;
    assert_false(a.op.more);
    if (err == RD_OK)
        *out_compacted = a.op.compacted;
    asyncop_finish(engine, &a);
    return err;
}

static uint64_t generation_of(rd_engine *engine)
{
    struct asyncop a;
    asyncop_init(&a, RD_OP_INFO);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    uint64_t generation = a.op.info.generation;
    asyncop_finish(engine, &a);
    return generation;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void compaction_reports_and_ends_with_what_it_did(void **state)
{
    AUTO_BYTES want = {0};
    rd_store_close(make_mixed(state, &want));
    uint64_t before = file_len(temp_path(state, "s"));
    rd_engine *engine = asyncop_engine(state, &open_writing);
    rd_engine_compacted last = {0};
    uint64_t begun_ms = now_ms(), reports = 0;
    struct asyncop a;
    asyncop_init(&a, RD_OP_COMPACT);
    for (asyncop_submit(engine, &a);; asyncop_next(engine, &a)) {
        asyncop_wait(&a);
        EXPECT(a.op.err == RD_OK, "%s", rd_err_text(a.op.err));
        assert_true(a.op.compacted.entries_done >= last.entries_done);
        assert_true(a.op.compacted.entries_done <= a.op.compacted.entries_total);
        last = a.op.compacted;
        if (!a.op.more)
            break;
        assert_false(a.on_caller);
        assert_int_equal(last.entries_total, 253);
        assert_int_equal(last.bytes_reclaimed, 0);
        reports++;
    }
    EXPECT(reports >= 1 && reports <= 1 + (now_ms() - begun_ms) / 200, "%zu reports", (size_t)reports);
    assert_int_equal(last.entries_done, 253);
    assert_int_equal(last.bytes_written, want.len);
    assert_int_equal(last.bytes_reclaimed, before - want.len);
    asyncop_finish(engine, &a);
    rd_engine_destroy(engine);
    file_expect(temp_path(state, "s"), want.data, want.len, "compacted");
}

static void compaction_goes_on_whoever_asks(void **state)
{
    make_sparse(state, 5000);
    rd_engine *engine = asyncop_engine(state, &open_writing);
    uint64_t generation = generation_of(engine);
    struct asyncop a;
    asyncop_init(&a, RD_OP_COMPACT);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    assert_true(a.op.more);
    while (generation_of(engine) == generation) { /* nobody asks, and it comes to its end */
    }
    asyncop_next(engine, &a);
    asyncop_wait(&a);
    assert_int_equal(a.op.err, RD_OK);
    assert_false(a.op.more);
    assert_int_equal(a.op.compacted.entries_done, 5000);
    asyncop_finish(engine, &a);
    rd_engine_destroy(engine);
}

static void cancelled_compaction_leaves_the_store_as_it_was(void **state)
{
    make_sparse(state, 1000);
    AUTO_BYTES before = file_load(temp_path(state, "s"));
    rd_engine *engine = asyncop_engine(state, &open_writing);
    uint64_t generation = generation_of(engine);
    rd_engine_compacted done = {0};
    struct held held;
    for (int asked = 0; asked < 2; asked++) { /* cancelled between completion and next, or while one is asked for */
        held_start(engine, &held);
        if (asked == 1)
            asyncop_next(engine, &held.a);
        rd_engine_cancel(engine, &held.a.op);
        sem_post(&held.may_go);
        if (asked == 0)
            asyncop_next(engine, &held.a);
        asyncop_wait(&held.a);
        assert_int_equal(held.a.op.err, RD_E_CANCELLED);
        assert_false(held.a.op.more);
        asyncop_finish(engine, &held.a);
        assert_int_equal(generation_of(engine), generation);
        file_expect(temp_path(state, "s"), before.data, before.len, "cancelled");
    }
    assert_int_equal(compact_whole(engine, &done), RD_OK);
    assert_int_equal(done.entries_done, 1000);
    rd_engine_destroy(engine);
}

static void compaction_that_nobody_waits_for_ends_with_its_engine(void **state)
{
    char left_over[512];
    make_sparse(state, 1000);
    AUTO_BYTES before = file_load(temp_path(state, "s"));
    rd_engine *engine = asyncop_engine(state, &open_writing);
    rd_engine_compacted done;
    struct held held;
    held_start(engine, &held);
    asyncop_finish(engine, &held.a);
    assert_int_equal(compact_whole(engine, &done), RD_E_BUSY); /* it is still ending */
    sem_post(&held.may_go);
    rd_engine_destroy(engine);
    file_expect(temp_path(state, "s"), before.data, before.len, "given up");
    snprintf(left_over, sizeof left_over, "%s.compact", temp_path(state, "s"));
    assert_int_not_equal(access(left_over, F_OK), 0);
    rd_store_close(store_open_ok(temp_path(state, "s"), &open_writing)); /* its lock is free */
}

static void one_compaction_runs_at_a_time(void **state)
{
    make_sparse(state, 1000);
    rd_engine *engine = asyncop_engine(state, &open_writing);
    rd_engine_compacted done = {0};
    struct held held;
    held_start(engine, &held);
    assert_int_equal(compact_whole(engine, &done), RD_E_BUSY);
    sem_post(&held.may_go);
    do {
        asyncop_next(engine, &held.a);
        asyncop_wait(&held.a);
        assert_int_equal(held.a.op.err, RD_OK);
    } while (held.a.op.more);
    assert_int_equal(compact_whole(engine, &done), RD_OK); /* the other has ended, if not finished */
    assert_int_equal(done.bytes_reclaimed, 0);
    asyncop_finish(engine, &held.a);
    rd_engine_destroy(engine);
}

static void refused_compactions_say_why(void **state)
{
    AUTO_BYTES big = bytes_xorshift(9, 1 << 20);
    rd_engine_compacted done;
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "value", 5);
    store_put(store, "big", big.data, big.len);
    store_put(store, "b", "other", 5);
    assert_int_equal(rd_store_sync(store), RD_OK); /* what is unsynced is checked at opening */
    rd_store_close(store);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    assert_int_equal(compact_whole(engine, &done), RD_E_READ_ONLY);
    rd_engine_destroy(engine);
    file_poke(temp_path(state, "s"), 1 << 19, 4);
    engine = asyncop_engine(state, &open_writing);
    assert_int_equal(compact_whole(engine, &done), RD_E_DAMAGED);
    rd_engine_destroy(engine);
}

/* ---- While others read and write -------------------------------------------------------------------------------- */

enum { CROWD_KEYS = 500, WRITES = 400, COMPACTIONS = 6 };

struct crowd {
    rd_engine *engine;
    atomic_bool over;
    atomic_uint failed;
};

static void *crowd_write(void *argument)
{
    struct crowd *crowd = argument;
    for (uint64_t i = 0; i < WRITES || !atomic_load(&crowd->over); i++) {
        uint64_t number = i % CROWD_KEYS;
        uint64_t value = htole64(number);
        const rd_write_item item = {fill_hash(number), {&value, sizeof value}};
        struct asyncop a;
        asyncop_init(&a, RD_OP_WRITE);
        a.op.items = &item;
        a.op.item_count = 1;
        if (asyncop_run(crowd->engine, &a) != RD_OK)
            atomic_fetch_add(&crowd->failed, 1);
        rd_engine_finish(crowd->engine, &a.op);
        asyncop_fini(&a);
    }
    return NULL;
}

static void *crowd_read(void *argument)
{
    struct crowd *crowd = argument;
    rd_key keys[CROWD_KEYS];
    rd_value values[CROWD_KEYS];
    while (!atomic_load(&crowd->over)) {
        struct asyncop a;
        for (uint64_t i = 0; i < CROWD_KEYS; i++)
            keys[i] = (rd_key){.hash = fill_hash(i)};
        asyncop_init(&a, RD_OP_READ);
        a.op.keys = keys;
        a.op.key_count = CROWD_KEYS;
        a.op.values = values;
        a.op.value_max = CROWD_KEYS;
        a.op.window_bytes_max = SIZE_MAX;
        if (asyncop_run(crowd->engine, &a) != RD_OK || a.op.value_count != CROWD_KEYS)
            atomic_fetch_add(&crowd->failed, 1);
        for (uint64_t i = 0; i < a.op.value_count; i++)
            if (values[i].err != RD_OK || values[i].payload.len != 8 || load_le64(values[i].payload.data) != i)
                atomic_fetch_add(&crowd->failed, 1);
        rd_engine_finish(crowd->engine, &a.op);
        asyncop_fini(&a);
    }
    return NULL;
}

static void compactions_disturb_neither_readers_nor_writers(void **state)
{
    make_sparse(state, CROWD_KEYS);
    rd_engine *engine = asyncop_engine(state, &open_writing);
    struct crowd crowd = {.engine = engine};
    rd_engine_compacted done = {0};
    pthread_t writer, reader;
    assert_int_equal(pthread_create(&writer, NULL, crowd_write, &crowd), 0);
    assert_int_equal(pthread_create(&reader, NULL, crowd_read, &crowd), 0);
    rd_err err = RD_OK;
    for (int i = 0; i < COMPACTIONS && err == RD_OK; i++)
        err = compact_whole(engine, &done);
    atomic_store(&crowd.over, true);
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_int_equal(pthread_join(reader, NULL), 0);
    EXPECT(err == RD_OK, "%s", rd_err_text(err));
    assert_int_equal(crowd.failed, 0);
    rd_engine_destroy(engine);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(rd_store_len(store), CROWD_KEYS);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(compaction_reports_and_ends_with_what_it_did),
        TEMP_TEST(compaction_goes_on_whoever_asks),
        TEMP_TEST(cancelled_compaction_leaves_the_store_as_it_was),
        TEMP_TEST(compaction_that_nobody_waits_for_ends_with_its_engine),
        TEMP_TEST(one_compaction_runs_at_a_time),
        TEMP_TEST(refused_compactions_say_why),
        TEMP_TEST(compactions_disturb_neither_readers_nor_writers),
    };
    return cmocka_run_group_tests_name("engine_compact", tests, NULL, NULL);
}
