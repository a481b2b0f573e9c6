/* Each system call of each operation goes wrong in turn, in each way that it can. What is then returned is what the
   contract names; the store shows what it showed before, or has all of the operation; it goes on unless a sync or a cut
   failed; and what is left is as the oracle says, if the power goes as well. */
#include "scene.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_KEY 20

/* One way in which a call goes wrong. */
struct way {
    enum disk_call call; /* DISK_CALL_KINDS: any */
    enum fault_kind kind;
    int error;
    size_t bytes;
    bool harmless; /* the operation succeeds all the same */
};

static const struct way ways[] = {
    {CALL_OPEN, FAULT_ERROR, EIO, 0, false},         {CALL_OPEN, FAULT_ERROR, ENOSPC, 0, false},
    {CALL_OPEN, FAULT_ERROR, EMFILE, 0, false},      {CALL_OPEN, FAULT_ERROR, EINTR, 0, false},
    {CALL_READ, FAULT_ERROR, EIO, 0, false},         {CALL_READ, FAULT_ERROR, EINTR, 0, false},
    {CALL_READ, FAULT_SHORT, 0, 5, false},           {CALL_WRITE, FAULT_ERROR, ENOSPC, 0, false},
    {CALL_WRITE, FAULT_ERROR, EIO, 0, false},        {CALL_WRITE, FAULT_ERROR, EINTR, 0, true},
    {CALL_WRITE, FAULT_SHORT, 0, 1, true},           {CALL_WRITE, FAULT_SHORT, 0, 300, true},
    {CALL_WRITE, FAULT_ERRORS, EDQUOT, 0, false},    {CALL_WRITE, FAULT_FULL, ENOSPC, 70, false},
    {CALL_WRITE, FAULT_FULL, EFBIG, 1, false},       {CALL_RESIZE, FAULT_ERROR, EIO, 0, false},
    {CALL_RESIZE, FAULT_ERROR, EINTR, 0, true},      {CALL_SYNC, FAULT_ERROR, EIO, 0, false},
    {CALL_SYNC, FAULT_ERROR, ENOSPC, 0, false},      {CALL_SYNC, FAULT_ERROR, EINTR, 0, false},
    {CALL_RENAME, FAULT_ERROR, EIO, 0, false},       {CALL_RENAME, FAULT_ERROR, ENOSPC, 0, false},
    {CALL_RENAME, FAULT_ERROR, EBUSY, 0, false},     {CALL_UNLINK, FAULT_ERROR, EIO, 0, false},
    {CALL_STAT, FAULT_ERROR, EIO, 0, false},         {CALL_LOCK, FAULT_ERROR, ENOLCK, 0, false},
    {CALL_LOCK, FAULT_ERROR, EINTR, 0, false},       {CALL_MAP, FAULT_ERROR, ENOMEM, 0, false},
    {CALL_MAP, FAULT_ERRORS, ENOMEM, 0, false},      {CALL_DUP, FAULT_ERROR, EMFILE, 0, false},
    {CALL_CLOSE, FAULT_ERROR, EIO, 0, true},         {DISK_CALL_KINDS, FAULT_DEAD, EIO, 0, false},
    {DISK_CALL_KINDS, FAULT_DEAD, ENOSPC, 0, false}, {DISK_CALL_KINDS, FAULT_POWER_OFF, EIO, 0, false},
};

#define WAY_COUNT (sizeof(ways) / sizeof(ways[0]))

/* Behind the last call only the power can go. */
static bool applies(const struct way *way, const enum disk_call *calls, uint64_t call, uint64_t count)
{
    if (call == count)
        return way->kind == FAULT_POWER_OFF;
    return way->call == calls[call] || way->call == DISK_CALL_KINDS;
}

struct attempt {
    struct scene *scene;
    const struct operation *operation;
    const struct way *way;
    rd_err err;
};

/* ---- After the fault ----------------------------------------------------------------------------------------------
 */

/* Whether writing may have ended: an append could not be taken back. */
static bool may_have_ended(const struct attempt *attempt)
{
    return attempt->err == RD_E_SYNC || attempt->way->call == CALL_RESIZE || attempt->way->kind == FAULT_DEAD;
}

static rd_err probe(struct place *place)
{
    uint64_t version = version_of(SIZES_SMALL, 999);
    struct buffer bytes = {0};
    version_bytes(version, &bytes);
    uint32_t index = oracle_begin(&place->oracle, PROBE_KEY, version);
    rd_err err = rd_store_write_hash(place->store, oracle_key(PROBE_KEY),
                                     (rd_span){.data = bytes.data, .len = bytes.len}, &place->written);
    oracle_end(&place->oracle, PROBE_KEY, index, err, place->written.durable);
    buffer_free(&bytes);
    return err;
}

/* Returns: whether writing goes on. */
static bool check_goes_on(const struct attempt *attempt, struct place *place, const char *what)
{
    oracle_check_now(&place->oracle, place->store, what);
    rd_err err = probe(place);
    if (err != RD_OK && !(err == RD_E_ENDED && may_have_ended(attempt)))
        fail("%s: after %s a write fails: %s", what, rd_err_reason(attempt->err), rd_err_reason(err));
    oracle_check_now(&place->oracle, place->store, what);
    return err == RD_OK;
}

/* The store in this process. */
static void check_process(const struct attempt *attempt)
{
    struct scene *scene = attempt->scene;
    bool main_goes_on = false;
    bool other_goes_on = false;
    if (scene->main.store != NULL)
        main_goes_on = check_goes_on(attempt, &scene->main, "store");
    if (scene->other.store != NULL)
        other_goes_on = check_goes_on(attempt, &scene->other, "other");
    bool is_compaction = (attempt->operation->may & MAY(RD_E_ENDED)) != 0 && scene->sync != RD_SYNC_NONE;
    if (attempt->err == RD_E_SYNC && scene->main.store != NULL && main_goes_on && other_goes_on && !is_compaction &&
        attempt->operation->setting != SETTING_DIRTY)
        fail("after a failed sync writing goes on");
}

/* A call that opens a store succeeds once nothing goes wrong any more. */
static void open_again(struct scene *scene)
{
    const rd_open_options options = {.writable = true, .create = true, .sync = scene->sync};
    rd_fault fault;
    if (rd_store_open(scene->main.path, &options, &fault, &scene->main.store) != RD_OK)
        fail("opening again: %s", fault.text);
    scene->may_be_missing = false;
    scene->reopened = true;
}

/* No file is left behind: the stores, their writers' lines, and one torn tail where there was one. */
static void check_names(const struct attempt *attempt)
{
    size_t torn = 0;
    bool may_leave = attempt->way->call == CALL_UNLINK || attempt->way->kind == FAULT_DEAD;
    DIR *dir = opendir(attempt->scene->folder);
    if (dir == NULL)
        fail("%s: %s", attempt->scene->folder, strerror(errno));
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (strstr(entry->d_name, ".torn-") != NULL)
            torn++;
        else if ((strstr(entry->d_name, ".compact") != NULL || strstr(entry->d_name, ".stream") != NULL) && !may_leave)
            fail("%s is left behind", entry->d_name);
    }
    closedir(dir);
    size_t want = attempt->operation->setting == SETTING_TORN ? 1 : 0;
    if (torn != want && !(may_leave && torn > want))
        fail("there are %zu torn tails, not %zu", torn, want);
}

/* ---- One attempt --------------------------------------------------------------------------------------------------
 */

/* If the power goes now. */
static void check_left(struct scene *scene, uint64_t seed)
{
    if (scene->reopened && disk_has_dropped("store"))
        return; /* without another boot nobody knows what the disk has */
    scene_check_left(scene, LEFT_SYNCED, 0);
    scene_check_left(scene, LEFT_SECTORS, seed);
}

static void attempt_one(const struct campaign *campaign, uint64_t round, const struct operation *operation,
                        uint64_t number, const struct way *way)
{
    struct attempt attempt = {
        .scene = must_alloc(sizeof(*attempt.scene)), .operation = operation, .way = way, .err = RD_OK};
    struct scene *scene = attempt.scene;
    uint64_t seed = mix(mix(campaign->seed, round), number * 100 + (uint64_t)(way - ways));
    scene_begin(scene, campaign, operation);
    const struct fault fault = {.kind = way->kind, .at = number, .error = way->error, .bytes = way->bytes};
    disk_arm(&fault);
    attempt.err = operation->run(scene);
    disk_disarm();
    if (way->kind == FAULT_POWER_OFF) {
        check_left(scene, seed);
    } else {
        if ((operation->may & MAY(attempt.err)) == 0 || (way->harmless && attempt.err != RD_OK))
            fail("returned %s: %s", rd_err_reason(attempt.err), scene->fault.text);
        scene_check_left(scene, LEFT_SECTORS, seed);
        if (scene->main.store == NULL)
            open_again(scene);
        check_process(&attempt);
        check_names(&attempt);
        check_left(scene, seed + 1);
        rd_store_close(scene->main.store);
        scene->main.store = NULL;
    }
    scene_check_left(scene, LEFT_BY_KERNEL, 0);
    scene_end(scene);
    free(scene);
}

static const char *way_text(const struct way *way)
{
    static const char *const texts[] = {
        [FAULT_ERROR] = "fails",
        [FAULT_ERRORS] = "and its like fail from now on",
        [FAULT_DEAD] = "is the first of a disk that fails",
        [FAULT_SHORT] = "is short",
        [FAULT_FULL] = "is short, and later ones fail",
        [FAULT_POWER_OFF] = "is where the power goes",
    };
    return texts[way->kind];
}

int main(int argc, char **argv)
{
    struct campaign campaign;
    uint64_t attempts = 0;
    uint64_t cases = 0;
    campaign_begin(&campaign, "calls", 1, true, argc, argv);
    for (uint64_t round = 0; round < campaign.rounds; round++) {
        for (size_t i = 0; i < operation_count; i++) {
            enum disk_call calls[SCENE_CALLS_MAX];
            uint64_t count = scene_list_calls(&campaign, &operations[i], calls);
            for (uint64_t number = 0; number < (count + 1) * WAY_COUNT; number++) {
                const struct way *way = &ways[number % WAY_COUNT];
                uint64_t call = number / WAY_COUNT;
                if (!applies(way, calls, call, count) || cases++ % campaign.every != 0)
                    continue;
                at_place("round %llu, %s: call %llu, %s, %s (%s)", (unsigned long long)round, operations[i].name,
                         (unsigned long long)call, call < count ? disk_call_text(calls[call]) : "the one after it",
                         way_text(way), strerror(way->error));
                attempt_one(&campaign, round, &operations[i], call, way);
                attempts++;
            }
        }
    }
    campaign_end(&campaign, "%zu operations, %llu faults", operation_count, (unsigned long long)attempts);
    return 0;
}
