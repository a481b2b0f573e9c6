/* R-07 without a clock: how many bytes recovery checksums, counted where it asks libdeflate for a sum. */
#include "hostile.h"

#include <libdeflate.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define ENTRIES  ((uint64_t)20000)
#define HOLE_LEN ((UINT64_C(64) << 20) + 10 * UINT64_C(4096))

/* A range's CRC takes at most two steps of 4 KiB from the kept prefixes; of these files, a candidate
   lies at each 8 bytes at most.
 */
#define SUMMED_MAX(len) ((len) / 8 * 2 * 4096 + 4 * (len))

static _Atomic uint64_t summed;

/* Set once so many bytes are summed. */
static _Atomic uint64_t cancel_at = UINT64_MAX;
static atomic_bool cancel;

/* The linker puts it in libdeflate_crc32's place (--wrap). */
uint32_t __real_libdeflate_crc32(uint32_t crc, const void *data, size_t len);
uint32_t __wrap_libdeflate_crc32(uint32_t crc, const void *data, size_t len);

uint32_t __wrap_libdeflate_crc32(uint32_t crc, const void *data, size_t len)
{
    if (atomic_fetch_add(&summed, len) + len >= atomic_load(&cancel_at))
        atomic_store(&cancel, true);
    return __real_libdeflate_crc32(crc, data, len);
}

/* Bytes summed while a file with this harm is opened. */
static uint64_t sum_opening(void **state, enum hostile kind, uint64_t count, uint64_t *out_len)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES file = hostile_build(kind, count);
    file_save(path, file.data, file.len);
    atomic_store(&summed, 0);
    rd_store *store = store_open_ok(path, &open_reading);
    uint64_t bytes = atomic_load(&summed);
    uint64_t whole = hostile_whole(kind, count);
    EXPECT(store_info(store).entries == whole, "%s: %llu of %llu entries", hostile_text(kind),
           (unsigned long long)store_info(store).entries, (unsigned long long)whole);
    rd_store_close(store);
    *out_len = file.len;
    return bytes;
}

static void four_times_the_entries_cost_four_times_the_sums(void **state)
{
    for (enum hostile kind = 0; kind < HOSTILE_KINDS; kind++) {
        uint64_t small_len, large_len;
        uint64_t small = sum_opening(state, kind, ENTRIES, &small_len);
        uint64_t large = sum_opening(state, kind, 4 * ENTRIES, &large_len);
        print_message("%-40s %8.1f and %8.1f summed bytes a byte\n", hostile_text(kind),
                      (double)small / (double)small_len, (double)large / (double)large_len);
        EXPECT(small > 0 && large <= small / 5 * 24, "%s: %llu, then %llu bytes", hostile_text(kind),
               (unsigned long long)small, (unsigned long long)large); /* 4 × 1.2 */
        EXPECT(large <= SUMMED_MAX(large_len), "%s: %llu bytes of %llu", hostile_text(kind), (unsigned long long)large,
               (unsigned long long)large_len);
    }
}

/* An intact file is summed once, pads and trailers never. */
static void intact_file_is_summed_once(void **state)
{
    uint64_t len;
    uint64_t bytes = sum_opening(state, HOSTILE_NONE, ENTRIES, &len);
    EXPECT(bytes >= 8 * ENTRIES && bytes <= 2 * 8 * ENTRIES, "%llu bytes of %llu", (unsigned long long)bytes,
           (unsigned long long)len);
}

/* Open 64 MiB of a hole behind ten entries, cancelled once `bytes` are summed. Returns: how many were, then. */
static uint64_t cancel_opening(void **state, uint64_t bytes)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES file = hostile_build(HOSTILE_NONE, 10);
    file_save(path, file.data, file.len);
    assert_int_equal(truncate(path, (off_t)HOLE_LEN), 0);
    const rd_open_options options = {.cancel = &cancel};
    rd_fault fault;
    rd_store *store = NULL;
    atomic_store(&cancel, false);
    atomic_store(&summed, 0);
    atomic_store(&cancel_at, bytes);
    rd_err err = rd_store_open(path, &options, &fault, &store);
    atomic_store(&cancel_at, UINT64_MAX);
    rd_store_close(store);
    assert_int_equal(err, RD_E_CANCELLED);
    return atomic_load(&summed);
}

static void check_of_a_payload_as_long_as_the_file_can_be_cancelled(void **state)
{
    assert_true(cancel_opening(state, 1) <= HOLE_LEN / 2);
}

/* A hole is summed twice, as what the last trailer seems to be of and for the prefixes; then it is searched. */
static void search_of_a_hole_can_be_cancelled(void **state)
{
    assert_true(cancel_opening(state, 2 * HOLE_LEN - 4096) >= 2 * HOLE_LEN - 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(four_times_the_entries_cost_four_times_the_sums),
        TEMP_TEST(intact_file_is_summed_once),
        TEMP_TEST(check_of_a_payload_as_long_as_the_file_can_be_cancelled),
        TEMP_TEST(search_of_a_hole_can_be_cancelled),
    };
    return cmocka_run_group_tests_name("recover_linear", tests, NULL, NULL);
}
