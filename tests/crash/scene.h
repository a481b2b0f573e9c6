/**
 * One operation on a small store, set up the same way each time: what `calls` and `cut` let go wrong at each of its
 * system calls.
 */
#ifndef RDRIVE_CRASH_SCENE_H
#define RDRIVE_CRASH_SCENE_H

#include "disk.h"
#include "oracle.h"

/* A store and what is known of it. */
struct place {
    char path[PATH_LEN];
    struct oracle oracle;
    rd_store *store; /* NULL: not open */
    rd_written written;
};

struct scene {
    const struct campaign *campaign;
    char folder[PATH_LEN];
    struct place main, other; /* `other`: the target of copies and moves */
    rd_sync sync;
    bool may_be_missing; /* creating the main store is the operation */
    uint64_t torn_off;   /* where the torn tail was; 0: there was none */
    bool reopened;       /* the main store, after a failure */
    bool moves;          /* from one store to the other: at each moment it is in one of them */
    rd_fault fault;
};

/* What an operation works on. */
enum setting {
    SETTING_NONE,   /* no store: it is made */
    SETTING_EMPTY,  /* open, never written to */
    SETTING_FILLED, /* open, with entries that are durable */
    SETTING_CLOSED, /* the same, closed */
    SETTING_TORN,   /* closed; a torn tail behind its entries, and a torn entry in the middle */
    SETTING_DIRTY,  /* open, with entries that are not synced */
    SETTING_LEFT,   /* the same, closed like that */
};

struct operation {
    const char *name;
    enum setting setting;
    rd_sync sync;
    rd_err (*run)(struct scene *scene);
    uint32_t may; /* MAY() of each result that its contract names and that such faults can lead to */
};

#define MAY(err) (UINT32_C(1) << (err))

extern const struct operation operations[];
extern const size_t operation_count;

/* Set the scene up in its folder, which is then the disk. Some keys of each store are durable. */
void scene_begin(struct scene *scene, const struct campaign *campaign, const struct operation *operation);
#define SCENE_CALLS_MAX 256
/* Run the operation without a fault. Returns: how many calls it makes; `out_calls` says which. */
uint64_t scene_list_calls(const struct campaign *campaign, const struct operation *operation,
                          enum disk_call out_calls[SCENE_CALLS_MAX]);

/* Close what is open, end the disk and remove the folder. */
void scene_end(struct scene *scene);

/* What is left of the scene by a power cut, or a kill, now: opened read-only and for writing, it is as the oracles say.
 */
void scene_check_left(struct scene *scene, enum leftover leftover, uint64_t seed);

#endif
