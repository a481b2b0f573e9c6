/* Undo records: what a slot had is found for everybody who may ask, and given back when nobody may. */
#include "parked.h"

#include "indexes.h"
#include "undo.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Chunks are the only allocations of their size -------------------------------------------------------------- */

#define CHUNK_BYTES ((size_t)64 << 10)
#define CHUNKS_MAX  64

static void *chunks[CHUNKS_MAX];
static size_t chunk_count;
static bool refusing;
void *__real_malloc(size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void __wrap_free(void *memory);

void *__wrap_malloc(size_t size)
{
    if (size < CHUNK_BYTES)
        return __real_malloc(size);
    void *memory = refusing || chunk_count == CHUNKS_MAX ? NULL : __real_malloc(size);
    if (memory != NULL)
        chunks[chunk_count++] = memory;
    return memory;
}

void __wrap_free(void *memory)
{
    for (size_t i = 0; memory != NULL && i < chunk_count; i++) {
        if (chunks[i] != memory)
            continue;
        chunks[i] = chunks[--chunk_count];
        memset(memory, 0xa5, CHUNK_BYTES); /* whoever still reads it, reads nonsense */
        break;
    }
    __real_free(memory);
}

/* ---- A writer of a few keys ------------------------------------------------------------------------------------- */

enum { KEYS = 40, READERS = 5 };

struct plain {
    struct undo undo;
    uint64_t words[KEYS];
    uint64_t tail_off, settled_off;
    struct random random;
};

/* A batch: any of the keys, some of them more than once, some deleted. */
static void publish(struct plain *plain, size_t count)
{
    uint64_t off = plain->tail_off;
    EXPECT(undo_reserve(&plain->undo, count) == RD_OK, "%zu records", count);
    for (size_t i = 0; i < count; i++) {
        size_t key = random_below(&plain->random, KEYS);
        off += 64;
        undo_note(&plain->undo, off, plain->words[key]);
        plain->words[key] = off | (random_below(&plain->random, 5) == 0 ? WORD_TOMBSTONE : 0);
    }
    plain->tail_off = off + 20;
    plain->settled_off = undo_published(&plain->undo, plain->tail_off);
}

/* Somebody who began at a moment, and what all keys had then. */
struct reader {
    struct parked parked;
    bool reading;
    uint64_t tail_off;
    uint64_t words[KEYS];
};

static void expect_as_of(const struct plain *plain, const struct reader *reader)
{
    for (size_t key = 0; key < KEYS; key++) {
        uint64_t word = plain->words[key];
        while (word != WORD_NONE && word_off(word) >= reader->tail_off)
            word = undo_before(&plain->undo, word_off(word));
        EXPECT(word == reader->words[key], "key %zu as of %" PRIu64 ", now %" PRIu64, key, reader->tail_off,
               plain->tail_off);
    }
    /* where the next entry lies, the first that one may ask about */
    EXPECT(plain->settled_off <= reader->tail_off + 64, "settled up to %" PRIu64 ", one reads as of %" PRIu64,
           plain->settled_off, reader->tail_off);
}

static void begin(struct reader *reader, const struct plain *plain)
{
    reader->tail_off = plain->tail_off;
    memcpy(reader->words, plain->words, sizeof reader->words);
    parked_enter(&reader->parked);
    reader->reading = true;
}

static void what_keys_had_is_found_as_of_any_tail_that_somebody_reads_at(void **state)
{
    (void)state;
    struct plain plain = {.random = {.state = 4711}};
    static struct reader readers[READERS];
    size_t reading = 0;
    for (int round = 0; round < 1500; round++) {
        struct reader *reader = &readers[random_below(&plain.random, READERS)];
        if (random_below(&plain.random, 3) > 0)
            publish(&plain, 1 + random_below(&plain.random, round % 100 == 99 ? 12000 : 100));
        else if (!reader->reading && ++reading > 0)
            begin(reader, &plain);
        else {
            parked_leave(&reader->parked);
            reader->reading = false;
            reading--;
        }
        for (size_t i = 0; i < READERS; i++)
            if (readers[i].reading)
                expect_as_of(&plain, &readers[i]);
    }
    for (size_t i = 0; i < READERS; i++)
        if (readers[i].reading)
            parked_leave(&readers[i].parked);
    publish(&plain, 1);
    assert_int_equal(plain.settled_off, plain.tail_off);
    assert_in_range(chunk_count, 1, 1);
    undo_fini(&plain.undo);
    assert_int_equal(chunk_count, 0);
}

static void records_go_as_they_come_where_nobody_reads(void **state)
{
    (void)state;
    struct plain plain = {.random = {.state = 4712}};
    for (int round = 0; round < 1000; round++) {
        publish(&plain, 1 + random_below(&plain.random, 300));
        assert_int_equal(plain.settled_off, plain.tail_off);
        assert_int_equal(chunk_count, 1);
    }
    undo_fini(&plain.undo);
}

/* A reader keeps what came since it began; what was before goes, and the rest with it. */
static void records_are_kept_for_who_began_before_and_go_with_them(void **state)
{
    (void)state;
    struct plain plain = {.random = {.state = 4713}};
    static struct reader early, late;
    publish(&plain, 5000);
    begin(&early, &plain);
    for (int i = 0; i < 10; i++)
        publish(&plain, 4000);
    begin(&late, &plain);
    for (int i = 0; i < 10; i++)
        publish(&plain, 4000);
    assert_in_range(chunk_count, 20, 22);
    expect_as_of(&plain, &early);
    expect_as_of(&plain, &late);
    parked_leave(&early.parked);
    publish(&plain, 4000);
    assert_in_range(chunk_count, 11, 13);
    expect_as_of(&plain, &late);
    parked_leave(&late.parked);
    publish(&plain, 4000);
    assert_int_equal(chunk_count, 1);
    assert_int_equal(plain.settled_off, plain.tail_off);
    undo_fini(&plain.undo);
}

/* Memory for one large batch isn't kept beyond it. */
static void a_large_batch_is_given_back_at_once_where_nobody_reads(void **state)
{
    (void)state;
    struct plain plain = {.random = {.state = 4714}};
    publish(&plain, 100000);
    assert_int_equal(chunk_count, 1);
    const void *chunk = chunks[0];
    publish(&plain, 10);
    assert_int_equal(chunk_count, 1);
    assert_ptr_equal(chunks[0], chunk); /* the small one took its place before */
    undo_fini(&plain.undo);
}

/* What was reserved for a publication that failed neither stays nor hides what is older. */
static void publications_that_never_came_leave_nothing(void **state)
{
    (void)state;
    struct plain plain = {.random = {.state = 4715}};
    static struct reader reader;
    publish(&plain, 10);
    begin(&reader, &plain);
    publish(&plain, 10);
    for (size_t count = 5000; count < 50000; count += 9000)
        assert_int_equal(undo_reserve(&plain.undo, count), RD_OK);
    refusing = true;
    assert_int_equal(undo_reserve(&plain.undo, 100000), RD_E_NOMEM);
    refusing = false;
    expect_as_of(&plain, &reader);
    publish(&plain, 10);
    expect_as_of(&plain, &reader);
    parked_leave(&reader.parked);
    publish(&plain, 10);
    assert_int_equal(chunk_count, 1);
    undo_fini(&plain.undo);
    assert_int_equal(chunk_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_keys_had_is_found_as_of_any_tail_that_somebody_reads_at),
        cmocka_unit_test(records_go_as_they_come_where_nobody_reads),
        cmocka_unit_test(records_are_kept_for_who_began_before_and_go_with_them),
        cmocka_unit_test(a_large_batch_is_given_back_at_once_where_nobody_reads),
        cmocka_unit_test(publications_that_never_came_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
