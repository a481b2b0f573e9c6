#include "index_file_format.h"
#include "store_internal.h"

#include "indexing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const rd_open_options open_recovering = {.verify = RD_VERIFY_FIRST, .index = "off"};

void indexed_make(void **state)
{
    rd_written done;
    AUTO_BYTES large = bytes_xorshift(9, 100000); /* provisional, where opening finds it */
    unlink(temp_path(state, "s"));
    unlink(temp_path(state, "s.idx"));
    unlink(temp_path(state, "s.writer"));
    rd_store *store = store_make(state, "s");
    store_put(store, "first", "is superseded", 13);
    store_put(store, "large", large.data, large.len);
    store_fill(store, 0, 20);
    store_fill(store, 5, 10);
    store_put(store, "first", "for ever", 8);
    for (unsigned i = 0; i < 5; i++) {
        char key[16];
        snprintf(key, sizeof key, "key-%u", 3 * i);
        assert_int_equal(rd_store_delete(store, text_span(key), &done), RD_OK);
    }
    store_put(store, "key-3", "comes back", 10);
    store_put(store, "last", "one", 3);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
}

rd_indexed index_ok(void **state, const char *name)
{
    rd_indexed done = {0};
    rd_fault fault = {0};
    rd_store *store = store_open_ok(temp_path(state, name), &open_recovering);
    rd_err err = rd_store_save_index(store, NULL, &fault, &done);
    EXPECT(err == RD_OK, "%s: %s (%s)", name, rd_err_text(err), fault.text);
    rd_store_close(store);
    return done;
}

rd_index_source source_of(void **state, const char *name)
{
    rd_store *store = store_open_ok(temp_path(state, name), &open_reading);
    rd_index_source source = store_info(store).index_source;
    rd_store_close(store);
    return source;
}

static void expect_same_info(rd_store *indexed, rd_store *recovered, const char *what)
{
    rd_store_info a = store_info(indexed);
    rd_store_info b = store_info(recovered);
    a.index_source = b.index_source;
    a.index_bytes = b.index_bytes;
    EXPECT(memcmp(&a, &b, sizeof a) == 0,
           "%s: figures differ: keys %llu/%llu, entries %llu/%llu, tail %llu/%llu, bytes %llu/%llu, reclaimable "
           "%llu/%llu, damaged %llu/%llu",
           what, (unsigned long long)a.live_keys, (unsigned long long)b.live_keys, (unsigned long long)a.entries,
           (unsigned long long)b.entries, (unsigned long long)a.tail_off, (unsigned long long)b.tail_off,
           (unsigned long long)a.live_bytes, (unsigned long long)b.live_bytes, (unsigned long long)a.reclaimable_bytes,
           (unsigned long long)b.reclaimable_bytes, (unsigned long long)a.damaged_entries,
           (unsigned long long)b.damaged_entries);
}

/* What readers know of the file beside its index. */
static void expect_same_layout(rd_store *indexed, rd_store *recovered, const char *what)
{
    struct snapshot a;
    struct snapshot b;
    store_snapshot(indexed, &a);
    store_snapshot(recovered, &b);
    const struct layout *one = a.mapping->layout;
    const struct layout *other = b.mapping->layout;
    EXPECT(one->damage_count == other->damage_count && memcmp(one->counts, other->counts, sizeof one->counts) == 0,
           "%s: %zu and %zu damaged ranges", what, one->damage_count, other->damage_count);
    for (size_t i = 0; i < one->damage_count; i++) {
        const struct damage *left = &one->damage[i];
        const struct damage *right = &other->damage[i];
        EXPECT(left->begin_off == right->begin_off && left->end_off == right->end_off && left->kind == right->kind &&
                   left->has_key == right->has_key && (!left->has_key || left->key_hash == right->key_hash),
               "%s: damaged range %zu", what, i);
    }
    size_t found = 0; /* a recovery that meets a torn tail leaves none provisional */
    for (size_t i = 0; i < one->provisional_count && found < other->provisional_count; i++)
        found += one->provisional[i] == other->provisional[found];
    EXPECT(found == other->provisional_count, "%s: %zu of %zu provisional payloads", what, found,
           other->provisional_count);
    snapshot_release(&a);
    snapshot_release(&b);
}

static void expect_same_key(rd_store *indexed, rd_store *recovered, uint64_t hash, const char *what)
{
    rd_entry a = {0};
    rd_entry b = {0};
    rd_err one = rd_store_read_hash(indexed, hash, &a);
    rd_err other = rd_store_read_hash(recovered, hash, &b);
    EXPECT(one == other, "%s: %016llx: %s, and recovered %s", what, (unsigned long long)hash, rd_err_text(one),
           rd_err_text(other));
    EXPECT(one != RD_OK || (span_equal(a.payload, b.payload.data, b.payload.len) && a.meta.prev_off == b.meta.prev_off),
           "%s: %016llx", what, (unsigned long long)hash);
    rd_entry_release(&a);
    rd_entry_release(&b);
}

/* Every slot of the recovered index, deleted and damaged keys included. */
static void expect_same_keys(rd_store *indexed, rd_store *recovered, const char *what)
{
    const struct index *one = &indexed->view->index;
    const struct index *other = &recovered->view->index;
    static const uint64_t compared = WORD_OFFSET_MASK | WORD_TOMBSTONE | WORD_DAMAGED;
    struct sighting *sightings = calloc(BLOCK_SLOTS, sizeof *sightings);
    struct index_cursor cursor = {0};
    EXPECT(sightings != NULL, "no memory");
    EXPECT(index_used(one) == index_used(other), "%s: %zu and %zu slots", what, index_used(one), index_used(other));
    while (!cursor.ended) {
        size_t count;
        EXPECT(index_scan(other, &cursor, sightings, &count) == RD_OK, "%s", what);
        for (size_t i = 0; i < count; i++) {
            uint64_t word = index_find(one, sightings[i].hash);
            EXPECT((word & compared) == (sightings[i].word & compared), "%s: %016llx: %llx and %llx", what,
                   (unsigned long long)sightings[i].hash, (unsigned long long)word,
                   (unsigned long long)sightings[i].word);
            expect_same_key(indexed, recovered, sightings[i].hash, what);
        }
    }
    free(sightings);
}

static void expect_same_walk(rd_store *indexed, rd_store *recovered, const char *what)
{
    rd_iter *a = NULL;
    rd_iter *b = NULL;
    assert_int_equal(rd_iter_create(indexed, &a), RD_OK);
    assert_int_equal(rd_iter_create(recovered, &b), RD_OK);
    rd_err err = RD_OK;
    while (err != RD_ABSENT) {
        rd_entry one;
        rd_entry other;
        err = rd_iter_next(a, &one);
        rd_err want = rd_iter_next(b, &other);
        EXPECT(err == want && one.meta.key_hash == other.meta.key_hash, "%s: iteration", what);
    }
    rd_iter_destroy(a);
    rd_iter_destroy(b);
}

rd_index_source source_if_same(void **state, const char *name, const char *what)
{
    rd_store *indexed = store_open_ok(temp_path(state, name), &open_reading);
    rd_store *recovered = store_open_ok(temp_path(state, name), &open_recovering);
    rd_index_source source = store_info(indexed).index_source;
    assert_int_equal(store_info(recovered).index_source, RD_INDEX_OFF);
    expect_same_info(indexed, recovered, what);
    expect_same_layout(indexed, recovered, what);
    expect_same_keys(indexed, recovered, what);
    expect_same_walk(indexed, recovered, what);
    rd_store_close(indexed);
    rd_store_close(recovered);
    return source;
}

void expect_source(void **state, const char *name, rd_index_source want, const char *what)
{
    rd_index_source source = source_if_same(state, name, what);
    EXPECT(source == want, "%s: %s, and not %s", what, rd_index_text(source), rd_index_text(want));
}

void copy_file(const char *from, const char *to)
{
    struct stat st;
    AUTO_BYTES file = file_load(from);
    unlink(to);
    file_save(to, file.data, file.len);
    assert_int_equal(stat(from, &st), 0);
    assert_int_equal(chmod(to, st.st_mode & 0777), 0);
}

void index_reseal(struct bytes *file)
{
    struct raw_index_head *head = (struct raw_index_head *)file->data;
    struct index_places places;
    if (file->len < sizeof *head || !index_places_of(head, &places) || places.file_len != file->len)
        return;
    for (uint64_t n = 0; n < places.pieces; n++) {
        uint64_t len;
        uint64_t offset = index_piece(head, &places, n, &len);
        store_le64(file->data + places.sums_off + n * sizeof(uint64_t),
                   index_sum(file->data + places.slots_off + offset, len));
    }
    store_le64(head->checksum, index_front_sum(file->data, &places));
}
