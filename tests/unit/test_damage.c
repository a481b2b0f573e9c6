/* Damage behind the engine's back, and hostile bytes: refused or served truly, and always in bounded time. */
#include "manifest.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- Payloads damaged behind the engine's back ------------------------------------------------------------------ */

static void damage_done_after_opening_is_seen_by_verify_always(void **state)
{
    const char *path = temp_path(state, "s");
    const rd_open_options always = {.verify = RD_VERIFY_ALWAYS};
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "first value", 11);
    store_put(store, "b", "second value", 12);
    rd_store_close(store);
    store = store_open_ok(path, &always);
    store_expect(store, rd_hash(text_span("a")), "first value", 11);
    file_poke(path, 3, 0x10);
    rd_entry entry = {0};
    assert_int_equal(rd_store_read(store, text_span("a"), &entry), RD_E_DAMAGED);
    assert_null(entry.pin);
    store_expect(store, rd_hash(text_span("b")), "second value", 12);

    rd_span keys[3] = {text_span("a"), text_span("b"), text_span("c")};
    rd_batch_item items[3];
    assert_int_equal(rd_store_batch_read(store, keys, 3, items), RD_OK);
    assert_int_equal(items[0].err, RD_E_DAMAGED); /* alone among its neighbours */
    assert_int_equal(items[1].err, RD_OK);
    assert_int_equal(items[2].err, RD_ABSENT);
    rd_batch_release(items, 3);
    assert_null(items[1].entry.pin);
    rd_batch_release(items, 3); /* empty ones are fine */

    rd_store_close(store);
}

static void presence_and_metadata_touch_no_payload_until_it_is_known_damaged(void **state)
{
    const rd_open_options always = {.verify = RD_VERIFY_ALWAYS};
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "first value", 11);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &always);
    file_poke(temp_path(state, "s"), 3, 0x10);
    rd_metadata meta;
    rd_entry entry = {0};
    assert_int_equal(rd_store_exists(store, text_span("a")), RD_OK);
    assert_int_equal(rd_store_metadata(store, text_span("a"), &meta), RD_OK);
    assert_int_equal(meta.checksum, sum_crc32("first value", 11));
    assert_int_equal(rd_store_read(store, text_span("a"), &entry), RD_E_DAMAGED);
    assert_int_equal(rd_store_exists(store, text_span("a")), RD_E_DAMAGED);
    assert_int_equal(rd_store_metadata(store, text_span("a"), &meta), RD_E_DAMAGED);
    rd_store_close(store);
}

/* Its caller goes on after RD_E_DAMAGED, as the contract says, so each step must get nearer to the end. */
static void iteration_ends_also_where_a_link_is_broken_under_it(void **state)
{
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 5);
    rd_store_close(store);
    for (rd_verify mode = RD_VERIFY_FIRST; mode <= RD_VERIFY_OFF; mode++) {
        rd_open_options options = {.verify = mode};
        rd_iter *iter = NULL;
        rd_entry entry = {0};
        rd_err err = RD_OK;
        int steps = 0;
        store = store_open_ok(temp_path(state, "s"), &options);
        assert_int_equal(rd_iter_create(store, &iter), RD_OK);
        file_poke(temp_path(state, "s"), 2 * 64 + 8 + 15, 0x80); /* the top byte of the third entry's link */
        while (err != RD_ABSENT && steps++ < 10)
            err = rd_iter_next(iter, &entry);
        file_poke(temp_path(state, "s"), 2 * 64 + 8 + 15, 0x80);
        assert_int_equal(err, RD_ABSENT);
        rd_iter_destroy(iter);
        rd_store_close(store);
    }
}

/* A store whose key "big" has a payload too large to be checked at opening, with one bit flipped in it. */
static void make_big_damage(void **state, size_t len)
{
    AUTO_BYTES big = bytes_xorshift(9, len);
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "first value", 11);
    store_put(store, "big", big.data, big.len);
    store_put(store, "b", "second value", 12);
    assert_int_equal(rd_store_sync(store), RD_OK); /* else it is torn, and opening finds out */
    rd_store_close(store);
    file_poke(temp_path(state, "s"), 64 + len / 2, 1);
}

static void expect_big_damage(rd_store *store)
{
    rd_entry entry = {0};
    for (int round = 0; round < 2; round++) {
        assert_int_equal(rd_store_read(store, text_span("big"), &entry), RD_E_DAMAGED);
        assert_null(entry.pin);
    }
    store_expect(store, rd_hash(text_span("a")), "first value", 11);
    rd_iter *iter = NULL;
    assert_int_equal(rd_iter_create(store, &iter), RD_OK);
    assert_int_equal(rd_iter_next(iter, &entry), RD_OK);
    assert_int_equal(rd_iter_next(iter, &entry), RD_E_DAMAGED);
    assert_int_equal(entry.meta.key_hash, rd_hash(text_span("big")));
    assert_int_equal(rd_iter_next(iter, &entry), RD_OK); /* and goes on */
    assert_int_equal(entry.meta.key_hash, rd_hash(text_span("a")));
    assert_int_equal(rd_iter_next(iter, &entry), RD_ABSENT);
    rd_iter_destroy(iter);
}

/* E-10 */
static void no_byte_of_a_large_damaged_payload_is_handed_out(void **state)
{
    const char *path = temp_path(state, "s");
    const size_t sizes[] = {(64 << 10) + 1, 1 << 20, (4 << 20) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        make_big_damage(state, sizes[i]);
        for (rd_verify mode = RD_VERIFY_FIRST; mode <= RD_VERIFY_ALWAYS; mode++) {
            rd_open_options options = {.verify = mode};
            rd_store *store = store_open_ok(path, &options);
            expect_big_damage(store);
            rd_store_close(store);
        }
        file_save(path, "", 0);
    }
}

static void verify_off_hands_large_payloads_out_unchecked(void **state)
{
    const rd_open_options off = {.verify = RD_VERIFY_OFF};
    make_big_damage(state, 1 << 20);
    rd_store *store = store_open_ok(temp_path(state, "s"), &off);
    rd_entry entry = {0};
    assert_int_equal(rd_store_read(store, text_span("big"), &entry), RD_OK);
    assert_int_equal(entry.payload.len, 1 << 20);
    assert_int_not_equal(sum_crc32(entry.payload.data, entry.payload.len), entry.meta.checksum);
    rd_entry_release(&entry);
    rd_store_close(store);
}

static void writing_or_deleting_heals_a_damaged_key(void **state)
{
    const char *path = temp_path(state, "s");
    rd_written done;
    make_big_damage(state, 1 << 20);
    rd_store *store = store_open_ok(path, &open_writing);
    expect_big_damage(store);
    store_put(store, "big", "healed", 6);
    store_expect(store, rd_hash(text_span("big")), "healed", 6);
    rd_store_close(store);

    file_save(path, "", 0);
    make_big_damage(state, 1 << 20);
    store = store_open_ok(path, &open_writing);
    expect_big_damage(store);
    assert_int_equal(rd_store_delete(store, text_span("big"), &done), RD_OK);
    assert_int_equal(done.deleted_count, 1); /* F-14 */
    store_expect_absent(store, rd_hash(text_span("big")));
    rd_store_close(store);
}

/* ---- Hostile and foreign bytes ---------------------------------------------------------------------------------- */

/* R-07, E-04: a search that took up each link anew would need hours here, and the test its time limit. */
static void fake_links_at_every_8_bytes_cost_linear_time(void **state)
{
    enum { LINKS = (2 << 20) / 8 };
    const char *path = temp_path(state, "s");
    AUTO_FIXTURE single = fixture_get("02_single.srd");
    for (int kind = 0; kind < 5; kind++) {
        struct bytes file = {.data = malloc(single.file.len + 8 * (size_t)LINKS)};
        assert_non_null(file.data);
        memcpy(file.data, single.file.data, single.file.len);
        for (size_t i = 0; i < LINKS; i++) {
            uint64_t at = single.file.len + 8 * i;
            const uint64_t links[] = {25, 64, i % 2 == 0 ? 0 : at, at / 2, at >= 64 ? at - 61 : 0};
            uint64_t link = htole64(links[kind]);
            memcpy(file.data + at, &link, sizeof link);
        }
        file.len = single.file.len + 8 * (size_t)LINKS;
        file_save(path, file.data, file.len);
        rd_store *store = store_open_ok(path, &open_reading);
        store_expect(store, rd_hash(text_span("hello")), "world", 5);
        EXPECT(store_info(store).entries == 1, "kind %d", kind);
        rd_store_close(store);
        bytes_free(&file);
    }
}

static void random_bytes_are_no_store(void **state)
{
    const char *path = temp_path(state, "s");
    for (uint64_t seed = 1; seed <= 3; seed++) {
        AUTO_BYTES noise = bytes_xorshift(seed, 1 << 20);
        file_save(path, noise.data, noise.len);
        store_open_fails(path, &open_reading, RD_E_NOT_STORE);
        store_open_fails(path, &open_writing, RD_E_NOT_STORE);
        file_expect(path, noise.data, noise.len, "noise");
    }
}

static void text_of_any_length_is_no_store(void **state)
{
    const char *path = temp_path(state, "s");
    char text[100];
    memset(text, 'x', sizeof text);
    for (size_t len = 1; len <= sizeof text; len++) {
        file_save(path, text, len);
        store_open_fails(path, &open_reading, RD_E_NOT_STORE);
        store_open_fails(path, &open_making, RD_E_NOT_STORE); /* E-03: nor emptied */
        file_expect(path, text, len, "text");
    }
}

/* Four bytes behind these that make the CRC of all of them 0. */
static void append_until_crc_is_zero(struct bytes *bytes)
{
    uint32_t patch = ~sum_crc32(bytes->data, bytes->len) ^ UINT32_C(0x9226f562);
    uint32_t raw = htole32(patch);
    bytes_append(bytes, &raw, sizeof raw);
    assert_int_equal(sum_crc32(bytes->data, bytes->len), 0);
}

/* zeros behind bytes whose CRC happens to be 0 read as an entry of hash 0 that spans the whole store. */
static void twenty_equal_bytes_are_never_taken_for_a_trailer(void **state)
{
    static const uint8_t zeros[20];
    const char *path = temp_path(state, "s");
    struct bytes file = {0};
    build_entry(&file, 1, text_span("one"), 64);
    build_entry(&file, 2, text_span("two"), 64);
    size_t tail = file.len;
    append_until_crc_is_zero(&file);
    bytes_append(&file, zeros, sizeof zeros);
    bytes_append(&file, "torn!", 5);
    file_save(path, file.data, file.len);
    rd_store *store = store_open_ok(path, &open_reading);
    store_expect(store, 1, "one", 3);
    store_expect(store, 2, "two", 3);
    store_expect_absent(store, 0);
    assert_int_equal(store_info(store).tail_off, tail);
    rd_store_close(store);
    bytes_free(&file);
}

static void zero_after_a_pad_is_a_deletion(void **state)
{
    const char *path = temp_path(state, "s");
    struct bytes file = {0};
    build_entry(&file, 1, text_span("value"), 64);
    build_entry(&file, 1, (rd_span){"", 1}, 64); /* F-05: never written, but read */
    build_entry(&file, 2, text_span("other"), 64);
    file_save(path, file.data, file.len);
    rd_store *store = store_open_ok(path, &open_reading);
    store_expect_absent(store, 1);
    store_expect(store, 2, "other", 5);
    assert_int_equal(rd_store_len(store), 1);
    assert_int_equal(store_info(store).entries, 3);
    rd_store_close(store);
    bytes_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(damage_done_after_opening_is_seen_by_verify_always),
        TEMP_TEST(presence_and_metadata_touch_no_payload_until_it_is_known_damaged),
        TEMP_TEST(iteration_ends_also_where_a_link_is_broken_under_it),
        TEMP_TEST(no_byte_of_a_large_damaged_payload_is_handed_out),
        TEMP_TEST(verify_off_hands_large_payloads_out_unchecked),
        TEMP_TEST(writing_or_deleting_heals_a_damaged_key),
        TEMP_TEST(fake_links_at_every_8_bytes_cost_linear_time),
        TEMP_TEST(random_bytes_are_no_store),
        TEMP_TEST(text_of_any_length_is_no_store),
        TEMP_TEST(twenty_equal_bytes_are_never_taken_for_a_trailer),
        TEMP_TEST(zero_after_a_pad_is_a_deletion),
    };
    return cmocka_run_group_tests_name("damage", tests, NULL, NULL);
}
