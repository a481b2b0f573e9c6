/* What writing promises, and to whom it becomes visible. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t reserved_payload[1] = {0x00};

static rd_write_item item(const char *key, const char *payload)
{
    return (rd_write_item){rd_hash(text_span(key)), text_span(payload)};
}

static void payloads_the_format_cannot_hold_are_refused(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    rd_written done = {.tail_off = 12345, .deleted_count = 678};
    store_put(store, "k", "value", 5);
    const rd_span bad[] = {{NULL, 0}, {"", 0}, {reserved_payload, 1}}; /* F-09 */
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(rd_store_write(store, text_span("k"), bad[i], &done), RD_E_PAYLOAD);
        assert_int_equal(rd_store_write_hash(store, 7, bad[i], &done), RD_E_PAYLOAD);
    }
    assert_int_equal(done.tail_off, 12345); /* outputs are written only on success */
    assert_int_equal(done.deleted_count, 678);
    assert_int_equal(file_len(path), 25);
    store_expect(store, rd_hash(text_span("k")), "value", 5);
    store_put(store, "k", "\0\0", 2); /* all zero, but two bytes: legal */
    store_expect(store, rd_hash(text_span("k")), "\0\0", 2);
    rd_store_close(store);
}

/* F-13 */
static void one_bad_payload_keeps_the_whole_batch_out(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    rd_write_item items[5] = {item("a", "1"), item("b", "2"), item("c", "3"), item("d", "4"), item("e", "5")};
    for (size_t bad = 0; bad < 5; bad++) {
        rd_write_item batch[5];
        rd_written done;
        memcpy(batch, items, sizeof batch);
        batch[bad].payload = bad % 2 == 0 ? (rd_span){reserved_payload, 1} : (rd_span){NULL, 0};
        assert_int_equal(rd_store_batch_write(store, batch, 5, &done), RD_E_PAYLOAD);
        assert_int_equal(file_len(path), 0);
        assert_true(rd_store_is_empty(store));
    }
    rd_store_close(store);
}

static void batch_of_nothing_writes_nothing(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_written done = store_put(store, "k", "value", 5);
    assert_int_equal(rd_store_batch_write(store, NULL, 0, &done), RD_OK);
    assert_int_equal(done.tail_off, 25);
    assert_int_equal(rd_store_batch_delete(store, NULL, 0, &done), RD_OK);
    assert_int_equal(done.deleted_count, 0);
    assert_int_equal(file_len(temp_path(state, "s")), 25);
    rd_store_close(store);
}

static void last_of_a_key_named_twice_in_a_batch_wins(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_write_item items[3] = {item("k", "first"), item("other", "x"), item("k", "second")};
    rd_written done;
    assert_int_equal(rd_store_batch_write(store, items, 3, &done), RD_OK);
    store_expect(store, items[0].key_hash, "second", 6);
    assert_int_equal(rd_store_len(store), 2);
    assert_int_equal(store_info(store).entries, 3);
    rd_store_close(store);
}

static void deleting_what_is_absent_writes_nothing(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    rd_written done = {0};
    assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK);
    assert_int_equal(done.deleted_count, 0);
    assert_int_equal(file_len(path), 0);
    store_put(store, "k", "value", 5);
    assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK);
    assert_int_equal(done.deleted_count, 1);
    assert_int_equal(done.tail_off, 46);
    assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK); /* F-14 */
    assert_int_equal(done.deleted_count, 0);
    assert_int_equal(done.tail_off, 46);
    rd_store_close(store);
    store = store_open_ok(path, &open_writing); /* E-07: nor after a reopen */
    assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK);
    assert_int_equal(done.deleted_count, 0);
    assert_int_equal(rd_store_len(store), 0);
    assert_true(rd_store_is_empty(store));
    rd_store_close(store);
    assert_int_equal(file_len(path), 46);
}

static void batch_that_deletes_a_key_twice_writes_two_tombstones(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    uint64_t hash = rd_hash(text_span("k"));
    uint64_t hashes[4] = {hash, 12345, hash, 54321}; /* F-14: the absent ones leave no trace */
    rd_written done = {0};
    assert_int_equal(rd_store_batch_delete(store, hashes, 4, &done), RD_OK);
    assert_int_equal(done.deleted_count, 2);
    assert_int_equal(done.tail_off, 25 + 2 * 21);
    store_expect_absent(store, hash);
    assert_int_equal(rd_store_len(store), 0);
    assert_int_equal(store_info(store).entries, 3);
    rd_store_close(store);

    struct bytes want = {0};
    build_entry(&want, hash, text_span("value"), 64);
    build_tombstone(&want, hash);
    build_tombstone(&want, hash);
    file_expect(path, want.data, want.len, "two tombstones");
    bytes_free(&want);
}

static void deleted_key_can_be_written_again(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_written done;
    rd_entry last = {0};
    for (int round = 0; round < 3; round++) {
        store_put(store, "k", "value", 5);
        store_expect(store, rd_hash(text_span("k")), "value", 5);
        assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK);
        assert_int_equal(done.deleted_count, 1);
        assert_int_equal(rd_store_read_last(store, &last), RD_OK);
        assert_true(last.meta.tombstone && last.payload.len == 0); /* E-11 */
        rd_entry_release(&last);
    }
    assert_int_equal(store_info(store).entries, 6);
    assert_int_equal(store_info(store).live_bytes, 0);
    rd_store_close(store);
}

static void reader_cannot_write(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_put(store, "k", "value", 5);
    rd_store_close(store);
    store = store_open_ok(path, &open_reading);
    rd_write_item one = item("k", "new");
    rd_written done;
    assert_int_equal(rd_store_write(store, text_span("k"), text_span("new"), &done), RD_E_READ_ONLY);
    assert_int_equal(rd_store_write_hash(store, 1, text_span("new"), &done), RD_E_READ_ONLY);
    assert_int_equal(rd_store_batch_write(store, &one, 1, &done), RD_E_READ_ONLY);
    assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_E_READ_ONLY);
    assert_int_equal(rd_store_batch_delete(store, &one.key_hash, 1, &done), RD_E_READ_ONLY);
    assert_int_equal(rd_store_sync(store), RD_E_READ_ONLY);
    store_expect(store, one.key_hash, "value", 5);
    rd_store_close(store);
    assert_int_equal(file_len(path), 25);
}

/* E-09 */
static void only_a_synced_write_is_called_durable(void **state)
{
    const rd_open_options always = {.writable = true, .create = true, .sync = RD_SYNC_ALWAYS};
    rd_store *store = store_make(state, "none");
    rd_written done = store_put(store, "k", "value", 5);
    assert_false(done.durable);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "always"), &always);
    assert_true(store_put(store, "k", "value", 5).durable);
    assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK);
    assert_true(done.durable);
    assert_int_equal(rd_store_sync(store), RD_OK);
    rd_store_close(store);
}

static void every_hash_is_legal(void **state)
{
    const char *path = temp_path(state, "s");
    const uint64_t hashes[] = {0, 1, UINT64_MAX, UINT64_MAX - 1, UINT64_C(1) << 63, UINT64_C(0x2d06800538d394c2)};
    enum { COUNT = sizeof hashes / sizeof *hashes };
    rd_store *store = store_make(state, "s");
    rd_written done;
    for (size_t i = 0; i < COUNT; i++) {
        store_expect_absent(store, hashes[i]);
        assert_int_equal(rd_store_write_hash(store, hashes[i], (rd_span){&hashes[i], 8}, &done), RD_OK);
    }
    store_fill(store, 0, 1000); /* nor does one get lost as the index grows */
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < COUNT; i++)
            store_expect(store, hashes[i], &hashes[i], 8);
        assert_int_equal(rd_store_len(store), COUNT + 1000);
        rd_entry entry;
        assert_int_equal(rd_store_read(store, text_span(""), &entry), RD_OK); /* the empty key is the last of them */
        rd_entry_release(&entry);
        rd_store_close(store);
        store = store_open_ok(path, &open_writing);
    }
    assert_int_equal(rd_store_batch_delete(store, hashes, COUNT, &done), RD_OK);
    assert_int_equal(done.deleted_count, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        store_expect_absent(store, hashes[i]);
    rd_store_close(store);
}

static void batch_of_5000_is_written_in_its_order(void **state)
{
    enum { COUNT = 5000 };
    const char *path = temp_path(state, "s");
    uint64_t *values = calloc(COUNT, sizeof *values);
    rd_write_item *items = calloc(COUNT, sizeof *items);
    struct bytes want = {0};
    assert_true(values != NULL && items != NULL);
    for (uint64_t i = 0; i < COUNT; i++) {
        values[i] = i;
        items[i] = (rd_write_item){fill_hash(i), {&values[i], 1 + i % 8}};
        if (i % 256 == 0)
            items[i].payload.len = 8; /* not the reserved byte */
        build_entry(&want, items[i].key_hash, items[i].payload, 64);
    }
    rd_store *store = store_make(state, "s");
    rd_written done;
    assert_int_equal(rd_store_batch_write(store, items, COUNT, &done), RD_OK);
    assert_int_equal(done.tail_off, want.len);
    assert_int_equal(rd_store_len(store), COUNT);
    for (size_t i = 0; i < COUNT; i++)
        store_expect(store, items[i].key_hash, items[i].payload.data, items[i].payload.len);
    rd_store_close(store);
    file_expect(path, want.data, want.len, "batch");
    bytes_free(&want);
    free(items);
    free(values);
}

static void payload_of_several_mib_reads_back(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(77, (5 << 20) + 3);
    rd_store *store = store_make(state, "s");
    store_put(store, "before", "1", 1);
    store_put(store, "big", big.data, big.len);
    store_put(store, "after", "2", 1);
    const rd_verify modes[] = {RD_VERIFY_FIRST, RD_VERIFY_ALWAYS, RD_VERIFY_OFF};
    for (size_t m = 0; m < 3; m++) {
        store_expect(store, rd_hash(text_span("big")), big.data, big.len);
        store_expect(store, rd_hash(text_span("big")), big.data, big.len);
        store_expect(store, rd_hash(text_span("before")), "1", 1);
        store_expect(store, rd_hash(text_span("after")), "2", 1);
        rd_store_close(store);
        rd_open_options options = {.verify = modes[m]};
        store = store_open_ok(path, &options);
    }
    store_expect(store, rd_hash(text_span("big")), big.data, big.len);
    rd_store_close(store);
}

static void *release_entries(void *arg)
{
    rd_entry *entries = arg;
    for (size_t i = 0; i < 100; i++)
        rd_entry_release(&entries[i]);
    return NULL;
}

static void entries_stay_valid_while_the_store_grows_and_die_on_any_thread(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_entry entries[100];
    store_fill(store, 0, 100);
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(rd_store_read_hash(store, fill_hash(i), &entries[i]), RD_OK);
    uint64_t index_bytes = store_info(store).index_bytes;
    store_fill(store, 50, 100000); /* the first fifty are only outgrown, the others superseded too */
    rd_written done;
    assert_int_equal(rd_store_delete(store, text_span("key-3"), &done), RD_OK);
    assert_true(store_info(store).index_bytes > index_bytes);
    assert_int_equal(rd_store_len(store), 100050 - 1);
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(entries[i].payload.len, 8);
        assert_int_equal(load_le64(entries[i].payload.data), i);
        assert_int_equal(entries[i].meta.key_hash, fill_hash(i));
    }
    for (uint64_t i = 0; i < 100050; i += 97) {
        uint64_t value = htole64(i);
        store_expect(store, fill_hash(i), &value, sizeof value);
    }
    store_expect_absent(store, fill_hash(3));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, release_entries, entries), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    rd_store_close(store);
}

static void iteration_ends_at_the_tail_it_began_with(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_iter *iter = NULL;
    rd_entry entry;
    rd_written done;
    store_fill(store, 0, 100);
    assert_int_equal(rd_iter_create(store, &iter), RD_OK);
    for (uint64_t i = 100; i-- > 50;) {
        assert_int_equal(rd_iter_next(iter, &entry), RD_OK);
        assert_int_equal(load_le64(entry.payload.data), i);
    }
    store_fill(store, 0, 2000);
    assert_int_equal(rd_store_delete(store, text_span("key-7"), &done), RD_OK);
    for (uint64_t i = 50; i-- > 0;) {
        assert_int_equal(rd_iter_next(iter, &entry), RD_OK);
        assert_int_equal(load_le64(entry.payload.data), i);
    }
    assert_int_equal(rd_iter_next(iter, &entry), RD_ABSENT);
    rd_iter_destroy(iter);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(payloads_the_format_cannot_hold_are_refused),
        TEMP_TEST(one_bad_payload_keeps_the_whole_batch_out),
        TEMP_TEST(batch_of_nothing_writes_nothing),
        TEMP_TEST(last_of_a_key_named_twice_in_a_batch_wins),
        TEMP_TEST(deleting_what_is_absent_writes_nothing),
        TEMP_TEST(batch_that_deletes_a_key_twice_writes_two_tombstones),
        TEMP_TEST(deleted_key_can_be_written_again),
        TEMP_TEST(reader_cannot_write),
        TEMP_TEST(only_a_synced_write_is_called_durable),
        TEMP_TEST(every_hash_is_legal),
        TEMP_TEST(batch_of_5000_is_written_in_its_order),
        TEMP_TEST(payload_of_several_mib_reads_back),
        TEMP_TEST(entries_stay_valid_while_the_store_grows_and_die_on_any_thread),
        TEMP_TEST(iteration_ends_at_the_tail_it_began_with),
    };
    return cmocka_run_group_tests_name("write", tests, NULL, NULL);
}
