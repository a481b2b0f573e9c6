/* Memory of one call: taken piece by piece, given back all at once. One thread. */
#ifndef ARENA_H
#define ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA_FIRST 1024u /* lies inside the arena: most calls allocate nothing */
#define ARENA_BLOCK 8192u

/* What all calls together may take from the heap (--max-memory). Any thread. */
struct budget {
    atomic_size_t used;
    size_t max;
};

/* Returns: false where that would be more than `max`. */
bool budget_take(struct budget *budget, size_t bytes);
void budget_give(struct budget *budget, size_t bytes);

struct arena {
    struct arena_block *blocks;
    uint8_t *next;
    size_t left;
    size_t limit;          /* bytes that may still be taken from the heap */
    struct budget *budget; /* NULL: none */
    bool refused;          /* the budget was at its end */
    _Alignas(16) uint8_t first[ARENA_FIRST];
};

void arena_init(struct arena *arena, struct budget *budget);

/* Give all of it back; the arena is as after arena_init. */
void arena_fini(struct arena *arena);

/* Let it take at most `bytes` from the heap from now on; SIZE_MAX: as many as there are, which is how it begins. */
void arena_limit(struct arena *arena, size_t bytes);

/* `bytes` at 16-byte alignment, or NULL. Lives until arena_fini. */
void *arena_alloc(struct arena *arena, size_t bytes);

#endif
