#include "base.h"
#include "store_internal.h"

/* An entry that is in the file but not yet in the index. */
struct staged {
    uint64_t hash;
    uint64_t word;
    uint64_t payload_len;
};

/* A group of commits between its first append and its publication. */
struct stage {
    struct staged *entries;
    size_t count;
    size_t capacity;
    struct index words; /* of the first `indexed` entries, for deletes; without slots until one needs it */
    size_t indexed;
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

static rd_err append_one(rd_store *store, struct stage *stage, uint64_t hash, rd_span payload)
{
    struct entry entry;
    RD_TRY(appender_add(&store->appender, &store->file, hash, payload, &entry));
    stage->entries[stage->count++] = (struct staged){
        .hash = hash,
        .word = entry.trailer_off | WORD_VERIFIED | (entry.tombstone ? WORD_TOMBSTONE : 0),
        .payload_len = entry.tombstone ? 0 : payload.len,
    };
    return RD_OK;
}

static rd_err append_writes(rd_store *store, struct stage *stage, struct commit *commit)
{
    for (size_t i = 0; i < commit->count; i++)
        RD_TRY(append_one(store, stage, commit->items[i].key_hash, commit->items[i].payload));
    return RD_OK;
}

/* Bring the stage's own index up to its entries. Returns: RD_OK, RD_E_NOMEM. */
static rd_err stage_index(struct stage *stage)
{
    if (stage->count == 0)
        return RD_OK;
    if (stage->words.slots == NULL)
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
    return word != WORD_NONE ? word : index_find(&store->index, hash);
}

/* F-14: a tombstone for each key present before the call. */
static rd_err append_deletes(rd_store *store, struct stage *stage, struct commit *commit)
{
    RD_TRY(stage_index(stage)); /* once: a key named twice gets two */
    for (size_t i = 0; i < commit->count; i++) {
        if (commit->keys[i].cookie == RD_KEY_SKIP)
            continue;
        uint64_t word = newest_word(store, stage, commit->keys[i].hash);
        if (word == WORD_NONE || (word & WORD_TOMBSTONE) != 0)
            continue;
        RD_TRY(stage_reserve(stage, 1));
        RD_TRY(append_one(store, stage, commit->keys[i].hash, (rd_span){0}));
        commit->written.deleted_count++;
    }
    return RD_OK;
}

/* All that can fail for want of memory, before a byte is written. */
static rd_err prepare(rd_store *store, struct stage *stage, const struct commit *commit)
{
    for (size_t i = 0; commit->items != NULL && i < commit->count; i++)
        if (!payload_is_legal(commit->items[i].payload))
            return RD_E_PAYLOAD; /* F-13: one illegal payload and nothing is written */
    if (commit->items == NULL)
        return RD_OK; /* a delete touches only what the index has, and that is less than it names */
    RD_TRY(stage_reserve(stage, commit->count));
    if (index_has_room(&store->index, stage->count + commit->count))
        return RD_OK;
    pthread_rwlock_wrlock(&store->publish);
    rd_err err = index_reserve(&store->index, stage->count + commit->count);
    pthread_rwlock_unlock(&store->publish);
    return err;
}

/**
 * Take back what of a failed append reached the file, so that the next one goes where readers expect it. The appender
 * goes back first: what the group appended before is still to be published up to there, whether the cut succeeds or
 * not.
 */
static void cut_back(rd_store *store, uint64_t tail_off)
{
    RD_REQUIRE(appender_begin(&store->appender, tail_off) == RD_OK); /* it has its buffer */
    if (file_cut(&store->file, tail_off) != RD_OK)
        store->write_ended = true;
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
    rd_err err = commit->items != NULL ? append_writes(store, stage, commit) : append_deletes(store, stage, commit);
    if (err == RD_OK)
        err = appender_flush(&store->appender, &store->file);
    if (err != RD_OK) {
        stage_forget(stage, count_before);
        commit->written.deleted_count = 0;
        cut_back(store, tail_before);
        return err;
    }
    commit->written.tail_off = appender_tail(&store->appender);
    return RD_OK;
}

/* The bytes a superseded word stood for, to be taken off the live ones. */
static uint64_t live_len(const rd_store *store, uint64_t word)
{
    struct entry entry;
    return entry_parse(store->mapping->base, word_off(word), &entry) ? entry_payload_len(&entry) : 0;
}

static void publish_one(rd_store *store, const struct staged *staged)
{
    uint64_t before = index_set(&store->index, staged->hash, staged->word);
    if ((before & WORD_DAMAGED) != 0) {
        store->damaged_keys--; /* healed */
    } else if (before != WORD_NONE && (before & WORD_TOMBSTONE) == 0) {
        store->live_keys--;
        store->live_bytes -= live_len(store, before);
    }
    if ((staged->word & WORD_TOMBSTONE) == 0) {
        store->live_keys++;
        store->live_bytes += staged->payload_len;
    }
    store->entries++;
}

/* Make the stage visible at one instant. */
static rd_err publish(rd_store *store, struct stage *stage)
{
    uint64_t tail_off = appender_tail(&store->appender);
    struct mapping *grown = NULL;
    if (tail_off > store->mapping->reserved)
        RD_TRY(mapping_create(&store->file, tail_off, store->mapping->generation, store->mapping->layout, &grown));
    pthread_rwlock_wrlock(&store->publish);
    struct mapping *superseded = NULL;
    if (grown != NULL) {
        superseded = store->mapping;
        store->mapping = grown;
    }
    for (size_t i = 0; i < stage->count; i++)
        publish_one(store, &stage->entries[i]);
    store->tail_off = tail_off;
    pthread_rwlock_unlock(&store->publish);
    mapping_unpin(superseded, 1);
    return RD_OK;
}

/* Sync and publish what the group has appended. */
static void complete(rd_store *store, struct stage *stage, struct commit **group, size_t count)
{
    bool durable = store->options.sync == RD_SYNC_ALWAYS;
    uint64_t published = store->tail_off;
    rd_err err = RD_OK;
    if (stage->count > 0) {
        err = durable ? file_sync(&store->file) : RD_OK;
        if (err == RD_OK)
            err = publish(store, stage);
    }
    if (err == RD_E_SYNC)
        store->write_ended = true; /* the kernel may have dropped the pages: whether they survive is unknown */
    else if (err != RD_OK)
        cut_back(store, published);
    for (size_t i = 0; i < count; i++) {
        if (group[i]->err != RD_OK)
            continue;
        group[i]->err = err;
        group[i]->written.durable = durable;
    }
}

void store_commit(rd_store *store, struct commit **group, size_t count)
{
    struct stage stage = {0};
    pthread_mutex_lock(&store->write);
    rd_err begun = appender_begin(&store->appender, store->tail_off);
    for (size_t i = 0; i < count; i++) {
        group[i]->written = (rd_written){.tail_off = store->tail_off};
        group[i]->err = begun == RD_OK ? append_commit(store, &stage, group[i]) : begun;
    }
    complete(store, &stage, group, count);
    pthread_mutex_unlock(&store->write);
    index_fini(&stage.words);
    free(stage.entries);
}

static rd_err commit_alone(rd_store *store, struct commit *commit, rd_written *out_done)
{
    store_commit(store, &commit, 1);
    if (commit->err == RD_OK && out_done != NULL)
        *out_done = commit->written;
    return commit->err;
}

rd_err rd_store_batch_write(rd_store *store, const rd_write_item *items, size_t count, rd_written *out_done)
{
    static const rd_write_item none;
    struct commit commit = {.items = count > 0 ? items : &none, .count = count};
    return commit_alone(store, &commit, out_done);
}

rd_err rd_store_write_hash(rd_store *store, uint64_t key_hash, rd_span payload, rd_written *out_done)
{
    rd_write_item item = {.key_hash = key_hash, .payload = payload};
    return rd_store_batch_write(store, &item, 1, out_done);
}

rd_err rd_store_write(rd_store *store, rd_span key, rd_span payload, rd_written *out_done)
{
    return rd_store_write_hash(store, rd_hash(key), payload, out_done);
}

rd_err rd_store_delete(rd_store *store, rd_span key, rd_written *out_done)
{
    uint64_t hash = rd_hash(key);
    return rd_store_batch_delete(store, &hash, 1, out_done);
}

rd_err rd_store_batch_delete(rd_store *store, const uint64_t *key_hashes, size_t count, rd_written *out_done)
{
    rd_key *keys = calloc(count > 0 ? count : 1, sizeof(*keys));
    if (keys == NULL)
        return RD_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        keys[i].hash = key_hashes[i];
    struct commit commit = {.keys = keys, .count = count};
    rd_err err = commit_alone(store, &commit, out_done);
    free(keys);
    return err;
}

rd_err rd_store_sync(rd_store *store)
{
    if (!store->options.writable)
        return RD_E_READ_ONLY;
    pthread_mutex_lock(&store->write);
    rd_err err = store->write_ended ? RD_E_ENDED : file_sync(&store->file);
    if (err == RD_E_SYNC)
        store->write_ended = true;
    pthread_mutex_unlock(&store->write);
    return err;
}
