/**
 * An engine that misbehaves within its contract: it stands in front of another engine and answers late, early, on other
 * threads, out of order, in windows of one value, with errors, and from buffers of its own that die the moment the
 * contract lets them. What depends on more than <rdrive/engine.h> promises breaks on it, best under a sanitizer.
 *
 * It also judges its user: operations left over, holds kept, a `next` where none is allowed abort the process with a
 * line that begins "chaos:".
 *
 * Every decision is a function of the seed and of how many were made before it.
 */
#ifndef CHAOS_H
#define CHAOS_H

#include <rdrive/engine.h>

/* What it counts, read by tests over the control socket. The first four are back at zero when all is over. */
#define CHAOS_COUNTS(X)                                                                                                \
    X(LIVE, "live")                 /* operations submitted and not finished */                                        \
    X(PENDING, "pending")           /* submits and nexts not completed */                                              \
    X(HOLDS, "holds")               /* not released */                                                                 \
    X(BUFFERS, "buffers")           /* payloads that are still readable */                                             \
    X(HELD, "held")                 /* waiting at the closed gate */                                                   \
    X(SHUT, "shut")                 /* 1 while chaos_wrap keeps the daemon from having a store */                      \
    X(SUBMITS, "submits")           /**/                                                                               \
    X(NEXTS, "nexts")               /**/                                                                               \
    X(COMPLETIONS, "completions")   /**/                                                                               \
    X(ELSEWHERE, "elsewhere")       /* of them, on another thread than the one that asked */                           \
    X(FAILED, "failed")             /* operations failed on purpose */                                                 \
    X(DAMAGED, "damaged")           /* values failed on purpose */                                                     \
    X(CANCELS, "cancels")           /* asked for */                                                                    \
    X(CANCELLED, "cancelled")       /* heeded */                                                                       \
    X(HOLDS_TAKEN, "holds_taken")   /**/                                                                               \
    X(HOLDS_DENIED, "holds_denied") /* answered with RD_E_NOMEM */

#define CHAOS_COUNT_ENUM(name, text) CHAOS_##name,
enum chaos_count { CHAOS_COUNTS(CHAOS_COUNT_ENUM) CHAOS_COUNT_MAX };
#undef CHAOS_COUNT_ENUM
#define CHAOS_ZERO_AT_END 4

/* How it answers. */
enum chaos_mode {
    CHAOS_MIX,    /* any of the following, at random */
    CHAOS_INLINE, /* before submit or next returns, as far as the engine behind it does */
    CHAOS_LATE,   /* always from its own threads */
};

struct chaos_config {
    uint64_t seed;
    enum chaos_mode mode;
    uint64_t delay_us_max;
    uint64_t fail_per_mille;   /* of operations and windows: UNAVAILABLE, IO */
    uint64_t damage_per_mille; /* of values: DAMAGED */
    uint64_t deny_per_mille;   /* of holds: NOMEM */
    uint64_t heed_per_mille;   /* of cancels that could still be heeded */
    uint64_t window_max;       /* values a window, chosen anew for each from 1 up; 0: as the caller says */
    uint64_t threads;
    uint64_t range_count; /* damaged ranges to invent */
    bool hold;            /* begin with the gate closed: nothing is answered */
    bool shut;            /* chaos_wrap waits for the word "open" */
    const char *control;  /* path of a unix socket to listen on, or NULL */
};

/* From CHAOS_SEED, CHAOS_MODE and so on. A value that isn't one ends the process. */
void chaos_config_read(struct chaos_config *out_config);

/**
 * The engine, in front of `inner`, which it owns from now on.
 * Returns: NULL when out of memory or threads; `inner` is still the caller's.
 */
rd_engine *chaos_create(rd_engine *inner, const struct chaos_config *config);

/* For daemon_main: configured by the environment. */
rd_engine *chaos_wrap(rd_engine *inner);

/* What it has counted so far. */
uint64_t chaos_count(rd_engine *engine, enum chaos_count count);

/* Close or open the gate before answers. */
void chaos_gate(rd_engine *engine, bool closed);

#endif
