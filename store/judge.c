/* What to make of bytes at which no entry holds: and E-13. RECOVERY.md explains each. */
#include "base.h"
#include "recover_internal.h"

static bool is_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

/**
 * Where the entry begins whose payload starts at `start_off`, when its link doesn't tell and nothing holds between
 * `from_off` and there: behind the last byte that is not zero, since that is no pad. A lost tombstone may have left it.
 */
static uint64_t pad_begin(const struct recovery *recovery, uint64_t from_off, uint64_t start_off)
{
    uint64_t begin_off = start_off;
    while (begin_off > from_off && recovery->base[begin_off - 1] == 0)
        begin_off--;
    return begin_off;
}

/* Lost tombstones leave this much between a link and the entry below it: one, two or three of them. */
static bool is_lost_tombstones(uint64_t gap)
{
    return gap == RD_ENTRY_MIN || gap == 2 * RD_ENTRY_MIN || gap == 3 * RD_ENTRY_MIN;
}

/* The fields of the trailer that should end at `end_off`, where they say anything. */
struct fields {
    bool usable; /* there is room for a trailer, and it is not twenty equal bytes */
    uint64_t trailer_off;
    uint64_t key_hash;
    uint64_t link;
    uint32_t crc;
};

static struct fields read_fields(const struct recovery *recovery, uint64_t end_off)
{
    if (end_off < RD_ENTRY_MIN)
        return (struct fields){0};
    uint64_t trailer_off = end_off - RD_TRAILER_SIZE;
    const uint8_t *bytes = recovery->base + trailer_off;
    if (memcmp(bytes, bytes + 1, RD_TRAILER_SIZE - 1) == 0)
        return (struct fields){0};
    const struct raw_trailer *raw = (const struct raw_trailer *)bytes;
    return (struct fields){.usable = true,
                           .trailer_off = trailer_off,
                           .key_hash = load_le64(raw->key_hash),
                           .link = load_le64(raw->prev_tail),
                           .crc = load_le32(raw->crc32)};
}

/* E-13: whether the entry that ends here is one of an older layout. */
static bool is_old_alignment(const struct recovery *recovery, uint64_t end_off)
{
    struct entry entry;
    return entry_holds(recovery, end_off, 16, &entry) || entry_holds(recovery, end_off, 1, &entry);
}

/* One such entry may stand in any payload; one that continues a chain of its kind, or begins the file, doesn't. */
static bool is_old_chain(const struct recovery *recovery, uint64_t end_off, uint64_t alignment)
{
    struct entry entry;
    return entry_holds(recovery, end_off, alignment, &entry) &&
           (entry.prev_off == 0 ||
            (entry.prev_off >= RD_ENTRY_MIN && entry_holds(recovery, entry.prev_off, alignment, &entry)));
}

#define ZERO_BLOCK ((uint64_t)64)

/* Holes and appended zeros are long; other bytes are told by the first word. */
static inline bool is_zero_block(const uint8_t *bytes)
{
    uint64_t any = load_le64(bytes + ZERO_BLOCK - sizeof(any));
    for (size_t i = 0; any == 0 && i < ZERO_BLOCK - sizeof(any); i += sizeof(any))
        any = load_le64(bytes + i);
    return any == 0;
}

/**
 * the greatest offset below `end_off` at which an entry holds, or 0.
 * Returns: RD_E_ALIGNMENT where, behind the last entry, a chain of an older layout is met first: the file is torn, but
 *          not one of ours (E-13).
 */
static rd_err search_back(struct recovery *recovery, uint64_t end_off, uint64_t *out_off)
{
    struct entry entry;
    uint64_t looked = 0;
    uint64_t floor_off = recovery->options->floor_off;
    for (uint64_t at = end_off - 1; at >= RD_ENTRY_MIN && at >= floor_off; at--) {
        if (looked++ % 64 == 0) /* bytes are searched a thousand times as fast as entries are taken */
            RD_TRY(recovery_step(recovery));
        if (at >= ZERO_BLOCK + RD_ENTRY_MIN && is_zero_block(recovery->base + at - ZERO_BLOCK)) {
            at -= ZERO_BLOCK - RD_TRAILER_SIZE; /* each trailer that ends in between is all zero */
            continue;
        }
        if (is_far_from_candidates(recovery, at)) {
            at -= sizeof(uint64_t) - 1;
            continue;
        }
        if (!is_candidate(recovery, at))
            continue;
        RD_TRY(recovery_step(recovery)); /* its CRCs take as long as an entry's */
        if (at == floor_off || entry_holds(recovery, at, RD_ALIGNMENT, &entry)) {
            *out_off = at;
            return RD_OK;
        }
        if (!recovery->proven && (is_old_chain(recovery, at, 16) || is_old_chain(recovery, at, 1)))
            return RD_E_ALIGNMENT;
    }
    *out_off = 0;
    return floor_off == 0 ? RD_OK : RD_E_UNAVAILABLE;
}

/* Whether the trailer's CRC is that of what lies between the start that follows from `prev_off` and itself. */
static bool fits_from(const struct recovery *recovery, const struct fields *fields, uint64_t prev_off,
                      struct entry *out_entry)
{
    struct entry entry;
    if (!entry_parse_relinked(recovery->base, fields->trailer_off, prev_off, &entry) ||
        range_crc(recovery, entry.start_off, entry.trailer_off) != entry.crc)
        return false;
    *out_entry = entry;
    return true;
}

/* R-04c: trailers looked at below a broken chain; more would make files of nothing but damage slow. */
#define BROKEN_STEPS_MAX 256

/**
 * R-04c: whether the links down from `from_off` never come by `target_off`. A damaged entry on the way still names its
 * link; where that leads nowhere either, what holds above is payload that looks like an entry.
 */
static rd_err links_miss(struct recovery *recovery, uint64_t from_off, uint64_t target_off, bool *out_miss)
{
    uint64_t at = from_off;
    struct entry entry;
    while (at > target_off && entry_holds(recovery, at, RD_ALIGNMENT, &entry)) {
        RD_TRY(recovery_step(recovery));
        at = entry.prev_off;
    }
    for (int steps = 0; at > target_off && steps < BROKEN_STEPS_MAX; steps++) {
        if (!entry_before(recovery, at, RD_ALIGNMENT, &entry))
            break;
        at = entry.prev_off;
    }
    *out_miss = at != target_off;
    return RD_OK;
}

/* Note a damaged range that ends at `end_off`, and go on where it begins. */
static rd_err pass(struct recovery *recovery, uint64_t begin_off, int kind, const struct fields *fields)
{
    struct damage damage = {.begin_off = begin_off,
                            .end_off = recovery->end_off,
                            .key_hash = fields->usable ? fields->key_hash : 0,
                            .kind = (uint8_t)kind,
                            .has_key = fields->usable};
    RD_TRY(recovery_note(recovery, &damage));
    recovery->end_off = begin_off;
    recovery->has_above = false;
    return RD_OK;
}

/**
 * R-04e and f, where the trailer's link lies inside the range: whether trailers lead from it down to `found_off`, at
 * which an entry holds. Then each of them is one damaged entry and names its key.
 */
static rd_err pass_chain(struct recovery *recovery, const struct fields *fields, uint64_t found_off, bool *out_done)
{
    struct fields step = *fields;
    *out_done = false;
    while (step.usable && step.link > found_off && step.link < step.trailer_off) {
        RD_TRY(recovery_step(recovery));
        step = read_fields(recovery, step.link);
    }
    if (!step.usable || step.link != found_off || found_off == 0)
        return RD_OK;
    for (step = *fields; recovery->end_off > found_off; step = read_fields(recovery, recovery->end_off))
        RD_TRY(pass(recovery, step.link, RD_DAMAGE_ENTRY, &step));
    *out_done = true;
    return RD_OK;
}

/* R-02, R-04a: note that the link of an entry alone is damaged. */
static rd_err note_relinked(struct recovery *recovery, const struct entry *entry)
{
    const struct damage damage = {.begin_off = entry->prev_off,
                                  .end_off = entry_end(entry),
                                  .key_hash = entry->key_hash,
                                  .kind = RD_DAMAGE_LINK,
                                  .has_key = true};
    return recovery_note(recovery, &damage);
}

rd_err judge_scraps(struct recovery *recovery, uint64_t found_off)
{
    if (recovery->end_off == found_off)
        return RD_OK;
    struct fields fields = {0};
    if (recovery->end_off - found_off >= RD_ENTRY_MIN)
        fields = read_fields(recovery, recovery->end_off);
    bool done;
    RD_TRY(pass_chain(recovery, &fields, found_off, &done));
    if (done)
        return RD_OK;
    return pass(recovery, found_off, fields.usable ? RD_DAMAGE_RANGE : RD_DAMAGE_UNIDENTIFIED, &fields);
}

/* R-04a, proven: an entry whose link alone is damaged is served. */
static rd_err take_relinked(struct recovery *recovery, struct entry *entry)
{
    uint64_t found_off = entry->prev_off;
    entry->prev_off = pad_begin(recovery, found_off, entry->start_off);
    RD_TRY(note_relinked(recovery, entry));
    RD_TRY(recovery_take(recovery, entry, true));
    return judge_scraps(recovery, found_off);
}

/**
 * R-02, where nothing holds at a link: an offset with the same start at which an entry holds is what the link meant, if
 * it lies above or nothing but zeros, which is to say pad, lies between that entry and where the link leads.
 * `sure`: only the latter.
 * Returns: whether there is one; then the entry above is relinked and the walk goes on there.
 */
static rd_err relink_above(struct recovery *recovery, bool sure, bool *out_done)
{
    *out_done = false;
    if (!recovery->has_above || recovery->above.tombstone)
        return RD_OK;
    if (sure && recovery->base[recovery->end_off - 1] != 0)
        return RD_OK; /* the common case, told without a CRC */
    struct entry below;
    uint64_t start_off = recovery->above.start_off;
    uint64_t lowest = start_off >= RD_ALIGNMENT ? start_off - RD_ALIGNMENT + 1 : 0;
    for (uint64_t at = start_off; at >= lowest && at >= RD_ENTRY_MIN; at--) {
        if (!is_candidate(recovery, at) || !entry_holds(recovery, at, RD_ALIGNMENT, &below))
            continue;
        if (at < recovery->end_off && is_lost_tombstones(recovery->end_off - at))
            return RD_OK;
        if (at > recovery->end_off ? sure : !is_zero(recovery->base + at, (size_t)(recovery->end_off - at)))
            return RD_OK;
        recovery->above.prev_off = at;
        RD_TRY(note_relinked(recovery, &recovery->above));
        recovery->end_off = at;
        *out_done = true;
        return RD_OK;
    }
    return RD_OK;
}

/* R-04 where an accepted entry links to the end of the range. `found_off` is e. */
static rd_err judge_proven(struct recovery *recovery, const struct fields *fields, uint64_t found_off)
{
    struct entry entry;
    bool done = false;
    RD_TRY(relink_above(recovery, true, &done));
    if (done)
        return RD_OK;
    if (fields->usable) {
        if (fits_from(recovery, fields, found_off, &entry) || (found_off > 0 && fits_from(recovery, fields, 0, &entry)))
            return take_relinked(recovery, &entry); /* a */
        if (fields->link == found_off)
            return pass(recovery, found_off, RD_DAMAGE_ENTRY, fields); /* b */
        if (fields->link > 0 && fields->link < found_off && entry_holds(recovery, fields->link, RD_ALIGNMENT, &entry)) {
            RD_TRY(links_miss(recovery, found_off, fields->link, &done));
            if (done)
                return pass(recovery, fields->link, RD_DAMAGE_ENTRY, fields); /* c */
        }
        const uint8_t *trailer = recovery->base + fields->trailer_off;
        if (fields->link == 0 && ((trailer[7] != 0 && trailer[16] != 0) || found_off == fields->trailer_off))
            return pass(recovery, 0, RD_DAMAGE_ENTRY, fields); /* d */
    }
    RD_TRY(relink_above(recovery, false, &done));
    if (!done)
        RD_TRY(pass_chain(recovery, fields, found_off, &done));
    if (done)
        return RD_OK;
    struct fields named = *fields;
    named.usable = named.usable && named.trailer_off >= found_off; /* it isn't made of the entry below */
    return pass(recovery, found_off, named.usable ? RD_DAMAGE_RANGE : RD_DAMAGE_UNIDENTIFIED, &named); /* e */
}

/* A tombstone whose link is not where a tombstone's must be belongs to a store that was being stored as a value. */
static bool is_stray_tombstone(const struct recovery *recovery, const struct fields *fields)
{
    return fields->crc == RD_TOMBSTONE_CRC && recovery->base[fields->trailer_off - 1] == 0;
}

/* R-04 where the end of the file is all that says something ends here. */
static rd_err judge_end(struct recovery *recovery, const struct fields *fields, uint64_t found_off)
{
    struct entry entry;
    bool done = false;
    RD_TRY(pass_chain(recovery, fields, found_off, &done));
    if (done)
        return RD_OK;
    if (fields->usable && fields->link == found_off && found_off > 0)
        return pass(recovery, found_off, RD_DAMAGE_ENTRY, fields);          /* b */
    if (fields->usable && fits_from(recovery, fields, found_off, &entry)) { /* a; so may a torn payload look */
        bool scraps = pad_begin(recovery, found_off, entry.start_off) != found_off;
        return pass(recovery, found_off, scraps ? RD_DAMAGE_RANGE : RD_DAMAGE_ENTRY, fields);
    }
    bool behind_others = fields->usable && fields->link > found_off && fields->link < fields->trailer_off &&
                         !is_stray_tombstone(recovery, fields);
    if (behind_others)
        return pass(recovery, found_off, RD_DAMAGE_RANGE, fields); /* f: what lies in front of it is lost unnamed */
    recovery->found.tail_off = found_off;                          /* f: torn */
    recovery->end_off = found_off;
    return RD_OK;
}

rd_err judge(struct recovery *recovery)
{
    if (recovery->options->floor_off > 0 && recovery->proven)
        return RD_E_UNAVAILABLE; /* damage: its rules may ask for what lies below */
    RD_TRY(recovery_need_prefixes(recovery));
    if (is_old_alignment(recovery, recovery->end_off))
        return RD_E_ALIGNMENT;
    uint64_t found_off;
    RD_TRY(search_back(recovery, recovery->end_off, &found_off));
    struct fields fields = read_fields(recovery, recovery->end_off);
    return recovery->proven ? judge_proven(recovery, &fields, found_off) : judge_end(recovery, &fields, found_off);
}

rd_err judge_pad(struct recovery *recovery, struct entry *entry, uint64_t *out_found_off)
{
    struct entry below;
    *out_found_off = entry->prev_off;
    for (uint64_t at = entry->start_off; at > entry->prev_off && at >= RD_ENTRY_MIN; at--) {
        if (!is_candidate(recovery, at) || !entry_holds(recovery, at, RD_ALIGNMENT, &below))
            continue;
        *out_found_off = at;
        entry->prev_off = pad_begin(recovery, at, entry->start_off);
        return note_relinked(recovery, entry);
    }
    return RD_OK;
}
