/** Which key comes next: random numbers, and ranks that follow Zipf's law. The same seed gives the same sequence. */
#ifndef RDRIVE_TOOL_SAMPLER_H
#define RDRIVE_TOOL_SAMPLER_H

#include <stdint.h>

struct rng {
    uint64_t state;
};

/** A sequence of its own for each `stream` of a seed. */
struct rng rng_seeded(uint64_t seed, uint64_t stream);
uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t bound); /* 0 to bound - 1; `bound` > 0 */
double rng_unit(struct rng *rng);                    /* 0 up to, not including, 1 */

/** The law by which rank k of 1..count comes with a frequency proportional to k to the power of -exponent. */
struct zipf {
    double count, exponent;
    double area_first, area_last; /* where the hat's area begins and ends */
    double sure;                  /* a point this close below its rank is always taken */
};

/** Requires: `count` > 0, `exponent` > 0. */
struct zipf zipf_make(uint64_t count, double exponent);

/** A rank, 0 (the most frequent) to count - 1, in constant time and memory whatever the count. */
uint64_t zipf_next(const struct zipf *zipf, struct rng *rng);

#endif
