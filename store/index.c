#include "index.h"
#include "base.h"
#include "epoch.h"
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#define SLOTS_MIN   ((size_t)64)
#define SLOTS_MAX   ((size_t)1 << 44)
#define SLOTS_SMALL ((size_t)70000) /* up to there a table doubles: its bytes count for little */
#define MAP_MIN     ((size_t)256 << 10)
#define PAGE        ((size_t)4096)
#define HUGE_PAGE   ((size_t)2 << 20)
#define HUGE_MIN                                                                                                       \
    ((size_t)10 << 20) /* where one page more is less than two bytes a key, and the TLB covers it no longer */
#define GIVE_BACK ((size_t)64 << 10) /* at a time */

/* Percent. Full at LOAD_MAX, a table grows by GROWTH, so that it is never below two thirds (24 bytes a key); one made
   for a known number of keys is at LOAD_MADE; what was deleted counts as long as it can't be dropped, to LOAD_HELD. */
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

/* How far from their places the hashes of such a block are, on average: half as far at the fullest. */
#define DISTANCE_MAX 32u

static size_t table_slots(const struct table *table)
{
    return (size_t)table->block_slots << table->blocks_log2;
}

static size_t percent(size_t of, size_t share)
{
    return of / 100 * share + of % 100 * share / 100;
}

/* So many slots that `hashes` are `load` percent of them. */
static size_t slots_for(size_t hashes, size_t load)
{
    return hashes / load * 100 + (hashes % load * 100 + load - 1) / load;
}

/* ---- a table ---------------------------------------------------------------------------------------------------- */

struct shape {
    unsigned blocks_log2;
    uint32_t block_slots;
};

/* At least `wanted` slots in at least `1 << blocks_log2` blocks. */
static struct shape shape_of(size_t wanted, unsigned blocks_log2)
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

static struct table *table_create(struct shape shape, uint64_t secret)
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

static void table_destroy(struct table *table)
{
    if (table == NULL)
        return;
    if (table->bytes < MAP_MIN)
        free(table->slots);
    else
        munmap(table->slots, table->bytes);
    free(table);
}

/* Put a hash that isn't there into a table that nobody else writes to. Returns: false where its block is full. */
static bool table_put(struct table *table, uint64_t mixed, uint64_t hash, uint64_t word)
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

/* ---- the index -------------------------------------------------------------------------------------------------- */

static struct table *table_now(const struct index *index)
{
    return atomic_load_explicit(&index->table, memory_order_acquire);
}

static struct table *table_next(const struct table *table)
{
    return atomic_load_explicit(&table->next, memory_order_acquire);
}

static size_t table_moved(const struct table *table)
{
    return atomic_load_explicit(&table->moved, memory_order_acquire);
}

/* What of a table that is being filled the system has given: blocks up to where the other's are moved. */
static size_t bytes_begun(const struct table *from, const struct table *to)
{
    size_t begun = (to->bytes >> from->blocks_log2) * table_moved(from);
    size_t page = to->bytes < HUGE_MIN ? PAGE : HUGE_PAGE;
    begun = (begun + page - 1) / page * page;
    return begun < to->bytes ? begun : to->bytes;
}

static void count_bytes(struct index *index)
{
    const struct table *table = table_now(index);
    const struct table *next = table_next(table);
    size_t bytes = table->bytes - table->given_back + (next == NULL ? 0 : bytes_begun(table, next));
    for (const struct table *retired = index->retired; retired != NULL; retired = retired->retired)
        bytes += retired->bytes - retired->given_back;
    atomic_store_explicit(&index->bytes, bytes, memory_order_relaxed);
}

static rd_err fresh_secret(uint64_t *out_secret)
{
    return getrandom(out_secret, sizeof(*out_secret), 0) == sizeof(*out_secret) ? RD_OK : RD_E_IO;
}

rd_err index_init(struct index *index)
{
    uint64_t secret;
    RD_TRY(fresh_secret(&secret));
    struct table *table = table_create(shape_of(0, 0), secret);
    if (table == NULL)
        return RD_E_NOMEM;
    *index = (struct index){.used = 0};
    atomic_store_explicit(&index->table, table, memory_order_release);
    count_bytes(index);
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

/* ---- moving ----------------------------------------------------------------------------------------------------- */

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
    count_bytes(index);
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

/* Whether a word need not be taken along: a deleted key is as good as none. */
static bool is_dropped(const struct index *index, uint64_t word)
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

/* Have the system give the pages of a block at once, which takes it a fraction of what it takes one by one. */
static void populate(const struct table *table, size_t first_block, size_t block_count)
{
    if (table->bytes < MAP_MIN || table->bytes >= HUGE_MIN)
        return;
    size_t block_bytes = table->block_slots * sizeof(struct slot);
    size_t begin = first_block * block_bytes & ~(PAGE - 1);
    size_t end = (first_block + block_count) * block_bytes & ~(PAGE - 1);
    if (end > begin)
        (void)madvise((uint8_t *)table->slots + begin, end - begin, MADV_POPULATE_WRITE); /* or they come one by one */
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
        if (is_dropped(index, word)) {
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
    populate(to, filling.first_block, filling.block_count);
    if (!move_slots(index, &from->slots[block * from->block_slots], from->block_slots, &filling))
        return false;
    atomic_store(&from->moved, block + 1);
    if (block + 1 < (size_t)1 << from->blocks_log2) {
        give_back(from);
        count_bytes(index);
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
        if (is_dropped(refill->index, word))
            continue;
        if (!table_put(refill->into, index_mix(refill->into->secret, hash), hash, word))
            return false;
        refill->used++;
        refill->tombstones += (word & WORD_TOMBSTONE) != 0;
    }
    return true;
}

/* All of it into another table, at once. Returns: RD_OK; RD_E_NOMEM; RD_E_UNAVAILABLE a block got full. */
static rd_err rebuild(struct index *index, struct shape shape, uint64_t secret)
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

/* A block is full: hashes were chosen by somebody who knows the secret. Another one, and half as much room again. */
static void rebuild_crowded(struct index *index)
{
    size_t wanted = slots_for(index->used + 1, LOAD_MADE);
    rd_err err = RD_E_UNAVAILABLE;
    while (err == RD_E_UNAVAILABLE) {
        uint64_t secret;
        if (fresh_secret(&secret) != RD_OK)
            secret = index_mix(table_now(index)->secret, wanted);
        err = rebuild(index, shape_of(wanted, 0), secret);
        wanted += wanted / 2;
    }
    RD_REQUIRE(err == RD_OK); /* only such hashes and the lack of memory together come here */
}

/* Move a block, which may be the last: then `from` is gone. */
static void move_next(struct index *index, struct table *from, struct table *to)
{
    if (!move_block(index, from, to))
        rebuild_crowded(index);
}

static void finish_move(struct index *index)
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

/* One more hash has come: move as much as keeps the pace. */
static void move_some(struct index *index)
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
    finish_move(index);
    if (index_has_room(index, more))
        return RD_OK; /* deleted keys were dropped */
    struct table *table = table_now(index);
    struct shape shape = shape_of(grown_slots(index, table, more), table->blocks_log2);
    if (index->used == 0 || shape.blocks_log2 - table->blocks_log2 > FINER_LOG2_MAX) {
        rd_err err = rebuild(index, shape, table->secret);
        if (err == RD_E_UNAVAILABLE)
            rebuild_crowded(index);
        return err == RD_E_UNAVAILABLE ? index_reserve(index, more) : err;
    }
    struct table *next = table_create(shape, table->secret);
    if (next == NULL)
        return RD_E_NOMEM;
    atomic_store_explicit(&table->next, next, memory_order_release);
    return RD_OK;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

struct slot *index_claim(struct index *index, uint64_t hash)
{
    for (;;) {
        uint64_t mixed;
        const struct table *table = table_of(index, hash, &mixed);
        struct slot *slot = table_find(table, mixed, hash);
        if (slot == NULL) {
            rebuild_crowded(index);
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
        move_some(index);
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
        kept -= is_dropped(index, atomic_load_explicit(&table->slots[i].word, memory_order_relaxed));
    return kept;
}

static void clear_flag(const struct table *table, size_t first_block, uint64_t flag)
{
    for (size_t i = first_block * table->block_slots; i < table_slots(table); i++)
        if ((atomic_load_explicit(&table->slots[i].word, memory_order_relaxed) & flag) != 0)
            atomic_fetch_and_explicit(&table->slots[i].word, ~flag, memory_order_acq_rel);
}

rd_err index_fit(struct index *index)
{
    finish_move(index);
    const struct table *table = table_now(index);
    size_t kept = count_kept(index);
    size_t slots = table_slots(table);
    bool fits = kept <= percent(slots, LOAD_MAX) && (slots < SLOTS_SMALL || kept >= percent(slots, LOAD_LOW));
    if (fits)
        return RD_OK;
    rd_err err = rebuild(index, shape_of(slots_for(kept, LOAD_MADE), 0), table->secret);
    if (err != RD_E_UNAVAILABLE)
        return err;
    clear_flag(table, 0, WORD_MOVED); /* a crowded block: it stays as it is, and flags go on being set there */
    return RD_OK;
}

/* ---- many threads ----------------------------------------------------------------------------------------------- */

unsigned index_parts_log2(struct index *index)
{
    finish_move(index);
    return table_now(index)->blocks_log2;
}

size_t index_part(const struct index *index, uint64_t hash, unsigned parts_log2)
{
    return (size_t)(index_mix(table_now(index)->secret, hash) >> 1 >> (63 - parts_log2));
}

rd_err index_add(const struct index *index, uint64_t hash, uint64_t word, struct index_tally *tally)
{
    uint64_t mixed;
    const struct table *table = table_of(index, hash, &mixed);
    struct slot *slot = table_find(table, mixed, hash);
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

void index_added(struct index *index, const struct index_tally *tally)
{
    index->used += tally->added;
    index->tombstones += tally->tombstones;
}

/* ---- images ----------------------------------------------------------------------------------------------------- */

const struct slot *index_image(struct index *index, struct index_image *out_image)
{
    finish_move(index);
    const struct table *table = table_now(index);
    *out_image = (struct index_image){.secret = table->secret,
                                      .used = index->used,
                                      .blocks_log2 = table->blocks_log2,
                                      .block_slots = table->block_slots};
    return table->slots;
}

rd_err index_init_image(struct index *index, const struct index_image *image, struct slot **out_slots)
{
    if (image->blocks_log2 > 32 || image->block_slots < LINE_SLOTS || image->block_slots > BLOCK_SLOTS ||
        image->block_slots % LINE_SLOTS != 0 ||
        image->used > percent((size_t)image->block_slots << image->blocks_log2, LOAD_CROWDED))
        return RD_E_INVALID;
    struct shape shape = {.blocks_log2 = image->blocks_log2, .block_slots = image->block_slots};
    struct table *table = table_create(shape, image->secret);
    if (table == NULL)
        return RD_E_NOMEM;
    *index = (struct index){.used = (size_t)image->used};
    atomic_store_explicit(&index->table, table, memory_order_release);
    count_bytes(index);
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

/* ---- reading ---------------------------------------------------------------------------------------------------- */

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
        clear_flag(table, table_moved(table), flag);
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
