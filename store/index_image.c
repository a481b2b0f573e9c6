/* A table filled by several threads, or from a file. */
#include "base.h"
#include "index_internal.h"

unsigned index_parts_log2(struct index *index)
{
    index_finish_move(index);
    return table_now(index)->blocks_log2;
}

size_t index_part(const struct index *index, uint64_t hash, unsigned parts_log2)
{
    return (size_t)(index_mix(table_now(index)->secret, hash) >> 1 >> (63 - parts_log2));
}

/* table_find, a line at a time: where in it the slot is can't be foretold, so nothing jumps by that. */
static struct slot *find_by_line(const struct table *table, uint64_t mixed, uint64_t hash)
{
    struct slot *block = &table->slots[table_block(table, mixed) * table->block_slots];
    uint32_t at = table_place(table, mixed);
    for (uint32_t looked = 0; looked < table->block_slots; looked += LINE_SLOTS) {
        unsigned fits = 0;
        for (unsigned i = 0; i < LINE_SLOTS; i++) {
            bool same = atomic_load_explicit(&block[at + i].hash, memory_order_relaxed) == hash;
            bool empty = atomic_load_explicit(&block[at + i].word, memory_order_relaxed) == WORD_NONE;
            fits |= ((unsigned)same | (unsigned)empty) << i;
        }
        if (fits != 0)
            return &block[at + (unsigned)__builtin_ctz(fits)];
        at = at + LINE_SLOTS == table->block_slots ? 0 : at + LINE_SLOTS;
    }
    return NULL;
}

rd_err index_add_at(const struct index_place *place, uint64_t hash, uint64_t word, struct index_tally *tally)
{
    struct slot *slot = find_by_line(place->table, place->mixed, hash);
    if (slot == NULL)
        return RD_E_UNAVAILABLE;
    if (atomic_load_explicit(&slot->word, memory_order_relaxed) != WORD_NONE)
        return RD_ABSENT;
    atomic_store_explicit(&slot->hash, hash, memory_order_relaxed);
    atomic_store_explicit(&slot->word, word, memory_order_release);
    tally->added++;
    tally->tombstones += (word & WORD_TOMBSTONE) != 0;
    return RD_OK;
}

rd_err index_add(const struct index *index, uint64_t hash, uint64_t word, struct index_tally *tally)
{
    struct index_place place = index_locate(index, hash);
    return index_add_at(&place, hash, word, tally);
}

void index_added(struct index *index, const struct index_tally *tally)
{
    index->used += tally->added;
    index->tombstones += tally->tombstones;
}

/* ---- images ----------------------------------------------------------------------------------------------------- */

const struct slot *index_image(struct index *index, struct index_image *out_image)
{
    index_finish_move(index);
    const struct table *table = table_now(index);
    *out_image = (struct index_image){.secret = table->secret,
                                      .used = index->used,
                                      .blocks_log2 = table->blocks_log2,
                                      .block_slots = table->block_slots};
    return table->slots;
}

/* Neither too full to work nor, beyond a size that counts for little, so empty that it is made to take memory. */
static bool is_shape_possible(const struct index_image *image)
{
    if (image->blocks_log2 > 32 || image->block_slots < SLOTS_MIN || image->block_slots > BLOCK_SLOTS ||
        image->block_slots % LINE_SLOTS != 0)
        return false;
    size_t slots = (size_t)image->block_slots << image->blocks_log2;
    return image->used <= percent(slots, LOAD_CROWDED) &&
           (slots < SLOTS_SMALL || image->used >= percent(slots, LOAD_IMAGE_LEAST));
}

rd_err index_init_image(struct index *index, const struct index_image *image, struct slot **out_slots)
{
    if (!is_shape_possible(image))
        return RD_E_INVALID;
    struct shape shape = {.blocks_log2 = image->blocks_log2, .block_slots = image->block_slots};
    struct table *table = table_create(shape, image->secret);
    if (table == NULL)
        return RD_E_NOMEM;
    *index = (struct index){.used = (size_t)image->used};
    atomic_store_explicit(&index->table, table, memory_order_release);
    index_count_bytes(index);
    *out_slots = table->slots;
    return RD_OK;
}

/* How many slots in use stand in a row at the end of a block, which goes on at its beginning. */
static uint32_t row_at_end(const struct slot *slots, uint32_t count)
{
    uint32_t row = 0;
    while (row < count && atomic_load_explicit(&slots[count - 1 - row].word, memory_order_relaxed) != WORD_NONE)
        row++;
    return row;
}

/* How many slots of a block are in use, or SIZE_MAX. Without a branch, since half of them would be guessed wrong: a
   hash is found if all slots from its place up to it are in use. */
static size_t check_block(const struct table *table, size_t block, uint64_t end_off, uint64_t flags)
{
    const struct table as = {
        .secret = table->secret, .blocks_log2 = table->blocks_log2, .block_slots = table->block_slots};
    const struct slot *slots = &table->slots[block * as.block_slots];
    uint32_t row = row_at_end(slots, as.block_slots);
    uint64_t wrong = 0;
    uint64_t distances = 0;
    size_t used = 0;
    for (uint32_t i = 0; i < as.block_slots; i++) {
        uint64_t word = atomic_load_explicit(&slots[i].word, memory_order_relaxed);
        uint64_t mixed = index_mix(as.secret, atomic_load_explicit(&slots[i].hash, memory_order_relaxed));
        uint32_t place = table_place(&as, mixed);
        uint32_t distance = i - place + (as.block_slots & -(uint32_t)(i < place));
        uint64_t in_use = word != WORD_NONE;
        uint64_t elsewhere = (distance > row) | (table_block(&as, mixed) ^ block);
        /* a flag that isn't allowed makes an offset that is too large */
        wrong |= (elsewhere | ((word & ~flags) - 1 >= end_off - 1)) & -in_use;
        row = (row + 1) & (uint32_t)-in_use;
        distances += distance & -in_use;
        used += in_use;
    }
    bool works = wrong == 0 && used <= percent(table->block_slots, LOAD_CROWDED) &&
                 distances <= (uint64_t)DISTANCE_MAX * table->block_slots;
    return works ? used : SIZE_MAX;
}

size_t index_check_blocks(const struct index *index, size_t first, size_t count, uint64_t end_off, uint64_t flags)
{
    const struct table *table = table_now(index);
    size_t used = 0;
    for (size_t block = first; block < first + count; block++) {
        size_t more = check_block(table, block, end_off, flags);
        if (more == SIZE_MAX)
            return SIZE_MAX;
        used += more;
    }
    return used;
}
