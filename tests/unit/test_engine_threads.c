/* Many threads on one store: batches seen whole or not at all, and cancelling at any moment. */
#include "asyncop.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READERS   8
#define WRITERS   2
#define GROUP     8 /* keys a to h of each writer carry one generation */
#define ROUNDS    150
#define READS_MIN 50

static uint64_t group_hash(size_t writer, size_t key)
{
    char name[16];
    snprintf(name, sizeof name, "%zu-%c", writer, (int)('a' + key));
    return rd_hash(text_span(name));
}

/* What the threads share. A thread that sees something false notes it; the main thread judges. */
struct race {
    rd_engine *engine; /* or */
    rd_store *store;
    atomic_uint writers_left;
    atomic_uint torn_batches, went_back, failed_calls, uneven;
};

struct racer {
    struct race *race;
    size_t number;
    pthread_t thread;
};

static void generation_payload(uint64_t generation, uint8_t out_payload[40])
{
    for (size_t i = 0; i < 5; i++) {
        uint64_t raw = htole64(generation + 1); /* never all zero */
        memcpy(out_payload + 8 * i, &raw, sizeof raw);
    }
}

/* The payloads of one group, all at one instant: 0 absent, else generation + 1, or UINT64_MAX where they differ. */
static uint64_t group_generation(const rd_span payloads[GROUP])
{
    uint64_t seen = payloads[0].len == 0 ? 0 : load_le64(payloads[0].data);
    for (size_t k = 0; k < GROUP; k++) {
        for (size_t at = 0; at < payloads[k].len; at += 8)
            if (load_le64((const uint8_t *)payloads[k].data + at) != seen)
                return UINT64_MAX;
        if (payloads[k].len != (seen == 0 ? 0 : 40))
            return UINT64_MAX;
    }
    return seen;
}

static void note_groups(struct race *race, const rd_span payloads[WRITERS * GROUP], uint64_t newest[WRITERS])
{
    for (size_t w = 0; w < WRITERS; w++) {
        uint64_t seen = group_generation(payloads + w * GROUP);
        if (seen == UINT64_MAX)
            atomic_fetch_add(&race->torn_batches, 1);
        else if (seen < newest[w])
            atomic_fetch_add(&race->went_back, 1);
        else
            newest[w] = seen;
    }
}

static void fill_items(size_t writer, const uint8_t payload[40], rd_write_item items[GROUP])
{
    for (size_t k = 0; k < GROUP; k++)
        items[k] = (rd_write_item){group_hash(writer, k), {payload, 40}};
}

/* ---- Through the engine ----------------------------------------------------------------------------------------- */

static void *engine_writer(void *arg)
{
    struct racer *racer = arg;
    struct race *race = racer->race;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint8_t payload[40];
        rd_write_item items[GROUP];
        struct asyncop a;
        generation_payload(round, payload);
        fill_items(racer->number, payload, items);
        asyncop_init(&a, RD_OP_WRITE);
        a.op.items = items;
        a.op.item_count = GROUP;
        if (asyncop_run(race->engine, &a) != RD_OK)
            atomic_fetch_add(&race->failed_calls, 1);
        rd_engine_finish(race->engine, &a.op);
        if (!asyncop_is_even(&a))
            atomic_fetch_add(&race->uneven, 1);
        asyncop_fini(&a);
    }
    atomic_fetch_sub(&race->writers_left, 1);
    return NULL;
}

static void engine_read_groups(struct race *race, uint64_t newest[WRITERS])
{
    rd_key keys[WRITERS * GROUP];
    rd_value values[WRITERS * GROUP];
    rd_span payloads[WRITERS * GROUP] = {{NULL, 0}};
    struct asyncop a;
    for (size_t i = 0; i < WRITERS * GROUP; i++)
        keys[i] = (rd_key){.hash = group_hash(i / GROUP, i % GROUP)};
    asyncop_init(&a, RD_OP_READ);
    a.op.keys = keys;
    a.op.key_count = WRITERS * GROUP;
    a.op.values = values;
    a.op.value_max = WRITERS * GROUP;
    a.op.window_bytes_max = SIZE_MAX;
    if (asyncop_run(race->engine, &a) != RD_OK || a.op.value_count != WRITERS * GROUP)
        atomic_fetch_add(&race->failed_calls, 1);
    for (size_t i = 0; i < a.op.value_count; i++) {
        if (values[i].err == RD_OK)
            payloads[i] = values[i].payload;
        else if (values[i].err != RD_ABSENT)
            atomic_fetch_add(&race->failed_calls, 1);
    }
    note_groups(race, payloads, newest);
    rd_engine_finish(race->engine, &a.op);
    if (!asyncop_is_even(&a))
        atomic_fetch_add(&race->uneven, 1);
    asyncop_fini(&a);
}

static void *engine_reader(void *arg)
{
    struct racer *racer = arg;
    uint64_t newest[WRITERS] = {0};
    for (unsigned reads = 0; reads < READS_MIN || atomic_load(&racer->race->writers_left) > 0; reads++)
        engine_read_groups(racer->race, newest);
    return NULL;
}

/* ---- Through the store ------------------------------------------------------------------------------------------ */

static void *store_writer(void *arg)
{
    struct racer *racer = arg;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint8_t payload[40];
        rd_write_item items[GROUP];
        rd_written done;
        generation_payload(round, payload);
        fill_items(racer->number, payload, items);
        if (rd_store_batch_write(racer->race->store, items, GROUP, &done) != RD_OK)
            atomic_fetch_add(&racer->race->failed_calls, 1);
    }
    atomic_fetch_sub(&racer->race->writers_left, 1);
    return NULL;
}

static void *store_reader(void *arg)
{
    struct racer *racer = arg;
    struct race *race = racer->race;
    uint64_t newest[WRITERS] = {0};
    uint64_t hashes[WRITERS * GROUP];
    for (size_t i = 0; i < WRITERS * GROUP; i++)
        hashes[i] = group_hash(i / GROUP, i % GROUP);
    for (unsigned reads = 0; reads < READS_MIN || atomic_load(&race->writers_left) > 0; reads++) {
        rd_batch_item items[WRITERS * GROUP];
        rd_span payloads[WRITERS * GROUP] = {{NULL, 0}};
        if (rd_store_batch_read_hashed(race->store, hashes, NULL, WRITERS * GROUP, items) != RD_OK) {
            atomic_fetch_add(&race->failed_calls, 1);
            continue;
        }
        for (size_t i = 0; i < WRITERS * GROUP; i++)
            payloads[i] = items[i].entry.payload;
        note_groups(race, payloads, newest);
        rd_batch_release(items, WRITERS * GROUP);
    }
    return NULL;
}

static void run_race(struct race *race, void *(*writer)(void *), void *(*reader)(void *))
{
    struct racer racers[WRITERS + READERS];
    atomic_store(&race->writers_left, WRITERS);
    for (size_t i = 0; i < WRITERS + READERS; i++) {
        racers[i] = (struct racer){.race = race, .number = i};
        assert_int_equal(pthread_create(&racers[i].thread, NULL, i < WRITERS ? writer : reader, &racers[i]), 0);
    }
    for (size_t i = 0; i < WRITERS + READERS; i++)
        assert_int_equal(pthread_join(racers[i].thread, NULL), 0);
    assert_int_equal(atomic_load(&race->failed_calls), 0);
    assert_int_equal(atomic_load(&race->torn_batches), 0); /* F-13 */
    assert_int_equal(atomic_load(&race->went_back), 0);
    assert_int_equal(atomic_load(&race->uneven), 0);
}

static void expect_after_race(const char *path)
{
    uint8_t payload[40];
    generation_payload(ROUNDS - 1, payload);
    rd_store *store = store_open_ok(path, &open_reading);
    assert_int_equal(rd_store_len(store), WRITERS * GROUP);
    assert_int_equal(store_info(store).entries, WRITERS * GROUP * ROUNDS);
    for (size_t i = 0; i < WRITERS * GROUP; i++)
        store_expect(store, group_hash(i / GROUP, i % GROUP), payload, sizeof payload);
    rd_store_close(store);
}

static void engine_reads_see_each_batch_whole_or_not_at_all(void **state)
{
    struct race race = {.engine = asyncop_engine(state, &open_making)};
    run_race(&race, engine_writer, engine_reader);
    rd_engine_destroy(race.engine);
    expect_after_race(temp_path(state, "s"));
}

static void store_reads_see_each_batch_whole_or_not_at_all(void **state)
{
    struct race race = {.store = store_make(state, "s")};
    run_race(&race, store_writer, store_reader);
    rd_store_close(race.store);
    expect_after_race(temp_path(state, "s"));
}

/* ---- Reads while the index grows -------------------------------------------------------------------------------- */

static void *growth_reader(void *arg)
{
    struct racer *racer = arg;
    struct race *race = racer->race;
    for (uint64_t i = 0; i < READS_MIN || atomic_load(&race->writers_left) > 0; i++) {
        uint64_t number = i * 7 % 1000;
        rd_entry entry = {0};
        if (rd_store_read_hash(race->store, fill_hash(number), &entry) != RD_OK)
            atomic_fetch_add(&race->failed_calls, 1);
        else if (entry.payload.len != 8 || load_le64(entry.payload.data) != number)
            atomic_fetch_add(&race->torn_batches, 1);
        rd_entry_release(&entry);
        if (rd_store_exists_hash(race->store, fill_hash(number)) != RD_OK || rd_store_len(race->store) < 1000)
            atomic_fetch_add(&race->failed_calls, 1);
    }
    return NULL;
}

static void reads_hit_while_the_index_grows(void **state)
{
    struct race race = {.store = store_make(state, "s")};
    struct racer racers[READERS];
    store_fill(race.store, 0, 1000);
    atomic_store(&race.writers_left, 1);
    for (size_t i = 0; i < READERS; i++) {
        racers[i] = (struct racer){.race = &race, .number = i};
        assert_int_equal(pthread_create(&racers[i].thread, NULL, growth_reader, &racers[i]), 0);
    }
    store_fill(race.store, 1000, 60000);
    atomic_store(&race.writers_left, 0);
    for (size_t i = 0; i < READERS; i++)
        assert_int_equal(pthread_join(racers[i].thread, NULL), 0);
    assert_int_equal(atomic_load(&race.failed_calls), 0);
    assert_int_equal(atomic_load(&race.torn_batches), 0);
    assert_int_equal(rd_store_len(race.store), 61000);
    rd_store_close(race.store);
}

/* ---- Cancelling ------------------------------------------------------------------------------------------------- */

static bool is_cancel_result(rd_err err)
{
    return err == RD_OK || err == RD_E_CANCELLED;
}

static void cancelled_reads_complete_exactly_once(void **state)
{
    enum { KEYS = 60000, OPS = 20 };
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, KEYS);
    rd_store_close(store);
    rd_engine *engine = asyncop_engine(state, &open_reading);
    struct asyncop *ops = calloc(OPS, sizeof *ops);
    rd_key *keys = calloc((size_t)OPS * KEYS, sizeof *keys);
    rd_value *values = calloc((size_t)OPS * 100, sizeof *values);
    assert_true(ops != NULL && keys != NULL && values != NULL);
    for (size_t i = 0; i < OPS; i++) {
        for (uint64_t k = 0; k < KEYS; k++)
            keys[i * KEYS + k].hash = i == 0 ? fill_hash(k) : keys[k].hash;
        asyncop_init(&ops[i], RD_OP_READ);
        ops[i].op.keys = keys + i * KEYS;
        ops[i].op.key_count = i % 4 == 3 ? 10 : KEYS; /* some complete inside submit, and are cancelled after */
        ops[i].op.values = values + i * 100;
        ops[i].op.value_max = 100;
        ops[i].op.window_bytes_max = SIZE_MAX;
        asyncop_submit(engine, &ops[i]);
        rd_engine_cancel(engine, &ops[i].op);
        if (i % 2 == 0)
            rd_engine_cancel(engine, &ops[i].op); /* twice is as once */
    }
    for (size_t i = 0; i < OPS; i++) {
        asyncop_wait(&ops[i]);
        EXPECT(is_cancel_result(ops[i].op.err), "op %zu: %s", i, rd_err_text(ops[i].op.err));
        rd_engine_cancel(engine, &ops[i].op); /* harmless between completion and finish */
    }
    for (size_t i = 0; i < OPS; i++)
        asyncop_finish(engine, &ops[i]);
    rd_engine_destroy(engine);
    free(values);
    free(keys);
    free(ops);
}

static void cancelled_write_is_done_whole_or_not_at_all(void **state)
{
    enum { OPS = 200 };
    rd_engine *engine = asyncop_engine(state, &open_making);
    struct asyncop *ops = calloc(OPS, sizeof *ops);
    rd_write_item(*items)[2] = calloc(OPS, sizeof *items);
    size_t written = 0;
    assert_true(ops != NULL && items != NULL);
    for (uint64_t i = 0; i < OPS; i++) {
        items[i][0] = (rd_write_item){2 * i, text_span("first of two")};
        items[i][1] = (rd_write_item){2 * i + 1, text_span("second of two")};
        asyncop_init(&ops[i], RD_OP_WRITE);
        ops[i].op.items = items[i];
        ops[i].op.item_count = 2;
        asyncop_submit(engine, &ops[i]);
        if (i % 2 == 1)
            rd_engine_cancel(engine, &ops[i].op);
    }
    for (uint64_t i = 0; i < OPS; i++) {
        asyncop_wait(&ops[i]);
        rd_err err = ops[i].op.err;
        EXPECT(i % 2 == 0 ? err == RD_OK : is_cancel_result(err), "op %zu: %s", (size_t)i, rd_err_text(err));
        written += err == RD_OK;
        asyncop_finish(engine, &ops[i]);
    }
    rd_engine_destroy(engine);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    uint64_t live = rd_store_len(store);
    EXPECT(live >= 2 * written && live <= 2 * OPS && live % 2 == 0, "%zu keys", (size_t)live);
    for (uint64_t i = 0; i < OPS; i++) {
        assert_int_equal(rd_store_exists_hash(store, 2 * i), rd_store_exists_hash(store, 2 * i + 1));
        if (i % 2 == 0)
            store_expect(store, 2 * i, "first of two", 12);
    }
    rd_store_close(store);
    free(items);
    free(ops);
}

static void many_waiting_writes_are_all_acknowledged(void **state)
{
    enum { OPS = 1000 }; /* more than share one sync */
    const rd_open_options always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};
    rd_engine *engine = asyncop_engine(state, &always);
    struct asyncop *ops = calloc(OPS, sizeof *ops);
    rd_write_item *items = calloc(OPS, sizeof *items);
    uint64_t tail_off = 0;
    assert_true(ops != NULL && items != NULL);
    for (uint64_t i = 0; i < OPS; i++) {
        items[i] = (rd_write_item){fill_hash(i), i % 10 == 9 ? (rd_span){NULL, 0} : text_span("value")};
        asyncop_init(&ops[i], RD_OP_WRITE);
        ops[i].op.items = &items[i];
        ops[i].op.item_count = 1;
        asyncop_submit(engine, &ops[i]);
    }
    for (uint64_t i = 0; i < OPS; i++) {
        asyncop_wait(&ops[i]);
        rd_err want = i % 10 == 9 ? RD_E_PAYLOAD : RD_OK; /* one bad write costs no other */
        EXPECT(ops[i].op.err == want, "op %zu: %s", (size_t)i, rd_err_text(ops[i].op.err));
        if (want == RD_OK)
            EXPECT(ops[i].op.written.durable && ops[i].op.written.tail_off > tail_off, "op %zu", (size_t)i);
        tail_off = want == RD_OK ? ops[i].op.written.tail_off : tail_off;
        asyncop_finish(engine, &ops[i]);
    }
    rd_engine_destroy(engine);
    assert_int_equal(file_len(temp_path(state, "s")), tail_off);
    free(items);
    free(ops);
}

/* F-14: of deletes that wait together only the first finds the key present, whichever of them that is. */
static void waiting_deletes_of_a_key_write_one_tombstone(void **state)
{
    enum { KEYS = 50, EACH = 4, OPS = KEYS * EACH };
    const rd_open_options always = {.writable = true, .sync = RD_SYNC_ALWAYS};
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, KEYS);
    rd_store_close(store);
    rd_engine *engine = asyncop_engine(state, &always);
    struct asyncop *ops = calloc(OPS, sizeof *ops);
    rd_key *keys = calloc(OPS, sizeof *keys);
    size_t deleted[KEYS] = {0};
    assert_true(ops != NULL && keys != NULL);
    for (uint64_t i = 0; i < OPS; i++) {
        keys[i].hash = fill_hash(i / EACH);
        asyncop_init(&ops[i], RD_OP_DELETE);
        ops[i].op.keys = &keys[i];
        ops[i].op.key_count = 1;
        asyncop_submit(engine, &ops[i]);
    }
    for (size_t i = 0; i < OPS; i++) {
        asyncop_wait(&ops[i]);
        EXPECT(ops[i].op.err == RD_OK, "op %zu: %s", i, rd_err_text(ops[i].op.err));
        deleted[i / EACH] += ops[i].op.written.deleted_count;
        asyncop_finish(engine, &ops[i]);
    }
    for (size_t k = 0; k < KEYS; k++)
        EXPECT(deleted[k] == 1, "key %zu: %zu tombstones", k, deleted[k]);
    rd_engine_destroy(engine);
    free(keys);
    free(ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(engine_reads_see_each_batch_whole_or_not_at_all),
        TEMP_TEST(store_reads_see_each_batch_whole_or_not_at_all),
        TEMP_TEST(reads_hit_while_the_index_grows),
        TEMP_TEST(cancelled_reads_complete_exactly_once),
        TEMP_TEST(cancelled_write_is_done_whole_or_not_at_all),
        TEMP_TEST(waiting_deletes_of_a_key_write_one_tombstone),
        TEMP_TEST(many_waiting_writes_are_all_acknowledged),
    };
    return cmocka_run_group_tests_name("engine_threads", tests, NULL, NULL);
}
