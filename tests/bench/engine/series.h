/* What the measurements of one side of one task printed, round by round. */
#ifndef RDRIVE_BENCH_SERIES_H
#define RDRIVE_BENCH_SERIES_H

#include <stdbool.h>
#include <stddef.h>

#define ROUNDS_MAX  101u
#define FIGURES_MAX 48u

enum side { SIDE_CRATE, SIDE_FIRST, SIDE_ALWAYS, SIDE_OFF, SIDE_BARE, SIDES };

struct series {
    char name[32];
    double rounds[ROUNDS_MAX];
    size_t count;
};

struct figures {
    struct series series[FIGURES_MAX];
    size_t count;
};

struct spread {
    double median, least, most;
};

void figures_add(struct figures *figures, const char *name, double number);
/* Returns: NULL where there is none. */
const struct series *figures_find(const struct figures *figures, const char *name);
struct spread series_spread(const struct series *series);
/* Of what `above` is by `below`, round by round. */
struct spread series_ratio(const struct series *above, const struct series *below);

#endif
