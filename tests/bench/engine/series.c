#include "series.h"
#include "child.h"

#include <stdlib.h>
#include <string.h>

void figures_add(struct figures *figures, const char *name, double number)
{
    struct series *series = (struct series *)figures_find(figures, name);
    if (series == NULL) {
        CHECK(figures->count < FIGURES_MAX && strlen(name) < sizeof series->name);
        series = &figures->series[figures->count++];
        memcpy(series->name, name, strlen(name) + 1);
    }
    CHECK(series->count < ROUNDS_MAX);
    series->rounds[series->count++] = number;
}

const struct series *figures_find(const struct figures *figures, const char *name)
{
    for (size_t i = 0; i < figures->count; i++)
        if (strcmp(figures->series[i].name, name) == 0)
            return &figures->series[i];
    return NULL;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

struct spread series_spread(const struct series *series)
{
    double sorted[ROUNDS_MAX];
    size_t count = series->count;
    memcpy(sorted, series->rounds, count * sizeof sorted[0]);
    qsort(sorted, count, sizeof sorted[0], compare);
    double median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
    return (struct spread){median, sorted[0], sorted[count - 1]};
}

struct spread series_ratio(const struct series *above, const struct series *below)
{
    struct series ratio = {.count = above->count < below->count ? above->count : below->count};
    for (size_t i = 0; i < ratio.count; i++)
        ratio.rounds[i] = above->rounds[i] / below->rounds[i];
    return series_spread(&ratio);
}
