/* What recovery found of a file that can't be seen by following its links: where they must not be followed. */
#ifndef RD_LAYOUT_H
#define RD_LAYOUT_H

#include <rdrive/store.h>

/* Beside the kinds of damage: a range that a crash tore before it was synced. Nothing was promised, so nothing is lost.
 */
#define DAMAGE_TORN RD_DAMAGE_KINDS

/* [begin_off, end_off) is not to be parsed by its own link. Of RD_DAMAGE_LINK, begin_off is the true link. */
struct damage {
    uint64_t begin_off;
    uint64_t end_off;
    uint64_t key_hash; /* of the trailer at end_off - 20; only where has_key */
    uint8_t kind;      /* rd_damage_kind, or DAMAGE_TORN */
    bool has_key;
};

/* Torn ranges in brief, as STORE.writer has room for them: from the file's end down. Where there are more, those with
   the least between them are one interval around them. */
#define TORN_RANGES_MAX 5
struct torn_ranges {
    size_t count;
    struct torn_range {
        uint64_t begin_off;
        uint64_t end_off;
        uint64_t torn_bytes; /* all of them, but for an interval around several */
    } ranges[TORN_RANGES_MAX];
};

/* Unchanging once it is made; shared by the mappings of one file. */
struct layout {
    atomic_size_t refs;
    struct damage *damage; /* by end_off, descending; ranges don't overlap */
    size_t damage_count;
    size_t damage_capacity;
    uint64_t counts[RD_DAMAGE_KINDS + 1]; /* of each kind */
    uint64_t *provisional;                /* ends of entries whose payloads opening did not check, descending */
    size_t provisional_count;
    size_t provisional_capacity;
};

/* Returns: RD_OK with one reference; RD_E_NOMEM. */
RD_MUST_CHECK rd_err layout_create(struct layout **out_layout);
/* NULL is fine, and given back. */
struct layout *layout_ref(struct layout *layout);
void layout_unref(struct layout *layout);

/* While it is being made. Returns: RD_OK, RD_E_NOMEM. */
RD_MUST_CHECK rd_err layout_add(struct layout *layout, const struct damage *damage);
RD_MUST_CHECK rd_err layout_add_provisional(struct layout *layout, uint64_t end_off);

/* Forget the damage that ends above `tail_off`. */
void layout_drop_above(struct layout *layout, uint64_t tail_off);

/* Its torn ranges. `layout` may be NULL. */
void layout_torn(const struct layout *layout, struct torn_ranges *out_torn);

/* The damage whose end is `end_off`, or NULL. `layout` may be NULL. */
const struct damage *layout_find(const struct layout *layout, uint64_t end_off);

/* The end of the first damage that ends at or below `end_off`, or 0. `layout` may be NULL. */
uint64_t layout_next(const struct layout *layout, uint64_t end_off);

#endif
