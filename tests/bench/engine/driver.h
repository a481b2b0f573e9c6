/* Runs the measurements, each in a process of its own, the sides by turns, and prints the table. */
#ifndef RDRIVE_BENCH_DRIVER_H
#define RDRIVE_BENCH_DRIVER_H

#include <stdbool.h>
#include <stddef.h>

struct bench_options {
    const char *peer;    /* the program of tests/bench/reference, or NULL */
    const char *no_peer; /* why not */
    const char *rows;    /* groups, comma-separated; NULL: all */
    const char *folder;
    size_t rounds;
    bool full;
    bool smoke; /* a five-hundredth of everything, and no verdicts: whether answers are right */
};

/* Whether each word of the comma-separated list is a group of rows. */
bool bench_rows_known(const char *list);

/* Returns: the exit status: 0, or 1 where a target was missed. Ends the process where a measurement fails. */
int bench_run(const struct bench_options *options);

#endif
