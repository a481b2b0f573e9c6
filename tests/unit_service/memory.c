/* Allocations of code that is linked statically, counted and failed: the linker sends them here (--wrap). */
#include "message.h"

#include <stdlib.h>
#include <string.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);

static uint64_t left = UINT64_MAX;
static bool failed;

void memory_fail_after(uint64_t count)
{
    left = count;
    failed = false;
}

bool memory_has_failed(void)
{
    return failed;
}

static bool runs_out(void)
{
    if (left == UINT64_MAX)
        return false;
    if (left > 0) {
        left--;
        return false;
    }
    failed = true;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return runs_out() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return runs_out() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return runs_out() ? NULL : __real_realloc(old, size);
}

/* The options' pieces, which stay for the life of a process: here there are several lives in one. */
char *__wrap_strdup(const char *text)
{
    static char *kept[16];
    static size_t kept_count;
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    if (copy == NULL)
        return NULL;
    kept[kept_count++ % (sizeof kept / sizeof kept[0])] = copy;
    return memcpy(copy, text, size);
}
