#include "ops.h"
#include "report.h"

#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct path_store {
    struct tool_store base;
    rd_store *store;
};

static rd_store *inner(struct tool_store *store)
{
    return ((struct path_store *)store)->store;
}

/* What a crash left was moved aside by opening: its owner should know where it is. */
static void tell_torn(const struct path_store *store)
{
    rd_store_info info;
    if (rd_store_info_get(store->store, &info) == RD_OK && info.torn_bytes > 0)
        (void)report(STATUS_DONE,
                     "%s: a torn tail of %" PRIu64 " bytes, which a crash left, was cut at offset %" PRIu64
                     " and saved beside the store (its name has .torn-%" PRIu64 " behind)",
                     store->base.target, info.torn_bytes, info.torn_off, info.torn_off);
}

static rd_err path_open(const char *target, const struct tool_open_how *how, rd_fault *out_fault,
                        struct tool_store **out_store)
{
    struct path_store *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        *out_fault = (rd_fault){0};
        return RD_E_NOMEM;
    }
    made->base = (struct tool_store){.ops = &tool_path_ops, .target = target};
    const rd_open_options options = {.writable = how->writable,
                                     .create = how->create,
                                     .sync = how->sync,
                                     .verify = how->verify,
                                     .index = how->index};
    rd_err err = rd_store_open(target, &options, out_fault, &made->store);
    if (err != RD_OK) {
        free(made);
        return err;
    }
    tell_torn(made);
    *out_store = &made->base;
    return RD_OK;
}

static void path_close(struct tool_store *store)
{
    rd_store_close(inner(store));
    free(store);
}

static rd_err path_info(struct tool_store *store, struct tool_fact *facts, size_t *out_count)
{
    rd_store_info info;
    rd_err err = rd_store_info_get(inner(store), &info);
    if (err != RD_OK)
        return err;
    const struct tool_fact all[] = {
        {"path", store->target, 0},
        {"live_keys", NULL, info.live_keys},
        {"entries", NULL, info.entries},
        {"tail_offset", NULL, info.tail_off},
        {"file_size", NULL, info.file_size},
        {"unread_bytes", NULL, info.unread_bytes},
        {"live_bytes", NULL, info.live_bytes},
        {"reclaimable_bytes", NULL, info.reclaimable_bytes},
        {"index_bytes", NULL, info.index_bytes},
        {"index", rd_index_text(info.index_source), 0},
        {"generation", NULL, info.generation},
        {"damaged_entries", NULL, info.damaged_entries},
        {"damaged_ranges", NULL, info.damaged_ranges},
        {"unidentified_ranges", NULL, info.unidentified_ranges},
    };
    _Static_assert(sizeof(all) / sizeof(all[0]) <= TOOL_FACTS_MAX, "facts have room");
    memcpy(facts, all, sizeof(all));
    *out_count = sizeof(all) / sizeof(all[0]);
    return RD_OK;
}

static rd_err path_read(struct tool_store *store, const struct tool_key *key, const struct tool_sink *sink)
{
    rd_entry entry __attribute__((cleanup(rd_entry_release))) = {0};
    rd_err err = key->hash_only ? rd_store_read_hash(inner(store), key->hash, &entry)
                                : rd_store_read(inner(store), key->bytes, &entry);
    if (err != RD_OK)
        return err;
    return sink->bytes(sink->arg, entry.payload) ? RD_OK : RD_E_CANCELLED;
}

/* A path's lane: an answer is there as soon as it is asked for, so one place is as good as many. */
struct tool_lane {
    struct tool_store *store;
    rd_batch_item *items;
    size_t count;
    rd_err err;
};

static rd_err path_lane_open(struct tool_store *store, size_t places, struct tool_lane **out_lane)
{
    if (places != 1)
        return RD_E_UNSUPPORTED;
    struct tool_lane *lane = calloc(1, sizeof(*lane));
    if (lane == NULL)
        return RD_E_NOMEM;
    lane->store = store;
    *out_lane = lane;
    return RD_OK;
}

static void path_lane_close(struct tool_lane *lane)
{
    free(lane);
}

static void path_lane_ask(struct tool_lane *lane, size_t place, const uint64_t *key_hashes, size_t count,
                          rd_batch_item *items)
{
    (void)place;
    lane->items = items;
    lane->count = count;
    lane->err = RD_OK;
    if (count != 1) {
        lane->err = rd_store_batch_read_hashed(inner(lane->store), key_hashes, NULL, count, items);
        return;
    }
    items[0] = (rd_batch_item){0};
    items[0].err = rd_store_read_hash(inner(lane->store), key_hashes[0], &items[0].entry);
}

static rd_err path_lane_take(struct tool_lane *lane, size_t *out_place)
{
    *out_place = 0;
    return lane->err;
}

static void path_lane_give(struct tool_lane *lane, size_t place)
{
    (void)place;
    if (lane->err == RD_OK)
        rd_batch_release(lane->items, lane->count);
}

static rd_err path_exists(struct tool_store *store, const struct tool_key *key)
{
    return key->hash_only ? rd_store_exists_hash(inner(store), key->hash) : rd_store_exists(inner(store), key->bytes);
}

static rd_err path_metadata(struct tool_store *store, const struct tool_key *key, rd_metadata *out_meta)
{
    return key->hash_only ? rd_store_metadata_hash(inner(store), key->hash, out_meta)
                          : rd_store_metadata(inner(store), key->bytes, out_meta);
}

static rd_err path_last(struct tool_store *store, rd_metadata *out_meta, uint64_t *out_size)
{
    rd_entry entry __attribute__((cleanup(rd_entry_release))) = {0};
    rd_err err = rd_store_read_last(inner(store), &entry);
    if (err != RD_OK)
        return err;
    *out_meta = entry.meta;
    *out_size = entry.payload.len;
    return RD_OK;
}

static void iter_cleanup(rd_iter **iter)
{
    rd_iter_destroy(*iter);
}

static rd_err path_iterate(struct tool_store *store, tool_visit *visit, void *arg)
{
    rd_iter *iter __attribute__((cleanup(iter_cleanup))) = NULL;
    rd_err err = rd_iter_create(inner(store), &iter);
    if (err != RD_OK)
        return err;
    for (;;) {
        rd_entry entry = {0};
        err = rd_iter_next(iter, &entry);
        if (err == RD_ABSENT)
            return RD_OK;
        if (err != RD_OK && err != RD_E_DAMAGED && err != RD_E_TRUNCATED)
            return err;
        if (!visit(arg, err, &entry.meta, err == RD_OK ? entry.payload : (rd_span){NULL, 0}))
            return RD_OK;
    }
}

static rd_err path_write(struct tool_store *store, const rd_write_item *items, size_t count)
{
    rd_written done;
    return rd_store_batch_write(inner(store), items, count, &done);
}

static rd_err path_remove(struct tool_store *store, const uint64_t *key_hashes, size_t count, size_t *out_deleted)
{
    rd_written done = {0};
    rd_err err = rd_store_batch_delete(inner(store), key_hashes, count, &done);
    if (err == RD_OK)
        *out_deleted = done.deleted_count;
    return err;
}

static rd_err path_sync(struct tool_store *store)
{
    return rd_store_sync(inner(store));
}

static rd_err path_rename(struct tool_store *store, const struct tool_key *old_key, const struct tool_key *new_key)
{
    rd_written done;
    return rd_store_rename_hash(inner(store), old_key->hash, new_key->hash, &done);
}

static rd_err path_copy(struct tool_store *store, uint64_t key_hash, struct tool_store *target)
{
    rd_written done;
    return rd_store_copy_hash(inner(store), key_hash, inner(target), &done);
}

static rd_err path_move(struct tool_store *store, uint64_t key_hash, struct tool_store *target)
{
    rd_written done;
    return rd_store_move_hash(inner(store), key_hash, inner(target), &done);
}

static rd_err path_damage(struct tool_store *store, struct tool_damage *out_damage)
{
    rd_store_info info;
    rd_err err = rd_store_info_get(inner(store), &info);
    if (err != RD_OK)
        return err;
    out_damage->damaged_entries = info.damaged_entries;
    out_damage->damaged_ranges = info.damaged_ranges;
    out_damage->unidentified_ranges = info.unidentified_ranges;
    out_damage->unread_bytes = info.unread_bytes;
    out_damage->listed_count = rd_store_damage(inner(store), out_damage->listed, RD_DAMAGE_LISTED_MAX);
    return RD_OK;
}

/** The cores that this process may run on, as rd_store_verify takes them. */
static size_t core_count(void)
{
    enum { THREADS_MAX = 64 };
    cpu_set_t cores;
    int count = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1; /* fails beyond 1024 cores */
    return count < 1 ? 1 : count > THREADS_MAX ? THREADS_MAX : (size_t)count;
}

static rd_err path_verify(struct tool_store *store, rd_progress *progress, void *arg, rd_verified *out_verified)
{
    return rd_store_verify(inner(store), core_count(), progress, arg, out_verified);
}

static rd_err path_repair(struct tool_store *store, struct tool_store *target, bool older_versions,
                          rd_repair_note *note, void *arg, rd_repaired *out_repaired)
{
    return rd_store_repair(inner(store), inner(target), older_versions, note, arg, out_repaired);
}

static rd_err path_compact(struct tool_store *store, const rd_compact_options *options, rd_fault *out_fault,
                           rd_compacted *out_compacted)
{
    return rd_store_compact(inner(store), options, out_fault, out_compacted);
}

static rd_err path_index(struct tool_store *store, const char *path, rd_fault *out_fault, rd_indexed *out_indexed)
{
    return rd_store_save_index(inner(store), path, out_fault, out_indexed);
}

static bool path_is_file(struct tool_store *store, int fd)
{
    struct stat ours, theirs;
    return stat(store->target, &ours) == 0 && fstat(fd, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
           ours.st_ino == theirs.st_ino;
}

const struct tool_ops tool_path_ops = {
    .open = path_open,
    .close = path_close,
    .info = path_info,
    .read = path_read,
    .lane_open = path_lane_open,
    .lane_close = path_lane_close,
    .lane_ask = path_lane_ask,
    .lane_take = path_lane_take,
    .lane_give = path_lane_give,
    .exists = path_exists,
    .metadata = path_metadata,
    .last = path_last,
    .iterate = path_iterate,
    .write = path_write,
    .remove = path_remove,
    .sync = path_sync,
    .rename = path_rename,
    .copy = path_copy,
    .move = path_move,
    .damage = path_damage,
    .verify = path_verify,
    .repair = path_repair,
    .compact = path_compact,
    .index = path_index,
    .is_file = path_is_file,
};
