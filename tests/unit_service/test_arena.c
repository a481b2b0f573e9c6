/* A call's memory. */
#include "arena.h"
#include "message.h"

#include <stdlib.h>
#include <string.h>

#define PIECES_MAX 4000

struct piece {
    uint8_t *at;
    size_t len;
    uint8_t fill;
};

static void take(struct arena *arena, struct piece *piece, size_t len, uint8_t fill)
{
    *piece = (struct piece){.at = arena_alloc(arena, len), .len = len, .fill = fill};
    EXPECT(piece->at != NULL, "%zu bytes", len);
    EXPECT((uintptr_t)piece->at % 16 == 0, "%p", (void *)piece->at);
    memset(piece->at, fill, len);
}

static void expect_whole(const struct piece *piece)
{
    for (size_t i = 0; i < piece->len; i++)
        EXPECT(piece->at[i] == piece->fill, "byte %zu of %zu", i, piece->len);
}

static void pieces_are_aligned_and_do_not_overlap(void **state)
{
    (void)state;
    static struct piece pieces[PIECES_MAX];
    struct arena arena;
    arena_init(&arena, NULL);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct dice dice = {seed};
        size_t count = (size_t)dice_roll(&dice, PIECES_MAX);
        for (size_t i = 0; i < count; i++) {
            size_t len = (size_t)dice_roll(&dice, dice_roll(&dice, 50) == 0 ? 20000 : 100);
            take(&arena, &pieces[i], len, (uint8_t)i);
        }
        for (size_t i = 0; i < count; i++)
            expect_whole(&pieces[i]);
        arena_fini(&arena); /* and it is ready anew */
    }
}

static void every_size_around_a_limit_fits(void **state)
{
    (void)state;
    static const size_t limits[] = {16, ARENA_FIRST, ARENA_BLOCK / 2, ARENA_BLOCK, 3 * ARENA_BLOCK};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        for (size_t len = limits[i] - 16; len <= limits[i] + 17; len++) {
            struct piece before, large, after;
            struct arena arena;
            arena_init(&arena, NULL);
            take(&arena, &before, 24, 1);
            take(&arena, &large, len, 2);
            take(&arena, &after, 24, 3);
            expect_whole(&before);
            expect_whole(&large);
            expect_whole(&after);
            arena_fini(&arena);
        }
    }
}

static void most_calls_allocate_nothing(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    memory_fail_after(0);
    for (size_t i = 0; i < ARENA_FIRST / 16; i++)
        EXPECT(arena_alloc(&arena, 16) != NULL, "piece %zu", i);
    EXPECT(!memory_has_failed(), "it allocated");
    EXPECT(arena_alloc(&arena, 1) == NULL, "no memory, and yet some came");
    EXPECT(memory_has_failed(), "where did it come from");
    memory_fail_after(UINT64_MAX);
    EXPECT(arena_alloc(&arena, 1) != NULL, "there is memory again");
    arena_fini(&arena);
}

static void a_large_piece_leaves_the_current_block_in_use(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    uint8_t *first = arena_alloc(&arena, 16);
    EXPECT(arena_alloc(&arena, 100000) != NULL, "large");
    EXPECT((uint8_t *)arena_alloc(&arena, 16) == first + 16, "the rest of the first block is lost");
    arena_fini(&arena);
}

static void what_can_not_be_is_refused_and_nothing_breaks(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    arena_fini(&arena); /* nothing taken */
    arena_fini(&arena); /* twice */
    EXPECT(arena_alloc(&arena, SIZE_MAX) == NULL, "SIZE_MAX");
    EXPECT(arena_alloc(&arena, SIZE_MAX - 15) == NULL, "SIZE_MAX - 15");
    EXPECT(arena_alloc(&arena, SIZE_MAX / 2 + 1) == NULL, "SIZE_MAX / 2 + 1");
    EXPECT(arena_alloc(&arena, 0) != NULL, "no bytes are no failure");
    EXPECT(arena_alloc(&arena, 16) != NULL, "after a refusal");
    arena_fini(&arena);
}

static void beyond_its_limit_it_gives_nothing_until_the_limit_is_lifted(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, NULL);
    for (size_t limit = 0; limit < 10 * ARENA_BLOCK; limit += 1000) {
        size_t taken = 0;
        arena_limit(&arena, limit);
        while (arena_alloc(&arena, 96) != NULL)
            taken += 96;
        EXPECT(taken <= limit + ARENA_FIRST, "%zu of %zu", taken, limit);
        EXPECT(taken + ARENA_BLOCK + 96 >= limit, "only %zu of %zu", taken, limit);
        EXPECT(arena_alloc(&arena, limit + ARENA_BLOCK) == NULL, "a large piece");
        arena_limit(&arena, SIZE_MAX);
        EXPECT(arena_alloc(&arena, 2 * limit + 1) != NULL, "without a limit");
        arena_fini(&arena);
    }
    arena_limit(&arena, 0);
    arena_fini(&arena); /* the next call's begins without one */
    EXPECT(arena_alloc(&arena, 100000) != NULL, "the limit is still there");
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_and_do_not_overlap),
        cmocka_unit_test(every_size_around_a_limit_fits),
        cmocka_unit_test(most_calls_allocate_nothing),
        cmocka_unit_test(a_large_piece_leaves_the_current_block_in_use),
        cmocka_unit_test(beyond_its_limit_it_gives_nothing_until_the_limit_is_lifted),
        cmocka_unit_test(what_can_not_be_is_refused_and_nothing_breaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
