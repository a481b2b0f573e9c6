/* The load generator, and the maker of the stores it reads: see usage, and ../README.md. */
#include "load.h"
#include <rdrive/store.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: bench_service_load --make STORE --keys N --value-bytes N\n"
    "       bench_service_load --target TARGET --address HOST:PORT --work WORK [OPTION...]\n"
    "       bench_service_load --target TARGET --address HOST:PORT --fill --keys N --value-bytes N\n"
    "\n"
    "  --target TARGET     grpc, redis, memcached (get) or memcached-meta (mg)\n"
    "  --fill              store all keys in Redis or memcached\n"
    "  --work WORK         read, batch-read, batch-hashed, batch-stream or read-stream; but for grpc it doesn't "
    "matter\n"
    "  --keys N            how many the server has; 1000000\n"
    "  --value-bytes N     of each value; 100\n"
    "  --batch N           keys a call asks for; 1\n"
    "  --omit-metadata     in batches\n"
    "  --in-order N        the first N calls ask for all keys by turns, those behind for random ones; 0\n"
    "  --seed N            of those\n"
    "  --calls N           that are measured; 10000\n"
    "  --warmup N          calls before; 1000\n"
    "  --in-flight N       calls open at a time; 1\n"
    "  --connections N     they go over; 1\n"
    "  --pid N             the server's process, whose time on processors is measured\n"
    "  --expect-bytes N    don't look at answers, but each must have so many bytes\n"
    "  --path /SERVICE/METHOD  instead of the one that does this work\n";

static const char *const kinds[] = {
    [WORK_READ] = "read",
    [WORK_BATCH_READ] = "batch-read",
    [WORK_BATCH_HASHED] = "batch-hashed",
    [WORK_BATCH_STREAM] = "batch-stream",
    [WORK_READ_STREAM] = "read-stream",
};

static const char *const protocols[] = {
    [RAW_REDIS] = "redis", [RAW_MEMCACHED] = "memcached", [RAW_MEMCACHED_META] = "memcached-meta"};

struct request {
    const char *make;
    const char *target;
    const char *kind;
    bool fill;
    int protocol; /* enum raw_protocol; or -1: gRPC */
    struct work work;
    struct meter meter;
    struct load load;
    uint64_t pid, batch, value_len, connections, expect_bytes;
};

/* ---- making a store ---- */

static void make_store(const struct request *request)
{
    const struct work *work = &request->work;
    rd_open_options options = {.writable = true, .create = true, .sync = RD_SYNC_NONE, .index = "off"};
    rd_fault fault = {0};
    rd_store *store;
    rd_written done;
    rd_write_item items[BATCH];
    /* few large values a batch */
    size_t batch = work->value_len >= (16u << 10) ? 1 : BATCH;
    uint8_t *values = malloc(batch * work->value_len);
    CHECK(values != NULL);
    if (rd_store_open(request->make, &options, &fault, &store) != RD_OK)
        die("%s", fault.text);
    for (uint64_t first = 0; first < work->keys; first += batch) {
        size_t count = work->keys - first < batch ? (size_t)(work->keys - first) : batch;
        for (size_t k = 0; k < count; k++) {
            work_value(work, first + k, values + k * work->value_len);
            items[k] = (rd_write_item){.key_hash = work_hash(first + k),
                                       .payload = {.data = values + k * work->value_len, .len = work->value_len}};
        }
        CHECK(rd_store_batch_write(store, items, count, &done) == RD_OK);
    }
    CHECK(rd_store_sync(store) == RD_OK);
    rd_store_close(store);
    free(values);
}

/* ---- options ---- */

/* Returns: its place, or -1. */
static int place_of(const char *word, const char *const *words, int count)
{
    for (int i = 0; word != NULL && i < count; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

/* Returns: whether the words are understood. */
static bool parse(int count, char **words, struct request *request)
{
    const struct {
        const char *name;
        const char **text;
        uint64_t *number;
    } options[] = {
        {"--make", &request->make, NULL},
        {"--target", &request->target, NULL},
        {"--address", &request->load.address, NULL},
        {"--path", &request->load.path, NULL},
        {"--work", &request->kind, NULL},
        {"--keys", NULL, &request->work.keys},
        {"--value-bytes", NULL, &request->value_len},
        {"--batch", NULL, &request->batch},
        {"--in-order", NULL, &request->work.in_order},
        {"--seed", NULL, &request->work.seed},
        {"--calls", NULL, &request->meter.calls},
        {"--warmup", NULL, &request->meter.warmup},
        {"--in-flight", NULL, &request->meter.in_flight},
        {"--connections", NULL, &request->connections},
        {"--pid", NULL, &request->pid},
        {"--expect-bytes", NULL, &request->expect_bytes},
    };
    for (int i = 1; i < count; i++) {
        size_t at = 0;
        bool *flag = strcmp(words[i], "--omit-metadata") == 0 ? &request->work.omit_metadata
                     : strcmp(words[i], "--fill") == 0        ? &request->fill
                                                              : NULL;
        if (flag != NULL) {
            *flag = true;
            continue;
        }
        while (at < sizeof options / sizeof options[0] && strcmp(options[at].name, words[i]) != 0)
            at++;
        if (at == sizeof options / sizeof options[0] || ++i == count)
            return false;
        char *end = words[i];
        if (options[at].text != NULL)
            *options[at].text = words[i];
        else if ((*options[at].number = strtoull(words[i], &end, 10)), *end != '\0')
            return false;
    }
    return true;
}

/* Returns: whether what was asked for can be done. */
static bool settle(struct request *request)
{
    const struct meter *meter = &request->meter;
    int kind = place_of(request->kind, kinds, WORK_COUNT);
    if (request->make != NULL)
        return true;
    if (request->target == NULL || request->load.address == NULL)
        return false;
    request->protocol = place_of(request->target, protocols, RAW_MEMCACHED_META + 1);
    if (request->protocol >= 0 && request->fill)
        return true;
    if (request->protocol < 0 && (strcmp(request->target, "grpc") != 0 || request->fill || kind < 0))
        return false;
    request->work.kind = kind < 0 ? WORK_READ : (enum work_kind)kind;
    return meter->calls > 0 && meter->warmup > 0 && meter->in_flight > 0 && request->connections > 0;
}

static void run(struct request *request)
{
    if (request->make != NULL) {
        make_store(request);
    } else if (request->fill) {
        load_raw_fill(&request->load, (enum raw_protocol)request->protocol);
    } else {
        meter_init(&request->meter);
        if (request->protocol < 0)
            load_grpc(&request->load);
        else
            load_raw(&request->load, (enum raw_protocol)request->protocol);
        meter_print(&request->meter, request->work.batch);
    }
}

int main(int argc, char **argv)
{
    struct request request = {
        .work = {.keys = 1000000, .seed = PICK_SEED},
        .meter = {.calls = 10000, .warmup = 1000, .in_flight = 1},
        .value_len = 100,
        .batch = 1,
        .connections = 1,
    };
    if (!parse(argc, argv, &request) || !settle(&request)) {
        fputs(usage, stderr);
        return 64;
    }
    request.work.value_len = request.value_len;
    request.work.batch = request.batch;
    request.work.expect_bytes = request.expect_bytes;
    request.meter.server = (pid_t)request.pid;
    request.load.work = &request.work;
    request.load.meter = &request.meter;
    /* each has at least one of the calls */
    request.load.connections =
        request.connections < request.meter.in_flight ? request.connections : request.meter.in_flight;
    work_init(&request.work);
    run(&request);
    work_fini(&request.work);
    return 0;
}
