/* bench's threads. Each calls again as soon as it is answered (a closed loop), and shares nothing while it runs. */
#include "bench.h"
#include "progress.h"

#include <libdeflate.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK_PIECE_BYTES ((size_t)16384) /* of a value at a time: it stays in the nearest cache */
#define WATCH_EVERY_NS    100000000L
#define CLOCK_TRIES       1001

struct run;

/** A call, from the choice of its keys to its answer. */
struct ask {
    uint64_t begin_ns;
    uint64_t *hashes;
    const struct bench_key **keys; /* NULL: a key that should be absent */
    rd_batch_item *items;
};

/** One thread's own. */
struct runner {
    struct run *run;
    pthread_t thread;
    struct rng rng;
    uint64_t operations;
    struct tool_lane *lane;
    struct ask *asks; /* `inflight` of them */
    rd_err err;
    uint64_t first_ns, last_ns;
    _Atomic uint64_t done; /* calls, for the bar */
    struct bench_result result;
    uint8_t piece[CHECK_PIECE_BYTES];
};

enum gate { GATE_CLOSED, GATE_OPEN, GATE_ABANDONED };

struct run {
    struct tool_store *store;
    const struct bench_config *config;
    const struct bench_keys *keys;
    struct zipf zipf;
    atomic_bool stop; /* a thread met an error of the store itself */
    struct runner **runners;
    size_t count;         /* of those that were made */
    pthread_mutex_t lock; /* gate, finished */
    pthread_cond_t changed;
    enum gate gate;
    size_t finished;
};

static atomic_bool interrupted;

static void interrupt(int number)
{
    (void)number;
    atomic_store_explicit(&interrupted, true, memory_order_relaxed);
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/** What lies between two looks at the clock with nothing between them: the median of many. */
static uint64_t clock_cost(void)
{
    struct histogram costs = {0};
    for (int i = 0; i < CLOCK_TRIES; i++) {
        uint64_t begin = clock_ns();
        histogram_add(&costs, clock_ns() - begin);
    }
    return histogram_percentile(&costs, 50);
}

/* ---- answers ---- */

static void note_failure(struct bench_result *result, uint64_t key_hash, const char *what)
{
    for (size_t i = 0; i < result->listed; i++)
        if (result->failures[i].key_hash == key_hash)
            return;
    if (result->listed < BENCH_FAILURES_LISTED)
        result->failures[result->listed++] = (struct bench_failure){key_hash, what};
}

/** Whether the bytes are those of a checksum (F-06); NULL, or what is wrong. They may vanish while they are read. */
static const char *check_payload(struct runner *runner, rd_span payload, uint32_t checksum)
{
    const uint8_t *from = payload.data;
    uint32_t crc = 0;
    for (size_t at = 0; at < payload.len; at += CHECK_PIECE_BYTES) {
        size_t len = payload.len - at < CHECK_PIECE_BYTES ? payload.len - at : CHECK_PIECE_BYTES;
        if (!rd_copy(runner->piece, (rd_span){from + at, len}))
            return rd_err_text(RD_E_TRUNCATED);
        crc = libdeflate_crc32(crc, runner->piece, len);
    }
    return crc == checksum ? NULL : "value check: these are not the bytes that the key's checksum is of";
}

/** NULL, or what is wrong with the answer for a key. */
static const char *judge(struct runner *runner, uint64_t hash, const struct bench_key *asked, const rd_batch_item *item)
{
    const rd_metadata *meta = &item->entry.meta;
    if (item->err != RD_OK)
        return item->err == RD_ABSENT && asked == NULL ? NULL
               : item->err == RD_E_TOO_LARGE           ? "the value has become larger than an answer may be"
                                                       : rd_err_text(item->err);
    if (!runner->run->config->check)
        return NULL;
    if (meta->key_hash != hash)
        return "value check: the answer is another key's";
    /* a random hash may, by a rare chance, be a key's */
    if (asked != NULL && (meta->checksum != asked->checksum || (uint32_t)item->entry.payload.len != asked->size_low))
        return "value check: not the value that was there at the beginning";
    return check_payload(runner, item->entry.payload, meta->checksum);
}

/** Judge the answers of a call and, where it counts, count them. */
static void take_answers(struct runner *runner, const struct ask *ask, bool counted)
{
    struct bench_result *result = &runner->result;
    for (size_t i = 0; i < runner->run->config->batch; i++) {
        const rd_batch_item *item = &ask->items[i];
        const char *wrong = judge(runner, ask->hashes[i], ask->keys[i], item);
        if (wrong != NULL) {
            note_failure(result, ask->hashes[i], wrong);
            result->failed++; /* in the warm-up too: none shall be lost */
        } else if (counted) {
            result->hits += item->err == RD_OK ? 1 : 0;
            result->absent += item->err == RD_OK ? 0 : 1;
            result->bytes += item->entry.payload.len;
        }
    }
}

/* ---- a thread ---- */

/** Choose the keys of the next call; outside of any clock. */
static void choose_keys(struct runner *runner, struct ask *ask)
{
    const struct run *run = runner->run;
    const struct bench_config *config = run->config;
    for (size_t i = 0; i < config->batch; i++) {
        if (config->misses > 0 && rng_unit(&runner->rng) < config->misses) {
            ask->keys[i] = NULL;
            ask->hashes[i] = rng_next(&runner->rng); /* of 2^64 hashes a store has few */
            continue;
        }
        uint64_t rank = config->zipf ? zipf_next(&run->zipf, &runner->rng) : rng_below(&runner->rng, run->keys->count);
        ask->keys[i] = &run->keys->at[rank];
        ask->hashes[i] = ask->keys[i]->hash;
    }
}

/** Whether no further call shall be made. */
static bool is_stopped(struct run *run)
{
    return atomic_load_explicit(&run->stop, memory_order_relaxed) ||
           atomic_load_explicit(&interrupted, memory_order_relaxed);
}

static void ask_next(struct runner *runner, size_t place)
{
    struct ask *ask = &runner->asks[place];
    choose_keys(runner, ask);
    ask->begin_ns = clock_ns();
    runner->run->store->ops->lane_ask(runner->lane, place, ask->hashes, runner->run->config->batch, ask->items);
}

/** Call until `until_ns`, or `operations` times, or a stop. Returns: RD_OK, or an error of the store itself. */
static rd_err run_phase(struct runner *runner, uint64_t until_ns, uint64_t operations, bool counted)
{
    struct run *run = runner->run;
    const struct tool_ops *ops = run->store->ops;
    uint64_t asked = 0, done = 0;
    rd_err first = RD_OK;
    while (asked < run->config->inflight && asked < operations && !is_stopped(run))
        ask_next(runner, asked++);
    for (bool ending = false; done < asked;) { /* what was asked is answered, whatever comes */
        size_t place = 0;
        rd_err err = ops->lane_take(runner->lane, &place);
        uint64_t end = clock_ns();
        done++;
        first = first == RD_OK ? err : first;
        if (err == RD_OK)
            take_answers(runner, &runner->asks[place], counted);
        ops->lane_give(runner->lane, place);
        if (err == RD_OK && counted) {
            histogram_add(&runner->result.calls, end - runner->asks[place].begin_ns);
            atomic_store_explicit(&runner->done, done, memory_order_relaxed);
        }
        ending = ending || first != RD_OK || end >= until_ns || is_stopped(run);
        if (!ending && asked < operations) {
            ask_next(runner, place);
            asked++;
        }
    }
    return first;
}

/** Wait until all threads are there. Returns: false where they won't be. */
static bool pass_gate(struct run *run)
{
    (void)pthread_mutex_lock(&run->lock);
    while (run->gate == GATE_CLOSED)
        (void)pthread_cond_wait(&run->changed, &run->lock);
    bool open = run->gate == GATE_OPEN;
    (void)pthread_mutex_unlock(&run->lock);
    return open;
}

static void *runner_main(void *arg)
{
    struct runner *runner = arg;
    struct run *run = runner->run;
    const struct bench_config *config = run->config;
    if (!pass_gate(run))
        return NULL;
    if (config->warmup_ns > 0) {
        struct rng rng = runner->rng; /* what is measured does not depend on how many calls the warm-up made */
        runner->err = run_phase(runner, clock_ns() + config->warmup_ns, BENCH_NO_LIMIT, false);
        runner->rng = rng;
    }
    runner->first_ns = clock_ns();
    if (runner->err == RD_OK)
        runner->err = run_phase(
            runner, config->duration_ns == BENCH_NO_LIMIT ? BENCH_NO_LIMIT : runner->first_ns + config->duration_ns,
            runner->operations, true);
    runner->last_ns = clock_ns();
    if (runner->err != RD_OK)
        atomic_store_explicit(&run->stop, true, memory_order_relaxed);
    (void)pthread_mutex_lock(&run->lock);
    run->finished++;
    (void)pthread_cond_broadcast(&run->changed);
    (void)pthread_mutex_unlock(&run->lock);
    return NULL;
}

static void runner_destroy(struct runner *runner)
{
    if (runner == NULL)
        return;
    for (size_t i = 0; i < runner->run->config->inflight && runner->asks != NULL; i++) {
        free(runner->asks[i].hashes);
        free(runner->asks[i].keys);
        free(runner->asks[i].items);
    }
    free(runner->asks);
    if (runner->lane != NULL)
        runner->run->store->ops->lane_close(runner->lane);
    free(runner);
}

/** Room for the calls that are under way at once. Returns: false where there is none. */
static bool make_asks(struct runner *runner)
{
    const struct bench_config *config = runner->run->config;
    runner->asks = calloc(config->inflight, sizeof(*runner->asks));
    for (size_t i = 0; i < config->inflight && runner->asks != NULL; i++) {
        struct ask *ask = &runner->asks[i];
        ask->hashes = calloc(config->batch, sizeof(*ask->hashes));
        ask->keys = calloc(config->batch, sizeof(*ask->keys));
        ask->items = calloc(config->batch, sizeof(*ask->items));
        if (ask->hashes == NULL || ask->keys == NULL || ask->items == NULL)
            return false;
    }
    return runner->asks != NULL;
}

/** Make the `i`-th thread and start it; it waits at the gate. Returns: RD_OK, RD_E_NOMEM, or why there is no
 * lane. */
static rd_err runner_start(struct run *run, size_t i)
{
    const struct bench_config *config = run->config;
    struct runner *runner = calloc(1, sizeof(*runner));
    if (runner == NULL)
        return RD_E_NOMEM;
    runner->run = run;
    runner->rng = rng_seeded(config->seed, i);
    runner->operations = config->operations == BENCH_NO_LIMIT
                             ? BENCH_NO_LIMIT
                             : config->operations / config->threads + (i < config->operations % config->threads);
    rd_err err = run->store->ops->lane_open(run->store, config->inflight, &runner->lane);
    if (err == RD_OK && (!make_asks(runner) || pthread_create(&runner->thread, NULL, runner_main, runner) != 0))
        err = RD_E_NOMEM;
    if (err != RD_OK) {
        runner_destroy(runner);
        return err;
    }
    run->runners[run->count++] = runner;
    return RD_OK;
}

/* ---- all of them ---- */

/** How much of the run is done, of a thousand: by time or by calls, whichever is further. */
static uint64_t permille_done(const struct run *run, uint64_t begin_ns, uint64_t calls)
{
    const struct bench_config *config = run->config;
    double by_calls = config->operations == BENCH_NO_LIMIT ? 0.0 : (double)calls / (double)config->operations;
    double by_time = config->duration_ns == BENCH_NO_LIMIT
                         ? 0.0
                         : (double)(clock_ns() - begin_ns) / (double)(config->warmup_ns + config->duration_ns);
    return (uint64_t)(1000.0 * (by_calls > by_time ? by_calls : by_time));
}

/** Open the gate and wait, with a bar, until all have finished. */
static void watch(struct run *run)
{
    struct progress progress;
    progress_init(&progress, "bench", 1000);
    uint64_t begin_ns = clock_ns();
    (void)pthread_mutex_lock(&run->lock);
    run->gate = GATE_OPEN;
    (void)pthread_cond_broadcast(&run->changed);
    while (run->finished < run->count) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += WATCH_EVERY_NS;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&run->changed, &run->lock, &until);
        uint64_t calls = 0;
        for (size_t i = 0; i < run->count; i++)
            calls += atomic_load_explicit(&run->runners[i]->done, memory_order_relaxed);
        progress_step(&progress, permille_done(run, begin_ns, calls), calls * run->config->batch);
    }
    (void)pthread_mutex_unlock(&run->lock);
    progress_clear(&progress);
}

/** Add up what the threads found. Returns: RD_OK, or the first error of the store itself. */
static rd_err add_up(const struct run *run, struct bench_result *result)
{
    uint64_t first_ns = UINT64_MAX, last_ns = 0;
    for (size_t i = 0; i < run->count; i++) {
        const struct runner *runner = run->runners[i];
        const struct bench_result *part = &runner->result;
        if (runner->err != RD_OK)
            return runner->err;
        histogram_merge(&result->calls, &part->calls);
        result->hits += part->hits;
        result->absent += part->absent;
        result->failed += part->failed;
        result->bytes += part->bytes;
        for (size_t j = 0; j < part->listed; j++)
            note_failure(result, part->failures[j].key_hash, part->failures[j].what);
        if (part->calls.count > 0) { /* one that had nothing to do, or was interrupted before, has no times */
            first_ns = runner->first_ns < first_ns ? runner->first_ns : first_ns;
            last_ns = runner->last_ns > last_ns ? runner->last_ns : last_ns;
        }
    }
    result->elapsed_ns = last_ns > first_ns ? last_ns - first_ns : 0;
    return RD_OK;
}

static rd_err run_threads(struct run *run, struct bench_result *result)
{
    rd_err err = RD_OK;
    for (size_t i = 0; i < run->config->threads && err == RD_OK; i++)
        err = runner_start(run, i);
    if (err == RD_OK) {
        watch(run);
    } else {
        (void)pthread_mutex_lock(&run->lock);
        run->gate = GATE_ABANDONED;
        (void)pthread_cond_broadcast(&run->changed);
        (void)pthread_mutex_unlock(&run->lock);
    }
    for (size_t i = 0; i < run->count; i++)
        (void)pthread_join(run->runners[i]->thread, NULL);
    return err == RD_OK ? add_up(run, result) : err;
}

/** Take SIGINT, once: a second one ends the process. Who started us with it ignored wants it ignored. */
static void take_interrupt(struct sigaction *old)
{
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    (void)sigemptyset(&action.sa_mask);
    if (sigaction(SIGINT, NULL, old) == 0 && old->sa_handler != SIG_IGN)
        (void)sigaction(SIGINT, &action, NULL);
}

rd_err bench_run(struct tool_store *store, const struct bench_config *config, const struct bench_keys *keys,
                 struct bench_result *result)
{
    struct run run = {.store = store, .config = config, .keys = keys, .gate = GATE_CLOSED};
    run.runners = calloc(config->threads, sizeof(struct runner *));
    if (run.runners == NULL)
        return RD_E_NOMEM;
    if (config->zipf)
        run.zipf = zipf_make(keys->count, config->exponent);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&run.changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&run.lock, NULL);
    result->clock_ns = clock_cost();
    struct sigaction before;
    take_interrupt(&before);
    rd_err err = run_threads(&run, result);
    (void)sigaction(SIGINT, &before, NULL);
    result->interrupted = atomic_load_explicit(&interrupted, memory_order_relaxed);
    for (size_t i = 0; i < run.count; i++)
        runner_destroy(run.runners[i]);
    free(run.runners);
    (void)pthread_cond_destroy(&run.changed);
    (void)pthread_mutex_destroy(&run.lock);
    return err;
}
