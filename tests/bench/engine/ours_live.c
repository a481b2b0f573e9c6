/* Our engine: reading while it changes. */
#include "child.h"
#include "ours.h"
#include "shape.h"
#include "watch.h"

#include <time.h>

static struct watch watch;

static uint64_t read_one(void *store, uint64_t i)
{
    return ours_read_one(store, i);
}

struct growth {
    rd_store *store;
    uint64_t first;
    double index_bytes_max; /* a key */
};

static void grown(void *arg, uint64_t keys)
{
    struct growth *growth = arg;
    atomic_store_explicit(&watch.keys, keys, memory_order_release);
    atomic_store_explicit(&watch.phase, watch_growth_phase(growth->first, keys), memory_order_relaxed);
    rd_store_info info;
    CHECK(rd_store_info_get(growth->store, &info) == RD_OK);
    double bytes = (double)info.index_bytes / (double)keys;
    if (bytes > growth->index_bytes_max)
        growth->index_bytes_max = bytes;
}

/* From `keys` to `count` keys, read by one thread while another writes. */
void ours_grow(const struct job *job)
{
    rd_store *store = ours_create(job->path, RD_SYNC_NONE);
    ours_write_batches(store, 0, job->keys, 0, NULL, NULL);
    struct growth growth = {.store = store, .first = job->keys};
    watch_begin(&watch, read_one, store, job->keys);
    uint64_t began = now_ns();
    ours_write_batches(store, job->keys, job->count, 0, grown, &growth);
    uint64_t ns = now_ns() - began;
    watch_end(&watch);
    CHECK(rd_store_len(store) == job->count);
    print_figure("write_ns", (double)ns / (double)(job->count - job->keys));
    print_figure("index_bytes", growth.index_bytes_max);
    watch_print(&watch);
    rd_store_close(store);
}

/* Another thread that writes new keys meanwhile, one at a time and not in a rush. */
#define WRITE_PAUSE_NS 100000

struct trickle {
    rd_store *store;
    uint64_t next;
    atomic_bool stop;
    pthread_t thread;
};

static void *trickle_run(void *arg)
{
    struct trickle *trickle = arg;
    while (!atomic_load_explicit(&trickle->stop, memory_order_relaxed)) {
        ours_write_batches(trickle->store, trickle->next, trickle->next + 1, 0, NULL, NULL);
        trickle->next++;
        nanosleep(&(struct timespec){.tv_nsec = WRITE_PAUSE_NS}, NULL);
    }
    return NULL;
}

static void compact(rd_store *store)
{
    rd_compacted compacted;
    rd_fault fault;
    uint64_t began = now_ns();
    if (rd_store_compact(store, NULL, &fault, &compacted) != RD_OK)
        die("%s", fault.text);
    print_figure("compact_ns", (double)(now_ns() - began));
}

/* A store whose every key was written twice is compacted; before, and meanwhile, one thread reads: first `count` times
 * with nothing of the kind going on. */
static void compact_watched(const struct job *job, bool writing)
{
    rd_store *store = ours_create(job->path, RD_SYNC_NONE);
    ours_write_batches(store, 0, job->keys, 1, NULL, NULL);
    ours_write_batches(store, 0, job->keys, 0, NULL, NULL);
    CHECK(rd_store_sync(store) == RD_OK);
    struct trickle trickle = {.store = store, .next = job->keys};
    CHECK(!writing || pthread_create(&trickle.thread, NULL, trickle_run, &trickle) == 0);
    watch_begin(&watch, read_one, store, job->keys);
    while (atomic_load(&watch.reads) < job->count)
        nanosleep(&(struct timespec){.tv_nsec = WRITE_PAUSE_NS}, NULL);
    atomic_store(&watch.phase, 1);
    compact(store);
    atomic_store(&watch.phase, 2); /* what the new file's first touches cost */
    watch_end(&watch);
    atomic_store(&trickle.stop, true);
    if (writing)
        pthread_join(trickle.thread, NULL);
    CHECK(rd_store_len(store) == trickle.next);
    for (uint64_t i = job->keys; i < trickle.next; i++)
        ours_read_one(store, i);
    watch_print(&watch);
    print_figure("ratio", (double)latency_percentile(&watch.phases[1].all, 0.99) /
                              (double)latency_percentile(&watch.phases[0].all, 0.99));
    print_figure("ratio_quiet", (double)latency_percentile(&watch.phases[1].quiet, 0.99) /
                                    (double)latency_percentile(&watch.phases[0].quiet, 0.99));
    rd_store_close(store);
}

void ours_compact(const struct job *job)
{
    compact_watched(job, false);
}

void ours_compact_written(const struct job *job)
{
    compact_watched(job, true);
}
