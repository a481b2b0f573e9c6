/* What the modules of the index share: its tables (index_table.c), their moving (index_move.c), its writer (index.c),
   its images (index_image.c) and its readers (index_read.c). */
#ifndef RD_INDEX_INTERNAL_H
#define RD_INDEX_INTERNAL_H

#include "index.h"

#define SLOTS_MIN   ((size_t)64)
#define SLOTS_MAX   ((size_t)1 << 44)
#define SLOTS_SMALL ((size_t)70000) /* up to there a table doubles: its bytes count for little */
#define MAP_MIN     ((size_t)256 << 10)
#define PAGE        ((size_t)4096)
#define HUGE_PAGE   ((size_t)2 << 20)
#define HUGE_MIN    ((size_t)10 << 20) /* one page more is less than two bytes a key there; the TLB needs it */
#define GIVE_BACK   ((size_t)64 << 10) /* at a time */

/* Percent. Full at LOAD_MAX, a table grows by GROWTH, so that it is never below two thirds (24 bytes a key); one made
   for a known number of keys is at LOAD_MADE; what was deleted counts as long as it can't be dropped, to LOAD_HELD,
   which is above LOAD_MAX: or a table of keys that come and go would grow with each move. */
#define LOAD_MAX  88u
#define GROWTH    132u
#define LOAD_MADE 76u
#define LOAD_LOW  68u
#define LOAD_HELD 90u

/* Slots moved for each hash that is added while a table is being moved. From LOAD_MAX on that ends it after 3 % more
   keys; until then the blocks to come get no fuller than 91 % on average, and full at 6 standard deviations. */
#define MOVE_PACE 38u

/* A block is moved into that many at most; where a table becomes that much larger, it is built anew at once. */
#define FINER_LOG2_MAX 2u
#define FINER_MAX      (1u << FINER_LOG2_MAX)

/* No block is fuller than that but by bad luck or ill will: a table of its own secret has none. Percent. */
#define LOAD_CROWDED 97u

/* An image is made of a table that was fitted, so at LOAD_LOW at least, unless memory was refused for that. Percent. */
#define LOAD_IMAGE_LEAST 20u

/* How far from their places the hashes of such a block are, on average: half as far at the fullest. */
#define DISTANCE_MAX 32u

static inline size_t table_slots(const struct table *table)
{
    return (size_t)table->block_slots << table->blocks_log2;
}

static inline size_t percent(size_t of, size_t share)
{
    return of / 100 * share + of % 100 * share / 100;
}

/* So many slots that `hashes` are `load` percent of them. */
static inline size_t slots_for(size_t hashes, size_t load)
{
    return hashes / load * 100 + (hashes % load * 100 + load - 1) / load;
}

static inline struct table *table_now(const struct index *index)
{
    return atomic_load_explicit(&index->table, memory_order_acquire);
}

static inline struct table *table_next(const struct table *table)
{
    return atomic_load_explicit(&table->next, memory_order_acquire);
}

static inline size_t table_moved(const struct table *table)
{
    return atomic_load_explicit(&table->moved, memory_order_acquire);
}

/* ---- index_table.c ---- */

struct shape {
    unsigned blocks_log2;
    uint32_t block_slots;
};

/* At least `wanted` slots in at least `1 << blocks_log2` blocks. */
struct shape shape_of(size_t wanted, unsigned blocks_log2);

/* Nothing is in it. NULL: no memory. */
struct table *table_create(struct shape shape, uint64_t secret);
void table_destroy(struct table *table);

/* Put a hash that isn't there into a table that nobody else writes to. Returns: false where its block is full. */
bool table_put(struct table *table, uint64_t mixed, uint64_t hash, uint64_t word);

/* Have the system give the pages of some blocks at once, which takes it a fraction of what it takes one by one. */
void table_populate(const struct table *table, size_t first_block, size_t block_count);

/* Take `flag` off the slots from a block on. */
void table_clear_flag(const struct table *table, size_t first_block, uint64_t flag);

/* ---- index_move.c ---- */

rd_err index_fresh_secret(uint64_t *out_secret);

/* Bring `index->bytes` up to date. */
void index_count_bytes(struct index *index);

/* Whether a word need not be taken along: a deleted key is as good as none. */
bool index_is_dropped(const struct index *index, uint64_t word);

/* All of it into another table, at once. Returns: RD_OK; RD_E_NOMEM; RD_E_UNAVAILABLE a block got full: the slots of
   the old are sealed in part. */
RD_MUST_CHECK rd_err index_rebuild(struct index *index, struct shape shape, uint64_t secret);

/* A block is full: hashes were chosen by somebody who knows the secret. Another one, and half as much room again. */
void index_rebuild_crowded(struct index *index);

/* Finish a move that is under way. */
void index_finish_move(struct index *index);

/* One more hash has come: move as much as keeps the pace. */
void index_move_some(struct index *index);

#endif
