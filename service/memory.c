#include "memory.h"
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#define LOOK_MS     1000
#define LOOK_MS_MAX 64000
#define HELD_MIN    ((uint64_t)4 << 20) /* held beyond what is in use: not worth the trouble below this */

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
    static int64_t wait_ms = LOOK_MS;
    struct mallinfo2 info = mallinfo2();
    uint64_t held = memory_held();
    if (held < info.uordblks + info.hblkhd + HELD_MIN) {
        wait_ms = LOOK_MS;
        return wait_ms;
    }
    malloc_trim(0);
    /* what trimming doesn't bring is stacks and fragments: look ever more rarely */
    if (memory_held() + HELD_MIN / 4 > held)
        wait_ms = 2 * wait_ms < LOOK_MS_MAX ? 2 * wait_ms : LOOK_MS_MAX;
    else
        wait_ms = LOOK_MS;
    return wait_ms;
}
