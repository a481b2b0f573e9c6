/* The power goes at any call, again and again: a store is worked on, and what the disk may have kept is opened. With
   one worker a round is the same for the same seed; several interleave as they like, and so does an interval's sync. */
#include "disk.h"
#include "work.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS_MAX  3
#define IMAGES       4 /* what is left in different ways of one power cut */
#define STEPS_MAX    60
#define OPENINGS_MAX 4

struct round {
    const struct campaign *campaign;
    struct oracle *oracle;
    struct rng rng;
    uint64_t number;
    char disk[PATH_LEN]; /* the folder that is the disk */
    bool was_made;       /* creating the store was acknowledged */
    uint64_t by_index;   /* openings by a snapshot index that was left */
};

static const rd_sync modes[] = {RD_SYNC_ALWAYS, RD_SYNC_NONE, RD_SYNC_ALWAYS, RD_SYNC_INTERVAL};

static rd_open_options any_options(struct rng *rng)
{
    return (rd_open_options){.writable = true,
                             .create = true,
                             .sync = modes[rng_below(rng, sizeof(modes) / sizeof(modes[0]))],
                             .sync_interval_ms = 1,
                             .index_after = rng_chance(rng, 60) ? 1 : 0}; /* a snapshot index at each close */
}

static void *work_on(void *argument)
{
    struct worker *worker = argument;
    struct rng *rng = &worker->rng;
    for (uint64_t steps = rng_below(rng, STEPS_MAX); steps > 0 && work(worker); steps--)
        ;
    return NULL;
}

/* Open the store on the disk, work on it, and close it; the power may go at any moment. Returns: false once it has. */
static bool work_until_off(struct round *round, uint64_t opening)
{
    char path[PATH_LEN];
    rd_store *store;
    rd_fault fault;
    path_of(path, "%s/store", round->disk);
    rd_open_options options = any_options(&round->rng);
    disk_hurry(options.sync != RD_SYNC_INTERVAL && rng_chance(&round->rng, 60));
    if (rd_store_open(path, &options, &fault, &store) != RD_OK) {
        if (!disk_is_off())
            fail("opening what was there: %s", fault.text);
        return false;
    }
    round->was_made = round->was_made || !disk_is_off();
    oracle_check_now(round->oracle, store, "opened again for work");
    struct worker workers[WORKERS_MAX];
    pthread_t threads[WORKERS_MAX];
    uint32_t count = rng_chance(&round->rng, 60) ? 1 : WORKERS_MAX;
    for (uint32_t i = 0; i < count; i++) {
        workers[i] = (struct worker){.store = store,
                                     .oracle = round->oracle,
                                     .rng = rng_of(rng_next(&round->rng)),
                                     .sizes = SIZES_MIXED,
                                     .number = (round->number << 20) + (opening << 16),
                                     .first = i,
                                     .stride = count,
                                     .is_dead = disk_is_off,
                                     .compacts = true};
        if (pthread_create(&threads[i], NULL, work_on, &workers[i]) != 0)
            fail("no thread");
    }
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    if (rng_chance(&round->rng, 50))
        disk_power_off();
    rd_store_close(store);
    return !disk_is_off();
}

/* What was left is served as the oracle allows, the same each time it is opened. */
static void check_image(struct round *round, const char *folder, struct view *out_view)
{
    static const rd_open_options reading = {.writable = false};
    static const rd_open_options writing = {.writable = true, .sync = RD_SYNC_ALWAYS, .index_after = 1};
    static const char *const names[] = {"read-only, recovered", "read-only", "for writing", "read-only again",
                                        "for writing again"};
    char path[PATH_LEN];
    rd_fault fault;
    path_of(path, "%s/store", folder);
    for (size_t i = 0; i < 5; i++) {
        rd_store *store;
        struct view view;
        rd_open_options options = i > 0 && i % 2 == 0 ? writing : reading;
        options.create = options.writable && !round->was_made;
        options.index = i == 0 ? "off" : NULL; /* by a snapshot index that was left all must be the same */
        rd_err err = rd_store_open(path, &options, &fault, &store);
        if (i < 2 && err == RD_E_IO && !round->was_made) {
            memset(out_view, 0, sizeof(*out_view)); /* not even its name is there */
            continue;
        }
        if (err != RD_OK)
            fail("%s: %s", names[i], fault.text);
        rd_store_info info;
        if (rd_store_info_get(store, &info) != RD_OK || info.damaged_ranges > 0)
            fail("%s: what a crash tore is taken for damage", names[i]);
        round->by_index += info.index_source == RD_INDEX_SNAPSHOT;
        oracle_check(round->oracle, store, names[i], i == 0 ? out_view : &view);
        if (i > 0)
            oracle_same(round->oracle, out_view, &view, names[i]);
        rd_store_close(store);
    }
}

/* Returns: what the image shows that becomes the next round's disk, in the folder `next`. */
static struct view check_images(struct round *round, const char *next)
{
    struct view chosen = {0};
    uint64_t choice = rng_below(&round->rng, IMAGES);
    for (uint64_t i = 0; i < IMAGES; i++) {
        char folder[PATH_LEN];
        struct view view;
        enum leftover leftover = i == 0 ? LEFT_SYNCED : LEFT_SECTORS;
        uint64_t seed = mix(round->campaign->seed, round->number * IMAGES + i);
        path_of(folder, "%s/image", round->campaign->folder);
        at_place("round %llu, left over %llu", (unsigned long long)round->number, (unsigned long long)i);
        disk_leave(leftover, seed, folder);
        check_image(round, folder, &view);
        folder_remove(folder);
        if (i != choice)
            continue;
        disk_leave(leftover, seed, next);
        chosen = view;
    }
    return chosen;
}

static void run_round(struct round *round)
{
    char next[PATH_LEN];
    struct fault fault = {.kind = FAULT_POWER_OFF};
    /* early ones hit recovery, late ones work */
    fault.at = rng_below(&round->rng, rng_chance(&round->rng, 25) ? 30 : 600);
    at_place("round %llu, the power goes at call %llu", (unsigned long long)round->number,
             (unsigned long long)fault.at);
    disk_begin(round->disk);
    disk_arm(&fault);
    /* what one opening left unsynced, the next one takes over */
    for (uint64_t opening = 0; opening < OPENINGS_MAX && work_until_off(round, opening); opening++)
        ;
    disk_disarm();
    disk_power_off();
    disk_hurry(false);
    path_of(next, "%s/disk-%llu", round->campaign->folder, (unsigned long long)round->number + 1);
    struct view view = check_images(round, next);
    disk_end();
    oracle_settle(round->oracle, &view);
    folder_remove(round->disk);
    memcpy(round->disk, next, sizeof(round->disk));
}

static void start_afresh(struct round *round)
{
    folder_remove(round->disk);
    folder_make(round->disk);
    oracle_init(round->oracle);
    round->was_made = false;
}

int main(int argc, char **argv)
{
    struct campaign campaign;
    campaign_begin(&campaign, "power", 150, true, argc, argv);
    struct round round = {.campaign = &campaign, .oracle = must_alloc(sizeof(*round.oracle))};
    path_of(round.disk, "%s/disk-0", campaign.folder);
    folder_make(round.disk);
    oracle_init(round.oracle);
    for (round.number = 0; round.number < campaign.rounds; round.number++) {
        round.rng = rng_of(mix(campaign.seed, round.number));
        if (rng_chance(&round.rng, 12))
            start_afresh(&round);
        run_round(&round);
    }
    if (round.by_index == 0 && campaign.rounds > 20)
        fail("no opening was by a snapshot index");
    campaign_end(&campaign, "%llu power cuts, %llu leftovers opened 5 times each, %llu times by a snapshot index",
                 (unsigned long long)campaign.rounds, (unsigned long long)campaign.rounds * IMAGES,
                 (unsigned long long)round.by_index);
    free(round.oracle);
    return 0;
}
