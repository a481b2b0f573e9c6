#include "histogram.h"

#include <math.h>

/*
 * Values below 2 * PARTS are their own buckets. A larger one, of B bits, is shifted down to PART_BITS + 1 bits, which
 * leaves its leading one and the part of its power of two that it lies in; the shift says which power that is.
 */
static size_t bucket_of(uint64_t value)
{
    if (value >> HISTOGRAM_VALUE_BITS != 0)
        return HISTOGRAM_BUCKETS - 1;
    if (value < 2 * HISTOGRAM_PARTS)
        return (size_t)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_PART_BITS;
    return (size_t)shift * HISTOGRAM_PARTS + (size_t)(value >> shift);
}

static unsigned shift_of(size_t bucket)
{
    return bucket < 2 * HISTOGRAM_PARTS ? 0 : (unsigned)(bucket / HISTOGRAM_PARTS) - 1;
}

uint64_t histogram_low(size_t bucket)
{
    unsigned shift = shift_of(bucket);
    return (uint64_t)(bucket - (size_t)shift * HISTOGRAM_PARTS) << shift;
}

uint64_t histogram_high(size_t bucket)
{
    return histogram_low(bucket) + ((UINT64_C(1) << shift_of(bucket)) - 1);
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    if (histogram->count == 0 || value < histogram->min)
        histogram->min = value;
    if (value > histogram->max)
        histogram->max = value;
    histogram->count++;
    histogram->sum += value;
    histogram->buckets[bucket_of(value)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    if (from->count == 0)
        return;
    if (into->count == 0 || from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
    into->count += from->count;
    into->sum += from->sum;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
    double rank = ceil(percent / 100.0 * (double)histogram->count);
    uint64_t below = 0;
    if (histogram->count == 0)
        return 0;
    for (size_t i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
        below += histogram->buckets[i];
        if (below > 0 && (double)below >= rank)
            return histogram_high(i) < histogram->max ? histogram_high(i) : histogram->max;
    }
    return histogram->max; /* the last bucket has no upper end */
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->count == 0 ? 0.0 : (double)histogram->sum / (double)histogram->count;
}
