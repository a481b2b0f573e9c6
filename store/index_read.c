#include "index_internal.h"

bool index_flag(const struct index *index, uint64_t hash, uint64_t word, uint64_t flag)
{
    uint64_t mixed;
    if (word == WORD_NONE || (word & index->last_flags) != 0)
        return false; /* it may be moved without a seal */
    const struct table *table = table_of(index, hash, &mixed);
    struct slot *slot = table_find(table, mixed, hash);
    uint64_t expected = word;
    return slot != NULL && atomic_load_explicit(&slot->hash, memory_order_relaxed) == hash &&
           atomic_compare_exchange_strong_explicit(&slot->word, &expected, word | flag, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

void index_clear_flag(const struct index *index, uint64_t flag)
{
    /* not of what was moved: a word that is as before would take other flags there, and lose them */
    for (const struct table *table = table_now(index); table != NULL; table = table_next(table))
        table_clear_flag(table, table_moved(table), flag);
}

/* The sightings of one block from `*mixed` on, which moves to the block's end; 0 behind the last. */
static size_t scan_block(const struct table *table, uint64_t *mixed, struct sighting *out_sightings)
{
    size_t block = table_block(table, *mixed);
    const struct slot *slots = &table->slots[block * table->block_slots];
    size_t count = 0;
    for (uint32_t i = 0; i < table->block_slots; i++) {
        uint64_t word = atomic_load_explicit(&slots[i].word, memory_order_acquire) & ~WORD_MOVED;
        uint64_t hash = atomic_load_explicit(&slots[i].hash, memory_order_relaxed);
        if (word != WORD_NONE && index_mix(table->secret, hash) >= *mixed)
            out_sightings[count++] = (struct sighting){.hash = hash, .word = word};
    }
    bool last = block + 1 == (size_t)1 << table->blocks_log2;
    *mixed = last ? 0 : (uint64_t)(block + 1) << (63 - table->blocks_log2) << 1;
    return count;
}

rd_err index_scan(const struct index *index, struct index_cursor *cursor, struct sighting *out_sightings,
                  size_t *out_count)
{
    const struct table *table = atomic_load(&index->table); /* as table_of: after what epoch_enter has stored */
    if (cursor->mixed != 0 && cursor->secret != table->secret) {
        *cursor = (struct index_cursor){0};
        return RD_ABSENT;
    }
    cursor->secret = table->secret;
    while (table_block(table, cursor->mixed) < atomic_load(&table->moved))
        table = table_next(table);
    *out_count = scan_block(table, &cursor->mixed, out_sightings);
    cursor->ended = cursor->mixed == 0;
    return RD_OK;
}
