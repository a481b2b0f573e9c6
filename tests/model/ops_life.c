/* Closing, opening, verifying, compacting: nothing that is served may change. */
#include "run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file that has grown this far is compacted, so that what opens and checks whole files stays quick. */
#define IMAGE_LEN_MAX ((size_t)2 << 20)

static rd_open_options any_options(void)
{
    rd_open_options options = {.writable = true, .verify = (rd_verify)run_below(3), .watch = run_chance(8)};
    size_t pick = run_below(40);
    options.sync = pick == 0 ? RD_SYNC_ALWAYS : pick < 5 ? RD_SYNC_INTERVAL : RD_SYNC_NONE;
    options.sync_interval_ms = 1 + (uint32_t)run_below(50);
    options.index_after = run_chance(3) ? 1 : 0; /* a snapshot index when it is closed */
    options.scrub_rate = run_chance(4) ? UINT64_C(1) << 30 : 0;
    return options;
}

void op_reopen(struct side *side)
{
    const rd_open_options options = any_options();
    side_close(side, run_chance(2));
    side_open(side, &options);
    side_check_info(side);
    run.reopens++;
}

/* A second look at the file, by a reader that takes no lock, while the writer has it open; its answers are the same. */
void op_read_only(struct side *side)
{
    const rd_open_options reading = {.verify = (rd_verify)run_below(3)};
    rd_store *writer = side->store;
    const rd_open_options writing = side->options;
    const uint64_t generation = side->generation;
    rd_written written;
    side_open(side, &reading);
    side_check_info(side);
    side_check_iteration(side);
    for (int i = 0; i < 20; i++)
        op_read_hash(side);
    rd_err err = rd_store_write_hash(side->store, 1, (rd_span){"x", 1}, &written);
    CHECK(err == RD_E_READ_ONLY, "a write to a store that is open for reading: %s", rd_err_text(err));
    err = rd_store_sync(side->store);
    CHECK(err == RD_E_READ_ONLY, "a sync of a store that is open for reading: %s", rd_err_text(err));
    rd_store_close(side->store);
    side_check_file(side);
    side->store = writer;
    side->options = writing;
    side->generation = generation;
}

void op_verify(struct side *side)
{
    rd_verified verified;
    uint64_t bytes = 0;
    for (size_t i = 0; i < side->image.count; i++)
        bytes += image_payload(&side->image, &side->image.entries[i]).len;
    CHECK_OK(rd_store_verify(side->store, 1 + run_below(3), NULL, NULL, &verified));
    CHECK(verified.entries == side->image.count && verified.bytes == bytes && verified.failed == 0,
          "verify checked %llu entries of %zu, %llu bytes of %llu, and %llu failed",
          (unsigned long long)verified.entries, side->image.count, (unsigned long long)verified.bytes,
          (unsigned long long)bytes, (unsigned long long)verified.failed);
}

void op_compact(struct side *side)
{
    struct image compact = {0};
    rd_compacted compacted;
    rd_fault fault;
    size_t before = side->image.len;
    image_compact(&side->image, &compact);
    rd_err err = rd_store_compact(side->store, NULL, &fault, &compacted);
    CHECK(err == RD_OK, "compaction: %s", fault.text);
    image_fini(&side->image);
    side->image = compact;
    side_adopt(side);
    side->generation++;
    CHECK(compacted.entries == compact.count && compacted.bytes_written == compact.len &&
              compacted.bytes_reclaimed == before - compact.len,
          "compaction wrote %llu entries and %llu bytes, reclaimed %llu", (unsigned long long)compacted.entries,
          (unsigned long long)compacted.bytes_written, (unsigned long long)compacted.bytes_reclaimed);
    side_check_file(side);
    side_check_info(side);
    run.compactions++;
}

void op_shrink(struct side *side)
{
    if (side->image.len > IMAGE_LEN_MAX)
        op_compact(side);
}
