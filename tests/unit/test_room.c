/* A write for which there is no room: refused, cut back to the tail, and the store goes on. */
#include "store_internal.h"

#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void limit_set(__rlimit_resource_t resource, rlim_t bytes)
{
    struct rlimit limit;
    EXPECT(getrlimit(resource, &limit) == 0, "%s", strerror(errno));
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    EXPECT(setrlimit(resource, &limit) == 0, "%s", strerror(errno));
}

static void room_limit(rlim_t bytes)
{
    limit_set(RLIMIT_FSIZE, bytes);
}

/* Let the process map `bytes` more than it does. */
static void address_space_limit(rlim_t bytes)
{
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    EXPECT(statm != NULL && fscanf(statm, "%lu", &pages) == 1, "%s", strerror(errno));
    fclose(statm);
    limit_set(RLIMIT_AS, pages * (rlim_t)sysconf(_SC_PAGESIZE) + bytes);
}

static int room_setup(void **state)
{
    signal(SIGXFSZ, SIG_IGN); /* then a write beyond the limit fails with EFBIG */
    return temp_setup(state);
}

static int room_teardown(void **state)
{
    room_limit(RLIM_INFINITY); /* also where the test failed */
    limit_set(RLIMIT_AS, RLIM_INFINITY);
    return temp_teardown(state);
}
#define ROOM_TEST(f) cmocka_unit_test_setup_teardown(f, room_setup, room_teardown)

/* A store with a few entries, and the limit `room` bytes above its tail. */
static rd_store *room_store(void **state, rd_sync sync, uint64_t room)
{
    const rd_open_options options = {.writable = true, .create = true, .sync = sync};
    rd_store *store = store_open_ok(temp_path(state, "s"), &options);
    store_fill(store, 0, 100);
    store_put(store, "k", "value", 5);
    room_limit(store_info(store).tail_off + room);
    return store;
}

static void expect_same(rd_store_info before, rd_store_info after)
{
    assert_int_equal(before.live_keys, after.live_keys);
    assert_int_equal(before.entries, after.entries);
    assert_int_equal(before.tail_off, after.tail_off);
    assert_int_equal(before.file_size, after.file_size);
    assert_int_equal(before.live_bytes, after.live_bytes);
}

static void refused_write_leaves_no_trace(void **state)
{
    const char *path = temp_path(state, "s");
    const uint64_t rooms[] = {0, 1, 63, 64, 100, 4096, 9999};
    const rd_sync modes[] = {RD_SYNC_NONE, RD_SYNC_ALWAYS};
    AUTO_BYTES big = bytes_xorshift(5, 10000);
    for (size_t r = 0; r < sizeof rooms / sizeof *rooms; r++) {
        rd_store *store = room_store(state, modes[r % 2], rooms[r]);
        rd_store_info before = store_info(store);
        rd_written done;
        AUTO_BYTES bytes = file_load(path);
        assert_int_equal(rd_store_write(store, text_span("k"), bytes_span(&big), &done), RD_E_NO_SPACE);
        file_expect(path, bytes.data, bytes.len, "after a refused write");
        expect_same(before, store_info(store));
        store_expect(store, rd_hash(text_span("k")), "value", 5);

        room_limit(RLIM_INFINITY); /* room again: the store goes on where it was */
        store_put(store, "k", big.data, big.len);
        store_expect(store, rd_hash(text_span("k")), big.data, big.len);
        rd_store_close(store);
        store = store_open_ok(path, &open_reading);
        store_expect(store, rd_hash(text_span("k")), big.data, big.len);
        assert_int_equal(rd_store_len(store), 101);
        assert_int_equal(store_info(store).entries, 102);
        rd_store_close(store);
        file_save(path, "", 0);
    }
}

static void small_writes_go_on_where_large_ones_have_no_room(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(5, 10000);
    rd_store *store = room_store(state, RD_SYNC_NONE, 4096);
    rd_written done;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(rd_store_write(store, text_span("big"), bytes_span(&big), &done), RD_E_NO_SPACE);
        store_put(store, "small", "fits", 4);
        store_expect(store, rd_hash(text_span("small")), "fits", 4);
        store_expect_absent(store, rd_hash(text_span("big")));
    }
    assert_int_equal(rd_store_delete(store, text_span("k"), &done), RD_OK);
    rd_store_close(store);
    store = store_open_ok(path, &open_writing);
    assert_int_equal(rd_store_len(store), 101);
    assert_int_equal(store_info(store).entries, 105);
    rd_store_close(store);
}

static void batch_without_room_is_refused_as_a_whole(void **state)
{
    enum { COUNT = 300 };
    const char *path = temp_path(state, "s");
    rd_store *store = room_store(state, RD_SYNC_NONE, 6400); /* for some hundred of them */
    AUTO_BYTES bytes = file_load(path);
    rd_write_item items[COUNT];
    for (uint64_t i = 0; i < COUNT; i++)
        items[i] = (rd_write_item){fill_hash(50 + i), text_span("another value")};
    rd_written done;
    assert_int_equal(rd_store_batch_write(store, items, COUNT, &done), RD_E_NO_SPACE);
    file_expect(path, bytes.data, bytes.len, "after a refused batch");
    for (uint64_t i = 0; i < COUNT + 50; i++) {
        uint64_t value = htole64(i);
        if (i < 100)
            store_expect(store, fill_hash(i), &value, sizeof value);
        else
            store_expect_absent(store, fill_hash(i));
    }
    assert_int_equal(rd_store_len(store), 101);
    room_limit(RLIM_INFINITY);
    assert_int_equal(rd_store_batch_write(store, items, COUNT, &done), RD_OK);
    for (size_t i = 0; i < COUNT; i++)
        store_expect(store, items[i].key_hash, "another value", 13);
    rd_store_close(store);
}

static void delete_without_room_deletes_nothing(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = room_store(state, RD_SYNC_NONE, 30); /* one tombstone fits, two don't */
    uint64_t hashes[2] = {fill_hash(1), fill_hash(2)};
    uint64_t value = htole64(1);
    rd_written done;
    AUTO_BYTES bytes = file_load(path);
    assert_int_equal(rd_store_batch_delete(store, hashes, 2, &done), RD_E_NO_SPACE);
    file_expect(path, bytes.data, bytes.len, "after a refused delete");
    store_expect(store, hashes[0], &value, sizeof value);
    assert_int_equal(rd_store_len(store), 101);
    assert_int_equal(rd_store_batch_delete(store, hashes, 1, &done), RD_OK);
    store_expect_absent(store, hashes[0]);
    rd_store_close(store);
}

/* Of tests that limit the address space: sanitizers map terabytes of their own, so their trees are without these. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITED __attribute__((unused))
#else
#define LIMITED
#define WITH_LIMITED
#endif

/* A store that may reserve little address space has to map anew as it grows; what was read before stays. */
LIMITED static void growing_beyond_the_mapping_keeps_entries_or_is_taken_back(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES big = bytes_xorshift(6, 10 << 20);
    address_space_limit(24 << 20); /* for one mapping of 16 MiB */
    rd_store *store = store_make(state, "s");
    rd_entry early = {0}, late = {0};
    rd_written done;
    store_put(store, "early", "value", 5);
    assert_int_equal(rd_store_read(store, text_span("early"), &early), RD_OK);
    store_put(store, "big-1", big.data, big.len);
    rd_store_info before = store_info(store);
    assert_int_equal(rd_store_write(store, text_span("big-2"), bytes_span(&big), &done), RD_E_NOMEM);
    expect_same(before, store_info(store));
    store_expect_absent(store, rd_hash(text_span("big-2")));
    limit_set(RLIMIT_AS, RLIM_INFINITY);
    AUTO_BYTES want = {0};
    build_entry(&want, rd_hash(text_span("early")), text_span("value"), 64);
    build_entry(&want, rd_hash(text_span("big-1")), bytes_span(&big), 64);
    file_expect(path, want.data, want.len, "after a write that could not be mapped");
    store_put(store, "big-2", big.data, big.len);
    store_expect(store, rd_hash(text_span("big-1")), big.data, big.len);
    store_expect(store, rd_hash(text_span("big-2")), big.data, big.len);
    assert_int_equal(rd_store_read(store, text_span("early"), &late), RD_OK);
    assert_true(span_equal(early.payload, "value", 5)); /* in the mapping of then */
    assert_true(span_equal(late.payload, "value", 5));
    assert_ptr_not_equal(early.payload.data, late.payload.data);
    rd_entry_release(&early);
    rd_entry_release(&late);
    rd_store_close(store);
}

/* A store whose mapping reaches just beyond its value "big" of 10 MiB. */
static rd_store *small_mapping_store(void **state, const struct bytes *big)
{
    address_space_limit(24 << 20); /* for one mapping of 16 MiB */
    rd_store *store = store_make(state, "s");
    store_put(store, "big", big->data, big->len);
    return store;
}

LIMITED static void renaming_beyond_the_mapping_is_taken_back(void **state)
{
    rd_written done;
    AUTO_BYTES big = bytes_xorshift(7, 10 << 20);
    rd_store *store = small_mapping_store(state, &big);
    rd_store_info before = store_info(store);
    assert_int_equal(rd_store_rename(store, text_span("big"), text_span("new"), &done), RD_E_NOMEM);
    expect_same(before, store_info(store));
    store_expect(store, rd_hash(text_span("big")), big.data, big.len);
    limit_set(RLIMIT_AS, RLIM_INFINITY);
    assert_int_equal(rd_store_rename(store, text_span("big"), text_span("new"), &done), RD_OK);
    store_expect(store, rd_hash(text_span("new")), big.data, big.len);
    store_expect_absent(store, rd_hash(text_span("big")));
    rd_store_close(store);
}

/* Both of one group: the value that is renamed lies beyond the mapping, and is not published yet. */
LIMITED static void renaming_what_the_mapping_does_not_reach_yet_maps_anew(void **state)
{
    AUTO_BYTES big = bytes_xorshift(8, 10 << 20);
    rd_store *store = small_mapping_store(state, &big);
    limit_set(RLIMIT_AS, RLIM_INFINITY);
    rd_write_item another = {.key_hash = 1, .payload = bytes_span(&big)};
    rd_key keys[2] = {{.hash = 1}, {.hash = 2}};
    struct commit commits[2] = {{.items = &another, .count = 1}, {.keys = keys, .count = 2, .rename = true}};
    struct commit *group[2] = {&commits[0], &commits[1]};
    store_commit(store, group, 2);
    assert_int_equal(commits[0].err, RD_OK);
    assert_int_equal(commits[1].err, RD_OK);
    store_expect(store, 2, big.data, big.len);
    store_expect_absent(store, 1);
    rd_store_close(store);
}

/* Just above a power of two the mapping alone would take all there is. */
LIMITED static void opening_leaves_address_space_for_the_index(void **state)
{
    static const rd_open_options options = {.index = "off"};
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 100000); /* 6.4 MB, and 2 of index */
    rd_store_close(store);
    for (size_t mib = 32; mib <= 256; mib *= 2) {
        address_space_limit((mib + 1) << 20);
        store = store_open_ok(temp_path(state, "s"), &options);
        limit_set(RLIMIT_AS, RLIM_INFINITY);
        assert_int_equal(rd_store_len(store), 100000);
        rd_store_close(store);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROOM_TEST(refused_write_leaves_no_trace),
        ROOM_TEST(small_writes_go_on_where_large_ones_have_no_room),
        ROOM_TEST(batch_without_room_is_refused_as_a_whole),
        ROOM_TEST(delete_without_room_deletes_nothing),
#ifdef WITH_LIMITED
        ROOM_TEST(growing_beyond_the_mapping_keeps_entries_or_is_taken_back),
        ROOM_TEST(renaming_beyond_the_mapping_is_taken_back),
        ROOM_TEST(renaming_what_the_mapping_does_not_reach_yet_maps_anew),
        ROOM_TEST(opening_leaves_address_space_for_the_index),
#endif
    };
    return cmocka_run_group_tests_name("room", tests, NULL, NULL);
}
