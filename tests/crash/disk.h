/**
 * A disk that knows what was synced. The engine's system calls on the files of one folder come here (the linker's
 * --wrap): they act on real files, and beside that the model keeps what a power cut may leave of each.
 *
 * What it assumes of a disk: a sector of 512 bytes is written whole or not at all, in any order; a name made, renamed
 * or removed since the last fsync of its folder is there or not; a size changed since the last sync of its file is
 * changed or not. What was synced stays.
 *
 * Threads: any, unless a call says otherwise.
 */
#ifndef RDRIVE_CRASH_DISK_H
#define RDRIVE_CRASH_DISK_H

#include "common.h"

/* X(name, what it stands for) */
#define DISK_CALLS(X)                                                                                                  \
    X(CALL_OPEN, "open")                                                                                               \
    X(CALL_READ, "pread")                                                                                              \
    X(CALL_WRITE, "pwritev")                                                                                           \
    X(CALL_RESIZE, "ftruncate")                                                                                        \
    X(CALL_SYNC, "fsync")                                                                                              \
    X(CALL_RENAME, "rename")                                                                                           \
    X(CALL_UNLINK, "unlink")                                                                                           \
    X(CALL_STAT, "stat")                                                                                               \
    X(CALL_LOCK, "flock")                                                                                              \
    X(CALL_MAP, "mmap")                                                                                                \
    X(CALL_DUP, "fcntl")                                                                                               \
    X(CALL_CLOSE, "close")
#define DISK_CALL_NAME(name, text) name,
enum disk_call { DISK_CALLS(DISK_CALL_NAME) DISK_CALL_KINDS };
#undef DISK_CALL_NAME

const char *disk_call_text(enum disk_call call);

/* ---- Which folder -------------------------------------------------------------------------------------------------
 */

/* From now on the files of `folder`, as they are and durable, are the disk. Threads: while no other one is there. */
void disk_begin(const char *folder);
/* Forget which files earlier disks left; before files are made that are no copies of theirs. Threads: as disk_begin. */
void disk_forget(void);
/* No disk any more; the files stay as the kernel has them. Threads: as disk_begin. */
void disk_end(void);

/* Whether each look at the monotonic clock finds it a second later, so that what is done once a second is done at once.
   Not with waits by that clock. */
void disk_hurry(bool hurry);

/* ---- What goes wrong ----------------------------------------------------------------------------------------------
 */

enum fault_kind {
    FAULT_NONE,      /* calls are only counted */
    FAULT_ERROR,     /* the call fails with `error`, once */
    FAULT_ERRORS,    /* it and all later ones of its kind do */
    FAULT_DEAD,      /* it and all later ones that would change something do */
    FAULT_SHORT,     /* a read or write does only `bytes`, once */
    FAULT_FULL,      /* a write does only `bytes`, and later ones fail with `error` */
    FAULT_POWER_OFF, /* nothing is done from this call on, and all that would change something fails */
    FAULT_CUT,       /* the same, and LEFT_BY_CUT has the first bytes of this write */
};

struct fault {
    enum fault_kind kind;
    uint64_t at; /* which call, from 0 */
    int error;
    size_t bytes;
};

/* Count calls from 0 and let `fault` happen. */
void disk_arm(const struct fault *fault);
/* No fault any more. Returns: how many calls were made since disk_arm. */
uint64_t disk_disarm(void);
/* Which call the n-th since disk_arm was. */
enum disk_call disk_nth_call(uint64_t n);

/* Whether a sync of this file has failed and taken bytes with it: the kernel goes on showing them, and counts them as
   written. Only what another boot finds is true. */
bool disk_has_dropped(const char *name);

void disk_power_off(void);
/* Whether FAULT_DEAD has begun: what was appended can't be taken back either. */
bool disk_is_dead(void);
bool disk_is_off(void);

/* ---- What is left -------------------------------------------------------------------------------------------------
 */

enum leftover {
    LEFT_BY_KERNEL, /* all that was done: the process died, the machine did not */
    LEFT_SYNCED,    /* what was synced, and nothing else */
    LEFT_SECTORS,   /* beside it any part of the rest */
    LEFT_BY_CUT,    /* as by the kernel, and the first `seed` bytes of the write that was cut */
};

/* How many bytes the write that was cut had; `*out_name` is the file's name, or "" where it has none. */
size_t disk_cut_write(const char **out_name);

/* Make `folder` with what is left; the same for the same seed. */
void disk_leave(enum leftover leftover, uint64_t seed, const char *folder);

#endif
