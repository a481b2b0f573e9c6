/* What the log tells of the store itself: its damage, and what becomes of its file. */
#ifndef STOREWATCH_H
#define STOREWATCH_H

#include <rdrive/store.h>

struct storewatch {
    rd_store *store;
    rd_store_info told;                    /* what the log has said */
    uint64_t listed[RD_DAMAGE_LISTED_MAX]; /* where the ranges begin that it has listed */
    size_t listed_count;
};

/* Tell of the damage that opening found, as `info` has it. */
void storewatch_begin(struct storewatch *watch, rd_store *store, const rd_store_info *info);

/* What the store is good for. */
struct storewatch_state {
    bool whole;   /* the file isn't cut below what is served */
    bool writing; /* it takes writes */
};

/* Tell what has changed since, each change once. */
struct storewatch_state storewatch_look(struct storewatch *watch);

#endif
