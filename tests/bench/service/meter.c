#include "meter.h"
#include "work.h"
#include <inttypes.h>
#include <stdio.h>

#define REST_NS 5000000L

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

/* The server has sent its last answer, but may not have come to rest. */
static void wait_for_rest(void)
{
    nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
}

static void begin_phase(struct meter *meter, uint64_t calls)
{
    meter->begun = 0;
    meter->ended = 0;
    meter->until = calls;
    meter->bytes = 0;
    meter->latency = (struct histogram){0};
}

void meter_warm(struct meter *meter)
{
    begin_phase(meter, meter->warmup);
}

void meter_start(struct meter *meter)
{
    begin_phase(meter, meter->calls);
    wait_for_rest();
    meter->busy_ns = clock_ns(meter->server_clock);
    meter->own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    meter->start_ns = meter_now();
}

void meter_stop(struct meter *meter)
{
    meter->own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - meter->own_ns;
    wait_for_rest();
    meter->busy_ns = clock_ns(meter->server_clock) - meter->busy_ns;
}

bool meter_begin(struct meter *meter)
{
    if (meter->begun == meter->until)
        return false;
    meter->begun++;
    return true;
}

void meter_end(struct meter *meter, uint64_t begun_ns, uint64_t bytes)
{
    meter->stop_ns = meter_now();
    histogram_add(&meter->latency, meter->stop_ns - begun_ns);
    meter->bytes += bytes;
    meter->ended++;
}

bool meter_done(const struct meter *meter)
{
    return meter->ended == meter->until;
}

void meter_print(const struct meter *meter, size_t keys_a_call)
{
    double calls = (double)meter->calls;
    double busy = (double)meter->busy_ns / calls;
    double seconds = (double)(meter->stop_ns - meter->start_ns) / 1e9;
    printf("calls %" PRIu64 "\n", meter->calls);
    printf("seconds %.6f\n", seconds);
    if (meter->server != 0) {
        printf("cpu_ns_per_call %.1f\n", busy);
        printf("cpu_ns_per_key %.2f\n", busy / (double)keys_a_call);
    }
    printf("client_ns_per_call %.1f\n", (double)meter->own_ns / calls);
    printf("calls_per_second %.1f\n", calls / seconds);
    printf("p50_us %.2f\n", (double)histogram_percentile(&meter->latency, 50) / 1e3);
    printf("p99_us %.2f\n", (double)histogram_percentile(&meter->latency, 99) / 1e3);
    printf("p999_us %.2f\n", (double)histogram_percentile(&meter->latency, 99.9) / 1e3);
    printf("answer_bytes %.1f\n", (double)meter->bytes / calls);
}
