/* Callers that wait for a sync of their commit. Whoever finds no leader leads: it commits what waits, with one sync for
   all, and hands the lead on. So a sync that takes long gathers those who come meanwhile, and none waits for more than
   two. Without a sync to share, a commit takes less than a thread takes to sleep and wake: no queue then. */
#include "base.h"
#include "store_internal.h"
#include <fcntl.h>
#include <semaphore.h>

#define GROUP_MAX 256 /* commits that share a sync */

enum wait_state { WAITING, LEADING, DONE };

struct waiter {
    struct commit *commit;
    struct waiter *next;
    enum wait_state state; /* once it is not WAITING, `changed` is posted */
    sem_t changed;         /* one each: who is woken needs no lock that 60 others are woken for, too */
};

struct commit_queue {
    pthread_mutex_t lock; /* guards all but `sync`; nothing else is taken under it */
    struct waiter *first, *last;
    bool led;
    pthread_mutex_t sync; /* one sync at a time: the kernel reports a failed write-back to one of them alone */
};

rd_err commit_queue_create(struct commit_queue **out_queue)
{
    struct commit_queue *queue = calloc(1, sizeof(*queue));
    if (queue == NULL)
        return RD_E_NOMEM;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_mutex_init(&queue->sync, NULL);
    *out_queue = queue;
    return RD_OK;
}

void commit_queue_destroy(struct commit_queue *queue)
{
    if (queue == NULL)
        return;
    RD_REQUIRE(queue->first == NULL && !queue->led);
    pthread_mutex_destroy(&queue->lock);
    pthread_mutex_destroy(&queue->sync);
    free(queue);
}

/* Requires: `lock` is held, here and below. */
static void queue_put(struct commit_queue *queue, struct waiter *waiter)
{
    if (queue->first == NULL)
        queue->first = waiter;
    else
        queue->last->next = waiter;
    queue->last = waiter;
}

static size_t queue_take(struct commit_queue *queue, struct waiter *out_group[GROUP_MAX])
{
    size_t count = 0;
    for (; queue->first != NULL && count < GROUP_MAX; queue->first = queue->first->next)
        out_group[count++] = queue->first;
    return count;
}

static void waiter_move(struct waiter *waiter, enum wait_state state)
{
    waiter->state = state;
    sem_post(&waiter->changed); /* the waiter may be gone now */
}

/* Carry out what waits, the leader's own commit first. */
static void lead(rd_store *store, struct commit_queue *queue)
{
    struct waiter *waiters[GROUP_MAX];
    struct commit *group[GROUP_MAX];
    pthread_mutex_lock(&queue->lock);
    size_t count = queue_take(queue, waiters);
    pthread_mutex_unlock(&queue->lock);
    for (size_t i = 0; i < count; i++)
        group[i] = waiters[i]->commit;
    store_commit(store, group, count);
    pthread_mutex_lock(&queue->lock);
    struct waiter *next = queue->first;
    queue->led = next != NULL;
    pthread_mutex_unlock(&queue->lock);
    if (next != NULL)
        waiter_move(next, LEADING); /* first: its group gathers while the others wake */
    for (size_t i = 1; i < count; i++)
        waiter_move(waiters[i], DONE);
}

/* Wait for this commit to be carried out, or carry it out. */
static void take_turn(rd_store *store, struct commit_queue *queue, struct commit *commit)
{
    struct waiter waiter = {.commit = commit, .state = WAITING};
    sem_init(&waiter.changed, 0, 0);
    pthread_mutex_lock(&queue->lock);
    queue_put(queue, &waiter);
    bool leads = !queue->led;
    queue->led = true;
    pthread_mutex_unlock(&queue->lock);
    while (!leads && sem_wait(&waiter.changed) != 0) { /* a signal handler ran */
    }
    if (leads || waiter.state == LEADING)
        lead(store, queue);
    sem_destroy(&waiter.changed);
}

rd_err store_submit(rd_store *store, struct commit *commit, rd_written *out_done)
{
    if (!store->options.writable)
        return RD_E_READ_ONLY;
    if (store->options.sync == RD_SYNC_ALWAYS)
        take_turn(store, store->queue, commit);
    else
        store_commit(store, &(struct commit *){commit}, 1);
    if (commit->err == RD_OK && out_done != NULL)
        *out_done = commit->written;
    return commit->err;
}

/* A moment of the file that is to be made durable. */
struct syncing {
    struct file file; /* of its own: a compaction may close the store's meanwhile */
    uint64_t tail_off;
    uint64_t generation;
};

/* Returns: RD_OK, `out_syncing->file.fd` is -1 where nothing is to be synced. */
static rd_err sync_begin(rd_store *store, struct syncing *out_syncing)
{
    rd_err err = RD_OK;
    struct syncing syncing = {.file.fd = -1};
    pthread_mutex_lock(&store->write);
    syncing.tail_off = store->view->tail_off;
    syncing.generation = store->view->generation;
    if (store->unsynced && file_is_gone(&store->file))
        store->write_ended = true;
    if (store->write_ended)
        err = RD_E_ENDED;
    else if (store->unsynced && (syncing.file.fd = fcntl(store->file.fd, F_DUPFD_CLOEXEC, 0)) < 0)
        err = RD_E_IO;
    pthread_mutex_unlock(&store->write);
    *out_syncing = syncing;
    return err;
}

static void sync_end(rd_store *store, const struct syncing *syncing, rd_err err)
{
    pthread_mutex_lock(&store->write);
    if (err != RD_OK) {
        store->write_ended = true;
    } else if (store->view->generation == syncing->generation) {
        store->unsynced = store->view->tail_off != syncing->tail_off;
        /* without an append of ours, an earlier opening's line is still there; opening itself has none yet */
        const struct layout *layout = store->view->mapping->layout;
        if (store->line != NULL && writer_line_begin(store->line, &store->file, layout, syncing->tail_off) == RD_OK)
            writer_line_synced(store->line, syncing->tail_off, false);
    }
    pthread_mutex_unlock(&store->write);
}

rd_err store_sync(rd_store *store)
{
    struct syncing syncing;
    if (!store->options.writable)
        return RD_E_READ_ONLY;
    pthread_mutex_lock(&store->queue->sync);
    rd_err err = sync_begin(store, &syncing);
    if (err == RD_OK && syncing.file.fd >= 0) {
        err = file_sync(&syncing.file);
        sync_end(store, &syncing, err);
        file_close(&syncing.file);
    }
    pthread_mutex_unlock(&store->queue->sync);
    return err;
}
