/* Every file the crate wrote reads back through the library as its manifest says, in each mode of verifying. */
#include "manifest.h"

#include <stdlib.h>
#include <string.h>

typedef void (*look_fn)(rd_store *store, const struct fixture *fixture);

struct look {
    void **state;
    look_fn look;
    size_t seen;
};

static void look_at(const struct fixture *fixture, void *arg)
{
    struct look *look = arg;
    const char *path = temp_path(look->state, "s");
    const rd_verify modes[] = {RD_VERIFY_FIRST, RD_VERIFY_ALWAYS, RD_VERIFY_OFF};
    file_save(path, fixture->file.data, fixture->file.len);
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        rd_open_options options = {.verify = modes[m]};
        rd_store *store = store_open_ok(path, &options);
        look->look(store, fixture);
        rd_store_close(store);
    }
    file_expect(path, fixture->file.data, fixture->file.len, fixture->name);
    EXPECT(temp_count(look->state) == 1, "%s: reading made another file", fixture->name);
    look->seen++;
}

static void look_at_all(void **state, look_fn look)
{
    struct look arg = {.state = state, .look = look};
    fixture_each(look_at, &arg);
    assert_true(arg.seen >= FIXTURES_MIN);
}

static bool is_live(const json_t *key)
{
    return field_is(key, "state", "live");
}

static void look_numbers(rd_store *store, const struct fixture *fixture)
{
    json_t *manifest = fixture->manifest;
    uint64_t bytes = 0, live_bytes = 0;
    size_t i;
    json_t *key;
    json_array_foreach(field(manifest, "keys"), i, key) live_bytes += is_live(key) ? field_u64(key, "payload_len") : 0;
    rd_store_info info = store_info(store);
    EXPECT(rd_store_len(store) == field_u64(manifest, "live_keys"), "%s", fixture->name); /* E-07 */
    EXPECT(rd_store_is_empty(store) == (field_u64(manifest, "live_keys") == 0), "%s", fixture->name);
    EXPECT(rd_store_file_size(store, &bytes) == RD_OK && bytes == fixture->file.len, "%s", fixture->name);
    EXPECT(info.file_size == fixture->file.len, "%s", fixture->name);
    EXPECT(info.tail_off == field_u64(manifest, "tail"), "%s", fixture->name);
    EXPECT(info.unread_bytes == 0, "%s", fixture->name);
    EXPECT(info.entries == field_u64(manifest, "physical_entries"), "%s", fixture->name);
    EXPECT(info.live_keys == rd_store_len(store), "%s", fixture->name);
    EXPECT(info.live_bytes == live_bytes, "%s: %llu", fixture->name, (unsigned long long)info.live_bytes);
    EXPECT(!info.writable, "%s", fixture->name);
}

static void look_last(rd_store *store, const struct fixture *fixture)
{
    json_t *last = field(fixture->manifest, "last_entry");
    rd_entry entry = {0};
    rd_err err = rd_store_read_last(store, &entry);
    if (json_is_null(last)) {
        EXPECT(err == RD_ABSENT, "%s: %s", fixture->name, rd_err_text(err));
        return;
    }
    uint64_t start = field_u64(last, "start"), end = field_u64(last, "end");
    EXPECT(err == RD_OK, "%s: %s", fixture->name, rd_err_text(err));
    EXPECT(entry.meta.key_hash == field_hash(last, "key_hash"), "%s", fixture->name);
    EXPECT(entry.meta.prev_off == field_u64(last, "prev_offset"), "%s", fixture->name);
    EXPECT(entry.meta.checksum == field_hash(last, "crc"), "%s", fixture->name);
    EXPECT(entry.meta.tombstone == field_true(last, "is_tombstone"), "%s", fixture->name);
    if (entry.meta.tombstone)
        EXPECT(entry.payload.len == 0, "%s: E-11", fixture->name);
    else
        EXPECT(span_equal(entry.payload, fixture->file.data + start, end - start), "%s", fixture->name);
    rd_entry_release(&entry);
}

static json_t *key_of_hash(const struct fixture *fixture, uint64_t hash)
{
    size_t i;
    json_t *key;
    json_array_foreach(field(fixture->manifest, "keys"), i, key) if (field_hash(key, "key_hash") == hash) return key;
    support_fail(__FILE__, __LINE__, "a known hash", "%s: %016llx", fixture->name, (unsigned long long)hash);
}

static void expect_metadata(const struct fixture *fixture, const json_t *key, const rd_metadata *meta)
{
    const char *hash = field_text(key, "key_hash");
    EXPECT(meta->key_hash == hash_of_hex(hash), "%s: %s", fixture->name, hash);
    EXPECT(meta->prev_off == field_u64(key, "prev_offset"), "%s: %s", fixture->name, hash);
    EXPECT(meta->checksum == field_hash(key, "crc"), "%s: %s", fixture->name, hash);
    EXPECT(!meta->tombstone, "%s: %s", fixture->name, hash);
}

static void expect_entry(const struct fixture *fixture, const json_t *key, const rd_entry *entry)
{
    const char *hash = field_text(key, "key_hash");
    expect_metadata(fixture, key, &entry->meta);
    EXPECT(entry->payload.len == field_u64(key, "payload_len"), "%s: %s", fixture->name, hash);
    EXPECT(sum_crc32(entry->payload.data, entry->payload.len) == field_hash(key, "crc"), "%s: %s", fixture->name, hash);
    EXPECT(payload_matches(key, entry->payload), "%s: %s", fixture->name, hash);
}

/* F-12 */
static void look_iteration(rd_store *store, const struct fixture *fixture)
{
    rd_iter *iter = NULL;
    rd_entry entry = {0};
    size_t i;
    json_t *hash;
    EXPECT(rd_iter_create(store, &iter) == RD_OK, "%s", fixture->name);
    json_array_foreach(field(fixture->manifest, "iter_entries"), i, hash)
    {
        rd_err err = rd_iter_next(iter, &entry);
        EXPECT(err == RD_OK, "%s: entry %zu: %s", fixture->name, i, rd_err_text(err));
        EXPECT(entry.meta.key_hash == hash_of_hex(json_string_value(hash)), "%s: entry %zu", fixture->name, i);
        expect_entry(fixture, key_of_hash(fixture, entry.meta.key_hash), &entry);
    }
    EXPECT(rd_iter_next(iter, &entry) == RD_ABSENT, "%s: more than %zu", fixture->name, i);
    EXPECT(rd_iter_next(iter, &entry) == RD_ABSENT, "%s: the end stays the end", fixture->name);
    rd_iter_destroy(iter);
}

static void expect_read(const struct fixture *fixture, const json_t *key, rd_err err, rd_entry *entry)
{
    rd_err want = is_live(key) ? RD_OK : RD_ABSENT;
    EXPECT(err == want, "%s: %s: %s", fixture->name, field_text(key, "key_hash"), rd_err_text(err));
    if (err == RD_OK)
        expect_entry(fixture, key, entry);
    rd_entry_release(entry);
}

static void look_key_by_hash(rd_store *store, const struct fixture *fixture, const json_t *key)
{
    uint64_t hash = field_hash(key, "key_hash");
    rd_entry entry = {0};
    rd_metadata meta;
    rd_err want = is_live(key) ? RD_OK : RD_ABSENT;
    expect_read(fixture, key, rd_store_read_hash(store, hash, &entry), &entry);
    EXPECT(rd_store_exists_hash(store, hash) == want, "%s: %016llx", fixture->name, (unsigned long long)hash);
    EXPECT(rd_store_metadata_hash(store, hash, &meta) == want, "%s: %016llx", fixture->name, (unsigned long long)hash);
    if (want == RD_OK)
        expect_metadata(fixture, key, &meta);
}

static void look_key(rd_store *store, const struct fixture *fixture, const json_t *key)
{
    AUTO_BYTES bytes = bytes_of_hex(field_text(key, "key_hex"));
    rd_span span = bytes_span(&bytes);
    rd_entry entry = {0};
    rd_metadata meta;
    rd_err want = is_live(key) ? RD_OK : RD_ABSENT;
    expect_read(fixture, key, rd_store_read(store, span, &entry), &entry);
    EXPECT(rd_store_exists(store, span) == want, "%s: %s", fixture->name, field_text(key, "key_hex"));
    EXPECT(rd_store_metadata(store, span, &meta) == want, "%s: %s", fixture->name, field_text(key, "key_hex"));
    if (want == RD_OK)
        expect_metadata(fixture, key, &meta);
}

/* F-08: each key that was ever used, by its newest entry. */
static void look_keys(rd_store *store, const struct fixture *fixture)
{
    size_t i;
    json_t *key;
    json_array_foreach(field(fixture->manifest, "keys"), i, key)
    {
        look_key_by_hash(store, fixture, key);
        if (!json_is_null(field(key, "key_hex")))
            look_key(store, fixture, key);
    }
    EXPECT(rd_store_exists(store, text_span("no fixture has this key")) == RD_ABSENT, "%s", fixture->name);
}

/* The keys of a manifest as batches want them; a key that is known by its hash alone is left out. */
struct batch {
    json_t **truth;
    struct bytes *bytes;
    rd_span *keys;
    uint64_t *hashes;
    rd_batch_item *items;
    size_t count;
};

static struct batch batch_make(const struct fixture *fixture)
{
    json_t *keys = field(fixture->manifest, "keys");
    size_t max = json_array_size(keys) + 1;
    struct batch batch = {
        .truth = calloc(max, sizeof *batch.truth),
        .bytes = calloc(max, sizeof *batch.bytes),
        .keys = calloc(max, sizeof *batch.keys),
        .hashes = calloc(max, sizeof *batch.hashes),
        .items = calloc(max, sizeof *batch.items),
    };
    size_t i;
    json_t *key;
    json_array_foreach(keys, i, key)
    {
        if (json_is_null(field(key, "key_hex")))
            continue;
        batch.truth[batch.count] = key;
        batch.bytes[batch.count] = bytes_of_hex(field_text(key, "key_hex"));
        batch.keys[batch.count] = bytes_span(&batch.bytes[batch.count]);
        batch.hashes[batch.count] = field_hash(key, "key_hash");
        batch.count++;
    }
    return batch;
}

static void batch_free(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        bytes_free(&batch->bytes[i]);
    free(batch->truth);
    free(batch->bytes);
    free(batch->keys);
    free(batch->hashes);
    free(batch->items);
}

static void expect_batch(const struct fixture *fixture, struct batch *batch, rd_err err)
{
    EXPECT(err == RD_OK, "%s: %s", fixture->name, rd_err_text(err));
    for (size_t i = 0; i < batch->count; i++)
        expect_read(fixture, batch->truth[i], batch->items[i].err, &batch->items[i].entry);
}

static void look_batches(rd_store *store, const struct fixture *fixture)
{
    __attribute__((cleanup(batch_free))) struct batch b = batch_make(fixture);
    expect_batch(fixture, &b, rd_store_batch_read(store, b.keys, b.count, b.items));
    expect_batch(fixture, &b, rd_store_batch_read_hashed(store, b.hashes, NULL, b.count, b.items));
    expect_batch(fixture, &b, rd_store_batch_read_hashed(store, b.hashes, b.keys, b.count, b.items));
    EXPECT(rd_store_batch_read(store, NULL, 0, NULL) == RD_OK, "%s: no keys", fixture->name);
    EXPECT(rd_store_batch_read_hashed(store, NULL, NULL, 0, NULL) == RD_OK, "%s: no keys", fixture->name);
}

static void look_wrong_keys(rd_store *store, const struct fixture *fixture)
{
    __attribute__((cleanup(batch_free))) struct batch b = batch_make(fixture);
    if (b.count < 2)
        return;
    rd_span first = b.keys[0];
    memmove(b.keys, b.keys + 1, (b.count - 1) * sizeof *b.keys);
    b.keys[b.count - 1] = first; /* each hash now comes with its neighbour's key */
    EXPECT(rd_store_batch_read_hashed(store, b.hashes, b.keys, b.count, b.items) == RD_OK, "%s", fixture->name);
    for (size_t i = 0; i < b.count; i++)
        EXPECT(b.items[i].err == RD_ABSENT && b.items[i].entry.pin == NULL, "%s: key %zu", fixture->name, i); /* F-15 */
}

static void numbers_are_those_of_the_manifest(void **state)
{
    look_at_all(state, look_numbers);
}

static void last_entry_is_that_of_the_manifest(void **state)
{
    look_at_all(state, look_last);
}

static void iteration_is_newest_first_and_leaves_deleted_keys_out(void **state)
{
    look_at_all(state, look_iteration);
}

static void every_key_reads_as_the_manifest_says(void **state)
{
    look_at_all(state, look_keys);
}

static void batches_answer_each_key_in_its_place(void **state)
{
    look_at_all(state, look_batches);
}

static void hash_that_is_not_its_keys_is_absent(void **state)
{
    look_at_all(state, look_wrong_keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(numbers_are_those_of_the_manifest),
        TEMP_TEST(last_entry_is_that_of_the_manifest),
        TEMP_TEST(iteration_is_newest_first_and_leaves_deleted_keys_out),
        TEMP_TEST(every_key_reads_as_the_manifest_says),
        TEMP_TEST(batches_answer_each_key_in_its_place),
        TEMP_TEST(hash_that_is_not_its_keys_is_absent),
    };
    return cmocka_run_group_tests_name("fixtures", tests, NULL, NULL);
}
