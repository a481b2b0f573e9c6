/* A read-only window on the store's file, larger than the file, so that appends need no new one. Counted by its pins.
 */
#ifndef RD_MAPPING_H
#define RD_MAPPING_H

#include "file.h"
#include "layout.h"

struct mapping {
    const uint8_t *base;
    size_t reserved; /* address space; bytes beyond the file's end must not be touched */
    uint64_t
        generation; /* of the store when it was made: an old snapshot's flags are not put on a new file's entries */
    struct layout *layout;
    atomic_size_t pins;
};

/**
 * Map the file with room to grow: max(64 GiB, 4 * `bytes`), halved down to `bytes` where limits refuse. `layout` gets
 * one more reference; NULL is fine.
 * Returns: RD_OK with one pin, the caller's; RD_E_NOMEM, RD_E_IO.
 */
RD_MUST_CHECK rd_err mapping_create(const struct file *file, uint64_t bytes, uint64_t generation, struct layout *layout,
                                    struct mapping **out_mapping);

/* Requires: the caller has a pin, or holds what keeps the store's own. */
static inline void mapping_pin(struct mapping *mapping, size_t count)
{
    atomic_fetch_add_explicit(&mapping->pins, count, memory_order_relaxed);
}

/* The last pin's return unmaps. Any thread. NULL is fine. */
void mapping_unpin(struct mapping *mapping, size_t count);

#endif
