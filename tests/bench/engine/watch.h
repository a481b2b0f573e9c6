/* A thread that reads random keys, each read timed, while others change what it reads. */
#ifndef RDRIVE_BENCH_WATCH_H
#define RDRIVE_BENCH_WATCH_H

#include "latency.h"

#include <pthread.h>
#include <stdatomic.h>

#define PHASES 3u

struct watch {
    uint64_t (*read_one)(void *store, uint64_t i); /* and check what it reads */
    void *store;
    _Atomic uint64_t keys; /* those below it are there */
    atomic_uint phase;     /* where its samples go */
    atomic_bool stop;
    _Atomic uint64_t reads;
    pthread_t thread;
    struct latency phases[PHASES];
    struct latency whole;
};

/* `watch` is large: not on a stack. Returns once it has read something. */
void watch_begin(struct watch *watch, uint64_t (*read_one)(void *store, uint64_t i), void *store, uint64_t keys);
void watch_end(struct watch *watch);

/* A store that grows from `first` to `last` keys: which third of the doublings this is, for 1 M to 8 M. */
unsigned watch_growth_phase(uint64_t first, uint64_t keys);
/* Prints `read_…` of the whole, and `read0_…`, `read1_…`, `read2_…` of the phases. */
void watch_print(const struct watch *watch);

#endif
