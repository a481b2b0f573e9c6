#include "latency.h"
#include "child.h"

#include <sys/resource.h>

bool latency_preempted(long *count)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_THREAD, &usage) == 0);
    bool preempted = usage.ru_nivcsw != *count;
    *count = usage.ru_nivcsw;
    return preempted;
}

/* Up to LATENCY_STEPS each nanosecond has its slot; above, each power of two has LATENCY_STEPS of them. */
static uint32_t slot_of(uint64_t ns)
{
    if (ns < LATENCY_STEPS)
        return (uint32_t)ns;
    uint32_t power = 63u - (uint32_t)__builtin_clzll(ns); /* 6 or more */
    uint32_t slot = (power - 5) * LATENCY_STEPS + (uint32_t)((ns >> (power - 6)) - LATENCY_STEPS);
    return slot < LATENCY_SLOTS ? slot : LATENCY_SLOTS - 1;
}

static uint64_t slot_begin(uint32_t slot)
{
    if (slot < LATENCY_STEPS)
        return slot;
    return (uint64_t)(slot % LATENCY_STEPS + LATENCY_STEPS) << (slot / LATENCY_STEPS - 1);
}

static void half_add(struct latency_half *half, uint64_t ns)
{
    half->slots[slot_of(ns)]++;
    half->count++;
    half->sum_ns += ns;
    if (ns > half->longest_ns)
        half->longest_ns = ns;
}

void latency_add(struct latency *latency, uint64_t ns, bool preempted)
{
    half_add(&latency->all, ns);
    if (!preempted)
        half_add(&latency->quiet, ns);
}

uint64_t latency_percentile(const struct latency_half *half, double share)
{
    uint64_t rank = (uint64_t)((double)half->count * share), seen = 0;
    for (uint32_t slot = 0; slot < LATENCY_SLOTS; slot++) {
        seen += half->slots[slot];
        if (seen > rank)
            return slot_begin(slot);
    }
    return half->longest_ns;
}

static void half_print(const struct latency_half *half, const char *name, const char *infix)
{
    if (half->count == 0)
        return;
    char figure[96];
    const struct {
        const char *suffix;
        double number;
    } figures[] = {
        {"p50", (double)latency_percentile(half, 0.5)},
        {"p99", (double)latency_percentile(half, 0.99)},
        {"longest", (double)half->longest_ns},
        {"count", (double)half->count},
        {"mean", (double)half->sum_ns / (double)half->count},
    };
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        snprintf(figure, sizeof figure, "%s%s_%s", name, infix, figures[i].suffix);
        print_figure(figure, figures[i].number);
    }
}

void latency_print(const struct latency *latency, const char *name)
{
    half_print(&latency->all, name, "");
    half_print(&latency->quiet, name, "_quiet");
}
