/* How long single reads take while something else goes on: a histogram, and the longest, of all reads and of those
 * during which the scheduler didn't take the processor away (with few cores that is the machine's doing, not a
 * store's). Steps of 1/64: percentiles are right to 1.6 %. */
#ifndef RDRIVE_BENCH_LATENCY_H
#define RDRIVE_BENCH_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

#define LATENCY_STEPS 64u
#define LATENCY_SLOTS (LATENCY_STEPS * 40u)

struct latency_half {
    uint64_t slots[LATENCY_SLOTS];
    uint64_t count, sum_ns, longest_ns;
};

struct latency {
    struct latency_half all, quiet;
};

/* Returns: whether the scheduler took the processor from the calling thread since `*count` was set, and sets it. */
bool latency_preempted(long *count);
/* A read has taken `ns`. */
void latency_add(struct latency *latency, uint64_t ns, bool preempted);
uint64_t latency_percentile(const struct latency_half *half, double share);
/* Print `<name>_p50`, `_p99` and `_longest` in nanoseconds and `_count`; and, as `<name>_quiet_…`, of those alone that
 * were not interrupted. */
void latency_print(const struct latency *latency, const char *name);

#endif
