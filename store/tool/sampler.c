#include "sampler.h"

#include <math.h>

/* ---- SplitMix64 (Steele, Lea, Flood 2014): one word of state, a few cycles a number ------------------------------ */

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

struct rng rng_seeded(uint64_t seed, uint64_t stream)
{
    /* mixed, since states that differ by a few steps would give the same numbers a few steps apart */
    return (struct rng){mix(mix(seed) + stream)};
}

uint64_t rng_next(struct rng *rng)
{
    rng->state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(rng->state);
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    /* the high word of the product; off from even by less than bound / 2^64 */
    return (uint64_t)((unsigned __int128)rng_next(rng) * bound >> 64);
}

double rng_unit(struct rng *rng)
{
    return (double)(rng_next(rng) >> 11) * 0x1p-53;
}

/*
 * ---- Zipf by rejection-inversion (Hörmann and Derflinger 1996) ---------------------------------------------------
 *
 * A table of cumulated frequencies would take 8 bytes a key and a search for each. Instead: the curve h(x) =
 * x^-exponent over [k - 1/2, k + 1/2] has at least the area h(k), since h is convex. So pick an area evenly, find by
 * the inverse of h's integral the x up to which it reaches, round to k, and keep k if the pick lies in the last h(k) of
 * k's area; else pick again. Few picks are lost, and most are kept without a look at the area: those near enough to k.
 * The first rank needs no hat and gets just h(1) = 1.
 */

/* (exp(t) - 1) / t and log(1 + t) / t, with their limits at 0: exponent 1 is no special case, and near it nothing
   cancels */
static double expm1_ratio(double t)
{
    return fabs(t) > 1e-8 ? expm1(t) / t : 1 + t / 2;
}

static double log1p_ratio(double t)
{
    return fabs(t) > 1e-8 ? log1p(t) / t : 1 - t / 2;
}

static double frequency(double exponent, double x)
{
    return exp(-exponent * log(x));
}

/** The integral of h from 1 to x: (x^(1 - exponent) - 1) / (1 - exponent). */
static double area(double exponent, double x)
{
    double log_x = log(x);
    return expm1_ratio((1 - exponent) * log_x) * log_x;
}

static double area_inverse(double exponent, double reached)
{
    double t = reached * (1 - exponent);
    if (t < -1) /* rounding alone leads here, where the logarithm ends */
        t = -1;
    return exp(log1p_ratio(t) * reached);
}

struct zipf zipf_make(uint64_t count, double exponent)
{
    double last = (double)count;
    return (struct zipf){
        .count = last,
        .exponent = exponent,
        .area_first = area(exponent, 1.5) - 1,
        .area_last = area(exponent, last + 0.5),
        .sure = 2 - area_inverse(exponent, area(exponent, 2.5) - frequency(exponent, 2)),
    };
}

uint64_t zipf_next(const struct zipf *zipf, struct rng *rng)
{
    for (;;) {
        double reached = zipf->area_last + rng_unit(rng) * (zipf->area_first - zipf->area_last);
        double x = area_inverse(zipf->exponent, reached);
        double rank = floor(x + 0.5);
        if (!(rank >= 1))
            rank = 1;
        if (rank > zipf->count)
            rank = zipf->count;
        if (rank - x <= zipf->sure || reached >= area(zipf->exponent, rank + 0.5) - frequency(zipf->exponent, rank))
            return (uint64_t)rank - 1;
    }
}
