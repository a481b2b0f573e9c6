/* The background scrub: the payloads that opening left unchecked, one slice at a time, so that what their damage hides
   is found before anybody asks for it. */
#ifndef RD_SCRUB_H
#define RD_SCRUB_H

#include "format.h"
#include "layout.h"

/* Where it is. Zeroed is at the start. */
struct scrub {
    struct layout *layout; /* whose payloads are checked: a reference, so that no other can have its address */
    size_t counted;        /* of its provisional entries, those that are in bytes_total */
    size_t next;           /* the first that was not begun */
    bool inside;           /* `entry` is begun: its payload is checked up to `at` */
    struct entry entry;
    uint64_t at;
    uint32_t crc;
    _Atomic uint64_t bytes_done, bytes_total; /* read by others */
};

enum scrub_result {
    SCRUB_GOES_ON,
    SCRUB_FAILED, /* a payload does; recover around it, then go on */
    SCRUB_DONE,   /* nothing is left, and nothing will come */
};

/**
 * Check up to `slice_max` bytes. `*out_bytes`: how many were, always written. A store whose layout has changed since
 * the last step (compacted, recovered) is begun anew.
 */
enum scrub_result scrub_step(struct scrub *scrub, rd_store *store, uint64_t slice_max, uint64_t *out_bytes);

void scrub_fini(struct scrub *scrub);

#endif
