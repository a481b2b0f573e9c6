/* The table, and the machine it is of. */
#ifndef RDRIVE_BENCH_REPORT_H
#define RDRIVE_BENCH_REPORT_H

#include "plan.h"

/* The machine, as far as figures depend on it; `folder` is where the files lie. */
void report_machine(const char *folder);

/* Results are `results[task * SIDES + side]`; groups are printed where `wanted[group]`, rows where their task was run.
 * Returns: how many targets were missed. With `judged` off nothing is held to one. */
size_t report_table(const struct figures *results, const bool *wanted, bool judged);

#endif
