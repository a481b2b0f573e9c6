/* An index that is filled otherwise than a key at a time: from its image, or by several threads. */
#include "indexes.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- Its image -------------------------------------------------------------------------------------------------- */

enum { COUNT = 30000 };
static const uint64_t end_off = 64 * (COUNT + 1);

struct imaged {
    struct index index;
    struct index_image image;
    struct slot *slots;
    size_t slot_count;
};

/* A copy of `from`, made of its image. */
static struct imaged imaged_copy(struct index *from)
{
    struct imaged copy;
    memset(&copy, 0, sizeof copy);
    const struct slot *slots = index_image(from, &copy.image);
    copy.slot_count = (size_t)copy.image.block_slots << copy.image.blocks_log2;
    EXPECT(index_init_image(&copy.index, &copy.image, &copy.slots) == RD_OK, "%zu slots", copy.slot_count);
    memcpy((void *)copy.slots, (const void *)slots, copy.slot_count * sizeof *slots);
    return copy;
}

static size_t check_all(const struct imaged *copy)
{
    return index_check_blocks(&copy->index, 0, (size_t)1 << copy->image.blocks_log2, end_off,
                              WORD_VERIFIED | WORD_TOMBSTONE);
}

/* Of one that is being moved to a larger table. */
static void an_index_made_of_an_image_is_the_same(void **state)
{
    (void)state;
    struct index index = index_of_numbers(COUNT);
    assert_int_equal(index_reserve(&index, index_slots(&index)), RD_OK);
    assert_true(index_moves(&index));
    assert_true(index_flag(&index, number_hash(7), number_word(7), WORD_VERIFIED));
    struct imaged copy = imaged_copy(&index);
    assert_false(index_moves(&index));
    assert_int_equal(copy.image.used, COUNT);
    assert_int_equal(check_all(&copy), COUNT);
    size_t in_parts = 0, blocks = (size_t)1 << copy.image.blocks_log2;
    assert_true(blocks > 2);
    for (size_t block = 0; block < blocks; block += 2)
        in_parts += index_check_blocks(&copy.index, block, 2, end_off, WORD_VERIFIED);
    assert_int_equal(in_parts, COUNT);
    assert_int_equal(index_used(&copy.index), COUNT);
    assert_int_equal(copy.index.bytes, copy.slot_count * sizeof(struct slot));
    assert_int_equal(index_set(&copy.index, number_hash(7), number_word(7)), number_word(7) | WORD_VERIFIED);
    index_expect_numbers(&copy.index, COUNT);
    for (uint64_t i = COUNT; i < 4 * COUNT; i++) /* and grows as any */
        index_put(&copy.index, number_hash(i), number_word(i));
    index_expect_numbers(&copy.index, UINT64_C(4) * COUNT);
    index_fini(&copy.index);
    index_fini(&index);
}

static struct slot *slot_of(const struct imaged *copy, uint64_t number)
{
    for (size_t i = 0; i < copy->slot_count; i++)
        if (copy->slots[i].word == number_word(number) && copy->slots[i].hash == number_hash(number))
            return &copy->slots[i];
    EXPECT(false, "%" PRIu64 " is nowhere", number);
}

/* The slot where a block begins that isn't the one of `slot`. */
static struct slot *slot_elsewhere(const struct imaged *copy, const struct slot *slot)
{
    size_t other = (size_t)(slot - copy->slots) / copy->image.block_slots == 0 ? 1 : 0;
    return &copy->slots[other * copy->image.block_slots];
}

/* An empty one of the same block, behind another empty one, so that no look-up comes there. */
static struct slot *slot_unreachable(const struct imaged *copy, const struct slot *slot)
{
    size_t first = (size_t)(slot - copy->slots) / copy->image.block_slots * copy->image.block_slots;
    uint32_t place = table_place(index_table(&copy->index), index_mix(copy->image.secret, slot->hash));
    size_t empty = 0;
    for (uint32_t i = 0; i < copy->image.block_slots; i++) {
        struct slot *at = &copy->slots[first + (place + i) % copy->image.block_slots];
        empty += at->word == WORD_NONE;
        if (empty == 2)
            return at;
    }
    EXPECT(false, "no two empty slots in a block");
}

static void spoil_no_offset(const struct imaged *copy, struct slot *slot)
{
    (void)copy;
    slot->word = WORD_VERIFIED;
}

static void spoil_offset_of_the_end(const struct imaged *copy, struct slot *slot)
{
    (void)copy;
    slot->word = end_off;
}

static void spoil_flag(const struct imaged *copy, struct slot *slot)
{
    (void)copy;
    slot->word |= WORD_DAMAGED;
}

static void spoil_moved(const struct imaged *copy, struct slot *slot)
{
    (void)copy;
    slot->word |= WORD_MOVED;
}

static void spoil_block(const struct imaged *copy, struct slot *slot)
{
    struct slot *other = slot_elsewhere(copy, slot);
    uint64_t hash = other->hash;
    if (other->word == WORD_NONE)
        other->word = 1;
    other->hash = slot->hash;
    slot->hash = hash;
}

static void spoil_place(const struct imaged *copy, struct slot *slot)
{
    struct slot *other = slot_unreachable(copy, slot);
    other->hash = slot->hash;
    other->word = slot->word;
    slot->word = WORD_NONE;
}

static void spoil_by_a_double(const struct imaged *copy, struct slot *slot)
{
    struct slot *other = slot_unreachable(copy, slot);
    other->hash = slot->hash;
    other->word = 1;
}

/* All slots of a block in use, each where it is found. */
static void spoil_by_a_crowd(const struct imaged *copy, struct slot *slot)
{
    (void)slot;
    for (uint64_t i = 0; i < copy->image.block_slots; i++) {
        uint64_t mixed = i / LINE_SLOTS * LINE_SLOTS;
        uint64_t step = (UINT64_C(1) << 32) / copy->image.block_slots + 1;
        copy->slots[i].hash =
            hash_that_mixes_to(copy->image.secret, (mixed * step << (32 - copy->image.blocks_log2)) + i % LINE_SLOTS);
        copy->slots[i].word = 1 + i;
    }
}

static void an_image_with_one_bad_slot_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*spoil)(const struct imaged *copy, struct slot *slot);
    } kinds[] = {{"no offset", spoil_no_offset},  {"an offset of the end", spoil_offset_of_the_end},
                 {"a flag", spoil_flag},          {"the flag of the moved", spoil_moved},
                 {"another block", spoil_block},  {"a place nobody looks at", spoil_place},
                 {"a double", spoil_by_a_double}, {"a crowd", spoil_by_a_crowd}};
    struct index index = index_of_numbers(COUNT);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const uint64_t numbers[] = {0, 1, 2, COUNT / 2, COUNT - 1};
        for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++) {
            struct imaged copy = imaged_copy(&index);
            EXPECT(check_all(&copy) == COUNT, "%s: before", kinds[k].name);
            kinds[k].spoil(&copy, slot_of(&copy, numbers[n]));
            EXPECT(check_all(&copy) == SIZE_MAX, "%s, number %" PRIu64, kinds[k].name, numbers[n]);
            index_fini(&copy.index);
        }
    }
    index_fini(&index);
}

static void an_image_of_no_shape_is_refused(void **state)
{
    (void)state;
    static const struct index_image images[] = {
        {.blocks_log2 = 33, .block_slots = 4096},
        {.blocks_log2 = 1, .block_slots = 0},
        {.blocks_log2 = 1, .block_slots = 4098},
        {.blocks_log2 = 1, .block_slots = BLOCK_SLOTS + LINE_SLOTS},
        {.blocks_log2 = 1, .block_slots = UINT32_MAX - 3},
        {.blocks_log2 = 1, .block_slots = LINE_SLOTS, .used = 2},
        {.blocks_log2 = 13, .block_slots = BLOCK_SLOTS, .used = 5},
        {.blocks_log2 = 1, .block_slots = 4096, .used = 8192},
        {.blocks_log2 = 1, .block_slots = 4096, .used = UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
        struct index index;
        struct slot *slots = NULL;
        EXPECT(index_init_image(&index, &images[i], &slots) == RD_E_INVALID && slots == NULL, "shape %zu", i);
    }
}

/* ---- Filled by several threads ---------------------------------------------------------------------------------- */

enum { THREADS = 4 };

struct filler {
    const struct index *index;
    pthread_t thread;
    size_t number;
    unsigned parts_log2;
    uint64_t count;
    struct index_tally tally;
    size_t met, wrong;
};

/* Every number of its parts, and each third a second time with another word. */
static void *fill(void *argument)
{
    struct filler *filler = argument;
    for (uint64_t i = 0; i < filler->count; i++) {
        uint64_t hash = number_hash(i);
        if (index_part(filler->index, hash, filler->parts_log2) % THREADS != filler->number)
            continue;
        uint64_t word = number_word(i) | (i % 5 == 0 ? WORD_TOMBSTONE : 0);
        filler->wrong += index_add(filler->index, hash, word, &filler->tally) != RD_OK;
        if (i % 3 == 0)
            filler->wrong += index_add(filler->index, hash, 1, &filler->tally) != RD_ABSENT;
        filler->met++;
    }
    return NULL;
}

static void threads_fill_an_index_a_part_each(void **state)
{
    (void)state;
    const uint64_t count = 200000;
    struct index index = index_of_numbers(0);
    struct filler fillers[THREADS];
    size_t met = 0;
    assert_int_equal(index_reserve(&index, count), RD_OK);
    unsigned parts_log2 = index_parts_log2(&index);
    assert_true(1u << parts_log2 >= THREADS);
    for (size_t i = 0; i < THREADS; i++) {
        fillers[i] = (struct filler){.index = &index, .number = i, .parts_log2 = parts_log2, .count = count};
        assert_int_equal(pthread_create(&fillers[i].thread, NULL, fill, &fillers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(fillers[i].thread, NULL);
        assert_int_equal(fillers[i].wrong, 0);
        assert_int_equal(fillers[i].met, fillers[i].tally.added);
        met += fillers[i].met;
        index_added(&index, &fillers[i].tally);
    }
    assert_int_equal(met, count);
    assert_int_equal(index_used(&index), count);
    assert_int_equal(index.tombstones, count / 5);
    for (uint64_t i = 0; i < count; i++)
        EXPECT(index_find(&index, number_hash(i)) == (number_word(i) | (i % 5 == 0 ? WORD_TOMBSTONE : 0)), "%" PRIu64,
               i);
    index_fini(&index);
}

static void a_crowded_block_is_told_and_left_to_one_thread(void **state)
{
    (void)state;
    struct index index = index_of_numbers(0);
    struct index_tally tally = {0};
    assert_int_equal(index_reserve(&index, 20000), RD_OK);
    (void)index_parts_log2(&index);
    uint64_t secret = index_table(&index)->secret, hash = 0;
    size_t block_slots = index_table(&index)->block_slots;
    for (uint64_t i = 0; i < block_slots; i++)
        EXPECT(index_add(&index, hash_that_mixes_to(secret, i), number_word(i), &tally) == RD_OK, "%" PRIu64, i);
    hash = hash_that_mixes_to(secret, block_slots);
    assert_int_equal(index_add(&index, hash, 1, &tally), RD_E_UNAVAILABLE);
    assert_int_equal(tally.added, block_slots);
    index_added(&index, &tally);
    assert_true(index_set_if_new(&index, hash, 1));
    assert_int_equal(index_find(&index, hash), 1);
    for (uint64_t i = 0; i < block_slots; i++)
        EXPECT(index_find(&index, hash_that_mixes_to(secret, i)) == number_word(i), "%" PRIu64, i);
    index_fini(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_made_of_an_image_is_the_same),
        cmocka_unit_test(an_image_with_one_bad_slot_is_refused),
        cmocka_unit_test(an_image_of_no_shape_is_refused),
        cmocka_unit_test(threads_fill_an_index_a_part_each),
        cmocka_unit_test(a_crowded_block_is_told_and_left_to_one_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
