/* The clients: each runs `work` as `meter` says, against a server at `address`. */
#ifndef RDRIVE_BENCH_SERVICE_LOAD_H
#define RDRIVE_BENCH_SERVICE_LOAD_H

#include "meter.h"
#include "work.h"

struct load {
    const char *address; /* HOST:PORT */
    const char *path;    /* NULL: the method that does this work */
    size_t connections;
    struct work *work;
    struct meter *meter;
};

void load_grpc(const struct load *load);

#endif
