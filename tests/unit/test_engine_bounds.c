/* Bounds on a read: payloads that are too large for its caller, and callers that no longer wait. */
#include "store_internal.h"

#include "asyncop.h"

#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

static void read_init(struct asyncop *a, rd_key *keys, size_t count, rd_value *values)
{
    asyncop_init(a, RD_OP_READ);
    a->op.keys = keys;
    a->op.key_count = count;
    a->op.values = values;
    a->op.value_max = count;
    a->op.window_bytes_max = SIZE_MAX;
}

/* ---- payload_max ------------------------------------------------------------------------------------------------ */

/* "small" of 5 bytes, "exact" of 1000, "large" of 1001, "gone", deleted. */
static void make_sizes(void **state)
{
    AUTO_BYTES bytes = bytes_xorshift(5, 1001);
    rd_store *store = store_make(state, "s");
    rd_written done;
    store_put(store, "small", "value", 5);
    store_put(store, "exact", bytes.data, 1000);
    store_put(store, "large", bytes.data, 1001);
    store_put(store, "gone", bytes.data, 1001);
    assert_int_equal(rd_store_delete(store, text_span("gone"), &done), RD_OK);
    rd_store_close(store);
}

static void larger_payload_comes_as_its_length_and_metadata(void **state)
{
    AUTO_BYTES bytes = bytes_xorshift(5, 1001);
    make_sizes(state);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    const char *names[] = {"small", "exact", "large", "gone", "never"};
    const rd_err bounded[] = {RD_OK, RD_OK, RD_E_TOO_LARGE, RD_ABSENT, RD_ABSENT};
    const rd_err free_of_bounds[] = {RD_OK, RD_OK, RD_OK, RD_ABSENT, RD_ABSENT};
    for (int round = 0; round < 3; round++) { /* with a bound; without; with one, and no payload asked for */
        const rd_err *want = round == 0 ? bounded : free_of_bounds;
        rd_key keys[5];
        rd_value values[5];
        struct asyncop a;
        for (size_t i = 0; i < 5; i++)
            keys[i] = (rd_key){.hash = rd_hash(text_span(names[i]))};
        read_init(&a, keys, 5, values);
        a.op.payload_max = round == 1 ? 0 : 1000;
        a.op.no_payload = round == 2;
        assert_int_equal(asyncop_run(engine, &a), RD_OK);
        assert_int_equal(a.op.value_count, 5);
        for (size_t i = 0; i < 5; i++)
            EXPECT(values[i].err == want[i], "%s: %s", names[i], rd_err_text(values[i].err));
        assert_int_equal(values[2].meta.key_hash, keys[2].hash);
        assert_int_equal(values[2].meta.checksum, sum_crc32(bytes.data, 1001));
        assert_int_equal(values[2].payload.len, round == 2 ? 0 : 1001);
        assert_true((values[2].payload.data == NULL) == (round != 1));
        asyncop_finish(engine, &a);
    }
    rd_engine_destroy(engine);
}

static void larger_payload_does_not_fill_its_window(void **state)
{
    make_sizes(state);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    rd_key keys[4] = {{.hash = rd_hash(text_span("large"))},
                      {.hash = rd_hash(text_span("large"))},
                      {.hash = rd_hash(text_span("small"))},
                      {.hash = rd_hash(text_span("small"))}};
    rd_value values[4];
    struct asyncop a;
    read_init(&a, keys, 4, values);
    a.op.payload_max = 1000;
    a.op.window_bytes_max = 5;
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    assert_int_equal(a.op.value_count, 3);
    assert_int_equal(values[1].err, RD_E_TOO_LARGE);
    assert_int_equal(values[2].err, RD_OK);
    assert_true(a.op.more);
    asyncop_finish(engine, &a);
    rd_engine_destroy(engine);
}

static void larger_payload_is_not_checked(void **state)
{
    const rd_open_options always = {.verify = RD_VERIFY_ALWAYS};
    AUTO_BYTES big = bytes_xorshift(9, 5 * MIB); /* checking it would be a worker's job */
    rd_store *store = store_make(state, "s");
    store_put(store, "first", "first", 5);
    store_put(store, "big", big.data, big.len);
    store_put(store, "small", "value", 5);
    assert_int_equal(rd_store_sync(store), RD_OK); /* what is unsynced is checked at opening */
    rd_store_close(store);
    file_poke(temp_path(state, "s"), MIB, 1);
    const rd_open_options *options[] = {&open_reading, &always};
    for (size_t i = 0; i < 2; i++) {
        rd_engine *engine = asyncop_engine(state, options[i]);
        rd_key key = {.hash = rd_hash(text_span("big"))};
        rd_value value;
        struct asyncop a;
        read_init(&a, &key, 1, &value);
        a.op.payload_max = 1 + i * (5 * MIB - 2);
        assert_int_equal(asyncop_run(engine, &a), RD_OK);
        assert_true(a.on_caller);
        assert_int_equal(value.err, RD_E_TOO_LARGE);
        assert_int_equal(value.payload.len, 5 * MIB);
        asyncop_finish(engine, &a);
        read_init(&a, &key, 1, &value);
        a.op.payload_max = 5 * MIB;
        key.cookie = 0;
        assert_int_equal(asyncop_run(engine, &a), RD_OK);
        assert_int_equal(value.err, RD_E_DAMAGED);
        asyncop_finish(engine, &a);
        rd_engine_destroy(engine);
    }
}

/* ---- Cancelling a batch of millions ----------------------------------------------------------------------------- */

enum { MANY = 5000000, STRETCH_MAX = 10000 };

/* All present; a key that was resolved has a cookie. */
static rd_key *make_many(void)
{
    rd_key *keys = calloc(MANY, sizeof *keys);
    uint64_t hashes[1000];
    EXPECT(keys != NULL, "no memory");
    for (uint64_t i = 0; i < 1000; i++)
        hashes[i] = fill_hash(i);
    for (size_t i = 0; i < MANY; i++)
        keys[i].hash = hashes[i % 1000];
    return keys;
}

static size_t count_resolved(const rd_key *keys)
{
    size_t resolved = 0;
    while (resolved < MANY && keys[resolved].cookie != 0)
        resolved++;
    return resolved;
}

static void resolving_millions_ends_soon_after_a_cancel(void **state)
{
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 1000);
    rd_key *keys = make_many();
    struct snapshot snapshot = {0};
    atomic_bool cancel = true;
    assert_false(store_resolve(store, keys, MANY, &cancel, &snapshot));
    assert_null(snapshot.pin);
    assert_in_range(count_resolved(keys), 1, STRETCH_MAX);
    cancel = false;
    memset(keys, 0, 4096 * sizeof *keys);
    assert_true(store_resolve(store, keys, 8192, &cancel, &snapshot)); /* whose end a stretch's end is */
    snapshot_release(&snapshot);
    rd_store_close(store);
    free(keys);
}

/* Writes, and then deletes, of which some have been appended. */
static void cancelled_commit_of_many_leaves_nothing(void **state)
{
    enum { COUNT = 10000 };
    rd_store *store = store_make(state, "s");
    rd_write_item *items = calloc(COUNT, sizeof *items);
    rd_key *keys = calloc(COUNT, sizeof *keys);
    atomic_bool cancel = true;
    assert_true(items != NULL && keys != NULL);
    for (uint64_t i = 0; i < COUNT; i++) {
        items[i] = (rd_write_item){i, text_span("value")};
        keys[i].hash = COUNT - i; /* of which one is not there, and one that is there is left */
    }
    for (int round = 0; round < 2; round++) {
        struct commit commit = {.items = items, .count = COUNT, .cancel = &cancel};
        if (round == 1)
            commit = (struct commit){.keys = keys, .count = COUNT, .cancel = &cancel};
        uint64_t tail_off = store_info(store).tail_off;
        uint64_t live = rd_store_len(store);
        cancel = true;
        store_commit(store, &(struct commit *){&commit}, 1);
        assert_int_equal(commit.err, RD_E_CANCELLED);
        assert_int_equal(commit.written.deleted_count, 0);
        assert_int_equal(store_info(store).tail_off, tail_off);
        assert_int_equal(rd_store_len(store), live);
        assert_int_equal(file_len(temp_path(state, "s")), tail_off);
        cancel = false;
        store_commit(store, &(struct commit *){&commit}, 1);
        assert_int_equal(commit.err, RD_OK);
        assert_int_equal(rd_store_len(store), round == 0 ? COUNT : 1);
    }
    rd_store_close(store);
    free(keys);
    free(items);
}

/* A read whose hook holds its worker up, as no service may. */
struct holding {
    struct asyncop a; /* first */
    void (*done)(rd_op *op);
    sem_t may_go;
};

static void holding_done(rd_op *op)
{
    struct holding *holding = (struct holding *)op;
    holding->done(op);
    while (sem_wait(&holding->may_go) != 0) {
    }
}

static void cancelled_read_of_millions_is_not_resolved(void **state)
{
    enum { BEFORE = 60000 }; /* so many that a worker has to do it */
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 1000);
    rd_engine *engine = NULL;
    assert_int_equal(rd_engine_create_local(store, 1, &engine), RD_OK);
    rd_key *keys = make_many();
    rd_key *before = calloc(BEFORE, sizeof *before);
    rd_value values[2];
    struct holding holding;
    struct asyncop a;
    assert_non_null(before);
    read_init(&holding.a, before, BEFORE, &values[0]);
    holding.a.op.value_max = 1;
    holding.done = holding.a.op.done;
    holding.a.op.done = holding_done;
    sem_init(&holding.may_go, 0, 0);
    asyncop_run(engine, &holding.a); /* the one worker is in its hook now */
    read_init(&a, keys, MANY, &values[1]);
    a.op.value_max = 1;
    asyncop_submit(engine, &a);
    rd_engine_cancel(engine, &a.op);
    sem_post(&holding.may_go);
    asyncop_wait(&a);
    assert_int_equal(a.op.err, RD_E_CANCELLED);
    assert_in_range(count_resolved(keys), 0, STRETCH_MAX);
    asyncop_finish(engine, &a);
    asyncop_finish(engine, &holding.a);
    rd_engine_destroy(engine);
    free(before);
    free(keys);
}

/* Checking goes on in slices, which a worker ends between. */
static void cancelled_read_does_not_answer_ok_with_a_cancelled_value(void **state)
{
    const rd_open_options always = {.verify = RD_VERIFY_ALWAYS};
    AUTO_BYTES big = bytes_xorshift(9, 6 * MIB);
    rd_store *store = store_make(state, "s");
    store_put(store, "big", big.data, big.len);
    rd_store_close(store);
    rd_engine *engine = asyncop_engine(state, &always);
    for (int i = 0; i < 20; i++) {
        rd_key keys[2] = {{.hash = rd_hash(text_span("big"))}, {.hash = rd_hash(text_span("big"))}};
        rd_value values[2];
        struct asyncop a;
        read_init(&a, keys, 2, values);
        asyncop_submit(engine, &a);
        rd_engine_cancel(engine, &a.op);
        asyncop_wait(&a);
        EXPECT(a.op.err == RD_OK || a.op.err == RD_E_CANCELLED, "%s", rd_err_text(a.op.err));
        for (size_t k = 0; a.op.err == RD_OK && k < a.op.value_count; k++)
            EXPECT(values[k].err == RD_OK, "%s", rd_err_text(values[k].err));
        asyncop_finish(engine, &a);
    }
    rd_engine_destroy(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(larger_payload_comes_as_its_length_and_metadata),
        TEMP_TEST(larger_payload_does_not_fill_its_window),
        TEMP_TEST(larger_payload_is_not_checked),
        TEMP_TEST(resolving_millions_ends_soon_after_a_cancel),
        TEMP_TEST(cancelled_commit_of_many_leaves_nothing),
        TEMP_TEST(cancelled_read_of_millions_is_not_resolved),
        TEMP_TEST(cancelled_read_does_not_answer_ok_with_a_cancelled_value),
    };
    return cmocka_run_group_tests_name("engine_bounds", tests, NULL, NULL);
}
