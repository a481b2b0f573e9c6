/**
 * How often which value came, in bounded memory: each power of two is divided into HISTOGRAM_PARTS equal buckets, so a
 * value is known to within 1/HISTOGRAM_PARTS of itself, and exactly below twice that. Adding is a shift and an
 * increment. A zeroed histogram is empty and needs no init. Threads: one a histogram; merge when they are done.
 */
#ifndef RDRIVE_TOOL_HISTOGRAM_H
#define RDRIVE_TOOL_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_PART_BITS  7
#define HISTOGRAM_PARTS      (1u << HISTOGRAM_PART_BITS)
#define HISTOGRAM_VALUE_BITS 42 /* 73 minutes in nanoseconds; what is larger is in the last bucket */
#define HISTOGRAM_BUCKETS    ((size_t)(HISTOGRAM_VALUE_BITS - HISTOGRAM_PART_BITS + 1) * HISTOGRAM_PARTS)

struct histogram {
    uint64_t count;
    uint64_t sum, min, max; /* exact; min and max are 0 while `count` is */
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);

/** The least and the greatest value that fall into a bucket; of the last one, the greatest it tells apart. */
uint64_t histogram_low(size_t bucket);
uint64_t histogram_high(size_t bucket);

/**
 * A value that `percent` of all values don't exceed: that of rank ceil(percent / 100 * count), the least being rank 1,
 * rounded up to its bucket's greatest and never beyond the maximum. 0 where the histogram is empty.
 */
uint64_t histogram_percentile(const struct histogram *histogram, double percent);

double histogram_mean(const struct histogram *histogram);

#endif
