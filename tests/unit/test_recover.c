/* damaged/expect.json in full, read and written. */
#include "manifest.h"
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const rd_open_options open_unverified = {.verify = RD_VERIFY_OFF};

struct case_ {
    const json_t *json;
    const char *name;
    struct bytes file;
    bool written;                /* something was appended to a copy */
    const json_t *base;          /* `serve` of the undamaged file that this one was made of, or NULL: */
    const struct fixture *bench; /* the one that the big_ files were made of */
};

static bool in_list(const json_t *object, const char *list, uint64_t hash)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(object, list), i,
                       one) if (hash_of_hex(json_string_value(one)) == hash) return true;
    return false;
}

static bool is_served(const json_t *pairs, const char *hash_hex, rd_span payload)
{
    const json_t *truth = pairs == NULL ? NULL : json_object_get(pairs, hash_hex);
    char sum[65];
    if (truth == NULL || field_u64(truth, "len") != payload.len)
        return false;
    sum_sha256(payload.data, payload.len, sum);
    return field_is(truth, "sha256", sum) && field_hash(truth, "crc") == sum_crc32(payload.data, payload.len);
}

/* A flipped hash serves its entry's true payload under the flipped hash: one bit away from a damaged one. */
static bool is_flipped_hash(const struct case_ *c, uint64_t hash, rd_span payload)
{
    size_t i;
    json_t *one;
    if (strncmp(c->name, "a_flip_hash_", 12) != 0)
        return false;
    json_array_foreach(field(c->json, "damaged"), i,
                       one) if (__builtin_popcountll(hash_of_hex(json_string_value(one)) ^ hash) ==
                                1) return is_served(c->base, json_string_value(one), payload);
    return false;
}

/* An entry of which only the link is damaged may be served, with its true payload. */
static bool is_link_damaged(const struct case_ *c, uint64_t hash, const char *hex, rd_span payload)
{
    size_t i;
    json_t *key;
    if (!in_list(c->json, "link_damaged", hash))
        return false;
    if (c->base != NULL)
        return is_served(c->base, hex, payload);
    json_array_foreach(field(c->bench->manifest, "keys"), i,
                       key) if (field_hash(key, "key_hash") == hash) return payload_matches(key, payload);
    return false;
}

/* A torn payload that begins with a stored entry, and ends with it, reads as a damaged entry (R-04a). */
static bool ends_in_a_stored_trailer(const struct case_ *c)
{
    return strcmp(c->name, "n_trunc_286.bin") == 0;
}

/* An exception, which RECOVERY.md names: that stored entry is taken for a whole one once something is behind it, where
   no STORE.writer says that it was never synced. */
static bool is_stored_and_proven(const struct case_ *c, uint64_t hash, rd_span payload)
{
    return ends_in_a_stored_trailer(c) && c->written && in_list(c->json, "never", hash) &&
           payload.len + 20 < c->file.len && load_le64(c->file.data + c->file.len - 20) == hash &&
           span_equal(payload, c->file.data + c->file.len - 20 - payload.len, payload.len);
}

/* That one (hash, payload) pair is true, by the rules of expect.json's note. */
static void expect_true_pair(const struct case_ *c, uint64_t hash, rd_span payload)
{
    char hex[17];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)hash);
    bool fine = is_served(field(c->json, "serve"), hex, payload) || is_flipped_hash(c, hash, payload) ||
                is_link_damaged(c, hash, hex, payload) || is_stored_and_proven(c, hash, payload);
    EXPECT(fine, "%s: %s is served with %zu bytes", c->name, hex, payload.len);
}

static void expect_not_served(rd_store *store, const struct case_ *c, const char *list)
{
    bool lost = strcmp(list, "damaged") == 0 || strcmp(list, "link_damaged") == 0;
    bool falsely = strcmp(list, "never") == 0 && ends_in_a_stored_trailer(c);
    size_t i, damaged = 0;
    json_t *one;
    json_array_foreach(json_object_get(c->json, list), i, one)
    {
        rd_entry entry = {0};
        rd_err err = rd_store_read_hash(store, hash_of_hex(json_string_value(one)), &entry);
        if (err == RD_OK && (strcmp(list, "link_damaged") == 0 || falsely))
            expect_true_pair(c, entry.meta.key_hash, entry.payload);
        else
            EXPECT(err == RD_ABSENT || (err == RD_E_DAMAGED && (lost || falsely)), "%s: %s: %s", c->name, list,
                   rd_err_text(err));
        damaged += err != RD_ABSENT;
        rd_entry_release(&entry);
    }
    EXPECT(!falsely || damaged <= 1, "%s: %zu false keys", c->name, damaged);
}

/* A store that opened serves all that is whole, and nothing false. */
static void expect_served(rd_store *store, const struct case_ *c)
{
    const char *hex;
    json_t *truth;
    json_object_foreach(field(c->json, "serve"), hex, truth)
    {
        rd_entry entry = {0};
        rd_err err = rd_store_read_hash(store, hash_of_hex(hex), &entry);
        EXPECT(err == RD_OK, "%s: %s: %s", c->name, hex, rd_err_text(err));
        EXPECT(is_served(field(c->json, "serve"), hex, entry.payload), "%s: %s", c->name, hex);
        rd_entry_release(&entry);
    }
    const char *lists[] = {"damaged", "link_damaged", "gone", "deleted", "never"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        expect_not_served(store, c, lists[i]);

    rd_iter *iter = NULL;
    rd_entry entry = {0};
    uint64_t seen = 0;
    EXPECT(rd_iter_create(store, &iter) == RD_OK, "%s", c->name);
    for (rd_err err = rd_iter_next(iter, &entry); err != RD_ABSENT; err = rd_iter_next(iter, &entry)) {
        EXPECT(err == RD_OK || err == RD_E_DAMAGED, "%s: %s", c->name, rd_err_text(err));
        if (err != RD_OK)
            continue;
        expect_true_pair(c, entry.meta.key_hash, entry.payload);
        seen++;
    }
    rd_iter_destroy(iter);
    EXPECT(seen == rd_store_len(store) && seen >= json_object_size(field(c->json, "serve")), "%s: %llu of %llu",
           c->name, (unsigned long long)seen, (unsigned long long)rd_store_len(store));
}

/* A file that even the crate ruined: it may open or not, but nothing with a bad checksum is served. */
static void expect_sums(rd_store *store, const char *name)
{
    rd_iter *iter = NULL;
    rd_entry entry = {0};
    EXPECT(rd_iter_create(store, &iter) == RD_OK, "%s", name);
    for (rd_err err = rd_iter_next(iter, &entry); err != RD_ABSENT; err = rd_iter_next(iter, &entry))
        EXPECT(err == RD_E_DAMAGED || sum_crc32(entry.payload.data, entry.payload.len) == entry.meta.checksum, "%s",
               name);
    rd_iter_destroy(iter);
}

/* Refused files are left alone, whoever opens them. */
static void expect_refused(const char *path)
{
    store_open_fails(path, &open_reading, RD_E_NOT_STORE);
    store_open_fails(path, &open_writing, RD_E_NOT_STORE);
}

/* Either is right, but nothing with a bad checksum is served. */
static void expect_either(const struct case_ *c, const char *path)
{
    rd_store *store = NULL;
    rd_err err = rd_store_open(path, &open_reading, NULL, &store);
    EXPECT(err == RD_OK || err == RD_E_NOT_STORE || err == RD_E_ALIGNMENT, "%s: %s", c->name, rd_err_text(err));
    if (err == RD_OK)
        expect_sums(store, c->name);
    rd_store_close(store);
}

static void expect_opens(const struct case_ *c, const char *path, const rd_open_options *options)
{
    rd_store *store = store_open_ok(path, options);
    expect_served(store, c);
    rd_store_close(store);
}

/* A copy is opened for writing, gets one more key, and still serves the same. */
static void expect_writable(void **state, struct case_ *c)
{
    const char *path = temp_path(state, "w");
    unlink(path);
    unlink(temp_path(state, "w.writer"));
    file_save(path, c->file.data, c->file.len);
    rd_store *store = store_open_ok(path, &open_writing);
    uint64_t tail = store_info(store).tail_off;
    EXPECT(file_len(path) == tail, "%s: a torn tail stays behind %llu", c->name, (unsigned long long)tail);
    expect_served(store, c);
    store_put(store, "one more", "value", 5);
    EXPECT(rd_store_delete(store, text_span("one more"), &(rd_written){0}) == RD_OK, "%s", c->name);
    rd_store_close(store);
    AUTO_BYTES now = file_load(path);
    EXPECT(now.len > tail && memcmp(now.data, c->file.data, tail) == 0, "%s: what was there has changed", c->name);
    c->written = true;
    store = store_open_ok(path, &open_reading);
    expect_served(store, c);
    rd_store_close(store);
}

static const json_t *case_base(const json_t *cases, const char *name)
{
    char intact[] = "?_intact.bin";
    size_t i;
    json_t *one;
    intact[0] = name[0];
    json_array_foreach(cases, i, one) if (name[1] == '_' && field_is(one, "file", intact)) return field(one, "serve");
    return NULL;
}

static void expect_case(void **state, struct case_ *c)
{
    const char *path = temp_path(state, "s");
    json_t *opens = field(c->json, "opens");
    file_save(path, c->file.data, c->file.len);
    size_t names = temp_count(state);
    if (json_is_false(opens)) {
        expect_refused(path);
    } else if (!json_is_true(opens)) {
        expect_either(c, path);
    } else {
        expect_opens(c, path, &open_reading);
        expect_opens(c, path, &open_unverified);
    }
    file_expect(path, c->file.data, c->file.len, c->name);
    EXPECT(temp_count(state) == names, "%s: a file appeared", c->name);
    if (json_is_true(opens))
        expect_writable(state, c);
}

static void damaged_files_serve_all_that_is_whole_and_nothing_false(void **state)
{
    AUTO_FIXTURE bench = fixture_get("03_bench1000.srd");
    json_t *expect = expect_load();
    json_t *cases = field(expect, "cases"), *one;
    size_t i, opened = 0;
    json_array_foreach(cases, i, one)
    {
        struct case_ c = {.json = one, .name = field_text(one, "file"), .bench = &bench};
        char name[128];
        snprintf(name, sizeof name, "damaged/%s", c.name);
        c.file = fixture_load(name);
        c.base = case_base(cases, c.name);
        EXPECT(c.file.len == field_u64(one, "size"), "%s", c.name);
        expect_case(state, &c);
        opened += json_is_true(field(one, "opens"));
        bytes_free(&c.file);
    }
    assert_true(i >= 46 && opened >= 30);
    json_decref(expect);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(damaged_files_serve_all_that_is_whole_and_nothing_false),
    };
    return cmocka_run_group_tests_name("recover", tests, NULL, NULL);
}
