/*
 * Damage while a store is closed: bits flipped, sectors lost, the end cut off or lengthened, links and hashes changed.
 * The oracle judges what is served, read-only first, then after more was written behind the damage; in the end the
 * store is repaired into a new one, which takes its place.
 */
#include "oracle.h"
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Damaging --------------------------------------------------------------------------------------------------- */

static void damage_entry(struct image *bytes, const struct image *image)
{
    const struct image_entry *entry = &image->entries[run_below(image->count)];
    size_t len = image_entry_end(entry) - entry->prev_off;
    size_t place = run_chance(2) ? entry->trailer_off + run_below(IMAGE_TRAILER) : entry->prev_off + run_below(len);
    if (place >= bytes->len)
        return;
    if (run_chance(2))
        bytes->data[place] ^= (uint8_t)(1 << run_below(8));
    else
        bytes->data[place] = (uint8_t)run_random();
}

static void damage_range(struct image *bytes)
{
    size_t from = run_below(bytes->len), len = run_chance(2) ? 512 : 1 + run_below(3000);
    if (len == 512)
        from -= from % 512;
    if (len > bytes->len - from)
        len = bytes->len - from;
    if (run_chance(2))
        memset(bytes->data + from, run_chance(2) ? 0 : 0xff, len);
    else
        memcpy(bytes->data + from, run.pool + run_below(POOL_LEN - len), len);
}

static void damage_end(struct image *bytes)
{
    size_t len = 1 + run_below(run_chance(3) ? 3000 : 64);
    switch (run_below(4)) {
    case 0: bytes->len -= len < bytes->len ? len : bytes->len; break;
    case 1: image_append_raw(bytes, run.pool + run_below(POOL_LEN - len), len); break;
    default:
        while (len-- > 0)
            image_append_raw(bytes, "", 1);
        break;
    }
}

/* A link or a hash becomes another entry's. */
static void damage_trailer(struct image *bytes, const struct image *image)
{
    const struct image_entry *to = &image->entries[run_below(image->count)];
    const struct image_entry *from = &image->entries[run_below(image->count)];
    size_t field = run_below(2) * 8;
    if (image_entry_end(to) <= bytes->len && image_entry_end(from) <= bytes->len)
        memmove(bytes->data + to->trailer_off + field, bytes->data + from->trailer_off + field, 8);
}

static void damage(struct image *bytes, const struct image *image)
{
    image_append_raw(bytes, image->data, image->len);
    for (size_t count = 1 + run_below(4); count > 0 && bytes->len > 0; count--) {
        switch (run_below(8)) {
        case 0: damage_end(bytes); break;
        case 1: damage_range(bytes); break;
        case 2: damage_trailer(bytes, image); break;
        default: damage_entry(bytes, image); break;
        }
    }
}

/* ---- Judging ---------------------------------------------------------------------------------------------------- */

static rd_store *open_judged(const struct side *side, bool writable, const struct image *image, rd_span bytes)
{
    const rd_open_options options = {.writable = writable, .sync = RD_SYNC_NONE, .verify = (rd_verify)run_below(3)};
    rd_store *store = NULL;
    rd_fault fault;
    rd_verified verified;
    rd_err err = rd_store_open(side->path, &options, &fault, &store);
    if (err != RD_OK) {
        const char *why = oracle_judge_refusal(image, bytes, err);
        CHECK(why == NULL, "%s (%s)", why, fault.text);
        return NULL;
    }
    CHECK_OK(rd_store_verify(store, 1 + run_below(2), NULL, NULL, &verified));
    return store;
}

static void check_untouched(const struct side *side, rd_span bytes)
{
    rd_span left = run_file(side->path);
    CHECK(left.len == bytes.len && memcmp(left.data, bytes.data, left.len) == 0, "reading changed the file");
    free((void *)(uintptr_t)left.data);
}

struct answers {
    rd_err errs[KEY_COUNT];
    rd_entry entries[KEY_COUNT];
};

static void read_keys(rd_store *store, struct answers *answers)
{
    memset(answers, 0, sizeof(*answers));
    for (size_t key = 0; key < KEY_COUNT; key++)
        answers->errs[key] = rd_store_read_hash(store, run.keys[key].hash, &answers->entries[key]);
}

static void release_keys(struct answers *answers)
{
    for (size_t key = 0; key < KEY_COUNT; key++)
        rd_entry_release(&answers->entries[key]);
}

/* ---- Writing behind damage -------------------------------------------------------------------------------------- */

/* A damaged key is healed by a write or a delete; a store with damage is not compacted, nor its damaged keys copied. */
static void heal(rd_store *store, size_t key)
{
    rd_written written;
    rd_entry entry = {0};
    uint64_t hash = run.keys[key].hash;
    rd_err err = rd_store_rename_hash(store, hash, ~hash, &written);
    CHECK(err == RD_E_DAMAGED, "a rename of a damaged key: %s", rd_err_text(err));
    if (run_chance(2)) {
        CHECK_OK(rd_store_batch_delete(store, &hash, 1, &written));
        CHECK(written.deleted_count == 1, "a damaged key's deletion wrote %zu tombstones", written.deleted_count);
        err = rd_store_read_hash(store, hash, &entry);
        CHECK(err == RD_ABSENT, "a damaged key after its deletion: %s", rd_err_text(err));
        return;
    }
    CHECK_OK(rd_store_write_hash(store, hash, (rd_span){"healed", 6}, &written));
    CHECK_OK(rd_store_read_hash(store, hash, &entry));
    CHECK(entry.payload.len == 6 && memcmp(entry.payload.data, "healed", 6) == 0, "a healed key has another value");
    rd_entry_release(&entry);
}

static void write_behind(struct side *side, const struct image *image, rd_span bytes)
{
    struct answers before;
    rd_store_info info;
    rd_compacted compacted;
    rd_store *store = open_judged(side, true, image, bytes);
    CHECK(store != NULL, "what opened for reading does not open for writing");
    CHECK_OK(rd_store_info_get(store, &info));
    if (info.damaged_entries > 0) {
        rd_err err = rd_store_compact(store, NULL, NULL, &compacted);
        CHECK(err == RD_E_DAMAGED, "compaction of a damaged store: %s", rd_err_text(err));
    }
    read_keys(store, &before);
    for (size_t key = 0; key < KEY_COUNT; key++)
        if (before.errs[key] == RD_E_DAMAGED)
            heal(store, key);
    release_keys(&before);
    CHECK_OK(rd_store_sync(store));
    rd_store_close(store);
}

/* ---- Repairing -------------------------------------------------------------------------------------------------- */

struct notes {
    uint64_t written, left_out;
};

static void take_note(void *arg, uint64_t key_hash, bool written)
{
    struct notes *notes = arg;
    (void)key_hash;
    notes->written += written;
    notes->left_out += !written;
}

/* Each key of the repaired store is as the damaged one has it; a damaged one may have an older version if that was
   asked for. */
static void check_repaired(const struct answers *from, rd_store *target, bool older)
{
    struct answers to;
    read_keys(target, &to);
    for (size_t key = 0; key < KEY_COUNT; key++) {
        rd_err err = from->errs[key], got = to.errs[key];
        rd_span was = from->entries[key].payload, is = to.entries[key].payload;
        if (err == RD_E_DAMAGED)
            CHECK(got == RD_ABSENT || (older && got == RD_OK), "key %zu, damaged, is repaired to: %s", key,
                  rd_err_text(got));
        else
            CHECK(got == err && was.len == is.len && (is.len == 0 || memcmp(was.data, is.data, is.len) == 0),
                  "key %zu changed with the repair: %s", key, rd_err_text(got));
    }
    release_keys(&to);
}

/* Repair the damaged file into another, put that in its place, and take it for the model. */
static void repair(struct side *side)
{
    const rd_open_options reading = {.verify = RD_VERIFY_FIRST};
    const rd_open_options making = {.writable = true, .create = true, .sync = RD_SYNC_NONE};
    char path[FOLDER_MAX + 40];
    rd_store *store = NULL, *target = NULL;
    struct answers from;
    struct notes notes = {0};
    rd_verified verified;
    rd_repaired repaired;
    rd_store_info info;
    bool older = run_chance(2);
    (void)snprintf(path, sizeof(path), "%s.new", side->path);
    CHECK_OK(rd_store_open(side->path, &reading, NULL, &store));
    CHECK_OK(rd_store_open(path, &making, NULL, &target));
    CHECK_OK(rd_store_verify(store, 2, NULL, NULL, &verified));
    CHECK_OK(rd_store_repair(store, target, older, take_note, &notes, &repaired));
    CHECK_OK(rd_store_info_get(store, &info));
    CHECK(repaired.written == rd_store_len(target), "%llu keys were written, and %llu are there",
          (unsigned long long)repaired.written, (unsigned long long)rd_store_len(target));
    CHECK(repaired.older == notes.written && repaired.left_out == notes.left_out, "the notes are not the counts");
    CHECK(repaired.written == info.live_keys + repaired.older, "live keys were left out, or others written");
    CHECK(older || repaired.older == 0, "an older version was written, unasked");
    read_keys(store, &from);
    check_repaired(&from, target, older);
    release_keys(&from);
    CHECK_OK(rd_store_sync(target));
    rd_store_close(store);
    rd_store_close(target);
    CHECK(rename(path, side->path) == 0, "the repaired store can't take the place");
    rd_span bytes = run_file(side->path);
    CHECK(image_parse(&side->image, bytes.data, bytes.len), "the repaired store is not whole");
    free((void *)(uintptr_t)bytes.data);
    side_adopt(side);
}

/* Remove what opening left beside the store, and what STORE.writer says of a file that is gone. */
static void remove_beside(const struct side *side, uint64_t torn_off)
{
    char path[FOLDER_MAX + 40];
    (void)snprintf(path, sizeof(path), "%s.new.writer", side->path);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s.torn-%llu", side->path, (unsigned long long)torn_off);
    (void)unlink(path);
}

/* A changed hash made keys that the model has no place for. */
static void delete_strangers(struct side *side)
{
    size_t count = side->image.count;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = side->image.entries[i].hash;
        rd_written written;
        if (run_key_of(hash) >= 0)
            continue;
        CHECK_OK(rd_store_batch_delete(side->store, &hash, 1, &written));
        image_delete(&side->image, hash);
        side_check_written(side, &written);
    }
}

void op_damage(struct side *side)
{
    char line[FOLDER_MAX + 40];
    struct image bytes = {0};
    uint64_t torn_off = 0;
    if (side->image.count == 0 || side->image.len > (size_t)1 << 20)
        return;
    side_close(side, true);
    damage(&bytes, &side->image);
    rd_span span = {bytes.data, bytes.len};
    run_save(side->path, span);
    (void)snprintf(line, sizeof(line), "%s.writer", side->path);
    if (run_chance(2)) /* with it, the oracle holds all the same: the store was synced when it was closed */
        (void)unlink(line);
    (void)snprintf(line, sizeof(line), "%s.idx", side->path);
    (void)unlink(line); /* opened by it, damage would show at a read */
    rd_store *store = open_judged(side, false, &side->image, span);
    if (store != NULL) {
        rd_store_info info;
        const char *why = oracle_judge(&side->image, span, store);
        CHECK(why == NULL, "%s", why);
        CHECK_OK(rd_store_info_get(store, &info));
        torn_off = info.tail_off;
        rd_store_close(store);
        check_untouched(side, span);
        if (run_chance(2))
            write_behind(side, &side->image, span);
        repair(side);
    } else {
        run_save(side->path, (rd_span){side->image.data, side->image.len});
    }
    remove_beside(side, torn_off);
    image_fini(&bytes);
    const rd_open_options writing = {.writable = true, .sync = RD_SYNC_NONE};
    side_open(side, &writing);
    delete_strangers(side);
    side_check_info(side);
    side_check_iteration(side);
    run.damaged_phases++;
}
