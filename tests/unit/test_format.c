/* What FORMAT.md says of the bytes and no replayed fixture shows by itself. */
#include "support.h"

#include <string.h>

/* ---- F-02 to F-04: where entries lie ---------------------------------------------------------------------------- */

static uint32_t le32_at(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

/* Payloads of 1, 2, 3 … bytes: each pad there can be, and each offset in a cache line that a trailer can have. */
static void payloads_begin_at_multiples_of_64_behind_zeros(void **state)
{
    static const uint8_t zeros[64];
    uint8_t payload[200];
    memset(payload, 0xa5, sizeof payload);
    rd_store *store = store_make(state, "s");
    rd_written done;
    for (size_t len = 1; len <= sizeof payload; len++)
        assert_int_equal(rd_store_write_hash(store, len, (rd_span){payload, len}, &done), RD_OK);
    rd_store_close(store);
    AUTO_BYTES file = file_load(temp_path(state, "s"));
    size_t tail = 0;
    for (size_t len = 1; len <= sizeof payload; len++) {
        size_t pad = (64 - tail % 64) % 64; /* F-02 */
        const uint8_t *trailer = file.data + tail + pad + len;
        EXPECT((size_t)(trailer - file.data) + 20 <= file.len, "%zu bytes", len);
        EXPECT(memcmp(file.data + tail, zeros, pad) == 0 && memcmp(trailer - len, payload, len) == 0, "%zu bytes", len);
        EXPECT(load_le64(trailer) == len, "%zu bytes: hash", len);      /* F-03 */
        EXPECT(load_le64(trailer + 8) == tail, "%zu bytes: link", len); /* F-04 */
        EXPECT(le32_at(trailer + 16) == sum_crc32(payload, len), "%zu bytes: checksum", len);
        tail = (size_t)(trailer - file.data) + 20;
    }
    assert_int_equal(tail, file.len);
}

/* ---- F-06 ------------------------------------------------------------------------------------------------------- */

static void checksum_is_crc_32_and_covers_the_payload_alone(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_metadata first, again;
    store_put(store, "a", "123456789", 9);
    assert_int_equal(rd_store_metadata(store, text_span("a"), &first), RD_OK);
    assert_int_equal(first.checksum, 0xcbf43926); /* F-06; CRC-32C would be e3069283 (E-01) */
    store_put(store, "another key, link and pad", "123456789", 9);
    assert_int_equal(rd_store_metadata(store, text_span("another key, link and pad"), &again), RD_OK);
    assert_int_equal(again.checksum, first.checksum);
    assert_int_not_equal(again.prev_off, first.prev_off);
    rd_store_close(store);
}

/* ---- F-10 ------------------------------------------------------------------------------------------------------- */

static void link_above_256_tib_never_holds(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store *store = store_make(state, "s");
    store_put(store, "a", "first", 5);
    uint64_t tail = store_put(store, "b", "second", 6).tail_off;
    assert_int_equal(rd_store_sync(store), RD_OK); /* else STORE.writer would call it torn */
    rd_store_close(store);
    for (unsigned bit = 48; bit < 64; bit++) { /* F-10 */
        file_poke(path, tail - 12 + bit / 8, (uint8_t)(1u << bit % 8));
        store = store_open_ok(path, &open_reading);
        assert_int_equal(rd_store_exists(store, text_span("b")), RD_E_DAMAGED);
        store_expect(store, rd_hash(text_span("a")), "first", 5);
        rd_store_close(store);
        file_poke(path, tail - 12 + bit / 8, (uint8_t)(1u << bit % 8));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(payloads_begin_at_multiples_of_64_behind_zeros),
        TEMP_TEST(checksum_is_crc_32_and_covers_the_payload_alone),
        TEMP_TEST(link_above_256_tib_never_holds),
    };
    return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
