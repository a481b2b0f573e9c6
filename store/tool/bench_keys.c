/* bench's keys: a store keeps only hashes, so those that are there are read off the file. */
#include "bench.h"
#include "progress.h"
#include "session.h"

#include <inttypes.h>
#include <stdlib.h>

#define STREAM_GATHER       UINT64_MAX /* of the seed's random sequences; the threads have those from 0 up */
#define DAMAGED_LISTED_MAX  100        /* damaged keys reported one by one; the rest is counted */
#define PROGRESS_STEP_COUNT 256        /* entries between two looks at the clock */

struct gathering {
    const struct tool_store *store;
    struct bench_keys *keys;
    size_t capacity;
    struct rng rng;
    struct progress progress;
};

/**
 * A reservoir: the first `capacity` keys are taken; of those that follow, the n-th replaces a random one with the
 * probability capacity / n, which leaves each key of the file the same chance. The newest alone would lie side by side.
 */
static void gather_key(struct gathering *gathering, const rd_metadata *meta, size_t size)
{
    struct bench_keys *keys = gathering->keys;
    uint64_t place = keys->live++;
    if (place >= gathering->capacity)
        place = rng_below(&gathering->rng, keys->live);
    if (place >= gathering->capacity)
        return;
    keys->at[place] = (struct bench_key){meta->key_hash, meta->checksum, (uint32_t)size};
    if (place >= keys->count)
        keys->count = (size_t)place + 1;
}

static bool gather_entry(void *arg, rd_err err, const rd_metadata *meta, rd_span payload)
{
    struct gathering *gathering = arg;
    struct bench_keys *keys = gathering->keys;
    if (err == RD_OK) {
        gather_key(gathering, meta, payload.len);
    } else if (keys->damaged++ < DAMAGED_LISTED_MAX) {
        progress_clear(&gathering->progress);
        (void)report(STATUS_FAILED, "%s: key hash %016" PRIx64 ": %s; left out", gathering->store->target,
                     meta->key_hash, rd_err_text(err));
    }
    uint64_t seen = keys->live + keys->damaged;
    if (seen % PROGRESS_STEP_COUNT == 0)
        progress_step(&gathering->progress, seen, seen);
    return true;
}

/** Fisher and Yates. */
static void shuffle(struct bench_keys *keys, struct rng *rng)
{
    for (size_t left = keys->count; left > 1; left--) {
        size_t other = (size_t)rng_below(rng, left);
        struct bench_key last = keys->at[left - 1];
        keys->at[left - 1] = keys->at[other];
        keys->at[other] = last;
    }
}

int bench_gather(struct tool_store *store, const struct bench_config *config, struct bench_keys *keys)
{
    uint64_t live = session_fact(store, "live_keys");
    uint64_t capacity = live < config->keys_max ? live : config->keys_max;
    *keys = (struct bench_keys){.at = calloc(capacity > 0 ? (size_t)capacity : 1, sizeof(*keys->at))};
    if (keys->at == NULL)
        return report(STATUS_FAILED, "%s: room for %" PRIu64 " keys: %s", store->target, capacity,
                      rd_err_text(RD_E_NOMEM));
    struct gathering gathering = {
        .store = store,
        .keys = keys,
        .capacity = (size_t)capacity,
        .rng = rng_seeded(config->seed, STREAM_GATHER),
    };
    progress_init(&gathering.progress, "gathering keys", live);
    rd_err err = store->ops->iterate(store, gather_entry, &gathering);
    progress_clear(&gathering.progress);
    if (err != RD_OK)
        return session_report(store, "gathering keys", err);
    if (keys->count == 0)
        return report(STATUS_FAILED, "%s: there is no key to read: %s; `rdrive import` or `rdrive put` writes some",
                      store->target, keys->damaged > 0 ? "each is damaged" : "the store has none");
    if (config->zipf)
        shuffle(keys, &gathering.rng);
    return STATUS_DONE;
}

void bench_keys_fini(struct bench_keys *keys)
{
    free(keys->at);
    *keys = (struct bench_keys){0};
}
