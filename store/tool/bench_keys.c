/* bench's keys: a store keeps only hashes, so those that are there are read off the file. */
#include "bench.h"
#include "in.h"
#include "key.h"
#include "progress.h"
#include "session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LISTED_BATCH        64         /* keys of a list that are asked for at once: their values must have room, too */
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

/** Room for `capacity` keys. */
static int make_room(const struct tool_store *store, struct bench_keys *keys, uint64_t capacity)
{
    *keys = (struct bench_keys){.at = calloc(capacity > 0 ? (size_t)capacity : 1, sizeof(*keys->at))};
    if (keys->at == NULL)
        return report(STATUS_FAILED, "%s: room for %" PRIu64 " keys: %s", store->target, capacity,
                      rd_err_text(RD_E_NOMEM));
    return STATUS_DONE;
}

/** What has been gathered, ready to be asked for. */
static int finish(struct gathering *gathering, const struct bench_config *config)
{
    const struct bench_keys *keys = gathering->keys;
    if (keys->count == 0)
        return report(STATUS_FAILED, "%s: there is no key to read: %s; `rdrive import` or `rdrive put` writes some",
                      gathering->store->target,
                      keys->damaged > 0     ? "each is damaged"
                      : keys->too_large > 0 ? "each is larger than one answer may be; with --batch 2 or more they come"
                      : keys->absent > 0    ? "none that the list names is there"
                                            : "the store has none");
    if (config->zipf)
        shuffle(gathering->keys, &gathering->rng);
    return STATUS_DONE;
}

int bench_gather(struct tool_store *store, const struct bench_config *config, struct bench_keys *keys)
{
    uint64_t live = session_fact(store, "live_keys");
    uint64_t capacity = live < config->keys_max ? live : config->keys_max;
    int status = make_room(store, keys, capacity);
    if (status != STATUS_DONE)
        return status;
    struct gathering gathering = {
        .store = store,
        .keys = keys,
        .capacity = (size_t)capacity,
        .rng = rng_seeded(config->seed, STREAM_GATHER),
    };
    progress_init(&gathering.progress, "gathering keys", live);
    rd_err err = store->ops->iterate(store, gather_entry, &gathering);
    progress_clear(&gathering.progress);
    return err != RD_OK ? session_report(store, "gathering keys", err) : finish(&gathering, config);
}

/* ---- keys of a list ---- */

#define ANSWER_ROOM 64 /* of an answer, for what is not payload */

struct list {
    const struct cli_call *call;
    struct tool_store *store;
    struct tool_lane *lane;
    struct gathering gathering;
    struct in in;
    uint64_t hashes[LISTED_BATCH];
    size_t count;
    rd_batch_item items[LISTED_BATCH];
    uint64_t size_max; /* of a value that the calls of the run can bring */
};

static void list_fini(struct list *list)
{
    in_close(&list->in);
    if (list->lane != NULL)
        list->store->ops->lane_close(list->lane);
}

/** Ask for the first `count` keys at hand; the answer lies in place 0. */
static rd_err ask_for(struct list *list, size_t count)
{
    const struct tool_ops *ops = list->store->ops;
    size_t place = 0;
    ops->lane_ask(list->lane, 0, list->hashes, count, list->items);
    return ops->lane_take(list->lane, &place);
}

/** Take what came for one key. */
static void take_item(struct list *list, size_t i)
{
    struct bench_keys *keys = list->gathering.keys;
    const rd_batch_item *item = &list->items[i];
    rd_metadata meta = item->entry.meta;
    meta.key_hash = list->hashes[i]; /* where there is no entry, too */
    if (item->err == RD_ABSENT) {
        keys->absent++;
    } else if (item->err == RD_OK && item->entry.payload.len > list->size_max) {
        if (keys->too_large++ == 0)
            keys->too_large_hash = meta.key_hash;
    } else {
        (void)gather_entry(&list->gathering, item->err, &meta, item->entry.payload);
    }
}

/** Ask for the keys at hand, and take those that are there. Returns: STATUS_DONE, or the exit status. */
static int ask_listed(struct list *list)
{
    if (list->count == 0)
        return STATUS_DONE;
    rd_err err = ask_for(list, list->count);
    if (err == RD_OK && list->count == 1 && list->items[0].err == RD_E_TOO_LARGE) {
        list->store->ops->lane_give(list->lane, 0);
        list->hashes[1] = list->hashes[0]; /* two come in pieces, of any size */
        err = ask_for(list, 2);
    }
    for (size_t i = 0; i < list->count && err == RD_OK; i++)
        take_item(list, i);
    list->store->ops->lane_give(list->lane, 0);
    list->count = 0;
    return err == RD_OK ? STATUS_DONE : session_report(list->store, "gathering keys", err);
}

/** Understand one line. Returns: STATUS_DONE, or the exit status after a line on stderr. */
static int take_key(struct list *list, rd_span line)
{
    AUTO_BUF word = {0};
    AUTO_KEY key = {0};
    if (!buf_add(&word, line) || !buf_add(&word, (rd_span){"", 1}))
        return report(STATUS_FAILED, "bench: %s", rd_err_text(RD_E_NOMEM));
    if (strlen((const char *)word.data) != line.len)
        return report(STATUS_FAILED, "%s: a key with a zero byte in it; allowed: with --hex-key", list->in.name);
    int status = key_parse(list->call, (const char *)word.data, &key);
    list->hashes[list->count] = key.key.hash;
    list->count += status == STATUS_DONE ? 1 : 0;
    return status == STATUS_DONE && list->count == LISTED_BATCH ? ask_listed(list) : status;
}

static int take_list(struct list *list)
{
    for (;;) {
        rd_span line;
        enum in_result result = in_line(&list->in, &line);
        if (result == IN_END)
            return ask_listed(list);
        int status = result == IN_OK
                         ? take_key(list, line)
                         : report(STATUS_FAILED, "reading %s: %s", list->in.name, in_why(&list->in, result));
        if (status != STATUS_DONE)
            return status;
    }
}

int bench_gather_listed(const struct cli_call *call, struct tool_store *store, const struct bench_config *config,
                        struct bench_keys *keys)
{
    struct list list __attribute__((cleanup(list_fini))) = {.call = call, .store = store};
    if (!in_open(&list.in, call->value[OPTION_KEY_LIST]))
        return report(STATUS_FAILED, "reading %s: %s", list.in.name, strerror(list.in.error));
    int status = make_room(store, keys, config->keys_max);
    if (status != STATUS_DONE)
        return status;
    rd_err err = store->ops->lane_open(store, 1, &list.lane);
    if (err != RD_OK)
        return session_report(store, "gathering keys", err);
    uint64_t answer_max = session_fact(store, "max_response_bytes"); /* of a server's answer to one key */
    list.size_max = answer_max > ANSWER_ROOM && config->batch == 1 ? answer_max - ANSWER_ROOM : UINT64_MAX;
    list.gathering = (struct gathering){.store = store,
                                        .keys = keys,
                                        .capacity = (size_t)config->keys_max,
                                        .rng = rng_seeded(config->seed, STREAM_GATHER)};
    progress_init(&list.gathering.progress, "gathering keys", 0);
    status = take_list(&list);
    progress_clear(&list.gathering.progress);
    if (status == STATUS_DONE)
        status = finish(&list.gathering, config);
    if (status == STATUS_DONE && keys->absent > 0)
        (void)report(STATUS_DONE, "%s: %" PRIu64 " key%s of the list left out: absent", store->target, keys->absent,
                     keys->absent == 1 ? "" : "s");
    if (status == STATUS_DONE && keys->too_large > 0)
        (void)report(STATUS_DONE,
                     "%s: %" PRIu64 " key%s of the list left out: larger than the %" PRIu64
                     " bytes of an answer; the first is key hash %016" PRIx64 "; with --batch 2 or more they come",
                     store->target, keys->too_large, keys->too_large == 1 ? "" : "s", answer_max, keys->too_large_hash);
    return status;
}

void bench_keys_fini(struct bench_keys *keys)
{
    free(keys->at);
    *keys = (struct bench_keys){0};
}
