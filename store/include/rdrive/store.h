/**
 * librdrive: reads and writes simd-r-drive stores, byte for byte as the Rust crate 0.16 does.
 *
 * Caveats first:
 * - Keys are not stored, only their XXH3-64 hashes. Two keys with the same 64-bit hash are one key to the format
 * (E-12).
 * - A file that something else truncates while it is mapped raises SIGBUS at the next touch of the lost pages. With
 *   rd_sigbus_install the engine's own touches answer RD_E_TRUNCATED instead; copy payloads out with rd_copy.
 * - A batch is one unit to readers of this process only: the format has no commit mark (E-14), so after a crash, and to
 *   other processes, an unacknowledged batch may show some of its entries, each whole.
 * - A store belongs to the process that opened it: a child of fork leaves it alone, its close too. Until the child
 * ends, or becomes another program, it keeps the writer's lock alive.
 * - The engine returns errors and never prints.
 *
 * Unless a call says otherwise: any thread may call it, outputs are written only on success, and a store must outlive
 * every entry taken from it.
 */
#ifndef RDRIVE_STORE_H
#define RDRIVE_STORE_H

#include <rdrive/error.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Borrowed bytes. `data` may be NULL only where `len` is 0. */
typedef struct rd_span {
    const void *data;
    size_t len;
} rd_span;

/** The hash that stands for `key` in every store (F-07): XXH3-64, seed 0. The empty key has one too. */
uint64_t rd_hash(rd_span key);

/** The key under which namespaced writers store `key` (F-11): 16 bytes, to be hashed as any key is. */
void rd_namespace_key(rd_span name, rd_span key, uint8_t out_key[16]);

typedef enum rd_sync {
    RD_SYNC_ALWAYS,   /* a write is visible, and returns, once it is durable */
    RD_SYNC_INTERVAL, /* a write is visible once the kernel has it; a sync follows within `sync_interval_ms` */
    RD_SYNC_NONE,     /* a write is visible once the kernel has it; rd_store_sync makes it durable */
} rd_sync;

typedef enum rd_verify {
    RD_VERIFY_FIRST,  /* check each payload's CRC once an open, at the latest before its first byte is handed out */
    RD_VERIFY_ALWAYS, /* check it at each read */
    RD_VERIFY_OFF, /* only what opening checks anyway: links, and payloads up to 64 KiB; by a snapshot index, nothing */
} rd_verify;

/** How far an opening has come, for other threads to look at meanwhile; of no use to the store once it is open. */
typedef struct rd_open_progress {
    atomic_uint_least64_t bytes_done; /* of the file, from its end down; where damage is judged it may stand for long */
    atomic_uint_least64_t bytes_total; /* 0 until that is known */
} rd_open_progress;

typedef struct rd_open_options {
    bool writable; /* take the writer's lock; without it the file is never locked, written or created */
    bool create;   /* with `writable`: make an empty store where there is none */
    rd_sync sync;
    uint32_t sync_interval_ms; /* RD_SYNC_INTERVAL; 0: 1000 */
    rd_verify verify;
    uint64_t max_value_bytes; /* of a stream; 0: 1 GiB */
    uint64_t scrub_rate;      /* bytes a second at which large payloads are checked in the background; 0: never */
    bool watch;               /* once a second, compare the path's file with the one that is open (`file_state`) */
    const char *index;    /* the snapshot index (FORMAT.md, STORE.idx): NULL or "auto": beside the store; "off": none;
                             else its path. It is used if it can be trusted, and made where open for writing */
    uint64_t index_after; /* entries that must have come since it was made, for closing to make it anew; 0: 100,000,
                             and an eighth of all */
    const atomic_bool *cancel;  /* NULL, or set by another thread to make opening give up with RD_E_CANCELLED */
    rd_open_progress *progress; /* NULL, or to be kept up to date while opening */
} rd_open_options;

/** Why an open failed, for people: one line, no newline, with path and offset where they matter. */
typedef struct rd_fault {
    uint64_t offset; /* where in the file, 0 where no place is to blame */
    int os_error;    /* errno, or 0 */
    char text[512];
} rd_fault;

typedef struct rd_store rd_store;

/**
 * Open the store at `path`: check links and checksums from the end of the file back to its start, recover what damage
 * lets stand (store/RECOVERY.md), and index it. Payloads above 64 KiB are checked later: at their first read, or by
 * the scrub; if one fails then, what its link hid appears shortly after. Where a snapshot index can be trusted, all
 * that was done when it was made, and each payload is checked at its first read. Read-only, nothing is ever changed,
 * and bytes behind the last entry are counted as unread. For writing, the lock is taken, a torn tail is copied to
 * `path`.torn-<offset> and cut, and damage in the middle stays. Returns:  RD_OK           `*out_store` is the caller's,
 * to be closed. RD_E_IO         no such file, no permission, read error (`os_error` says). RD_E_NOT_FILE   a directory,
 * FIFO, device or socket. RD_E_NOT_STORE  not empty, and no entry holds anywhere. RD_E_ALIGNMENT  a file of
 * simd-r-drive 0.14 or older (E-13). RD_E_LOCKED     another process writes to it; the text quotes what it wrote of
 * itself. RD_E_NO_SPACE   no room to save the torn tail; nothing was cut. RD_E_SYNC, RD_E_TRUNCATED, RD_E_NOMEM,
 * RD_E_CANCELLED. `out_fault`, where not NULL, is written on every error.
 */
RD_MUST_CHECK rd_err rd_store_open(const char *path, const rd_open_options *options, rd_fault *out_fault,
                                   rd_store **out_store);

/**
 * Close. What was written but not synced is left to the kernel: call rd_store_sync before, and check it.
 * Requires: no other call on `store` is running or follows, and every entry taken from it has been released.
 * NULL is fine.
 */
void rd_store_close(rd_store *store);

/** What the path names now, compared with the file that is open. Worse states come later in the list. */
typedef enum rd_file_state {
    RD_FILE_SAME,
    RD_FILE_GREW,     /* somebody else appended: what came is not served */
    RD_FILE_REPLACED, /* the path names another file: this one is served on */
    RD_FILE_SHRUNK,   /* cut below the tail: what was cut off answers RD_E_TRUNCATED */
} rd_file_state;

/* X(name, was it the store that contradicts the file, what it says) */
#define RD_INDEX_SOURCES(X)                                                                                            \
    X(RD_INDEX_OFF, false, "recovered: no snapshot index was asked for")                                               \
    X(RD_INDEX_SNAPSHOT, false, "snapshot index")                                                                      \
    X(RD_INDEX_NONE, false, "recovered: there is no snapshot index")                                                   \
    X(RD_INDEX_UNREADABLE, false,                                                                                      \
      "recovered: the snapshot index can't be read now: permissions, memory or an I/O error")                          \
    X(RD_INDEX_OTHER, false, "recovered: what lies in the snapshot index's place is none")                             \
    X(RD_INDEX_UNSAFE, false, "recovered: the snapshot index could be written by others than the store")               \
    X(RD_INDEX_VERSION, false, "recovered: the snapshot index is of another version of rdrive")                        \
    X(RD_INDEX_HARMED, true, "recovered: the snapshot index is damaged")                                               \
    X(RD_INDEX_SHORTENED, true, "recovered: the store has become shorter since the snapshot index was made")           \
    X(RD_INDEX_CHANGED, true, "recovered: the snapshot index was made of other bytes than the store has")              \
    X(RD_INDEX_TORN, true, "recovered: STORE.writer and the snapshot index differ about damage")                       \
    X(RD_INDEX_BROKEN, true, "recovered: what was appended since the snapshot index was made doesn't lead to it")      \
    X(RD_INDEX_APPENDED, true, "recovered: something else than rdrive has appended since the snapshot index was made")

#define RD_INDEX_NAME(name, stale, text) name,
/** What the index was made of at opening, and if not of the snapshot index, why. */
typedef enum rd_index_source { RD_INDEX_SOURCES(RD_INDEX_NAME) RD_INDEX_SOURCE_COUNT } rd_index_source;
#undef RD_INDEX_NAME

/** What it says: a literal. */
const char *rd_index_text(rd_index_source source);

/** Numbers about a store, all of one instant save `file_size`. */
typedef struct rd_store_info {
    uint64_t live_keys;           /* keys that have a value */
    uint64_t entries;             /* entries in the file, superseded ones and tombstones included */
    uint64_t tail_off;            /* where the last accepted entry ends: the next append goes here */
    uint64_t file_size;           /* bytes, by fstat now */
    uint64_t damaged_entries;     /* keys whose newest entry is damaged: not live, answered RD_E_DAMAGED */
    uint64_t damaged_ranges;      /* rd_store_damage lists up to RD_DAMAGE_LISTED_MAX of them */
    uint64_t unidentified_ranges; /* of these: whose keys are not all known; they read as absent or older */
    uint64_t unread_bytes;        /* bytes behind the tail when the store was opened: torn, or a writer at work */
    uint64_t torn_bytes;          /* that opening for writing cut, a crash's leavings, and saved: */
    uint64_t torn_off;            /* beside the store, as STORE.torn-<torn_off> */
    uint64_t live_bytes;          /* payload bytes of live keys */
    uint64_t reclaimable_bytes;   /* about what a compaction would save, padding counted */
    uint64_t index_bytes;         /* memory of the index */
    uint64_t generation;          /* 1, and one more after each compaction or late recovery */
    rd_file_state file_state;
    rd_index_source index_source;
    bool writable; /* it takes writes: not after a failed sync (RD_E_ENDED) */
} rd_store_info;

/** Returns: RD_OK, or RD_E_IO where fstat fails. */
RD_MUST_CHECK rd_err rd_store_info_get(rd_store *store, rd_store_info *out_info);

/* ---- Reading: what the trait AsyncDataStoreReader offers -------------------------------------------------------- */

/** What the file says of an entry. */
typedef struct rd_metadata {
    uint64_t key_hash;
    uint64_t prev_off; /* where the entry before it ends (F-04) */
    uint32_t checksum; /* CRC-32 of the payload (F-06) */
    bool tombstone;
} rd_metadata;

/** An entry whose bytes stay valid and unchanged until it is released, however the store changes. */
typedef struct rd_entry {
    rd_span payload; /* points into the mapping; empty for a tombstone (E-11) */
    rd_metadata meta;
    void *pin; /* NULL: nothing to release */
} rd_entry;

/** Give an entry's pin back and empty it. Any thread; an empty entry is fine. */
void rd_entry_release(rd_entry *entry);

/**
 * Whether a key is present and not deleted. No payload is touched or checked.
 * Returns: RD_OK present, RD_ABSENT not, RD_E_DAMAGED its newest entry is known to be damaged.
 */
RD_MUST_CHECK rd_err rd_store_exists(rd_store *store, rd_span key);
RD_MUST_CHECK rd_err rd_store_exists_hash(rd_store *store, uint64_t key_hash);

/**
 * The newest value of a key, pinned.
 * Returns: RD_OK `*out_entry` is the caller's to release; RD_ABSENT; RD_E_DAMAGED its bytes fail their checksum.
 */
RD_MUST_CHECK rd_err rd_store_read(rd_store *store, rd_span key, rd_entry *out_entry);
RD_MUST_CHECK rd_err rd_store_read_hash(rd_store *store, uint64_t key_hash, rd_entry *out_entry);

/** The newest entry's metadata; `out_meta` as rd_store_read's, the payload neither touched nor checked. */
RD_MUST_CHECK rd_err rd_store_metadata(rd_store *store, rd_span key, rd_metadata *out_meta);
RD_MUST_CHECK rd_err rd_store_metadata_hash(rd_store *store, uint64_t key_hash, rd_metadata *out_meta);

/** The entry written last, deletions included (`meta.tombstone`). RD_ABSENT: the file has no entry. */
RD_MUST_CHECK rd_err rd_store_read_last(rd_store *store, rd_entry *out_entry);

/** One answer of a batch. `entry` is to be released where `err` is RD_OK, and empty elsewhere. */
typedef struct rd_batch_item {
    rd_err err; /* as rd_store_read's */
    rd_entry entry;
} rd_batch_item;

/**
 * Many keys at one instant: each batch write is seen whole or not at all. `out_items[i]` answers `keys[i]`.
 * Returns: RD_OK each item has its own result; RD_E_NOMEM nothing was written to `out_items`.
 */
RD_MUST_CHECK rd_err rd_store_batch_read(rd_store *store, const rd_span *keys, size_t count, rd_batch_item *out_items);

/**
 * The same by hash. With `keys` (NULL, or `count` of them) an item whose key does not have that hash is RD_ABSENT
 * (F-15).
 */
RD_MUST_CHECK rd_err rd_store_batch_read_hashed(rd_store *store, const uint64_t *key_hashes, const rd_span *keys,
                                                size_t count, rd_batch_item *out_items);

/** What rd_entry_release is for one entry, for a batch: its pins at once. */
void rd_batch_release(rd_batch_item *items, size_t count);

/** How many keys are live. Constant time. */
uint64_t rd_store_len(rd_store *store);

/** Whether no key is live. Constant time. */
bool rd_store_is_empty(rd_store *store);

/** Bytes of the file now, deleted entries included. Returns: RD_OK, RD_E_IO. */
RD_MUST_CHECK rd_err rd_store_file_size(rd_store *store, uint64_t *out_bytes);

/* ---- Iteration: the live entries, newest first (F-12) ----------------------------------------------------------- */

typedef struct rd_iter rd_iter;

/** Begin at the tail as it is now; later writes are not seen. Returns: RD_OK, RD_E_NOMEM. Threads: one an iterator. */
RD_MUST_CHECK rd_err rd_iter_create(rd_store *store, rd_iter **out_iter);

/**
 * The next live entry, valid until the next call on `iter`: it is the iterator's, don't release it.
 * Returns: RD_OK; RD_ABSENT at the end; RD_E_DAMAGED the newest entry of the key `out_entry->meta.key_hash` is damaged,
 *          and RD_E_TRUNCATED it is gone (go on with the next call); RD_E_NOMEM. RD_E_DAMAGED comes with hash 0 and no
 *          link, right before the end, where links were damaged since they were checked and keys are missing: the store
 *          is being recovered, and a new iteration shows them.
 */
RD_MUST_CHECK rd_err rd_iter_next(rd_iter *iter, rd_entry *out_entry);

/** End it, before the store is closed. NULL is fine. */
void rd_iter_destroy(rd_iter *iter);

#ifdef __cplusplus
}
#endif

#include <rdrive/upkeep.h>
#include <rdrive/writer.h>

#endif
