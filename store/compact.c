/* Compaction, while readers and writers go on. What was live at one moment is copied in file order, then what was
   appended meanwhile, as it is; the last of it while writers are held. Up to the rename the store is as it was. */
#include "base.h"
#include "compact_internal.h"
#include "words.h"
#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

#define HELD_MAX       ((uint64_t)1 << 20) /* copied while writers are held */
#define ROUNDS_MAX     16                  /* a writer that is faster than the copy doesn't keep it from ending */
#define REPORT_BYTES   ((uint64_t)4 << 20) /* between two calls of the caller's progress */
#define REPORT_ENTRIES 4096u

rd_err compact_refuse(const struct compaction *compaction, rd_err err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(compaction->fault->text, sizeof(compaction->fault->text), format, arguments);
    va_end(arguments);
    return err;
}

/* Tell the caller how far it is. Returns: RD_OK, RD_E_CANCELLED. */
static rd_err report(struct compaction *compaction)
{
    const rd_compact_options *options = compaction->options;
    rd_compact_progress progress = {.entries_done = compaction->entries,
                                    .entries_total = compaction->entries_total,
                                    .bytes_written = appender_tail(&compaction->appender)};
    compaction->reported_entries = progress.entries_done;
    compaction->reported_bytes = progress.bytes_written;
    if (options == NULL || options->progress == NULL || options->progress(options->arg, &progress))
        return RD_OK;
    return RD_E_CANCELLED;
}

static rd_err report_now_and_then(struct compaction *compaction)
{
    if (compaction->entries - compaction->reported_entries < REPORT_ENTRIES &&
        appender_tail(&compaction->appender) - compaction->reported_bytes < REPORT_BYTES)
        return RD_OK;
    return report(compaction);
}

/* Nothing refuses it any more, and finding what is live takes long. */
static rd_err report_begun(struct compaction *compaction)
{
    compaction->entries_total = rd_store_len(compaction->store);
    return report(compaction);
}

/* ---- what must hold --------------------------------------------------------------------------------------------- */

/* What a compaction would throw away for good, a repair may still need. Not so a damaged entry whose key was written
   since, which is how a torn range ends, nor one whose link alone is damaged: it is copied, and its link is new. */
rd_err compact_check_damage(const struct compaction *compaction)
{
    rd_store *store = compaction->store;
    struct snapshot snapshot;
    uint64_t ranges = 0;
    struct reading reading = reading_begin(store);
    struct figures figures;
    uint64_t tail_off;
    view_figures(reading.view, &figures, &tail_off);
    reading_end(&reading);
    uint64_t keys = figures.damaged_keys;
    store_snapshot(store, &snapshot);
    const struct layout *layout = snapshot.mapping->layout;
    for (size_t kind = 0; layout != NULL && kind < RD_DAMAGE_KINDS; kind++)
        ranges += rd_damage_hides((rd_damage_kind)kind) ? layout->counts[kind] : 0;
    snapshot_release(&snapshot);
    if (keys == 0 && ranges == 0)
        return RD_OK;
    return compact_refuse(compaction, RD_E_DAMAGED,
                          "%s: %llu damaged keys and %llu damaged ranges of unknown keys; nothing was changed: `rdrive "
                          "repair %s --output NEW` "
                          "writes what can be proven to a new file",
                          store->path, (unsigned long long)keys, (unsigned long long)ranges, store->path);
}

/* A late recovery has put another view of the file in place. */
static rd_err check_generation(const struct compaction *compaction, const struct snapshot *snapshot)
{
    if (snapshot->mapping->generation == compaction->generation)
        return RD_OK;
    RD_TRY(compact_check_damage(compaction));
    return compact_refuse(compaction, RD_E_UNAVAILABLE,
                          "%s: it was recovered anew meanwhile; nothing was changed: try again",
                          compaction->store->path);
}

/* Somebody who takes no lock may have appended, and that must not be lost. Requires: `write` is held. */
rd_err compact_check_file(const struct compaction *compaction)
{
    rd_store *store = compaction->store;
    uint64_t bytes;
    if (store->write_ended)
        return RD_E_ENDED;
    RD_TRY(file_size(&store->file, &bytes));
    if (bytes < store->view->tail_off)
        return RD_E_TRUNCATED;
    if (bytes == store->view->tail_off)
        return RD_OK;
    store->write_ended = true;
    return compact_refuse(compaction, RD_E_ENDED,
                          "%s: something else has appended to it; writing ended, nothing was changed: reopen it",
                          store->path);
}

/* A payload failed. A cut inside the file's last page raises nothing, and its bytes read as zeros. */
static rd_err judge_failure(struct compaction *compaction, uint64_t end_off)
{
    uint64_t bytes;
    RD_TRY(file_size(&compaction->store->file, &bytes));
    if (bytes < end_off)
        return RD_E_TRUNCATED;
    compaction->check_failed = true;
    return RD_E_DAMAGED;
}

/* ---- copying ---------------------------------------------------------------------------------------------------- */

static rd_err append(struct compaction *compaction, const struct snapshot *snapshot, const struct entry *entry,
                     struct entry *out_copy)
{
    RD_CLEANUP(taken_fini) struct taken taken = {0};
    if (entry->tombstone)
        return appender_add(&compaction->appender, &compaction->file, entry->key_hash, (rd_span){0}, out_copy);
    rd_span stored = {.data = snapshot->mapping->base + entry->start_off, .len = (size_t)entry_payload_len(entry)};
    rd_err err = take(stored, entry->crc, &taken);
    if (err == RD_E_DAMAGED)
        err = judge_failure(compaction, entry_end(entry));
    if (err != RD_OK)
        return err;
    return appender_add_summed(&compaction->appender, &compaction->file, entry->key_hash, taken.bytes, taken.crc,
                               out_copy);
}

/* Copy the entry at `trailer_off` of the old file. */
static rd_err copy_entry(struct compaction *compaction, const struct snapshot *snapshot, uint64_t trailer_off)
{
    struct entry entry;
    struct entry copy;
    rd_err err = snapshot_entry(snapshot, trailer_off, &entry);
    if (err == RD_E_DAMAGED)
        err = judge_failure(compaction, trailer_off + RD_TRAILER_SIZE);
    RD_TRY(err);
    RD_TRY(index_reserve(&compaction->index, 1));
    RD_TRY(append(compaction, snapshot, &entry, &copy));
    index_set(&compaction->index, copy.key_hash,
              copy.trailer_off | WORD_VERIFIED | (copy.tombstone ? WORD_TOMBSTONE : 0));
    compaction->entries++;
    return RD_OK;
}

/* A payload that opening left unchecked may have a link that hides keys. Live ones are checked when they are copied;
   these are not copied. */
static rd_err check_superseded(struct compaction *compaction, const struct snapshot *snapshot,
                               const struct numbers *live)
{
    const struct layout *layout = snapshot->mapping->layout;
    for (size_t i = 0; layout != NULL && i < layout->provisional_count; i++) {
        struct entry entry;
        uint64_t end_off = layout->provisional[i];
        if (numbers_have(live, end_off - RD_TRAILER_SIZE))
            continue;
        rd_err err = snapshot_entry(snapshot, end_off - RD_TRAILER_SIZE, &entry);
        if (err == RD_OK)
            err = snapshot_check(snapshot, &entry, NULL);
        if (err == RD_E_DAMAGED)
            err = judge_failure(compaction, end_off);
        if (err == RD_OK)
            err = report(compaction);
        RD_TRY(err);
    }
    return RD_OK;
}

static rd_err copy_sorted(struct compaction *compaction, const struct snapshot *snapshot, const struct numbers *offsets,
                          bool reporting)
{
    compaction->entries_total += offsets->count;
    for (size_t i = 0; i < offsets->count; i++) {
        RD_TRY(copy_entry(compaction, snapshot, offsets->at[i]));
        if (reporting)
            RD_TRY(report_now_and_then(compaction));
    }
    return RD_OK;
}

/* What is live as of the snapshot. */
static rd_err copy_live(struct compaction *compaction, const struct snapshot *snapshot)
{
    RD_CLEANUP(numbers_fini) struct numbers live = {0};
    compaction->doing = "copying";
    RD_TRY(check_generation(compaction, snapshot));
    RD_TRY(words_gather(compaction->store, compaction->generation, snapshot->tail_off, &live, NULL));
    compaction->entries_total = live.count;
    RD_TRY(report(compaction));
    RD_TRY(check_superseded(compaction, snapshot, &live));
    compaction->entries_total = 0;
    RD_TRY(index_reserve(&compaction->index, live.count));
    RD_TRY(copy_sorted(compaction, snapshot, &live, true));
    compaction->copied_off = snapshot->tail_off;
    return RD_OK;
}

/* Where the entries of [`copied_off`, the snapshot's tail) lie, ascending. */
static rd_err find_appended(struct compaction *compaction, const struct snapshot *snapshot, struct numbers *appended)
{
    uint64_t end_off = snapshot->tail_off;
    while (end_off > compaction->copied_off) {
        struct entry entry;
        const struct damage *damage = NULL;
        rd_err err = snapshot_walk(snapshot, &end_off, &entry, &damage);
        if (err == RD_E_DAMAGED || err == RD_ABSENT || (err == RD_OK && damage != NULL))
            err = judge_failure(compaction, snapshot->tail_off);
        if (err == RD_OK)
            err = numbers_add(appended, entry.trailer_off);
        RD_TRY(err);
    }
    numbers_sort(appended);
    return end_off == compaction->copied_off ? RD_OK : judge_failure(compaction, snapshot->tail_off);
}

/* What was appended since, superseded entries and tombstones included. */
rd_err compact_copy_appended(struct compaction *compaction, bool reporting)
{
    RD_CLEANUP(snapshot_release) struct snapshot snapshot = {0};
    RD_CLEANUP(numbers_fini) struct numbers appended = {0};
    compaction->doing = "copying";
    store_snapshot(compaction->store, &snapshot);
    RD_TRY(check_generation(compaction, &snapshot));
    RD_TRY(find_appended(compaction, &snapshot, &appended));
    RD_TRY(copy_sorted(compaction, &snapshot, &appended, reporting));
    compaction->copied_off = snapshot.tail_off;
    return RD_OK;
}

rd_err compact_sync_copy(struct compaction *compaction)
{
    RD_TRY(appender_flush(&compaction->appender, &compaction->file));
    compaction->doing = "syncing the new file";
    return file_sync(&compaction->file);
}

/* Until little is left. */
static rd_err catch_up(struct compaction *compaction)
{
    for (int round = 0; round < ROUNDS_MAX; round++) {
        RD_TRY(compact_sync_copy(compaction));
        RD_TRY(report(compaction));
        struct snapshot now;
        store_snapshot(compaction->store, &now);
        uint64_t left = now.tail_off - compaction->copied_off;
        snapshot_release(&now);
        if (left < HELD_MAX)
            break;
        RD_TRY(compact_copy_appended(compaction, true));
    }
    compaction->doing = "syncing the store";
    return store_sync(compaction->store); /* so that little of this is left too */
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static rd_err run(struct compaction *compaction)
{
    RD_CLEANUP(snapshot_release) struct snapshot snapshot = {0};
    RD_TRY(compact_check_damage(compaction));
    store_snapshot(compaction->store, &snapshot);
    compaction->generation = snapshot.mapping->generation;
    compaction->tail_before = snapshot.tail_off;
    RD_TRY(compact_make_file(compaction));
    RD_TRY(report_begun(compaction));
    RD_TRY(copy_live(compaction, &snapshot));
    snapshot_release(&snapshot);
    RD_TRY(catch_up(compaction));
    return compact_replace(compaction);
}

static rd_err run_if_writable(struct compaction *compaction)
{
    rd_store *store = compaction->store;
    pthread_mutex_lock(&store->write);
    rd_err err = store->write_ended ? RD_E_ENDED : compact_check_file(compaction);
    pthread_mutex_unlock(&store->write);
    return err == RD_OK ? run(compaction) : err;
}

/* One line on what went wrong, where no step had a better one. */
static void explain(const struct compaction *compaction, rd_err err, int os_error)
{
    rd_fault *fault = compaction->fault;
    bool system = err == RD_E_IO || err == RD_E_NO_SPACE || err == RD_E_SYNC;
    fault->os_error = system ? os_error : 0;
    if (fault->text[0] != '\0')
        return;
    const char *path = compaction->store->path;
    const char *after = "nothing was changed";
    if (compaction->placed)
        after = "the compacted file is in place, but a power cut may bring the old one back: reopen it";
    if (err == RD_E_DAMAGED)
        compact_refuse(compaction, err,
                       "%s: a stored value fails its checksum; nothing was changed: `rdrive repair %s --output "
                       "NEW` writes what can be proven to a new file",
                       path, path);
    else
        compact_refuse(compaction, err, "%s: compacting: %s: %s; %s", path, compaction->doing,
                       system && os_error != 0 ? strerror(os_error) : rd_err_text(err), after);
}

static void compaction_fini(struct compaction *compaction)
{
    if (compaction->file.fd >= 0 && !compaction->placed)
        unlink(compaction->path);
    store_retire(compaction->view);
    file_close(&compaction->file);
    appender_fini(&compaction->appender);
    index_fini(&compaction->index);
    free(compaction->target);
    free(compaction->path);
}

static struct compaction begun(rd_store *store, const rd_compact_options *options, rd_fault *fault)
{
    return (struct compaction){.store = store, .options = options, .fault = fault, .doing = "beginning", .file.fd = -1};
}

/* Requires: the store is writable, and no other compaction runs. */
static rd_err compact_once(struct compaction *compaction, rd_compacted *out_compacted)
{
    rd_err err = run_if_writable(compaction);
    uint64_t tail_off = appender_tail(&compaction->appender);
    if (err != RD_OK)
        explain(compaction, err, errno);
    compaction_fini(compaction);
    if (err != RD_OK)
        return err;
    *out_compacted =
        (rd_compacted){.entries = compaction->entries,
                       .bytes_written = tail_off,
                       .bytes_reclaimed = compaction->tail_before > tail_off ? compaction->tail_before - tail_off : 0};
    return RD_OK;
}

/* The same; a payload that fails is recovered around, so that readers are told, and what it hid is found. Then, if all
   keys are known and whole, once more. */
static rd_err compact(rd_store *store, const rd_compact_options *options, rd_fault *fault, rd_compacted *out_compacted)
{
    struct compaction first = begun(store, options, fault);
    rd_err err = compact_once(&first, out_compacted);
    if (err != RD_E_DAMAGED || !first.check_failed || store_recover_again(store, NULL) != RD_OK)
        return err;
    struct compaction second = begun(store, options, fault);
    *fault = (rd_fault){0};
    return compact_once(&second, out_compacted);
}

rd_err rd_store_compact(rd_store *store, const rd_compact_options *options, rd_fault *out_fault,
                        rd_compacted *out_compacted)
{
    rd_fault scratch;
    rd_fault *fault = out_fault != NULL ? out_fault : &scratch;
    bool idle = false;
    *fault = (rd_fault){0};
    rd_err err = store->options.writable ? RD_OK : RD_E_READ_ONLY;
    if (err == RD_OK && !atomic_compare_exchange_strong(&store->compacting, &idle, true))
        err = RD_E_BUSY;
    if (err != RD_OK) {
        const struct compaction refused = begun(store, options, fault);
        explain(&refused, err, 0);
        return err;
    }
    err = compact(store, options, fault, out_compacted);
    atomic_store(&store->compacting, false);
    return err;
}
