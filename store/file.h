/* The system calls on a store's file, with their errors told apart. */
#ifndef RD_FILE_H
#define RD_FILE_H

#include <rdrive/store.h>
#include <sys/uio.h>

struct file {
    int fd;
    bool created; /* by this open */
};

/**
 * Open `path` as the options say; with `writable` also take its lock, and start over if a compaction has put another
 * file in its place meanwhile.
 * Returns: RD_OK; RD_E_IO, RD_E_NOT_FILE, RD_E_LOCKED, with errno where the system said one.
 */
RD_MUST_CHECK rd_err file_open(const char *path, const rd_open_options *options, struct file *out_file);

/* NULL-safe in the sense that fd -1 is fine. The lock goes with it. */
void file_close(struct file *file);

RD_MUST_CHECK rd_err file_size(const struct file *file, uint64_t *out_bytes);

/* Whether it has no name any more: removed, or another was renamed over it. What is written then survives nothing. */
bool file_is_gone(const struct file *file);

/* All of `parts` at `offset`, however many calls that takes; `parts` is used up. Returns: RD_OK, RD_E_NO_SPACE,
 * RD_E_IO; RD_E_TRUNCATED where a part lies in a mapping whose file was cut. */
RD_MUST_CHECK rd_err file_write_at(const struct file *file, struct iovec *parts, size_t count, uint64_t offset);

/* What errno means after a failed write: RD_E_NO_SPACE or RD_E_IO. */
rd_err file_error(void);

/* Cut to `bytes`. Returns: RD_OK, RD_E_IO. */
RD_MUST_CHECK rd_err file_cut(const struct file *file, uint64_t bytes);

/* fdatasync: nothing else makes bytes durable (E-09). Returns: RD_OK, RD_E_SYNC. */
RD_MUST_CHECK rd_err file_sync(const struct file *file);

/* Sync the directory that holds `path`, so that a file made there survives. Returns: RD_OK, RD_E_SYNC. */
RD_MUST_CHECK rd_err file_sync_directory(const char *path);

/* The path of a companion of `path`: beside the file that a link leads to, so that each of its names finds it. To be
   freed. NULL: no memory. */
char *file_beside(const char *path, const char *suffix);

#endif
