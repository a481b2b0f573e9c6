/* Two threads a store at most, each started when it is first needed. The ticker does what has its time: a sync of the
   interval mode, the look at the file. The worker does what takes long: late recoveries and the scrub. Apart, so that
   no sync waits for them. */
#include "base.h"
#include "scrub.h"
#include "store_internal.h"
#include "thread.h"
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#define NS_PER_S        UINT64_C(1000000000)
#define NS_PER_MS       UINT64_C(1000000)
#define LOOK_NS         NS_PER_S
#define SYNC_DEFAULT_MS 1000u
#define NEVER           UINT64_MAX
#define CUT_NONE        UINT64_MAX
#define SCRUB_SLICE_MIN (UINT64_C(4) << 10)
#define SCRUB_SLICE_MAX (UINT64_C(4) << 20)

struct upkeep {
    rd_store *store;
    pthread_mutex_t recovering; /* one late recovery at a time; taken before the store's `write` */
    pthread_mutex_t lock;       /* a leaf; guards what follows */
    pthread_cond_t changed;
    bool ticking, working; /* which threads were started */
    bool recover_asked;
    pthread_t ticker, worker;
    atomic_bool ending;        /* set under `lock`; a running recovery looks at it without */
    struct scrub scrub;        /* the worker's; its figures are atomic */
    _Atomic uint64_t cut_size; /* the file's size when it was last found cut, else CUT_NONE */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Wait until `due_ns`, or until `*asked` where that isn't NULL. Returns: false once the end is near. */
static bool upkeep_wait(struct upkeep *upkeep, uint64_t due_ns, bool *asked)
{
    struct timespec due = {.tv_sec = (time_t)(due_ns / NS_PER_S), .tv_nsec = (long)(due_ns % NS_PER_S)};
    int waited = 0;
    pthread_mutex_lock(&upkeep->lock);
    while (!atomic_load(&upkeep->ending) && waited != ETIMEDOUT && (asked == NULL || !*asked))
        waited = due_ns == NEVER ? pthread_cond_wait(&upkeep->changed, &upkeep->lock)
                                 : pthread_cond_timedwait(&upkeep->changed, &upkeep->lock, &due);
    pthread_mutex_unlock(&upkeep->lock);
    return !atomic_load(&upkeep->ending);
}

/* ---- the ticker ------------------------------------------------------------------------------------------------- */

static uint64_t sync_interval_ns(const rd_open_options *options)
{
    uint32_t interval_ms = options->sync_interval_ms == 0 ? SYNC_DEFAULT_MS : options->sync_interval_ms;
    return options->writable && options->sync == RD_SYNC_INTERVAL ? interval_ms * NS_PER_MS : NEVER;
}

static uint64_t after(uint64_t interval_ns)
{
    return interval_ns == NEVER ? NEVER : now_ns() + interval_ns;
}

static void *tick(void *argument)
{
    struct upkeep *upkeep = argument;
    rd_store *store = upkeep->store;
    uint64_t sync_ns = sync_interval_ns(&store->options);
    uint64_t look_ns = store->options.watch ? LOOK_NS : NEVER;
    uint64_t sync_due = after(sync_ns);
    uint64_t look_due = after(look_ns);
    while (upkeep_wait(upkeep, sync_due < look_due ? sync_due : look_due, NULL)) {
        uint64_t now = now_ns();
        if (now >= sync_due) {
            sync_due = after(sync_ns);
            if (store_sync(store) != RD_OK)
                sync_due = NEVER; /* writing has ended, and each write says so */
        }
        if (now >= look_due) {
            store_look(store);
            look_due = after(look_ns);
        }
    }
    return NULL;
}

/* ---- the worker ------------------------------------------------------------------------------------------------- */

static bool take_recover(struct upkeep *upkeep)
{
    pthread_mutex_lock(&upkeep->lock);
    bool asked = upkeep->recover_asked;
    upkeep->recover_asked = false;
    pthread_mutex_unlock(&upkeep->lock);
    return asked;
}

/* An eighth of a second's bytes: small enough to be steady, large enough to read ahead in. */
static uint64_t scrub_slice(uint64_t rate)
{
    uint64_t slice = rate / 8;
    if (slice < SCRUB_SLICE_MIN)
        return SCRUB_SLICE_MIN;
    return slice < SCRUB_SLICE_MAX ? slice : SCRUB_SLICE_MAX;
}

static void *work(void *argument)
{
    struct upkeep *upkeep = argument;
    rd_store *store = upkeep->store;
    uint64_t rate = store->options.scrub_rate;
    uint64_t slice_max = scrub_slice(rate);
    uint64_t due_ns = rate > 0 ? now_ns() : NEVER;
    while (upkeep_wait(upkeep, due_ns, &upkeep->recover_asked)) {
        if (take_recover(upkeep)) {
            /* without memory the keys that failed stay damaged, each alone; a cut file shows in its own way */
            rd_err err = store_recover_again(store, &upkeep->ending);
            (void)err;
            continue;
        }
        if (rate == 0)
            continue;
        uint64_t bytes;
        enum scrub_result result = scrub_step(&upkeep->scrub, store, slice_max, &bytes);
        if (result == SCRUB_FAILED)
            upkeep_recover(upkeep);
        uint64_t now = now_ns();
        if (due_ns + NS_PER_S < now) /* what other work took is not caught up with */
            due_ns = now - NS_PER_S;
        due_ns = result == SCRUB_DONE ? NEVER : due_ns + bytes * NS_PER_S / rate;
    }
    return NULL;
}

/* ---- its life --------------------------------------------------------------------------------------------------- */

/* Requires: `lock` is held. */
static rd_err start_once(struct upkeep *upkeep, bool *started, void *(*run)(void *), pthread_t *thread)
{
    if (!*started)
        RD_TRY(thread_start(run, upkeep, thread));
    *started = true;
    return RD_OK;
}

static rd_err start_as_needed(struct upkeep *upkeep)
{
    const rd_open_options *options = &upkeep->store->options;
    rd_err err = RD_OK;
    pthread_mutex_lock(&upkeep->lock);
    if (options->watch || sync_interval_ns(options) != NEVER)
        err = start_once(upkeep, &upkeep->ticking, tick, &upkeep->ticker);
    if (err == RD_OK && options->scrub_rate > 0)
        err = start_once(upkeep, &upkeep->working, work, &upkeep->worker);
    pthread_mutex_unlock(&upkeep->lock);
    return err;
}

rd_err upkeep_create(rd_store *store)
{
    struct upkeep *upkeep = calloc(1, sizeof(*upkeep));
    pthread_condattr_t attributes;
    if (upkeep == NULL || pthread_condattr_init(&attributes) != 0) {
        free(upkeep);
        return RD_E_NOMEM;
    }
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&upkeep->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&upkeep->lock, NULL);
    pthread_mutex_init(&upkeep->recovering, NULL);
    upkeep->store = store;
    atomic_init(&upkeep->cut_size, CUT_NONE);
    store->upkeep = upkeep; /* the threads find it there */
    return start_as_needed(upkeep);
}

void upkeep_destroy(struct upkeep *upkeep)
{
    if (upkeep == NULL)
        return;
    pthread_mutex_lock(&upkeep->lock);
    atomic_store(&upkeep->ending, true);
    pthread_cond_broadcast(&upkeep->changed);
    pthread_mutex_unlock(&upkeep->lock);
    if (upkeep->ticking)
        pthread_join(upkeep->ticker, NULL);
    if (upkeep->working)
        pthread_join(upkeep->worker, NULL);
    scrub_fini(&upkeep->scrub);
    pthread_cond_destroy(&upkeep->changed);
    pthread_mutex_destroy(&upkeep->lock);
    pthread_mutex_destroy(&upkeep->recovering);
    free(upkeep);
}

void upkeep_recover(struct upkeep *upkeep)
{
    pthread_mutex_lock(&upkeep->lock);
    upkeep->recover_asked = true;
    rd_err err = start_once(upkeep, &upkeep->working, work, &upkeep->worker);
    (void)err; /* without a thread it waits for the next that asks; the key that failed is damaged meanwhile */
    pthread_cond_broadcast(&upkeep->changed);
    pthread_mutex_unlock(&upkeep->lock);
}

void upkeep_scrubbed(const struct upkeep *upkeep, uint64_t *out_done, uint64_t *out_total)
{
    *out_done = atomic_load(&upkeep->scrub.bytes_done);
    *out_total = atomic_load(&upkeep->scrub.bytes_total);
}

/* ---- late recovery ---------------------------------------------------------------------------------------------- */

/* What a crash tore was judged at opening, by STORE.writer. Read-only, all above it stays so; a store that is written
   to has superseded it, and of what was synced behind it since only that very range is torn. */
static uint64_t torn_from(const rd_store *store, const struct layout *layout)
{
    uint64_t from = SYNCED_UNKNOWN;
    for (size_t i = 0; !store->options.writable && layout != NULL && i < layout->damage_count; i++)
        if (layout->damage[i].kind == DAMAGE_TORN && layout->damage[i].begin_off >= store->synced_off)
            from = layout->damage[i].begin_off; /* descending: the last is the first torn */
    return from;
}

/* Put what was found in place, unless the file is another by now. */
static rd_err adopt(rd_store *store, const struct snapshot *snapshot, struct recovered *found)
{
    rd_err err = RD_OK;
    struct view *superseded = NULL;
    pthread_mutex_lock(&store->write);
    if (store->view->generation == snapshot->mapping->generation)
        err = store_adopt(store, found, snapshot->tail_off, &superseded);
    pthread_mutex_unlock(&store->write);
    store_retire(superseded);
    return err;
}

rd_err store_recover_again(rd_store *store, const atomic_bool *cancel)
{
    struct snapshot snapshot;
    struct recovered found;
    uint64_t fault_off;
    pthread_mutex_lock(&store->upkeep->recovering);
    store_snapshot(store, &snapshot);
    const struct layout *layout = snapshot.mapping->layout;
    const struct damage *last = layout_find(layout, snapshot.tail_off);
    struct recover_options options = {.cancel = cancel,
                                      .synced_off = torn_from(store, layout),
                                      .check_all = true,
                                      .end_proven = last == NULL || last->kind == RD_DAMAGE_LINK};
    layout_torn(layout, &options.torn);
    rd_err err = recover(snapshot.mapping->base, snapshot.tail_off, &options, &fault_off, &found);
    if (err == RD_OK) {
        err = adopt(store, &snapshot, &found);
        recovered_fini(&found);
    }
    snapshot_release(&snapshot);
    pthread_mutex_unlock(&store->upkeep->recovering);
    return err;
}

/* ---- the look at the file --------------------------------------------------------------------------------------- */

/* The file that is open, at one instant. */
struct seen {
    struct stat open;
    uint64_t tail_off;
    uint64_t generation;
};

static bool see_open(rd_store *store, struct seen *out_seen)
{
    struct reading reading = reading_begin(store);
    /* the tail before the size: a commit in between only makes the file longer */
    out_seen->tail_off = reading.view->tail_off;
    out_seen->generation = reading.view->generation;
    bool seen = fstat(reading.view->fd, &out_seen->open) == 0;
    reading_end(&reading);
    return seen;
}

/* Whether the path names another file than the one that was open then. A compaction of our own is not seen as one: it
   renames before it swaps, and says so from before the one until after the other. */
static bool is_replaced(rd_store *store, const struct seen *seen, bool before)
{
    struct stat named;
    bool there = stat(store->path, &named) == 0;
    if (!there && errno != ENOENT && errno != ENOTDIR)
        return before; /* nobody can tell */
    bool same = there && named.st_ino == seen->open.st_ino && named.st_dev == seen->open.st_dev;
    struct reading reading = reading_begin(store);
    bool ours = atomic_load(&store->compacting) || reading.view->generation != seen->generation;
    reading_end(&reading);
    return ours ? before : !same;
}

/* Pages that were cut off may come back with other bytes: what was found of them no longer counts. */
static void forget_verified(rd_store *store, uint64_t size)
{
    if (atomic_exchange(&store->upkeep->cut_size, size) == size)
        return;
    pthread_mutex_lock(&store->write); /* nothing is moved meanwhile */
    index_clear_flag(&store->view->index, WORD_VERIFIED);
    pthread_mutex_unlock(&store->write);
}

rd_file_state store_look(rd_store *store)
{
    rd_file_state before = (rd_file_state)atomic_load(&store->file_state);
    struct seen seen;
    if (!see_open(store, &seen))
        return before;
    uint64_t size = (uint64_t)seen.open.st_size;
    rd_file_state state = RD_FILE_SAME;
    if (!store->options.writable && size > seen.tail_off + store->unread_bytes)
        state = RD_FILE_GREW;
    if (is_replaced(store, &seen, before == RD_FILE_REPLACED))
        state = RD_FILE_REPLACED;
    if (size < seen.tail_off) {
        state = RD_FILE_SHRUNK;
        forget_verified(store, size);
    } else {
        atomic_store(&store->upkeep->cut_size, CUT_NONE);
    }
    atomic_store(&store->file_state, state);
    return state;
}
