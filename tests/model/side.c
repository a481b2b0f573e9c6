#include "run.h"

#include <stdlib.h>
#include <string.h>

/* ---- What the model knows --------------------------------------------------------------------------------------- */

static const struct image_entry *newest(const struct side *side, size_t key)
{
    return side->newest[key] < 0 ? NULL : &side->image.entries[side->newest[key]];
}

bool side_is_live(const struct side *side, size_t key)
{
    const struct image_entry *entry = newest(side, key);
    return entry != NULL && !entry->tombstone;
}

rd_span side_value(const struct side *side, size_t key)
{
    return image_payload(&side->image, newest(side, key));
}

void side_wrote(struct side *side, size_t key, rd_span payload)
{
    side->newest[key] = (ptrdiff_t)side->image.count;
    image_write(&side->image, run.keys[key].hash, payload);
}

void side_deleted(struct side *side, size_t key)
{
    side->newest[key] = (ptrdiff_t)side->image.count;
    image_delete(&side->image, run.keys[key].hash);
}

void side_adopt(struct side *side)
{
    for (size_t key = 0; key < KEY_COUNT; key++)
        side->newest[key] = -1;
    for (size_t i = 0; i < side->image.count; i++) {
        ptrdiff_t key = run_key_of(side->image.entries[i].hash);
        if (key >= 0)
            side->newest[key] = (ptrdiff_t)i;
    }
}

/* ---- Checks ----------------------------------------------------------------------------------------------------- */

void side_check_written(const struct side *side, const rd_written *written)
{
    CHECK(written->tail_off == side->image.len, "the tail is %llu, not %zu", (unsigned long long)written->tail_off,
          side->image.len);
    CHECK(written->durable == (side->options.sync == RD_SYNC_ALWAYS), "durable is %d", written->durable);
}

static void check_meta(const struct side *side, size_t key, const rd_metadata *meta)
{
    const struct image_entry *entry = newest(side, key);
    CHECK(meta->key_hash == entry->hash && meta->prev_off == entry->prev_off && !meta->tombstone &&
              meta->checksum == image_le32(side->image.data + entry->trailer_off + 16),
          "the metadata of key %zu are not those of its newest entry", key);
}

void side_check_entry(const struct side *side, size_t key, rd_err err, const rd_entry *entry)
{
    if (!side_is_live(side, key)) {
        CHECK(err == RD_ABSENT, "key %zu is absent, but: %s", key, rd_err_text(err));
        return;
    }
    rd_span value = side_value(side, key);
    CHECK(err == RD_OK, "key %zu: %s", key, rd_err_text(err));
    CHECK(entry->payload.len == value.len && memcmp(entry->payload.data, value.data, value.len) == 0,
          "key %zu does not have its newest value of %zu bytes, but %zu others", key, value.len, entry->payload.len);
    check_meta(side, key, &entry->meta);
}

void side_check_file(const struct side *side)
{
    rd_span bytes = run_file(side->path);
    CHECK(bytes.len == side->image.len, "the file has %zu bytes, the model %zu", bytes.len, side->image.len);
    for (size_t i = 0; i < bytes.len; i++)
        if (((const uint8_t *)bytes.data)[i] != side->image.data[i])
            run_fail(__FILE__, __LINE__, "byte %zu of the file differs from the model", i);
    free((void *)(uintptr_t)bytes.data);
}

void side_check_info(struct side *side)
{
    rd_store_info info;
    uint64_t live = 0, bytes = 0, stored = 0;
    for (size_t key = 0; key < KEY_COUNT; key++) {
        if (!side_is_live(side, key))
            continue;
        size_t len = side_value(side, key).len;
        live++;
        bytes += len;
        stored += (len + IMAGE_TRAILER + 63) / 64 * 64;
    }
    CHECK_OK(rd_store_info_get(side->store, &info));
    CHECK(info.live_keys == live && rd_store_len(side->store) == live && rd_store_is_empty(side->store) == (live == 0),
          "%llu live keys, not %llu", (unsigned long long)info.live_keys, (unsigned long long)live);
    CHECK(info.live_bytes == bytes, "%llu live bytes, not %llu", (unsigned long long)info.live_bytes,
          (unsigned long long)bytes);
    CHECK(info.entries == side->image.count, "%llu entries, not %zu", (unsigned long long)info.entries,
          side->image.count);
    CHECK(info.tail_off == side->image.len && info.file_size == side->image.len, "tail or file size");
    CHECK(info.damaged_entries + info.damaged_ranges + info.unidentified_ranges + info.unread_bytes == 0,
          "damage, or unread bytes");
    CHECK(info.generation == side->generation, "generation %llu, not %llu", (unsigned long long)info.generation,
          (unsigned long long)side->generation);
    CHECK(info.writable == side->options.writable && info.file_state == RD_FILE_SAME, "writable or state");
    /* "about what a compaction would save": the last entry's padding may be counted or not */
    uint64_t saved = side->image.len > stored ? side->image.len - stored : 0;
    CHECK(info.reclaimable_bytes >= saved && info.reclaimable_bytes <= saved + 64, "%llu bytes reclaimable, not %llu",
          (unsigned long long)info.reclaimable_bytes, (unsigned long long)saved);
}

static int by_newest(const void *left, const void *right)
{
    ptrdiff_t a = *(const ptrdiff_t *)left, b = *(const ptrdiff_t *)right;
    return (a < b) - (a > b);
}

void side_check_iteration(struct side *side)
{
    ptrdiff_t live[KEY_COUNT];
    size_t count = 0, i = 0;
    rd_iter *iter = NULL;
    rd_entry entry = {0};
    for (size_t key = 0; key < KEY_COUNT; key++)
        if (side_is_live(side, key))
            live[count++] = side->newest[key];
    qsort(live, count, sizeof(live[0]), by_newest);
    CHECK_OK(rd_iter_create(side->store, &iter));
    for (rd_err err = rd_iter_next(iter, &entry); err != RD_ABSENT; err = rd_iter_next(iter, &entry), i++) {
        CHECK(i < count, "iteration gives more than the %zu live keys", count);
        CHECK(err == RD_OK, "iteration, entry %zu: %s", i, rd_err_text(err));
        ptrdiff_t key = run_key_of(entry.meta.key_hash);
        CHECK(key >= 0 && side->newest[key] == live[i], "iteration, entry %zu: another one", i);
        side_check_entry(side, (size_t)key, err, &entry);
    }
    CHECK(i == count, "iteration gives %zu of %zu live keys", i, count);
    rd_iter_destroy(iter);
}

/* ---- Entries that are kept -------------------------------------------------------------------------------------- */

static void held_release(struct held *held)
{
    if (held->copy == NULL)
        return;
    CHECK(memcmp(held->entry.payload.data, held->copy, held->entry.payload.len) == 0, "an entry that was kept changed");
    rd_entry_release(&held->entry);
    free(held->copy);
    held->copy = NULL;
}

void side_hold(struct side *side, rd_entry *entry)
{
    struct held *held = &side->held[run_below(HELD_MAX)];
    held_release(held);
    held->copy = malloc(entry->payload.len);
    CHECK(held->copy != NULL, "no memory");
    memcpy(held->copy, entry->payload.data, entry->payload.len);
    held->entry = *entry;
}

void side_release_all(struct side *side)
{
    for (size_t i = 0; i < HELD_MAX; i++)
        held_release(&side->held[i]);
}

/* ---- Open and close --------------------------------------------------------------------------------------------- */

void side_open(struct side *side, const rd_open_options *options)
{
    rd_fault fault;
    rd_err err = rd_store_open(side->path, options, &fault, &side->store);
    CHECK(err == RD_OK, "%s", fault.text);
    side->options = *options;
    side->generation = 1;
}

void side_close(struct side *side, bool sync)
{
    side_release_all(side);
    if (sync)
        CHECK_OK(rd_store_sync(side->store));
    rd_store_close(side->store);
    side->store = NULL;
    side_check_file(side);
}
