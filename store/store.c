#include "base.h"
#include "index_file.h"
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
    if (store == NULL || copy == NULL) {
        free(copy);
        free(store);
        return NULL;
    }
    pthread_mutex_init(&store->write, NULL);
    store->path = copy;
    store->options = *options;
    store->options.cancel = NULL; /* the caller's, and only while opening */
    store->options.progress = NULL;
    store->options.index = NULL; /* the caller's */
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
            writer_line_synced(store->line, store->unsynced ? 0 : store->view->tail_off, true);
        index_file_closing(store);
    }
    writer_line_destroy(store->line);
    commit_queue_destroy(store->queue);
    view_destroy(store->view);
    appender_fini(&store->appender);
    file_close(&store->file);
    free(store->index_file.path);
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

static rd_err map_file(rd_store *store, uint64_t *out_bytes, struct mapping **out_mapping, rd_fault *fault)
{
    rd_err err = file_size(&store->file, out_bytes);
    if (err == RD_OK && *out_bytes > RD_OFFSET_MAX) {
        refuse(fault, RD_E_NOT_STORE, "%s: larger than 256 TiB, which no store can be (F-10)", store->path);
        return RD_E_NOT_STORE;
    }
    if (err == RD_OK)
        err = mapping_create(&store->file, *out_bytes, 1, NULL, out_mapping);
    if (err == RD_OK)
        return RD_OK;
    fault->os_error = errno;
    refuse(fault, err, "%s: %s (%s)", store->path, rd_err_text(err), strerror(errno));
    return err;
}

struct figures recovered_figures(const struct recovered *recovered)
{
    return (struct figures){.entries = recovered->entries,
                            .live_keys = recovered->live_keys,
                            .live_bytes = recovered->live_bytes,
                            .live_stored = recovered->live_stored,
                            .damaged_keys = recovered->damaged_keys};
}

static void mapping_drop(struct mapping **mapping)
{
    mapping_release(*mapping);
}

static rd_err index_file(rd_store *store, const rd_open_options *opening, rd_fault *fault)
{
    uint64_t bytes;
    struct recovered found;
    struct view *view;
    RD_CLEANUP(mapping_drop) struct mapping *mapping = NULL;
    RD_TRY(map_file(store, &bytes, &mapping, fault));
    struct recover_options options = {.cancel = opening->cancel, .progress = opening->progress};
    RD_TRY(read_line(store, &options, fault));
    const struct index_file_call call = {
        .store_path = store->path, .file = &store->file, .mapping = mapping, .bytes = bytes, .options = &options};
    rd_err err = index_file_load(&store->index_file, &call, &found);
    if (err == RD_ABSENT)
        err = recover(mapping->base, bytes, &options, &fault->offset, &found);
    if (err != RD_OK)
        return refuse(fault, err, "%s: %s; nothing was changed", store->path, rd_err_text(err));
    mapping->layout = layout_ref(found.layout); /* nobody shares the mapping yet */
    struct figures figures = recovered_figures(&found);
    err = view_create(mapping, &found.index, &store->file, found.tail_off, &figures, store->options.verify, &view);
    recovered_fini(&found);
    if (err != RD_OK)
        return refuse(fault, err, "%s: %s", store->path, rd_err_text(err));
    mapping = NULL; /* the view's */
    atomic_store(&store->view, view);
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
    if (index_file_is_stale(store->index_file.source)) {
        rd_err gone = index_file_remove(store->index_file.path);
        (void)gone; /* it would be refused again */
    }
    if (store->unread_bytes > 0) {
        RD_TRY(torn_save_and_cut(store, fault));
        store->torn_bytes = store->unread_bytes;
        store->torn_off = store->view->tail_off;
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
    store->unsynced = store->view->tail_off > 0 && store->view->tail_off != store->synced_off;
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
    if (index_file_init(&store->index_file, path, options->index) != RD_OK)
        return refuse(fault, RD_E_NOMEM, "%s: %s", path, rd_err_text(RD_E_NOMEM));
    RD_TRY(open_file(store, options, fault));
    RD_TRY(index_file(store, options, fault));
    RD_TRY(make_writable(store, fault));
    if (upkeep_create(store) != RD_OK)
        return refuse(fault, RD_E_NOMEM, "%s: %s", path, rd_err_text(RD_E_NOMEM));
    *out_store = store;
    store = NULL; /* ownership leaves */
    return RD_OK;
}

rd_err rd_store_file_size(rd_store *store, uint64_t *out_bytes)
{
    struct reading reading = reading_begin(store); /* a compaction may close the file */
    rd_err err = file_size(&(struct file){.fd = reading.view->fd}, out_bytes);
    reading_end(&reading);
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
                          .index_source = store->index_file.source,
                          .writable = store->options.writable && !atomic_load(&store->write_ended)};
    struct reading reading = reading_begin(store);
    struct figures figures;
    view_figures(reading.view, &figures, &info.tail_off);
    rd_err err = file_size(&(struct file){.fd = reading.view->fd}, &info.file_size);
    const struct layout *layout = atomic_load(&reading.view->mapping)->layout;
    for (size_t kind = 0; layout != NULL && kind < RD_DAMAGE_KINDS; kind++) {
        info.damaged_ranges += layout->counts[kind];
        info.unidentified_ranges += rd_damage_hides((rd_damage_kind)kind) ? layout->counts[kind] : 0;
    }
    info.index_bytes = atomic_load_explicit(&reading.view->index.bytes, memory_order_relaxed);
    info.generation = reading.view->generation;
    reading_end(&reading);
    info.live_keys = figures.live_keys;
    info.entries = figures.entries;
    info.live_bytes = figures.live_bytes;
    info.reclaimable_bytes = reclaimable(info.tail_off, figures.live_stored);
    info.damaged_entries = figures.damaged_keys;
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
    struct reading reading = reading_begin(store);
    uint64_t live_keys = atomic_load_explicit(&reading.view->live_keys, memory_order_acquire);
    reading_end(&reading);
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

rd_err store_adopt(rd_store *store, struct recovered *recovered, uint64_t recovered_len, struct view **out_superseded)
{
    struct view *view = store->view;
    RD_CLEANUP(mapping_drop) struct mapping *mapping = NULL;
    uint64_t bytes;
    RD_TRY(file_size(&store->file, &bytes));
    RD_TRY(mapping_create(&store->file, bytes, view->generation + 1, recovered->layout, &mapping));
    struct snapshot snapshot = {.mapping = mapping, .tail_off = view->tail_off};
    uint64_t end_off = view->tail_off;
    recovered->index.settled_off = recovered_len; /* a deletion that came since still hides what is below */
    while (end_off > recovered_len) {
        struct entry entry;
        const struct damage *damage;
        RD_TRY(snapshot_walk(&snapshot, &end_off, &entry, &damage));
        if (damage == NULL)
            RD_TRY(adopt_entry(recovered, &entry, recovered_len, &snapshot));
    }
    struct figures figures = recovered_figures(recovered);
    RD_TRY(
        view_create(mapping, &recovered->index, &store->file, view->tail_off, &figures, store->options.verify, &view));
    mapping = NULL; /* the view's */
    *out_superseded = store_replace(store, view);
    return RD_OK;
}

struct view *store_replace(rd_store *store, struct view *view)
{
    return atomic_exchange(&store->view, view);
}

void store_retire(struct view *superseded)
{
    if (superseded == NULL)
        return;
    epoch_wait(epoch_retire());
    view_destroy(superseded);
}
