/* The index while one thread writes to it and others read. */
#include "indexes.h"

#include "epoch.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- One writer, who lets a number come after the other --------------------------------------------------------- */

enum { FIRST = 5000, LAST = 120000, READERS = 2, ROUNDS_MIN = 3 };

struct scene {
    struct index index;
    _Atomic uint64_t there; /* numbers below it are */
    atomic_uint rounds;     /* that readers have made */
};

/* Every tenth time an older one gets another word as well: its own, one further. */
static void *grow(void *argument)
{
    struct scene *scene = argument;
    for (uint64_t i = FIRST; i < LAST; i++) {
        if (index_reserve(&scene->index, 1) != RD_OK)
            return (void *)1;
        index_set(&scene->index, number_hash(i), number_word(i));
        if (i % 10 == 0)
            index_set(&scene->index, number_hash(i / 10), number_word(i / 10) + 1);
        atomic_store(&scene->there, i + 1);
        index_sweep(&scene->index);
    }
    return NULL;
}

static uint64_t find_in_epoch(const struct index *index, uint64_t number)
{
    struct epoch_reader *reader = epoch_enter();
    uint64_t word = index_find(index, number_hash(number));
    epoch_leave(reader);
    return word;
}

/* Numbers that are there, all over, and one that isn't. Returns NULL where all was as it must be. */
static void *look_up(void *argument)
{
    struct scene *scene = argument;
    struct random random = {.state = 1 + atomic_fetch_add(&scene->rounds, 1)};
    uint64_t there = 0;
    while (there < LAST) {
        there = atomic_load(&scene->there);
        for (int i = 0; i < 100; i++) {
            uint64_t number = random_below(&random, there);
            uint64_t word = find_in_epoch(&scene->index, number);
            if (word != number_word(number) && word != number_word(number) + 1)
                return "one that is there isn't found";
            if (number * 10 < there && number * 10 >= FIRST && word == number_word(number))
                return "its older word is found";
        }
        if (find_in_epoch(&scene->index, LAST) != WORD_NONE)
            return "one is found that isn't there";
    }
    return NULL;
}

static struct scene *scene_create(void)
{
    struct scene *scene = calloc(1, sizeof *scene);
    EXPECT(scene != NULL, "no memory");
    scene->index = index_of_numbers(FIRST);
    atomic_init(&scene->there, FIRST);
    return scene;
}

static void scene_destroy(struct scene *scene)
{
    index_fini(&scene->index);
    free(scene);
}

static void readers_find_all_that_is_there_while_an_index_grows(void **state)
{
    (void)state;
    struct scene *scene = scene_create();
    pthread_t readers[READERS], writer;
    void *wrong = NULL;
    for (size_t i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, look_up, scene), 0);
    assert_int_equal(pthread_create(&writer, NULL, grow, scene), 0);
    pthread_join(writer, &wrong);
    assert_null(wrong);
    for (size_t i = 0; i < READERS; i++) {
        pthread_join(readers[i], &wrong);
        EXPECT(wrong == NULL, "%s", (const char *)wrong);
    }
    scene_destroy(scene);
}

/* ---- Going through all of it ------------------------------------------------------------------------------------ */

/* One time through. `times` counts how often each number was seen; each hash leads to it by its word. */
static void scan(const struct index *index, uint8_t *times)
{
    static struct sighting seen[BLOCK_SLOTS];
    struct index_cursor cursor = {0};
    while (!cursor.ended) {
        size_t count = 0;
        struct epoch_reader *reader = epoch_enter();
        rd_err err = index_scan(index, &cursor, seen, &count);
        epoch_leave(reader);
        EXPECT(err == RD_OK && count <= BLOCK_SLOTS, "%s, %zu sightings", rd_err_text(err), count);
        for (size_t i = 0; i < count; i++) {
            uint64_t number = seen[i].word / 64 - 1;
            EXPECT(number < LAST && seen[i].hash == number_hash(number), "%" PRIx64 " under another hash",
                   seen[i].word);
            times[number]++;
        }
    }
}

static void a_scan_sees_each_key_once_while_an_index_grows(void **state)
{
    (void)state;
    struct scene *scene = scene_create();
    uint8_t *times = calloc(LAST, 1);
    pthread_t writer;
    void *wrong;
    uint64_t there = 0;
    assert_non_null(times);
    assert_int_equal(pthread_create(&writer, NULL, grow, scene), 0);
    for (int round = 0; there < LAST || round < ROUNDS_MIN; round++) {
        memset(times, 0, LAST);
        there = atomic_load(&scene->there);
        scan(&scene->index, times);
        for (uint64_t i = 0; i < LAST; i++)
            EXPECT(times[i] == 1 || (times[i] == 0 && i >= there), "%" PRIu64 " is seen %u times, of %" PRIu64, i,
                   times[i], there);
    }
    pthread_join(writer, &wrong);
    assert_null(wrong);
    free(times);
    scene_destroy(scene);
}

/* A scan that has begun when all places are mixed anew begins again, and says so. */
static void a_scan_begins_again_where_the_secret_changes(void **state)
{
    (void)state;
    static struct sighting seen[BLOCK_SLOTS];
    struct index index = index_of_numbers(40000);
    struct index_cursor cursor = {0};
    size_t count = 0, total = 0;
    uint64_t secret = index_table(&index)->secret;
    assert_int_equal(index_scan(&index, &cursor, seen, &count), RD_OK);
    assert_false(cursor.ended);
    for (uint64_t i = 0; index_table(&index)->secret == secret; i++)
        index_put(&index, hash_that_mixes_to(secret, i), 1);
    assert_int_equal(index_scan(&index, &cursor, seen, &count), RD_ABSENT);
    while (!cursor.ended) {
        assert_int_equal(index_scan(&index, &cursor, seen, &count), RD_OK);
        total += count;
    }
    assert_int_equal(total, index_used(&index));
    index_fini(&index);
}

/* Fitting makes fewer blocks of them, and may so in the midst of what a cursor has come to. */
static void a_scan_goes_on_in_a_table_that_was_fitted(void **state)
{
    (void)state;
    static struct sighting seen[BLOCK_SLOTS];
    static uint8_t times[40000];
    struct index index = index_of_numbers(40000);
    struct index_cursor cursor = {0};
    assert_int_equal(index_reserve(&index, 400000), RD_OK);
    (void)index_parts_log2(&index);
    unsigned blocks_log2 = index_table(&index)->blocks_log2;
    for (int step = 0; !cursor.ended; step++) {
        size_t count = 0;
        if (step == 5)
            assert_int_equal(index_fit(&index), RD_OK);
        assert_int_equal(index_scan(&index, &cursor, seen, &count), RD_OK);
        for (size_t i = 0; i < count; i++)
            times[seen[i].word / 64 - 1]++;
    }
    assert_true(index_table(&index)->blocks_log2 < blocks_log2);
    for (size_t i = 0; i < 40000; i++)
        EXPECT(times[i] == 1, "%zu is seen %u times", i, times[i]);
    index_fini(&index);
}

/* ---- Flags ------------------------------------------------------------------------------------------------------ */

/* Flags numbers that are there. What was set must be found at once, unless another word came. */
static void *flag(void *argument)
{
    struct scene *scene = argument;
    struct random random = {.state = 77 + atomic_fetch_add(&scene->rounds, 1)};
    uint64_t there = 0;
    while (there < LAST) {
        there = atomic_load(&scene->there);
        for (int i = 0; i < 50; i++) {
            uint64_t number = random_below(&random, there), hash = number_hash(number);
            struct epoch_reader *reader = epoch_enter();
            uint64_t word = index_find(&scene->index, hash);
            bool set = index_flag(&scene->index, hash, word, WORD_VERIFIED);
            uint64_t after = index_find(&scene->index, hash);
            epoch_leave(reader);
            if (set && word_off(after) == word_off(word) && (after & WORD_VERIFIED) == 0)
                return "a flag is gone at once";
            if ((after & WORD_MOVED) != 0)
                return "the index's own flag is seen";
        }
    }
    return NULL;
}

/* A reader flags every number before it may come to another table, and again until it says that it is there. */
static void *flag_each(void *argument)
{
    struct scene *scene = argument;
    for (uint64_t number = 0; number < LAST; number++) {
        uint64_t word;
        bool set = false;
        while (number >= atomic_load(&scene->there)) {
        }
        do {
            struct epoch_reader *reader = epoch_enter();
            word = index_find(&scene->index, number_hash(number));
            set = index_flag(&scene->index, number_hash(number), word, WORD_DAMAGED);
            epoch_leave(reader);
        } while (!set);
    }
    return NULL;
}

static void flags_that_were_set_stay_with_their_words_while_these_move(void **state)
{
    (void)state;
    struct scene *scene = scene_create();
    pthread_t readers[READERS + 1], writer;
    void *wrong = NULL;
    for (size_t i = 0; i <= READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, i < READERS ? flag : flag_each, scene), 0);
    assert_int_equal(pthread_create(&writer, NULL, grow, scene), 0);
    pthread_join(writer, &wrong);
    assert_null(wrong);
    for (size_t i = 0; i <= READERS; i++) {
        pthread_join(readers[i], &wrong);
        EXPECT(wrong == NULL, "%s", (const char *)wrong);
    }
    for (uint64_t i = 0; i < LAST; i++) {
        uint64_t word = index_find(&scene->index, number_hash(i));
        bool superseded = 10 * i >= FIRST && 10 * i < LAST; /* then the flag may have been on the older word */
        EXPECT((word & WORD_DAMAGED) != 0 || superseded, "%" PRIu64 " lost its flag", i);
    }
    scene_destroy(scene);
}

/* What need not be sealed as it moves. */
static void a_word_with_a_last_flag_gets_no_other(void **state)
{
    (void)state;
    struct index index = index_of_numbers(1);
    index.last_flags = WORD_VERIFIED;
    assert_true(index_flag(&index, number_hash(0), number_word(0), WORD_VERIFIED));
    assert_false(index_flag(&index, number_hash(0), number_word(0) | WORD_VERIFIED, WORD_DAMAGED));
    assert_int_equal(index_find(&index, number_hash(0)), number_word(0) | WORD_VERIFIED);
    assert_false(index_flag(&index, number_hash(1), WORD_NONE, WORD_DAMAGED));
    index_put(&index, number_hash(0), number_word(1));
    assert_true(index_flag(&index, number_hash(0), number_word(1), WORD_DAMAGED));
    index_fini(&index);
}

static void a_flag_is_taken_off_every_slot_in_the_midst_of_a_move(void **state)
{
    (void)state;
    struct index index = index_of_numbers(50000);
    for (uint64_t i = 0; i < 50000; i++)
        assert_true(index_flag(&index, number_hash(i), number_word(i), WORD_VERIFIED));
    assert_int_equal(index_reserve(&index, 100000), RD_OK);
    uint64_t number = 50000;
    for (; atomic_load(&index_table(&index)->moved) < 3; number++)
        index_put(&index, number_hash(number), number_word(number));
    assert_true(index_moves(&index));
    index_clear_flag(&index, WORD_VERIFIED);
    index_expect_numbers(&index, number);
    (void)index_parts_log2(&index);
    index_expect_numbers(&index, number);
    index_fini(&index);
}

/* ---- What a reader looks at ------------------------------------------------------------------------------------- */

/* Who reads while an index grows through many tables keeps the one that it found, as it was; then all goes. */
static void a_table_stays_as_long_as_somebody_reads_it(void **state)
{
    (void)state;
    struct scene *scene = scene_create();
    uint64_t more = 100000, found = 0;
    for (uint64_t i = FIRST; i < more; i++)
        index_put(&scene->index, number_hash(LAST + i), number_word(LAST + i));
    index_sweep(&scene->index);
    struct epoch_reader *reader = epoch_enter();
    const struct table *table = index_table(&scene->index);
    size_t slots = index_slots(&scene->index);
    assert_null(atomic_load(&table->next));
    pthread_t writer;
    void *wrong = NULL;
    assert_int_equal(pthread_create(&writer, NULL, grow, scene), 0);
    pthread_join(writer, &wrong);
    assert_null(wrong);
    assert_ptr_not_equal(index_table(&scene->index), table);
    for (size_t i = 0; i < slots; i++)
        found += atomic_load(&table->slots[i].word) != WORD_NONE;
    assert_true(found >= more);
    size_t with_old = scene->index.bytes, old = table->bytes;
    assert_true(with_old > old + index_table(&scene->index)->bytes);
    epoch_leave(reader);
    index_sweep(&scene->index);
    assert_true(scene->index.bytes < with_old - old / 2);
    assert_null(scene->index.retired);
    EXPECT(scene->index.bytes <= 26 * index_used(&scene->index), "%zu bytes", scene->index.bytes);
    scene_destroy(scene);
}

/* What is given back of a table that is being moved, too, only once nobody reads who might look there. */
static void moved_slots_are_given_back_once_nobody_reads_them(void **state)
{
    (void)state;
    struct index index = index_of_numbers(200000);
    index_put(&index, number_hash(200000), number_word(200000));
    assert_int_equal(index_reserve(&index, 1 + index_slots(&index) - index_used(&index)), RD_OK);
    struct epoch_reader *reader = epoch_enter();
    const struct table *table = index_table(&index);
    uint64_t number = 200001;
    for (; atomic_load(&table->moved) < (size_t)1 << table->blocks_log2 >> 1; number++)
        index_put(&index, number_hash(number), number_word(number));
    assert_true(index_moves(&index));
    size_t found = 0, slots = (size_t)table->block_slots * atomic_load(&table->moved);
    for (size_t i = 0; i < slots; i++)
        found += atomic_load(&table->slots[i].word) != WORD_NONE;
    EXPECT(found > slots / 2, "%zu of %zu slots are still there", found, slots);
    size_t bytes = index.bytes;
    epoch_leave(reader);
    size_t moved = atomic_load(&table->moved);
    for (; atomic_load(&table->moved) < moved + 2; number++)
        index_put(&index, number_hash(number), number_word(number));
    assert_true(index.bytes < bytes);
    assert_true(table->given_back > 0);
    index_expect_numbers(&index, number);
    index_fini(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_find_all_that_is_there_while_an_index_grows),
        cmocka_unit_test(a_scan_sees_each_key_once_while_an_index_grows),
        cmocka_unit_test(a_scan_begins_again_where_the_secret_changes),
        cmocka_unit_test(a_scan_goes_on_in_a_table_that_was_fitted),
        cmocka_unit_test(flags_that_were_set_stay_with_their_words_while_these_move),
        cmocka_unit_test(a_word_with_a_last_flag_gets_no_other),
        cmocka_unit_test(a_flag_is_taken_off_every_slot_in_the_midst_of_a_move),
        cmocka_unit_test(a_table_stays_as_long_as_somebody_reads_it),
        cmocka_unit_test(moved_slots_are_given_back_once_nobody_reads_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
