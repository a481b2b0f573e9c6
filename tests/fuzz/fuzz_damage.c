/*
 * A good store, damaged: a fixture or one that the input describes, with bits
 * flipped, ranges zeroed, filled, copied over others, put in or taken out, the
 * end cut off or lengthened. The oracle (tests/model/oracle.c) says what must
 * be served and what never may; and the same again once the damaged file was
 * opened for writing and written to.
 */
#include "../model/oracle.h"
#include "scratch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FIXTURES_MAX    64
#define FIXTURE_LEN_MAX 8192 /* larger ones are more of the same, and slow */
#define ENTRIES_MAX     24
#define MUTATIONS_MAX   12
#define CHECKED_MAX     65536 /* opening checks payloads up to this */
#define LARGE_LEN       66000
#define NEW_HASH        UINT64_C(0x6e65772076616c75)

static struct image fixtures[FIXTURES_MAX];
static size_t fixture_count;

/* ---- What is damaged
 * --------------------------------------------------------------------------------------------
 */

static int by_name(const struct dirent **left, const struct dirent **right)
{
    return strcmp((*left)->d_name, (*right)->d_name);
}

static int is_store(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return len > 4 && strcmp(entry->d_name + len - 4, ".srd") == 0;
}

static void load_fixtures(void)
{
    struct dirent **names = NULL;
    int count = scandir(RDRIVE_FIXTURES "/valid", &names, is_store, by_name);
    REQUIRE(count > 0, "no fixtures in %s", RDRIVE_FIXTURES "/valid");
    for (int i = 0; i < count; i++) {
        char path[512];
        (void)snprintf(path, sizeof(path), "%s/valid/%s", RDRIVE_FIXTURES, names[i]->d_name);
        rd_span bytes = scratch_load(path);
        if (bytes.len > 0 && bytes.len <= FIXTURE_LEN_MAX && fixture_count < FIXTURES_MAX)
            REQUIRE(image_parse(&fixtures[fixture_count++], bytes.data, bytes.len), "%s is no store", path);
        free((void *)(uintptr_t)bytes.data);
        free(names[i]);
    }
    free(names);
}

/* A few keys, so that they have versions; 0 and the largest hash are legal
 * (F-07). */
static uint64_t feed_hash(struct feed *feed)
{
    static const uint64_t hashes[8] = {0, UINT64_MAX, 1};
    uint8_t pick = feed_u8(feed) % 8;
    return pick < 3 ? hashes[pick] : rd_hash((rd_span){&pick, 1});
}

static void build_store(struct feed *feed, struct image *image, bool large)
{
    static uint8_t payload[LARGE_LEN];
    size_t count = 1 + feed_below(feed, ENTRIES_MAX);
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = feed_hash(feed);
        uint8_t what = feed_u8(feed);
        if (what < 64) {
            image_delete(image, hash);
            continue;
        }
        size_t len = what < 240 ? (size_t)what - 62 : (size_t)what * 8;
        if (what == 255 && large) {
            len = LARGE_LEN;
            large = false; /* one is slow enough */
        }
        memset(payload, feed_u8(feed), len);
        payload[0] = (uint8_t)i; /* versions differ; F-09 allows it, as there are at
                                    least two bytes */
        payload[len - 1] ^= (uint8_t)(i * 37);
        image_write(image, hash, (rd_span){payload, len});
    }
}

/* ---- How it is damaged
 * ------------------------------------------------------------------------------------------
 */

/* A place of interest: somewhere in an entry's trailer, at its bounds, or
 * anywhere. */
static size_t feed_place(struct feed *feed, const struct image *image, size_t len)
{
    uint8_t how = feed_u8(feed);
    size_t i = feed_below(feed, image->count);
    size_t place = (size_t)feed_u16(feed) * (len / 65536 + 1);
    if (image->count > 0 && how % 4 != 0) {
        const struct image_entry *entry = &image->entries[i];
        const size_t places[3] = {entry->trailer_off + how / 4 % 20, entry->start_off, image_entry_end(entry)};
        place = places[how % 4 - 1];
    }
    return len == 0 ? 0 : place % len;
}

static size_t feed_len(struct feed *feed, size_t place, size_t len)
{
    static const size_t lens[8] = {1, 8, 20, 21, 42, 64, 512, 4096};
    uint8_t how = feed_u8(feed);
    size_t want = how < 200 ? lens[how % 8] : (size_t)how * 3;
    return want < len - place ? want : len - place;
}

static void append(struct feed *feed, struct image *bytes, const struct image *image)
{
    uint8_t how = feed_u8(feed);
    uint8_t fill = how % 4 == 0 ? 0 : how % 4 == 1 ? 0xff : feed_u8(feed);
    size_t count = feed_below(feed, 300);
    if (how % 4 == 3) { /* a part of itself */
        size_t from = feed_place(feed, image, bytes->len);
        size_t len = feed_len(feed, from, bytes->len);
        uint8_t copy[4096];
        memcpy(copy, bytes->data + from, len);
        image_append_raw(bytes, copy, len);
        return;
    }
    for (size_t i = 0; i < count; i++)
        image_append_raw(bytes, &fill, 1);
}

/* Change a trailer's hash or link into another one's, or a link into any
 * number. */
static void redirect(struct feed *feed, struct image *bytes, const struct image *image)
{
    uint8_t how = feed_u8(feed);
    const struct image_entry *to = &image->entries[feed_below(feed, image->count)];
    const struct image_entry *from = &image->entries[feed_below(feed, image->count)];
    uint8_t *trailer = bytes->data + to->trailer_off;
    if (image_entry_end(to) > bytes->len)
        return;
    uint64_t value = how % 4 == 0   ? from->hash
                     : how % 4 == 1 ? image_entry_end(from)
                     : how % 4 == 2 ? from->prev_off
                                    : feed_u64(feed);
    for (int i = 0; i < 8; i++)
        trailer[(how % 4 == 0 ? 0 : 8) + i] = (uint8_t)(value >> 8 * i);
}

static void shift(struct feed *feed, struct image *bytes, const struct image *image, bool insert)
{
    size_t place = feed_place(feed, image, bytes->len);
    size_t len = feed_len(feed, place, bytes->len);
    if (!insert) {
        memmove(bytes->data + place, bytes->data + place + len, bytes->len - place - len);
        bytes->len -= len;
        return;
    }
    static const uint8_t zeros[4096];
    image_append_raw(bytes, zeros, len);
    memmove(bytes->data + place + len, bytes->data + place, bytes->len - place - len);
}

static void mutate(struct feed *feed, struct image *bytes, const struct image *image)
{
    uint8_t what = feed_u8(feed) % 9;
    if (bytes->len == 0)
        return;
    size_t place = what < 6 ? feed_place(feed, image, bytes->len) : 0;
    size_t len = what >= 2 && what < 6 ? feed_len(feed, place, bytes->len) : 0;
    size_t from;
    switch (what) {
    case 0:
    case 1: bytes->data[place] ^= (uint8_t)(1 << feed_u8(feed) % 8); return;
    case 2: memset(bytes->data + place, 0, len); return;
    case 3: memset(bytes->data + place, feed_u8(feed), len); return;
    case 4:
        from = feed_place(feed, image, bytes->len);
        len = len < bytes->len - from ? len : bytes->len - from;
        memmove(bytes->data + place, bytes->data + from, len);
        return;
    case 5: bytes->len = place; return;
    case 6: append(feed, bytes, image); return;
    case 7: redirect(feed, bytes, image); return;
    default: shift(feed, bytes, image, feed_u8(feed) % 2 == 0); return;
    }
}

/* ---- What must be true of it
 * ------------------------------------------------------------------------------------
 */

static rd_store *open_verified(const char *path, const struct image *image, rd_span bytes)
{
    const rd_open_options reading = {.verify = (rd_verify)(bytes.len % 3)};
    rd_store *store = NULL;
    rd_fault fault;
    rd_err err = rd_store_open(path, &reading, &fault, &store);
    if (err != RD_OK) {
        const char *why = oracle_judge_refusal(image, bytes, err);
        REQUIRE(why == NULL, "%s", why);
        return NULL;
    }
    rd_verified verified;
    if (bytes.len > CHECKED_MAX || bytes.len % 8 == 0) /* its threads are what takes longest */
        REQUIRE(rd_store_verify(store, 1, NULL, NULL, &verified) == RD_OK, "verify fails");
    const char *why = oracle_judge(image, bytes, store);
    REQUIRE(why == NULL, "%s", why);
    return store;
}

/* `image` as far as `bytes` still have room for it, and behind them what was
 * written. */
static void image_written(const struct image *image, rd_span bytes, uint64_t tail_off, struct image *out_image)
{
    size_t from_image = image->len < tail_off ? image->len : (size_t)tail_off;
    image_append_raw(out_image, image->data, from_image);
    image_append_raw(out_image, (const uint8_t *)bytes.data + from_image, (size_t)tail_off - from_image);
    out_image->entries = malloc((image->count + 1) * sizeof(*image->entries));
    REQUIRE(out_image->entries != NULL, "no memory");
    out_image->entry_capacity = image->count + 1;
    while (out_image->count < image->count && image_entry_end(&image->entries[out_image->count]) <= tail_off) {
        out_image->entries[out_image->count] = image->entries[out_image->count];
        out_image->count++;
    }
    image_write(out_image, NEW_HASH, (rd_span){"new value", 9});
}

static void write_into(const char *path, const struct image *image, rd_span bytes)
{
    const rd_open_options writing = {.writable = true, .sync = RD_SYNC_NONE};
    rd_store *store = NULL;
    rd_fault fault;
    rd_written written;
    rd_store_info info;
    rd_err err = rd_store_open(path, &writing, &fault, &store);
    REQUIRE(err == RD_OK, "for writing: %s", fault.text);
    REQUIRE(rd_store_info_get(store, &info) == RD_OK, "no info");
    REQUIRE(rd_store_write_hash(store, NEW_HASH, (rd_span){"new value", 9}, &written) == RD_OK, "a write fails");
    REQUIRE(rd_store_sync(store) == RD_OK, "a sync fails");
    rd_store_close(store);
    rd_span after = scratch_load(path);
    struct image expected = {0};
    image_written(image, bytes, info.tail_off, &expected);
    REQUIRE(after.len == written.tail_off && after.len == expected.len,
            "the file does not end where it was written to");
    rd_store_close(open_verified(path, &expected, after));
    image_fini(&expected);
    free((void *)(uintptr_t)after.data);
}

static void judge(const struct image *image, const struct image *bytes)
{
    const char *path = scratch_path("s");
    rd_span span = {bytes->data, bytes->len};
    scratch_clear();
    scratch_save(path, span);
    rd_store *store = open_verified(path, image, span);
    bool opened = store != NULL;
    rd_store_close(store);
    rd_span left = scratch_load(path);
    REQUIRE(scratch_equal(left, span), "reading changed the file");
    free((void *)(uintptr_t)left.data);
    if (opened)
        write_into(path, image, span);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    scratch_open();
    load_fixtures();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    struct image built = {0}, bytes = {0};
    const struct image *image = &built;
    uint8_t source = feed_u8(&feed);
    if (source < 128)
        build_store(&feed, &built, source == 127);
    else
        image = &fixtures[source % fixture_count];
    image_append_raw(&bytes, image->data, image->len);
    for (size_t i = 0; i < MUTATIONS_MAX && feed.left > 0; i++)
        mutate(&feed, &bytes, image);
    judge(image, &bytes);
    image_fini(&bytes);
    image_fini(&built);
    return 0;
}
