/* A stretch of a file whose entries are in order, walked apart from what lies above it. */
#ifndef RD_STRETCH_H
#define RD_STRETCH_H

#include "recover_internal.h"

#define STRETCH_LEN             UINT64_C(0x100000)
#define STRETCH_LEN_MAX         UINT64_C(0x800000)
#define STRETCH_ENTRIES_MAX     ((size_t)(STRETCH_LEN / RD_ENTRY_MIN + 1))
#define STRETCH_PROVISIONAL_MAX 64u
#define STRETCH_PARTS_LOG2_MAX  6u
#define STRETCH_PARTS_MAX       (1u << STRETCH_PARTS_LOG2_MAX)

/* An entry on its way into the index. */
struct passed {
    uint64_t key_hash;
    uint64_t word;
    uint64_t payload_len;
};

struct stretch {
    /* what to walk */
    uint64_t top_off, bottom_off; /* entries that end in (bottom_off, top_off] */
    bool known;                   /* an accepted entry links to `top_off` */
    /* what was found */
    rd_err err;          /* RD_E_TRUNCATED, RD_E_CANCELLED */
    uint64_t begin_off;  /* where the newest of its entries ends, if one does as is guessed; 0: none was found */
    uint64_t end_off;    /* the link of the oldest: at most `bottom_off`, unless what comes there takes a judgement */
    uint64_t oldest_off; /* where that ends; only where there is one */
    bool synced_matches; /* one begins or ends at the options' synced_off */
    size_t provisional_count;
    uint64_t provisional[STRETCH_PROVISIONAL_MAX]; /* ends, descending */
    size_t count;
    struct passed *passed; /* STRETCH_ENTRIES_MAX; by part of the index, within each from newest to oldest */
    size_t part_ends[STRETCH_PARTS_MAX];
};

/* A thread's, while it walks one. */
struct stretch_scratch {
    struct passed passed[STRETCH_ENTRIES_MAX];
    uint8_t parts[STRETCH_ENTRIES_MAX];
};

/**
 * Walk it. Where no entry is known to end at its top, the greatest offset is taken at which a small one holds: most
 * often that's where the chain from above arrives. If it does, the serial walk would take exactly these entries.
 * Threads: each its own stretch, while nobody changes `recovery`.
 */
void stretch_walk(const struct recovery *recovery, unsigned parts_log2, struct stretch *stretch,
                  struct stretch_scratch *scratch);

#endif
