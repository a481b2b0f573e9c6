/** Every offset of some bytes at which an entry holds (the definition before R-01), found by trying them all. */
#ifndef RDRIVE_TESTS_HOLDS_H
#define RDRIVE_TESTS_HOLDS_H

#include "image.h"

struct hold {
    size_t end_off;
    size_t link; /* F-04 */
    size_t start_off;
    uint64_t hash;
};

struct holds {
    struct hold *list; /* ascending */
    size_t count;
    size_t capacity;
};

/* With `alignment` 64 the format's own; 16 and 1 are those of E-13. */
void holds_find(rd_span bytes, size_t alignment, struct holds *out_holds);
void holds_fini(struct holds *holds);

/* Returns: the one at `end_off`, or NULL. */
const struct hold *holds_at(const struct holds *holds, uint64_t end_off);

/* Whether following links from `end_off` down, over entries that hold, arrives at `link`. */
bool holds_reach(const struct holds *holds, uint64_t end_off, uint64_t link);

#endif
