/* Hash → where its newest entry's trailer lies, and what is known of it. Open addressing, 16 bytes a slot. */
#ifndef RD_INDEX_H
#define RD_INDEX_H

#include <rdrive/error.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A slot's word: 48 bits of trailer offset (never 0: a payload lies before it) and 16 flags. 0 is an empty slot. */
#define WORD_OFFSET_MASK ((UINT64_C(1) << 48) - 1)
#define WORD_TOMBSTONE   (UINT64_C(1) << 48)
#define WORD_VERIFIED    (UINT64_C(1) << 49) /* the payload's CRC was checked since the store was opened */
#define WORD_DAMAGED     (UINT64_C(1) << 50) /* it was, and fails: the key answers RD_E_DAMAGED until rewritten */
#define WORD_NONE        UINT64_C(0)

static inline uint64_t word_off(uint64_t word)
{
    return word & WORD_OFFSET_MASK;
}

struct slot {
    uint64_t hash;
    _Atomic uint64_t word;
};

struct index {
    struct slot *slots;
    size_t capacity; /* a power of two */
    size_t used;     /* slots that hold a hash, deleted keys included */
    uint64_t secret; /* mixed into each slot's place: nobody outside can choose keys that collide */
};

/* Threads: many may find and flag at once, while nobody inserts. */
RD_MUST_CHECK rd_err index_init(struct index *index);
void index_fini(struct index *index);

bool index_has_room(const struct index *index, size_t more);

/* Make room for `more` further hashes, so that as many index_set can't fail. Returns: RD_OK; RD_E_NOMEM, unchanged. */
RD_MUST_CHECK rd_err index_reserve(struct index *index, size_t more);

/* The word of `hash`, or WORD_NONE. */
uint64_t index_find(const struct index *index, uint64_t hash);

/* Fetch the line that index_find will look at first. */
void index_prefetch(const struct index *index, uint64_t hash);

/* Put `word` under `hash`. Requires: room was reserved. Returns: the word before, WORD_NONE where there was none. */
uint64_t index_set(struct index *index, uint64_t hash, uint64_t word);

/* Put it only where `hash` has none. Returns: whether it was put. */
bool index_set_if_new(struct index *index, uint64_t hash, uint64_t word);

/* Add `flag` to the very word that was looked at; any other is left alone. Returns: whether it was added. */
bool index_flag(const struct index *index, uint64_t hash, uint64_t word, uint64_t flag);

/* Take `flag` off every slot. */
void index_clear_flag(const struct index *index, uint64_t flag);

#endif
