/* What the copying (compact.c) and the new file's way into the store's place (compact_place.c) share. */
#ifndef RD_COMPACT_INTERNAL_H
#define RD_COMPACT_INTERNAL_H

#include "store_internal.h"

struct compaction {
    rd_store *store;
    const rd_compact_options *options;
    rd_fault *fault;
    const char *doing; /* for the fault's text */
    uint64_t generation;
    uint64_t tail_before;
    uint64_t copied_off; /* what ends up to here in the old file is copied, or not wanted */
    bool check_failed;   /* a stored payload is not what its checksum says */
    bool placed;         /* the new file has the store's name */

    char *target;      /* the store's own path, where links lead to */
    char *path;        /* of the new file */
    struct file file;  /* as the next: what the store had in its place, once the new file is placed */
    struct view *view; /* NULL until all is copied */
    struct index index;
    struct appender appender;
    uint64_t entries;
    uint64_t entries_total;
    uint64_t reported_entries, reported_bytes;
};

/* The fault's text, one line. Returns: `err`. */
__attribute__((format(printf, 3, 4))) rd_err compact_refuse(const struct compaction *compaction, rd_err err,
                                                            const char *format, ...);

/* What a compaction would throw away for good, a repair may still need. Returns: RD_OK, RD_E_DAMAGED. */
RD_MUST_CHECK rd_err compact_check_damage(const struct compaction *compaction);

/* Somebody who takes no lock may have appended, and that must not be lost. Requires: `write` is held.
   Returns: RD_OK, RD_E_ENDED, RD_E_TRUNCATED, RD_E_IO. */
RD_MUST_CHECK rd_err compact_check_file(const struct compaction *compaction);

/* Copy what was appended since, superseded entries and tombstones included. `reporting`: call the caller's progress. */
RD_MUST_CHECK rd_err compact_copy_appended(struct compaction *compaction, bool reporting);

/* Make what is copied durable. Returns: as appender_flush; RD_E_SYNC. */
RD_MUST_CHECK rd_err compact_sync_copy(struct compaction *compaction);

/* Make the new file, locked, beside the store's. Returns: RD_OK; RD_E_LOCKED, RD_E_NO_SPACE, RD_E_IO, RD_E_NOMEM. */
RD_MUST_CHECK rd_err compact_make_file(struct compaction *compaction);

/* Hold writers, copy the rest, and put the new file in the store's place. Returns: RD_E_SYNC, with `placed`: it is
   there, but what its directory says of it may be lost. Any other error: nothing was changed. */
RD_MUST_CHECK rd_err compact_replace(struct compaction *compaction);

#endif
