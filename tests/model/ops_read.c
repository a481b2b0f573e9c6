/* Reading: every answer is the model's. */
#include "run.h"

#include <stdlib.h>
#include <string.h>

#define BATCH_MAX 40

static size_t any_key(void)
{
    return run_below(KEY_COUNT);
}

static size_t any_real_key(void)
{
    size_t key = any_key();
    while (run.keys[key].hash_only)
        key = any_key();
    return key;
}

static void check_present(const struct side *side, size_t key, rd_err err)
{
    rd_err want = side_is_live(side, key) ? RD_OK : RD_ABSENT;
    CHECK(err == want, "key %zu: %s, not %s", key, rd_err_text(err), rd_err_text(want));
}

void op_read(struct side *side)
{
    size_t key = any_real_key();
    rd_entry entry = {0};
    rd_metadata meta = {0};
    rd_err err = rd_store_read(side->store, run_key(key), &entry);
    side_check_entry(side, key, err, &entry);
    check_present(side, key, rd_store_exists(side->store, run_key(key)));
    rd_err meta_err = rd_store_metadata(side->store, run_key(key), &meta);
    check_present(side, key, meta_err);
    CHECK(err != RD_OK || (meta.prev_off == entry.meta.prev_off && meta.checksum == entry.meta.checksum),
          "key %zu has two metadata", key);
    rd_entry_release(&entry);
}

void op_read_hash(struct side *side)
{
    size_t key = any_key();
    uint64_t hash = run.keys[key].hash;
    rd_entry entry = {0};
    rd_metadata meta = {0};
    rd_err err = rd_store_read_hash(side->store, hash, &entry);
    side_check_entry(side, key, err, &entry);
    check_present(side, key, rd_store_exists_hash(side->store, hash));
    check_present(side, key, rd_store_metadata_hash(side->store, hash, &meta));
    CHECK(err != RD_OK || (meta.prev_off == entry.meta.prev_off && meta.checksum == entry.meta.checksum),
          "key %zu has two metadata", key);
    rd_entry_release(&entry);
}

void op_hold(struct side *side)
{
    size_t key = any_key();
    rd_entry entry = {0};
    rd_err err = rd_store_read_hash(side->store, run.keys[key].hash, &entry);
    side_check_entry(side, key, err, &entry);
    if (err == RD_OK)
        side_hold(side, &entry);
}

static void check_items(const struct side *side, const size_t *keys, size_t count, rd_batch_item *items)
{
    for (size_t i = 0; i < count; i++) {
        side_check_entry(side, keys[i], items[i].err, &items[i].entry);
        rd_entry_release(&items[i].entry);
    }
}

void op_read_batch(struct side *side)
{
    size_t keys[BATCH_MAX], count = run_below(BATCH_MAX + 1);
    rd_span spans[BATCH_MAX];
    rd_batch_item items[BATCH_MAX];
    for (size_t i = 0; i < count; i++) {
        keys[i] = any_real_key();
        spans[i] = run_key(keys[i]);
    }
    CHECK_OK(rd_store_batch_read(side->store, spans, count, items));
    check_items(side, keys, count, items);
}

/* By hash; a key in hand whose hash is another is absent (F-15). */
void op_read_hashed(struct side *side)
{
    size_t keys[BATCH_MAX], count = run_below(BATCH_MAX + 1);
    uint64_t hashes[BATCH_MAX];
    rd_span spans[BATCH_MAX];
    rd_batch_item items[BATCH_MAX];
    bool named = run_chance(2);
    bool wrong[BATCH_MAX];
    for (size_t i = 0; i < count; i++) {
        keys[i] = named ? any_real_key() : any_key();
        wrong[i] = named && run_chance(4);
        hashes[i] = run.keys[keys[i]].hash;
        spans[i] = run_key(keys[i]);
        if (wrong[i])
            hashes[i] ^= UINT64_C(1) << run_below(64);
    }
    CHECK_OK(rd_store_batch_read_hashed(side->store, hashes, named ? spans : NULL, count, items));
    for (size_t i = 0; i < count; i++) {
        if (wrong[i])
            CHECK(items[i].err == RD_ABSENT, "a key that does not have its hash: %s", rd_err_text(items[i].err));
        else
            side_check_entry(side, keys[i], items[i].err, &items[i].entry);
        rd_entry_release(&items[i].entry);
    }
}

void op_read_last(struct side *side)
{
    rd_entry entry = {0};
    rd_err err = rd_store_read_last(side->store, &entry);
    if (side->image.count == 0) {
        CHECK(err == RD_ABSENT, "the last of no entries: %s", rd_err_text(err));
        return;
    }
    const struct image_entry *last = &side->image.entries[side->image.count - 1];
    rd_span payload = image_payload(&side->image, last);
    CHECK(err == RD_OK && entry.meta.key_hash == last->hash && entry.meta.prev_off == last->prev_off &&
              entry.meta.tombstone == last->tombstone,
          "the last entry is another: %s", rd_err_text(err));
    CHECK(last->tombstone
              ? entry.payload.len == 0
              : entry.payload.len == payload.len && memcmp(entry.payload.data, payload.data, payload.len) == 0,
          "the last entry's payload is another");
    rd_entry_release(&entry);
}

void op_iterate(struct side *side)
{
    side_check_iteration(side);
}

void op_info(struct side *side)
{
    uint64_t bytes;
    side_check_info(side);
    CHECK_OK(rd_store_file_size(side->store, &bytes));
    CHECK(bytes == side->image.len, "file size %llu", (unsigned long long)bytes);
}
