/* Reclamation: what was taken away is nobody's once all have left who began before, and not a moment earlier. */
#include "parked.h"

#include "support.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void nothing_passes_as_long_as_somebody_reads_who_began_before(void **state)
{
    (void)state;
    struct parked first, second;
    assert_true(epoch_passed(epoch_retire()));
    parked_enter(&first);
    uint64_t one = epoch_retire();
    assert_false(epoch_passed(one));
    parked_enter(&second); /* began after: doesn't count */
    uint64_t two = epoch_retire();
    assert_true(two > one);
    parked_leave(&first);
    assert_true(epoch_passed(one));
    assert_false(epoch_passed(two));
    parked_leave(&second);
    assert_true(epoch_passed(two));
}

static void who_reads_again_no_longer_holds_up_what_was_before(void **state)
{
    (void)state;
    struct epoch_reader *reader = epoch_enter();
    uint64_t epoch = epoch_retire();
    assert_false(epoch_passed(epoch));
    epoch_leave(reader);
    reader = epoch_enter();
    assert_true(epoch_passed(epoch));
    assert_false(epoch_passed(epoch_retire()));
    epoch_leave(reader);
}

/* Else a child that opens a store of its own would wait for good. */
static void who_read_as_the_process_forked_holds_up_nothing_in_the_child(void **state)
{
    (void)state;
    struct parked parked;
    epoch_leave(epoch_enter());
    parked_enter(&parked);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct epoch_reader *reader = epoch_enter();
        bool held = !epoch_passed(epoch_retire());
        epoch_leave(reader);
        _exit(held && epoch_passed(epoch_retire()) ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    bool held_here = !epoch_passed(epoch_retire());
    parked_leave(&parked);
    assert_true(held_here);
    assert_int_equal(status, 0);
}

static void *wait_for(void *argument)
{
    epoch_wait(*(uint64_t *)argument);
    return (void *)(uintptr_t)epoch_passed(*(uint64_t *)argument);
}

static void waiting_ends_once_all_have_left(void **state)
{
    (void)state;
    struct parked parked[3];
    for (size_t i = 0; i < 3; i++)
        parked_enter(&parked[i]);
    uint64_t epoch = epoch_retire();
    pthread_t waiter;
    void *passed = NULL;
    assert_int_equal(pthread_create(&waiter, NULL, wait_for, &epoch), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_false(epoch_passed(epoch));
        parked_leave(&parked[i]);
    }
    pthread_join(waiter, &passed);
    assert_non_null(passed);
}

/* ---- Lines ------------------------------------------------------------------------------------------------------ */

static void threads_that_read_at_once_have_a_line_each(void **state)
{
    enum { COUNT = 70 }; /* more than a mapping has shares */
    (void)state;
    struct parked parked[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        parked_enter(&parked[i]);
    uint64_t epoch = epoch_retire();
    for (size_t i = 0; i < COUNT; i++)
        for (size_t j = 0; j < i; j++)
            EXPECT(parked[i].line != parked[j].line && parked[i].line->number != parked[j].line->number, "%zu, %zu", i,
                   j);
    for (size_t i = 0; i < COUNT; i++) {
        EXPECT(!epoch_passed(epoch), "%zu of %d still read", COUNT - i, COUNT);
        parked_leave(&parked[i]);
    }
    assert_true(epoch_passed(epoch));
}

/* Threads come and go; as many lines are made as there were threads at once. */
static void lines_of_threads_that_ended_are_used_again(void **state)
{
    (void)state;
    struct parked parked;
    unsigned highest = 0;
    parked_enter(&parked);
    const unsigned made = parked.line->number;
    parked_leave(&parked);
    for (int i = 0; i < 200; i++) {
        parked_enter(&parked);
        highest = parked.line->number > highest ? parked.line->number : highest;
        parked_leave(&parked);
    }
    EXPECT(highest <= made + 70, "%u lines", highest); /* what the others here have made is taken over */
}

/* ---- Without memory --------------------------------------------------------------------------------------------- */

static atomic_bool refusing;
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return atomic_load(&refusing) ? NULL : __real_aligned_alloc(alignment, size);
}

static void threads_without_memory_for_a_line_share_one_that_holds_up_all(void **state)
{
    enum { COUNT = 80 }; /* more than there can be lines already */
    (void)state;
    struct parked parked[COUNT];
    size_t sharing = 0;
    atomic_store(&refusing, true);
    for (size_t i = 0; i < COUNT; i++)
        parked_enter(&parked[i]);
    uint64_t epoch = epoch_retire();
    for (size_t i = 1; i < COUNT; i++)
        sharing += parked[i].line == parked[COUNT - 1].line;
    assert_true(sharing > 1);
    for (size_t i = 0; i < COUNT; i++) {
        assert_false(epoch_passed(epoch));
        parked_leave(&parked[i]);
    }
    assert_true(epoch_passed(epoch));
    atomic_store(&refusing, false);
}

/* ---- At work ---------------------------------------------------------------------------------------------------- */

enum { READERS = 3, LIMBO = 255, ROUNDS = 8000 };

/* What is taken away is spoilt where others would free it, and used again. */
struct thing {
    _Atomic uint64_t number, twice; /* `twice` is two times `number` in all that may be seen */
};

struct place {
    struct thing *_Atomic now;
    atomic_bool ended;
    struct thing things[LIMBO + 1];
};

static void *look(void *argument)
{
    struct place *place = argument;
    bool wrong = false;
    while (!atomic_load(&place->ended) && !wrong) {
        struct epoch_reader *reader = epoch_enter();
        struct thing *thing = atomic_load(&place->now);
        uint64_t number = atomic_load_explicit(&thing->number, memory_order_relaxed);
        for (int i = 0; i < 20; i++) {
            wrong |= number == 0 || atomic_load_explicit(&thing->number, memory_order_relaxed) != number ||
                     atomic_load_explicit(&thing->twice, memory_order_relaxed) != 2 * number;
        }
        epoch_leave(reader);
    }
    return wrong ? "what is being read was taken away" : NULL;
}

static void what_is_read_stays_whoever_takes_it_away(void **state)
{
    (void)state;
    struct place *place = calloc(1, sizeof *place);
    uint64_t epochs[LIMBO + 1] = {0};
    pthread_t readers[READERS];
    assert_non_null(place);
    place->things[1].number = 1;
    place->things[1].twice = 2;
    atomic_store(&place->now, &place->things[1]);
    for (size_t i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, look, place), 0);
    for (uint64_t round = 2; round < ROUNDS; round++) {
        size_t at = round % (LIMBO + 1), before = (round - 1) % (LIMBO + 1);
        epoch_wait(epochs[at]); /* nobody's since it was taken away */
        struct thing *thing = &place->things[at];
        atomic_store_explicit(&thing->number, 0, memory_order_relaxed);
        atomic_store_explicit(&thing->twice, 2 * round, memory_order_relaxed);
        atomic_store_explicit(&thing->number, round, memory_order_relaxed);
        atomic_store(&place->now, thing);
        epochs[before] = epoch_retire();
    }
    atomic_store(&place->ended, true);
    for (size_t i = 0; i < READERS; i++) {
        void *wrong = NULL;
        pthread_join(readers[i], &wrong);
        EXPECT(wrong == NULL, "%s", (const char *)wrong);
    }
    free(place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_passes_as_long_as_somebody_reads_who_began_before),
        cmocka_unit_test(who_reads_again_no_longer_holds_up_what_was_before),
        cmocka_unit_test(who_read_as_the_process_forked_holds_up_nothing_in_the_child),
        cmocka_unit_test(waiting_ends_once_all_have_left),
        cmocka_unit_test(threads_that_read_at_once_have_a_line_each),
        cmocka_unit_test(lines_of_threads_that_ended_are_used_again),
        cmocka_unit_test(threads_without_memory_for_a_line_share_one_that_holds_up_all),
        cmocka_unit_test(what_is_read_stays_whoever_takes_it_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
