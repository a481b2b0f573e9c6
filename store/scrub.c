#include "scrub.h"
#include "base.h"
#include "guard.h"
#include "store_internal.h"

#define AT_ONCE_MAX 1024u /* entries looked at, and not checked, in one step */

void scrub_fini(struct scrub *scrub)
{
    layout_unref(scrub->layout);
    scrub->layout = NULL;
}

static void begin(struct scrub *scrub, struct layout *layout)
{
    scrub_fini(scrub);
    scrub->layout = layout_ref(layout);
    scrub->counted = 0;
    scrub->next = 0;
    scrub->inside = false;
    atomic_store(&scrub->bytes_done, 0);
    atomic_store(&scrub->bytes_total, 0);
}

/* Add some more entries to the total. */
static void count_some(struct scrub *scrub, const struct snapshot *snapshot)
{
    size_t until = scrub->counted + AT_ONCE_MAX;
    if (until > scrub->layout->provisional_count)
        until = scrub->layout->provisional_count;
    for (; scrub->counted < until; scrub->counted++) {
        struct entry entry;
        uint64_t trailer_off = scrub->layout->provisional[scrub->counted] - RD_TRAILER_SIZE;
        if (snapshot_entry(snapshot, trailer_off, &entry) == RD_OK)
            atomic_fetch_add(&scrub->bytes_total, entry_payload_len(&entry));
    }
}

/* The index's word for an entry of the snapshot; WORD_NONE where it is superseded, or the file is. */
static uint64_t word_of(rd_store *store, const struct snapshot *snapshot, const struct entry *entry)
{
    uint64_t word = store_word(store, snapshot, entry->key_hash);
    return word_off(word) == entry->trailer_off ? word : WORD_NONE;
}

/* Go to the next entry that nobody has checked yet, past AT_ONCE_MAX others at most. */
static void go_to_next(struct scrub *scrub, rd_store *store, const struct snapshot *snapshot)
{
    for (size_t i = 0; i < AT_ONCE_MAX && scrub->next < scrub->layout->provisional_count && !scrub->inside; i++) {
        uint64_t trailer_off = scrub->layout->provisional[scrub->next++] - RD_TRAILER_SIZE;
        if (snapshot_entry(snapshot, trailer_off, &scrub->entry) != RD_OK)
            continue; /* the file was cut */
        if ((word_of(store, snapshot, &scrub->entry) & (WORD_VERIFIED | WORD_DAMAGED)) != 0) {
            atomic_fetch_add(&scrub->bytes_done, entry_payload_len(&scrub->entry));
            continue;
        }
        scrub->inside = true;
        scrub->at = scrub->entry.start_off;
        scrub->crc = 0;
    }
}

/* The entry's payload is through. */
static enum scrub_result judge(struct scrub *scrub, rd_store *store, const struct snapshot *snapshot)
{
    scrub->inside = false;
    if (scrub->crc != scrub->entry.crc)
        return store_was_cut(store, snapshot, entry_end(&scrub->entry)) ? SCRUB_GOES_ON : SCRUB_FAILED;
    uint64_t word = word_of(store, snapshot, &scrub->entry);
    if (word != WORD_NONE)
        store_flag(store, snapshot, scrub->entry.key_hash, word, WORD_VERIFIED);
    return SCRUB_GOES_ON;
}

static enum scrub_result check_slice(struct scrub *scrub, rd_store *store, const struct snapshot *snapshot,
                                     uint64_t slice_max, uint64_t *out_bytes)
{
    uint64_t left = scrub->entry.trailer_off - scrub->at;
    uint64_t slice = left < slice_max ? left : slice_max;
    if (!guard_crc(scrub->crc, snapshot->mapping->base + scrub->at, (size_t)slice, &scrub->crc)) {
        scrub->inside = false; /* cut: readers are told when they ask */
        return SCRUB_GOES_ON;
    }
    *out_bytes = slice;
    scrub->at += slice;
    atomic_fetch_add(&scrub->bytes_done, slice);
    return scrub->at == scrub->entry.trailer_off ? judge(scrub, store, snapshot) : SCRUB_GOES_ON;
}

enum scrub_result scrub_step(struct scrub *scrub, rd_store *store, uint64_t slice_max, uint64_t *out_bytes)
{
    struct snapshot
        snapshot; /* a pin for a step only: a file that is superseded is not held for as long as this takes */
    enum scrub_result result = SCRUB_GOES_ON;
    *out_bytes = 0;
    store_snapshot(store, &snapshot);
    if (snapshot.mapping->layout != scrub->layout)
        begin(scrub, snapshot.mapping->layout);
    size_t count = scrub->layout == NULL ? 0 : scrub->layout->provisional_count;
    if (scrub->counted < count)
        count_some(scrub, &snapshot);
    else if (!scrub->inside && scrub->next < count)
        go_to_next(scrub, store, &snapshot);
    else if (scrub->inside)
        result = check_slice(scrub, store, &snapshot, slice_max, out_bytes);
    else
        result = SCRUB_DONE;
    snapshot_release(&snapshot);
    return result;
}
