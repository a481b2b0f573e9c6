#include "base.h"
#include "guard.h"
#include "store_internal.h"
#include <unistd.h>

#define CANCEL_STRETCH 4096u /* keys of a commit between two looks at whether anybody still waits for it */

/* An entry that is in the file but not yet in the index. */
struct staged {
    uint64_t hash;
    uint64_t word;
    uint64_t payload_len; /* 0 of a tombstone, as the next */
    uint64_t stored_len;
};

/* A group of commits between its first append and its publication. */
struct stage {
    struct staged *entries;
    size_t count;
    size_t capacity;
    struct index words; /* of the first `indexed` entries, for deletes; without slots until one needs it */
    size_t indexed;
    bool begun; /* the file was looked at, and may be appended to */
    bool cut;   /* what failed was taken back, which is not durable yet */
};

static rd_err stage_reserve(struct stage *stage, size_t more)
{
    if (stage->capacity - stage->count >= more)
        return RD_OK;
    if (more > SIZE_MAX / 64)
        return RD_E_NOMEM;
    size_t capacity = stage->count + more > 2 * stage->capacity ? stage->count + more : 2 * stage->capacity;
    struct staged *entries = realloc(stage->entries, capacity * sizeof(*entries));
    if (entries == NULL)
        return RD_E_NOMEM;
    stage->entries = entries;
    stage->capacity = capacity;
    return RD_OK;
}

/**
 * Once a group, before its first append. Bytes of somebody else behind the tail (the crate takes no lock) are neither
 * overwritten nor cut: writing ends.
 */
static rd_err begin(rd_store *store, struct stage *stage)
{
    if (stage->begun)
        return RD_OK;
    off_t end = lseek(store->file.fd, 0, SEEK_END); /* the size, for a third of what fstat takes */
    if (end < 0)
        return RD_E_IO;
    if ((uint64_t)end < store->view->tail_off)
        return RD_E_TRUNCATED;
    rd_err err = (uint64_t)end > store->view->tail_off ? RD_E_ENDED : RD_OK;
    if (store->options.sync == RD_SYNC_ALWAYS && file_is_gone(&store->file)) /* in the other modes, a sync asks */
        err = RD_E_ENDED;
    if (err == RD_OK && store->line != NULL) /* there is none while opening supersedes what is torn */
        err = writer_line_begin(store->line, &store->file, store->view->mapping->layout, store->view->tail_off);
    if (err == RD_E_ENDED || err == RD_E_SYNC)
        store->write_ended = true;
    stage->begun = err == RD_OK;
    return err;
}

/* An entry whose payload has this CRC; NULL: not known yet. */
static rd_err append_one(rd_store *store, struct stage *stage, uint64_t hash, rd_span payload, const uint32_t *crc)
{
    struct entry entry;
    RD_TRY(begin(store, stage));
    RD_TRY(stage_reserve(stage, 1));
    if (crc != NULL)
        RD_TRY(appender_add_summed(&store->appender, &store->file, hash, payload, *crc, &entry));
    else
        RD_TRY(appender_add(&store->appender, &store->file, hash, payload, &entry));
    stage->entries[stage->count++] = (struct staged){
        .hash = hash,
        .word = entry.trailer_off | WORD_VERIFIED | (entry.tombstone ? WORD_TOMBSTONE : 0),
        .payload_len = entry.tombstone ? 0 : payload.len,
        .stored_len = entry.tombstone ? 0 : entry_stored_len(&entry),
    };
    return RD_OK;
}

/* Before the key of this number. Returns: RD_OK, RD_E_CANCELLED. */
static rd_err check_cancel(const struct commit *commit, size_t number)
{
    if (number == 0 || number % CANCEL_STRETCH != 0 || commit->cancel == NULL)
        return RD_OK;
    return atomic_load_explicit(commit->cancel, memory_order_relaxed) ? RD_E_CANCELLED : RD_OK;
}

static rd_err append_writes(rd_store *store, struct stage *stage, struct commit *commit)
{
    for (size_t i = 0; i < commit->count; i++) {
        RD_TRY(check_cancel(commit, i));
        const uint32_t *crc = commit->crcs != NULL ? &commit->crcs[i] : NULL;
        RD_TRY(append_one(store, stage, commit->items[i].key_hash, commit->items[i].payload, crc));
    }
    return RD_OK;
}

/* Bring the stage's own index up to its entries. Returns: RD_OK, RD_E_NOMEM. */
static rd_err stage_index(struct stage *stage)
{
    if (stage->count == 0)
        return RD_OK;
    if (stage->words.table == NULL)
        RD_TRY(index_init(&stage->words));
    RD_TRY(index_reserve(&stage->words, stage->count - stage->indexed));
    for (; stage->indexed < stage->count; stage->indexed++)
        index_set(&stage->words, stage->entries[stage->indexed].hash, stage->entries[stage->indexed].word);
    return RD_OK;
}

/* The stage's entries from `count` on never were. */
static void stage_forget(struct stage *stage, size_t count)
{
    stage->count = count;
    index_fini(&stage->words);
    stage->indexed = 0;
}

/* The newest word of `hash`, as the group's earlier commits left it. Only this thread changes the index: no lock. */
static uint64_t newest_word(const rd_store *store, const struct stage *stage, uint64_t hash)
{
    uint64_t word = stage->indexed > 0 ? index_find(&stage->words, hash) : WORD_NONE;
    return word != WORD_NONE ? word : index_find(&store->view->index, hash);
}

/* Whether a delete still meets the entry that it is meant for. */
static rd_err check_place(const rd_store *store, const struct commit *commit, uint64_t word)
{
    const struct place *only = commit->only;
    if (only == NULL || (only->generation == store->view->generation && only->trailer_off == word_off(word)))
        return RD_OK;
    return RD_E_UNAVAILABLE;
}

/* F-14: a tombstone for each key present before the call. */
static rd_err append_deletes(rd_store *store, struct stage *stage, struct commit *commit)
{
    RD_TRY(stage_index(stage)); /* once: a key named twice gets two */
    for (size_t i = 0; i < commit->count; i++) {
        RD_TRY(check_cancel(commit, i));
        if (commit->keys[i].cookie == RD_KEY_SKIP)
            continue;
        uint64_t word = newest_word(store, stage, commit->keys[i].hash);
        if (word == WORD_NONE || (word & WORD_TOMBSTONE) != 0)
            continue;
        RD_TRY(check_place(store, commit, word));
        RD_TRY(append_one(store, stage, commit->keys[i].hash, (rd_span){0}, NULL));
        commit->written.deleted_count++;
    }
    return RD_OK;
}

rd_err take(rd_span stored, uint32_t crc, struct taken *out_taken)
{
    struct taken taken = {.bytes = stored, .crc = crc};
    uint32_t found = 0;
    if (stored.len <= APPENDER_COPY_MAX) {
        taken.copy = malloc(stored.len > 0 ? stored.len : 1);
        if (taken.copy == NULL)
            return RD_E_NOMEM;
        taken.bytes.data = taken.copy;
    }
    rd_err err = RD_OK;
    if (taken.copy == NULL && !guard_crc(0, stored.data, stored.len, &found))
        err = RD_E_TRUNCATED;
    else if (taken.copy != NULL && !rd_copy(taken.copy, stored))
        err = RD_E_TRUNCATED;
    else if (taken.copy != NULL)
        found = crc_of(taken.copy, stored.len);
    if (err == RD_OK && found != crc)
        err = RD_E_DAMAGED;
    if (err == RD_OK)
        *out_taken = taken;
    else
        taken_fini(&taken);
    return err;
}

void taken_fini(struct taken *taken)
{
    free(taken->copy);
    *taken = (struct taken){0};
}

/* Have the store's mapping reach up to `bytes`. What is published stays as it is. */
static rd_err map_up_to(rd_store *store, uint64_t bytes)
{
    struct view *view = store->view;
    struct mapping *grown;
    struct mapping *superseded = view->mapping;
    if (bytes <= superseded->reserved)
        return RD_OK;
    RD_TRY(mapping_create(&store->file, bytes, superseded->generation, superseded->layout, &grown));
    atomic_store(&view->mapping, grown);
    epoch_wait(epoch_retire()); /* once in 64 GiB */
    mapping_release(superseded);
    return RD_OK;
}

/* The entry that a word of the index names. */
static rd_err entry_at(const rd_store *store, uint64_t word, struct entry *out_entry)
{
    const struct snapshot snapshot = {.mapping = store->view->mapping, .tail_off = appender_tail(&store->appender)};
    return snapshot_entry(&snapshot, word_off(word), out_entry);
}

/* Append the value behind `word`, which may be of an earlier commit of the group, once more, under `hash`. */
static rd_err append_again(rd_store *store, struct stage *stage, uint64_t word, uint64_t hash)
{
    struct entry entry;
    RD_CLEANUP(taken_fini) struct taken taken = {0};
    RD_TRY(map_up_to(store, word_off(word) + RD_TRAILER_SIZE));
    RD_TRY(entry_at(store, word, &entry));
    rd_span stored = {.data = store->view->mapping->base + entry.start_off, .len = (size_t)entry_payload_len(&entry)};
    rd_err err = take(stored, entry.crc, &taken);
    if (err == RD_E_DAMAGED && store->upkeep != NULL) /* there is none yet while a store is opened */
        upkeep_recover(store->upkeep);                /* its link was trusted: what that hid is to appear */
    RD_TRY(err);
    return append_one(store, stage, hash, taken.bytes, &taken.crc);
}

static rd_err append_rename(rd_store *store, struct stage *stage, const struct commit *commit)
{
    uint64_t old_hash = commit->keys[0].hash;
    uint64_t new_hash = commit->keys[1].hash;
    if (commit->keys[0].cookie == RD_KEY_SKIP)
        return RD_ABSENT;
    if (old_hash == new_hash)
        return RD_E_INVALID;
    RD_TRY(stage_index(stage));
    uint64_t word = newest_word(store, stage, old_hash);
    if (word == WORD_NONE || (word & WORD_TOMBSTONE) != 0)
        return RD_ABSENT;
    if ((word & WORD_DAMAGED) != 0)
        return RD_E_DAMAGED;
    RD_TRY(append_again(store, stage, word, new_hash));
    return append_one(store, stage, old_hash, (rd_span){0}, NULL);
}

/* What each key has, once more. A damaged value stays as it is. */
static rd_err append_renewals(rd_store *store, struct stage *stage, const struct commit *commit)
{
    RD_TRY(stage_index(stage));
    for (size_t i = 0; i < commit->count; i++) {
        uint64_t hash = commit->keys[i].hash;
        uint64_t word = newest_word(store, stage, hash);
        if ((word & WORD_DAMAGED) != 0)
            continue;
        rd_err err = RD_OK;
        if (word == WORD_NONE || (word & WORD_TOMBSTONE) != 0)
            err = append_one(store, stage, hash, (rd_span){0}, NULL);
        else
            err = append_again(store, stage, word, hash);
        if (err != RD_OK && err != RD_E_DAMAGED)
            return err;
    }
    return RD_OK;
}

/* All that can fail for want of memory, before a byte is written. */
static rd_err prepare(rd_store *store, struct stage *stage, const struct commit *commit)
{
    for (size_t i = 0; commit->items != NULL && i < commit->count; i++)
        if (!payload_is_legal(commit->items[i].payload))
            return RD_E_PAYLOAD; /* F-13: one illegal payload and nothing is written */
    if (commit->items == NULL && !commit->rename && !commit->renew)
        return RD_OK; /* a delete touches only what the index has, and that is less than it names */
    size_t more = commit->rename ? 2 : commit->count;
    RD_TRY(stage_reserve(stage, more));
    return index_reserve(&store->view->index, stage->count + more);
}

/**
 * Take back what of a failed append reached the file, so that the next one goes where readers expect it. The appender
 * goes back first: what the group appended before is still to be published up to there, whether the cut succeeds or
 * not.
 */
static void cut_back(rd_store *store, struct stage *stage, uint64_t tail_off)
{
    stage->cut |= lseek(store->file.fd, 0, SEEK_END) != (off_t)tail_off;
    RD_REQUIRE(appender_begin(&store->appender, tail_off) == RD_OK); /* it has its buffer */
    if (file_cut(&store->file, tail_off) != RD_OK)
        store->write_ended = true;
}

static rd_err append_by_kind(rd_store *store, struct stage *stage, struct commit *commit)
{
    if (commit->items != NULL)
        return append_writes(store, stage, commit);
    if (commit->rename)
        return append_rename(store, stage, commit);
    return commit->renew ? append_renewals(store, stage, commit) : append_deletes(store, stage, commit);
}

/* Append one commit; on failure nothing of it stays in the file or in the stage. */
static rd_err append_commit(rd_store *store, struct stage *stage, struct commit *commit)
{
    if (!store->options.writable)
        return RD_E_READ_ONLY;
    if (store->write_ended)
        return RD_E_ENDED;
    RD_TRY(prepare(store, stage, commit));
    size_t count_before = stage->count;
    uint64_t tail_before = appender_tail(&store->appender);
    rd_err err = append_by_kind(store, stage, commit);
    if (err == RD_OK)
        err = appender_flush(&store->appender, &store->file);
    if (err != RD_OK) {
        stage_forget(stage, count_before);
        commit->written.deleted_count = 0;
        if (stage->begun)
            cut_back(store, stage, tail_before);
        return err;
    }
    commit->written.tail_off = appender_tail(&store->appender);
    return RD_OK;
}

/* Take what a superseded word stood for off the live ones. What can't be measured any more stays counted. */
static void forget_live(const rd_store *store, uint64_t word, struct figures *more)
{
    struct entry entry;
    more->live_keys--;
    if (entry_at(store, word, &entry) != RD_OK)
        return;
    more->live_bytes -= entry_payload_len(&entry);
    more->live_stored -= entry_stored_len(&entry);
}

static void publish_one(const rd_store *store, struct view *view, const struct staged *staged, struct figures *more)
{
    struct slot *slot = index_claim(&view->index, staged->hash);
    undo_note(&view->undo, word_off(staged->word), atomic_load_explicit(&slot->word, memory_order_relaxed));
    uint64_t before = index_exchange(&view->index, slot, staged->word);
    if ((before & WORD_DAMAGED) != 0)
        more->damaged_keys--; /* healed */
    else if (before != WORD_NONE && (before & WORD_TOMBSTONE) == 0)
        forget_live(store, before, more);
    more->live_keys += (staged->word & WORD_TOMBSTONE) == 0;
    more->live_bytes += staged->payload_len;
    more->live_stored += staged->stored_len;
    more->entries++;
}

/* Make the stage visible: to readers all of it comes with the tail, whatever they find in the index before. Nothing can
   fail any more. */
static void publish(rd_store *store, const struct stage *stage)
{
    struct view *view = store->view;
    uint64_t tail_off = appender_tail(&store->appender);
    struct figures more = {0};
    for (size_t i = 0; i < stage->count; i++) {
        if (stage->count - i > PREFETCH_AHEAD)
            index_prefetch(&view->index, stage->entries[i + PREFETCH_AHEAD].hash);
        publish_one(store, view, &stage->entries[i], &more);
    }
    view_count(view, &more, tail_off);
    view->index.settled_off = undo_published(&view->undo, tail_off);
    index_sweep(&view->index);
}

/* Make what the group has appended durable, as the store's mode says, and visible. */
static rd_err complete(rd_store *store, struct stage *stage)
{
    bool durable = store->options.sync == RD_SYNC_ALWAYS;
    rd_err err = map_up_to(store, appender_tail(&store->appender));
    if (err == RD_OK)
        err = undo_reserve(&store->view->undo, stage->count);
    if (err != RD_OK) {
        cut_back(store, stage, store->view->tail_off);
        return err;
    }
    if (durable && file_sync(&store->file) != RD_OK) {
        store->write_ended = true; /* the kernel may have dropped the pages: whether they survive is unknown */
        return RD_E_SYNC;
    }
    publish(store, stage);
    store->unsynced = !durable;
    if (durable)
        writer_line_synced(store->line, store->view->tail_off, false);
    return RD_OK;
}

/* A group that appended nothing, deletes of what is deleted, may rest on what an earlier opening left unsynced. */
static rd_err complete_nothing(rd_store *store)
{
    if (store->options.sync != RD_SYNC_ALWAYS || !store->unsynced || store->write_ended)
        return RD_OK;
    if (file_sync(&store->file) != RD_OK) {
        store->write_ended = true;
        return RD_E_SYNC;
    }
    store->unsynced = false;
    /* or the earlier opening's line would go on calling it torn; opening itself has none yet */
    const struct layout *layout = store->view->mapping->layout;
    if (store->line != NULL && writer_line_begin(store->line, &store->file, layout, store->view->tail_off) == RD_OK)
        writer_line_synced(store->line, store->view->tail_off, false);
    return RD_OK;
}

/* What was refused must not come back with a power cut, which may leave its bytes and lose the cut. */
static void sync_cut(rd_store *store, const struct stage *stage, bool synced)
{
    if (stage->cut && !synced && !store->write_ended && file_sync(&store->file) != RD_OK)
        store->write_ended = true;
}

void store_commit(rd_store *store, struct commit **group, size_t count)
{
    struct stage stage = {0};
    pthread_mutex_lock(&store->write);
    rd_err err = appender_begin(&store->appender, store->view->tail_off);
    for (size_t i = 0; i < count; i++) {
        group[i]->written = (rd_written){.tail_off = store->view->tail_off};
        group[i]->err = err == RD_OK ? append_commit(store, &stage, group[i]) : err;
    }
    if (err == RD_OK)
        err = stage.count > 0 ? complete(store, &stage) : complete_nothing(store);
    sync_cut(store, &stage, stage.count > 0 && err == RD_OK && store->options.sync == RD_SYNC_ALWAYS);
    for (size_t i = 0; i < count; i++) {
        if (group[i]->err == RD_OK)
            group[i]->err = err;
        group[i]->written.durable = store->options.sync == RD_SYNC_ALWAYS;
    }
    pthread_mutex_unlock(&store->write);
    index_fini(&stage.words);
    free(stage.entries);
}
