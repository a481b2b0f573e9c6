#include "recover.h"
#include "base.h"
#include "format.h"

#define CANCEL_EVERY 4096u /* entries or candidates between two looks at the cancel flag */

struct recovery {
    const uint8_t *base;
    uint64_t len;
    const atomic_bool *cancel;
    uint64_t steps;
    struct index *index;
    struct recovered found;
    struct crc_prefixes prefixes; /* built at the first failure */
};

static rd_err check_cancel(struct recovery *recovery)
{
    if (recovery->cancel == NULL || recovery->steps++ % CANCEL_EVERY != 0)
        return RD_OK;
    return atomic_load_explicit(recovery->cancel, memory_order_relaxed) ? RD_E_CANCELLED : RD_OK;
}

/* The entry that ends at `end_off`, placed but unchecked. */
static bool entry_before(const struct recovery *recovery, uint64_t end_off, uint64_t alignment, struct entry *out_entry)
{
    return end_off >= RD_ENTRY_MIN &&
           entry_parse_aligned(recovery->base, end_off - RD_TRAILER_SIZE, alignment, out_entry);
}

static bool entry_holds(const struct recovery *recovery, uint64_t end_off, uint64_t alignment, struct entry *out_entry)
{
    return entry_before(recovery, end_off, alignment, out_entry) && entry_crc_holds(recovery->base, out_entry);
}

/* E-13: whether the entry that ends here is one of an older layout. */
static bool is_old_alignment(const struct recovery *recovery, uint64_t end_off)
{
    struct entry entry;
    return entry_holds(recovery, end_off, 16, &entry) || entry_holds(recovery, end_off, 1, &entry);
}

/* zeros, 0xFF and the like are never a trailer. */
static bool trailer_is_uniform(const struct recovery *recovery, uint64_t trailer_off)
{
    const uint8_t *trailer = recovery->base + trailer_off;
    return memcmp(trailer, trailer + 1, RD_TRAILER_SIZE - 1) == 0;
}

static rd_err take(struct recovery *recovery, const struct entry *entry, bool verified)
{
    RD_TRY(index_reserve(recovery->index, 1));
    uint64_t word = entry->trailer_off | (entry->tombstone ? WORD_TOMBSTONE : 0) | (verified ? WORD_VERIFIED : 0);
    recovery->found.entries++;
    if (!index_set_if_new(recovery->index, entry->key_hash, word) || entry->tombstone)
        return RD_OK; /* F-08: superseded, or deleted */
    recovery->found.live_keys++;
    recovery->found.live_bytes += entry_payload_len(entry);
    return RD_OK;
}

/**
 * take entries from `end_off` down to 0. The newest is always checked in full, so that a torn tail which looks
 * like a large entry is found out.
 * Returns: RD_OK, `*out_stop_off` is 0 or where nothing holds; RD_E_CANCELLED, RD_E_NOMEM.
 */
static rd_err walk_back(struct recovery *recovery, uint64_t end_off, uint64_t *out_stop_off)
{
    uint64_t newest_off = end_off;
    while (end_off > 0) {
        RD_TRY(check_cancel(recovery));
        struct entry entry;
        if (!entry_before(recovery, end_off, RD_ALIGNMENT, &entry))
            break;
        bool check = entry_payload_len(&entry) <= RECOVER_CHECK_MAX || end_off == newest_off;
        if (check && !entry_crc_holds(recovery->base, &entry))
            break;
        RD_TRY(take(recovery, &entry, check));
        end_off = entry.prev_off;
    }
    *out_stop_off = end_off;
    return RD_OK;
}

/* Whether an entry may end at `end_off`: most offsets are told apart by the link's top bytes alone. */
static bool is_candidate(const struct recovery *recovery, uint64_t end_off)
{
    uint64_t trailer_off = end_off - RD_TRAILER_SIZE;
    const uint8_t *link = recovery->base + trailer_off + offsetof(struct raw_trailer, prev_tail);
    return link[6] == 0 && link[7] == 0 && !trailer_is_uniform(recovery, trailer_off);
}

static bool candidate_holds(const struct recovery *recovery, uint64_t end_off, uint64_t alignment)
{
    struct entry entry;
    return entry_before(recovery, end_off, alignment, &entry) &&
           crc_of_range(&recovery->prefixes, entry.start_off, entry.trailer_off) == entry.crc;
}

/* One such entry may stand in any payload; one that continues a chain of its kind, or begins the file, doesn't. */
static bool is_old_chain(const struct recovery *recovery, uint64_t end_off, uint64_t alignment)
{
    struct entry entry;
    return candidate_holds(recovery, end_off, alignment) && entry_before(recovery, end_off, alignment, &entry) &&
           (entry.prev_off == 0 ||
            (entry.prev_off >= RD_ENTRY_MIN && candidate_holds(recovery, entry.prev_off, alignment)));
}

/**
 * the greatest offset below `from_off` at which an entry holds, or 0.
 * Returns: RD_E_ALIGNMENT where one of an older layout is met first: the file is torn, but not one of ours (E-13).
 */
static rd_err search_back(struct recovery *recovery, uint64_t from_off, uint64_t *out_end_off)
{
    uint64_t end_off = from_off;
    while (--end_off >= RD_ENTRY_MIN) {
        RD_TRY(check_cancel(recovery));
        if (!is_candidate(recovery, end_off))
            continue;
        if (candidate_holds(recovery, end_off, RD_ALIGNMENT)) {
            *out_end_off = end_off;
            return RD_OK;
        }
        if (is_old_chain(recovery, end_off, 16) || is_old_chain(recovery, end_off, 1))
            return RD_E_ALIGNMENT;
    }
    *out_end_off = 0;
    return RD_OK;
}

/* R-04 a, b and f, for bytes [good_off, len) behind the last entry that holds: torn, or damage of an entry once whole?
 */
static bool tail_is_torn(const struct recovery *recovery, uint64_t good_off)
{
    if (recovery->len < good_off + RD_ENTRY_MIN)
        return true; /* no room for an entry of its own */
    uint64_t trailer_off = recovery->len - RD_TRAILER_SIZE;
    if (trailer_is_uniform(recovery, trailer_off))
        return true;
    const struct raw_trailer *raw = (const struct raw_trailer *)(recovery->base + trailer_off);
    uint64_t start_off;
    if (payload_start(recovery->base, good_off, trailer_off, RD_ALIGNMENT, &start_off) &&
        crc_of_range(&recovery->prefixes, start_off, trailer_off) == load_le32(raw->crc32))
        return false; /* a: whole but for its link */
    uint64_t prev_off = load_le64(raw->prev_tail);
    return prev_off < good_off || prev_off >= trailer_off; /* b and f */
}

/* The end of the file doesn't hold: find where what holds ends. */
static rd_err find_tail(struct recovery *recovery, uint64_t *out_tail_off, uint64_t *out_fault_off)
{
    *out_fault_off = recovery->len;
    if (is_old_alignment(recovery, recovery->len))
        return RD_E_ALIGNMENT;
    RD_TRY(crc_prefixes_init(recovery->base, recovery->len, &recovery->prefixes));
    RD_TRY(search_back(recovery, recovery->len, out_tail_off));
    if (*out_tail_off == 0)
        return RD_E_NOT_STORE; /* */
    return tail_is_torn(recovery, *out_tail_off) ? RD_OK : RD_E_DAMAGED;
}

static rd_err recover_all(struct recovery *recovery, uint64_t *out_fault_off)
{
    uint64_t tail_off = recovery->len;
    struct entry newest;
    if (tail_off > 0 && !entry_holds(recovery, tail_off, RD_ALIGNMENT, &newest))
        RD_TRY(find_tail(recovery, &tail_off, out_fault_off));
    uint64_t stop_off;
    RD_TRY(walk_back(recovery, tail_off, &stop_off));
    recovery->found.tail_off = tail_off;
    if (stop_off == 0)
        return RD_OK;
    *out_fault_off = stop_off;
    return is_old_alignment(recovery, stop_off) ? RD_E_ALIGNMENT : RD_E_DAMAGED;
}

rd_err recover(const uint8_t *base, uint64_t len, const atomic_bool *cancel, struct index *index,
               uint64_t *out_fault_off, struct recovered *out_recovered)
{
    struct recovery recovery = {.base = base, .len = len, .cancel = cancel, .index = index};
    rd_err err = recover_all(&recovery, out_fault_off);
    crc_prefixes_fini(&recovery.prefixes);
    if (err == RD_OK)
        *out_recovered = recovery.found;
    return err;
}
