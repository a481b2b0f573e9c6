/**
 * A worker: seeded operations on a store, each told to the oracle before it begins and after it has ended. Keys are
 * dealt among the workers of a store, so each key has one, and its versions one order.
 */
#ifndef RDRIVE_CRASH_WORK_H
#define RDRIVE_CRASH_WORK_H

#include "oracle.h"

/* X(name, weight, what it does) */
#define WORKS(X)                                                                                                       \
    X(WORK_WRITE, 40, "write")                                                                                         \
    X(WORK_BATCH, 12, "batch write")                                                                                   \
    X(WORK_DELETE, 10, "delete")                                                                                       \
    X(WORK_BATCH_DELETE, 5, "batch delete")                                                                            \
    X(WORK_RENAME, 7, "rename")                                                                                        \
    X(WORK_STREAM, 8, "stream")                                                                                        \
    X(WORK_SYNC, 8, "sync")                                                                                            \
    X(WORK_READ, 8, "read")                                                                                            \
    X(WORK_COMPACT, 2, "compaction")

struct worker {
    rd_store *store;
    struct oracle *oracle;
    struct rng rng;
    enum sizes sizes;
    uint64_t number;        /* of its last version */
    uint32_t first, stride; /* its keys: first, first + stride, ... */
    bool (*is_dead)(void);  /* whether the disk was off when asked; what fails then says nothing. NULL: never */
    bool compacts;
};

/* One operation. Returns: false where the worker is to end: the disk is off, or its keys have no room for more. */
bool work(struct worker *worker);

#endif
