#include "meter.h"
#include "work.h"
#include <inttypes.h>
#include <stdio.h>

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    CHECK(clock_gettime(clock, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t meter_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

void meter_init(struct meter *meter)
{
    if (meter->server == 0)
        meter->server_clock = CLOCK_PROCESS_CPUTIME_ID; /* nothing is said of it */
    else if (clock_getcpuclockid(meter->server, &meter->server_clock) != 0)
        die("there is no process %d", (int)meter->server);
}

bool meter_begin(struct meter *meter)
{
    if (meter->begun == meter->warmup + meter->calls + meter->in_flight)
        return false;
    meter->begun++;
    return true;
}

static bool measured(const struct meter *meter)
{
    return meter->ended >= meter->warmup && meter->ended < meter->warmup + meter->calls;
}

void meter_end(struct meter *meter, uint64_t begun_ns, uint64_t bytes)
{
    uint64_t now = meter_now();
    if (measured(meter)) {
        histogram_add(&meter->latency, now - begun_ns);
        meter->bytes += bytes;
    }
    meter->ended++;
    if (meter->ended == meter->warmup) {
        meter->start_ns = now;
        meter->start_busy_ns = clock_ns(meter->server_clock);
        meter->start_own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    } else if (meter->ended == meter->warmup + meter->calls) {
        meter->stop_ns = now;
        meter->stop_busy_ns = clock_ns(meter->server_clock);
        meter->stop_own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    }
}

bool meter_done(const struct meter *meter)
{
    return meter->ended == meter->warmup + meter->calls + meter->in_flight;
}

void meter_print(const struct meter *meter, size_t keys_a_call)
{
    double calls = (double)meter->calls;
    double busy = (double)(meter->stop_busy_ns - meter->start_busy_ns) / calls;
    double seconds = (double)(meter->stop_ns - meter->start_ns) / 1e9;
    printf("calls %" PRIu64 "\n", meter->calls);
    printf("seconds %.6f\n", seconds);
    if (meter->server != 0) {
        printf("cpu_ns_per_call %.1f\n", busy);
        printf("cpu_ns_per_key %.2f\n", busy / (double)keys_a_call);
    }
    printf("client_ns_per_call %.1f\n", (double)(meter->stop_own_ns - meter->start_own_ns) / calls);
    printf("calls_per_second %.1f\n", calls / seconds);
    printf("p50_us %.2f\n", (double)histogram_percentile(&meter->latency, 50) / 1e3);
    printf("p99_us %.2f\n", (double)histogram_percentile(&meter->latency, 99) / 1e3);
    printf("p999_us %.2f\n", (double)histogram_percentile(&meter->latency, 99.9) / 1e3);
    printf("answer_bytes %.1f\n", (double)meter->bytes / calls);
}
