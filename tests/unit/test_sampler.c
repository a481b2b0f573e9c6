/* The keys that `rdrive bench` chooses: how often each comes, beside the law it follows. Every seed is fixed. */
#include "sampler.h"

#include "support.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DRAWS     1000000
#define COUNT_MAX 1000

/**
 * Pearson's chi-square of `seen` beside what `weights` promise. Cells with fewer than 10 promised are one cell. By
 * chance it is beyond its mean by six of its standard deviations about once in a hundred million.
 */
static void expect_follows(const uint64_t *seen, const double *weights, size_t count, const char *what)
{
    double total = 0, chi = 0, rest_seen = 0, rest_due = 0;
    size_t cells = 0;
    for (size_t i = 0; i < count; i++)
        total += weights[i];
    for (size_t i = 0; i < count; i++) {
        double due = weights[i] / total * DRAWS;
        if (due < 10) {
            rest_due += due;
            rest_seen += (double)seen[i];
            continue;
        }
        chi += ((double)seen[i] - due) * ((double)seen[i] - due) / due;
        cells++;
    }
    if (rest_due >= 10) {
        chi += (rest_seen - rest_due) * (rest_seen - rest_due) / rest_due;
        cells++;
    }
    double freedom = cells > 1 ? (double)(cells - 1) : 0;
    EXPECT(chi <= freedom + 6 * sqrt(2 * freedom), "%s: chi-square %g, degrees of freedom %g", what, chi, freedom);
}

static void zipf_frequencies_follow_the_law(void **state)
{
    (void)state;
    static const double exponents[] = {0.01, 0.5, 0.99, 1, 1.0000001, 1.2, 2, 3, 10};
    static const size_t counts[] = {1, 2, 3, 10, COUNT_MAX};
    for (size_t e = 0; e < sizeof(exponents) / sizeof(exponents[0]); e++) {
        for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
            uint64_t seen[COUNT_MAX] = {0};
            double weights[COUNT_MAX];
            char what[64];
            struct zipf zipf = zipf_make(counts[c], exponents[e]);
            struct rng rng = rng_seeded(e, c);
            for (size_t i = 0; i < DRAWS; i++) {
                uint64_t rank = zipf_next(&zipf, &rng);
                assert_true(rank < counts[c]);
                seen[rank]++;
            }
            for (size_t i = 0; i < counts[c]; i++)
                weights[i] = pow((double)(i + 1), -exponents[e]);
            (void)snprintf(what, sizeof(what), "exponent %g, count %zu", exponents[e], counts[c]);
            expect_follows(seen, weights, counts[c], what);
        }
    }
}

static void zipf_of_very_many_keys_stays_in_range_and_begins_as_the_law_says(void **state)
{
    (void)state;
    /* of 2^40 ranks: the first's share is one in the sum of k^-0.99, which its integral gives to within 1 */
    uint64_t count = UINT64_C(1) << 40, first = 0;
    struct zipf zipf = zipf_make(count, 0.99);
    struct rng rng = rng_seeded(3, 0);
    for (size_t i = 0; i < DRAWS; i++) {
        uint64_t rank = zipf_next(&zipf, &rng);
        assert_true(rank < count);
        first += rank == 0 ? 1 : 0;
    }
    double integral = (pow((double)count, 0.01) - 1) / 0.01;
    double most = DRAWS / integral, least = DRAWS / (integral + 1);
    EXPECT((double)first >= least - 6 * sqrt(least) && (double)first <= most + 6 * sqrt(most),
           "the first rank came %llu times, not %g to %g", (unsigned long long)first, least, most);
}

static void uniform_numbers_follow_the_law(void **state)
{
    (void)state;
    uint64_t below[COUNT_MAX] = {0}, unit[COUNT_MAX] = {0};
    double weights[COUNT_MAX];
    struct rng rng = rng_seeded(1, 0);
    for (size_t i = 0; i < COUNT_MAX; i++)
        weights[i] = 1;
    for (size_t i = 0; i < DRAWS; i++) {
        uint64_t number = rng_below(&rng, COUNT_MAX);
        double part = rng_unit(&rng);
        assert_true(number < COUNT_MAX && part >= 0 && part < 1);
        below[number]++;
        unit[(size_t)(part * COUNT_MAX)]++;
    }
    expect_follows(below, weights, COUNT_MAX, "rng_below");
    expect_follows(unit, weights, COUNT_MAX, "rng_unit");
}

static void a_seed_and_stream_give_one_sequence_and_others_give_others(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 3; seed++) {
        for (uint64_t stream = 0; stream < 3; stream++) {
            struct rng one = rng_seeded(seed, stream), same = rng_seeded(seed, stream);
            struct rng other_seed = rng_seeded(seed + 1, stream), other_stream = rng_seeded(seed, stream + 1);
            for (size_t i = 0; i < 1000; i++) {
                uint64_t number = rng_next(&one);
                assert_int_equal(number, rng_next(&same));
                assert_int_not_equal(number, rng_next(&other_seed));
                assert_int_not_equal(number, rng_next(&other_stream));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zipf_frequencies_follow_the_law),
        cmocka_unit_test(zipf_of_very_many_keys_stays_in_range_and_begins_as_the_law_says),
        cmocka_unit_test(uniform_numbers_follow_the_law),
        cmocka_unit_test(a_seed_and_stream_give_one_sequence_and_others_give_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
