/* Threads that share out numbered pieces of work. */
#include "team.h"

#include "support.h"

#include <stdatomic.h>
#include <stdlib.h>

#define PIECES ((size_t)1000)
#define CALLS  2000

struct tally {
    atomic_uint pieces[PIECES];
    atomic_uint by_member[TEAM_THREADS_MAX];
    unsigned plain[PIECES]; /* not atomic: what a piece wrote is seen once the call has returned */
};

static void count_piece(void *context, size_t number, unsigned member)
{
    struct tally *tally = context;
    atomic_fetch_add(&tally->pieces[number], 1);
    atomic_fetch_add(&tally->by_member[member], 1);
    tally->plain[number]++;
}

static struct team *make_team(unsigned size)
{
    struct team *team = NULL;
    assert_int_equal(team_create(size, &team), RD_OK);
    assert_int_equal(team_size(team), size);
    return team;
}

static void each_piece_is_done_once_when_the_call_returns(void **state)
{
    (void)state;
    static struct tally tally;
    unsigned before = 0;
    for (unsigned size = 1; size <= TEAM_THREADS_MAX; size += 5) {
        struct team *team = make_team(size);
        for (size_t count = 0; count <= PIECES; count += PIECES / 4) {
            for (size_t i = 0; i < count; i++)
                tally.plain[i] = 0;
            team_run(team, count, count_piece, &tally);
            for (size_t i = 0; i < count; i++)
                EXPECT(tally.plain[i] == 1, "piece %zu of %zu, %u threads", i, count, size);
            before += (unsigned)count;
        }
        team_destroy(team);
    }
    unsigned pieces = 0, by_member = 0;
    for (size_t i = 0; i < PIECES; i++)
        pieces += atomic_load(&tally.pieces[i]);
    for (size_t i = 0; i < TEAM_THREADS_MAX; i++)
        by_member += atomic_load(&tally.by_member[i]);
    assert_int_equal(pieces, before);
    assert_int_equal(by_member, before);
}

static void calls_that_follow_each_other_closely_do_not_mix(void **state)
{
    (void)state;
    struct team *team = make_team(4);
    static struct tally tallies[2];
    for (unsigned call = 0; call < CALLS; call++) {
        struct tally *tally = &tallies[call % 2];
        size_t count = call % 7 + 1;
        team_run(team, count, count_piece, tally);
        for (size_t i = 0; i < count; i++) {
            EXPECT(tally->plain[i] == 1, "call %u, piece %zu", call, i);
            tally->plain[i] = 0;
        }
    }
    team_destroy(team);
}

static atomic_uint met;

/* Returns only once all members have a piece. */
static void meet(void *context, size_t number, unsigned member)
{
    (void)number;
    (void)member;
    const struct team *team = context;
    atomic_fetch_add(&met, 1);
    while (atomic_load(&met) < team_size(team))
        ;
}

static void pieces_are_done_at_the_same_time(void **state)
{
    (void)state;
    struct team *team = make_team(3);
    team_run(team, 3, meet, team);
    assert_int_equal(atomic_load(&met), 3);
    team_destroy(team);
}

static void a_team_that_has_done_nothing_can_be_given_up(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++)
        team_destroy(make_team(3));
    team_destroy(NULL);
    assert_in_range(team_cores(), 1, TEAM_THREADS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_piece_is_done_once_when_the_call_returns),
        cmocka_unit_test(calls_that_follow_each_other_closely_do_not_mix),
        cmocka_unit_test(pieces_are_done_at_the_same_time),
        cmocka_unit_test(a_team_that_has_done_nothing_can_be_given_up),
    };
    return cmocka_run_group_tests_name("team", tests, NULL, NULL);
}
