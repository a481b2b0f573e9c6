#include "memory.h"
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LOOK_MS  1000
#define HELD_MIN ((uint64_t)4 << 20) /* held beyond what is in use: not worth the trouble below this */

/* Free bytes at the end of an arena, which malloc_trim passes over in all but the first, and the largest block of one.
 */
#define END_MAX   (4 << 20)
#define BLOCK_MAX (4 << 20)

void memory_configure(void)
{
    if (getenv("MALLOC_TRIM_THRESHOLD_") != NULL || getenv("MALLOC_MMAP_THRESHOLD_") != NULL)
        return; /* somebody knows better */
    mallopt(M_TRIM_THRESHOLD, END_MAX);
    mallopt(M_MMAP_THRESHOLD, BLOCK_MAX);
}

static int statm = -1; /* kept open: what a shortage of descriptors goes with is looked at all the same */

bool memory_prepare(void)
{
    if (statm < 0)
        statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    return statm >= 0;
}

uint64_t memory_held(void)
{
    char text[128];
    unsigned long long resident = 0;
    unsigned long long shared = 0;
    ssize_t len = pread(statm, text, sizeof(text) - 1, 0);
    text[len < 0 ? 0 : len] = '\0';
    int fields = sscanf(text, "%*u %llu %llu", &resident, &shared);
    return fields == 2 && resident > shared ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

/* Held beyond what is in use. */
static uint64_t idle_bytes(uint64_t *out_used)
{
    struct mallinfo2 info = mallinfo2();
    uint64_t used = info.uordblks + info.hblkhd;
    uint64_t held = memory_held();
    *out_used = used;
    return held > used ? held - used : 0;
}

int64_t memory_give_back(void)
{
    /* What trimming didn't bring when it was last tried: stacks and fragments; and what was in use then, since among
     * less that is in use there are fewer fragments. */
    static uint64_t kept;
    static uint64_t used_then;
    uint64_t used;
    uint64_t idle = idle_bytes(&used);
    if (idle < kept)
        kept = idle;
    if (idle < HELD_MIN || (idle < kept + HELD_MIN && used > used_then / 2))
        return LOOK_MS;
    malloc_trim(0);
    kept = idle_bytes(&used_then);
    return LOOK_MS;
}
