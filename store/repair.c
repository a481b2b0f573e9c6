/* Repair: what can be proven of a store, written to an empty one. */
#include "base.h"
#include "words.h"
#include <sys/stat.h>

#define BATCH_ITEMS 1024u
#define BATCH_BYTES (UINT64_C(8) << 20)

struct repair {
    rd_store *store;
    rd_store *target;
    rd_repair_note *note;
    void *arg;
    struct snapshot snapshot;
    struct numbers live;    /* trailer offsets of what is to be written */
    struct numbers damaged; /* hashes of keys whose newest entry is damaged */
    struct index older;     /* of these, what older versions were met: trailer offset, or WORD_TOMBSTONE with it */
    rd_repaired repaired;

    /* the batch on its way */
    rd_write_item items[BATCH_ITEMS];
    uint32_t crcs[BATCH_ITEMS];
    struct taken taken[BATCH_ITEMS];
    size_t count;
    uint64_t bytes;
};

static rd_err check_stores(rd_store *store, rd_store *target)
{
    rd_store_info info;
    if (store == target)
        return RD_E_INVALID;
    if (!target->options.writable)
        return RD_E_READ_ONLY;
    RD_TRY(rd_store_info_get(target, &info));
    return info.tail_off == 0 && info.unread_bytes == 0 ? RD_OK : RD_E_INVALID;
}

/* ---- what is to be written --------------------------------------------------------------------------------------- */

/* What opening left unchecked may be damaged, and its link may hide keys. */
static rd_err check_provisional(rd_store *store)
{
    struct snapshot snapshot;
    store_snapshot(store, &snapshot);
    const struct layout *layout = snapshot.mapping->layout;
    bool provisional = layout != NULL && layout->provisional_count > 0;
    snapshot_release(&snapshot);
    return provisional ? store_recover_again(store, NULL) : RD_OK;
}

/* The keys, and a snapshot that has all their entries. Returns: RD_E_UNAVAILABLE the store was swapped meanwhile. */
static rd_err gather_once(struct repair *repair)
{
    store_snapshot(repair->store, &repair->snapshot);
    uint64_t generation = repair->snapshot.mapping->generation;
    RD_TRY(words_gather(repair->store, generation, UINT64_MAX, &repair->live, &repair->damaged));
    snapshot_release(&repair->snapshot);
    store_snapshot(repair->store, &repair->snapshot);
    return repair->snapshot.mapping->generation == generation ? RD_OK : RD_E_UNAVAILABLE;
}

static rd_err gather(struct repair *repair)
{
    rd_err err;
    while ((err = gather_once(repair)) == RD_E_UNAVAILABLE) {
        snapshot_release(&repair->snapshot);
        numbers_fini(&repair->live);
        numbers_fini(&repair->damaged);
    }
    return err;
}

/* Walk down: the first whole entry of a damaged key is its newest provable version. */
static rd_err find_older(struct repair *repair)
{
    uint64_t end_off = repair->snapshot.tail_off;
    size_t left = repair->damaged.count;
    RD_TRY(index_reserve(&repair->older, repair->damaged.count));
    while (left > 0) {
        struct entry entry;
        const struct damage *damage = NULL;
        rd_err err = snapshot_walk(&repair->snapshot, &end_off, &entry, &damage);
        if (err == RD_ABSENT)
            return RD_OK;
        if (err != RD_OK)
            return err;
        if (damage != NULL || !numbers_have(&repair->damaged, entry.key_hash))
            continue;
        uint64_t word = entry.trailer_off | (entry.tombstone ? WORD_TOMBSTONE : 0);
        if (!index_set_if_new(&repair->older, entry.key_hash, word))
            continue;
        left--;
        if (!entry.tombstone)
            RD_TRY(numbers_add(&repair->live, entry.trailer_off));
    }
    return RD_OK;
}

/* ---- writing it -------------------------------------------------------------------------------------------------- */

static void give_back(struct repair *repair)
{
    for (size_t i = 0; i < repair->count; i++)
        taken_fini(&repair->taken[i]);
    repair->count = 0;
    repair->bytes = 0;
}

static rd_err write_batch(struct repair *repair)
{
    struct commit commit = {.items = repair->items, .crcs = repair->crcs, .count = repair->count};
    rd_err err = repair->count > 0 ? store_submit(repair->target, &commit, NULL) : RD_OK;
    if (err == RD_OK)
        repair->repaired.written += repair->count;
    give_back(repair);
    return err;
}

static rd_err write_entry(struct repair *repair, uint64_t trailer_off)
{
    struct entry entry;
    RD_TRY(snapshot_entry(&repair->snapshot, trailer_off, &entry));
    rd_span stored = {.data = repair->snapshot.mapping->base + entry.start_off,
                      .len = (size_t)entry_payload_len(&entry)};
    RD_TRY(take(stored, entry.crc, &repair->taken[repair->count]));
    const struct taken *taken = &repair->taken[repair->count];
    repair->items[repair->count] = (rd_write_item){.key_hash = entry.key_hash, .payload = taken->bytes};
    repair->crcs[repair->count] = taken->crc;
    repair->count++;
    repair->bytes += stored.len;
    if (repair->count < BATCH_ITEMS && repair->bytes < BATCH_BYTES)
        return RD_OK;
    return write_batch(repair);
}

static rd_err write_all(struct repair *repair)
{
    numbers_sort(&repair->live);
    for (size_t i = 0; i < repair->live.count; i++)
        RD_TRY(write_entry(repair, repair->live.at[i]));
    return write_batch(repair);
}

/* Tell of each key whose newest entry is damaged. */
static void tell(struct repair *repair)
{
    for (size_t i = 0; i < repair->damaged.count; i++) {
        uint64_t hash = repair->damaged.at[i];
        uint64_t word = repair->older.table != NULL ? index_find(&repair->older, hash) : WORD_NONE;
        bool written = word != WORD_NONE && (word & WORD_TOMBSTONE) == 0;
        repair->repaired.older += written;
        repair->repaired.left_out += !written;
        if (repair->note != NULL)
            repair->note(repair->arg, hash, written);
    }
}

static rd_err run(struct repair *repair, bool older_versions)
{
    RD_TRY(check_provisional(repair->store));
    RD_TRY(gather(repair));
    if (older_versions && repair->damaged.count > 0) {
        RD_TRY(index_init(&repair->older));
        RD_TRY(find_older(repair));
    }
    RD_TRY(write_all(repair));
    tell(repair);
    return RD_OK;
}

rd_err rd_store_repair(rd_store *store, rd_store *target, bool older_versions, rd_repair_note *note, void *arg,
                       rd_repaired *out_repaired)
{
    RD_TRY(check_stores(store, target));
    struct repair *repair = calloc(1, sizeof(*repair));
    if (repair == NULL)
        return RD_E_NOMEM;
    repair->store = store;
    repair->target = target;
    repair->note = note;
    repair->arg = arg;
    rd_err err = run(repair, older_versions);
    if (err == RD_OK)
        *out_repaired = repair->repaired;
    give_back(repair);
    numbers_fini(&repair->live);
    numbers_fini(&repair->damaged);
    index_fini(&repair->older);
    snapshot_release(&repair->snapshot);
    free(repair);
    return err;
}
