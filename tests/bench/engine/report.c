#include "report.h"
#include "child.h"

#include <string.h>

/* Where the row's figure of one side is. Returns: NULL where there is none. */
static const struct series *find(const struct figures *results, const struct row *row, enum side side)
{
    for (size_t task = 0; task < task_count; task++)
        if (strcmp(tasks[task].name, row->task) == 0)
            return figures_find(&results[task * SIDES + side],
                                side == SIDE_CRATE && row->crate_figure != NULL ? row->crate_figure : row->figure);
    die("no task %s", row->task);
}

static double shown(enum unit unit, double number)
{
    switch (unit) {
    case UNIT_RATE: return 1e3 / number;
    case UNIT_KRATE: return 1e6 / number;
    case UNIT_MS: return number / 1e6;
    case UNIT_US: return number / 1e3;
    case UNIT_GAIN:
    case UNIT_RATIO:
    case UNIT_BYTES: break;
    }
    return number;
}

static const char *unit_name(enum unit unit)
{
    switch (unit) {
    case UNIT_RATE: return "M/s";
    case UNIT_KRATE: return "k/s";
    case UNIT_MS: return "ms";
    case UNIT_US: return "us";
    case UNIT_GAIN:
    case UNIT_RATIO: return "x";
    case UNIT_BYTES: return "B";
    }
    return "";
}

static bool more_is_better(enum unit unit)
{
    return unit <= UNIT_GAIN;
}

/* About four digits, whatever the size. */
static void print_number(int width, double number)
{
    int decimals = number >= 1000 ? 0 : number >= 100 ? 1 : number >= 10 ? 2 : 3;
    printf("%*.*f", width, decimals, number);
}

/* 15 characters. */
static void print_range(double least, double most)
{
    printf(" (");
    print_number(5, least);
    printf("..");
    print_number(5, most);
    printf(")");
}

static void print_figure_of(const struct row *row, const struct series *series)
{
    if (series == NULL)
        printf("%9s", "-");
    else
        print_number(9, shown(row->unit, series_spread(series).median));
}

/* A ratio: of speeds where more is better, else of what is measured. Returns: whether it is missed. */
static bool print_ratio(const struct row *row, const struct series *ours, const struct series *other, double target)
{
    if (ours == NULL || other == NULL || row->unit == UNIT_GAIN || row->unit == UNIT_RATIO) {
        printf("  %28s", "");
        return false;
    }
    bool rate = row->unit == UNIT_RATE || row->unit == UNIT_KRATE;
    struct spread ratio = rate ? series_ratio(other, ours) : series_ratio(ours, other);
    printf("  ");
    print_number(6, ratio.median);
    print_range(ratio.least, ratio.most);
    if (target == 0) {
        printf("%7s", "");
        return false;
    }
    printf(" %s%-4.*f", more_is_better(row->unit) ? ">=" : "<=", target < 0.1 ? 3 : 2, target);
    return more_is_better(row->unit) ? ratio.median < target : ratio.median > target;
}

static bool print_limit(const struct row *row, const struct series *ours)
{
    if (row->limit == 0 || ours == NULL) {
        printf("  %8s", "");
        return false;
    }
    printf("  %s%-6.4g", more_is_better(row->unit) ? ">=" : "<=", shown(row->unit, row->limit));
    double median = series_spread(ours).median;
    return more_is_better(row->unit) ? median < row->limit : median > row->limit;
}

/* Returns: whether a target was missed. */
static bool print_row(const struct figures *results, const struct row *row, bool judged)
{
    const struct series *of[SIDES];
    bool any = false;
    for (enum side side = 0; side < SIDES; side++) {
        of[side] = find(results, row, side);
        any = any || of[side] != NULL;
    }
    if (!any)
        return false;
    printf("%-41s %3s", row->title, unit_name(row->unit));
    for (enum side side = 0; side < SIDES; side++) {
        print_figure_of(row, of[side]);
        if (side == SIDE_FIRST && of[side] != NULL) {
            struct spread spread = series_spread(of[side]);
            double least = shown(row->unit, spread.least), most = shown(row->unit, spread.most);
            print_range(least < most ? least : most, least < most ? most : least);
        } else if (side == SIDE_FIRST) {
            printf("%15s", "");
        }
    }
    bool missed = print_ratio(row, of[SIDE_FIRST], of[SIDE_CRATE], row->by_crate);
    missed |= print_ratio(row, of[SIDE_FIRST], of[SIDE_BARE], row->by_bare);
    missed |= print_limit(row, of[SIDE_FIRST]);
    bool target = (row->by_crate != 0 && of[SIDE_CRATE] != NULL) || (row->by_bare != 0 && of[SIDE_BARE] != NULL) ||
                  row->limit != 0;
    printf("  %s\n", !judged || !target || of[SIDE_FIRST] == NULL ? "" : missed ? "MISSED" : "met");
    return missed;
}

static bool group_has_rows(const struct figures *results, const struct group *group)
{
    for (size_t i = 0; i < row_count; i++)
        for (enum side side = 0; side < SIDES && strcmp(rows[i].group, group->name) == 0; side++)
            if (find(results, &rows[i], side) != NULL)
                return true;
    return false;
}

size_t report_table(const struct figures *results, const bool *wanted, bool judged)
{
    size_t missed = 0;
    for (size_t group = 0; group < group_count; group++) {
        if (!wanted[group] || !group_has_rows(results, &groups[group]))
            continue;
        printf("\n%-41s %3s%9s%9s%15s%9s%9s%9s  %-21s %-6s  %-21s %-6s  %s\n", groups[group].title, "", "crate",
               "first", "(min..max)", "always", "off", "bare", " first / crate", "must", " first / bare", "must",
               "must");
        for (size_t i = 0; i < row_count; i++)
            if (strcmp(rows[i].group, groups[group].name) == 0)
                missed += print_row(results, &rows[i], judged);
    }
    return judged ? missed : 0;
}
