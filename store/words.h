/* What compaction and repair gather of the index: eight bytes a key. */
#ifndef RD_WORDS_H
#define RD_WORDS_H

#include "store_internal.h"

struct numbers {
    uint64_t *at;
    size_t count;
    size_t capacity;
};

/* Returns: RD_OK, RD_E_NOMEM. */
RD_MUST_CHECK rd_err numbers_add(struct numbers *numbers, uint64_t number);
void numbers_fini(struct numbers *numbers);

/* Ascending. */
void numbers_sort(struct numbers *numbers);

/* Whether a sorted list has it. */
bool numbers_have(const struct numbers *numbers, uint64_t number);

/**
 * Gather the trailer offsets below `below_off` of the newest entries of live keys, sorted; and, where `damaged` isn't
 * NULL, the hashes of keys whose newest entry is damaged, sorted. Each key is seen at some moment during the call:
 * neither readers nor writers wait for more than a glance at a few of them.
 * Returns: RD_OK, both to be given back; RD_E_NOMEM; RD_E_UNAVAILABLE the store is of another generation by now.
 */
RD_MUST_CHECK rd_err words_gather(rd_store *store, uint64_t generation, uint64_t below_off, struct numbers *out_live,
                                  struct numbers *out_damaged);

#endif
