#include "base.h"
#include "recover.h"
#include "store_internal.h"
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static rd_store *store_alloc(const char *path, const rd_open_options *options)
{
    rd_store *store = calloc(1, sizeof(*store));
    char *copy = strdup(path);
    pthread_rwlockattr_t attributes;
    if (store == NULL || copy == NULL || pthread_rwlockattr_init(&attributes) != 0) {
        free(copy);
        free(store);
        return NULL;
    }
    /* readers come without end; a writer must get its turn */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&store->publish, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    pthread_mutex_init(&store->write, NULL);
    store->path = copy;
    store->options = *options;
    store->options.cancel = NULL; /* the caller's, and only while opening */
    store->file.fd = -1;
    return store;
}

void rd_store_close(rd_store *store)
{
    if (store == NULL)
        return;
    upkeep_destroy(store->upkeep);
    if (store->line != NULL && !store->write_ended) {
        /* an interval promised it; a failure has nobody left to hear of it */
        rd_err err = store->options.sync == RD_SYNC_INTERVAL ? store_sync(store) : RD_OK;
        if (err == RD_OK) /* 0: no more than the line knows already, which it may not have said yet */
            writer_line_synced(store->line, store->unsynced ? 0 : store->tail_off, true);
    }
    writer_line_destroy(store->line);
    commit_queue_destroy(store->queue);
    mapping_unpin(store->mapping, 1);
    index_fini(&store->index);
    appender_fini(&store->appender);
    file_close(&store->file);
    pthread_rwlock_destroy(&store->publish);
    pthread_mutex_destroy(&store->write);
    free(store->path);
    free(store);
}

static void store_close_up(rd_store **store)
{
    rd_store_close(*store);
}

__attribute__((format(printf, 3, 4))) static rd_err refuse(rd_fault *fault, rd_err err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->text, sizeof(fault->text), format, arguments);
    va_end(arguments);
    return err;
}

/* The lock tells that there is another writer; STORE.writer, who. */
static rd_err refuse_locked(const rd_store *store, rd_fault *fault)
{
    struct writer_said said;
    if (!writer_line_read(store->path, &said))
        return refuse(fault, RD_E_LOCKED,
                      "%s: another process has it open for writing; stop that one, or open read-only", store->path);
    time_t start = (time_t)said.start;
    struct tm utc;
    char since[32] = "?";
    if (gmtime_r(&start, &utc) != NULL)
        (void)strftime(since, sizeof(since), "%Y-%m-%dT%H:%M:%SZ", &utc);
    return refuse(
        fault, RD_E_LOCKED,
        "%s: another process has it open for writing (by %s.writer: pid %llu on %s, since %s); stop that one, "
        "or open read-only",
        store->path, store->path, (unsigned long long)said.pid, said.host, since);
}

static rd_err open_file(rd_store *store, const rd_open_options *options, rd_fault *fault)
{
    rd_err err = file_open(store->path, options, &store->file);
    if (err == RD_E_IO) {
        fault->os_error = errno;
        return refuse(fault, err, "%s: %s", store->path, strerror(fault->os_error));
    }
    if (err == RD_E_LOCKED)
        return refuse_locked(store, fault);
    return err == RD_OK ? RD_OK : refuse(fault, err, "%s: %s", store->path, rd_err_text(err));
}

/* What STORE.writer says of this very file, into the options. A line that is there and can't be read is an error:
   without it what a crash tore would be taken for damage, and for good once a writer goes on. */
static rd_err read_line(const rd_store *store, struct recover_options *options, rd_fault *fault)
{
    struct writer_said said;
    struct stat opened;
    bool read = writer_line_read(store->path, &said);
    if ((!read && errno != 0) || fstat(store->file.fd, &opened) != 0) {
        fault->os_error = errno;
        return refuse(fault, RD_E_IO, "%s: reading %s.writer: %s; nothing was changed", store->path, store->path,
                      strerror(fault->os_error));
    }
    options->synced_off = SYNCED_UNKNOWN;
    if (read && said.inode == (uint64_t)opened.st_ino)
        options->synced_off = said.synced_off;
    if (read && said.torn_inode == (uint64_t)opened.st_ino)
        options->torn = said.torn;
    return RD_OK;
}

static rd_err map_file(rd_store *store, uint64_t *out_bytes, rd_fault *fault)
{
    rd_err err = file_size(&store->file, out_bytes);
    if (err == RD_OK && *out_bytes > RD_OFFSET_MAX)
        return refuse(fault, RD_E_NOT_STORE, "%s: larger than 256 TiB, which no store can be (F-10)", store->path);
    if (err == RD_OK)
        err = mapping_create(&store->file, *out_bytes, 1, NULL, &store->mapping);
    if (err == RD_OK)
        return RD_OK;
    fault->os_error = errno;
    return refuse(fault, err, "%s: %s (%s)", store->path, rd_err_text(err), strerror(errno));
}

/* The store's figures are what recovery found; takes over its index and layout. */
static void take_figures(rd_store *store, struct recovered *found)
{
    store->index = found->index;
    store->entries = found->entries;
    atomic_store(&store->live_keys, found->live_keys);
    atomic_store(&store->live_bytes, found->live_bytes);
    atomic_store(&store->live_stored, found->live_stored);
    atomic_store(&store->damaged_keys, found->damaged_keys);
}

static rd_err index_file(rd_store *store, const atomic_bool *cancel, rd_fault *fault)
{
    uint64_t bytes;
    struct recovered found;
    RD_TRY(map_file(store, &bytes, fault));
    struct recover_options options = {.cancel = cancel};
    RD_TRY(read_line(store, &options, fault));
    rd_err err = recover(store->mapping->base, bytes, &options, &fault->offset, &found);
    if (err != RD_OK)
        return refuse(fault, err, "%s: %s; nothing was changed", store->path, rd_err_text(err));
    take_figures(store, &found);
    store->mapping->layout = found.layout; /* nobody shares the mapping yet */
    store->tail_off = found.tail_off;
    store->unread_bytes = bytes - found.tail_off;
    store->synced_off = options.synced_off;
    return RD_OK;
}

/* A writer without its line would fail at its first append, which has no words for why. */
static rd_err check_line(const rd_store *store, rd_fault *fault)
{
    rd_err err = writer_line_check(store->path);
    if (err == RD_OK)
        return RD_OK;
    fault->os_error = errno;
    const char *why = strerror(fault->os_error);
    if (err == RD_E_NOMEM)
        why = rd_err_text(err);
    else if (fault->os_error == EEXIST)
        why = "it is no writer's line of rdrive; move it away";
    else if (fault->os_error == ELOOP)
        why = "it is a symbolic link; move it away";
    return refuse(fault, err, "%s: its STORE.writer can't be written: %s; nothing was changed", store->path, why);
}

/* What a store needs that is open for writing, and what a crash left to be put right before the first append. */
static rd_err make_writable(rd_store *store, rd_fault *fault)
{
    if (!store->options.writable)
        return RD_OK;
    RD_TRY(check_line(store, fault));
    if (store->file.created && file_sync_directory(store->path) != RD_OK) {
        fault->os_error = errno;
        return refuse(fault, RD_E_SYNC, "%s: syncing its directory: %s", store->path, strerror(errno));
    }
    if (store->unread_bytes > 0) {
        RD_TRY(torn_save_and_cut(store, fault));
        store->torn_bytes = store->unread_bytes;
        store->torn_off = store->tail_off;
        store->unread_bytes = 0;
    }
    rd_err err = commit_queue_create(&store->queue);
    /* before there is a line of ours: the old one must go on saying that what is torn was never synced */
    if (err == RD_OK)
        err = torn_supersede(store);
    if (err == RD_OK)
        err = writer_line_create(store->path, &store->line);
    if (err != RD_OK)
        return refuse(fault, err, "%s: %s", store->path, rd_err_text(err));
    /* by an earlier opening, whose word must be replaced by a sync now, or by who left no word of this file */
    store->unsynced = store->tail_off > 0 && store->tail_off != store->synced_off;
    return RD_OK;
}

rd_err rd_store_open(const char *path, const rd_open_options *options, rd_fault *out_fault, rd_store **out_store)
{
    rd_fault scratch;
    rd_fault *fault = out_fault != NULL ? out_fault : &scratch;
    *fault = (rd_fault){0};
    RD_CLEANUP(store_close_up) rd_store *store = store_alloc(path, options);
    if (store == NULL)
        return refuse(fault, RD_E_NOMEM, "%s: %s", path, rd_err_text(RD_E_NOMEM));
    RD_TRY(open_file(store, options, fault));
    RD_TRY(index_file(store, options->cancel, fault));
    RD_TRY(make_writable(store, fault));
    if (upkeep_create(store) != RD_OK)
        return refuse(fault, RD_E_NOMEM, "%s: %s", path, rd_err_text(RD_E_NOMEM));
    *out_store = store;
    store = NULL; /* ownership leaves */
    return RD_OK;
}

rd_err rd_store_file_size(rd_store *store, uint64_t *out_bytes)
{
    pthread_rwlock_rdlock(&store->publish); /* a compaction may close the file */
    rd_err err = file_size(&store->file, out_bytes);
    pthread_rwlock_unlock(&store->publish);
    return err;
}

/* About what a compaction would save. The newest entry needs no pad behind it, hence the tail's own. */
static uint64_t reclaimable(uint64_t tail_off, uint64_t live_stored)
{
    uint64_t padded_tail = tail_off + entry_pad(tail_off);
    if (live_stored == 0)
        return tail_off;
    return padded_tail > live_stored ? padded_tail - live_stored : 0;
}

rd_err rd_store_info_get(rd_store *store, rd_store_info *out_info)
{
    rd_store_info info = {.unread_bytes = store->unread_bytes,
                          .torn_bytes = store->torn_bytes,
                          .torn_off = store->torn_off,
                          .writable = store->options.writable};
    pthread_rwlock_rdlock(&store->publish);
    rd_err err = file_size(&store->file, &info.file_size);
    const struct layout *layout = store->mapping->layout;
    info.live_keys = store->live_keys;
    info.entries = store->entries;
    info.tail_off = store->tail_off;
    info.live_bytes = store->live_bytes;
    info.reclaimable_bytes = reclaimable(store->tail_off, store->live_stored);
    info.damaged_entries = store->damaged_keys;
    for (size_t kind = 0; layout != NULL && kind < RD_DAMAGE_KINDS; kind++) {
        info.damaged_ranges += layout->counts[kind];
        info.unidentified_ranges += rd_damage_hides((rd_damage_kind)kind) ? layout->counts[kind] : 0;
    }
    info.index_bytes = atomic_load_explicit(&store->index.bytes, memory_order_relaxed);
    info.generation = store->mapping->generation;
    pthread_rwlock_unlock(&store->publish);
    info.file_state = (rd_file_state)atomic_load(&store->file_state);
    if (err == RD_OK)
        *out_info = info;
    return err;
}

size_t rd_store_damage(rd_store *store, rd_range *out_ranges, size_t max)
{
    size_t count = 0;
    if (max > RD_DAMAGE_LISTED_MAX)
        max = RD_DAMAGE_LISTED_MAX;
    struct snapshot snapshot;
    store_snapshot(store, &snapshot);
    const struct layout *layout = snapshot.mapping->layout;
    for (size_t i = 0; layout != NULL && i < layout->damage_count && count < max; i++) {
        const struct damage *damage = &layout->damage[i];
        if (damage->kind == DAMAGE_TORN)
            continue;
        out_ranges[count++] = (rd_range){.offset = damage->begin_off,
                                         .size = damage->end_off - damage->begin_off,
                                         .key_hash = damage->has_key ? damage->key_hash : 0,
                                         .kind = (rd_damage_kind)damage->kind,
                                         .what = rd_damage_text((rd_damage_kind)damage->kind)};
    }
    snapshot_release(&snapshot);
    return count;
}

uint64_t rd_store_len(rd_store *store)
{
    pthread_rwlock_rdlock(&store->publish);
    uint64_t live_keys = store->live_keys;
    pthread_rwlock_unlock(&store->publish);
    return live_keys;
}

bool rd_store_is_empty(rd_store *store)
{
    return rd_store_len(store) == 0;
}

/* ---- a late recovery takes the store's place ---- */

/* Put an entry that was appended after the recovery's snapshot into what it found. Newest first. */
static rd_err adopt_entry(struct recovered *found, const struct entry *entry, uint64_t recovered_len,
                          const struct snapshot *snapshot)
{
    found->entries++;
    uint64_t before = index_find(&found->index, entry->key_hash);
    if (before != WORD_NONE && word_off(before) >= recovered_len)
        return RD_OK; /* superseded */
    struct entry old;
    if ((before & WORD_DAMAGED) != 0) {
        found->damaged_keys--;
    } else if (before != WORD_NONE && (before & WORD_TOMBSTONE) == 0) {
        RD_TRY(snapshot_entry(snapshot, word_off(before), &old));
        found->live_keys--;
        found->live_bytes -= entry_payload_len(&old);
        found->live_stored -= entry_stored_len(&old);
    }
    if (!entry->tombstone) {
        found->live_keys++;
        found->live_bytes += entry_payload_len(entry);
        found->live_stored += entry_stored_len(entry);
    }
    RD_TRY(index_reserve(&found->index, 1));
    index_set(&found->index, entry->key_hash,
              entry->trailer_off | WORD_VERIFIED | (entry->tombstone ? WORD_TOMBSTONE : 0));
    return RD_OK;
}

rd_err store_adopt(rd_store *store, struct recovered *recovered, uint64_t recovered_len)
{
    struct mapping *mapping = NULL;
    uint64_t bytes;
    RD_TRY(file_size(&store->file, &bytes));
    RD_TRY(mapping_create(&store->file, bytes, store->mapping->generation + 1, recovered->layout, &mapping));
    struct snapshot snapshot = {.mapping = mapping, .tail_off = store->tail_off};
    uint64_t end_off = store->tail_off;
    rd_err err = RD_OK;
    while (err == RD_OK && end_off > recovered_len) {
        struct entry entry;
        const struct damage *damage;
        err = snapshot_walk(&snapshot, &end_off, &entry, &damage);
        if (err == RD_OK && damage == NULL)
            err = adopt_entry(recovered, &entry, recovered_len, &snapshot);
    }
    if (err != RD_OK) {
        mapping_unpin(mapping, 1);
        return err;
    }
    pthread_rwlock_wrlock(&store->publish);
    struct index superseded_index = store->index;
    struct mapping *superseded = store->mapping;
    store->mapping = mapping;
    take_figures(store, recovered);
    pthread_rwlock_unlock(&store->publish);
    recovered->index = (struct index){0};
    index_fini(&superseded_index);
    mapping_unpin(superseded, 1);
    return RD_OK;
}
