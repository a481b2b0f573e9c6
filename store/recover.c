/* The walk from the end of a file to its start, and the index that comes of it. RECOVERY.md explains both. */
#include "base.h"
#include "crew.h"
#include "guard.h"
#include "recover_internal.h"

#define LOOK_EVERY   4096u              /* entries or candidates between two looks at the cancel flag */
#define CANCEL_BYTES ((size_t)16 << 20) /* of one payload */

void recovery_tell(const struct recovery *recovery)
{
    rd_open_progress *progress = recovery->options->progress;
    if (progress == NULL)
        return;
    atomic_store_explicit(&progress->bytes_total, recovery->len - recovery->options->floor_off, memory_order_relaxed);
    atomic_store_explicit(&progress->bytes_done, recovery->len - recovery->end_off, memory_order_relaxed);
}

rd_err recovery_step(struct recovery *recovery)
{
    const atomic_bool *cancel = recovery->options->cancel;
    if (recovery->steps++ % LOOK_EVERY != 0)
        return RD_OK;
    recovery_tell(recovery);
    if (cancel == NULL)
        return RD_OK;
    return atomic_load_explicit(cancel, memory_order_relaxed) ? RD_E_CANCELLED : RD_OK;
}

rd_err recovery_need_prefixes(struct recovery *recovery)
{
    if (recovery->prefixes.at != NULL)
        return RD_OK;
    return crc_prefixes_init(recovery->base, recovery->options->floor_off, recovery->len, recovery->options->cancel,
                             &recovery->prefixes);
}

/* Put an accepted entry into the index, unless a newer one of its key is there (F-08); a deleted key is none (E-07). */
static rd_err index_entry(struct recovered *found, const struct entry *entry, bool verified)
{
    RD_TRY(index_reserve(&found->index, 1));
    found->entries++;
    if (!index_set_if_new(&found->index, entry->key_hash, entry_word(entry, verified)) || entry->tombstone)
        return RD_OK;
    found->live_keys++;
    found->live_bytes += entry_payload_len(entry);
    found->live_stored += entry_stored_len(entry);
    return RD_OK;
}

/* a damaged entry of a known key is that key's version. What a crash tore is none. */
static rd_err index_damage(struct recovered *found, const struct damage *damage)
{
    if (!damage->has_key || damage->kind == RD_DAMAGE_LINK || damage->kind == DAMAGE_TORN)
        return RD_OK;
    RD_TRY(index_reserve(&found->index, 1));
    if (index_set_if_new(&found->index, damage->key_hash, (damage->end_off - RD_TRAILER_SIZE) | WORD_DAMAGED))
        found->damaged_keys++;
    return RD_OK;
}

rd_err recovery_take(struct recovery *recovery, const struct entry *entry, bool verified)
{
    uint64_t synced_off = recovery->options->synced_off;
    RD_TRY(index_entry(&recovery->found, entry, verified));
    if (!verified)
        RD_TRY(layout_add_provisional(recovery->found.layout, entry_end(entry)));
    if (entry->prev_off == synced_off || entry_end(entry) == synced_off)
        recovery->synced_matches = true;
    recovery->above = *entry;
    recovery->has_above = true;
    recovery->proven = true;
    recovery->end_off = entry->prev_off;
    return RD_OK;
}

rd_err recovery_note(struct recovery *recovery, const struct damage *damage)
{
    RD_TRY(layout_add(recovery->found.layout, damage));
    return index_damage(&recovery->found, damage);
}

/**
 * Whether a large entry's link may be trusted until its payload is checked: an entry ends there that holds, as far as
 * opening looks. Not 0, which any payload could follow and which lost sectors leave behind.
 */
static bool link_is_plausible(const struct recovery *recovery, uint64_t link)
{
    struct entry below;
    if (link != 0 && link == recovery->options->floor_off)
        return true;
    return entry_before(recovery, link, RD_ALIGNMENT, &below) &&
           (entry_payload_len(&below) > RECOVER_CHECK_MAX ||
            range_crc(recovery, below.start_off, below.trailer_off) == below.crc);
}

/* Whether the CRC holds of what may be most of the file. Returns: RD_OK, RD_E_CANCELLED. */
static rd_err check_payload(const struct recovery *recovery, const struct entry *entry, bool *out_holds)
{
    const atomic_bool *cancel = recovery->options->cancel;
    if (recovery->prefixes.at != NULL) {
        *out_holds = range_crc(recovery, entry->start_off, entry->trailer_off) == entry->crc;
        return RD_OK;
    }
    uint32_t crc = 0;
    for (uint64_t at = entry->start_off; at < entry->trailer_off;) {
        uint64_t left = entry->trailer_off - at;
        size_t slice = (size_t)(left < CANCEL_BYTES ? left : CANCEL_BYTES);
        crc = crc_extend(crc, recovery->base + at, slice);
        at += slice;
        if (slice == CANCEL_BYTES && cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed))
            return RD_E_CANCELLED;
    }
    *out_holds = crc == entry->crc;
    return RD_OK;
}

/* Whether a range touches one that was torn when the file was opened before: a torn link leads anywhere. */
static bool is_remembered(const struct torn_ranges *torn, uint64_t begin_off, uint64_t end_off)
{
    for (size_t i = 0; i < torn->count; i++)
        if (begin_off < torn->ranges[i].end_off && end_off > torn->ranges[i].begin_off)
            return true;
    return false;
}

bool recovery_may_trust(const struct recovery *recovery, const struct entry *entry)
{
    uint64_t synced_off = recovery->options->synced_off;
    bool doubtful = (synced_off != SYNCED_UNKNOWN && entry_end(entry) > synced_off) ||
                    is_remembered(&recovery->options->torn, entry->prev_off, entry_end(entry));
    return entry_payload_len(entry) > RECOVER_CHECK_MAX && !doubtful && recovery->proven &&
           !recovery->options->check_all && recovery->prefixes.at == NULL &&
           link_is_plausible(recovery, entry->prev_off);
}

/**
 * R-01, one step: take the entry that holds at `end_off`. The newest is checked whatever its size, so that a torn tail
 * which looks like a large entry is found out; and so is what STORE.writer doesn't promise, or says is torn, since a
 * large entry that a crash tore is to be stepped over now, and not to be damage at its first read.
 * Returns: RD_OK with `*out_held` telling whether one did; RD_E_NOMEM, RD_E_CANCELLED, RD_E_UNAVAILABLE.
 */
static rd_err take_next(struct recovery *recovery, bool *out_held)
{
    struct entry entry;
    *out_held = false;
    if (!entry_before(recovery, recovery->end_off, RD_ALIGNMENT, &entry))
        return RD_OK;
    bool padded = pad_is_zero(recovery, &entry);
    if (needs_all(recovery, &entry, padded))
        return RD_E_UNAVAILABLE;
    if (!padded)
        RD_TRY(recovery_need_prefixes(recovery));
    bool check = !recovery_may_trust(recovery, &entry);
    if (check)
        RD_TRY(check_payload(recovery, &entry, out_held));
    if (check && !*out_held)
        return RD_OK;
    *out_held = true;
    uint64_t found_off = entry.prev_off;
    if (!padded)
        RD_TRY(judge_pad(recovery, &entry, &found_off));
    RD_TRY(recovery_take(recovery, &entry, check));
    return judge_scraps(recovery, found_off);
}

/* Everything again into the index, now that ranges have been found to be torn rather than damaged. No CRC is needed. */
static rd_err index_again(struct recovery *recovery)
{
    struct recovered *found = &recovery->found;
    const struct layout *layout = found->layout;
    size_t next_damage = 0;
    size_t next_provisional = 0;
    size_t keys = index_used(&found->index);
    index_fini(&found->index);
    RD_TRY(index_init(&found->index));
    RD_TRY(index_reserve(&found->index, keys));
    found->entries = found->live_keys = found->live_bytes = found->live_stored = found->damaged_keys = 0;
    for (uint64_t end_off = found->tail_off; end_off > 0;) {
        while (next_damage < layout->damage_count && layout->damage[next_damage].end_off > end_off)
            next_damage++;
        const struct damage *damage = next_damage < layout->damage_count ? &layout->damage[next_damage] : NULL;
        if (damage != NULL && damage->end_off == end_off && damage->kind != RD_DAMAGE_LINK) {
            RD_TRY(index_damage(found, damage));
            end_off = damage->begin_off;
            continue;
        }
        struct entry entry;
        bool relinked = damage != NULL && damage->end_off == end_off;
        if (!(relinked ? entry_parse_relinked(recovery->base, end_off - RD_TRAILER_SIZE, damage->begin_off, &entry)
                       : entry_before(recovery, end_off, RD_ALIGNMENT, &entry)))
            return RD_E_TRUNCATED; /* the file changed under us */
        while (next_provisional < layout->provisional_count && layout->provisional[next_provisional] > end_off)
            next_provisional++;
        bool verified =
            next_provisional == layout->provisional_count || layout->provisional[next_provisional] != end_off;
        RD_TRY(index_entry(found, &entry, verified));
        end_off = entry.prev_off;
    }
    return RD_OK;
}

static void call_torn(struct layout *layout, struct damage *damage)
{
    layout->counts[damage->kind]--;
    layout->counts[DAMAGE_TORN]++;
    damage->kind = DAMAGE_TORN;
}

/**
 * What STORE.writer promises: above a matching `synced_off` nothing was ever known to be durable, so what doesn't hold
 * there is torn, whatever R-04 calls it, and costs no key its older version.
 */
static rd_err forgive_unsynced(struct recovery *recovery)
{
    struct recovered *found = &recovery->found;
    struct layout *layout = found->layout;
    bool changed = false;
    for (size_t i = 0; i < layout->damage_count; i++) {
        struct damage *damage = &layout->damage[i];
        if (damage->kind == RD_DAMAGE_LINK || damage->begin_off < recovery->options->synced_off)
            continue;
        call_torn(layout, damage);
        changed = true;
        if (damage->end_off == found->tail_off)
            found->tail_off = damage->begin_off;
    }
    layout_drop_above(layout, found->tail_off); /* a writer's next entry may end where a torn one would have */
    return changed ? index_again(recovery) : RD_OK;
}

static bool is_lost_in(const struct torn_range *range, const struct damage *damage)
{
    return damage->kind != RD_DAMAGE_LINK && damage->begin_off >= range->begin_off && damage->end_off <= range->end_off;
}

/**
 * What STORE.writer remembers: a range that was torn when less was synced stays torn. Only if as many bytes in it are
 * damaged as were then, and an entry links to its end: so neither what was lost since, in an interval around several,
 * is forgiven with them, nor anything by a line that speaks of what the file was once. No key's version lies there,
 * since the writer has superseded them, so the index stays.
 */
static void forgive_remembered(struct recovery *recovery)
{
    struct layout *layout = recovery->found.layout;
    const struct torn_ranges *torn = &recovery->options->torn;
    for (size_t i = 0; i < torn->count; i++) {
        const struct torn_range *range = &torn->ranges[i];
        uint64_t bytes = 0;
        for (size_t d = 0; d < layout->damage_count; d++)
            if (is_lost_in(range, &layout->damage[d]))
                bytes += layout->damage[d].end_off - layout->damage[d].begin_off;
        if (bytes != range->torn_bytes || range->end_off >= recovery->found.tail_off)
            continue;
        for (size_t d = 0; d < layout->damage_count; d++)
            if (is_lost_in(range, &layout->damage[d]))
                call_torn(layout, &layout->damage[d]);
    }
}

rd_err recovery_walk(struct recovery *recovery, uint64_t until_off, uint64_t meet_off, uint64_t entries_max)
{
    uint64_t entries_end = recovery->found.entries + entries_max;
    while (recovery->end_off > until_off && recovery->end_off != meet_off && recovery->found.entries < entries_end) {
        bool held;
        RD_TRY(recovery_step(recovery));
        RD_TRY(take_next(recovery, &held));
        if (!held)
            RD_TRY(judge(recovery));
    }
    return RD_OK;
}

static rd_err recover_all(struct recovery *recovery)
{
    struct recovered *found = &recovery->found;
    uint64_t floor_off = recovery->options->floor_off;
    if (recovery->len < floor_off)
        return RD_E_UNAVAILABLE;
    found->tail_off = recovery->len;
    RD_TRY(crew_walk(recovery));
    RD_TRY(recovery_walk(recovery, floor_off, floor_off, ALL_ENTRIES));
    recovery_tell(recovery);
    rd_err fitted = index_fit(&found->index);
    (void)fitted; /* it saves space */
    if (floor_off > 0)
        return found->layout->damage_count == 0 ? RD_OK : RD_E_UNAVAILABLE;
    if (recovery->options->synced_off == 0)
        recovery->synced_matches = true;
    if (recovery->synced_matches)
        RD_TRY(forgive_unsynced(recovery));
    forgive_remembered(recovery);
    if (found->entries == 0 && recovery->len > 0 && !recovery->options->check_all) {
        if (recovery->options->synced_off != 0)
            return RD_E_NOT_STORE; /* */
        found->tail_off = 0;       /* a torn first write */
    }
    return RD_OK;
}

struct recover_call {
    struct recovery *recovery;
    rd_err err;
};

static void recover_leaf(void *argument)
{
    struct recover_call *call = argument;
    call->err = recover_all(call->recovery);
}

rd_err recover(const uint8_t *base, uint64_t len, const struct recover_options *options, uint64_t *out_fault_off,
               struct recovered *out_recovered)
{
    struct recovery recovery = {
        .base = base, .len = len, .options = options, .end_off = len, .proven = options->end_proven};
    struct recover_call call = {.recovery = &recovery};
    call.err = layout_create(&recovery.found.layout);
    if (call.err == RD_OK)
        call.err = index_init(&recovery.found.index);
    /* everything the leaf allocates is in `recovery`, so a fault in it leaks nothing */
    if (call.err == RD_OK && !guard_run(base, (size_t)len, recover_leaf, &call))
        call.err = RD_E_TRUNCATED;
    crew_destroy(recovery.crew);
    crc_prefixes_fini(&recovery.prefixes);
    if (call.err != RD_OK) {
        *out_fault_off = recovery.end_off;
        recovered_fini(&recovery.found);
        return call.err;
    }
    *out_recovered = recovery.found;
    return RD_OK;
}

void recovered_fini(struct recovered *recovered)
{
    index_fini(&recovered->index);
    layout_unref(recovered->layout);
    recovered->layout = NULL;
}
