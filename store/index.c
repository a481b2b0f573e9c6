#include "base.h"
#include "index_internal.h"

rd_err index_init(struct index *index)
{
    uint64_t secret;
    RD_TRY(index_fresh_secret(&secret));
    struct table *table = table_create(shape_of(0, 0), secret);
    if (table == NULL)
        return RD_E_NOMEM;
    *index = (struct index){.used = 0};
    atomic_store_explicit(&index->table, table, memory_order_release);
    index_count_bytes(index);
    return RD_OK;
}

void index_fini(struct index *index)
{
    struct table *table = table_now(index);
    if (table != NULL)
        table_destroy(table_next(table));
    table_destroy(table);
    while (index->retired != NULL) {
        struct table *retired = index->retired;
        index->retired = retired->retired;
        table_destroy(retired);
    }
    *index = (struct index){.used = 0};
}

size_t index_used(const struct index *index)
{
    return index->used;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* How large a table is to be that takes over from `table`. */
static size_t grown_slots(const struct index *index, const struct table *table, size_t more)
{
    size_t need = index->used + more;
    size_t kept = need - (index->settled_off > 0 ? index->tombstones : 0);
    size_t slots = table_slots(table);
    size_t grown = slots < SLOTS_SMALL ? 2 * slots : percent(slots, GROWTH);
    size_t least = slots_for(need, LOAD_HELD);
    size_t wanted = slots_for(kept, LOAD_MADE);
    if (kept > percent(slots, LOAD_LOW) && wanted < grown)
        wanted = grown;
    return wanted > least ? wanted : least;
}

bool index_has_room(const struct index *index, size_t more)
{
    const struct table *table = table_now(index);
    const struct table *next = table_next(table);
    return more <= SLOTS_MAX && index->used + more <= percent(table_slots(next != NULL ? next : table), LOAD_MAX);
}

rd_err index_reserve(struct index *index, size_t more)
{
    if (index_has_room(index, more))
        return RD_OK;
    if (more > SLOTS_MAX || index->used > SLOTS_MAX)
        return RD_E_NOMEM;
    index_finish_move(index);
    if (index_has_room(index, more))
        return RD_OK; /* deleted keys were dropped */
    struct table *table = table_now(index);
    struct shape shape = shape_of(grown_slots(index, table, more), table->blocks_log2);
    if (index->used == 0 || shape.blocks_log2 - table->blocks_log2 > FINER_LOG2_MAX) {
        rd_err err = index_rebuild(index, shape, table->secret);
        if (err == RD_E_UNAVAILABLE)
            index_rebuild_crowded(index);
        return err == RD_E_UNAVAILABLE ? index_reserve(index, more) : err;
    }
    struct table *next = table_create(shape, table->secret);
    if (next == NULL)
        return RD_E_NOMEM;
    atomic_store_explicit(&table->next, next, memory_order_release);
    return RD_OK;
}

struct slot *index_claim(struct index *index, uint64_t hash)
{
    for (;;) {
        uint64_t mixed;
        const struct table *table = table_of(index, hash, &mixed);
        struct slot *slot = table_find(table, mixed, hash);
        if (slot == NULL) {
            index_rebuild_crowded(index);
            continue;
        }
        if (atomic_load_explicit(&slot->word, memory_order_relaxed) != WORD_NONE)
            return slot;
        RD_REQUIRE(index->used < table_slots(table)); /* room was reserved */
        atomic_store_explicit(&slot->hash, hash, memory_order_relaxed);
        return slot;
    }
}

uint64_t index_exchange(struct index *index, struct slot *slot, uint64_t word)
{
    uint64_t before = atomic_exchange_explicit(&slot->word, word, memory_order_acq_rel);
    index->tombstones += (word & WORD_TOMBSTONE) != 0;
    index->tombstones -= (before & WORD_TOMBSTONE) != 0;
    if (before == WORD_NONE) {
        index->used++;
        index_move_some(index);
    }
    return before;
}

uint64_t index_set(struct index *index, uint64_t hash, uint64_t word)
{
    return index_exchange(index, index_claim(index, hash), word);
}

bool index_set_if_new(struct index *index, uint64_t hash, uint64_t word)
{
    struct slot *slot = index_claim(index, hash);
    if (atomic_load_explicit(&slot->word, memory_order_relaxed) != WORD_NONE)
        return false;
    index_exchange(index, slot, word);
    return true;
}

/* How many hashes a move would take along. Requires: none is under way. */
static size_t count_kept(const struct index *index)
{
    const struct table *table = table_now(index);
    size_t kept = index->used;
    if (index->settled_off == 0 || index->tombstones == 0)
        return kept;
    for (size_t i = 0; i < table_slots(table); i++)
        kept -= index_is_dropped(index, atomic_load_explicit(&table->slots[i].word, memory_order_relaxed));
    return kept;
}

rd_err index_fit(struct index *index)
{
    index_finish_move(index);
    const struct table *table = table_now(index);
    size_t kept = count_kept(index);
    size_t slots = table_slots(table);
    bool fits = kept <= percent(slots, LOAD_MAX) && (slots < SLOTS_SMALL || kept >= percent(slots, LOAD_LOW));
    if (fits)
        return RD_OK;
    rd_err err = index_rebuild(index, shape_of(slots_for(kept, LOAD_MADE), 0), table->secret);
    if (err != RD_E_UNAVAILABLE)
        return err;
    table_clear_flag(table, 0, WORD_MOVED); /* a crowded block: it stays as it is, and flags go on being set there */
    return RD_OK;
}
