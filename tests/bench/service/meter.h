/* What calls took: of the client's clock, and of the server's processors. */
#ifndef RDRIVE_BENCH_SERVICE_METER_H
#define RDRIVE_BENCH_SERVICE_METER_H

#include "histogram.h"
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

/*
 * Measured is from the end of call `warmup` to that of call `warmup + calls`; in between as many are always open. As
 * many again as are open are begun behind, so that they are at the end too.
 */
struct meter {
    uint64_t warmup, calls, in_flight;
    pid_t server;
    clockid_t server_clock; /* time on processors of all its threads, those that have ended too */
    uint64_t begun, ended;
    uint64_t start_ns, stop_ns;
    uint64_t start_busy_ns, stop_busy_ns;
    uint64_t start_own_ns, stop_own_ns;
    uint64_t bytes; /* of the measured answers */
    struct histogram latency;
};

void meter_init(struct meter *meter);
uint64_t meter_now(void);
/* Returns: whether another call is to be begun, which is counted then. */
bool meter_begin(struct meter *meter);
/* A call that began at `begun_ns` has ended. */
void meter_end(struct meter *meter, uint64_t begun_ns, uint64_t bytes);
/* Whether all have ended. */
bool meter_done(const struct meter *meter);
/* One figure a line: its name and a number. */
void meter_print(const struct meter *meter, size_t keys_a_call);

#endif
