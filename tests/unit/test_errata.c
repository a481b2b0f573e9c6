/* What the crate gets wrong is right here: ERRATA.md, where no other test is about the very thing. */
#include "support.h"

#include <string.h>

/* ---- E-02 ------------------------------------------------------------------------------------------------------- */

/* Values of 8 bytes, so that pads and payloads are full of places that look like the end of a chain. */
static struct bytes make_small_values(void **state)
{
    rd_store *store = store_make(state, "made");
    store_fill(store, 0, 20);
    rd_store_close(store);
    return file_load(temp_path(state, "made"));
}

static void expect_first(void **state, const struct bytes *file, uint64_t count, const char *harm, size_t number)
{
    const char *path = temp_path(state, "s");
    file_save(path, file->data, file->len);
    rd_store *store = store_open_ok(path, &open_reading);
    for (uint64_t i = 0; i < count; i++) {
        rd_entry entry = {0};
        rd_err err = rd_store_read_hash(store, fill_hash(i), &entry);
        EXPECT(err == RD_OK && span_equal(entry.payload, &i, sizeof i), "%s %zu: entry %llu", harm, number,
               (unsigned long long)i);
        rd_entry_release(&entry);
    }
    rd_store_close(store);
}

static void harm_at_the_end_never_costs_what_was_written_before(void **state)
{
    static const uint8_t zeros[100];
    AUTO_BYTES file = make_small_values(state);
    struct bytes cut = file;
    const size_t last_begins = 18 * 64 + 28; /* the 19th entry's end, where the 20th's pad begins */
    for (cut.len = last_begins; cut.len < file.len; cut.len++)
        expect_first(state, &cut, 19, "cut at", cut.len); /* E-02 */
    for (size_t bit = 0; bit < 160; bit++) {
        file.data[file.len - 20 + bit / 8] ^= (uint8_t)(1u << bit % 8);
        expect_first(state, &file, 19, "flipped trailer bit", bit);
        file.data[file.len - 20 + bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t more = 1; more <= sizeof zeros; more++) {
        AUTO_BYTES longer = {0};
        bytes_append(&longer, file.data, file.len);
        bytes_append(&longer, zeros, more);
        expect_first(state, &longer, 20, "zeros appended", more);
    }
}

/* ---- E-08 ------------------------------------------------------------------------------------------------------- */

static void values_of_zeros_are_like_any_other(void **state)
{
    static const uint8_t zeros[84];
    rd_store *store = store_make(state, "s");
    rd_store *target = store_make(state, "target");
    rd_written done;
    for (size_t len = 2; len <= sizeof zeros; len++) { /* E-08; 21 and more hold what looks like an empty trailer */
        store_put(store, "old", zeros, len);
        assert_int_equal(rd_store_rename(store, text_span("old"), text_span("new"), &done), RD_OK);
        store_expect_absent(store, rd_hash(text_span("old")));
        store_expect(store, rd_hash(text_span("new")), zeros, len);
        assert_int_equal(rd_store_copy_hash(store, rd_hash(text_span("new")), target, &done), RD_OK);
        store_expect(target, rd_hash(text_span("new")), zeros, len);
    }
    rd_store_close(target);
    rd_store_close(store);
    store = store_open_ok(temp_path(state, "s"), &open_reading);
    store_expect(store, rd_hash(text_span("new")), zeros, sizeof zeros);
    assert_int_equal(store_info(store).unread_bytes, 0);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(harm_at_the_end_never_costs_what_was_written_before),
        TEMP_TEST(values_of_zeros_are_like_any_other),
    };
    return cmocka_run_group_tests_name("errata", tests, NULL, NULL);
}
