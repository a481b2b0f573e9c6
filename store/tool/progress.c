#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROGRESS_EVERY_NS UINT64_C(100000000)
#define PROGRESS_CELLS    40

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void progress_init(struct progress *progress, const char *verb, uint64_t total)
{
    *progress = (struct progress){.on = isatty(STDERR_FILENO) == 1, .verb = verb, .total = total};
    if (progress->on)
        progress->drawn_ns = now_ns(); /* what is done within the first interval shows no bar at all */
}

static void draw(struct progress *progress, uint64_t done, uint64_t entries)
{
    progress->drawn = true;
    if (progress->total == 0) {
        (void)fprintf(stderr, "\r\033[K%s %" PRIu64 " entries", progress->verb, entries);
        return;
    }
    double part = done < progress->total ? (double)done / (double)progress->total : 1.0;
    char cells[PROGRESS_CELLS + 1];
    size_t full = (size_t)(part * PROGRESS_CELLS);
    memset(cells, '#', full);
    memset(cells + full, '.', PROGRESS_CELLS - full);
    cells[PROGRESS_CELLS] = '\0';
    (void)fprintf(stderr, "\r\033[K%s [%s] %3.0f%% %" PRIu64 " entries", progress->verb, cells, part * 100.0, entries);
}

void progress_step(struct progress *progress, uint64_t done, uint64_t entries)
{
    if (!progress->on)
        return;
    uint64_t now = now_ns();
    if (now - progress->drawn_ns < PROGRESS_EVERY_NS)
        return;
    progress->drawn_ns = now;
    draw(progress, done, entries);
}

void progress_show(struct progress *progress)
{
    if (progress->on)
        draw(progress, 0, 0);
}

void progress_clear(struct progress *progress)
{
    if (progress->drawn)
        (void)fprintf(stderr, "\r\033[K");
    progress->drawn = false;
}
