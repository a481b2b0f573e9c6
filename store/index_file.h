/* STORE.idx: a table of the index in a file, so that opening need not read the whole store. FORMAT.md has its bytes and
   the rules by which it is trusted (I-01 to I-12); on any doubt the store is recovered as if there were none. */
#ifndef RD_INDEX_FILE_H
#define RD_INDEX_FILE_H

#include "recover.h"
#include "store_internal.h"

/* What an opening brings to the question whether an index file is to be believed. */
struct index_file_call {
    const char *store_path;
    const struct file *file;
    const struct mapping *mapping; /* of all `bytes`; without a layout yet */
    uint64_t bytes;
    const struct recover_options *options; /* as for recovering everything */
};

/* Where it lies, as rd_open_options.index says. Returns: RD_OK `file->path` is to be freed, and NULL where there is to
   be none; RD_E_NOMEM. */
RD_MUST_CHECK rd_err index_file_init(struct index_file *file, const char *store_path, const char *option);

/**
 * Load it and, where the store has grown since, recover what lies above.
 * Returns: RD_OK `*out_found` is as from recover, and `file` knows what it rests on; RD_ABSENT `file->source` says why
 * not: recover everything; RD_E_CANCELLED.
 */
RD_MUST_CHECK rd_err index_file_load(struct index_file *file, const struct index_file_call *call,
                                     struct recovered *out_found);

/* Whether the store was really asked, and is not what the file was made of: it will never be believed again. */
bool index_file_is_stale(rd_index_source source);

/* Remove the file at `path` if it is one of ours. Returns: RD_OK, also where there is none; RD_E_IO. */
RD_MUST_CHECK rd_err index_file_remove(const char *path);

/* Whether what lies at `path` may be replaced or removed: a file of ours, or nothing. Returns: RD_OK; RD_E_IO, errno
   says why not: EEXIST for what is no index, ELOOP for a link. */
RD_MUST_CHECK rd_err index_file_check(const char *path);

/**
 * I-10: write one, of the store as it is: the store synced, a file beside `path` made and synced, renamed, its
 * directory synced. `*out_doing` is what failed, for people. Requires: `write` is held, or nobody else uses the store.
 * Returns: RD_OK; RD_ABSENT the store has no entry; RD_E_DAMAGED it has damage that one can't speak of; RD_E_LOCKED
 * another is writing it; RD_E_SYNC, RD_E_IO, RD_E_NO_SPACE, RD_E_NOMEM, RD_E_TRUNCATED: the old one is there, or none.
 */
RD_MUST_CHECK rd_err index_file_write(rd_store *store, const char *path, const char **out_doing, rd_indexed *out_done);

/* I-11: as a store that was written to is closed. Failure is harmless. */
void index_file_closing(rd_store *store);

/* I-09: who STORE.writer speaks of, if that is of the file with this inode; 0: of nobody. `*out_said` is what it says.
 */
uint64_t index_file_writer(const char *store_path, uint64_t inode, struct writer_said *out_said);

#endif
