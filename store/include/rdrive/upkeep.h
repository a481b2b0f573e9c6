/**
 * Keeping a store well: damage, verification, compaction, SIGBUS; part of <rdrive/store.h>.
 */
#ifndef RDRIVE_UPKEEP_H
#define RDRIVE_UPKEEP_H

#include <rdrive/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

/* X(name, does it hide keys that nobody can name, what it says) */
#define RD_DAMAGES(X)                                                                                                  \
    X(RD_DAMAGE_ENTRY, false, "a damaged entry of a known key")                                                        \
    X(RD_DAMAGE_LINK, false, "an entry whose link alone is damaged: it is served")                                     \
    X(RD_DAMAGE_RANGE, true, "a damaged entry of a known key; unidentified further keys may be lost here")             \
    X(RD_DAMAGE_UNIDENTIFIED, true, "unidentified: damaged bytes of unknown keys")

#define RD_DAMAGE_NAME(name, hides, text) name,
typedef enum rd_damage_kind { RD_DAMAGES(RD_DAMAGE_NAME) RD_DAMAGE_KINDS } rd_damage_kind;
#undef RD_DAMAGE_NAME

/** What a kind says: a literal. */
const char *rd_damage_text(rd_damage_kind kind);

/** Whether a kind hides keys that nobody can name: they read as absent, or as an older version. */
bool rd_damage_hides(rd_damage_kind kind);

typedef struct rd_range {
    uint64_t offset;
    uint64_t size;
    uint64_t key_hash; /* 0 where no key is known */
    rd_damage_kind kind;
    const char *what; /* rd_damage_text(kind) */
} rd_range;

#define RD_DAMAGE_LISTED_MAX 100

/**
 * Copy the ranges that are known to be damaged, latest in the file first, at most `max` and RD_DAMAGE_LISTED_MAX.
 * Returns: how many were copied; rd_store_info counts all.
 */
size_t rd_store_damage(rd_store *store, rd_range *out_ranges, size_t max);

/** How far a long job has come. Returns: false to end it with RD_E_CANCELLED. Called from one thread at a time. */
typedef bool rd_progress(void *arg, uint64_t bytes_done, uint64_t bytes_total, uint64_t entries_done);

typedef struct rd_verified {
    uint64_t entries; /* checked, superseded ones and tombstones included */
    uint64_t bytes;   /* of their payloads */
    uint64_t failed;  /* entries found damaged by this call alone; they are in the ranges too */
} rd_verified;

/**
 * Check the payload of every entry in the file, superseded ones too, on `thread_count` threads (1 to 64). What fails
 * is recovered around as at opening (RECOVERY.md) before this returns, and is in rd_store_damage.
 * Returns: RD_OK, whatever was found; RD_E_CANCELLED, RD_E_NOMEM, RD_E_TRUNCATED.
 */
RD_MUST_CHECK rd_err rd_store_verify(rd_store *store, size_t thread_count, rd_progress *progress, void *arg,
                                     rd_verified *out_verified);

/**
 * Write into `target`, an empty store, the newest provable version of each key, in file order. Where a newer entry is
 * damaged the older one is left out, or, with `older_versions`, written and reported through `older`.
 */
typedef struct rd_repaired {
    uint64_t written;  /* keys */
    uint64_t older;    /* of these: an older version, since the newest is damaged */
    uint64_t left_out; /* keys whose newest entry is damaged and of which nothing was written */
} rd_repaired;
typedef void rd_repair_note(void *arg, uint64_t key_hash, bool written); /* a key whose newest entry is damaged */
RD_MUST_CHECK rd_err rd_store_repair(rd_store *store, rd_store *target, bool older_versions, rd_repair_note *note,
                                     void *arg, rd_repaired *out_repaired);

/* ---- Compaction ------------------------------------------------------------------------------------------------- */

typedef struct rd_compact_progress {
    uint64_t entries_done, entries_total;
    uint64_t bytes_written;
} rd_compact_progress;

typedef struct rd_compact_options {
    bool (*progress)(void *arg, const rd_compact_progress *progress); /* NULL, or returns false to cancel */
    void *arg;
} rd_compact_options;

typedef struct rd_compacted {
    uint64_t entries;         /* in the file now */
    uint64_t bytes_written;   /* the file's size now */
    uint64_t bytes_reclaimed; /* 0 where it grew meanwhile */
} rd_compacted;

/**
 * Rewrite the file with the newest live entries alone, in file order, while readers and writers go on; writers wait
 * only while the last MiB is copied. Entries already taken stay valid.
 * Returns:  RD_OK         the new file is in place and durable.
 *           RD_E_DAMAGED  a key is damaged, or damage may hide keys; `rdrive repair` writes what can be proven to a new
 *                         file.
 *           RD_E_BUSY     a compaction runs already.
 *           RD_E_UNSUPPORTED  the file has other names (hard links), which would be left with the old one.
 *           RD_E_LOCKED   a left-over STORE.compact is open elsewhere as a store.
 *           RD_E_SYNC     nothing changed; or, where `out_fault` says so, the new file is in place and served, but a
 *                         power cut may bring the old one back, so writing has ended: reopen the store.
 *           RD_E_UNAVAILABLE  the file was recovered anew meanwhile: try again.
 *           RD_E_NO_SPACE, RD_E_IO, RD_E_NOMEM, RD_E_CANCELLED, RD_E_READ_ONLY, RD_E_ENDED, RD_E_TRUNCATED: nothing
 *                         changed.
 *           `out_fault`, where not NULL, is written on every error.
 */
RD_MUST_CHECK rd_err rd_store_compact(rd_store *store, const rd_compact_options *options, rd_fault *out_fault,
                                      rd_compacted *out_compacted);

/* ---- The snapshot index ----------------------------------------------------------------------------------------- */

typedef struct rd_indexed {
    uint64_t keys;          /* in it, deleted ones included */
    uint64_t bytes;         /* its size */
    uint64_t covered_bytes; /* of the store; what is appended later is read at opening */
} rd_indexed;

/**
 * Make a snapshot index of the store as it is now, durable, at `path` (NULL: STORE.idx beside the store), in place of
 * an older one. The store is synced first. Readers go on, writers wait.
 * Returns:  RD_OK         it is in place.
 *           RD_ABSENT     the store has no entry.
 *           RD_E_DAMAGED  the store's newest entry is damaged, or damage was found just now.
 *           RD_E_LOCKED   another process is making one there.
 *           RD_E_IO       also where what lies there is no index of rdrive: it is left alone.
 *           RD_E_SYNC, RD_E_NO_SPACE, RD_E_NOMEM, RD_E_TRUNCATED.
 *           The one before is still there then, unless `out_fault` says that the new one is. `out_fault`, where not
 *           NULL, is written on every error.
 */
RD_MUST_CHECK rd_err rd_store_save_index(rd_store *store, const char *path, rd_fault *out_fault,
                                         rd_indexed *out_indexed);

/* ---- SIGBUS: a file that is cut while it is mapped -------------------------------------------------------------- */

/**
 * Handle SIGBUS for the whole process: a fault in the engine's own loads from a mapping makes that call answer
 * RD_E_TRUNCATED; any other goes to the handler that was there before. Opt-in, since a handler is the process's.
 * Requires: no thread that uses a store blocks SIGBUS (the kernel then ends the process, whatever the handler).
 * Returns: RD_OK, RD_E_IO. Threads: call it once, early.
 */
RD_MUST_CHECK rd_err rd_sigbus_install(void);

/** Copy a payload's bytes. Returns: false where they vanished under the copy; `to` is then undefined. Any thread. */
RD_MUST_CHECK bool rd_copy(void *to, rd_span bytes);

#ifdef __cplusplus
}
#endif

#endif
