/*
 * Any snapshot index beside a good or a damaged store: its fields, slots and lists changed as the input says, and its
 * sums made right again, so that nothing is refused by them alone. Opening never crashes, hangs or fails; what is
 * served is a payload that was written under that very hash; and what isn't believed changes nothing.
 */
#include "../model/image.h"
#include "index_file_format.h"
#include "scratch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LARGE_LEN   66000 /* opening leaves such payloads to the first read */
#define CHANGES_MAX 24
#define LIST_MAX    8
#define SLOTS_MAX   256
#define NEW_HASH    UINT64_C(0x6e65772076616c75)

/* A store, what is true of it, and its index as it was made. */
static struct subject {
    const char *name;
    struct image image; /* undamaged */
    rd_span file;
    rd_span index;
    uint64_t harmed_off; /* a byte that differs from the image; 0: none */
} subjects[] = {{.name = "plain"}, {.name = "grown"}, {.name = "harmed"}};
#define SUBJECTS (sizeof(subjects) / sizeof(subjects[0]))

/* ---- The stores -------------------------------------------------------------------------------------------------- */

static const char *index_path(const struct subject *subject)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "%s.idx", subject->name);
    return scratch_path(name);
}

static rd_store *open_store(const char *path, bool writable, const char *index)
{
    const rd_open_options options = {
        .writable = writable, .create = writable, .sync = RD_SYNC_NONE, .index = index, .index_after = 1};
    rd_store *store = NULL;
    rd_fault fault;
    REQUIRE(rd_store_open(path, &options, &fault, &store) == RD_OK, "%s", fault.text);
    return store;
}

static void write_some(const char *path, unsigned from, unsigned to)
{
    static uint8_t payload[LARGE_LEN];
    rd_store *store = open_store(path, true, "off");
    for (unsigned i = from; i < to; i++) {
        rd_written done;
        uint64_t hash = i % 11 == 0 ? 0 : rd_hash((rd_span){&(uint8_t){(uint8_t)(i % 17)}, 1});
        size_t len = i == 9 ? LARGE_LEN : 2 + i * 5;
        memset(payload, (int)i + 1, len);
        rd_err err = i % 7 == 5 ? rd_store_batch_delete(store, &hash, 1, &done)
                                : rd_store_write_hash(store, hash, (rd_span){payload, len}, &done);
        REQUIRE(err == RD_OK, "making %s: %s", path, rd_err_text(err));
    }
    REQUIRE(rd_store_sync(store) == RD_OK, "making %s", path);
    rd_store_close(store);
}

static void save_index(const struct subject *subject)
{
    rd_fault fault;
    rd_indexed done;
    rd_store *store = open_store(scratch_path(subject->name), false, "off");
    rd_err err = rd_store_save_index(store, NULL, &fault, &done);
    REQUIRE(err == RD_OK, "%s", fault.text);
    rd_store_close(store);
}

static void make_subject(struct subject *subject)
{
    const char *path = scratch_path(subject->name);
    write_some(path, 0, 40);
    rd_span file = scratch_load(path);
    if (strcmp(subject->name, "harmed") == 0) {
        REQUIRE(image_parse(&subject->image, file.data, file.len), "no store");
        subject->harmed_off = subject->image.entries[20].trailer_off - 1;
        ((uint8_t *)(uintptr_t)file.data)[subject->harmed_off] ^= 1;
        scratch_save(path, file);
        (void)unlink(scratch_path("harmed.writer")); /* it is durable damage */
    }
    free((void *)(uintptr_t)file.data);
    save_index(subject);
    if (strcmp(subject->name, "grown") == 0)
        write_some(path, 30, 60);
    subject->file = scratch_load(path);
    subject->index = scratch_load(index_path(subject));
    if (subject->image.count == 0)
        REQUIRE(image_parse(&subject->image, subject->file.data, subject->file.len), "no store");
}

/* ---- The index that the input describes ---------------------------------------------------------------------------
 */

struct build {
    const struct subject *subject;
    struct raw_index_head head;
    struct raw_index_damage damage[LIST_MAX];
    size_t damage_count;
    uint64_t provisional[LIST_MAX];
    size_t provisional_count;
    struct raw_index_slot slots[SLOTS_MAX];
    size_t slot_count;
};

static void build_begin(struct build *build, const struct subject *subject)
{
    struct index_places places;
    const uint8_t *file = subject->index.data;
    *build = (struct build){.subject = subject};
    memcpy(&build->head, file, sizeof(build->head));
    REQUIRE(index_places_of(&build->head, &places), "not an index");
    build->damage_count = (size_t)load_le64(build->head.damage_count);
    build->provisional_count = (size_t)load_le64(build->head.provisional_count);
    build->slot_count = (size_t)(places.slot_bytes / sizeof(build->slots[0]));
    REQUIRE(build->damage_count <= LIST_MAX && build->provisional_count <= LIST_MAX && build->slot_count <= SLOTS_MAX,
            "a larger index than there is room for");
    memcpy(build->damage, file + places.damage_off, build->damage_count * sizeof(build->damage[0]));
    memcpy(build->provisional, file + places.provisional_off, build->provisional_count * sizeof(uint64_t));
    memcpy(build->slots, file + places.slots_off, (size_t)places.slot_bytes);
}

static const struct image_entry *feed_entry(struct feed *feed, const struct build *build)
{
    return &build->subject->image.entries[feed_below(feed, build->subject->image.count)];
}

/* An offset of interest. */
static uint64_t feed_off(struct feed *feed, const struct build *build)
{
    uint8_t how = feed_u8(feed);
    const struct image_entry *entry = feed_entry(feed, build);
    switch (how % 6) {
    case 0: return entry->trailer_off;
    case 1: return image_entry_end(entry);
    case 2: return entry->start_off;
    case 3: return entry->prev_off;
    case 4: return feed_below(feed, build->subject->file.len + 100);
    default: return feed_u64(feed);
    }
}

static void change_slot(struct feed *feed, struct build *build)
{
    struct raw_index_slot *slot = &build->slots[feed_below(feed, build->slot_count)];
    struct raw_index_slot *other = &build->slots[feed_below(feed, build->slot_count)];
    const struct raw_index_slot kept = *slot;
    uint8_t how = feed_u8(feed);
    switch (how % 5) {
    case 0: store_le64(slot->word, feed_off(feed, build)); return;
    case 1: store_le64(slot->word, load_le64(slot->word) ^ (uint64_t)feed_u8(feed) << 48); return;
    case 2: store_le64(slot->hash, how < 200 ? feed_entry(feed, build)->hash : feed_u64(feed)); return;
    case 3:
        *slot = *other;
        *other = kept;
        return;
    default: *slot = how < 128 ? *other : (struct raw_index_slot){0}; return;
    }
}

static void change_damage(struct feed *feed, struct build *build)
{
    uint8_t how = feed_u8(feed);
    size_t at = feed_below(feed, build->damage_count + 1);
    if (how < 64 || at == LIST_MAX) {
        build->damage_count -= build->damage_count > 0;
        return;
    }
    struct raw_index_damage *damage = &build->damage[at];
    store_le64(damage->begin_off, feed_off(feed, build));
    store_le64(damage->end_off, feed_off(feed, build));
    store_le64(damage->key_hash, feed_entry(feed, build)->hash);
    damage->kind = how % 6;
    damage->has_key = how >> 7;
    build->damage_count += at == build->damage_count;
}

static void change_provisional(struct feed *feed, struct build *build)
{
    size_t at = feed_below(feed, build->provisional_count + 1);
    if (at == LIST_MAX) {
        build->provisional_count--;
        return;
    }
    build->provisional[at] = feed_off(feed, build);
    build->provisional_count += at == build->provisional_count;
}

/* Another tail, with marks and sum that fit. */
static void change_tail(struct feed *feed, struct build *build)
{
    const struct image_entry *last = feed_entry(feed, build);
    const struct image_entry *marked[2] = {&build->subject->image.entries[0], last};
    size_t count = last == marked[0] ? 1 : 2;
    const uint8_t *file = build->subject->file.data;
    store_le64(build->head.tail_off, image_entry_end(last));
    store_le32(build->head.mark_count, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        struct raw_index_mark *mark = &build->head.marks[i];
        store_le64(mark->trailer_off, marked[2 - count + i]->trailer_off);
        memcpy(mark->trailer, file + marked[2 - count + i]->trailer_off, sizeof(mark->trailer));
    }
    store_le64(build->head.recent, index_recent_sum(file, image_entry_end(last)));
}

static void change_figure(struct feed *feed, struct build *build)
{
    uint8_t *const fields[] = {build->head.entries,     build->head.live_keys,    build->head.live_bytes,
                               build->head.live_stored, build->head.damaged_keys, build->head.used,
                               build->head.secret,      build->head.writer};
    uint8_t *field = fields[feed_u8(feed) % (sizeof(fields) / sizeof(fields[0]))];
    uint8_t how = feed_u8(feed);
    store_le64(field, how < 128 ? how : how < 250 ? load_le64(field) + (uint64_t)(how - 190) : feed_u64(feed));
}

/* Another shape: what is too much is cut, what is missing is empty. */
static void change_shape(struct feed *feed, struct build *build)
{
    uint32_t blocks_log2 = feed_u8(feed) % 4;
    uint32_t block_slots = 4 + 4 * (feed_u8(feed) % 16);
    size_t count = (size_t)block_slots << blocks_log2;
    if (count > SLOTS_MAX)
        return;
    for (size_t i = build->slot_count; i < count; i++)
        build->slots[i] = (struct raw_index_slot){0};
    build->slot_count = count;
    store_le32(build->head.blocks_log2, blocks_log2);
    store_le32(build->head.block_slots, block_slots);
}

static void change(struct feed *feed, struct build *build)
{
    uint8_t *head = (uint8_t *)&build->head;
    size_t at;
    switch (feed_u8(feed) % 8) {
    case 0:
        at = 16 + feed_below(feed, sizeof(build->head) - 24);
        store_le64(head + at, load_le64(head + at) + feed_u64(feed));
        return;
    case 1:
    case 2: change_slot(feed, build); return;
    case 3: change_damage(feed, build); return;
    case 4: change_provisional(feed, build); return;
    case 5: change_tail(feed, build); return;
    case 6: change_figure(feed, build); return;
    default: change_shape(feed, build); return;
    }
}

/* The figures that are checked against the slots follow them, or nothing else would be tried. */
static void count_slots(struct build *build)
{
    uint64_t used = 0;
    uint64_t deleted = 0;
    uint64_t damaged = 0;
    for (size_t i = 0; i < build->slot_count; i++) {
        uint64_t word = load_le64(build->slots[i].word);
        used += word != 0;
        deleted += (word & WORD_TOMBSTONE) != 0;
        damaged += (word & WORD_DAMAGED) != 0;
    }
    store_le64(build->head.used, used);
    store_le64(build->head.live_keys, used - deleted - damaged);
    store_le64(build->head.damaged_keys, damaged);
}

static void build_save(struct build *build, const char *path, bool sealed)
{
    static uint8_t file[1 << 16];
    struct index_places places;
    memset(file, 0, sizeof(file));
    store_le64(build->head.damage_count, build->damage_count);
    store_le64(build->head.provisional_count, build->provisional_count);
    if (!index_places_of(&build->head, &places) || places.file_len > sizeof(file) ||
        places.slot_bytes > sizeof(build->slots)) { /* then the head alone is tried */
        scratch_save(path, (rd_span){&build->head, sizeof(build->head)});
        return;
    }
    store_le64(build->head.file_len, places.file_len);
    memcpy(file, &build->head, sizeof(build->head));
    memcpy(file + places.damage_off, build->damage, build->damage_count * sizeof(build->damage[0]));
    memcpy(file + places.provisional_off, build->provisional, build->provisional_count * sizeof(uint64_t));
    memcpy(file + places.slots_off, build->slots, (size_t)places.slot_bytes);
    for (uint64_t n = 0; n < places.pieces; n++) {
        uint64_t len;
        uint64_t offset = index_piece(&build->head, &places, n, &len);
        store_le64(file + places.sums_off + n * sizeof(uint64_t), index_sum(file + places.slots_off + offset, len));
    }
    struct raw_index_head *head = (struct raw_index_head *)file;
    store_le64(head->checksum, index_front_sum(file, &places) + !sealed);
    scratch_save(path, (rd_span){file, (size_t)places.file_len});
}

/* ---- What must be true ------------------------------------------------------------------------------------------- */

/* A payload is served under the hash that it was written under, or not at all. */
static void judge_payload(const struct subject *subject, uint64_t hash, rd_span payload)
{
    const struct image *image = &subject->image;
    if (hash == NEW_HASH && payload.len == 9 && memcmp(payload.data, "new value", 9) == 0)
        return;
    for (size_t i = 0; i < image->count; i++)
        if (image->entries[i].hash == hash && scratch_equal(image_payload(image, &image->entries[i]), payload))
            return;
    scratch_fail("%s: %016" PRIx64 ": %zu bytes that were never written under it", subject->name, hash, payload.len);
}

static void judge_key(const struct subject *subject, rd_store *store, uint64_t hash)
{
    rd_entry entry = {0};
    rd_metadata meta;
    rd_err err = rd_store_read_hash(store, hash, &entry);
    REQUIRE(err == RD_OK || err == RD_ABSENT || err == RD_E_DAMAGED, "%016" PRIx64 ": %s", hash, rd_err_text(err));
    if (err == RD_OK)
        judge_payload(subject, hash, entry.payload);
    rd_entry_release(&entry);
    err = rd_store_metadata_hash(store, hash, &meta);
    REQUIRE(err != RD_OK || meta.key_hash == hash, "%016" PRIx64 ": metadata of another", hash);
}

static void judge(const struct subject *subject, rd_store *store)
{
    rd_range ranges[RD_DAMAGE_LISTED_MAX];
    rd_iter *iter = NULL;
    rd_entry entry = {0};
    rd_store_info info;
    rd_err err = RD_OK;
    size_t steps = 0;
    for (size_t i = 0; i < subject->image.count; i++)
        judge_key(subject, store, subject->image.entries[i].hash);
    judge_key(subject, store, NEW_HASH);
    if (rd_store_read_last(store, &entry) == RD_OK && !entry.meta.tombstone)
        judge_payload(subject, entry.meta.key_hash, entry.payload);
    rd_entry_release(&entry);
    REQUIRE(rd_iter_create(store, &iter) == RD_OK, "no iterator");
    while (err != RD_ABSENT) {
        err = rd_iter_next(iter, &entry);
        REQUIRE(steps++ < subject->image.count + LIST_MAX + 100, "%s: iteration doesn't end", subject->name);
        if (err == RD_OK)
            judge_payload(subject, entry.meta.key_hash, entry.payload);
    }
    rd_iter_destroy(iter);
    (void)rd_store_damage(store, ranges, RD_DAMAGE_LISTED_MAX);
    REQUIRE(rd_store_info_get(store, &info) == RD_OK, "no info");
}

/* As recovered: each key's newest entry, unless that is the harmed one. */
static void judge_recovered(const struct subject *subject, rd_store *store)
{
    const struct image *image = &subject->image;
    for (size_t i = 0; i < image->count; i++) {
        const struct image_entry *entry = &image->entries[i];
        bool superseded = false;
        for (size_t k = i + 1; k < image->count; k++)
            superseded |= image->entries[k].hash == entry->hash;
        bool harmed = subject->harmed_off >= entry->prev_off && subject->harmed_off < entry->trailer_off;
        rd_entry got = {0};
        if (superseded)
            continue;
        rd_err err = rd_store_read_hash(store, entry->hash, &got);
        rd_err want = harmed && subject->harmed_off > 0 ? RD_E_DAMAGED : entry->tombstone ? RD_ABSENT : RD_OK;
        REQUIRE(err == want && (err != RD_OK || scratch_equal(got.payload, image_payload(image, entry))),
                "%s, recovered: %016" PRIx64 ": %s", subject->name, entry->hash, rd_err_text(err));
        rd_entry_release(&got);
    }
}

/* Write to a copy that is opened by such an index: what is acknowledged is there. */
static void write_into(const struct subject *subject, const struct build *build)
{
    struct build copy = *build;
    rd_written done;
    rd_fault fault;
    rd_compacted compacted;
    scratch_save(scratch_path("w"), subject->file);
    build_save(&copy, scratch_path("w.idx"), true);
    rd_store *store = open_store(scratch_path("w"), true, NULL);
    judge(subject, store);
    rd_err err = rd_store_write_hash(store, NEW_HASH, (rd_span){"new value", 9}, &done);
    REQUIRE(err == RD_OK, "a write: %s", rd_err_text(err));
    err = rd_store_batch_delete(store, &subject->image.entries[3].hash, 1, &done);
    REQUIRE(err == RD_OK, "a delete: %s", rd_err_text(err));
    judge(subject, store);
    rd_store_close(store);
    store = open_store(scratch_path("w"), false, "off");
    rd_entry entry = {0};
    REQUIRE(rd_store_read_hash(store, NEW_HASH, &entry) == RD_OK, "what was written is gone");
    rd_entry_release(&entry);
    judge(subject, store);
    rd_store_close(store);
    store = open_store(scratch_path("w"), true, NULL);
    judge(subject, store);
    err = rd_store_compact(store, NULL, &fault, &compacted); /* one that is damaged is refused */
    (void)err;
    judge(subject, store);
    rd_store_close(store);
    (void)unlink(scratch_path("w.writer"));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    scratch_open();
    for (size_t i = 0; i < SUBJECTS; i++)
        make_subject(&subjects[i]);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct build build;
    struct feed feed = {data, size};
    uint8_t how = feed_u8(&feed);
    const struct subject *subject = &subjects[how % SUBJECTS];
    rd_store_info info;
    build_begin(&build, subject);
    for (size_t i = 0; i < CHANGES_MAX && feed.left > 0; i++)
        change(&feed, &build);
    if (how % 8 < 6)
        count_slots(&build);
    build_save(&build, index_path(subject), how % 16 != 15);
    rd_store *store = open_store(scratch_path(subject->name), false, NULL);
    REQUIRE(rd_store_info_get(store, &info) == RD_OK, "no info");
    REQUIRE(size > 1 || how % 16 == 15 || info.index_source == RD_INDEX_SNAPSHOT, "%s: unchanged, and %s",
            subject->name, rd_index_text(info.index_source));
    REQUIRE(how % 16 != 15 || info.index_source != RD_INDEX_SNAPSHOT, "a wrong sum is believed");
    judge(subject, store);
    if (info.index_source != RD_INDEX_SNAPSHOT)
        judge_recovered(subject, store);
    rd_store_close(store);
    if (how >= 128 && strcmp(subject->name, "grown") != 0)
        write_into(subject, &build);
    return 0;
}
