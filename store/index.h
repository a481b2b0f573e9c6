/* Hash → where its newest entry's trailer lies, and what is known of it. Open addressing, 16 bytes a slot, in blocks of
   at most 8,192 slots; a table that gets full is moved to a larger one a block at a time. One thread at a time writes;
   any number look up and flag beside it, without a lock, between epoch_enter and epoch_leave. */
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
#define WORD_MOVED       (UINT64_C(1) << 63) /* the index's own: in a larger table by now; nobody else sees it */
#define WORD_NONE        UINT64_C(0)

static inline uint64_t word_off(uint64_t word)
{
    return word & WORD_OFFSET_MASK;
}

struct slot {
    _Atomic uint64_t hash; /* set before `word` leaves WORD_NONE, and never changed */
    _Atomic uint64_t word;
};
_Static_assert(sizeof(struct slot) == 16, "four slots a cache line");

#define LINE_SLOTS  4u
#define BLOCK_SLOTS 8192u /* at most; a table of more blocks than one has half as many at least */

/* Its shape never changes. Places are ordered as mixed hashes are, so the n-th part of one table is the n-th part of
   any other: that is why blocks can be moved, and gone through, one after the other. */
struct table {
    struct slot *slots;
    uint64_t secret; /* mixed into each slot's place: nobody outside can choose keys that collide */
    size_t bytes;
    unsigned blocks_log2;
    uint32_t block_slots; /* a multiple of LINE_SLOTS */
    atomic_size_t moved;  /* what belongs into blocks below is in `next` */
    struct table *_Atomic next;
    /* the writer's */
    size_t given_back;  /* bytes of moved blocks that the system has back */
    size_t giving_back; /* and that it gets once `giving_epoch` has passed */
    uint64_t giving_epoch;
    uint64_t retired_epoch;
    struct table *retired; /* the next in the index's list */
};

struct index {
    struct table *_Atomic table; /* NULL: not made */
    atomic_size_t bytes;         /* memory in use */
    /* the writer's */
    size_t used;           /* slots that hold a hash, deleted keys included */
    size_t tombstones;     /* of these */
    size_t credit;         /* slots that are to be moved for what was inserted */
    uint64_t settled_off;  /* deleted keys below are dropped as their blocks are moved: nobody asks what they had */
    uint64_t last_flags;   /* a word that has one of these gets no other flag */
    struct table *retired; /* until their epochs have passed */
};

/* ---- The writer's. One thread at a time. ------------------------------------------------------------------------ */

RD_MUST_CHECK rd_err index_init(struct index *index);

/* Nobody reads any more. An index of zeros is fine. */
void index_fini(struct index *index);

bool index_has_room(const struct index *index, size_t more);

/* Make room for `more` further hashes, so that as many index_set can't fail. Returns: RD_OK; RD_E_NOMEM, unchanged. */
RD_MUST_CHECK rd_err index_reserve(struct index *index, size_t more);

/* The slot of `hash`; a new one has WORD_NONE, and is to get its word next, by index_exchange. Requires: room was
   reserved. The slot is good until the next call of the writer's. */
struct slot *index_claim(struct index *index, uint64_t hash);

/* Returns: the word before. */
uint64_t index_exchange(struct index *index, struct slot *slot, uint64_t word);

/* Put `word` under `hash`. Requires: room was reserved. Returns: the word before, WORD_NONE where there was none. */
uint64_t index_set(struct index *index, uint64_t hash, uint64_t word);

/* Put it only where `hash` has none. Returns: whether it was put. */
bool index_set_if_new(struct index *index, uint64_t hash, uint64_t word);

/* Slots in use, deleted keys included. */
size_t index_used(const struct index *index);

/* Give memory back that nobody reads any more. Cheap; now and then. */
void index_sweep(struct index *index);

/* Finish a move that is under way, and size the table for what is in it: at most 24 bytes a key from 100,000 up.
   Deleted keys below `settled_off` are dropped where the table is moved. Returns: RD_OK; RD_E_NOMEM, unchanged. */
RD_MUST_CHECK rd_err index_fit(struct index *index);

/* ---- Filling one from several threads, before anybody reads it -------------------------------------------------- */

/* How many parts (as a power of two) may be filled at once after the last index_reserve. It finishes a move. */
unsigned index_parts_log2(struct index *index);

/* Which part `hash` is in, of 1 << parts_log2. */
size_t index_part(const struct index *index, uint64_t hash, unsigned parts_log2);

struct index_tally {
    size_t added;
    size_t tombstones; /* of these */
};

/* index_set_if_new, one thread a part; `tally` counts what was put. Returns: RD_OK put; RD_ABSENT there was one; what
   happens in a crowded block is for index_set_if_new, from one thread: RD_E_UNAVAILABLE. */
rd_err index_add(const struct index *index, uint64_t hash, uint64_t word, struct index_tally *tally);

/* The same at a hash's place, which index_locate found a while ago, so that its line is there by now. */
struct index_place;
rd_err index_add_at(const struct index_place *place, uint64_t hash, uint64_t word, struct index_tally *tally);

/* Afterwards, what each thread has counted. */
void index_added(struct index *index, const struct index_tally *tally);

/* ---- A table's image, for a file -------------------------------------------------------------------------------- */

struct index_image {
    uint64_t secret;
    uint64_t used;
    uint32_t blocks_log2;
    uint32_t block_slots;
};

/* What is needed to make the same table again, and its slots: (block_slots << blocks_log2) of them. Finishes a move. */
const struct slot *index_image(struct index *index, struct index_image *out_image);

/* A table of that shape, without anything in it, to be filled at `*out_slots` by the caller.
   Returns: RD_OK; RD_E_INVALID no table has this shape; RD_E_NOMEM. */
RD_MUST_CHECK rd_err index_init_image(struct index *index, const struct index_image *image, struct slot **out_slots);

/* Whether what was filled in is a table that works: `image`'s count of slots is in use, each word's offset is at least
   1 and below `end_off`, no word has a flag but those in `flags`, every slot is reached from where its hash belongs,
   and no block is crowded. (A hash that is there twice has the word that is reached first.) Looks at blocks [first,
   first + count): any number of threads, each at its own. Returns: how many slots are in use there, or SIZE_MAX. */
size_t index_check_blocks(const struct index *index, size_t first, size_t count, uint64_t end_off, uint64_t flags);

/* ---- The readers' ----------------------------------------------------------------------------------------------- */

static inline uint64_t index_mix(uint64_t secret, uint64_t hash)
{
    /* the top bits of a hash are the tag (F-15) and hashes may be chosen by callers */
    uint64_t mixed = (hash ^ secret) * UINT64_C(0x9e3779b97f4a7c15);
    mixed ^= mixed >> 32;
    return mixed * UINT64_C(0xd6e8feb86659fd93);
}

static inline size_t table_block(const struct table *table, uint64_t mixed)
{
    return (size_t)(mixed >> 1 >> (63 - table->blocks_log2));
}

/* The first slot of the line in its block where a hash belongs. */
static inline uint32_t table_place(const struct table *table, uint64_t mixed)
{
    uint64_t within = (mixed << table->blocks_log2) >> 32;
    return (uint32_t)(within * (table->block_slots / LINE_SLOTS) >> 32) * LINE_SLOTS;
}

/* The table that has the block of a mixed hash. */
static inline const struct table *table_of(const struct index *index, uint64_t hash, uint64_t *out_mixed)
{
    const struct table *table = atomic_load(&index->table);
    uint64_t mixed = index_mix(table->secret, hash);
    while (table_block(table, mixed) < atomic_load(&table->moved))
        table = atomic_load(&table->next);
    *out_mixed = mixed;
    return table;
}

/* The slot that has `hash`; else the empty one where it belongs; NULL in a block that is full of others. */
static inline struct slot *table_find(const struct table *table, uint64_t mixed, uint64_t hash)
{
    struct slot *block = &table->slots[table_block(table, mixed) * table->block_slots];
    uint32_t at = table_place(table, mixed);
    for (uint32_t looked = 0; looked < table->block_slots; looked++) {
        struct slot *slot = &block[at];
        if (atomic_load_explicit(&slot->hash, memory_order_relaxed) == hash ||
            atomic_load_explicit(&slot->word, memory_order_acquire) == WORD_NONE)
            return slot;
        at = at + 1 == table->block_slots ? 0 : at + 1;
    }
    return NULL;
}

/* Where a hash is to be looked for: good for as long as the reading that found it. */
struct index_place {
    const struct table *table;
    uint64_t mixed;
};

/* Find the place, and fetch the line that index_find_at will look at first. */
static inline struct index_place index_locate(const struct index *index, uint64_t hash)
{
    struct index_place place;
    place.table = table_of(index, hash, &place.mixed);
    __builtin_prefetch(&place.table->slots[table_block(place.table, place.mixed) * place.table->block_slots +
                                           table_place(place.table, place.mixed)]);
    return place;
}

/* The word of `hash`, or WORD_NONE. */
static inline uint64_t index_find_at(struct index_place place, uint64_t hash)
{
    const struct slot *slot = table_find(place.table, place.mixed, hash);
    /* an empty slot's word is WORD_NONE, whatever its hash field says */
    return slot == NULL ? WORD_NONE : atomic_load_explicit(&slot->word, memory_order_acquire) & ~WORD_MOVED;
}

static inline uint64_t index_find(const struct index *index, uint64_t hash)
{
    struct index_place place;
    place.table = table_of(index, hash, &place.mixed);
    return index_find_at(place, hash);
}

/* Fetch the line that index_find will look at first. */
static inline void index_prefetch(const struct index *index, uint64_t hash)
{
    (void)index_locate(index, hash);
}

/* Add `flag` to the very word that was looked at; any other is left alone, as is one that has one of `last_flags`.
   Returns: whether it was added. Not, too, where the word is on its way into another table right now. */
bool index_flag(const struct index *index, uint64_t hash, uint64_t word, uint64_t flag);

/* Take `flag` off every slot that is there now. */
void index_clear_flag(const struct index *index, uint64_t flag);

/* What a slot holds: `word` is never WORD_NONE. */
struct sighting {
    uint64_t hash;
    uint64_t word;
};

/* Where one is who goes through all of an index; zeros at first. */
struct index_cursor {
    uint64_t secret;
    uint64_t mixed; /* what is mixed to less was seen */
    bool ended;
};

/**
 * Go through all that is there, a block at a time. However the index grows in between, each hash that is there all the
 * while is seen exactly once.
 * Returns: RD_OK, `*out_count` of up to BLOCK_SLOTS sightings, and `cursor->ended` once there are no more; RD_ABSENT
 * the places of all hashes were mixed anew: forget what was seen, the cursor is at the beginning again.
 */
rd_err index_scan(const struct index *index, struct index_cursor *cursor, struct sighting *out_sightings,
                  size_t *out_count);

#endif
