#include "index.h"
#include "base.h"
#include <sys/random.h>

#define CAPACITY_MIN     ((size_t)64)
#define LOAD_NUMERATOR   3 /* full at 3/4: probes stay short */
#define LOAD_DENOMINATOR 4

/* The top bits of a hash are the tag (F-15) and hashes may be chosen by callers, so they are mixed. */
static size_t place_of(const struct index *index, uint64_t hash)
{
    uint64_t mixed = (hash ^ index->secret) * UINT64_C(0x9e3779b97f4a7c15);
    mixed ^= mixed >> 32;
    mixed *= UINT64_C(0xd6e8feb86659fd93);
    return (size_t)(mixed >> 20) & (index->capacity - 1);
}

static uint64_t load_word(const struct slot *slot)
{
    return atomic_load_explicit(&slot->word, memory_order_relaxed);
}

/* The slot of `hash`, or the empty one where it belongs. There always is one: the table is never full. */
static struct slot *slot_of(const struct index *index, uint64_t hash)
{
    size_t mask = index->capacity - 1;
    for (size_t at = place_of(index, hash);; at = (at + 1) & mask) {
        struct slot *slot = &index->slots[at];
        if (slot->hash == hash || load_word(slot) == WORD_NONE)
            return slot;
    }
}

rd_err index_init(struct index *index)
{
    uint64_t secret;
    if (getrandom(&secret, sizeof(secret), 0) != sizeof(secret))
        return RD_E_IO;
    struct slot *slots = calloc(CAPACITY_MIN, sizeof(*slots));
    if (slots == NULL)
        return RD_E_NOMEM;
    *index = (struct index){.slots = slots, .capacity = CAPACITY_MIN, .secret = secret};
    return RD_OK;
}

void index_fini(struct index *index)
{
    free(index->slots);
    *index = (struct index){0};
}

static size_t slots_allowed(size_t capacity)
{
    return capacity / LOAD_DENOMINATOR * LOAD_NUMERATOR;
}

bool index_has_room(const struct index *index, size_t more)
{
    return more <= slots_allowed(index->capacity) - index->used;
}

rd_err index_reserve(struct index *index, size_t more)
{
    if (more > SIZE_MAX / 64 || index->used > SIZE_MAX / 64)
        return RD_E_NOMEM;
    size_t capacity = index->capacity;
    while (slots_allowed(capacity) < index->used + more)
        capacity *= 2;
    if (capacity == index->capacity)
        return RD_OK;
    struct slot *slots = calloc(capacity, sizeof(*slots));
    if (slots == NULL)
        return RD_E_NOMEM;
    struct index grown = {.slots = slots, .capacity = capacity, .used = index->used, .secret = index->secret};
    for (size_t i = 0; i < index->capacity; i++) {
        uint64_t word = load_word(&index->slots[i]);
        if (word == WORD_NONE)
            continue;
        struct slot *slot = slot_of(&grown, index->slots[i].hash);
        slot->hash = index->slots[i].hash;
        atomic_init(&slot->word, word);
    }
    free(index->slots);
    *index = grown;
    return RD_OK;
}

uint64_t index_find(const struct index *index, uint64_t hash)
{
    const struct slot *slot = slot_of(index, hash);
    return load_word(slot); /* an empty slot's word is WORD_NONE, whatever its hash field says */
}

void index_prefetch(const struct index *index, uint64_t hash)
{
    __builtin_prefetch(&index->slots[place_of(index, hash)]);
}

uint64_t index_set(struct index *index, uint64_t hash, uint64_t word)
{
    struct slot *slot = slot_of(index, hash);
    uint64_t before = load_word(slot);
    if (before == WORD_NONE) {
        RD_REQUIRE(index->used < slots_allowed(index->capacity));
        index->used++;
        slot->hash = hash;
    }
    atomic_store_explicit(&slot->word, word, memory_order_relaxed);
    return before;
}

bool index_set_if_new(struct index *index, uint64_t hash, uint64_t word)
{
    if (index_find(index, hash) != WORD_NONE)
        return false;
    index_set(index, hash, word);
    return true;
}

bool index_flag(const struct index *index, uint64_t hash, uint64_t word, uint64_t flag)
{
    struct slot *slot = slot_of(index, hash);
    uint64_t expected = word;
    return atomic_compare_exchange_strong_explicit(&slot->word, &expected, word | flag, memory_order_relaxed,
                                                   memory_order_relaxed);
}

void index_clear_flag(const struct index *index, uint64_t flag)
{
    for (size_t i = 0; i < index->capacity; i++)
        if ((load_word(&index->slots[i]) & flag) != 0)
            atomic_fetch_and_explicit(&index->slots[i].word, ~flag, memory_order_relaxed);
}
