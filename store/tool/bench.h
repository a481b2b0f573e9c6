/**
 * bench, in three parts: the keys it asks for (bench_keys.c), the threads that ask (bench_run.c), and what is told of
 * it (bench_report.c). It is written over the table of operations, as every verb.
 */
#ifndef RDRIVE_TOOL_BENCH_H
#define RDRIVE_TOOL_BENCH_H

#include "cli.h"
#include "histogram.h"
#include "ops.h"
#include "out.h"
#include "sampler.h"

#define BENCH_NO_LIMIT UINT64_MAX

struct bench_config {
    size_t threads;
    size_t inflight;      /* calls of a thread under way at once */
    size_t batch;         /* keys a call */
    uint64_t operations;  /* calls, of all threads; or BENCH_NO_LIMIT */
    uint64_t duration_ns; /* or BENCH_NO_LIMIT */
    uint64_t warmup_ns;
    bool zipf; /* else uniform */
    double exponent;
    double misses; /* part of the keys that no store is likely to have */
    uint64_t seed;
    bool check;
    uint64_t keys_max;
    const char *verify; /* as given, or that the server decides */
};

/** A key that is present, and what its value was when it was gathered. */
struct bench_key {
    uint64_t hash;
    uint32_t checksum;
    uint32_t size_low; /* the size's lower half */
};

struct bench_keys {
    struct bench_key *at;
    size_t count;
    uint64_t live;           /* gone by: all that are live */
    uint64_t damaged;        /* keys left out */
    uint64_t absent;         /* of those that a list names, left out */
    uint64_t too_large;      /* the same: larger than an answer to one key may be */
    uint64_t too_large_hash; /* the first such key's */
};

/**
 * Gather the live keys of a store, or, where there are more than `config->keys_max`, a random choice of that many;
 * damaged ones are told on stderr. For zipf they are shuffled, so that the frequent ones lie anywhere in the file.
 * Returns: STATUS_DONE, or the exit status after a line on stderr; bench_keys_fini is fine either way.
 */
RD_MUST_CHECK int bench_gather(struct tool_store *store, const struct bench_config *config, struct bench_keys *keys);

/** The same, of the keys that --key-list names and the store has: for stores that can't say which they have. */
RD_MUST_CHECK int bench_gather_listed(const struct cli_call *call, struct tool_store *store,
                                      const struct bench_config *config, struct bench_keys *keys);
void bench_keys_fini(struct bench_keys *keys);

#define BENCH_FAILURES_LISTED 10

struct bench_failure {
    uint64_t key_hash;
    const char *what; /* a literal */
};

struct bench_result {
    struct histogram calls; /* nanoseconds a call */
    uint64_t hits, absent, failed, bytes;
    uint64_t elapsed_ns;
    uint64_t clock_ns; /* what reading the clock takes by itself: it is in every latency */
    bool interrupted;
    size_t listed; /* keys of which some answer was wrong, as far as there is room */
    struct bench_failure failures[BENCH_FAILURES_LISTED];
};

/**
 * Ask for keys as `config` says, on its threads, until its limits or SIGINT.
 * Returns: RD_OK, whatever the answers were; RD_E_NOMEM for threads or memory; an error of the store itself.
 */
RD_MUST_CHECK rd_err bench_run(struct tool_store *store, const struct bench_config *config,
                               const struct bench_keys *keys, struct bench_result *result);

void bench_print(struct out *out, const struct bench_config *config, const struct bench_keys *keys,
                 const struct bench_result *result, bool histogram);
void bench_print_json(struct out *out, const char *path, const struct bench_config *config,
                      const struct bench_keys *keys, const struct bench_result *result);

#endif
