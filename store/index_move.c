/* From one table to a larger one, a block at a time, beside readers. */
#include "base.h"
#include "epoch.h"
#include "index_internal.h"
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

rd_err index_fresh_secret(uint64_t *out_secret)
{
    return getrandom(out_secret, sizeof(*out_secret), 0) == sizeof(*out_secret) ? RD_OK : RD_E_IO;
}

/* What of a table that is being filled the system has given: blocks up to where the other's are moved. */
static size_t bytes_begun(const struct table *from, const struct table *to)
{
    size_t begun = (to->bytes >> from->blocks_log2) * table_moved(from);
    size_t page = to->bytes < HUGE_MIN ? PAGE : HUGE_PAGE;
    begun = (begun + page - 1) / page * page;
    return begun < to->bytes ? begun : to->bytes;
}

void index_count_bytes(struct index *index)
{
    const struct table *table = table_now(index);
    const struct table *next = table_next(table);
    size_t bytes = table->bytes - table->given_back + (next == NULL ? 0 : bytes_begun(table, next));
    for (const struct table *retired = index->retired; retired != NULL; retired = retired->retired)
        bytes += retired->bytes - retired->given_back;
    atomic_store_explicit(&index->bytes, bytes, memory_order_relaxed);
}

void index_sweep(struct index *index)
{
    if (index->retired == NULL)
        return;
    struct table **at = &index->retired;
    while (*at != NULL) {
        struct table *retired = *at;
        if (epoch_passed(retired->retired_epoch)) {
            *at = retired->retired;
            table_destroy(retired);
        } else {
            at = &retired->retired;
        }
    }
    index_count_bytes(index);
}

static void retire(struct index *index, struct table *table)
{
    table->retired_epoch = epoch_retire();
    table->retired = index->retired;
    index->retired = table;
    index_sweep(index);
}

/* Give the system back what has been moved and nobody reads any more. */
static void give_back(struct table *table)
{
    size_t moved_bytes = table->block_slots * sizeof(struct slot) * table_moved(table) / GIVE_BACK * GIVE_BACK;
    if (table->bytes < MAP_MIN)
        return;
    if (table->giving_back > table->given_back && epoch_passed(table->giving_epoch)) {
        (void)madvise((uint8_t *)table->slots + table->given_back, table->giving_back - table->given_back,
                      MADV_DONTNEED);
        table->given_back = table->giving_back;
    }
    if (table->giving_back == table->given_back && moved_bytes > table->giving_back) {
        table->giving_back = moved_bytes;
        table->giving_epoch = epoch_retire();
    }
}

bool index_is_dropped(const struct index *index, uint64_t word)
{
    return (word & WORD_TOMBSTONE) != 0 && word_off(word) < index->settled_off;
}

/* The word, on which no reader puts a flag from now on: it would be lost. */
static uint64_t seal(const struct index *index, struct slot *slot)
{
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
    if ((word & index->last_flags) != 0)
        return word;
    return atomic_fetch_or_explicit(&slot->word, WORD_MOVED, memory_order_acq_rel) & ~WORD_MOVED;
}

/* The blocks of a new table that take over from one of the old, while they are filled: how many slots of each line are
   in use. To look at the lines themselves takes thrice as long. */
struct filling {
    struct table *table;
    size_t first_block;
    size_t block_count;
    uint32_t lines; /* a block */
    uint8_t used[FINER_MAX * BLOCK_SLOTS / LINE_SLOTS];
};

/* Returns: false where the block is full. */
static bool fill(struct filling *filling, uint64_t mixed, uint64_t hash, uint64_t word)
{
    size_t block = table_block(filling->table, mixed) - filling->first_block;
    uint8_t *used = &filling->used[block * filling->lines];
    uint32_t line = table_place(filling->table, mixed) / LINE_SLOTS;
    for (uint32_t looked = 0; used[line] == LINE_SLOTS; looked++) {
        if (looked == filling->lines)
            return false;
        line = line + 1 == filling->lines ? 0 : line + 1;
    }
    size_t at = ((filling->first_block + block) * filling->lines + line) * LINE_SLOTS + used[line]++;
    atomic_store_explicit(&filling->table->slots[at].hash, hash, memory_order_relaxed);
    atomic_store_explicit(&filling->table->slots[at].word, word, memory_order_relaxed); /* `moved` publishes it */
    return true;
}

/* Returns: false where a block of the new table is full. */
static bool move_slots(struct index *index, struct slot *slots, size_t count, struct filling *filling)
{
    uint64_t secret = filling->table->secret;
    for (size_t i = 0; i < count; i++) {
        if (atomic_load_explicit(&slots[i].word, memory_order_relaxed) == WORD_NONE)
            continue;
        uint64_t hash = atomic_load_explicit(&slots[i].hash, memory_order_relaxed);
        uint64_t word = seal(index, &slots[i]);
        if (index_is_dropped(index, word)) {
            index->used--;
            index->tombstones--;
        } else if (!fill(filling, index_mix(secret, hash), hash, word)) {
            return false;
        }
    }
    return true;
}

/* Returns: false where a block of the new table is full. */
static bool move_block(struct index *index, struct table *from, struct table *to)
{
    size_t block = table_moved(from);
    unsigned finer_log2 = to->blocks_log2 - from->blocks_log2;
    struct filling filling;
    filling.table = to;
    filling.first_block = block << finer_log2;
    filling.block_count = (size_t)1 << finer_log2;
    filling.lines = to->block_slots / LINE_SLOTS;
    memset(filling.used, 0, filling.block_count * filling.lines);
    table_populate(to, filling.first_block, filling.block_count);
    if (!move_slots(index, &from->slots[block * from->block_slots], from->block_slots, &filling))
        return false;
    atomic_store(&from->moved, block + 1);
    if (block + 1 < (size_t)1 << from->blocks_log2) {
        give_back(from);
        index_count_bytes(index);
        return true;
    }
    atomic_store(&index->table, to);
    retire(index, from);
    return true;
}

struct refill {
    struct index *index;
    struct table *into;
    size_t used, tombstones;
};

/* Every slot of `table` that `wanted` says is the one to look at. */
static bool refill_from(struct refill *refill, struct table *table, const struct table *older)
{
    for (size_t i = 0; i < table_slots(table); i++) {
        struct slot *slot = &table->slots[i];
        if (atomic_load_explicit(&slot->word, memory_order_relaxed) == WORD_NONE)
            continue;
        uint64_t hash = atomic_load_explicit(&slot->hash, memory_order_relaxed);
        size_t block = table_block(older, index_mix(older->secret, hash));
        if ((block < table_moved(older)) == (table == older))
            continue; /* it is, or counts, in the other table */
        uint64_t word = seal(refill->index, slot);
        if (index_is_dropped(refill->index, word))
            continue;
        if (!table_put(refill->into, index_mix(refill->into->secret, hash), hash, word))
            return false;
        refill->used++;
        refill->tombstones += (word & WORD_TOMBSTONE) != 0;
    }
    return true;
}

rd_err index_rebuild(struct index *index, struct shape shape, uint64_t secret)
{
    struct table *table = table_now(index);
    struct table *next = table_next(table);
    struct refill refill = {.index = index, .into = table_create(shape, secret)};
    if (refill.into == NULL)
        return RD_E_NOMEM;
    if (!refill_from(&refill, table, table) || (next != NULL && !refill_from(&refill, next, table))) {
        table_destroy(refill.into);
        return RD_E_UNAVAILABLE;
    }
    atomic_store(&index->table, refill.into);
    index->used = refill.used;
    index->tombstones = refill.tombstones;
    index->credit = 0;
    retire(index, table);
    if (next != NULL)
        retire(index, next);
    return RD_OK;
}

void index_rebuild_crowded(struct index *index)
{
    size_t wanted = slots_for(index->used + 1, LOAD_MADE);
    rd_err err = RD_E_UNAVAILABLE;
    while (err == RD_E_UNAVAILABLE) {
        uint64_t secret;
        if (index_fresh_secret(&secret) != RD_OK)
            secret = index_mix(table_now(index)->secret, wanted);
        err = index_rebuild(index, shape_of(wanted, 0), secret);
        wanted += wanted / 2;
    }
    RD_REQUIRE(err == RD_OK); /* only such hashes and the lack of memory together come here */
}

/* Move a block, which may be the last: then `from` is gone. */
static void move_next(struct index *index, struct table *from, struct table *to)
{
    if (!move_block(index, from, to))
        index_rebuild_crowded(index);
}

void index_finish_move(struct index *index)
{
    struct table *from = table_now(index);
    struct table *to = table_next(from);
    while (to != NULL) {
        move_next(index, from, to);
        from = table_now(index);
        to = table_next(from);
    }
    index->credit = 0;
}

void index_move_some(struct index *index)
{
    struct table *from = table_now(index);
    struct table *to = table_next(from);
    if (to == NULL)
        return;
    index->credit += MOVE_PACE;
    while (to != NULL && index->credit >= from->block_slots) {
        index->credit -= from->block_slots;
        move_next(index, from, to);
        from = table_now(index);
        to = table_next(from);
    }
}
