/* A read-only window on the store's file, larger than the file, so that appends need no new one. It goes with its last
   pin. */
#ifndef RD_MAPPING_H
#define RD_MAPPING_H

#include "file.h"
#include "layout.h"

/* Threads that take and return pins of their own share no line with others, up to so many. */
#define PIN_SHARES 32u

/* A share of a mapping's pins. Who holds a pin of a share may take more of the same share, and no other. */
struct pin {
    _Alignas(64) atomic_size_t count;
    struct mapping *mapping;
};

struct mapping {
    const uint8_t *base;
    size_t reserved; /* address space; bytes beyond the file's end must not be touched */
    uint64_t
        generation; /* of the store when it was made: an old snapshot's flags are not put on a new file's entries */
    struct layout *layout;
    atomic_size_t shares_left; /* shares that have pins */
    struct pin shares[PIN_SHARES];
};

/**
 * Map the file with room to grow: max(64 GiB, 4 * `bytes`), halved down to `bytes` where limits refuse, and once more
 * then. `layout` gets one more reference; NULL is fine. Returns: RD_OK with a pin in each share, the caller's;
 * RD_E_NOMEM, RD_E_IO.
 */
RD_MUST_CHECK rd_err mapping_create(const struct file *file, uint64_t bytes, uint64_t generation, struct layout *layout,
                                    struct mapping **out_mapping);

/* Return the pins that mapping_create gave: nobody takes a first pin of a share any more. NULL is fine. */
void mapping_release(struct mapping *mapping);

/* The pin of the thread of this number. Requires: the mapping isn't released while this runs. */
static inline struct pin *mapping_pin(struct mapping *mapping, unsigned number)
{
    struct pin *pin = &mapping->shares[number % PIN_SHARES];
    atomic_fetch_add_explicit(&pin->count, 1, memory_order_relaxed);
    return pin;
}

/* As many more. */
static inline void pin_more(struct pin *pin, size_t count)
{
    atomic_fetch_add_explicit(&pin->count, count, memory_order_relaxed);
}

/* The last of all unmaps. Any thread. NULL is fine. */
void pin_return(struct pin *pin, size_t count);

#endif
