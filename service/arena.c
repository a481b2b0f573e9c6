#include "arena.h"
#include <stdlib.h>

struct arena_block {
    _Alignas(16) struct arena_block *next;
    size_t bytes;
};

void arena_init(struct arena *arena, struct budget *budget)
{
    arena->blocks = NULL;
    arena->next = arena->first;
    arena->left = sizeof(arena->first);
    arena->limit = SIZE_MAX;
    arena->budget = budget;
    arena->refused = false;
}

bool budget_take(struct budget *budget, size_t bytes)
{
    if (atomic_fetch_add(&budget->used, bytes) + bytes <= budget->max)
        return true;
    atomic_fetch_sub(&budget->used, bytes);
    return false;
}

void budget_give(struct budget *budget, size_t bytes)
{
    atomic_fetch_sub(&budget->used, bytes);
}

static void block_free(struct arena *arena, struct arena_block *block)
{
    if (arena->budget != NULL)
        budget_give(arena->budget, block->bytes);
    free(block);
}

void arena_fini(struct arena *arena)
{
    while (arena->blocks != NULL) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        block_free(arena, block);
    }
    arena_init(arena, arena->budget);
}

void arena_limit(struct arena *arena, size_t bytes)
{
    arena->limit = bytes;
}

static struct arena_block *add_block(struct arena *arena, size_t bytes)
{
    if (bytes > arena->limit)
        return NULL;
    if (arena->budget != NULL && !budget_take(arena->budget, bytes)) {
        arena->refused = true;
        return NULL;
    }
    struct arena_block *block = malloc(sizeof(*block) + bytes);
    if (block == NULL) {
        if (arena->budget != NULL)
            budget_give(arena->budget, bytes);
        return NULL;
    }
    if (arena->limit != SIZE_MAX)
        arena->limit -= bytes;
    block->bytes = bytes;
    block->next = arena->blocks;
    arena->blocks = block;
    return block;
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes > arena->left) {
        /* a large piece gets a block of its own, and the current one goes on */
        size_t block_bytes = bytes > ARENA_BLOCK / 2 ? bytes : ARENA_BLOCK;
        struct arena_block *block = add_block(arena, block_bytes);
        if (block == NULL)
            return NULL;
        if (block_bytes == bytes)
            return block + 1;
        arena->next = (uint8_t *)(block + 1);
        arena->left = block_bytes;
    }
    void *piece = arena->next;
    arena->next += bytes;
    arena->left -= bytes;
    return piece;
}
