#include "base.h"
#include "index_internal.h"
#include <string.h>
#include <sys/mman.h>

struct shape shape_of(size_t wanted, unsigned blocks_log2)
{
    while (wanted >> blocks_log2 > BLOCK_SLOTS - LINE_SLOTS)
        blocks_log2++;
    size_t block_slots = (wanted >> blocks_log2) + 1;
    if (block_slots < SLOTS_MIN)
        block_slots = SLOTS_MIN;
    block_slots = (block_slots + LINE_SLOTS - 1) / LINE_SLOTS * LINE_SLOTS;
    return (struct shape){.blocks_log2 = blocks_log2, .block_slots = (uint32_t)block_slots};
}

/* Zeroed, aligned to a cache line, or to a huge page where those pay. */
static void *map_slots(size_t bytes)
{
    if (bytes < MAP_MIN) {
        void *small = aligned_alloc(64, (bytes + 63) / 64 * 64);
        return small == NULL ? NULL : memset(small, 0, bytes);
    }
    size_t spare = bytes >= HUGE_MIN ? HUGE_PAGE : 0;
    uint8_t *mapped =
        mmap(NULL, bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return NULL;
    if (spare == 0)
        return mapped;
    size_t before = (size_t)(-(uintptr_t)mapped) & (HUGE_PAGE - 1);
    if (before > 0)
        munmap(mapped, before);
    size_t page_end = (bytes + PAGE - 1) & ~(PAGE - 1);
    if (spare > before && bytes + spare > before + page_end)
        munmap(mapped + before + page_end, bytes + spare - before - page_end);
    (void)madvise(mapped + before, bytes, MADV_HUGEPAGE); /* without it, it is slower */
    return mapped + before;
}

struct table *table_create(struct shape shape, uint64_t secret)
{
    struct table *table = calloc(1, sizeof(*table));
    if (table == NULL)
        return NULL;
    table->secret = secret;
    table->blocks_log2 = shape.blocks_log2;
    table->block_slots = shape.block_slots;
    table->bytes = table_slots(table) * sizeof(struct slot);
    table->slots = map_slots(table->bytes);
    if (table->slots == NULL) {
        free(table);
        return NULL;
    }
    return table;
}

void table_destroy(struct table *table)
{
    if (table == NULL)
        return;
    if (table->bytes < MAP_MIN)
        free(table->slots);
    else
        munmap(table->slots, table->bytes);
    free(table);
}

bool table_put(struct table *table, uint64_t mixed, uint64_t hash, uint64_t word)
{
    struct slot *block = &table->slots[table_block(table, mixed) * table->block_slots];
    struct slot *end = block + table->block_slots;
    struct slot *slot = block + table_place(table, mixed);
    for (uint32_t looked = 0; looked < table->block_slots; looked++) {
        if (atomic_load_explicit(&slot->word, memory_order_relaxed) == WORD_NONE) {
            atomic_store_explicit(&slot->hash, hash, memory_order_relaxed);
            atomic_store_explicit(&slot->word, word, memory_order_release);
            return true;
        }
        slot = slot + 1 == end ? block : slot + 1;
    }
    return false;
}

void table_populate(const struct table *table, size_t first_block, size_t block_count)
{
    if (table->bytes < MAP_MIN || table->bytes >= HUGE_MIN)
        return;
    size_t block_bytes = table->block_slots * sizeof(struct slot);
    size_t begin = first_block * block_bytes & ~(PAGE - 1);
    size_t end = (first_block + block_count) * block_bytes & ~(PAGE - 1);
    if (end > begin)
        (void)madvise((uint8_t *)table->slots + begin, end - begin, MADV_POPULATE_WRITE); /* or they come one by one */
}

void table_clear_flag(const struct table *table, size_t first_block, uint64_t flag)
{
    for (size_t i = first_block * table->block_slots; i < table_slots(table); i++)
        if ((atomic_load_explicit(&table->slots[i].word, memory_order_relaxed) & flag) != 0)
            atomic_fetch_and_explicit(&table->slots[i].word, ~flag, memory_order_acq_rel);
}
