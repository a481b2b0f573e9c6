#include "indexes.h"

#include "epoch.h"

#include <inttypes.h>

uint64_t number_hash(uint64_t number)
{
    if (number < 2)
        return number == 0 ? 0 : UINT64_MAX;
    uint64_t mixed = number * UINT64_C(0xbf58476d1ce4e5b9); /* odd: no two numbers have one */
    mixed ^= mixed >> 29;
    return mixed * UINT64_C(0x94d049bb133111eb);
}

uint64_t random_below(struct random *random, uint64_t end)
{
    random->state ^= random->state << 13;
    random->state ^= random->state >> 7;
    random->state ^= random->state << 17;
    return random->state % end;
}

static uint64_t inverse_of(uint64_t odd)
{
    uint64_t inverse = odd;
    for (int i = 0; i < 6; i++)
        inverse *= 2 - odd * inverse;
    return inverse;
}

uint64_t hash_that_mixes_to(uint64_t secret, uint64_t mixed)
{
    uint64_t hash = mixed * inverse_of(UINT64_C(0xd6e8feb86659fd93));
    hash ^= hash >> 32;
    hash = (hash * inverse_of(UINT64_C(0x9e3779b97f4a7c15))) ^ secret;
    EXPECT(index_mix(secret, hash) == mixed, "index_mix is not what this undoes: %" PRIx64, mixed);
    return hash;
}

struct table *index_table(const struct index *index)
{
    return atomic_load(&index->table);
}

bool index_moves(const struct index *index)
{
    return atomic_load(&index_table(index)->next) != NULL;
}

size_t index_slots(const struct index *index)
{
    const struct table *table = index_table(index);
    return (size_t)table->block_slots << table->blocks_log2;
}

void index_put(struct index *index, uint64_t hash, uint64_t word)
{
    EXPECT(index_reserve(index, 1) == RD_OK, "%zu slots in use", index_used(index));
    index_set(index, hash, word);
}

uint64_t number_word(uint64_t number)
{
    return 64 * (number + 1);
}

struct index index_of_numbers(uint64_t count)
{
    struct index index;
    EXPECT(index_init(&index) == RD_OK, "no index");
    for (uint64_t i = 0; i < count; i++)
        index_put(&index, number_hash(i), number_word(i));
    return index;
}

void index_expect_numbers(const struct index *index, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        EXPECT(index_find(index, number_hash(i)) == number_word(i), "%" PRIu64 " of %" PRIu64, i, count);
    for (uint64_t i = count; i < 2 * count; i++)
        EXPECT(index_find(index, number_hash(i)) == WORD_NONE, "%" PRIu64 ", which is not there", i);
}
