/* kill -9 under load, again and again, on one store: a child works on it with several threads and tells each operation
   to an oracle in memory that it shares with its parent, which kills it at some operation and opens what is left. */
#include "work.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS        4
#define STUCK_AFTER_S  60
#define FILE_LARGE     ((uint64_t)48 << 20) /* then the next round begins with a compaction */
#define KILL_OPS_MAX   400
#define KILL_PAUSE_NS  3000000
#define AT_OPENING     30 /* of a hundred rounds in which the child dies while it opens, or soon after */
#define OPENING_NS_MAX 4000000

/* What outlives the child. */
struct shared {
    struct oracle oracle;
    atomic_ullong operations;
    atomic_bool was_made; /* creating the store was acknowledged */
    struct campaign campaign;
};

struct round {
    struct shared *shared;
    uint64_t number;
    struct rng rng;
    bool compacts_first;
    uint64_t by_index; /* openings by a snapshot index that was left */
    const char *path;
};

static const struct {
    rd_sync sync;
    const char *text;
} modes[] = {{RD_SYNC_ALWAYS, "always"}, {RD_SYNC_INTERVAL, "interval"}, {RD_SYNC_NONE, "none"}};

/* ---- The child ----------------------------------------------------------------------------------------------------
 */

struct child {
    struct worker worker;
    struct shared *shared;
};

static void *work_on(void *argument)
{
    struct child *child = argument;
    while (work(&child->worker))
        atomic_fetch_add(&child->shared->operations, 1);
    return NULL;
}

/* Work until killed, or until the oracle is full. */
static void run_child(const struct round *round, rd_sync sync)
{
    const rd_open_options options = {
        .writable = true, .create = true, .sync = sync, .sync_interval_ms = 2, .index_after = 1};
    struct child children[WORKERS];
    pthread_t threads[WORKERS];
    rd_store *store;
    rd_fault fault;
    rd_compacted compacted;
    if (rd_store_open(round->path, &options, &fault, &store) != RD_OK)
        fail("opening for work: %s", fault.text);
    atomic_store(&round->shared->was_made, true);
    if (round->compacts_first && rd_store_compact(store, NULL, &fault, &compacted) != RD_OK)
        fail("compacting: %s", fault.text);
    for (uint32_t i = 0; i < WORKERS; i++) {
        children[i] = (struct child){.shared = round->shared,
                                     .worker = {.store = store,
                                                .oracle = &round->shared->oracle,
                                                .rng = rng_of(mix(round->shared->campaign.seed, round->number * 8 + i)),
                                                .sizes = SIZES_LARGE,
                                                .number = round->number << 20,
                                                .first = i,
                                                .stride = WORKERS,
                                                .compacts = true}};
        if (pthread_create(&threads[i], NULL, work_on, &children[i]) != 0)
            fail("no thread");
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    rd_store_close(store);
}

/* ---- The parent ---------------------------------------------------------------------------------------------------
 */

static void pause_ns(uint64_t ns)
{
    const struct timespec span = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    nanosleep(&span, NULL);
}

/* Kill the child once it has done so many operations and some time more, whatever it is at. It may end before. */
static void kill_at(const struct round *round, pid_t child, uint64_t operations, uint64_t ns)
{
    time_t begun = time(NULL);
    siginfo_t ended = {0};
    while (atomic_load(&round->shared->operations) < operations) {
        if (waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == child)
            break;
        if (time(NULL) - begun > STUCK_AFTER_S) {
            kill(child, SIGKILL);
            fail("stuck after %llu operations", (unsigned long long)atomic_load(&round->shared->operations));
        }
        pause_ns(50000);
    }
    pause_ns(ns);
    kill(child, SIGKILL);
    int status;
    if (waitpid(child, &status, 0) != child)
        fail("waitpid");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return; /* done with everything */
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail("the child ended by itself, with wait status %d", status);
}

/* Open what is left as `writable` says, and check it. Returns: its size. */
static uint64_t check(struct round *round, bool writable, const char *index, const char *what, struct view *out_view)
{
    const rd_open_options options = {.writable = writable,
                                     .create = !atomic_load(&round->shared->was_made),
                                     .sync = RD_SYNC_ALWAYS,
                                     .index = index,
                                     .index_after = 1}; /* a snapshot index at each close */
    rd_store *store;
    rd_fault fault;
    uint64_t bytes = 0;
    if (rd_store_open(round->path, &options, &fault, &store) != RD_OK)
        fail("%s: %s", what, fault.text);
    oracle_check(&round->shared->oracle, store, what, out_view);
    rd_store_info info;
    if (rd_store_info_get(store, &info) != RD_OK)
        fail("%s: no info", what);
    bytes = info.file_size;
    round->by_index += info.index_source == RD_INDEX_SNAPSHOT;
    rd_store_close(store);
    return bytes;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static void run_round(struct round *round)
{
    struct view first;
    struct view again;
    const size_t mode = (size_t)rng_below(&round->rng, sizeof(modes) / sizeof(modes[0]));
    bool at_opening = rng_chance(&round->rng, AT_OPENING);
    uint64_t operations = at_opening ? 0 : 1 + rng_below(&round->rng, KILL_OPS_MAX);
    uint64_t ns = rng_below(&round->rng, at_opening ? OPENING_NS_MAX : KILL_PAUSE_NS);
    at_place("round %llu, sync %s, killed after %llu operations and %llu us", (unsigned long long)round->number,
             modes[mode].text, (unsigned long long)operations, (unsigned long long)ns / 1000);
    unsigned long long before = atomic_load(&round->shared->operations);
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        run_child(round, modes[mode].sync);
        _exit(0);
    }
    kill_at(round, child, before + operations, ns);
    if (!exists(round->path)) {
        if (atomic_load(&round->shared->was_made))
            fail("the store is gone");
        return;
    }
    check(round, false, "off", "recovered", &first);
    check(round, false, NULL, "read-only", &again);
    oracle_same(&round->shared->oracle, &first, &again, "read-only");
    check(round, true, NULL, "for writing", &again);
    oracle_same(&round->shared->oracle, &first, &again, "for writing");
    uint64_t bytes = check(round, false, NULL, "read-only again", &again);
    oracle_same(&round->shared->oracle, &first, &again, "read-only again");
    oracle_settle(&round->shared->oracle, &first);
    round->compacts_first = bytes > FILE_LARGE;
}

int main(int argc, char **argv)
{
    struct campaign campaign;
    char path[PATH_LEN];
    campaign_begin(&campaign, "kill", 50, false, argc, argv);
    path_of(path, "%s/store", campaign.folder);
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("no shared memory");
    shared->campaign = campaign;
    oracle_init(&shared->oracle);
    struct round round = {.shared = shared, .path = path};
    for (round.number = 0; round.number < campaign.rounds; round.number++) {
        round.rng = rng_of(mix(campaign.seed, round.number));
        run_round(&round);
    }
    if (round.by_index == 0 && campaign.rounds > 10)
        fail("no opening was by a snapshot index");
    campaign_end(&campaign, "%llu kills, %llu operations, %llu openings by a snapshot index",
                 (unsigned long long)campaign.rounds, (unsigned long long)atomic_load(&shared->operations),
                 (unsigned long long)round.by_index);
    munmap(shared, sizeof(*shared));
    return 0;
}
