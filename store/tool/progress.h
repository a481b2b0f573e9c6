/** A progress bar on stderr, where stderr is a terminal; elsewhere nothing is ever printed. */
#ifndef RDRIVE_TOOL_PROGRESS_H
#define RDRIVE_TOOL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool on;
    bool drawn;
    const char *verb;
    uint64_t total; /* of what `done` counts; 0: unknown, and no bar but the count alone */
    uint64_t drawn_ns;
};

void progress_init(struct progress *progress, const char *verb, uint64_t total);

/** `done` of the total, `entries` of entries. Cheap: the clock is asked, and a few times a second something drawn. */
void progress_step(struct progress *progress, uint64_t done, uint64_t entries);

/** Draw it now, at its start: for work that a single call of the engine does, and that says nothing before it is on. */
void progress_show(struct progress *progress);

/** Wipe the bar: before any other line, and at the end. */
void progress_clear(struct progress *progress);

#endif
