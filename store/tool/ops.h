/**
 * The one table of operations that every verb is written over, so that a verb never knows where its store lies. Today
 * a path is served (ops_path.c); what speaks over a network fills the same table.
 *
 * An implementation's store begins with `struct tool_store`. Where an operation is not offered its pointer is NULL; a
 * verb finds that out when it opens the store (session.h), before it reads or writes anything.
 */
#ifndef RDRIVE_TOOL_OPS_H
#define RDRIVE_TOOL_OPS_H

#include <rdrive/store.h>

/** A key as given: its hash always, its bytes unless only the hash was named. */
struct tool_key {
    uint64_t hash;
    rd_span bytes;
    bool hash_only;
};

struct tool_open_how {
    bool writable;
    bool create;       /* with `writable`: make the store where there is none */
    bool offer_create; /* where there is none, tell of --create */
    rd_sync sync;
    const char *index; /* as rd_open_options.index */
    rd_verify verify;

    /* of a store that is served */
    const char *ca, *cert, *key; /* PEM files, or NULL */
    double timeout;              /* seconds a call may take; 0: any time */
};

/** One thing that `info` prints: a number, or a text where `text` is not NULL. */
struct tool_fact {
    const char *name;
    const char *text;
    uint64_t number;
};
#define TOOL_FACTS_MAX 16

/** Damage: all of it counted, and up to RD_DAMAGE_LISTED_MAX ranges of it. */
struct tool_damage {
    uint64_t damaged_entries, damaged_ranges, unidentified_ranges;
    uint64_t unread_bytes; /* behind the last entry: unfinished, not damaged */
    bool keys_untold;      /* no key_hash of a listed one is known */
    size_t listed_count;
    rd_range listed[RD_DAMAGE_LISTED_MAX];
};

/**
 * Where a payload goes, in one piece or many, in order. The bytes may lie in a mapped file: out_payload and rd_copy
 * load them safely. `bytes` returns false to stop: the read is RD_E_CANCELLED.
 */
struct tool_sink {
    bool (*bytes)(void *arg, rd_span bytes);
    void *arg;
};

enum tool_source_result { TOOL_SOURCE_PIECE, TOOL_SOURCE_END, TOOL_SOURCE_FAILED };

/** Where a payload comes from, piece by piece. A piece is valid until the next is asked for. */
struct tool_source {
    enum tool_source_result (*piece)(void *arg, rd_span *out_piece);
    void *arg;
};

/**
 * One live entry of an iteration: `err` is RD_OK, or RD_E_DAMAGED or RD_E_TRUNCATED and `payload` is empty. Both are
 * valid during the call only. Returns false to stop, which is no error.
 */
typedef bool tool_visit(void *arg, rd_err err, const rd_metadata *meta, rd_span payload);

struct tool_store;
struct tool_lane;

struct tool_ops {
    /* `target` is STORE as given and outlives the store; `out_fault` is written on every error. */
    rd_err (*open)(const char *target, const struct tool_open_how *how, rd_fault *out_fault,
                   struct tool_store **out_store);
    /* Close. What was written and not synced is left to the kernel. */
    void (*close)(struct tool_store *store);

    /* `facts` has room for TOOL_FACTS_MAX; texts live as long as the store. */
    rd_err (*info)(struct tool_store *store, struct tool_fact *facts, size_t *out_count);
    /* The newest value, checked, to `sink`: RD_OK, RD_ABSENT, RD_E_DAMAGED before its first byte, RD_E_CANCELLED. */
    rd_err (*read)(struct tool_store *store, const struct tool_key *key, const struct tool_sink *sink);

    /* A lane is one thread's, for many calls, of which `places` may be under way at once. */
    rd_err (*lane_open)(struct tool_store *store, size_t places, struct tool_lane **out_lane);
    void (*lane_close)(struct tool_lane *lane);
    /* Ask for many keys at one instant, as rd_store_batch_read_hashed, or for a single one as rd_store_read_hash. The
     * answer is written to `items`; `place`, below `places`, is taken until it was given back. A single key's item may
     * be RD_E_TOO_LARGE: only as one of many can its value be had. */
    void (*lane_ask)(struct tool_lane *lane, size_t place, const uint64_t *key_hashes, size_t count,
                     rd_batch_item *items);
    /* Wait for an answer. Requires: one was asked for. Returns: RD_OK each item has its own result; or an error of the
     * whole call, and no item has one. */
    rd_err (*lane_take)(struct tool_lane *lane, size_t *out_place);
    /* Give back what an answer holds. Once for each that was taken. */
    void (*lane_give)(struct tool_lane *lane, size_t place);

    rd_err (*exists)(struct tool_store *store, const struct tool_key *key); /* RD_OK, RD_ABSENT */
    rd_err (*metadata)(struct tool_store *store, const struct tool_key *key, rd_metadata *out_meta);
    /* The entry written last, deletions included; RD_ABSENT: there is none. */
    rd_err (*last)(struct tool_store *store, rd_metadata *out_meta, uint64_t *out_size);
    rd_err (*iterate)(struct tool_store *store, tool_visit *visit, void *arg); /* newest first */

    /* All of `items` or nothing, as long as they are within the store's limits. */
    rd_err (*write)(struct tool_store *store, const rd_write_item *items, size_t count);
    /* One value, of any size, as it comes; RD_E_CANCELLED: `source` failed, and nothing was written. Where it isn't
     * offered, the whole value goes to `write`. */
    rd_err (*write_from)(struct tool_store *store, uint64_t key_hash, const struct tool_source *source);
    rd_err (*remove)(struct tool_store *store, const uint64_t *key_hashes, size_t count, size_t *out_deleted);
    /* RD_E_UNSUPPORTED: what was written becomes durable when the store sees fit. */
    rd_err (*sync)(struct tool_store *store);

    /* As rd_store_rename. */
    rd_err (*rename)(struct tool_store *store, const struct tool_key *old_key, const struct tool_key *new_key);
    /* As rd_store_copy_hash and rd_store_move_hash; `target` has the same operations. Where they aren't offered, the
     * value is read and written. */
    rd_err (*copy)(struct tool_store *store, uint64_t key_hash, struct tool_store *target);
    rd_err (*move)(struct tool_store *store, uint64_t key_hash, struct tool_store *target);

    /* The damage that is known by now. */
    rd_err (*damage)(struct tool_store *store, struct tool_damage *out_damage);
    /* As rd_store_verify, on all cores. */
    rd_err (*verify)(struct tool_store *store, rd_progress *progress, void *arg, rd_verified *out_verified);
    /* As rd_store_repair; `target` has the same operations. */
    rd_err (*repair)(struct tool_store *store, struct tool_store *target, bool older_versions, rd_repair_note *note,
                     void *arg, rd_repaired *out_repaired);
    /* As rd_store_compact. */
    rd_err (*compact)(struct tool_store *store, const rd_compact_options *options, rd_fault *out_fault,
                      rd_compacted *out_compacted);

    /* As rd_store_save_index. */
    rd_err (*index)(struct tool_store *store, const char *path, rd_fault *out_fault, rd_indexed *out_indexed);

    /* What is to be said of `err`, which the operation just before ended with. Where it isn't offered: rd_err_text. */
    const char *(*why)(struct tool_store *store, rd_err err);

    /* Whether `fd` is the store's own file: reading it as input, or writing output there, would ruin it. */
    bool (*is_file)(struct tool_store *store, int fd);
};

/** Every implementation's store begins with this. */
struct tool_store {
    const struct tool_ops *ops;
    const char *target; /* STORE as given, for messages */

    /* What a `write` may hold; 0: anything. A single item may always have any size. */
    size_t write_items_max;
    size_t write_bytes_max; /* of payloads, TOOL_ITEM_BYTES for each of them added */
};
#define TOOL_ITEM_BYTES ((size_t)32)

extern const struct tool_ops tool_path_ops;

/** F-09, for verbs that must know before they open or batch anything. */
static inline bool payload_is_legal(rd_span payload)
{
    return payload.len > 1 || (payload.len == 1 && *(const uint8_t *)payload.data != 0);
}

/** What a STORE that begins with `prefix` means. The last row has the empty prefix, which fits every other STORE. */
struct tool_scheme {
    const char *prefix;
    const struct tool_ops *ops;
    bool served;      /* a server is behind it */
    unsigned options; /* OPTION_BITs (cli.h): of those that ask for a kind of STORE, which it takes */
};
extern const struct tool_scheme tool_schemes[]; /* the executable's */
#endif
