/* What is measured, and what of it is printed: two tables (plan.c). */
#ifndef RDRIVE_BENCH_PLAN_H
#define RDRIVE_BENCH_PLAN_H

#include "series.h"

#include <stdint.h>

enum source {
    SOURCE_STORE, /* a store of `keys` keys, made once and in memory */
    SOURCE_INDEX, /* the same, with a snapshot index */
    SOURCE_COLD,  /* the first, not in memory */
    SOURCE_NEW,   /* a file that isn't there yet */
};

/* One measurement, by each of its sides in turn. */
struct task {
    const char *name;
    const char *verb;
    unsigned sides; /* bits */
    enum source source;
    uint64_t keys, count; /* of a full-sized run */
    bool once;            /* the same each time: one round */
    bool full;            /* only with --full */
};

enum unit {
    UNIT_RATE,  /* nanoseconds, shown as millions a second; more is better */
    UNIT_KRATE, /* the same, in thousands */
    UNIT_GAIN,  /* a plain number; more is better */
    UNIT_MS,    /* nanoseconds; less is better, from here on */
    UNIT_US,    /* nanoseconds */
    UNIT_RATIO, /* a plain number */
    UNIT_BYTES,
};

/* One line of the table. Its verdict is on `--verify first`. 0: no such target. */
struct row {
    const char *group;
    const char *title;
    const char *task;
    const char *figure;
    const char *crate_figure; /* where the crate's has another name; else NULL */
    enum unit unit;
    double by_crate, by_bare; /* of speeds at least; of times and memory at most */
    double limit;             /* the figure itself, in the row's unit */
};

struct group {
    const char *name;
    const char *title;
};

extern const struct task tasks[];
extern const size_t task_count;
extern const struct row rows[];
extern const size_t row_count;
extern const struct group groups[];
extern const size_t group_count;

#endif
