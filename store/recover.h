/* From a file's bytes to its index: the rules, explained in RECOVERY.md. */
#ifndef RD_RECOVER_H
#define RD_RECOVER_H

#include "index.h"
#include "layout.h"
#include <rdrive/store.h>

/* Larger payloads are provisional: opening trusts their links and leaves their CRC to the first read. */
#define RECOVER_CHECK_MAX UINT64_C(65536)

#define SYNCED_UNKNOWN UINT64_MAX

struct recover_options {
    const atomic_bool *cancel;  /* or NULL */
    rd_open_progress *progress; /* or NULL */
    uint64_t synced_off;        /* what STORE.writer says of this very file; SYNCED_UNKNOWN without it */
    struct torn_ranges torn;    /* and what was torn when it was opened before; a writer superseded the keys there */
    bool check_all;             /* leave no payload provisional */
    bool end_proven;            /* an entry was accepted there before: it isn't where a writer may have died */
    unsigned threads;           /* 0: as many as there are cores */
    uint64_t stretch_len;       /* 0: as crew.c likes it; what threads take at a time, at most STRETCH_LEN_MAX */
    uint64_t floor_off;         /* 0; or an entry is known to end here, and what lies below is known too */
};

struct recovered {
    struct index index;
    struct layout *layout;
    uint64_t tail_off; /* where the newest accepted entry, or damage behind it, ends */
    uint64_t entries;  /* that hold */
    uint64_t live_keys;
    uint64_t live_bytes;
    uint64_t live_stored; /* what live entries take in a compacted file (entry_stored_len) */
    uint64_t damaged_keys;
};

/**
 * Recover the `len` bytes at `base`; with a `floor_off`, those above it: figures and index are of the entries there.
 * Returns: RD_OK, to be given back with recovered_fini; what lies behind `tail_off` is torn. RD_E_NOT_STORE;
 * RD_E_ALIGNMENT with `*out_fault_off`; RD_E_TRUNCATED, RD_E_CANCELLED, RD_E_NOMEM. RD_E_UNAVAILABLE: the entries don't
 * end at the floor, or something above it is damaged; recover everything.
 */
RD_MUST_CHECK rd_err recover(const uint8_t *base, uint64_t len, const struct recover_options *options,
                             uint64_t *out_fault_off, struct recovered *out_recovered);
void recovered_fini(struct recovered *recovered);

#endif
