/**
 * What a store may serve after a crash. Of each key the oracle keeps the versions that were begun since the last
 * settled moment, in their order, and how far each has come:
 *   the newest version that was acknowledged as durable, or any later one, may be served; each whole; never damage.
 *
 * A version is a number; the bytes of its value follow from it, so that a store's answer is checked byte for byte.
 * The oracle is plain memory: it may lie in pages that survive the process. Threads: each key has one.
 */
#ifndef RDRIVE_CRASH_ORACLE_H
#define RDRIVE_CRASH_ORACLE_H

#include "common.h"
#include <rdrive/store.h>

#define ORACLE_KEYS     48
#define ORACLE_VERSIONS 200 /* of a key between two settled moments */

/* Which sizes values have: the top byte of a version's number. */
enum sizes {
    SIZES_SMALL = 1, /* up to 90 bytes, and no stores */
    SIZES_MIXED,     /* mostly small, some above 64 KiB */
    SIZES_LARGE,     /* the same, and now and then above 1 MiB */
};

#define VERSION_NONE 0 /* no value: never written, or deleted */
uint64_t version_of(enum sizes sizes, uint64_t number);

size_t version_len(uint64_t version);
void version_bytes(uint64_t version, struct buffer *out); /* beside other things, whole stores that name our keys */

enum progress {
    BEGUN,   /* may be there, whole */
    REFUSED, /* the engine promised that it never will be */
    VISIBLE, /* acknowledged, not as durable */
    DURABLE,
};

struct oracle {
    struct {
        uint32_t count;
        struct {
            uint64_t version;
            enum progress progress;
        } at[ORACLE_VERSIONS];
    } of[ORACLE_KEYS];
};

/* Which of its versions each key shows. */
struct view {
    uint32_t at[ORACLE_KEYS];
};

uint64_t oracle_key(uint32_t key); /* its hash */

void oracle_init(struct oracle *oracle);                                      /* no key has a value */
bool oracle_has_room(const struct oracle *oracle, uint32_t key);              /* for four more versions */
uint32_t oracle_begin(struct oracle *oracle, uint32_t key, uint64_t version); /* its index */
/* How the call that wrote it ended. */
void oracle_end(struct oracle *oracle, uint32_t key, uint32_t index, rd_err err, bool durable);
/* A sync of all that was visible of a key has succeeded. */
void oracle_synced(struct oracle *oracle, uint32_t key);
/* The newest version that calls may see now. */
uint64_t oracle_now(const struct oracle *oracle, uint32_t key);

/* Fail unless the store serves what it may: each key by a read and by the iteration, and nothing else, no damage. */
void oracle_check(const struct oracle *oracle, rd_store *store, const char *what, struct view *out_view);
/* Fail unless it serves the newest acknowledged version of each key. */
void oracle_check_now(const struct oracle *oracle, rd_store *store, const char *what);
/* What the view shows is durable, and all that there is. */
void oracle_settle(struct oracle *oracle, const struct view *view);
/* Fail unless the two views show the same values. */
void oracle_same(const struct oracle *oracle, const struct view *one, const struct view *other, const char *what);

#endif
