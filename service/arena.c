#include "arena.h"
#include <stdlib.h>

struct arena_block {
    _Alignas(16) struct arena_block *next;
};

void arena_init(struct arena *arena)
{
    arena->blocks = NULL;
    arena->next = arena->first;
    arena->left = sizeof(arena->first);
    arena->budget = SIZE_MAX;
}

void arena_fini(struct arena *arena)
{
    while (arena->blocks != NULL) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
    arena_init(arena);
}

void arena_limit(struct arena *arena, size_t bytes)
{
    arena->budget = bytes;
}

static struct arena_block *add_block(struct arena *arena, size_t bytes)
{
    struct arena_block *block = bytes <= arena->budget ? malloc(sizeof(*block) + bytes) : NULL;
    if (block == NULL)
        return NULL;
    if (arena->budget != SIZE_MAX)
        arena->budget -= bytes;
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
