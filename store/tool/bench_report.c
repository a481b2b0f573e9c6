/* What bench tells: a table for people, or one JSON document with everything in it. */
#include "bench.h"
#include "text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define BAR_CELLS 40

static const struct {
    const char *text;
    const char *json;
    double percent;
} percentiles[] = {
    {"p50", "p50", 50}, {"p90", "p90", 90}, {"p99", "p99", 99}, {"p99.9", "p99_9", 99.9}, {"p99.99", "p99_99", 99.99},
};
#define PERCENTILE_COUNT (sizeof(percentiles) / sizeof(percentiles[0]))

/** A number a second. */
static double rate(const struct bench_result *result, double number)
{
    return result->elapsed_ns == 0 ? 0.0 : number * 1e9 / (double)result->elapsed_ns;
}

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

/** Keys asked for by the calls that count. */
static uint64_t keys_asked(const struct bench_config *config, const struct bench_result *result)
{
    return result->calls.count * config->batch;
}

/** The part of the threads' time that went by inside the store's calls; the rest is bench's own. */
static double part_in_calls(const struct bench_config *config, const struct bench_result *result)
{
    return result->elapsed_ns == 0 ? 0.0
                                   : (double)result->calls.sum /
                                         ((double)result->elapsed_ns * (double)(config->threads * config->inflight));
}

/* ---- for people ---- */

static void print_config(struct out *out, const struct bench_config *config, const struct bench_keys *keys)
{
    char law[40] = "uniform", inflight[40] = "";
    if (config->zipf)
        (void)snprintf(law, sizeof(law), "zipf %g", config->exponent);
    if (config->inflight > 1)
        (void)snprintf(inflight, sizeof(inflight), ", in flight %zu each", config->inflight);
    out_print(out,
              "reads of %zu of %" PRIu64
              " keys, %s; threads %zu%s, keys a call %zu, misses %g %%, verify %s, check %s\n\n",
              keys->count, keys->live, law, config->threads, inflight, config->batch, config->misses * 100,
              config->verify, config->check ? "on" : "off");
}

static void print_latencies(struct out *out, const struct bench_result *result)
{
    const struct histogram *calls = &result->calls;
    out_print(out, "\nmicroseconds a call (reading the clock takes %.3f of each)\n%10s", (double)result->clock_ns / 1e3,
              "mean");
    for (size_t i = 0; i < PERCENTILE_COUNT; i++)
        out_print(out, " %10s", percentiles[i].text);
    out_print(out, " %10s\n%10.3f", "max", histogram_mean(calls) / 1e3);
    for (size_t i = 0; i < PERCENTILE_COUNT; i++)
        out_print(out, " %10.3f", (double)histogram_percentile(calls, percentiles[i].percent) / 1e3);
    out_print(out, " %10.3f\n", (double)calls->max / 1e3);
}

/** The end of the row of buckets that begins at `bucket`: a quarter of a power of two, so that few rows show it all. */
static size_t row_end(size_t bucket)
{
    size_t width = HISTOGRAM_PARTS / 4;
    return bucket + width < HISTOGRAM_BUCKETS ? bucket + width : HISTOGRAM_BUCKETS;
}

static uint64_t row_count(const struct histogram *calls, size_t bucket)
{
    uint64_t count = 0;
    for (size_t end = row_end(bucket); bucket < end; bucket++)
        count += calls->buckets[bucket];
    return count;
}

static void print_histogram(struct out *out, const struct histogram *calls)
{
    uint64_t most = 1, below = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i = row_end(i))
        most = row_count(calls, i) > most ? row_count(calls, i) : most;
    out_print(out, "\n%12s %12s %12s %8s %8s\n", "from us", "to us", "calls", "%", "% so far");
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i = row_end(i)) {
        uint64_t count = row_count(calls, i);
        below += count;
        if (count == 0)
            continue;
        char bar[BAR_CELLS + 1] = {0};
        for (int cell = 0; cell < (int)ceil(BAR_CELLS * (double)count / (double)most); cell++)
            bar[cell] = '#';
        bool last = row_end(i) == HISTOGRAM_BUCKETS; /* it has what is larger, too */
        out_print(out, "%12.3f %12.3f %12" PRIu64 " %8.3f %8.3f %s\n", (double)histogram_low(i) / 1e3,
                  (double)(last ? calls->max : histogram_high(row_end(i) - 1)) / 1e3, count,
                  100.0 * (double)count / (double)calls->count, 100.0 * (double)below / (double)calls->count, bar);
    }
}

void bench_print(struct out *out, const struct bench_config *config, const struct bench_keys *keys,
                 const struct bench_result *result, bool histogram)
{
    uint64_t asked = keys_asked(config, result);
    print_config(out, config, keys);
    if (result->interrupted)
        out_text(out, "interrupted: these are the figures up to then\n");
    out_print(out,
              "calls        %" PRIu64 "\nkeys         %" PRIu64 "\nabsent       %" PRIu64 "\nfailed       %" PRIu64
              "\nseconds      %.3f\n",
              result->calls.count, asked, result->absent, result->failed, seconds(result->elapsed_ns));
    out_print(out, "calls/s      %.0f\nkeys/s       %.0f\nMB/s         %.3f\nin_calls     %.1f %%\n",
              rate(result, (double)result->calls.count), rate(result, (double)asked),
              rate(result, (double)result->bytes) / 1e6, 100.0 * part_in_calls(config, result));
    print_latencies(out, result);
    if (histogram)
        print_histogram(out, &result->calls);
}

/* ---- JSON ---- */

/** A limit that may not be there. */
static void json_limit(struct out *out, const char *name, uint64_t limit, double number)
{
    if (limit == BENCH_NO_LIMIT)
        out_print(out, "\"%s\": null, ", name);
    else
        out_print(out, "\"%s\": %.15g, ", name, number);
}

static void json_config(struct out *out, const struct bench_config *config)
{
    out_print(out, "\"config\": {\"threads\": %zu, \"inflight\": %zu, \"batch\": %zu, ", config->threads,
              config->inflight, config->batch);
    json_limit(out, "duration_seconds", config->duration_ns, seconds(config->duration_ns));
    json_limit(out, "operations", config->operations, (double)config->operations);
    out_print(out, "\"warmup_seconds\": %.15g, \"distribution\": \"%s\", ", seconds(config->warmup_ns),
              config->zipf ? "zipf" : "uniform");
    json_limit(out, "zipf_exponent", config->zipf ? 0 : BENCH_NO_LIMIT, config->exponent);
    out_print(out,
              "\"misses_percent\": %.15g, \"verify\": \"%s\", \"check\": %s, \"keys\": %" PRIu64 ", \"seed\": %" PRIu64
              "},\n",
              config->misses * 100, config->verify, config->check ? "true" : "false", config->keys_max, config->seed);
}

static void json_failures(struct out *out, const struct bench_result *result)
{
    out_text(out, "\"failures\": [");
    for (size_t i = 0; i < result->listed; i++) {
        out_print(out, "%s{\"key_hash\": \"%016" PRIx64 "\", \"what\": ", i == 0 ? "" : ", ",
                  result->failures[i].key_hash);
        out_json_string(out, text_span(result->failures[i].what));
        out_text(out, "}");
    }
    out_text(out, "],\n");
}

static void json_latencies(struct out *out, const struct bench_result *result)
{
    const struct histogram *calls = &result->calls;
    out_print(out, "\"clock_ns\": %" PRIu64 ",\n\"latency_ns\": {\"min\": %" PRIu64 ", \"mean\": %.3f, ",
              result->clock_ns, calls->min, histogram_mean(calls));
    for (size_t i = 0; i < PERCENTILE_COUNT; i++)
        out_print(out, "\"%s\": %" PRIu64 ", ", percentiles[i].json,
                  histogram_percentile(calls, percentiles[i].percent));
    out_print(out, "\"max\": %" PRIu64 "},\n\"histogram\": [", calls->max);
    const char *comma = "";
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (calls->buckets[i] == 0)
            continue;
        bool last = i + 1 == HISTOGRAM_BUCKETS;
        out_print(out, "%s\n{\"from_ns\": %" PRIu64 ", \"to_ns\": %" PRIu64 ", \"calls\": %" PRIu64 "}", comma,
                  histogram_low(i), last ? calls->max : histogram_high(i), calls->buckets[i]);
        comma = ",";
    }
    out_text(out, "]");
}

void bench_print_json(struct out *out, const char *path, const struct bench_config *config,
                      const struct bench_keys *keys, const struct bench_result *result)
{
    uint64_t asked = keys_asked(config, result);
    out_text(out, "{\"path\": ");
    out_json_string(out, text_span(path));
    out_text(out, ",\n");
    json_config(out, config);
    out_print(out, "\"live_keys\": %" PRIu64 ", \"gathered_keys\": %zu, \"damaged_keys\": %" PRIu64 ",\n", keys->live,
              keys->count, keys->damaged);
    out_print(out,
              "\"interrupted\": %s, \"calls\": %" PRIu64 ", \"keys\": %" PRIu64 ", \"hits\": %" PRIu64
              ", \"absent\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"payload_bytes\": %" PRIu64 ",\n",
              result->interrupted ? "true" : "false", result->calls.count, asked, result->hits, result->absent,
              result->failed, result->bytes);
    out_print(out,
              "\"seconds\": %.9f, \"calls_per_second\": %.3f, \"keys_per_second\": %.3f, \"bytes_per_second\": %.3f, "
              "\"part_in_calls\": %.6f,\n",
              seconds(result->elapsed_ns), rate(result, (double)result->calls.count), rate(result, (double)asked),
              rate(result, (double)result->bytes), part_in_calls(config, result));
    json_failures(out, result);
    json_latencies(out, result);
    out_text(out, "}\n");
}
