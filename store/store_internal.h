/* What the modules of an open store share. */
#ifndef RD_STORE_INTERNAL_H
#define RD_STORE_INTERNAL_H

#include "appender.h"
#include "file.h"
#include "format.h"
#include "recover.h"
#include "view.h"
#include <pthread.h>
#include <rdrive/engine.h>

/* Checking more bytes than this at a time, or resolving more keys than that, is a worker thread's job. */
#define INLINE_CHECK_MAX ((uint64_t)4 << 20)
#define INLINE_KEYS_MAX  ((size_t)50000)
#define PREFETCH_AHEAD   16 /* index lines on their way at a time: about what a core can have outstanding */
#define INLINE_KEY_WORK  (INLINE_CHECK_MAX / INLINE_KEYS_MAX) /* what a key costs, in bytes checked */

/* STORE.idx, as far as this opening goes; index_file.h. */
struct index_file {
    char *path;  /* NULL: none */
    bool beside; /* the store, and not where the options say */
    rd_index_source source;
    uint64_t entries;   /* how many of the store's that one covers; 0: there is none that does */
    uint64_t first_off; /* the trailer of the store's first entry; 0: not known */
};

struct rd_store {
    char *path;
    struct file file;
    rd_open_options options;
    uint64_t unread_bytes;         /* behind the tail when opened */
    uint64_t torn_bytes, torn_off; /* cut by opening for writing, and where */
    uint64_t synced_off;           /* what STORE.writer said then, or SYNCED_UNKNOWN */

    struct view *_Atomic view; /* what readers see; changed and replaced by the holder of `write` alone */
    _Atomic int file_state;    /* rd_file_state */

    pthread_mutex_t write; /* one commit at a time; guards `file`, `view`'s changes, and what follows. */
    struct appender appender;
    atomic_bool write_ended;  /* after a failed sync, a failed cut, or a file that changed behind our back; also read
                                 without the lock, to tell of it */
    bool unsynced;            /* something was appended since the last sync, by an earlier opening too */
    struct writer_line *line; /* STORE.writer; NULL where the store is read-only */

    struct commit_queue *queue;   /* callers that wait for a commit; write.c */
    struct index_file index_file; /* guarded by `write` */
    struct upkeep *upkeep;        /* the background thread and what it is asked; upkeep.c */
    atomic_bool compacting;       /* one compaction at a time; a late recovery waits for none */
};

/* ---- read.c ---- */

/* Looking at the view that is there: it stays, with all that hangs from it, until the end. What epoch_enter says. */
struct reading {
    struct epoch_reader *reader;
    struct view *view;
};

static inline struct reading reading_begin(rd_store *store)
{
    struct epoch_reader *reader = epoch_enter();
    return (struct reading){.reader = reader, .view = atomic_load(&store->view)};
}

static inline void reading_end(const struct reading *reading)
{
    epoch_leave(reading->reader);
}

/* A moment of the store: its mapping stays valid while the pin is held. */
struct snapshot {
    struct mapping *mapping;
    struct pin *pin;
    uint64_t tail_off;
};

/**
 * The entry whose trailer lies at `trailer_off`, by the file's layout where that knows better than its own link.
 * Returns: RD_OK; RD_E_DAMAGED no entry can lie there, or what lies there is damaged; RD_E_TRUNCATED.
 */
RD_MUST_CHECK rd_err snapshot_entry(const struct snapshot *snapshot, uint64_t trailer_off, struct entry *out_entry);

/**
 * Walk the accepted entries from `*end_off` down, damage stepped over. Returns: RD_OK `*out_entry` is one and
 * `*out_damage` NULL, or `*out_damage` is a damaged range to be reported (no entry; RD_DAMAGE_LINK comes as an entry);
 * `*end_off` is where to go on; RD_ABSENT at 0; RD_E_DAMAGED the chain broke under us; RD_E_TRUNCATED.
 */
RD_MUST_CHECK rd_err snapshot_walk(const struct snapshot *snapshot, uint64_t *end_off, struct entry *out_entry,
                                   const struct damage **out_damage);

/* Check an entry's payload (F-06) in slices between which the caller may change its mind.
   Returns: RD_OK, RD_E_DAMAGED, RD_E_TRUNCATED, RD_E_CANCELLED. */
RD_MUST_CHECK rd_err snapshot_check(const struct snapshot *snapshot, const struct entry *entry,
                                    const atomic_bool *cancel);

/* Resolve keys at one instant: each cookie becomes the key's word, WORD_NONE where absent or to be skipped. Pins once.
   Returns: false where `cancel`, if not NULL, was set meanwhile: some of them are resolved then, and nothing is pinned.
 */
bool store_resolve(rd_store *store, rd_key *keys, size_t count, const atomic_bool *cancel,
                   struct snapshot *out_snapshot);

/* Pin what is looked at. Requires: the view's tail was `tail_off` at some moment since the reading began. */
void reading_pin(const struct reading *reading, uint64_t tail_off, struct snapshot *out_snapshot);

/* Pin the store as it is now. */
void store_snapshot(rd_store *store, struct snapshot *out_snapshot);

/* The word of `hash` now. WORD_NONE, too, where the store is of another generation than the snapshot. */
uint64_t store_word(rd_store *store, const struct snapshot *snapshot, uint64_t hash);

/* Set a flag on the very word that was looked at, unless the store is of another generation. Returns: whether it is
   set by this call. */
bool store_flag(rd_store *store, const struct snapshot *snapshot, uint64_t hash, uint64_t word, uint64_t flag);

/* Whether the snapshot's file, if it is still the store's, ends before `end_off`. A cut inside the last page raises
   nothing: its bytes read as zeros. */
bool store_was_cut(rd_store *store, const struct snapshot *snapshot, uint64_t end_off);

static inline void snapshot_release(struct snapshot *snapshot)
{
    pin_return(snapshot->pin, 1);
    snapshot->pin = NULL;
    snapshot->mapping = NULL;
}

/* Fetch what of a resolved word's entry is looked at first: its trailer, and the end of its payload. Always inline: gcc
   takes a function of nothing but prefetches for one without effect, and leaves the call out. */
static inline __attribute__((always_inline)) void snapshot_prefetch(const struct snapshot *snapshot, uint64_t word)
{
    if (word == WORD_NONE)
        return;
    const uint8_t *trailer = snapshot->mapping->base + word_off(word);
    __builtin_prefetch(trailer - 1);
    __builtin_prefetch(trailer + RD_TRAILER_SIZE - 1);
}

/* What the trailers of some resolved words say, read behind one guard instead of one each. */
struct trailer {
    struct entry entry;
    bool known; /* else store_load looks for itself, and finds out why */
};

/* Fetch the beginnings of their payloads; what follows, the processor fetches itself. */
#define PAYLOAD_AHEAD 256u
static inline __attribute__((always_inline)) void
snapshot_prefetch_payloads(const struct snapshot *snapshot, const struct trailer *trailers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct entry *entry = &trailers[i].entry;
        if (!trailers[i].known)
            continue;
        uint64_t end = entry->start_off + PAYLOAD_AHEAD < entry->trailer_off ? entry->start_off + PAYLOAD_AHEAD
                                                                             : entry->trailer_off;
        for (uint64_t off = entry->start_off; off < end; off += 64)
            __builtin_prefetch(snapshot->mapping->base + off);
    }
}

static inline size_t at_most(size_t count, size_t most)
{
    return count < most ? count : most;
}

/* Read those of keys[0] to keys[count - 1], at most TRAILERS_MAX, and fetch the `ahead` next. */
#define TRAILERS_MAX 32u
void snapshot_trailers(const struct snapshot *snapshot, const rd_key *keys, size_t count, size_t ahead,
                       struct trailer *out_trailers);

/* Bytes that reading the payload of `word` would check now. `trailer`: its own, or NULL. */
uint64_t store_check_len(const rd_store *store, const struct snapshot *snapshot, uint64_t word,
                         const struct trailer *trailer);

/* What is wanted of a value; zeros: all of it. */
struct wanted {
    bool no_payload;
    uint64_t payload_max; /* 0: no bound */
};

/**
 * The value behind a resolved word, in the snapshot's mapping; the payload is checked as the store's options say.
 * `trailer` is its own, or NULL; `hash` is what it must carry; `cancel`, where not NULL, ends a long check.
 * Returns: RD_OK, RD_ABSENT, RD_E_DAMAGED, RD_E_TRUNCATED, RD_E_CANCELLED; RD_E_TOO_LARGE with the metadata, and a
 *          payload that has its length alone.
 */
rd_err store_load(rd_store *store, const struct snapshot *snapshot, uint64_t hash, uint64_t word,
                  const struct trailer *trailer, struct wanted wanted, const atomic_bool *cancel, rd_span *out_payload,
                  rd_metadata *out_meta);

rd_metadata metadata_of(const struct entry *entry);

/* What the index knows of the newest entry in the snapshot, for store_check_len; WORD_NONE where there is no entry. */
uint64_t store_last_word(rd_store *store, const struct snapshot *snapshot);

/* The newest entry in the snapshot, its payload checked as store_load does. Returns: as store_load. */
rd_err store_load_last(rd_store *store, const struct snapshot *snapshot, const atomic_bool *cancel,
                       rd_span *out_payload, rd_metadata *out_meta);

/* ---- store.c ---- */

/* Put a view in the place of the one that is there. Requires: `write` is held. Returns: that one; give it back, once
   `write` is not held, with store_retire. */
struct view *store_replace(rd_store *store, struct view *view);

/* Wait until nobody reads there any more, and destroy it. */
void store_retire(struct view *superseded);

/* The figures of what recovery found. */
struct figures recovered_figures(const struct recovered *recovered);

/* Put what recovery found in place of what the store has, as a new generation of the same file; entries appended since
   the recovery began are kept. Requires: `write` is held. Returns: RD_OK, `*out_superseded` is for store_retire;
   RD_E_NOMEM: nothing changed. */
RD_MUST_CHECK rd_err store_adopt(rd_store *store, struct recovered *recovered, uint64_t recovered_len,
                                 struct view **out_superseded);

/* ---- write.c ---- */

/* Where an entry lies: offsets mean nothing without the generation. */
struct place {
    uint64_t generation;
    uint64_t trailer_off;
};

/* One caller's writes, deletes, rename or renewal: appended contiguously, visible at one instant. */
struct commit {
    const rd_write_item *items; /* or, where NULL, deletes of `keys` */
    const uint32_t *crcs;       /* NULL, or those of the items' payloads: large ones are not looked at then */
    const rd_key *keys;
    size_t count;
    const struct place *only;  /* NULL, or a delete of one key happens only if its newest entry lies here; otherwise
                                  RD_E_UNAVAILABLE, where it has a value */
    bool rename;               /* keys[0] becomes keys[1] */
    bool renew;                /* append what each key has once more: its value, or a tombstone */
    const atomic_bool *cancel; /* NULL, or gives up many writes or deletes in their midst: RD_E_CANCELLED */
    rd_err err;
    rd_written written;
};

/* Carry out a group of commits in order, made durable by one sync. Each gets its own result. Threads: any; they queue.
 */
void store_commit(rd_store *store, struct commit **group, size_t count);

/* A stored payload on its way into a file again. Once it is taken nothing of ours loads from the mapping: a file that
   is cut under it is an error. */
struct taken {
    rd_span bytes; /* large: in the mapping; small: `copy` */
    uint32_t crc;
    void *copy;
};

/* Returns: RD_OK, to be given back with taken_fini; RD_E_DAMAGED `stored` is not what `crc` is of; RD_E_TRUNCATED,
   RD_E_NOMEM. */
RD_MUST_CHECK rd_err take(rd_span stored, uint32_t crc, struct taken *out_taken);
void taken_fini(struct taken *taken);

/* ---- commit_queue.c ---- */

/* Carry out one commit together with those of other callers that wait, by one sync. Returns: `commit->err`; `out_done`
   is written where that is RD_OK; NULL is fine. */
rd_err store_submit(rd_store *store, struct commit *commit, rd_written *out_done);

/* Sync where anything is unsynced. Writers go on meanwhile. Returns: as rd_store_sync. */
RD_MUST_CHECK rd_err store_sync(rd_store *store);

RD_MUST_CHECK rd_err commit_queue_create(struct commit_queue **out_queue);
void commit_queue_destroy(struct commit_queue *queue);

/* ---- stream.c: for who commits a stream himself ---- */

/* Whether `more_len` bytes can be appended without touching the disk. */
bool stream_stays_in_memory(const rd_stream *stream, uint64_t more_len);

/* Whether some of it lies in a file: sealing it touches the disk, and giving that back takes its time. */
bool stream_has_file(const rd_stream *stream);

/* Ready the whole value to be committed. Nothing is appended to the stream from then on, and it must outlive the
   commit. Returns: RD_OK; what an append of it failed with; RD_E_NO_SPACE, RD_E_IO, RD_E_NOMEM. */
RD_MUST_CHECK rd_err stream_seal(rd_stream *stream, struct commit *out_commit);

/* Of what was appended so far. */
void stream_measure(const rd_stream *stream, uint64_t *out_size, uint32_t *out_crc);

/* ---- writer_line.c: STORE.writer ---- */

/* What STORE.writer says. */
struct writer_said {
    uint64_t pid, inode, synced_off, start; /* start: seconds since 1970 */
    char host[65];
    uint64_t torn_inode; /* of the file with these ranges: up to a compaction's rename, the one to be replaced */
    struct torn_ranges torn;
};

/* Read it. Returns: false where there is none, or its checksum fails, with errno 0; or where it can't be read, with
   what the system said: then nobody knows what it promises. */
bool writer_line_read(const char *store_path, struct writer_said *out_said);

/* For a store open for writing as `file`. Nothing is written yet. Returns: RD_OK, RD_E_NOMEM. */
RD_MUST_CHECK rd_err writer_line_create(const char *store_path, struct writer_line **out_line);

/* Whether a line can be written there, before anything depends on it. What is no line, and longer than one or with
   another name too, is left alone. Returns: RD_OK; RD_E_NOMEM; RD_E_IO, errno says why: EEXIST for what is no line. */
RD_MUST_CHECK rd_err writer_line_check(const char *store_path);

/* Before an append: sync the file, which ends at `tail_off`, then write the line with its directory, synced; unless
   that was done before, or by writer_line_move. `layout`: the file's, whose torn ranges the line names from then on.
   Returns: RD_OK; RD_E_NO_SPACE, RD_E_IO: don't append; RD_E_SYNC: of the
   store's own file. */
RD_MUST_CHECK rd_err writer_line_begin(struct writer_line *line, const struct file *file, const struct layout *layout,
                                       uint64_t tail_off);

/* After a sync: rewrite it in place, unsynced, at most once a second; always with `closing`. Failure is harmless, and
   less than what it knows already is no news: close with 0 where something is unsynced. NULL is fine. */
void writer_line_synced(struct writer_line *line, uint64_t synced_off, bool closing);

/* For another file that is about to take the store's place: write and sync it anew. Until then `store_file` may still
   be opened, so the torn ranges of its `layout` are named. Returns: as writer_line_begin. */
RD_MUST_CHECK rd_err writer_line_move(struct writer_line *line, const struct file *store_file,
                                      const struct layout *layout, const struct file *file, uint64_t synced_off);

void writer_line_destroy(struct writer_line *line);

/* ---- torn.c: opening a store for writing after a crash ---- */

/* Copy [tail, file size) to STORE.torn-<tail>, synced, and cut it. Returns: RD_OK; else nothing was cut, and `fault`
   has the text. */
RD_MUST_CHECK rd_err torn_save_and_cut(rd_store *store, rd_fault *fault);

/* Append for each key of a range that a crash tore (DAMAGE_TORN) what the key has without it: its older value, or a
   tombstone, so that no key's version lies there once more is synced behind it, line or no line. Returns: as a commit.
 */
RD_MUST_CHECK rd_err torn_supersede(rd_store *store);

/* ---- upkeep.c: what goes on in the background ---- */

/* Make `store->upkeep` and what threads the options need, once all else of the store is there.
   Returns: RD_OK, RD_E_NOMEM. */
RD_MUST_CHECK rd_err upkeep_create(rd_store *store);
/* Ends the thread; before anything else of the store is given back. */
void upkeep_destroy(struct upkeep *upkeep);

/* How far the scrub of what opening left unchecked has come, in payload bytes. */
void upkeep_scrubbed(const struct upkeep *upkeep, uint64_t *out_done, uint64_t *out_total);

/* A payload that opening had not checked has failed: recover around it, soon, in the background. */
void upkeep_recover(struct upkeep *upkeep);

/* The same now, in this thread. Returns: RD_OK, RD_E_NOMEM, RD_E_CANCELLED, RD_E_TRUNCATED. */
RD_MUST_CHECK rd_err store_recover_again(rd_store *store, const atomic_bool *cancel);

/* Compare the path's file with the one that is open; drops "verified" flags where it was cut. Returns: the state. */
rd_file_state store_look(rd_store *store);

#endif
