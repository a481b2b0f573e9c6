/* Verification: a walk down the file hands what it meets to threads, a fixed number of batches at a time. */
#include "base.h"
#include "pool.h"
#include "store_internal.h"
#include <errno.h>
#include <time.h>

#define BATCH_ENTRIES 4096u
#define BATCH_BYTES   (UINT64_C(64) << 20)
#define AHEAD         2u                   /* batches a thread: one in work, one waiting */
#define REPORT_NS     (100 * 1000 * 1000L) /* between two calls of the caller's progress while nothing ends */
#define NS_PER_S      (1000 * 1000 * 1000L)

struct batch {
    struct job job; /* first: a job is its batch */
    struct batch *next;
    uint64_t span; /* bytes of the file that it stands for */
    uint64_t bytes;
    size_t count;
    size_t failed;
    rd_err err;
    struct entry entries[BATCH_ENTRIES];
};

struct verification {
    rd_store *store;
    struct snapshot snapshot;
    atomic_bool cancel;
    rd_progress *progress;
    void *arg;
    uint64_t bytes_done; /* of the file */
    rd_verified verified;
    bool broken; /* the chain of links is */
    struct pool *pool;
    size_t away; /* batches that the pool has */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t ended;
    struct batch *done;
};

/* ---- a thread's part --------------------------------------------------------------------------------------------- */

static void check_batch(struct verification *verification, struct batch *batch)
{
    for (size_t i = batch->count; i > 0 && batch->err == RD_OK; i--) { /* they were met downwards: read upwards */
        rd_err err = snapshot_check(&verification->snapshot, &batch->entries[i - 1], &verification->cancel);
        if (err == RD_E_DAMAGED)
            batch->failed++;
        else
            batch->err = err;
    }
}

static void run_batches(void *context, struct job *jobs)
{
    struct verification *verification = context;
    while (jobs != NULL) {
        struct batch *batch = (struct batch *)jobs;
        jobs = jobs->next;
        check_batch(verification, batch);
        pthread_mutex_lock(&verification->lock);
        batch->next = verification->done;
        verification->done = batch;
        pthread_cond_signal(&verification->ended);
        pthread_mutex_unlock(&verification->lock);
    }
}

/* ---- the caller's part ------------------------------------------------------------------------------------------- */

static rd_err report(struct verification *verification)
{
    if (verification->progress == NULL ||
        verification->progress(verification->arg, verification->bytes_done, verification->snapshot.tail_off,
                               verification->verified.entries))
        return RD_OK;
    atomic_store(&verification->cancel, true);
    return RD_E_CANCELLED;
}

/* Wait for a batch, up to the next report. Returns: NULL where none has ended. */
static struct batch *wait_batch(struct verification *verification)
{
    struct timespec due;
    clock_gettime(CLOCK_REALTIME, &due);
    due.tv_nsec += REPORT_NS;
    due.tv_sec += due.tv_nsec / NS_PER_S;
    due.tv_nsec %= NS_PER_S;
    pthread_mutex_lock(&verification->lock);
    int waited = 0;
    while (verification->done == NULL && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&verification->ended, &verification->lock, &due);
    struct batch *batch = verification->done;
    if (batch != NULL)
        verification->done = batch->next;
    pthread_mutex_unlock(&verification->lock);
    return batch;
}

/* Take back one batch. Returns: RD_OK, or why it or the whole ended early. */
static rd_err take_back(struct verification *verification, struct batch **out_batch)
{
    struct batch *batch;
    rd_err err = RD_OK;
    while ((batch = wait_batch(verification)) == NULL)
        if (err == RD_OK)
            err = report(verification);
    verification->away--;
    verification->bytes_done += batch->span;
    verification->verified.entries += batch->count;
    verification->verified.bytes += batch->bytes;
    verification->verified.failed += batch->failed;
    *out_batch = batch;
    if (batch->err != RD_OK)
        err = batch->err;
    return err == RD_OK ? report(verification) : err;
}

/* Fill a batch from `*end_off` down. */
static rd_err fill(struct verification *verification, uint64_t *end_off, struct batch *batch)
{
    uint64_t from_off = *end_off;
    batch->count = 0;
    batch->bytes = 0;
    batch->failed = 0;
    batch->err = RD_OK;
    while (*end_off > 0 && batch->count < BATCH_ENTRIES && batch->bytes < BATCH_BYTES) {
        const struct damage *damage = NULL;
        struct entry *entry = &batch->entries[batch->count];
        rd_err err = snapshot_walk(&verification->snapshot, end_off, entry, &damage);
        if (err == RD_E_DAMAGED) {
            verification->broken = true;
            *end_off = 0;
        } else if (err == RD_OK && damage == NULL) {
            batch->bytes += entry_payload_len(entry);
            batch->count++;
        } else if (err != RD_OK && err != RD_ABSENT) {
            return err;
        }
    }
    batch->span = from_off - *end_off;
    return RD_OK;
}

/* All batches of the snapshot. Whatever comes, none is away afterwards. */
static rd_err walk(struct verification *verification, struct batch *batches, size_t batch_count)
{
    uint64_t end_off = verification->snapshot.tail_off;
    size_t fresh = batch_count;
    rd_err err = report(verification);
    while (err == RD_OK && end_off > 0) {
        struct batch *batch = NULL;
        if (fresh > 0)
            batch = &batches[--fresh];
        else
            err = take_back(verification, &batch);
        if (err == RD_OK)
            err = fill(verification, &end_off, batch);
        if (err == RD_OK) {
            verification->away++;
            pool_submit(verification->pool, &batch->job);
        }
    }
    while (verification->away > 0) {
        struct batch *batch;
        if (err != RD_OK)
            atomic_store(&verification->cancel, true);
        rd_err last = take_back(verification, &batch);
        err = err == RD_OK ? last : err;
    }
    return err;
}

static rd_err check_all(struct verification *verification, size_t thread_count)
{
    size_t batch_count = AHEAD * thread_count;
    struct batch *batches = calloc(batch_count, sizeof(*batches));
    if (batches == NULL)
        return RD_E_NOMEM;
    rd_err err = pool_create(thread_count, 1, run_batches, verification, &verification->pool);
    if (err == RD_OK)
        err = walk(verification, batches, batch_count);
    pool_destroy(verification->pool);
    free(batches);
    return err;
}

rd_err rd_store_verify(rd_store *store, size_t thread_count, rd_progress *progress, void *arg,
                       rd_verified *out_verified)
{
    struct verification verification = {.store = store, .progress = progress, .arg = arg};
    pthread_mutex_init(&verification.lock, NULL);
    pthread_cond_init(&verification.ended, NULL);
    store_snapshot(store, &verification.snapshot);
    rd_err err = check_all(&verification, thread_count);
    bool failed = verification.verified.failed > 0 || verification.broken;
    if (err == RD_OK && failed && store_was_cut(store, &verification.snapshot, verification.snapshot.tail_off))
        err = RD_E_TRUNCATED;
    snapshot_release(&verification.snapshot);
    pthread_cond_destroy(&verification.ended);
    pthread_mutex_destroy(&verification.lock);
    if (err == RD_OK && failed)
        err = store_recover_again(store, NULL);
    if (err == RD_OK)
        *out_verified = verification.verified;
    return err;
}
