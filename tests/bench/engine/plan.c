#include "plan.h"

#define BIT(side) (1u << (side))
#define READERS   (BIT(SIDE_FIRST) | BIT(SIDE_ALWAYS) | BIT(SIDE_OFF))
#define ALL       (BIT(SIDE_CRATE) | READERS | BIT(SIDE_BARE))
#define THREE     (BIT(SIDE_CRATE) | BIT(SIDE_FIRST) | BIT(SIDE_BARE))
#define BOTH      (BIT(SIDE_CRATE) | BIT(SIDE_FIRST))
#define THOUSAND  1000ul
#define MILLION   1000000ul

/* `count` is how many keys are read, except where said. */
const struct task tasks[] = {
    {"reads 1M", "reads", ALL, SOURCE_STORE, MILLION, MILLION, false, false},
    {"threads 1M", "threads", ALL, SOURCE_STORE, MILLION, MILLION, false, false},
    {"batches", "make", THREE, SOURCE_NEW, MILLION, 0, false, false},
    /* `keys` by each of 8 threads */
    {"singles", "singles", THREE, SOURCE_NEW, 10 * THOUSAND, 0, false, false},
    /* `keys` by one thread, `count` by each of 64 */
    {"durable", "durable", BIT(SIDE_FIRST) | BIT(SIDE_BARE), SOURCE_NEW, 2000, 250, false, false},
    {"open 1M", "open", THREE, SOURCE_STORE, MILLION, 0, false, false},
    {"open 5M", "open", THREE, SOURCE_STORE, 5 * MILLION, 0, false, false},
    {"open 10M", "open", THREE, SOURCE_STORE, 10 * MILLION, 0, true, false},
    {"cold 5M", "open", THREE, SOURCE_COLD, 5 * MILLION, 0, false, false},
    {"snapshot 1M", "snapshot", THREE, SOURCE_INDEX, MILLION, 0, false, false},
    {"snapshot 5M", "snapshot", THREE, SOURCE_INDEX, 5 * MILLION, 0, false, false},
    {"snapshot 10M", "snapshot", THREE, SOURCE_INDEX, 10 * MILLION, 0, false, false},
    /* From `keys` to `count` keys. */
    {"grow", "grow", THREE, SOURCE_NEW, MILLION, 8 * MILLION, false, false},
    /* `count` reads while idle */
    {"compact", "compact", BIT(SIDE_FIRST), SOURCE_NEW, MILLION, MILLION / 2, false, false},
    {"compact written", "compact-written", BIT(SIDE_FIRST), SOURCE_NEW, MILLION, MILLION / 2, false, false},
    {"memory 1k", "open", BOTH, SOURCE_STORE, THOUSAND, 0, true, false},
    {"memory 10k", "open", BOTH, SOURCE_STORE, 10 * THOUSAND, 0, true, false},
    {"memory 100k", "open", BOTH, SOURCE_STORE, 100 * THOUSAND, 0, true, false},
    {"memory 50M", "open", BOTH, SOURCE_STORE, 50 * MILLION, 0, true, true},
    {"reads 10M", "reads", THREE, SOURCE_STORE, 10 * MILLION, MILLION, false, false},
    {"reads 50M", "reads", THREE, SOURCE_STORE, 50 * MILLION, MILLION, false, true},
};
const size_t task_count = sizeof tasks / sizeof tasks[0];

const struct group groups[] = {
    {"reads", "Reading 1 M keys"}, {"writes", "Writing"},
    {"open", "Opening"},           {"live", "Reading while the store changes"},
    {"memory", "Memory"},          {"curve", "Look-ups in larger stores"},
};
const size_t group_count = sizeof groups / sizeof groups[0];

#define MS 1e6 /* nanoseconds */
#define US 1e3

const struct row rows[] = {
    {"reads", "random single reads", "reads 1M", "random_ns", NULL, UNIT_RATE, 1.35, 0, 0},
    {"reads", "  each pick after the last one's value", "reads 1M", "chained_ns", NULL, UNIT_RATE, 0, 0.85, 0},
    {"reads", "  the crate with our formatting of keys", "reads 1M", "random_ns", "random_lean_ns", UNIT_RATE, 0, 0, 0},
    {"reads", "batch reads of 1024, ascending", "reads 1M", "batch_ns", NULL, UNIT_RATE, 3.5, 0.75, 0},
    {"reads", "  the crate by its own benchmark's loop", "reads 1M", "batch_ns", "batch_own_ns", UNIT_RATE, 0, 0, 0},
    {"reads", "iteration, newest first", "reads 1M", "iterate_ns", NULL, UNIT_RATE, 3, 0, 0},
    {"reads", "2 reader threads, as one", "threads 1M", "scaling", NULL, UNIT_GAIN, 0, 0, 1.8},
    {"reads", "  by time on a processor", "threads 1M", "scaling_busy", NULL, UNIT_GAIN, 0, 0, 1.8},

    {"writes", "batch writes of 1024", "batches", "write_ns", NULL, UNIT_RATE, 2, 0, 0},
    {"writes", "  by time on processors", "batches", "write_busy_ns", NULL, UNIT_RATE, 0, 0, 0},
    {"writes", "  the crate by its own benchmark's loop", "batches", "write_ns", "write_own_ns", UNIT_RATE, 0, 0, 0},
    {"writes", "single writes, 8 threads, 128 bytes", "singles", "write_ns", NULL, UNIT_KRATE, 3, 0, 0},
    {"writes", "durable writes, 1 writer", "durable", "one_ns", NULL, UNIT_KRATE, 0, 0, 0},
    {"writes", "durable writes, 64 writers", "durable", "many_ns", NULL, UNIT_KRATE, 0, 0, 0},
    {"writes", "  64 writers, as 1", "durable", "gain", NULL, UNIT_GAIN, 0, 0, 10},

    {"open", "no snapshot index: 1 M keys, warm", "open 1M", "open_ns", NULL, UNIT_MS, 1.0 / 3, 0, 0},
    {"open", "  5 M, warm", "open 5M", "open_ns", NULL, UNIT_MS, 1.0 / 3, 0, 0},
    {"open", "    time on processors", "open 5M", "open_busy_ns", NULL, UNIT_MS, 0, 0, 0},
    {"open", "  10 M, warm", "open 10M", "open_ns", NULL, UNIT_MS, 0, 0, 0},
    {"open", "  5 M, cold", "cold 5M", "open_ns", NULL, UNIT_MS, 0, 1.3, 0},
    {"open", "with a snapshot index: 1 M keys", "snapshot 1M", "open_ns", NULL, UNIT_MS, 1.0 / 40, 0, 0},
    {"open", "  5 M", "snapshot 5M", "open_ns", NULL, UNIT_MS, 1.0 / 40, 0, 0},
    {"open", "  10 M", "snapshot 10M", "open_ns", NULL, UNIT_MS, 1.0 / 40, 0, 100 * MS},

    {"live", "longest read while 1 M keys grow to 8 M", "grow", "read_longest", NULL, UNIT_US, 0, 0, 1 * MS},
    {"live", "  of those not interrupted", "grow", "read_quiet_longest", NULL, UNIT_US, 0, 0, 1 * MS},
    {"live", "p99 meanwhile", "grow", "read_p99", NULL, UNIT_US, 0, 0, 0},
    {"live", "  not interrupted: 1 M to 2 M keys", "grow", "read0_quiet_p99", NULL, UNIT_US, 0, 0, 0},
    {"live", "  2 M to 4 M", "grow", "read1_quiet_p99", NULL, UNIT_US, 0, 0, 0},
    {"live", "  4 M to 8 M", "grow", "read2_quiet_p99", NULL, UNIT_US, 0, 0, 0},
    {"live", "reads meanwhile: 1 M to 2 M keys", "grow", "read0_quiet_mean", NULL, UNIT_RATE, 0, 0, 0},
    {"live", "  2 M to 4 M", "grow", "read1_quiet_mean", NULL, UNIT_RATE, 0, 0, 0},
    {"live", "  4 M to 8 M", "grow", "read2_quiet_mean", NULL, UNIT_RATE, 0, 0, 0},
    {"live", "writes meanwhile, batches of 1024", "grow", "write_ns", NULL, UNIT_RATE, 0, 0, 0},
    {"live", "p99 during a compaction, by idle p99", "compact", "ratio", NULL, UNIT_RATIO, 0, 0, 2},
    {"live", "  of those not interrupted", "compact", "ratio_quiet", NULL, UNIT_RATIO, 0, 0, 2},
    {"live", "idle p99", "compact", "read0_quiet_p99", NULL, UNIT_US, 0, 0, 0},
    {"live", "p99 during a compaction", "compact", "read1_quiet_p99", NULL, UNIT_US, 0, 0, 0},
    {"live", "longest read before, during and after it", "compact", "read_longest", NULL, UNIT_US, 0, 0, 0},
    {"live", "  of those not interrupted", "compact", "read_quiet_longest", NULL, UNIT_US, 0, 0, 0},
    {"live", "compacting 2 M entries to 1 M", "compact", "compact_ns", NULL, UNIT_MS, 0, 0, 0},
    {"live", "with a writer: p99 by that before", "compact written", "ratio", NULL, UNIT_RATIO, 0, 0, 0},
    {"live", "  of those not interrupted", "compact written", "ratio_quiet", NULL, UNIT_RATIO, 0, 0, 0},
    {"live", "  longest read", "compact written", "read_longest", NULL, UNIT_US, 0, 0, 0},
    {"live", "  of those not interrupted", "compact written", "read_quiet_longest", NULL, UNIT_US, 0, 0, 0},

    {"memory", "index, bytes a key, 1,000 keys", "memory 1k", "index_bytes", NULL, UNIT_BYTES, 0, 0, 0},
    {"memory", "  10,000", "memory 10k", "index_bytes", NULL, UNIT_BYTES, 0, 0, 0},
    {"memory", "  100,000", "memory 100k", "index_bytes", NULL, UNIT_BYTES, 0, 0, 24},
    {"memory", "  1 M", "open 1M", "index_bytes", NULL, UNIT_BYTES, 0, 0, 24},
    {"memory", "  5 M", "open 5M", "index_bytes", NULL, UNIT_BYTES, 0, 0, 24},
    {"memory", "  10 M", "open 10M", "index_bytes", NULL, UNIT_BYTES, 0, 0, 24},
    {"memory", "  50 M", "memory 50M", "index_bytes", NULL, UNIT_BYTES, 0, 0, 24},
    {"memory", "  at worst while 1 M grow to 8 M", "grow", "index_bytes", NULL, UNIT_BYTES, 0, 0, 26},
    {"memory", "process, bytes a key, 1,000 keys", "memory 1k", "memory_bytes", NULL, UNIT_BYTES, 0, 0, 0},
    {"memory", "  10,000", "memory 10k", "memory_bytes", NULL, UNIT_BYTES, 0, 0, 0},
    {"memory", "  100,000", "memory 100k", "memory_bytes", NULL, UNIT_BYTES, 0, 0, 0},
    {"memory", "  1 M", "open 1M", "memory_bytes", NULL, UNIT_BYTES, 0, 0, 0},
    {"memory", "  5 M", "open 5M", "memory_bytes", NULL, UNIT_BYTES, 0, 0, 0},
    {"memory", "  10 M", "open 10M", "memory_bytes", NULL, UNIT_BYTES, 0, 0, 0},
    {"memory", "  50 M", "memory 50M", "memory_bytes", NULL, UNIT_BYTES, 0, 0, 0},

    {"curve", "random single reads, 10 M keys", "reads 10M", "random_ns", NULL, UNIT_RATE, 0, 0, 0},
    {"curve", "  50 M", "reads 50M", "random_ns", NULL, UNIT_RATE, 0, 0, 0},
    {"curve", "  each after the last value, 10 M keys", "reads 10M", "chained_ns", NULL, UNIT_RATE, 0, 0, 0},
    {"curve", "  50 M", "reads 50M", "chained_ns", NULL, UNIT_RATE, 0, 0, 0},
    {"curve", "batch reads of 1024, 10 M keys", "reads 10M", "batch_ns", NULL, UNIT_RATE, 0, 0, 0},
    {"curve", "  50 M", "reads 50M", "batch_ns", NULL, UNIT_RATE, 0, 0, 0},
};
const size_t row_count = sizeof rows / sizeof rows[0];
