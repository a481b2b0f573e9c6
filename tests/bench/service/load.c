/* The load generator, and the maker of the stores it reads: see usage, and ../README.md. */
#include "load.h"
#include <rdrive/store.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAKE_BATCH 1024u

static const char usage[] =
    "usage: bench_service_load --make STORE --keys N --value-bytes N\n"
    "       bench_service_load --target grpc --address HOST:PORT --work WORK [OPTION...]\n"
    "\n"
    "  --work WORK         read, batch-read, batch-hashed, batch-stream or read-stream\n"
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

struct request {
    const char *make;
    const char *target;
    const char *kind;
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
    rd_write_item items[MAKE_BATCH];
    /* few large values a batch */
    size_t batch = work->value_len >= (16u << 10) ? 1 : MAKE_BATCH;
    uint8_t *values = malloc(batch * work->value_len);
    CHECK(values != NULL);
    if (rd_store_open(request->make, &options, &fault, &store) != RD_OK)
        die("%s", fault.text);
    for (uint64_t first = 0; first < work->keys; first += batch) {
        size_t count = work->keys - first < batch ? (size_t)(work->keys - first) : batch;
        for (size_t k = 0; k < count; k++) {
            work_value(work, first + k, values + k * work->value_len);
            items[k] = (rd_write_item){.key_hash = work->hashes[first + k],
                                       .payload = {.data = values + k * work->value_len, .len = work->value_len}};
        }
        CHECK(rd_store_batch_write(store, items, count, &done) == RD_OK);
    }
    CHECK(rd_store_sync(store) == RD_OK);
    rd_store_close(store);
    free(values);
}

/* ---- options ---- */

static bool set_kind(struct request *request)
{
    for (int kind = 0; request->kind != NULL && kind < WORK_COUNT; kind++) {
        if (strcmp(kinds[kind], request->kind) == 0) {
            request->work.kind = (enum work_kind)kind;
            return true;
        }
    }
    return false;
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
        if (strcmp(words[i], "--omit-metadata") == 0) {
            request->work.omit_metadata = true;
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

static bool understood(const struct request *request)
{
    const struct meter *meter = &request->meter;
    return request->target != NULL && strcmp(request->target, "grpc") == 0 && request->load.address != NULL &&
           meter->calls > 0 && meter->warmup > 0 && meter->in_flight > 0 && request->connections > 0;
}

int main(int argc, char **argv)
{
    struct request request = {
        .work = {.keys = 1000000, .seed = 0x5eed},
        .meter = {.calls = 10000, .warmup = 1000, .in_flight = 1},
        .value_len = 100,
        .batch = 1,
        .connections = 1,
    };
    bool right = parse(argc, argv, &request);
    if (!right || (request.make == NULL && (!set_kind(&request) || !understood(&request)))) {
        fputs(usage, stderr);
        return 64;
    }
    request.work.value_len = request.value_len;
    request.work.batch = request.batch;
    request.work.expect_bytes = request.expect_bytes;
    request.meter.server = (pid_t)request.pid;
    request.load.work = &request.work;
    request.load.meter = &request.meter;
    request.load.connections = request.connections;
    work_init(&request.work);
    if (request.make != NULL) {
        make_store(&request);
    } else {
        meter_init(&request.meter);
        load_grpc(&request.load);
        meter_print(&request.meter, request.work.batch);
    }
    work_fini(&request.work);
    return 0;
}
