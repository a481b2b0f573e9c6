/* Torn tails at every byte, and damaged/expect.json as far as this stage goes. */
#include "manifest.h"

#include <stdlib.h>
#include <string.h>

static const rd_open_options open_checked_later = {.verify = RD_VERIFY_OFF};

/* ---- Every cut of a store --------------------------------------------------------------------------------------- */

/* Cuts at which the bytes read as a damaged entry, not as a torn one: refusing the file is right too. */
static const struct {
    const char *name;
    size_t cut;
} cuts_that_look_damaged[] = {
    {"21_trailer_lookalike.srd",
     180}, /* ends in a payload's false trailer, whose link is the last whole entry (R-04b) */
};

static bool cut_looks_damaged(const char *name, size_t cut)
{
    for (size_t i = 0; i < sizeof cuts_that_look_damaged / sizeof *cuts_that_look_damaged; i++)
        if (strcmp(cuts_that_look_damaged[i].name, name) == 0 && cuts_that_look_damaged[i].cut == cut)
            return true;
    return false;
}

static uint64_t entry_end(const json_t *entry)
{
    return field_u64(entry, "end") + 20; /* F-03 */
}

/* How many entries lie whole before `cut`, and where the last of them ends. */
static size_t whole_entries(const json_t *entries, size_t cut, uint64_t *out_tail)
{
    size_t i;
    json_t *entry;
    *out_tail = 0;
    json_array_foreach(entries, i, entry)
    {
        if (entry_end(entry) > cut)
            break;
        *out_tail = entry_end(entry);
    }
    return i;
}

/* The newest of the first `count` entries that has this hash, or NULL. */
static const json_t *newest_of(const json_t *entries, size_t count, uint64_t hash)
{
    while (count-- > 0) {
        const json_t *entry = json_array_get(entries, count);
        if (field_hash(entry, "key_hash") == hash)
            return entry;
    }
    return NULL;
}

/* That the store serves exactly the first `count` entries; returns how many keys are live. */
static uint64_t expect_prefix(rd_store *store, const struct fixture *fixture, size_t count, size_t cut)
{
    json_t *entries = field(fixture->manifest, "entries_in_file_order");
    uint64_t live = 0;
    size_t i;
    json_t *key;
    json_array_foreach(field(fixture->manifest, "keys"), i, key)
    {
        uint64_t hash = field_hash(key, "key_hash");
        const json_t *entry = newest_of(entries, count, hash);
        bool want = entry != NULL && field_is(entry, "kind", "payload");
        rd_entry got = {0};
        rd_err err = rd_store_read_hash(store, hash, &got);
        EXPECT(err == (want ? RD_OK : RD_ABSENT), "%s cut at %zu: key %zu: %s", fixture->name, cut, i,
               rd_err_text(err));
        if (want) {
            EXPECT(payload_matches(entry, got.payload), "%s cut at %zu: key %zu", fixture->name, cut, i);
            live++;
        }
        rd_entry_release(&got);
    }
    return live;
}

static void expect_cut_read(const struct fixture *fixture, const char *path, size_t cut)
{
    uint64_t tail = 0;
    size_t count = whole_entries(field(fixture->manifest, "entries_in_file_order"), cut, &tail);
    if (count == 0 && cut > 0) {
        store_open_fails(path, &open_reading, RD_E_NOT_STORE); /* */
        return;
    }
    rd_fault fault = {0};
    rd_store *store = NULL;
    rd_err err = rd_store_open(path, &open_reading, &fault, &store);
    if (err == RD_E_DAMAGED && cut_looks_damaged(fixture->name, cut))
        return;
    EXPECT(err == RD_OK, "%s cut at %zu: %s (%s)", fixture->name, cut, rd_err_text(err), fault.text);
    rd_store_info info = store_info(store);
    EXPECT(info.tail_off == tail, "%s cut at %zu: tail %llu", fixture->name, cut, (unsigned long long)info.tail_off);
    EXPECT(info.unread_bytes == cut - tail, "%s cut at %zu", fixture->name, cut);
    EXPECT(info.file_size == cut, "%s cut at %zu", fixture->name, cut);
    EXPECT(info.entries == count, "%s cut at %zu: %llu", fixture->name, cut, (unsigned long long)info.entries);
    EXPECT(info.live_keys == expect_prefix(store, fixture, count, cut), "%s cut at %zu", fixture->name, cut);
    rd_store_close(store);
}

static void expect_cut_write(const struct fixture *fixture, const char *path, size_t cut)
{
    uint64_t tail = 0;
    size_t count = whole_entries(field(fixture->manifest, "entries_in_file_order"), cut, &tail);
    if (tail != cut) {
        store_open_fails(path, &open_writing, count == 0 ? RD_E_NOT_STORE : RD_E_DAMAGED);
        return;
    }
    rd_store *store = store_open_ok(path, &open_writing); /* cut between two entries: as good as new */
    EXPECT(store_info(store).entries == count, "%s cut at %zu", fixture->name, cut);
    rd_store_close(store);
}

static void cut_everywhere(void **state, const char *name)
{
    const char *path = temp_path(state, "s");
    AUTO_FIXTURE fixture = fixture_get(name);
    for (size_t cut = 0; cut <= fixture.file.len; cut++) {
        file_save(path, fixture.file.data, cut);
        expect_cut_read(&fixture, path, cut);
        expect_cut_write(&fixture, path, cut);
        file_expect(path, fixture.file.data, cut, "a cut store");
    }
}

static void torn_tail_costs_only_the_torn_entry(void **state)
{
    cut_everywhere(state, "05_deletes.srd");
}

static void torn_tail_is_found_behind_payloads_that_look_like_trailers(void **state)
{
    cut_everywhere(state, "21_trailer_lookalike.srd");
}

/* ---- damaged/expect.json ---------------------------------------------------------------------------------------- */

/* Torn tails that read as a damaged entry as well: refusing them is allowed until damage is served around. */
static const char *const torn_or_damaged[] = {
    "n_trunc_286.bin",  /* a torn payload that begins with a stored entry (R-04a) */
    "n_trunc_1118.bin", /* the stored store's link points between the last whole entry and the end (R-04f) */
};

static bool is_torn_or_damaged(const char *name)
{
    for (size_t i = 0; i < sizeof torn_or_damaged / sizeof *torn_or_damaged; i++)
        if (strcmp(torn_or_damaged[i], name) == 0)
            return true;
    return false;
}

struct case_ {
    const json_t *json;
    const char *name;
    struct bytes file;
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

/* That one (hash, payload) pair is true, by the rules of expect.json's note. */
static void expect_true_pair(const struct case_ *c, uint64_t hash, rd_span payload)
{
    char hex[17];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)hash);
    bool fine = is_served(field(c->json, "serve"), hex, payload) || is_flipped_hash(c, hash, payload) ||
                is_link_damaged(c, hash, hex, payload);
    EXPECT(fine, "%s: %s is served with %zu bytes", c->name, hex, payload.len);
}

static void expect_not_served(rd_store *store, const struct case_ *c, const char *list)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(c->json, list), i, one)
    {
        rd_entry entry = {0};
        rd_err err = rd_store_read_hash(store, hash_of_hex(json_string_value(one)), &entry);
        if (strcmp(list, "link_damaged") == 0 && err == RD_OK)
            expect_true_pair(c, entry.meta.key_hash, entry.payload);
        else
            EXPECT(err == RD_ABSENT || err == RD_E_DAMAGED, "%s: %s: %s", c->name, list, rd_err_text(err));
        rd_entry_release(&entry);
    }
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
    EXPECT(rd_iter_create(store, &iter) == RD_OK, "%s", c->name);
    for (rd_err err = rd_iter_next(iter, &entry); err != RD_ABSENT; err = rd_iter_next(iter, &entry)) {
        EXPECT(err == RD_OK || err == RD_E_DAMAGED, "%s: %s", c->name, rd_err_text(err));
        if (err == RD_OK)
            expect_true_pair(c, entry.meta.key_hash, entry.payload);
    }
    rd_iter_destroy(iter);
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

static void expect_open(const struct case_ *c, const char *path, const rd_open_options *options)
{
    json_t *opens = field(c->json, "opens");
    bool damage = json_array_size(json_object_get(c->json, "damaged")) > 0 ||
                  json_array_size(json_object_get(c->json, "link_damaged")) > 0 || is_torn_or_damaged(c->name);
    rd_fault fault = {0};
    rd_store *store = NULL;
    rd_err err = rd_store_open(path, options, &fault, &store);
    if (err == RD_E_DAMAGED)
        EXPECT(fault.offset <= c->file.len, "%s: damaged at %llu", c->name, (unsigned long long)fault.offset);
    if (json_is_false(opens))
        EXPECT(err == RD_E_NOT_STORE || err == RD_E_DAMAGED || err == RD_E_ALIGNMENT, "%s: %s", c->name,
               rd_err_text(err));
    else if (json_is_true(opens) && !damage)
        EXPECT(err == RD_OK, "%s: %s (%s)", c->name, rd_err_text(err), fault.text);
    else
        EXPECT(err == RD_OK || err == RD_E_DAMAGED, "%s: %s (%s)", c->name, rd_err_text(err), fault.text);
    if (err != RD_OK)
        return;
    if (json_is_true(opens))
        expect_served(store, c);
    else
        expect_sums(store, c->name);
    rd_store_close(store);
}

/* Opening such a file for writing never changes it at this stage: it is taken as it is, or refused. */
static void expect_writer_keeps_off(const struct case_ *c, const char *path)
{
    rd_store *store = NULL;
    rd_err err = rd_store_open(path, &open_writing, NULL, &store);
    EXPECT(err == RD_OK || err == RD_E_DAMAGED || err == RD_E_NOT_STORE || err == RD_E_ALIGNMENT, "%s: %s", c->name,
           rd_err_text(err));
    EXPECT(err != RD_OK || store_info(store).tail_off == c->file.len, "%s: opened behind a torn tail", c->name);
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

static void damaged_files_serve_what_is_whole_or_are_refused(void **state)
{
    const char *path = temp_path(state, "s");
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
        file_save(path, c.file.data, c.file.len);
        expect_open(&c, path, &open_reading);
        expect_open(&c, path, &open_checked_later);
        expect_writer_keeps_off(&c, path);
        file_expect(path, c.file.data, c.file.len, c.name);
        opened += json_is_true(field(one, "opens"));
        bytes_free(&c.file);
    }
    assert_true(i >= 46 && opened >= 30);
    json_decref(expect);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(torn_tail_costs_only_the_torn_entry),
        TEMP_TEST(torn_tail_is_found_behind_payloads_that_look_like_trailers),
        TEMP_TEST(damaged_files_serve_what_is_whole_or_are_refused),
    };
    return cmocka_run_group_tests_name("recover", tests, NULL, NULL);
}
