#include "compacting.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

rd_compacted compact_ok(rd_store *store)
{
    rd_compacted done = {0};
    rd_fault fault = {0};
    rd_err err = rd_store_compact(store, NULL, &fault, &done);
    EXPECT(err == RD_OK, "compact: %s (%s)", rd_err_text(err), fault.text);
    return done;
}

void compact_fails(rd_store *store, const char *path, const rd_compact_options *options, rd_err want, const char *part)
{
    AUTO_BYTES before = file_load(path);
    rd_compacted done = {.entries = 12345};
    rd_fault fault = {0};
    char left_over[512];
    uint64_t generation = store_info(store).generation;
    rd_err err = rd_store_compact(store, options, &fault, &done);
    EXPECT(err == want, "%s instead of %s (%s)", rd_err_text(err), rd_err_text(want), fault.text);
    EXPECT(strstr(fault.text, part) != NULL && strchr(fault.text, '\n') == NULL, "%s: %s", part, fault.text);
    assert_int_equal(done.entries, 12345);
    file_expect(path, before.data, before.len, "after a refused compaction");
    EXPECT(want == RD_E_DAMAGED || store_info(store).generation == generation, "%s", rd_err_text(want));
    snprintf(left_over, sizeof left_over, "%s.compact", path);
    EXPECT(access(left_over, F_OK) != 0 || want == RD_E_LOCKED || want == RD_E_BUSY, "%s is left", left_over);
}

void remove_key(rd_store *store, uint64_t hash)
{
    rd_written done;
    rd_err err = rd_store_batch_delete(store, &hash, 1, &done);
    EXPECT(err == RD_OK && done.deleted_count == 1, "delete: %s", rd_err_text(err));
}

void put_hash(rd_store *store, uint64_t hash, rd_span payload)
{
    rd_written done;
    rd_err err = rd_store_write_hash(store, hash, payload, &done);
    EXPECT(err == RD_OK, "write: %s", rd_err_text(err));
}

rd_store *make_mixed(void **state, struct bytes *want)
{
    AUTO_BYTES large = bytes_xorshift(3, 100000);
    AUTO_BYTES larger = bytes_xorshift(4, 70000);
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 300);
    put_hash(store, 1, text_span("superseded"));
    put_hash(store, 2, bytes_span(&large));
    put_hash(store, 3, bytes_span(&larger));
    put_hash(store, 1, (rd_span){"\0\0", 2});
    store_fill(store, 100, 100); /* once more */
    for (uint64_t i = 0; i < 50; i++)
        remove_key(store, fill_hash(2 * i));
    remove_key(store, 3);
    put_hash(store, UINT64_MAX, text_span("last"));

    for (uint64_t i = 0; i < 300; i++) {
        uint64_t value = htole64(i);
        if ((i < 100 && i % 2 != 0) || i >= 200)
            build_entry(want, fill_hash(i), (rd_span){&value, sizeof value}, 64);
    }
    build_entry(want, 2, bytes_span(&large), 64);
    build_entry(want, 1, (rd_span){"\0\0", 2}, 64);
    for (uint64_t i = 100; i < 200; i++) {
        uint64_t value = htole64(i);
        build_entry(want, fill_hash(i), (rd_span){&value, sizeof value}, 64);
    }
    build_entry(want, UINT64_MAX, text_span("last"), 64);
    return store;
}

void expect_mixed(rd_store *store)
{
    AUTO_BYTES large = bytes_xorshift(3, 100000);
    for (uint64_t i = 0; i < 300; i++) {
        uint64_t value = htole64(i);
        if (i < 100 && i % 2 == 0)
            store_expect_absent(store, fill_hash(i));
        else
            store_expect(store, fill_hash(i), &value, sizeof value);
    }
    store_expect(store, 1, "\0\0", 2);
    store_expect(store, 2, large.data, large.len);
    store_expect_absent(store, 3);
    store_expect(store, UINT64_MAX, "last", 4);
    assert_int_equal(rd_store_len(store), 253);
}
