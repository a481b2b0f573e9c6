/* What calls took: of the client's clock, and of the server's processors. */
#ifndef RDRIVE_BENCH_SERVICE_METER_H
#define RDRIVE_BENCH_SERVICE_METER_H

#include "histogram.h"
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

/*
 * First `warmup` calls, then, once they have all ended, `calls` that are measured. The system brings a process's
 * account up to date when it gives up its processor, or every few milliseconds: so it is read while the server waits.
 */
struct meter {
    uint64_t warmup, calls, in_flight;
    pid_t server;
    clockid_t server_clock; /* time on processors of all its threads, those that have ended too */
    uint64_t begun, ended, until;
    uint64_t start_ns, stop_ns;
    uint64_t busy_ns, own_ns;
    uint64_t bytes; /* of the answers */
    struct histogram latency;
};

void meter_init(struct meter *meter);
uint64_t meter_now(void);
/* The calls before those that are measured, and those. The server must have nothing to do. */
void meter_warm(struct meter *meter);
void meter_start(struct meter *meter);
/* Returns: whether another call is to be begun, which is counted then. */
bool meter_begin(struct meter *meter);
/* A call that began at `begun_ns` has ended. */
void meter_end(struct meter *meter, uint64_t begun_ns, uint64_t bytes);
/* Whether all that were to be begun have ended. */
bool meter_done(const struct meter *meter);
void meter_stop(struct meter *meter);
/* One figure a line: its name and a number. */
void meter_print(const struct meter *meter, size_t keys_a_call);

#endif
