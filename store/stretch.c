#include "stretch.h"
#include "guard.h"

#define SEARCH_COST_MAX ((int64_t)256 << 10) /* bytes looked at or summed to find where an entry ends */

/* The greatest offset of a stretch at which an entry holds whose payload opening checks; 0 if none is found soon. */
static uint64_t find_end(const struct recovery *recovery, const struct stretch *stretch)
{
    int64_t cost = 0;
    for (uint64_t at = stretch->top_off; at > stretch->bottom_off && at >= RD_ENTRY_MIN && cost < SEARCH_COST_MAX;
         at--, cost++) {
        struct entry entry;
        if (!is_candidate(recovery, at) || !entry_before(recovery, at, RD_ALIGNMENT, &entry) ||
            entry_payload_len(&entry) > RECOVER_CHECK_MAX)
            continue;
        if (entry_holds(recovery, at, RD_ALIGNMENT, &entry))
            return at;
        cost += (int64_t)entry_payload_len(&entry);
    }
    return 0;
}

/* R-01, one step, as long as nothing is out of the ordinary. */
static inline bool take_plain(const struct recovery *recovery, uint64_t end_off, struct entry *out_entry,
                              bool *out_verified)
{
    if (!entry_before(recovery, end_off, RD_ALIGNMENT, out_entry) || !pad_is_zero(recovery, out_entry) ||
        needs_all(recovery, out_entry, true))
        return false;
    *out_verified = entry_payload_len(out_entry) <= RECOVER_CHECK_MAX;
    return *out_verified ? range_crc(recovery, out_entry->start_off, out_entry->trailer_off) == out_entry->crc
                         : recovery_may_trust(recovery, out_entry);
}

static void walk(const struct recovery *recovery, unsigned parts_log2, struct stretch *stretch,
                 struct stretch_scratch *to)
{
    uint64_t synced_off = recovery->options->synced_off;
    uint64_t end_off = stretch->begin_off;
    struct entry entry;
    bool verified;
    memset(stretch->part_ends, 0, sizeof(stretch->part_ends));
    while (end_off > stretch->bottom_off && stretch->count < STRETCH_ENTRIES_MAX &&
           stretch->provisional_count < STRETCH_PROVISIONAL_MAX && take_plain(recovery, end_off, &entry, &verified)) {
        size_t part = index_part(&recovery->found.index, entry.key_hash, parts_log2);
        stretch->part_ends[part]++;
        to->parts[stretch->count] = (uint8_t)part;
        to->passed[stretch->count++] = (struct passed){
            .key_hash = entry.key_hash, .word = entry_word(&entry, verified), .payload_len = entry_payload_len(&entry)};
        if (!verified)
            stretch->provisional[stretch->provisional_count++] = end_off;
        if (end_off == synced_off || entry.prev_off == synced_off)
            stretch->synced_matches = true;
        stretch->oldest_off = end_off;
        end_off = entry.prev_off;
    }
    stretch->end_off = end_off;
}

/* By part, whose sizes are counted, so that each thread that fills one finds its entries together. */
static void sort(struct stretch *stretch, const struct stretch_scratch *from)
{
    size_t at[STRETCH_PARTS_MAX];
    size_t begin = 0;
    for (size_t part = 0; part < STRETCH_PARTS_MAX; part++) {
        at[part] = begin;
        begin += stretch->part_ends[part];
        stretch->part_ends[part] = begin;
    }
    for (size_t i = 0; i < stretch->count; i++)
        stretch->passed[at[from->parts[i]]++] = from->passed[i];
}

struct walk_call {
    const struct recovery *recovery;
    unsigned parts_log2;
    struct stretch *stretch;
    struct stretch_scratch *scratch;
};

static void walk_leaf(void *argument)
{
    const struct walk_call *call = argument;
    struct stretch *stretch = call->stretch;
    stretch->begin_off = stretch->known ? stretch->top_off : find_end(call->recovery, stretch);
    if (stretch->begin_off != 0)
        walk(call->recovery, call->parts_log2, stretch, call->scratch);
}

void stretch_walk(const struct recovery *recovery, unsigned parts_log2, struct stretch *stretch,
                  struct stretch_scratch *scratch)
{
    struct walk_call call = {.recovery = recovery, .parts_log2 = parts_log2, .stretch = stretch, .scratch = scratch};
    const atomic_bool *cancel = recovery->options->cancel;
    stretch->err = RD_OK;
    stretch->begin_off = stretch->end_off = 0;
    stretch->count = stretch->provisional_count = 0;
    stretch->synced_matches = false;
    if (cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed))
        stretch->err = RD_E_CANCELLED;
    else if (!guard_run(recovery->base, (size_t)recovery->len, walk_leaf, &call))
        stretch->err = RD_E_TRUNCATED;
    else
        sort(stretch, scratch);
}
