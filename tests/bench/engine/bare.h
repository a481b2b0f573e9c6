/* What the bare loops share: a table of slots over a mapped store. */
#ifndef RDRIVE_BENCH_BARE_H
#define RDRIVE_BENCH_BARE_H

#include <stddef.h>
#include <stdint.h>

struct bare_slot {
    uint64_t hash, trailer_off; /* 0: empty, no trailer is there */
};

struct bare {
    const uint8_t *file;
    size_t file_len;
    struct bare_slot *slots;
    size_t slot_count;
};

/* Left to the end of the process. */
void bare_load(struct bare *bare, const char *path, uint64_t keys);
/* Format and hash key i, look it up in `bare`, check its value and return it. */
uint64_t bare_read_one(void *bare, uint64_t i);

#endif
