/* The histogram of `rdrive bench`, beside sorted samples. */
#include "histogram.h"

#include "support.h"
#include <stdlib.h>
#include <string.h>

#define SAMPLES 20000

static const double percents[] = {0, 0.01, 1, 10, 50, 90, 99, 99.9, 99.99, 100};

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Samples of all sizes: as many of each number of bits, up to `bits`. */
static void fill(uint64_t *samples, size_t count, unsigned bits, uint64_t seed)
{
    AUTO_BYTES noise = bytes_xorshift(seed, count * sizeof(uint64_t));
    for (size_t i = 0; i < count; i++)
        samples[i] = load_le64(noise.data + i * sizeof(uint64_t)) >> (64 - bits + i % bits);
}

static void expect_percentiles(const struct histogram *histogram, uint64_t *samples, size_t count)
{
    qsort(samples, count, sizeof(*samples), compare);
    for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
        double wanted = percents[i] / 100 * (double)count;
        size_t rank = (size_t)wanted;
        rank += (double)rank < wanted ? 1 : 0;
        uint64_t exact = samples[rank > 0 ? rank - 1 : 0];
        uint64_t found = histogram_percentile(histogram, percents[i]);
        EXPECT(found >= exact, "p%g: %llu, not below %llu", percents[i], (unsigned long long)found,
               (unsigned long long)exact);
        EXPECT(found - exact <= exact / HISTOGRAM_PARTS, "p%g: %llu, too far from %llu", percents[i],
               (unsigned long long)found, (unsigned long long)exact);
    }
    assert_int_equal(histogram->min, samples[0]);
    assert_int_equal(histogram->max, samples[count - 1]);
    assert_int_equal(histogram_percentile(histogram, 100), samples[count - 1]);
}

static void percentiles_are_within_the_stated_error_of_the_sorted_samples(void **state)
{
    (void)state;
    static uint64_t samples[SAMPLES];
    for (unsigned bits = 1; bits <= HISTOGRAM_VALUE_BITS; bits++) {
        struct histogram histogram = {0};
        uint64_t sum = 0;
        fill(samples, SAMPLES, bits, bits);
        for (size_t i = 0; i < SAMPLES; i++) {
            histogram_add(&histogram, samples[i]);
            sum += samples[i];
        }
        assert_int_equal(histogram.count, SAMPLES);
        assert_int_equal(histogram.sum, sum);
        assert_true(histogram_mean(&histogram) == (double)sum / SAMPLES);
        expect_percentiles(&histogram, samples, SAMPLES);
    }
}

static void merged_histograms_equal_the_one_of_all_samples(void **state)
{
    (void)state;
    static uint64_t samples[SAMPLES];
    struct histogram whole = {0}, merged = {0}, empty = {0};
    fill(samples, SAMPLES, HISTOGRAM_VALUE_BITS, 7);
    for (size_t part = 0; part < 4; part++) {
        struct histogram histogram = {0};
        for (size_t i = part; i < SAMPLES; i += 4) {
            histogram_add(&histogram, samples[i]);
            histogram_add(&whole, samples[i]);
        }
        histogram_merge(&merged, &histogram);
        histogram_merge(&merged, &empty);
    }
    assert_memory_equal(&merged, &whole, sizeof(whole));
}

static void buckets_follow_each_other_without_gap_and_hold_their_own_bounds(void **state)
{
    (void)state;
    uint64_t next = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        assert_int_equal(histogram_low(i), next);
        uint64_t bounds[] = {histogram_low(i), histogram_high(i)};
        for (size_t j = 0; j < 2; j++) {
            struct histogram histogram = {0};
            histogram_add(&histogram, bounds[j]);
            EXPECT(histogram.buckets[i] == 1, "%llu is not in bucket %zu", (unsigned long long)bounds[j], i);
        }
        EXPECT((bounds[1] - bounds[0]) * HISTOGRAM_PARTS <= bounds[0], "bucket %zu is too wide", i);
        next = bounds[1] + 1;
    }
    assert_int_equal(next, UINT64_C(1) << HISTOGRAM_VALUE_BITS);
}

static void values_beyond_the_last_bucket_are_counted_in_it(void **state)
{
    (void)state;
    struct histogram histogram = {0};
    histogram_add(&histogram, UINT64_MAX);
    histogram_add(&histogram, UINT64_C(1) << HISTOGRAM_VALUE_BITS);
    assert_int_equal(histogram.buckets[HISTOGRAM_BUCKETS - 1], 2);
    assert_int_equal(histogram_percentile(&histogram, 50), UINT64_MAX); /* the bucket has no other upper end */
    assert_int_equal(histogram.min, UINT64_C(1) << HISTOGRAM_VALUE_BITS);
}

static void an_empty_histogram_answers_zero(void **state)
{
    (void)state;
    struct histogram histogram = {0};
    assert_int_equal(histogram_percentile(&histogram, 50), 0);
    assert_int_equal(histogram_percentile(&histogram, 100), 0);
    assert_true(histogram_mean(&histogram) == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_within_the_stated_error_of_the_sorted_samples),
        cmocka_unit_test(merged_histograms_equal_the_one_of_all_samples),
        cmocka_unit_test(buckets_follow_each_other_without_gap_and_hold_their_own_bounds),
        cmocka_unit_test(values_beyond_the_last_bucket_are_counted_in_it),
        cmocka_unit_test(an_empty_histogram_answers_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
