/* The index by itself, from one thread: what it finds, what it drops, and how much memory it takes. */
#include "indexes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- What it finds ---------------------------------------------------------------------------------------------- */

/* One random call, and what it must answer. `plain` has each number's word. */
static void call_one(struct index *index, uint64_t *plain, uint64_t count, struct random *random)
{
    uint64_t number = random_below(random, count);
    uint64_t hash = number_hash(number);
    uint64_t word = 1 + random_below(random, WORD_OFFSET_MASK);
    uint64_t before = plain[number];
    switch (random_below(random, 8)) {
    case 0: word |= WORD_TOMBSTONE; /* fall through */
    case 1:
    case 2:
        EXPECT(index_reserve(index, 1 + random_below(random, 50)) == RD_OK, "%" PRIu64, count);
        EXPECT(index_set(index, hash, word) == before, "%" PRIu64 " of %" PRIu64, number, count);
        plain[number] = word;
        return;
    case 3:
    case 4:
        EXPECT(index_reserve(index, 1) == RD_OK, "%" PRIu64, count);
        EXPECT(index_set_if_new(index, hash, word) == (before == WORD_NONE), "%" PRIu64 " of %" PRIu64, number, count);
        plain[number] = before == WORD_NONE ? word : before;
        return;
    case 5:
        if (before == WORD_NONE)
            return;
        EXPECT(index_flag(index, hash, before, WORD_VERIFIED), "%" PRIu64 " of %" PRIu64, number, count);
        plain[number] |= WORD_VERIFIED;
        return;
    case 6: EXPECT(!index_flag(index, hash, before ^ 1, WORD_DAMAGED), "%" PRIu64 ": another word", number); return;
    default: EXPECT(index_find(index, hash) == before, "%" PRIu64 " of %" PRIu64, number, count);
    }
}

static void finds_what_a_plain_array_has(void **state)
{
    (void)state;
    const uint64_t counts[] = {1, 2, 50, 3000, 60000, 150000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        struct random random = {.state = 20261124 + c};
        uint64_t *plain = calloc(counts[c], sizeof *plain);
        struct index index;
        size_t used = 0;
        assert_non_null(plain);
        assert_int_equal(index_init(&index), RD_OK);
        assert_int_equal(index_find(&index, 0), WORD_NONE);
        for (uint64_t i = 0; i < 2 * counts[c] + 100; i++)
            call_one(&index, plain, counts[c], &random);
        for (uint64_t i = 0; i < counts[c]; i++) {
            EXPECT(index_find(&index, number_hash(i)) == plain[i], "%" PRIu64 " of %" PRIu64, i, counts[c]);
            used += plain[i] != WORD_NONE;
        }
        assert_int_equal(index_used(&index), used);
        for (uint64_t i = 0; i < 1000; i++)
            EXPECT(index_find(&index, number_hash(counts[c] + 2 + i)) == WORD_NONE, "%" PRIu64, i);
        index_fini(&index);
        free(plain);
    }
}

static void room_that_was_reserved_is_there_whatever_its_size(void **state)
{
    (void)state;
    struct index index = index_of_numbers(0);
    uint64_t number = 0;
    for (uint64_t more = 1; more < 100000; more = 3 * more + 1) {
        assert_int_equal(index_reserve(&index, more), RD_OK);
        assert_true(index_has_room(&index, more));
        for (uint64_t end = number + more; number < end; number++)
            index_set(&index, number_hash(number), number_word(number));
    }
    index_expect_numbers(&index, number);
    struct index before = index;
    assert_int_equal(index_reserve(&index, SIZE_MAX / 2), RD_E_NOMEM);
    assert_memory_equal(&before, &index, sizeof index);
    index_fini(&index);
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

static size_t resident_of(const struct table *table)
{
    static unsigned char pages[1 << 16];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), count = table == NULL ? 0 : (table->bytes + page - 1) / page;
    size_t resident = 0;
    EXPECT(count <= sizeof pages, "a table of %zu pages", count);
    EXPECT(count == 0 || mincore(table->slots, table->bytes, pages) == 0, "mincore of %zu pages", count);
    for (size_t i = 0; i < count; i++)
        resident += (pages[i] & 1) * page;
    return resident;
}

/* What it says it takes must be what the system has given it. */
static void expect_resident(const struct index *index)
{
    const struct table *table = index_table(index);
    size_t resident = resident_of(table) + resident_of(atomic_load(&table->next));
    EXPECT(resident <= index->bytes + 65536, "%zu bytes are resident, %zu are told of", resident, index->bytes);
}

/* Kept from 100,000 keys up; below that a table doubles. */
static void takes_24_bytes_a_key_at_rest_and_26_while_it_grows(void **state)
{
    (void)state;
    struct index index = index_of_numbers(100000);
    size_t moves = 0;
    for (uint64_t used = 100001; used <= 300000; used++) {
        const struct table *before = index_table(&index);
        index_put(&index, number_hash(used), 1);
        moves += before != index_table(&index);
        EXPECT(index.bytes <= (index_moves(&index) ? 26 : 24) * used, "%zu bytes of %" PRIu64 " keys%s", index.bytes,
               used, index_moves(&index) ? ", growing" : "");
        if (used % 500 == 0)
            expect_resident(&index);
    }
    assert_in_range(moves, 3, 20); /* a quarter at a time */
    index_fini(&index);
}

static void fitting_leaves_neither_too_much_room_nor_too_little(void **state)
{
    (void)state;
    for (uint64_t count = 100000; count < 200000; count += 97000) {
        struct index index = index_of_numbers(count);
        assert_int_equal(index_reserve(&index, 2 * count), RD_OK);
        assert_int_equal(index_fit(&index), RD_OK);
        EXPECT(index.bytes <= 24 * count, "%zu bytes of %" PRIu64 " keys", index.bytes, count);
        index_expect_numbers(&index, count);
        index_put(&index, number_hash(count), number_word(count));
        index_expect_numbers(&index, count + 1);
        index_fini(&index);
    }
}

/* ---- Deleted keys ----------------------------------------------------------------------------------------------- */

enum { DELETED = 20000 };

/* All of DELETED numbers deleted; by half of what they say below `settled_off`. */
static struct index index_of_deleted(uint64_t settled_off)
{
    struct index index = index_of_numbers(DELETED);
    for (uint64_t i = 0; i < DELETED; i++)
        index_set(&index, number_hash(i), number_word(i) | WORD_TOMBSTONE);
    index.settled_off = settled_off;
    return index;
}

static void expect_deleted(const struct index *index, uint64_t from)
{
    for (uint64_t i = 0; i < DELETED; i++) {
        uint64_t want = i < from ? WORD_NONE : number_word(i) | WORD_TOMBSTONE;
        EXPECT(index_find(index, number_hash(i)) == want, "%" PRIu64 " where those from %" PRIu64 " on stay", i, from);
    }
    assert_int_equal(index_used(index), DELETED - from);
    assert_int_equal(index->tombstones, DELETED - from);
}

static void deleted_keys_are_dropped_below_what_is_settled_and_nowhere_else(void **state)
{
    (void)state;
    const uint64_t settled[] = {0, 1, DELETED / 3, DELETED};
    for (size_t s = 0; s < sizeof settled / sizeof *settled; s++) {
        uint64_t settled_off = settled[s] == 0 ? 0 : number_word(settled[s]);
        struct index moved = index_of_deleted(settled_off);
        assert_int_equal(index_reserve(&moved, 100000), RD_OK);
        (void)index_parts_log2(&moved); /* finishes the move */
        expect_deleted(&moved, settled[s]);
        index_fini(&moved);
        struct index fitted = index_of_deleted(0);
        assert_int_equal(index_reserve(&fitted, 100000), RD_OK);
        (void)index_parts_log2(&fitted);
        fitted.settled_off = settled_off;
        assert_int_equal(index_fit(&fitted), RD_OK);
        expect_deleted(&fitted, settled[s]);
        index_fini(&fitted);
    }
}

/* `live` keys at a time: each step the oldest is deleted and a new one comes. All is settled at once. */
static size_t most_bytes_of_churn(uint64_t live, uint64_t steps)
{
    struct index index = index_of_numbers(live);
    size_t most = 0;
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t off = 1 + live + 2 * i;
        index_put(&index, number_hash(i), off | WORD_TOMBSTONE);
        index_put(&index, number_hash(live + i), off + 1);
        index.settled_off = off + 2;
        if (i > live && index.bytes > most)
            most = index.bytes;
    }
    for (uint64_t i = steps; i < steps + live; i++)
        EXPECT((index_find(&index, number_hash(i)) & WORD_TOMBSTONE) == 0, "%" PRIu64, i);
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t word = index_find(&index, number_hash(i));
        EXPECT(word == WORD_NONE || (word & WORD_TOMBSTONE) != 0, "%" PRIu64 " is back", i);
    }
    index_fini(&index);
    return most;
}

static void keys_that_come_and_go_take_no_more_than_so_much(void **state)
{
    (void)state;
    assert_in_range(most_bytes_of_churn(1, 20000), 1, 4096);
    assert_in_range(most_bytes_of_churn(1000, 100000), 1, 100000);
    size_t most = most_bytes_of_churn(100000, 250000);
    EXPECT(most <= 3200000, "%zu bytes for 100000 live keys", most);
}

/* ---- Hashes chosen with malice ---------------------------------------------------------------------------------- */

/* The n-th of those that the table of now would put at the beginning of its first block. */
static uint64_t chosen_hash(uint64_t secret, uint64_t n)
{
    return hash_that_mixes_to(secret, n);
}

static void expect_chosen(const struct index *index, const uint64_t *hashes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        EXPECT(index_find(index, hashes[i]) == number_word(i), "chosen hash %zu", i);
}

enum { CHOSEN = 24000 };

/* Thrice, each time with the secret of then. Between two of them is a move, or not. */
static void hashes_chosen_for_one_block_are_kept_under_a_new_secret(void **state)
{
    (void)state;
    static uint64_t hashes[CHOSEN];
    const uint64_t others[] = {16000, 40000, 52000}; /* the last: while the table is being moved */
    for (size_t o = 0; o < sizeof others / sizeof *others; o++) {
        struct index index = index_of_numbers(others[o]);
        while (o == 2 && !index_moves(&index))
            assert_int_equal(index_reserve(&index, 1 + index_slots(&index) - index_used(&index)), RD_OK);
        uint64_t first_secret = index_table(&index)->secret, secret = first_secret;
        for (size_t i = 0; i < CHOSEN; i++) {
            if (i % (CHOSEN / 3) == 0)
                secret = index_table(&index)->secret;
            hashes[i] = chosen_hash(secret, i);
            index_put(&index, hashes[i], number_word(i));
        }
        assert_int_not_equal(index_table(&index)->secret, first_secret);
        assert_int_equal(index_used(&index), others[o] + CHOSEN);
        expect_chosen(&index, hashes, CHOSEN);
        index_expect_numbers(&index, others[o]);
        index_fini(&index);
    }
}

/* A block that is not crowded may be as part of a larger one. Whatever comes of that, flags can be set afterwards. */
static void fitting_hashes_chosen_for_one_block_leaves_them_as_they_were(void **state)
{
    (void)state;
    enum { COUNT = 4000, OTHERS = 20000 };
    static uint64_t hashes[COUNT];
    struct index index = index_of_numbers(OTHERS);
    assert_int_equal(index_reserve(&index, 60000), RD_OK);
    (void)index_parts_log2(&index);
    for (uint64_t i = 0; i < COUNT; i++) {
        hashes[i] = chosen_hash(index_table(&index)->secret, i);
        index_put(&index, hashes[i], number_word(i));
    }
    assert_true(index_slots(&index) > 3 * index_used(&index));
    assert_int_equal(index_fit(&index), RD_OK);
    expect_chosen(&index, hashes, COUNT);
    index_expect_numbers(&index, OTHERS);
    for (uint64_t i = 0; i < COUNT; i++)
        EXPECT(index_flag(&index, hashes[i], number_word(i), WORD_VERIFIED), "chosen hash %" PRIu64, i);
    for (uint64_t i = 0; i < OTHERS; i++)
        EXPECT(index_set(&index, number_hash(i), 1) == number_word(i), "%" PRIu64, i);
    index_fini(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_a_plain_array_has),
        cmocka_unit_test(room_that_was_reserved_is_there_whatever_its_size),
        cmocka_unit_test(takes_24_bytes_a_key_at_rest_and_26_while_it_grows),
        cmocka_unit_test(fitting_leaves_neither_too_much_room_nor_too_little),
        cmocka_unit_test(deleted_keys_are_dropped_below_what_is_settled_and_nowhere_else),
        cmocka_unit_test(keys_that_come_and_go_take_no_more_than_so_much),
        cmocka_unit_test(hashes_chosen_for_one_block_are_kept_under_a_new_secret),
        cmocka_unit_test(fitting_hashes_chosen_for_one_block_leaves_them_as_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
