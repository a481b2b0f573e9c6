/* The chaos engine keeps the contract that it is there to test others by: else its findings would be worth nothing. */
#include "asyncop.h"
#include "chaos.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KEYS    500
#define THREADS 8
#define ROUNDS  60
#define BATCH   40
#define WINDOW  16

static rd_engine *engine_opened(void **state, const rd_open_options *options, const struct chaos_config *config)
{
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, KEYS);
    rd_store_close(store);
    rd_engine *inner = asyncop_engine(state, options);
    rd_engine *engine = chaos_create(inner, config);
    EXPECT(engine != NULL, "no engine");
    return engine;
}

static rd_engine *engine_over(void **state, const struct chaos_config *config)
{
    return engine_opened(state, &open_reading, config);
}

/* What the threads share; the main thread judges. */
struct crowd {
    rd_engine *engine;
    bool cancels;
    atomic_uint lies, wrong_errors, uneven, cancelled, ok;
};

struct member {
    struct crowd *crowd;
    uint64_t number;
    pthread_t thread;
};

/* Whether a value is what the store holds under key `number`, or an error that may be. */
static bool value_is_true(const rd_value *value, uint64_t number)
{
    if (value->err == RD_E_DAMAGED)
        return value->payload.len == 0;
    if (number >= KEYS)
        return value->err == RD_ABSENT;
    return value->err == RD_OK && value->payload.len == 8 && load_le64(value->payload.data) == number &&
           value->meta.key_hash == fill_hash(number);
}

static void judge_window(struct crowd *crowd, const rd_op *op, uint64_t first_number, size_t *seen)
{
    if (op->first != *seen || op->value_count == 0 || op->value_count > WINDOW)
        atomic_fetch_add(&crowd->lies, 1);
    for (size_t i = 0; i < op->value_count; i++)
        if (!value_is_true(&op->values[i], first_number + op->first + i))
            atomic_fetch_add(&crowd->lies, 1);
    *seen += op->value_count;
}

static void one_batch(struct crowd *crowd, uint64_t first_number, unsigned *dice)
{
    rd_key keys[BATCH];
    rd_value values[WINDOW];
    struct asyncop a;
    size_t seen = 0;
    for (size_t i = 0; i < BATCH; i++)
        keys[i] = (rd_key){.hash = fill_hash(first_number + i)};
    asyncop_init(&a, RD_OP_READ);
    a.op.keys = keys;
    a.op.key_count = BATCH;
    a.op.values = values;
    a.op.value_max = WINDOW;
    a.op.window_bytes_max = 64;
    asyncop_submit(crowd->engine, &a);
    for (;;) {
        if (crowd->cancels && rand_r(dice) % 8 == 0)
            rd_engine_cancel(crowd->engine, &a.op);
        asyncop_wait(&a);
        if (a.op.err != RD_OK)
            break;
        judge_window(crowd, &a.op, first_number, &seen);
        if (!a.op.more)
            break;
        asyncop_next(crowd->engine, &a);
    }
    if (a.op.err == RD_OK)
        atomic_fetch_add(seen == BATCH ? &crowd->ok : &crowd->lies, 1);
    else if (a.op.err == RD_E_CANCELLED && crowd->cancels)
        atomic_fetch_add(&crowd->cancelled, 1);
    else if (a.op.err != RD_E_UNAVAILABLE && a.op.err != RD_E_IO)
        atomic_fetch_add(&crowd->wrong_errors, 1);
    rd_engine_finish(crowd->engine, &a.op);
    if (!asyncop_is_even(&a))
        atomic_fetch_add(&crowd->uneven, 1);
    asyncop_fini(&a);
}

static void *run_member(void *argument)
{
    struct member *member = argument;
    unsigned dice = (unsigned)member->number;
    for (uint64_t i = 0; i < ROUNDS; i++)
        one_batch(member->crowd, (member->number * 37 + i * 11) % KEYS, &dice);
    return NULL;
}

/* Ends the engine. */
static void judge_crowd(struct crowd *crowd)
{
    EXPECT(crowd->lies == 0, "%u answers were false", crowd->lies);
    EXPECT(crowd->wrong_errors == 0, "%u errors that nobody asked for", crowd->wrong_errors);
    EXPECT(crowd->uneven == 0, "%u did not complete as often as they began", crowd->uneven);
    EXPECT(crowd->ok > 0, "no batch came through");
    for (int i = 0; i < CHAOS_ZERO_AT_END; i++)
        EXPECT(chaos_count(crowd->engine, (enum chaos_count)i) == 0, "count %d", i);
    rd_engine_destroy(crowd->engine);
}

static void run_crowd(struct crowd *crowd)
{
    struct member members[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        members[i] = (struct member){.crowd = crowd, .number = i};
        EXPECT(pthread_create(&members[i].thread, NULL, run_member, &members[i]) == 0, "no thread");
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(members[i].thread, NULL);
    judge_crowd(crowd);
}

static void whatever_the_seed_each_start_completes_once_and_what_comes_is_true(void **state)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct chaos_config config = {.seed = seed,
                                      .delay_us_max = 300,
                                      .fail_per_mille = 5,
                                      .damage_per_mille = 20,
                                      .heed_per_mille = 500,
                                      .window_max = seed == 2 ? 1 : 5,
                                      .threads = 4};
        struct crowd crowd = {.engine = engine_over(state, &config), .cancels = seed != 3};
        run_crowd(&crowd);
        EXPECT((crowd.cancelled > 0) == crowd.cancels, "%u cancelled", crowd.cancelled);
        temp_teardown(state);
        temp_setup(state);
    }
}

static void inline_mode_answers_before_submit_returns(void **state)
{
    struct chaos_config config = {.seed = 7, .mode = CHAOS_INLINE, .threads = 1};
    rd_engine *engine = engine_over(state, &config);
    struct asyncop a;
    asyncop_init(&a, RD_OP_INFO);
    asyncop_submit(engine, &a);
    EXPECT(a.on_caller && a.completed == 1, "completed %u times", a.completed);
    EXPECT(a.op.info.live_keys == KEYS, "%llu keys", (unsigned long long)a.op.info.live_keys);
    asyncop_finish(engine, &a);
    rd_engine_destroy(engine);
}

static void a_closed_gate_keeps_answers_until_it_opens(void **state)
{
    struct chaos_config config = {.seed = 7, .threads = 2, .hold = true};
    rd_engine *engine = engine_over(state, &config);
    struct asyncop many[10];
    for (size_t i = 0; i < 10; i++) {
        asyncop_init(&many[i], RD_OP_INFO);
        asyncop_submit(engine, &many[i]);
    }
    EXPECT(chaos_count(engine, CHAOS_HELD) == 10, "%llu held", (unsigned long long)chaos_count(engine, CHAOS_HELD));
    EXPECT(chaos_count(engine, CHAOS_COMPLETIONS) == 0, "some were answered");
    chaos_gate(engine, false);
    for (size_t i = 0; i < 10; i++) {
        asyncop_wait(&many[i]);
        EXPECT(many[i].op.err == RD_OK, "%s", rd_err_text(many[i].op.err));
        asyncop_finish(engine, &many[i]);
    }
    rd_engine_destroy(engine);
}

static void a_cancel_passes_the_closed_gate(void **state)
{
    struct chaos_config config = {.seed = 7, .threads = 2, .hold = true, .heed_per_mille = 1000};
    rd_engine *engine = engine_over(state, &config);
    struct asyncop a;
    asyncop_init(&a, RD_OP_INFO);
    asyncop_submit(engine, &a);
    rd_engine_cancel(engine, &a.op);
    asyncop_wait(&a);
    EXPECT(a.op.err == RD_E_CANCELLED, "%s", rd_err_text(a.op.err));
    asyncop_finish(engine, &a);
    rd_engine_destroy(engine);
}

static void a_held_payload_outlives_its_operation_and_others_do_not(void **state)
{
    struct chaos_config config = {.seed = 7, .mode = CHAOS_INLINE, .threads = 1};
    rd_engine *engine = engine_over(state, &config);
    rd_key keys[2] = {{.hash = fill_hash(1)}, {.hash = fill_hash(2)}};
    rd_value values[2];
    rd_hold hold;
    struct asyncop a;
    asyncop_init(&a, RD_OP_READ);
    a.op.keys = keys;
    a.op.key_count = 2;
    a.op.values = values;
    a.op.value_max = 2;
    a.op.window_bytes_max = 1024;
    EXPECT(asyncop_run(engine, &a) == RD_OK, "%s", rd_err_text(a.op.err));
    rd_span kept = values[1].payload;
    EXPECT(rd_engine_hold(engine, &a.op, &values[1], &hold) == RD_OK, "denied");
    EXPECT(chaos_count(engine, CHAOS_BUFFERS) == 2, "buffers");
    asyncop_finish(engine, &a);
    EXPECT(chaos_count(engine, CHAOS_BUFFERS) == 1, "the one that nobody holds is still there");
    EXPECT(load_le64(kept.data) == 2, "the held one changed");
    hold.release(hold.arg);
    EXPECT(chaos_count(engine, CHAOS_BUFFERS) == 0, "not released");
    rd_engine_destroy(engine);
}

/* ---- Writers: each has a key of its own, and knows what may be under it ------------------------------------------ */

enum { WRITERS = 6, WRITER_ROUNDS = 40, PIECE_MAX = 700 };

struct writer {
    struct crowd *crowd;
    uint64_t number;
    uint64_t home, away; /* the key, and the one that renames take its value to and back */
    uint8_t now, before; /* what its value may be made of; 0: nothing */
    unsigned dice;
    pthread_t thread;
};

static void note_outcome(struct crowd *crowd, rd_err err)
{
    if (err == RD_OK)
        atomic_fetch_add(&crowd->ok, 1);
    else if (err == RD_E_CANCELLED && crowd->cancels)
        atomic_fetch_add(&crowd->cancelled, 1);
    else if (err != RD_E_UNAVAILABLE && err != RD_E_IO)
        atomic_fetch_add(&crowd->wrong_errors, 1);
}

static void writer_finish(struct crowd *crowd, struct asyncop *a)
{
    rd_engine_finish(crowd->engine, &a->op);
    if (!asyncop_is_even(a))
        atomic_fetch_add(&crowd->uneven, 1);
    asyncop_fini(a);
}

/* Bring what was set in `a`. Returns: its outcome, noted. */
static rd_err writer_wait(struct writer *writer, struct asyncop *a)
{
    struct crowd *crowd = writer->crowd;
    if (a->started == 0)
        asyncop_submit(crowd->engine, a);
    else
        asyncop_next(crowd->engine, a);
    if (crowd->cancels && rand_r(&writer->dice) % 16 == 0)
        rd_engine_cancel(crowd->engine, &a->op);
    asyncop_wait(a);
    return a->op.err;
}

/* A value of one byte over and over, in pieces that end as soon as they may. */
static void stream_one(struct writer *writer, uint8_t byte)
{
    rd_key key = {.hash = writer->home};
    struct asyncop a;
    uint64_t size = 0;
    rd_err err = RD_OK;
    asyncop_init(&a, RD_OP_STREAM);
    a.op.keys = &key;
    a.op.key_count = 1;
    for (bool last = false; err == RD_OK && !last;) {
        size_t len = 1 + (size_t)rand_r(&writer->dice) % PIECE_MAX;
        uint8_t *bytes = malloc(len);
        rd_span *pieces = calloc(3, sizeof *pieces);
        last = rand_r(&writer->dice) % 3 == 0;
        memset(bytes, byte, len);
        pieces[0] = (rd_span){bytes, len / 2};
        pieces[2] = (rd_span){bytes + len / 2, len - len / 2};
        a.op.pieces = pieces;
        a.op.piece_count = 3;
        a.op.last = last;
        size += len;
        err = writer_wait(writer, &a);
        memset(bytes, 0, len);
        free(bytes);
        free(pieces);
        if (err == RD_OK && a.op.more == last)
            atomic_fetch_add(&writer->crowd->lies, 1);
    }
    if (err == RD_OK && a.op.streamed.size != size)
        atomic_fetch_add(&writer->crowd->lies, 1);
    note_outcome(writer->crowd, err);
    writer_finish(writer->crowd, &a);
    writer->before = err == RD_OK ? byte : writer->now;
    writer->now = byte; /* or it was given up, before or after it was written */
}

/* There, and back if it got there. Returns: false where nobody can tell where it is. */
static bool rename_one(struct writer *writer)
{
    for (int way = 0; way < 2; way++) {
        rd_key keys[2] = {{.hash = way == 0 ? writer->home : writer->away},
                          {.hash = way == 0 ? writer->away : writer->home}};
        struct asyncop a;
        asyncop_init(&a, RD_OP_RENAME);
        a.op.keys = keys;
        a.op.key_count = 2;
        rd_err err = writer_wait(writer, &a);
        if (err == RD_ABSENT && way == 0 && writer->before == 0) { /* it never was there */
            writer_finish(writer->crowd, &a);
            return true;
        }
        note_outcome(writer->crowd, err);
        writer_finish(writer->crowd, &a);
        if (err != RD_OK)
            return false;
    }
    return true;
}

/* What is under the key, once the engine deigns to say. */
static void judge_one(struct writer *writer)
{
    struct crowd *crowd = writer->crowd;
    rd_err err;
    do {
        rd_key key = {.hash = writer->home};
        rd_value value = {0};
        struct asyncop a;
        asyncop_init(&a, RD_OP_READ);
        a.op.keys = &key;
        a.op.key_count = 1;
        a.op.values = &value;
        a.op.value_max = 1;
        err = asyncop_run(crowd->engine, &a);
        const uint8_t *bytes = value.payload.data;
        bool absent = err == RD_OK && value.err == RD_ABSENT;
        if (absent && writer->before != 0)
            atomic_fetch_add(&crowd->lies, 1);
        if (err == RD_OK && !absent && value.err != RD_OK)
            atomic_fetch_add(&crowd->wrong_errors, 1);
        for (size_t i = 0; err == RD_OK && value.err == RD_OK && i < value.payload.len; i++)
            if (bytes[i] != bytes[0] || (bytes[i] != writer->now && bytes[i] != writer->before))
                atomic_fetch_add(&crowd->lies, 1);
        if (err == RD_OK && value.err == RD_OK)
            writer->before = writer->now = bytes[0];
        else if (absent)
            writer->now = 0;
        writer_finish(crowd, &a);
    } while (err != RD_OK);
}

static void *run_writer(void *argument)
{
    struct writer *writer = argument;
    for (uint64_t i = 0; i < WRITER_ROUNDS; i++) {
        stream_one(writer, (uint8_t)(1 + i));
        judge_one(writer);
        if (i % 4 == 3 && !rename_one(writer)) {
            writer->home = UINT64_C(1000) * (writer->number + 1) + 2 * i; /* begin anew with keys that nobody has */
            writer->away = writer->home + 1;
            writer->now = writer->before = 0;
        }
    }
    return NULL;
}

/* Compact time and again, and leave some of them before their end. */
static void *run_compactor(void *argument)
{
    struct writer *writer = argument;
    for (int i = 0; i < 20; i++) {
        struct asyncop a;
        bool leaves = rand_r(&writer->dice) % 3 == 0;
        asyncop_init(&a, RD_OP_COMPACT);
        rd_err err = writer_wait(writer, &a);
        while (err == RD_OK && a.op.more && !leaves)
            err = writer_wait(writer, &a);
        if (err != RD_E_BUSY) /* one that was left is still ending */
            note_outcome(writer->crowd, err);
        writer_finish(writer->crowd, &a);
    }
    return NULL;
}

static void whatever_the_seed_streams_renames_and_compactions_do_what_they_say(void **state)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct chaos_config config = {
            .seed = seed, .delay_us_max = 300, .fail_per_mille = 20, .heed_per_mille = 500, .threads = 4};
        struct crowd crowd = {.engine = engine_opened(state, &open_writing, &config), .cancels = seed != 3};
        struct writer writers[WRITERS];
        for (uint64_t i = 0; i < WRITERS; i++) {
            writers[i] = (struct writer){
                .crowd = &crowd, .number = i, .home = 2 * i, .away = 2 * i + 1, .dice = (unsigned)(seed * 100 + i)};
            void *(*run)(void *) = i == 0 ? run_compactor : run_writer;
            EXPECT(pthread_create(&writers[i].thread, NULL, run, &writers[i]) == 0, "no thread");
        }
        for (size_t i = 0; i < WRITERS; i++)
            pthread_join(writers[i].thread, NULL);
        judge_crowd(&crowd);
        temp_teardown(state);
        temp_setup(state);
    }
}

static void stream_is_given_its_pieces_however_late_it_asks(void **state)
{
    struct chaos_config config = {.seed = 7, .mode = CHAOS_LATE, .delay_us_max = 100, .threads = 2};
    rd_engine *engine = engine_opened(state, &open_writing, &config);
    rd_key key = {.hash = 1};
    const rd_span pieces[] = {text_span("in "), text_span("two")};
    struct asyncop a;
    asyncop_init(&a, RD_OP_STREAM);
    a.op.keys = &key;
    a.op.key_count = 1;
    a.op.pieces = &pieces[0];
    a.op.piece_count = 1;
    EXPECT(asyncop_run(engine, &a) == RD_OK && a.op.more && !a.on_caller, "%s", rd_err_text(a.op.err));
    EXPECT(chaos_count(engine, CHAOS_BUFFERS) == 0, "pieces end with their completion");
    a.op.pieces = &pieces[1];
    a.op.last = true;
    asyncop_next(engine, &a);
    asyncop_wait(&a);
    EXPECT(a.op.err == RD_OK && !a.op.more, "%s", rd_err_text(a.op.err));
    assert_int_equal(a.op.streamed.size, 6);
    assert_int_equal(a.op.streamed.checksum, sum_crc32("in two", 6));
    asyncop_finish(engine, &a);
    rd_engine_destroy(engine);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    store_expect(store, 1, "in two", 6);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(whatever_the_seed_each_start_completes_once_and_what_comes_is_true),
        TEMP_TEST(inline_mode_answers_before_submit_returns),
        TEMP_TEST(a_closed_gate_keeps_answers_until_it_opens),
        TEMP_TEST(a_cancel_passes_the_closed_gate),
        TEMP_TEST(a_held_payload_outlives_its_operation_and_others_do_not),
        TEMP_TEST(whatever_the_seed_streams_renames_and_compactions_do_what_they_say),
        TEMP_TEST(stream_is_given_its_pieces_however_late_it_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
