/* Memory of one call: taken piece by piece, given back all at once. One thread. */
#ifndef ARENA_H
#define ARENA_H

#include <stddef.h>
#include <stdint.h>

#define ARENA_FIRST 1024u /* lies inside the arena: most calls allocate nothing */
#define ARENA_BLOCK 8192u

struct arena {
    struct arena_block *blocks;
    uint8_t *next;
    size_t left;
    _Alignas(16) uint8_t first[ARENA_FIRST];
};

void arena_init(struct arena *arena);
void arena_fini(struct arena *arena);

/* `bytes` at 16-byte alignment, or NULL. Lives until arena_fini. */
void *arena_alloc(struct arena *arena, size_t bytes);

#endif
