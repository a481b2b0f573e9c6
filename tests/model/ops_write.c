/* Writing: the model writes the same, and the tail must be where the format puts it. */
#include "run.h"

#include <stdlib.h>
#include <string.h>

#define BATCH_MAX 20

/* Mostly small; a few above the 64 KiB that opening checks, very few above a MiB, and the odd one of the smallest. */
static rd_span any_payload(void)
{
    static const uint8_t zeros[300];
    size_t pick = run_below(40000), len;
    if (pick < 2)
        len = ((size_t)1 << 20) + run_below(300000);
    else if (pick < 20)
        len = 65500 + run_below(40000);
    else if (pick < 600)
        len = 1 + run_below(6000);
    else
        len = 1 + run_below(pick % 4 == 0 ? 400 : 50);
    if (pick % 64 == 0)
        return (rd_span){zeros, 2 + len % 200}; /* F-09 */
    rd_span payload = {run.pool + run_below(POOL_LEN - len), len};
    return len == 1 && *(const uint8_t *)payload.data == 0 ? (rd_span){"\1", 1} : payload;
}

/* F-09: what the format can't hold. */
static rd_span illegal_payload(void)
{
    return run_chance(2) ? (rd_span){"", 0} : (rd_span){"\0", 1};
}

static size_t any_real_key(void)
{
    size_t key = run_below(KEY_COUNT);
    while (run.keys[key].hash_only)
        key = run_below(KEY_COUNT);
    return key;
}

static void write_one(struct side *side, size_t key, bool by_hash)
{
    rd_written written;
    bool legal = !run_chance(100);
    rd_span payload = legal ? any_payload() : illegal_payload();
    rd_err err = by_hash ? rd_store_write_hash(side->store, run.keys[key].hash, payload, &written)
                         : rd_store_write(side->store, run_key(key), payload, &written);
    if (!legal) {
        CHECK(err == RD_E_PAYLOAD, "an illegal payload: %s", rd_err_text(err));
        return;
    }
    CHECK_OK(err);
    side_wrote(side, key, payload);
    side_check_written(side, &written);
}

void op_write(struct side *side)
{
    write_one(side, any_real_key(), false);
}

void op_write_hash(struct side *side)
{
    write_one(side, run_below(KEY_COUNT), true);
}

void op_write_batch(struct side *side)
{
    rd_write_item items[BATCH_MAX];
    size_t keys[BATCH_MAX], count = run_below(BATCH_MAX + 1);
    for (size_t i = 0; i < count; i++) {
        keys[i] = run_below(KEY_COUNT);
        items[i] = (rd_write_item){run.keys[keys[i]].hash, any_payload()};
    }
    bool legal = count == 0 || !run_chance(30);
    if (!legal)
        items[run_below(count)].payload = illegal_payload();
    rd_written written;
    rd_err err = rd_store_batch_write(side->store, items, count, &written);
    if (!legal) {
        CHECK(err == RD_E_PAYLOAD, "a batch with an illegal payload: %s", rd_err_text(err));
        return;
    }
    CHECK_OK(err);
    for (size_t i = 0; i < count; i++)
        side_wrote(side, keys[i], items[i].payload);
    if (count > 0)
        side_check_written(side, &written);
}

/* F-14 */
void op_delete(struct side *side)
{
    rd_written written;
    size_t key = any_real_key();
    bool live = side_is_live(side, key);
    CHECK_OK(rd_store_delete(side->store, run_key(key), &written));
    CHECK(written.deleted_count == live, "%zu tombstones for a key that is %s", written.deleted_count,
          live ? "live" : "absent");
    if (!live)
        return;
    side_deleted(side, key);
    side_check_written(side, &written);
}

void op_delete_batch(struct side *side)
{
    uint64_t hashes[BATCH_MAX];
    size_t keys[BATCH_MAX], count = run_below(BATCH_MAX + 1), deleted = 0;
    bool live[KEY_COUNT];
    for (size_t i = 0; i < count; i++) {
        keys[i] = i > 0 && run_chance(5) ? keys[i - 1] : run_below(KEY_COUNT);
        hashes[i] = run.keys[keys[i]].hash;
        live[keys[i]] = side_is_live(side, keys[i]);
    }
    rd_written written;
    CHECK_OK(rd_store_batch_delete(side->store, hashes, count, &written));
    for (size_t i = 0; i < count; i++) {
        if (!live[keys[i]])
            continue;
        side_deleted(side, keys[i]);
        deleted++;
    }
    CHECK(written.deleted_count == deleted, "%zu tombstones, not %zu", written.deleted_count, deleted);
    if (deleted > 0)
        side_check_written(side, &written);
}

/* The value of `key`, in memory of its own: the image that holds it moves as it grows. */
static rd_span copy_value(const struct side *side, size_t key)
{
    rd_span value = side_value(side, key);
    uint8_t *copy = malloc(value.len);
    CHECK(copy != NULL, "no memory");
    memcpy(copy, value.data, value.len);
    return (rd_span){copy, value.len};
}

void op_rename(struct side *side)
{
    size_t from = any_real_key(), to = run_chance(20) ? from : any_real_key();
    bool live = side_is_live(side, from);
    rd_written written;
    rd_err err = run_chance(2) ? rd_store_rename(side->store, run_key(from), run_key(to), &written)
                               : rd_store_rename_hash(side->store, run.keys[from].hash, run.keys[to].hash, &written);
    if (from == to) {
        CHECK(err == RD_E_INVALID || (!live && err == RD_ABSENT), "a rename to itself: %s", rd_err_text(err));
        return;
    }
    CHECK(err == (live ? RD_OK : RD_ABSENT), "a rename of a key that is %s: %s", live ? "live" : "absent",
          rd_err_text(err));
    if (!live)
        return;
    rd_span value = copy_value(side, from);
    side_wrote(side, to, value);
    side_deleted(side, from);
    side_check_written(side, &written);
    free((void *)(uintptr_t)value.data);
}

static void copy_or_move(struct side *side, bool move)
{
    struct side *other = &run.sides[side == &run.sides[0]];
    struct side *target = run_chance(20) ? side : other;
    size_t key = run_below(KEY_COUNT);
    uint64_t hash = run.keys[key].hash;
    bool live = side_is_live(side, key);
    rd_written written;
    rd_err err = move ? rd_store_move_hash(side->store, hash, target->store, &written)
                      : rd_store_copy_hash(side->store, hash, target->store, &written);
    if (target == side) {
        CHECK(err == RD_E_INVALID, "a copy into the store itself: %s", rd_err_text(err));
        return;
    }
    CHECK(err == (live ? RD_OK : RD_ABSENT), "a copy of a key that is %s: %s", live ? "live" : "absent",
          rd_err_text(err));
    if (!live)
        return;
    side_wrote(target, key, side_value(side, key));
    CHECK(written.tail_off == target->image.len, "the target's tail");
    CHECK(written.durable == (move || target->options.sync == RD_SYNC_ALWAYS), "durable is %d", written.durable);
    if (move)
        side_deleted(side, key);
}

void op_copy(struct side *side)
{
    copy_or_move(side, false);
}

void op_move(struct side *side)
{
    copy_or_move(side, true);
}

/* In pieces; given up now and then (E-05). */
void op_stream(struct side *side)
{
    size_t key = run_below(KEY_COUNT);
    rd_span payload = run_chance(30) ? illegal_payload() : any_payload();
    rd_stream *stream = NULL;
    CHECK_OK(rd_stream_begin(side->store, run.keys[key].hash, &stream));
    for (size_t done = 0; done < payload.len;) {
        size_t left = payload.len - done, len = run_chance(3) ? left : 1 + run_below(left);
        CHECK_OK(rd_stream_append(stream, (rd_span){(const uint8_t *)payload.data + done, len}));
        done += len;
        if (run_chance(50)) {
            rd_stream_abort(stream);
            return;
        }
    }
    rd_written written;
    uint64_t size;
    uint32_t crc;
    rd_err err = rd_stream_commit(stream, &written, &size, &crc);
    if (payload.len == 0 || (payload.len == 1 && *(const uint8_t *)payload.data == 0)) {
        CHECK(err == RD_E_PAYLOAD, "an illegal stream: %s", rd_err_text(err));
        return;
    }
    CHECK_OK(err);
    CHECK(size == payload.len && crc == image_crc(payload.data, payload.len), "the stream's size or sum");
    side_wrote(side, key, payload);
    side_check_written(side, &written);
}

void op_sync(struct side *side)
{
    CHECK_OK(rd_store_sync(side->store));
}
