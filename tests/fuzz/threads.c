#include "threads.h"

#include "recover.h"

#include <string.h>

#define ALONE (UINT64_C(1) << 60) /* no file has two such stretches */

struct run {
    rd_err err;
    uint64_t fault_off;
    struct recovered found;
};

static struct run run_recover(rd_span bytes, unsigned threads, uint64_t stretch_len)
{
    const struct recover_options options = {
        .synced_off = SYNCED_UNKNOWN, .threads = threads, .stretch_len = stretch_len};
    struct run run = {.err = RD_OK};
    run.err = recover(bytes.data, bytes.len, &options, &run.fault_off, &run.found);
    return run;
}

static void compare_layouts(const struct layout *alone, const struct layout *together)
{
    REQUIRE(memcmp(alone->counts, together->counts, sizeof(alone->counts)) == 0 &&
                alone->damage_count == together->damage_count &&
                alone->provisional_count == together->provisional_count,
            "threads find another number of ranges");
    for (size_t i = 0; i < alone->damage_count; i++) {
        const struct damage *a = &alone->damage[i], *b = &together->damage[i];
        REQUIRE(a->begin_off == b->begin_off && a->end_off == b->end_off && a->key_hash == b->key_hash &&
                    a->kind == b->kind && a->has_key == b->has_key,
                "threads find another damaged range %zu", i);
    }
}

static void compare_indexes(const struct index *alone, const struct index *together)
{
    static struct sighting sightings[BLOCK_SLOTS];
    struct index_cursor cursor = {0};
    REQUIRE(index_used(alone) == index_used(together), "threads find another number of keys");
    while (!cursor.ended) {
        size_t count = 0;
        REQUIRE(index_scan(alone, &cursor, sightings, &count) == RD_OK, "nobody writes to the index");
        for (size_t i = 0; i < count; i++)
            REQUIRE(index_find(together, sightings[i].hash) == sightings[i].word, "threads find another entry");
    }
}

void threads_check(rd_span bytes)
{
    struct run alone = run_recover(bytes, 1, ALONE);
    struct run together = run_recover(bytes, bytes.len % 8 == 0 ? 2 : 1, bytes.len % 3 == 0 ? 100 : 300);
    REQUIRE(alone.err == together.err, "threads answer '%s' instead of '%s'", rd_err_text(together.err),
            rd_err_text(alone.err));
    if (alone.err != RD_OK) {
        REQUIRE(alone.fault_off == together.fault_off, "threads fail elsewhere");
        return;
    }
    const struct recovered *a = &alone.found, *b = &together.found;
    REQUIRE(a->tail_off == b->tail_off && a->entries == b->entries && a->live_keys == b->live_keys &&
                a->live_bytes == b->live_bytes && a->live_stored == b->live_stored &&
                a->damaged_keys == b->damaged_keys,
            "threads count otherwise");
    compare_layouts(a->layout, b->layout);
    compare_indexes(&a->index, &b->index);
    recovered_fini(&alone.found);
    recovered_fini(&together.found);
}
