#include "scene.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEYS       6 /* that have a value when the scene begins */
#define STREAM_LEN ((size_t)1300000)
#define PIECE_LEN  ((size_t)400000)
#define LARGE_KEY  5 /* its value is above 64 KiB */
#define MOVED_KEY  2
#define TORN       "a torn write"
#define TORN_LEN   (sizeof(TORN) - 1)

/* ---- Values ---- */

/* The n-th version of that size there is: sizes follow from numbers, so look for one. */
static uint64_t version_sized(uint64_t number, size_t from, size_t to)
{
    for (uint64_t i = number * 100000;; i++) {
        uint64_t version = version_of(SIZES_MIXED, i);
        if (version_len(version) >= from && version_len(version) < to)
            return version;
    }
}

static uint64_t version_small(uint64_t number)
{
    return version_of(SIZES_SMALL, number);
}

/* How a call ended. Of what fails because the power is gone nobody hears; what succeeds had all it needs. What can't be
   taken back may be there, whole, when the store is opened again. */
static void end(struct oracle *oracle, uint32_t key, uint32_t index, rd_err err, bool durable)
{
    if (err == RD_OK || !(disk_is_off() || disk_is_dead()))
        oracle_end(oracle, key, index, err, durable);
}

static rd_err put(struct place *place, uint32_t key, uint64_t version)
{
    struct buffer bytes = {0};
    version_bytes(version, &bytes);
    uint32_t index = oracle_begin(&place->oracle, key, version);
    rd_err err = rd_store_write_hash(place->store, oracle_key(key), (rd_span){.data = bytes.data, .len = bytes.len},
                                     &place->written);
    end(&place->oracle, key, index, err, place->written.durable);
    buffer_free(&bytes);
    return err;
}

/* ---- Settings ---- */

static void open_place(struct place *place, rd_sync sync, bool create)
{
    const rd_open_options options = {.writable = true, .create = create, .sync = sync};
    rd_fault fault;
    if (rd_store_open(place->path, &options, &fault, &place->store) != RD_OK)
        fail("setting up: %s", fault.text);
}

static void fill(struct place *place)
{
    for (uint32_t key = 0; key < KEYS; key++)
        if (put(place, key, key == LARGE_KEY ? version_sized(1, 70000, 80000) : version_small(100 + key)) != RD_OK)
            fail("setting up: a write fails");
    uint32_t index = oracle_begin(&place->oracle, 0, VERSION_NONE);
    rd_err err = rd_store_batch_delete(place->store, (const uint64_t[]){oracle_key(0)}, 1, &place->written);
    end(&place->oracle, 0, index, err, true);
    if (err != RD_OK || put(place, 1, version_small(200)) != RD_OK || rd_store_sync(place->store) != RD_OK)
        fail("setting up: writing fails");
    for (uint32_t key = 0; key < KEYS; key++)
        oracle_synced(&place->oracle, key);
}

static void append_raw(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
        fail("setting up: %s: %s", path, strerror(errno));
    close(fd);
}

/* What a power cut leaves of two unsynced writes: the first has lost bytes, the second is whole; and half a third. */
static uint64_t tear(struct place *place)
{
    open_place(place, RD_SYNC_NONE, false);
    uint64_t lost_from = 0;
    if (rd_store_file_size(place->store, &lost_from) != RD_OK || put(place, 2, version_sized(2, 2000, 3000)) != RD_OK ||
        put(place, 3, version_small(300)) != RD_OK)
        fail("setting up: writing fails");
    rd_store_close(place->store);
    place->store = NULL;
    uint8_t others[512]; /* not zeros, which the value may be of */
    memset(others, 0x5a, sizeof(others));
    int fd = open(place->path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, others, sizeof(others), (off_t)lost_from + 1024) != (ssize_t)sizeof(others))
        fail("setting up: %s: %s", place->path, strerror(errno));
    close(fd);
    struct stat st;
    if (stat(place->path, &st) != 0)
        fail("setting up: %s: %s", place->path, strerror(errno));
    append_raw(place->path, TORN, TORN_LEN);
    place->oracle.of[2].at[place->oracle.of[2].count - 1].progress = REFUSED;
    place->oracle.of[3].at[place->oracle.of[3].count - 1].progress = DURABLE; /* it happens to be there, and stays */
    return (uint64_t)st.st_size;
}

static void close_place(struct place *place)
{
    rd_store_close(place->store);
    place->store = NULL;
}

/* Changes that are not synced: two writes, and the deletion of key 1. */
static void soil(struct place *place)
{
    uint32_t index = oracle_begin(&place->oracle, 1, VERSION_NONE);
    rd_err err = rd_store_batch_delete(place->store, (const uint64_t[]){oracle_key(1)}, 1, &place->written);
    end(&place->oracle, 1, index, err, place->written.durable);
    if (err != RD_OK || put(place, 4, version_small(400)) != RD_OK || put(place, 7, version_small(401)) != RD_OK)
        fail("setting up: writing fails");
}

void scene_begin(struct scene *scene, const struct campaign *campaign, const struct operation *operation)
{
    *scene = (struct scene){.campaign = campaign, .sync = operation->sync};
    path_of(scene->folder, "%s/scene", campaign->folder);
    path_of(scene->main.path, "%s/store", scene->folder);
    path_of(scene->other.path, "%s/other", scene->folder);
    folder_make(scene->folder);
    disk_forget();
    oracle_init(&scene->main.oracle);
    oracle_init(&scene->other.oracle);
    enum setting setting = operation->setting;
    scene->may_be_missing = setting == SETTING_NONE;
    if (setting != SETTING_NONE)
        open_place(&scene->main, RD_SYNC_ALWAYS, true);
    if (setting != SETTING_NONE && setting != SETTING_EMPTY)
        fill(&scene->main);
    if (setting != SETTING_NONE)
        close_place(&scene->main);
    if (setting == SETTING_TORN)
        scene->torn_off = tear(&scene->main);
    open_place(&scene->other, operation->sync, true);
    close_place(&scene->other);
    disk_begin(scene->folder);
    if (setting == SETTING_FILLED || setting == SETTING_EMPTY || setting == SETTING_DIRTY) {
        open_place(&scene->main, operation->sync, false);
        open_place(&scene->other, operation->sync, false);
    }
    if (setting == SETTING_LEFT)
        open_place(&scene->main, RD_SYNC_NONE, false);
    if (setting == SETTING_DIRTY || setting == SETTING_LEFT)
        soil(&scene->main);
    if (setting == SETTING_LEFT)
        close_place(&scene->main);
}

void scene_end(struct scene *scene)
{
    close_place(&scene->main);
    close_place(&scene->other);
    disk_end();
    folder_remove(scene->folder);
}

/* ---- Operations ---- */

static rd_err run_open(struct scene *scene)
{
    const rd_open_options options = {.writable = true, .create = true, .sync = scene->sync};
    rd_err err = rd_store_open(scene->main.path, &options, &scene->fault, &scene->main.store);
    if (err == RD_OK && !disk_is_off())
        scene->may_be_missing = false;
    return err;
}

static rd_err run_close(struct scene *scene)
{
    close_place(&scene->main);
    return RD_OK;
}

static rd_err run_write(struct scene *scene)
{
    return put(&scene->main, 2, version_small(500));
}

static rd_err run_write_large(struct scene *scene)
{
    return put(&scene->main, 7, version_sized(3, 70000, 90000));
}

static rd_err run_sync(struct scene *scene)
{
    rd_err err = rd_store_sync(scene->main.store);
    for (uint32_t key = 0; err == RD_OK && key < ORACLE_KEYS; key++)
        oracle_synced(&scene->main.oracle, key);
    return err;
}

static rd_err run_write_and_sync(struct scene *scene)
{
    rd_err err = put(&scene->main, 2, version_small(501));
    return err == RD_OK ? run_sync(scene) : err;
}

static rd_err run_batch(struct scene *scene)
{
    enum { COUNT = 4 };
    const uint32_t keys[COUNT] = {1, 2, 8, 9};
    const uint64_t versions[COUNT] = {version_small(600), version_sized(4, 66000, 80000), version_small(602),
                                      version_sized(5, 4000, 9000)};
    struct buffer bytes[COUNT] = {0};
    rd_write_item items[COUNT];
    uint32_t indexes[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        version_bytes(versions[i], &bytes[i]);
        items[i] =
            (rd_write_item){.key_hash = oracle_key(keys[i]), .payload = {.data = bytes[i].data, .len = bytes[i].len}};
        indexes[i] = oracle_begin(&scene->main.oracle, keys[i], versions[i]);
    }
    rd_err err = rd_store_batch_write(scene->main.store, items, COUNT, &scene->main.written);
    for (size_t i = 0; i < COUNT; i++) {
        end(&scene->main.oracle, keys[i], indexes[i], err, scene->main.written.durable);
        buffer_free(&bytes[i]);
    }
    return err;
}

static rd_err delete_keys(struct scene *scene, const uint32_t *keys, size_t count)
{
    uint64_t hashes[KEYS] = {0};
    uint32_t indexes[KEYS] = {0};
    for (size_t i = 0; i < count; i++) {
        hashes[i] = oracle_key(keys[i]);
        indexes[i] = oracle_begin(&scene->main.oracle, keys[i], VERSION_NONE);
    }
    rd_err err = rd_store_batch_delete(scene->main.store, hashes, count, &scene->main.written);
    for (size_t i = 0; i < count; i++)
        end(&scene->main.oracle, keys[i], indexes[i], err, scene->main.written.durable);
    return err;
}

static rd_err run_delete(struct scene *scene)
{
    return delete_keys(scene, (const uint32_t[]){1}, 1);
}

/* What an earlier opening deleted: no tombstone is written, and yet it is durable then. */
static rd_err run_open_and_delete(struct scene *scene)
{
    rd_err err = run_open(scene);
    return err == RD_OK ? run_delete(scene) : err;
}

static rd_err run_open_and_sync(struct scene *scene)
{
    rd_err err = run_open(scene);
    return err == RD_OK ? run_sync(scene) : err;
}

static rd_err run_batch_delete(struct scene *scene)
{
    return delete_keys(scene, (const uint32_t[]){1, 2, LARGE_KEY}, 3);
}

static rd_err rename_key(struct scene *scene, uint32_t from, uint32_t to)
{
    struct oracle *oracle = &scene->main.oracle;
    uint32_t to_index = oracle_begin(oracle, to, oracle_now(oracle, from));
    uint32_t from_index = oracle_begin(oracle, from, VERSION_NONE);
    rd_err err = rd_store_rename_hash(scene->main.store, oracle_key(from), oracle_key(to), &scene->main.written);
    end(oracle, to, to_index, err, scene->main.written.durable);
    end(oracle, from, from_index, err, scene->main.written.durable);
    return err;
}

static rd_err run_rename(struct scene *scene)
{
    return rename_key(scene, 2, 10);
}

static rd_err run_rename_large(struct scene *scene)
{
    return rename_key(scene, LARGE_KEY, 3);
}

static rd_err stream_value(struct scene *scene, size_t len)
{
    struct place *place = &scene->main;
    struct buffer bytes = {0};
    rd_stream *stream = NULL;
    uint64_t version = len < STREAM_LEN ? version_sized(6, 500, 3000) : version_of(SIZES_LARGE, 0);
    for (uint64_t i = 1; len >= STREAM_LEN && version_len(version) < (size_t)1 << 20; i++)
        version = version_of(SIZES_LARGE, i);
    version_bytes(version, &bytes);
    uint32_t index = oracle_begin(&place->oracle, 3, version);
    rd_err err = rd_stream_begin(place->store, oracle_key(3), &stream);
    for (size_t at = 0; err == RD_OK && at < bytes.len; at += PIECE_LEN) {
        size_t piece = bytes.len - at < PIECE_LEN ? bytes.len - at : PIECE_LEN;
        err = rd_stream_append(stream, (rd_span){.data = bytes.data + at, .len = piece});
    }
    if (err == RD_OK)
        err = rd_stream_commit(stream, &place->written, NULL, NULL);
    else
        rd_stream_abort(stream);
    end(&place->oracle, 3, index, err, place->written.durable);
    buffer_free(&bytes);
    return err;
}

static rd_err run_stream(struct scene *scene)
{
    return stream_value(scene, 1);
}

static rd_err run_stream_large(struct scene *scene)
{
    return stream_value(scene, STREAM_LEN);
}

static rd_err run_copy(struct scene *scene)
{
    struct place *other = &scene->other;
    uint32_t index = oracle_begin(&other->oracle, LARGE_KEY, oracle_now(&scene->main.oracle, LARGE_KEY));
    rd_err err = rd_store_copy_hash(scene->main.store, oracle_key(LARGE_KEY), other->store, &other->written);
    end(&other->oracle, LARGE_KEY, index, err, other->written.durable);
    return err;
}

/* What was deleted is in the target: the deletion is begun only once the copy is durable. */
static rd_err run_move(struct scene *scene)
{
    struct place *other = &scene->other;
    struct oracle *oracle = &scene->main.oracle;
    scene->moves = true;
    uint32_t to = oracle_begin(&other->oracle, MOVED_KEY, oracle_now(oracle, MOVED_KEY));
    uint32_t from = oracle_begin(oracle, MOVED_KEY, VERSION_NONE);
    rd_err err = rd_store_move_hash(scene->main.store, oracle_key(MOVED_KEY), other->store, &other->written);
    rd_entry entry = {0};
    bool copied = rd_store_read_hash(other->store, oracle_key(MOVED_KEY), &entry) == RD_OK;
    rd_entry_release(&entry);
    /* an error of the deletion leaves it in both, one of the copy in the source alone */
    end(&other->oracle, MOVED_KEY, to, copied && !disk_is_off() ? RD_OK : err, other->written.durable && err == RD_OK);
    end(oracle, MOVED_KEY, from, err, err == RD_OK && scene->sync == RD_SYNC_ALWAYS);
    return err;
}

static rd_err run_compact(struct scene *scene)
{
    rd_compacted compacted;
    rd_err err = rd_store_compact(scene->main.store, NULL, &scene->fault, &compacted);
    for (uint32_t key = 0; err == RD_OK && key < ORACLE_KEYS; key++)
        oracle_synced(&scene->main.oracle, key);
    return err;
}

#define ALWAYS   RD_SYNC_ALWAYS
#define NONE     RD_SYNC_NONE
#define WRITES   (MAY(RD_OK) | MAY(RD_E_NO_SPACE) | MAY(RD_E_IO) | MAY(RD_E_SYNC) | MAY(RD_E_NOMEM))
#define OPENS    (WRITES | MAY(RD_E_TRUNCATED))
#define SYNCS    (MAY(RD_OK) | MAY(RD_E_SYNC) | MAY(RD_E_IO) | MAY(RD_E_ENDED))
#define COMPACTS (WRITES | MAY(RD_E_ENDED))

const struct operation operations[] = {
    {"open, and create", SETTING_NONE, ALWAYS, run_open, OPENS},
    {"open", SETTING_CLOSED, ALWAYS, run_open, OPENS},
    {"open what is torn", SETTING_TORN, ALWAYS, run_open, OPENS},
    {"write to an empty store", SETTING_EMPTY, ALWAYS, run_write, WRITES},
    {"write", SETTING_FILLED, ALWAYS, run_write, WRITES},
    {"write without sync", SETTING_FILLED, NONE, run_write, WRITES},
    {"write, and sync", SETTING_FILLED, NONE, run_write_and_sync, WRITES | SYNCS},
    {"write a large value", SETTING_FILLED, ALWAYS, run_write_large, WRITES},
    {"write a batch", SETTING_FILLED, ALWAYS, run_batch, WRITES},
    {"write a batch without sync", SETTING_FILLED, NONE, run_batch, WRITES},
    {"delete", SETTING_FILLED, ALWAYS, run_delete, WRITES},
    {"delete many", SETTING_FILLED, ALWAYS, run_batch_delete, WRITES},
    {"rename", SETTING_FILLED, ALWAYS, run_rename, WRITES},
    {"rename to a key that is there", SETTING_FILLED, ALWAYS, run_rename_large, WRITES},
    {"stream", SETTING_FILLED, ALWAYS, run_stream, WRITES},
    {"stream a large value", SETTING_FILLED, ALWAYS, run_stream_large, WRITES},
    {"copy", SETTING_FILLED, ALWAYS, run_copy, WRITES},
    {"move", SETTING_FILLED, ALWAYS, run_move, WRITES},
    {"move without sync", SETTING_DIRTY, NONE, run_move, WRITES},
    {"sync", SETTING_DIRTY, NONE, run_sync, SYNCS},
    {"compact", SETTING_FILLED, ALWAYS, run_compact, COMPACTS},
    {"compact what is not synced", SETTING_DIRTY, NONE, run_compact, COMPACTS},
    {"open, and delete what is deleted", SETTING_LEFT, ALWAYS, run_open_and_delete, OPENS},
    {"open, and sync", SETTING_LEFT, NONE, run_open_and_sync, OPENS},
    {"close", SETTING_FILLED, ALWAYS, run_close, MAY(RD_OK)},
    {"close what is not synced", SETTING_DIRTY, NONE, run_close, MAY(RD_OK)},
};
const size_t operation_count = sizeof(operations) / sizeof(operations[0]);

uint64_t scene_list_calls(const struct campaign *campaign, const struct operation *operation,
                          enum disk_call out_calls[SCENE_CALLS_MAX])
{
    struct scene *scene = must_alloc(sizeof(*scene));
    const struct fault none = {.kind = FAULT_NONE};
    at_place("%s", operation->name);
    scene_begin(scene, campaign, operation);
    disk_arm(&none);
    rd_err err = operation->run(scene);
    uint64_t count = disk_disarm();
    if (err != RD_OK)
        fail("it fails by itself: %s: %s", rd_err_reason(err), scene->fault.text);
    if (count == 0 || count > SCENE_CALLS_MAX)
        fail("it makes %llu calls", (unsigned long long)count);
    for (uint64_t i = 0; i < count; i++)
        out_calls[i] = disk_nth_call(i);
    scene_end(scene);
    free(scene);
    return count;
}

/* ---- What is left ---- */

static struct view check_place(const struct place *place, const char *folder, const char *name, const char *left,
                               bool may_be_missing)
{
    static const char *const opened[] = {"read-only", "for writing", "read-only again"};
    char path[PATH_LEN];
    char what[64];
    struct view first = {0};
    path_of(path, "%s/%s", folder, name);
    for (size_t i = 0; i < 3; i++) {
        const rd_open_options options = {.writable = i == 1, .create = may_be_missing, .sync = RD_SYNC_ALWAYS};
        rd_store *store;
        rd_fault fault;
        struct view view;
        snprintf(what, sizeof(what), "%s, %s, %s", left, name, opened[i]);
        rd_err err = rd_store_open(path, &options, &fault, &store);
        if (err == RD_E_IO && i == 0 && may_be_missing)
            continue;
        if (err != RD_OK)
            fail("%s: %s", what, fault.text);
        oracle_check(&place->oracle, store, what, i == 0 ? &first : &view);
        if (i > 0)
            oracle_same(&place->oracle, &first, &view, what);
        rd_store_close(store);
    }
    return first;
}

static bool has_value(const struct place *place, const struct view *view, uint32_t key)
{
    return place->oracle.of[key].at[view->at[key]].version != VERSION_NONE;
}

static bool holds_torn(const char *path, uint64_t offset)
{
    char bytes[TORN_LEN];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool holds =
        fd >= 0 && pread(fd, bytes, TORN_LEN, (off_t)offset) == (ssize_t)TORN_LEN && memcmp(bytes, TORN, TORN_LEN) == 0;
    if (fd >= 0)
        close(fd);
    return holds;
}

/* A torn tail is cut only once its copy is durable. */
static void check_torn_is_somewhere(const struct scene *scene, const char *folder)
{
    char store[PATH_LEN];
    char copy[PATH_LEN];
    char second[PATH_LEN]; /* where a first attempt could neither be finished nor removed */
    char name[PATH_LEN];
    path_of(name, "store.torn-%llu", (unsigned long long)scene->torn_off);
    path_of(store, "%s/store", folder);
    path_of(copy, "%s/%s", folder, name);
    path_of(second, "%s.1", copy);
    if (scene->torn_off == 0 || disk_has_dropped(name))
        return;
    if (!holds_torn(store, scene->torn_off) && !holds_torn(copy, 0) && !holds_torn(second, 0))
        fail("the torn tail is neither in the store nor beside it");
}

void scene_check_left(struct scene *scene, enum leftover leftover, uint64_t seed)
{
    static const char *const texts[] = {
        [LEFT_BY_KERNEL] = "left by the kernel",
        [LEFT_SYNCED] = "what was synced",
        [LEFT_SECTORS] = "some sectors",
        [LEFT_BY_CUT] = "left by the cut",
    };
    char folder[PATH_LEN];
    path_of(folder, "%s/left", scene->campaign->folder);
    disk_leave(leftover, seed, folder);
    check_torn_is_somewhere(scene, folder);
    struct view main = check_place(&scene->main, folder, "store", texts[leftover], scene->may_be_missing);
    struct view other = check_place(&scene->other, folder, "other", texts[leftover], false);
    if (scene->moves && !has_value(&scene->main, &main, MOVED_KEY) && !has_value(&scene->other, &other, MOVED_KEY))
        fail("what was moved is in neither store");
    folder_remove(folder);
}
