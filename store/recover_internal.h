/* What the walk (recover.c) and the judgement of what doesn't hold (judge.c) share. */
#ifndef RD_RECOVER_INTERNAL_H
#define RD_RECOVER_INTERNAL_H

#include "format.h"
#include "recover.h"

struct crew;

struct recovery {
    const uint8_t *base;
    uint64_t len;
    const struct recover_options *options;
    uint64_t steps;               /* towards the next look at the cancel flag */
    struct crc_prefixes prefixes; /* R-07, E-04: made at the first failure; `at` is NULL until then */
    struct recovered found;

    uint64_t end_off; /* B: what lies below is still to be judged */
    bool proven;      /* an accepted entry links to `end_off` */
    bool has_above;
    struct entry above;  /* that entry */
    bool synced_matches; /* an accepted entry begins or ends at options->synced_off, or that is 0 */
    struct crew *crew;   /* NULL until it is needed */
};

/* What the trailer of an entry says and where it must lie, before any CRC. That alone proves nothing (E-02). */
static inline bool entry_before(const struct recovery *recovery, uint64_t end_off, uint64_t alignment,
                                struct entry *out_entry)
{
    return end_off >= RD_ENTRY_MIN &&
           entry_parse_aligned(recovery->base, end_off - RD_TRAILER_SIZE, alignment, out_entry);
}

/* The CRC of a range: from the prefixes once they are there. */
static inline uint32_t range_crc(const struct recovery *recovery, uint64_t from, uint64_t to)
{
    return recovery->prefixes.at != NULL ? crc_of_range(&recovery->prefixes, from, to)
                                         : crc_of(recovery->base + from, (size_t)(to - from));
}

static inline bool entry_holds(const struct recovery *recovery, uint64_t end_off, uint64_t alignment,
                               struct entry *out_entry)
{
    return entry_before(recovery, end_off, alignment, out_entry) &&
           out_entry->prev_off >= recovery->options->floor_off && /* an entry ends there, so none lies across it */
           range_crc(recovery, out_entry->start_off, out_entry->trailer_off) == out_entry->crc;
}

/**
 * whether an entry may end at `end_off`. Most offsets are told apart by the link alone; a link whose top bytes
 * are zero stands in twenty equal bytes only if they are all zero.
 */
static inline bool is_candidate(const struct recovery *recovery, uint64_t end_off)
{
    const struct raw_trailer *raw = (const struct raw_trailer *)(recovery->base + end_off - RD_TRAILER_SIZE);
    uint64_t link = load_le64(raw->prev_tail);
    if (link >> 48 != 0 || link >= end_off - RD_TRAILER_SIZE)
        return false;
    return link != 0 || load_le64(raw->key_hash) != 0 || load_le32(raw->crc32) != 0;
}

/* Whether none of the eight offsets up to `end_off` is one: the top byte of a link is zero, and none of the eight bytes
   is that would be it. */
static inline bool is_far_from_candidates(const struct recovery *recovery, uint64_t end_off)
{
    const struct raw_trailer *raw = (const struct raw_trailer *)(recovery->base + end_off - RD_TRAILER_SIZE);
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t bytes = load_le64(raw->prev_tail);
    return ((bytes - ones) & ~bytes & (ones << 7)) == 0;
}

/* Whether what lies between an entry's link and its payload is what a writer puts there. */
static inline bool pad_is_zero(const struct recovery *recovery, const struct entry *entry)
{
    uint64_t pad = entry->start_off - entry->prev_off; /* less than RD_ALIGNMENT, and up to a multiple of it */
    const uint8_t *end = recovery->base + entry->start_off;
    uint64_t any = 0;
    for (; pad >= sizeof(any); pad -= sizeof(any), end -= sizeof(any))
        any |= load_le64(end - sizeof(any));
    if (pad > 0)
        any |= load_le64(end - sizeof(any)) >> 8 * (sizeof(any) - pad);
    return any == 0;
}

/* What the index says of an accepted entry. */
static inline uint64_t entry_word(const struct entry *entry, bool verified)
{
    return entry->trailer_off | (entry->tombstone ? WORD_TOMBSTONE : 0) | (verified ? WORD_VERIFIED : 0);
}

/* Say how far it is, to who asked to be told. */
void recovery_tell(const struct recovery *recovery);

/* Returns: RD_OK, or RD_E_CANCELLED now and then, when that was asked. */
RD_MUST_CHECK rd_err recovery_step(struct recovery *recovery);

/* Whether to give up above a floor: only entries in order, and behind them a torn tail, need nothing of what lies below
   to be judged. */
static inline bool needs_all(const struct recovery *recovery, const struct entry *entry, bool padded)
{
    uint64_t floor_off = recovery->options->floor_off;
    return floor_off > 0 && (entry->prev_off < floor_off || !padded);
}

/* Whether the entry at `end_off`, whose payload is a large one, may be taken without looking at that. */
bool recovery_may_trust(const struct recovery *recovery, const struct entry *entry);

/* an entry or damaged range at a time: down to `until_off`, or exactly to `meet_off`, or past
   `entries_max` entries. */
#define ALL_ENTRIES (UINT64_MAX / 2)
RD_MUST_CHECK rd_err recovery_walk(struct recovery *recovery, uint64_t until_off, uint64_t meet_off,
                                   uint64_t entries_max);

/* Returns: RD_OK, RD_E_NOMEM. */
RD_MUST_CHECK rd_err recovery_need_prefixes(struct recovery *recovery);

/* Accept an entry that ends at `end_off`. `verified`: its CRC was checked. */
RD_MUST_CHECK rd_err recovery_take(struct recovery *recovery, const struct entry *entry, bool verified);

/* Note a damaged range, and its key as damaged where one is known. */
RD_MUST_CHECK rd_err recovery_note(struct recovery *recovery, const struct damage *damage);

/**
 * R-02 for an entry that holds though its pad is not all zero: its link may be wrong by less than the pad. Requires
 * the prefixes.
 * Sets `entry->prev_off` to the true link and notes that, where they differ; `*out_found_off` to where the entry in
 * front of it ends, which is lower where scraps lie between them: bytes that are no pad.
 */
RD_MUST_CHECK rd_err judge_pad(struct recovery *recovery, struct entry *entry, uint64_t *out_found_off);

/* What lies between `found_off`, where an entry ends, and a mended link that was just followed: nothing, or scraps. */
RD_MUST_CHECK rd_err judge_scraps(struct recovery *recovery, uint64_t found_off);

/* nothing holds at `end_off`. Moves it down past what is decided on. */
RD_MUST_CHECK rd_err judge(struct recovery *recovery);

#endif
