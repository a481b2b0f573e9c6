#include "base.h"
#include "guard.h"
#include "store_internal.h"

#define RESOLVE_STRETCH ((size_t)4096) /* keys between two looks at whether anybody still waits for them */

void reading_pin(const struct reading *reading, uint64_t tail_off, struct snapshot *out_snapshot)
{
    struct mapping *mapping = atomic_load(&reading->view->mapping); /* it reaches up to that tail at least */
    *out_snapshot = (struct snapshot){
        .mapping = mapping, .pin = mapping_pin(mapping, reading->reader->number), .tail_off = tail_off};
}

void store_snapshot(rd_store *store, struct snapshot *out_snapshot)
{
    struct reading reading = reading_begin(store);
    reading_pin(&reading, atomic_load(&reading.view->tail_off), out_snapshot);
    reading_end(&reading);
}

bool store_resolve(rd_store *store, rd_key *keys, size_t count, const atomic_bool *cancel,
                   struct snapshot *out_snapshot)
{
    struct reading reading = reading_begin(store);
    const struct view *view = reading.view;
    uint64_t tail_off = atomic_load(&view->tail_off);
    struct index_place places[PREFETCH_AHEAD]; /* a ring */
    for (size_t i = 0; i < count && i < PREFETCH_AHEAD; i++)
        places[i] = index_locate(&view->index, keys[i].hash);
    bool cancelled = false;
    for (size_t i = 0; i < count && !cancelled;) {
        for (size_t end = i + at_most(count - i, RESOLVE_STRETCH); i < end; i++) {
            struct index_place place = places[i % PREFETCH_AHEAD];
            if (count - i > PREFETCH_AHEAD)
                places[i % PREFETCH_AHEAD] = index_locate(&view->index, keys[i + PREFETCH_AHEAD].hash);
            keys[i].cookie = keys[i].cookie == RD_KEY_SKIP ? WORD_NONE : view_find(view, place, keys[i].hash, tail_off);
        }
        cancelled = cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed);
    }
    if (!cancelled)
        reading_pin(&reading, tail_off, out_snapshot);
    reading_end(&reading);
    return !cancelled;
}

/* One key. The pin comes before the look-up: what waits for a counter then waits for nothing else. */
static inline uint64_t resolve_one(rd_store *store, uint64_t hash, struct snapshot *out_snapshot)
{
    struct reading reading = reading_begin(store);
    uint64_t tail_off = atomic_load(&reading.view->tail_off);
    reading_pin(&reading, tail_off, out_snapshot);
    uint64_t word = view_find(reading.view, index_locate(&reading.view->index, hash), hash, tail_off);
    snapshot_prefetch(out_snapshot, word);
    reading_end(&reading);
    return word;
}

uint64_t store_word(rd_store *store, const struct snapshot *snapshot, uint64_t hash)
{
    struct reading reading = reading_begin(store);
    bool same = reading.view->generation == snapshot->mapping->generation;
    uint64_t word = same ? index_find(&reading.view->index, hash) : WORD_NONE;
    reading_end(&reading);
    return word;
}

bool store_flag(rd_store *store, const struct snapshot *snapshot, uint64_t hash, uint64_t word, uint64_t flag)
{
    struct reading reading = reading_begin(store);
    bool flagged =
        reading.view->generation == snapshot->mapping->generation && index_flag(&reading.view->index, hash, word, flag);
    reading_end(&reading);
    return flagged;
}

bool store_was_cut(rd_store *store, const struct snapshot *snapshot, uint64_t end_off)
{
    uint64_t bytes;
    struct reading reading = reading_begin(store);
    bool told = reading.view->generation == snapshot->mapping->generation &&
                file_size(&(struct file){.fd = reading.view->fd}, &bytes) == RD_OK;
    reading_end(&reading);
    return told && bytes < end_off;
}

static bool must_check(const rd_store *store, uint64_t word)
{
    switch (store->options.verify) {
    case RD_VERIFY_ALWAYS: return true;
    case RD_VERIFY_FIRST: return (word & WORD_VERIFIED) == 0;
    case RD_VERIFY_OFF: return false;
    }
    return true;
}

/* ---- an entry of a snapshot ---- */

struct relinked {
    const uint8_t *base;
    const struct damage *damage;
    struct entry entry;
    bool parsed;
};

static void relinked_leaf(void *argument)
{
    struct relinked *relinked = argument;
    relinked->parsed = entry_parse_relinked(relinked->base, relinked->damage->end_off - RD_TRAILER_SIZE,
                                            relinked->damage->begin_off, &relinked->entry);
}

rd_err snapshot_entry(const struct snapshot *snapshot, uint64_t trailer_off, struct entry *out_entry)
{
    const uint8_t *base = snapshot->mapping->base;
    const struct damage *damage = layout_find(snapshot->mapping->layout, trailer_off + RD_TRAILER_SIZE);
    if (damage == NULL)
        return guard_parse(base, trailer_off, out_entry);
    if (damage->kind != RD_DAMAGE_LINK)
        return RD_E_DAMAGED;
    struct relinked relinked = {.base = base, .damage = damage};
    if (!guard_run(base, (size_t)damage->end_off, relinked_leaf, &relinked))
        return RD_E_TRUNCATED;
    if (!relinked.parsed)
        return RD_E_DAMAGED;
    *out_entry = relinked.entry;
    return RD_OK;
}

rd_err snapshot_walk(const struct snapshot *snapshot, uint64_t *end_off, struct entry *out_entry,
                     const struct damage **out_damage)
{
    const struct damage *damage;
    while ((damage = layout_find(snapshot->mapping->layout, *end_off)) != NULL && damage->kind != RD_DAMAGE_LINK) {
        *end_off = damage->begin_off;
        if (damage->kind == DAMAGE_TORN)
            continue;
        *out_damage = damage;
        return RD_OK;
    }
    if (*end_off == 0)
        return RD_ABSENT;
    if (*end_off < RD_ENTRY_MIN)
        return RD_E_DAMAGED;
    RD_TRY(snapshot_entry(snapshot, *end_off - RD_TRAILER_SIZE, out_entry));
    *end_off = out_entry->prev_off;
    *out_damage = NULL;
    return RD_OK;
}

rd_err snapshot_check(const struct snapshot *snapshot, const struct entry *entry, const atomic_bool *cancel)
{
    const uint8_t *base = snapshot->mapping->base;
    uint32_t crc = 0;
    for (uint64_t at = entry->start_off; at < entry->trailer_off;) {
        if (cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed))
            return RD_E_CANCELLED;
        uint64_t left = entry->trailer_off - at;
        size_t slice = (size_t)(left < INLINE_CHECK_MAX ? left : INLINE_CHECK_MAX);
        if (!guard_crc(crc, base + at, slice, &crc))
            return RD_E_TRUNCATED;
        at += slice;
    }
    return crc == entry->crc ? RD_OK : RD_E_DAMAGED;
}

struct trailers_job {
    const struct snapshot *snapshot;
    const rd_key *keys;
    size_t count;
    struct trailer *trailers;
};

static bool has_value(uint64_t word)
{
    return word != WORD_NONE && (word & (WORD_TOMBSTONE | WORD_DAMAGED)) == 0;
}

static void trailers_leaf(void *argument)
{
    const struct trailers_job *job = argument;
    const struct mapping *mapping = job->snapshot->mapping;
    bool damaged = mapping->layout != NULL && mapping->layout->damage_count > 0;
    for (size_t i = 0; i < job->count; i++) {
        uint64_t word = job->keys[i].cookie;
        struct trailer *trailer = &job->trailers[i];
        trailer->known = has_value(word) &&
                         (!damaged || layout_find(mapping->layout, word_off(word) + RD_TRAILER_SIZE) == NULL) &&
                         entry_parse(mapping->base, word_off(word), &trailer->entry);
    }
}

void snapshot_trailers(const struct snapshot *snapshot, const rd_key *keys, size_t count, size_t ahead,
                       struct trailer *out_trailers)
{
    struct trailers_job job = {.snapshot = snapshot, .keys = keys, .count = count, .trailers = out_trailers};
    for (size_t i = 0; i < ahead; i++)
        snapshot_prefetch(snapshot, keys[count + i].cookie);
    if (guard_run(snapshot->mapping->base, (size_t)snapshot->tail_off, trailers_leaf, &job))
        return;
    for (size_t i = 0; i < count; i++)
        out_trailers[i].known = false;
}

uint64_t store_check_len(const rd_store *store, const struct snapshot *snapshot, uint64_t word,
                         const struct trailer *trailer)
{
    struct entry entry;
    if (!has_value(word) || !must_check(store, word))
        return 0;
    if (trailer != NULL && trailer->known)
        return entry_payload_len(&trailer->entry);
    return snapshot_entry(snapshot, word_off(word), &entry) == RD_OK ? entry_payload_len(&entry) : 0;
}

rd_metadata metadata_of(const struct entry *entry)
{
    return (rd_metadata){.key_hash = entry->key_hash,
                         .prev_off = entry->prev_off,
                         .checksum = entry->crc,
                         .tombstone = entry->tombstone};
}

/* The word with the flags it has got since it was resolved. */
static uint64_t refresh_word(rd_store *store, const struct snapshot *snapshot, uint64_t hash, uint64_t word)
{
    uint64_t now = store_word(store, snapshot, hash);
    return word_off(now) == word_off(word) ? now : word;
}

/* A payload fails: note it in the index, for the very entry that was checked, and in the figures. `entry` is NULL where
   nothing is left of it to be measured. */
static void flag_damaged(rd_store *store, const struct snapshot *snapshot, uint64_t hash, uint64_t word,
                         const struct entry *entry)
{
    const struct figures more = {.live_keys = (uint64_t)-1,
                                 .live_bytes = entry != NULL ? 0 - entry_payload_len(entry) : 0,
                                 .live_stored = entry != NULL ? 0 - entry_stored_len(entry) : 0,
                                 .damaged_keys = 1};
    struct reading reading = reading_begin(store);
    bool flagged = reading.view->generation == snapshot->mapping->generation &&
                   view_flag(reading.view, hash, word, WORD_DAMAGED, &more);
    reading_end(&reading);
    if (flagged)
        upkeep_recover(store->upkeep); /* its link was trusted: what that hid is to appear */
}

/* E-10: check as the options say, unless that was done since the word was resolved. */
static rd_err check_word(rd_store *store, const struct snapshot *snapshot, const struct entry *entry, uint64_t word,
                         const atomic_bool *cancel)
{
    /* the zeros of such a cut come from a trailer's end: where they reach the link, which says where the payload
       starts, the CRC is gone */
    if (entry->crc == 0 && store_was_cut(store, snapshot, entry_end(entry)))
        return RD_E_TRUNCATED;
    if (!must_check(store, word))
        return RD_OK;
    word = refresh_word(store, snapshot, entry->key_hash, word);
    if ((word & WORD_DAMAGED) != 0)
        return RD_E_DAMAGED;
    if (!must_check(store, word))
        return RD_OK;
    rd_err err = snapshot_check(snapshot, entry, cancel);
    if (err == RD_E_DAMAGED && store_was_cut(store, snapshot, entry_end(entry)))
        return RD_E_TRUNCATED;
    if (err == RD_E_DAMAGED)
        flag_damaged(store, snapshot, entry->key_hash, word, entry);
    else if (err == RD_OK && (word & WORD_VERIFIED) == 0)
        store_flag(store, snapshot, entry->key_hash, word, WORD_VERIFIED);
    return err;
}

static rd_span payload_of(const struct snapshot *snapshot, const struct entry *entry)
{
    if (entry->tombstone)
        return (rd_span){0}; /* E-11 */
    return (rd_span){.data = snapshot->mapping->base + entry->start_off, .len = (size_t)entry_payload_len(entry)};
}

/* I-13: what a word names must still be an entry of its hash: the file may have changed under us, or since its snapshot
   index was made. */
static rd_err load_entry(rd_store *store, const struct snapshot *snapshot, uint64_t hash, uint64_t word,
                         struct entry *out_entry)
{
    rd_err err = snapshot_entry(snapshot, word_off(word), out_entry);
    if (err == RD_OK && out_entry->key_hash != hash)
        err = RD_E_DAMAGED;
    if (err != RD_E_DAMAGED)
        return err;
    if (store_was_cut(store, snapshot, word_off(word) + RD_TRAILER_SIZE))
        return RD_E_TRUNCATED;
    word = refresh_word(store, snapshot, hash, word);
    if ((word & WORD_DAMAGED) == 0)
        flag_damaged(store, snapshot, hash, word, NULL);
    return err;
}

rd_err store_load(rd_store *store, const struct snapshot *snapshot, uint64_t hash, uint64_t word,
                  const struct trailer *trailer, struct wanted wanted, const atomic_bool *cancel, rd_span *out_payload,
                  rd_metadata *out_meta)
{
    if (word == WORD_NONE || (word & WORD_TOMBSTONE) != 0)
        return RD_ABSENT;
    out_meta->key_hash = hash;
    if ((word & WORD_DAMAGED) != 0)
        return RD_E_DAMAGED;
    struct entry looked_at;
    const struct entry *entry = &looked_at;
    if (trailer != NULL && trailer->known && trailer->entry.key_hash == hash)
        entry = &trailer->entry;
    else
        RD_TRY(load_entry(store, snapshot, hash, word, &looked_at));
    if (entry->tombstone)
        return RD_ABSENT; /* whatever a forged index says of it */
    *out_meta = metadata_of(entry);
    if (wanted.no_payload) {
        *out_payload = (rd_span){0};
        return RD_OK;
    }
    if (wanted.payload_max > 0 && entry_payload_len(entry) > wanted.payload_max) {
        *out_payload = (rd_span){.len = (size_t)entry_payload_len(entry)};
        return RD_E_TOO_LARGE;
    }
    RD_TRY(check_word(store, snapshot, entry, word, cancel));
    *out_payload = payload_of(snapshot, entry);
    return RD_OK;
}

/* The newest entry of the snapshot. */
static rd_err last_entry(const struct snapshot *snapshot, struct entry *out_entry)
{
    if (snapshot->tail_off == 0)
        return RD_ABSENT;
    if (snapshot->tail_off < RD_ENTRY_MIN)
        return RD_E_DAMAGED;
    return snapshot_entry(snapshot, snapshot->tail_off - RD_TRAILER_SIZE, out_entry);
}

uint64_t store_last_word(rd_store *store, const struct snapshot *snapshot)
{
    struct entry entry;
    if (last_entry(snapshot, &entry) != RD_OK)
        return WORD_NONE;
    return refresh_word(store, snapshot, entry.key_hash, entry.trailer_off);
}

rd_err store_load_last(rd_store *store, const struct snapshot *snapshot, const atomic_bool *cancel,
                       rd_span *out_payload, rd_metadata *out_meta)
{
    struct entry entry;
    RD_TRY(last_entry(snapshot, &entry));
    /* no slot vouches for what this trailer says, and it is the first that a cut inside a page makes zeros of */
    if (store_was_cut(store, snapshot, entry_end(&entry)))
        return RD_E_TRUNCATED;
    *out_meta = metadata_of(&entry);
    RD_TRY(check_word(store, snapshot, &entry, entry.trailer_off, cancel));
    *out_payload = payload_of(snapshot, &entry);
    return RD_OK;
}

/* ---- the synchronous reader: the same steps, one pin an entry ---------------------------------------------------- */

void rd_entry_release(rd_entry *entry)
{
    pin_return(entry->pin, 1);
    *entry = (rd_entry){0};
}

/* Read one word into an entry; the entry takes over the snapshot's pin on success. */
static rd_err entry_from(rd_err err, struct snapshot *snapshot, rd_entry *entry, rd_entry *out_entry)
{
    if (err != RD_OK) {
        snapshot_release(snapshot);
        return err;
    }
    entry->pin = snapshot->pin;
    *out_entry = *entry;
    return RD_OK;
}

/* The most common case: the word of a value that was checked, and the entry that it names. */
static inline bool is_plain(const rd_store *store, uint64_t hash, uint64_t word, const struct entry *entry)
{
    return !must_check(store, word) && entry->key_hash == hash && entry->crc != 0 && !entry->tombstone;
}

/* Field by field: what was written in parts can't be read whole before all of it has reached the cache, and no other
   key would be looked up until then. */
static inline void put_entry(const struct snapshot *snapshot, const struct entry *entry, rd_entry *out_entry)
{
    out_entry->payload.data = snapshot->mapping->base + entry->start_off;
    out_entry->payload.len = (size_t)entry_payload_len(entry);
    out_entry->meta.key_hash = entry->key_hash;
    out_entry->meta.prev_off = entry->prev_off;
    out_entry->meta.checksum = entry->crc;
    out_entry->meta.tombstone = false;
    out_entry->pin = snapshot->pin;
}

rd_err rd_store_read_hash(rd_store *store, uint64_t key_hash, rd_entry *out_entry)
{
    struct snapshot snapshot;
    uint64_t word = resolve_one(store, key_hash, &snapshot);
    struct entry plain;
    const struct layout *layout = snapshot.mapping->layout;
    if (has_value(word) && (layout == NULL || layout->damage_count == 0) &&
        guard_parse(snapshot.mapping->base, word_off(word), &plain) == RD_OK &&
        is_plain(store, key_hash, word, &plain)) {
        put_entry(&snapshot, &plain, out_entry);
        return RD_OK;
    }
    rd_entry entry = {0};
    rd_err err =
        store_load(store, &snapshot, key_hash, word, NULL, (struct wanted){0}, NULL, &entry.payload, &entry.meta);
    return entry_from(err, &snapshot, &entry, out_entry);
}

rd_err rd_store_read(rd_store *store, rd_span key, rd_entry *out_entry)
{
    return rd_store_read_hash(store, rd_hash(key), out_entry);
}

rd_err rd_store_read_last(rd_store *store, rd_entry *out_entry)
{
    struct snapshot snapshot;
    rd_entry entry = {0};
    store_snapshot(store, &snapshot);
    rd_err err = store_load_last(store, &snapshot, NULL, &entry.payload, &entry.meta);
    return entry_from(err, &snapshot, &entry, out_entry);
}

rd_err rd_store_metadata_hash(rd_store *store, uint64_t key_hash, rd_metadata *out_meta)
{
    struct snapshot snapshot;
    rd_span payload;
    rd_metadata meta;
    uint64_t word = resolve_one(store, key_hash, &snapshot);
    rd_err err =
        store_load(store, &snapshot, key_hash, word, NULL, (struct wanted){.no_payload = true}, NULL, &payload, &meta);
    snapshot_release(&snapshot);
    if (err == RD_OK)
        *out_meta = meta;
    return err;
}

rd_err rd_store_metadata(rd_store *store, rd_span key, rd_metadata *out_meta)
{
    return rd_store_metadata_hash(store, rd_hash(key), out_meta);
}

rd_err rd_store_exists_hash(rd_store *store, uint64_t key_hash)
{
    rd_metadata meta;
    return rd_store_metadata_hash(store, key_hash, &meta);
}

rd_err rd_store_exists(rd_store *store, rd_span key)
{
    return rd_store_exists_hash(store, rd_hash(key));
}

/* Resolve `keys` at one instant and give each live item a pin of its own. */
static void batch_read(rd_store *store, rd_key *keys, size_t count, rd_batch_item *out_items)
{
    struct snapshot snapshot;
    struct trailer trailers[TRAILERS_MAX];
    size_t live = 0;
    (void)store_resolve(store, keys, count, NULL, &snapshot);
    snapshot_trailers(&snapshot, keys, 0, at_most(count, TRAILERS_MAX), trailers);
    for (size_t i = 0; i < count; i++) {
        if (i % TRAILERS_MAX == 0) {
            size_t now = at_most(count - i, TRAILERS_MAX);
            snapshot_trailers(&snapshot, keys + i, now, at_most(count - i - now, TRAILERS_MAX), trailers);
        }
        rd_batch_item *item = &out_items[i];
        const struct trailer *trailer = &trailers[i % TRAILERS_MAX];
        if (trailer->known && is_plain(store, keys[i].hash, keys[i].cookie, &trailer->entry)) {
            item->err = RD_OK;
            put_entry(&snapshot, &trailer->entry, &item->entry);
            live++;
            continue;
        }
        *item = (rd_batch_item){0};
        item->err = store_load(store, &snapshot, keys[i].hash, keys[i].cookie, trailer, (struct wanted){0}, NULL,
                               &item->entry.payload, &item->entry.meta);
        if (item->err == RD_OK) {
            item->entry.pin = snapshot.pin;
            live++;
        } else {
            item->entry = (rd_entry){0};
        }
    }
    if (live > 0)
        pin_more(snapshot.pin, live);
    snapshot_release(&snapshot);
}

void rd_batch_release(rd_batch_item *items, size_t count)
{
    struct pin *pin = NULL;
    size_t held = 0; /* of `pin` */
    for (size_t i = 0; i < count; i++) {
        struct pin *next = items[i].entry.pin;
        items[i].entry = (rd_entry){0};
        if (next == NULL)
            continue;
        if (next != pin) {
            pin_return(pin, held);
            pin = next;
            held = 0;
        }
        held++;
    }
    pin_return(pin, held);
}

static rd_key *keys_create(size_t count)
{
    return count > SIZE_MAX / sizeof(rd_key) ? NULL : malloc((count > 0 ? count : 1) * sizeof(rd_key));
}

rd_err rd_store_batch_read(rd_store *store, const rd_span *keys, size_t count, rd_batch_item *out_items)
{
    rd_key *resolved = keys_create(count);
    if (resolved == NULL)
        return RD_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        resolved[i] = (rd_key){.hash = rd_hash(keys[i])};
    batch_read(store, resolved, count, out_items);
    free(resolved);
    return RD_OK;
}

rd_err rd_store_batch_read_hashed(rd_store *store, const uint64_t *key_hashes, const rd_span *keys, size_t count,
                                  rd_batch_item *out_items)
{
    rd_key *resolved = keys_create(count);
    if (resolved == NULL)
        return RD_E_NOMEM;
    for (size_t i = 0; i < count; i++) {
        bool mismatch = keys != NULL && rd_hash(keys[i]) != key_hashes[i]; /* F-15 */
        resolved[i] = (rd_key){.hash = key_hashes[i], .cookie = mismatch ? RD_KEY_SKIP : 0};
    }
    batch_read(store, resolved, count, out_items);
    free(resolved);
    return RD_OK;
}
