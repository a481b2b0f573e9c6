#include "memory.h"
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#define LOOK_MS  1000
#define HELD_MIN ((uint64_t)4 << 20) /* held beyond what is in use: not worth the trouble below this */

uint64_t memory_held(void)
{
    unsigned long long resident = 0;
    unsigned long long shared = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    int fields = fscanf(file, "%*u %llu %llu", &resident, &shared);
    fclose(file);
    return fields == 2 && resident > shared ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

int64_t memory_give_back(void)
{
    static uint64_t kept; /* what trimming didn't bring when it was last tried: stacks and fragments */
    struct mallinfo2 info = mallinfo2();
    uint64_t used = info.uordblks + info.hblkhd;
    uint64_t held = memory_held();
    uint64_t idle = held > used ? held - used : 0;
    if (idle < kept)
        kept = idle;
    if (idle < kept + HELD_MIN)
        return LOOK_MS;
    malloc_trim(0);
    held = memory_held();
    kept = held > used ? held - used : 0;
    return LOOK_MS;
}
