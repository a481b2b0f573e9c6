/* The clients: each runs `work` as `meter` says, against a server at `address`. */
#ifndef RDRIVE_BENCH_SERVICE_LOAD_H
#define RDRIVE_BENCH_SERVICE_LOAD_H

#include "meter.h"
#include "work.h"

struct load {
    const char *address; /* HOST:PORT */
    const char *path;    /* of gRPC's method; NULL: the one that does this work */
    size_t connections;
    struct work *work;
    struct meter *meter;
};

void load_grpc(const struct load *load);

/* Others than gRPC, over plain sockets: pipelined, the answers in the order of the requests. */
enum raw_protocol { RAW_REDIS, RAW_MEMCACHED, RAW_MEMCACHED_META };
void load_raw(const struct load *load, enum raw_protocol protocol);
/* Store all keys there. */
void load_raw_fill(const struct load *load, enum raw_protocol protocol);

#endif
