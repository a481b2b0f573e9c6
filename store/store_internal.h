/* What the modules of an open store share. */
#ifndef RD_STORE_INTERNAL_H
#define RD_STORE_INTERNAL_H

#include "appender.h"
#include "file.h"
#include "format.h"
#include "index.h"
#include "mapping.h"
#include <pthread.h>
#include <rdrive/engine.h>

/* Checking more bytes than this at a time, or resolving more keys than that, is a worker thread's job. */
#define INLINE_CHECK_MAX ((uint64_t)4 << 20)
#define INLINE_KEYS_MAX  ((size_t)50000)
#define INLINE_KEY_WORK  (INLINE_CHECK_MAX / INLINE_KEYS_MAX) /* what a key costs, in bytes checked */

struct rd_store {
    char *path;
    struct file file;
    rd_open_options options;
    uint64_t unread_bytes; /* behind the tail when opened */

    /* Readers share it while they resolve keys and take their pin, never while they touch a payload or travel. The
       writer takes it whole to publish a commit, so a reader sees each batch whole or not at all (F-13). */
    pthread_rwlock_t publish;
    struct index index;
    struct mapping *mapping;
    uint64_t tail_off;
    uint64_t entries;
    /* atomic, since a reader that finds a damaged payload takes it off while others read */
    _Atomic uint64_t live_keys;
    _Atomic uint64_t live_bytes;
    _Atomic uint64_t damaged_keys;

    pthread_mutex_t write; /* one commit at a time; taken before `publish`. Guards what follows. */
    struct appender appender;
    bool write_ended; /* after a failed sync, or a failed cut */
};

/* ---- read.c ---- */

/* A moment of the store: its mapping stays valid while the pin is held. */
struct snapshot {
    struct mapping *mapping;
    uint64_t tail_off;
};

/* Resolve keys at one instant: each cookie becomes the key's word, WORD_NONE where absent or to be skipped. Pins once.
 */
void store_resolve(rd_store *store, rd_key *keys, size_t count, struct snapshot *out_snapshot);

/* Pin the store as it is now. */
void store_snapshot(rd_store *store, struct snapshot *out_snapshot);

static inline void snapshot_release(struct snapshot *snapshot)
{
    mapping_unpin(snapshot->mapping, 1);
    snapshot->mapping = NULL;
}

/* Bytes that reading the payload of `word` would check now. */
uint64_t store_check_len(const rd_store *store, const struct snapshot *snapshot, uint64_t word);

/**
 * The value behind a resolved word, in the snapshot's mapping; the payload is checked as the store's options say.
 * `hash` is what the trailer must carry; `cancel`, where not NULL, ends a long check.
 * Returns: RD_OK, RD_ABSENT, RD_E_DAMAGED (metadata is filled), RD_E_CANCELLED.
 */
rd_err store_load(rd_store *store, const struct snapshot *snapshot, uint64_t hash, uint64_t word, bool no_payload,
                  const atomic_bool *cancel, rd_span *out_payload, rd_metadata *out_meta);

/* The newest entry in the snapshot. Returns: as store_load. */
rd_err store_load_last(rd_store *store, const struct snapshot *snapshot, const atomic_bool *cancel,
                       rd_span *out_payload, rd_metadata *out_meta);

/* ---- write.c ---- */

/* One caller's writes or deletes: appended contiguously, visible at one instant. */
struct commit {
    const rd_write_item *items; /* or, where NULL, deletes of `keys` */
    const rd_key *keys;
    size_t count;
    rd_err err;
    rd_written written;
};

/* Carry out a group of commits in order, made durable by one sync. Each gets its own result. Threads: any; they queue.
 */
void store_commit(rd_store *store, struct commit **group, size_t count);

#endif
