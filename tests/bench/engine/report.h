/* The table, and the machine it is of. */
#ifndef RDRIVE_BENCH_REPORT_H
#define RDRIVE_BENCH_REPORT_H

#include "plan.h"

/* The machine, as far as figures depend on it; `folder` is where the files lie. */
void report_machine(const char *folder);

/* Results are `results[task * SIDES + side]`. Rows whose task was not run are left out.
 * Returns: how many targets were missed. With `judged` off nothing is held to one. */
size_t report_table(const struct figures *results, bool judged);

#endif
