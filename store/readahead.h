/* A thread that has the system read what is about to be walked, from a file's end down. */
#ifndef RD_READAHEAD_H
#define RD_READAHEAD_H

#include <rdrive/error.h>
#include <stdbool.h>
#include <stdint.h>

struct readahead;

/* Whether all of [begin_off, end_off) is in memory, as far as the system says: of another's file it says nothing else.
   Threads: any. */
bool is_resident(const uint8_t *base, uint64_t begin_off, uint64_t end_off);

/**
 * Begin with what lies below `end_off`, in a mapping at `base`; nothing below `floor_off`. Until it is stopped the
 * range is mapped in huge pages where the system can: then it reads as much at a time, in any order.
 * Returns: RD_OK; RD_E_NOMEM where memory or a thread is refused.
 */
RD_MUST_CHECK rd_err readahead_start(const uint8_t *base, uint64_t floor_off, uint64_t end_off,
                                     struct readahead **out_readahead);

/* What lies above `begin_off` will be wanted soon. */
void readahead_want(struct readahead *readahead, uint64_t begin_off);

/* Ends the thread, as soon as the system has what it was asked for. NULL is fine. */
void readahead_stop(struct readahead *readahead);

/* Have the pages of a range there at once rather than fault by fault, where the system knows how. */
void populate_range(const uint8_t *base, uint64_t begin_off, uint64_t end_off);

#endif
