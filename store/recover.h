/* From a file's bytes to its index: the rules of the format, as far as a torn tail. */
#ifndef RD_RECOVER_H
#define RD_RECOVER_H

#include "index.h"
#include <rdrive/store.h>

/* Larger payloads are provisional: opening trusts their links and leaves their CRC to the first read. */
#define RECOVER_CHECK_MAX UINT64_C(65536)

struct recovered {
    uint64_t tail_off; /* where the newest entry that holds ends */
    uint64_t entries;
    uint64_t live_keys;
    uint64_t live_bytes;
};

/**
 * Walk `len` bytes at `base` from the end to the start and put what holds into `index`, newest first.
 * Returns: RD_OK; what lies behind `tail_off` is torn. RD_E_NOT_STORE, RD_E_ALIGNMENT, RD_E_DAMAGED with
 * `*out_fault_off` where the first thing that doesn't hold ends; RD_E_CANCELLED; RD_E_NOMEM. Then `index` is to be
 * thrown away.
 */
RD_MUST_CHECK rd_err recover(const uint8_t *base, uint64_t len, const atomic_bool *cancel, struct index *index,
                             uint64_t *out_fault_off, struct recovered *out_recovered);

#endif
