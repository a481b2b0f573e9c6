/* What the model (disk.c) and the calls that come to it (wrap.c) share. All of it under one lock. */
#ifndef RDRIVE_CRASH_DISK_INTERNAL_H
#define RDRIVE_CRASH_DISK_INTERNAL_H

#include "disk.h"
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#define DISK_NAME_MAX 128

/* Something done to a file's bytes since its last sync: a write, or a size set. */
struct change {
    bool resize;
    uint64_t offset; /* or the size */
    struct buffer bytes;
};

struct inode {
    ino_t real;
    uint64_t number; /* what fstat says: it goes with the file into what is left, as on a disk */
    bool has_dropped;
    struct buffer live;
    struct buffer durable;
    struct change *changes;
    size_t change_count;
    size_t change_capacity;
};

/* Something done to the folder since its last sync: `from` is removed, then `to` names `inode`; either may be "". */
struct renaming {
    char from[DISK_NAME_MAX];
    char to[DISK_NAME_MAX];
    struct inode *inode;
};

/* What a file descriptor is to the model. */
struct handle {
    struct inode *inode; /* NULL: not a file of the folder */
    bool folder;         /* the folder itself */
};

/* The calls themselves. */
int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
int __real_fcntl(int fd, int command, ...);
int __real_fstat(int fd, struct stat *out);
int __real_stat(const char *path, struct stat *out);
int __real_flock(int fd, int operation);
int __real_ftruncate(int fd, off_t size);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
ssize_t __real_pread(int fd, void *bytes, size_t len, off_t offset);
ssize_t __real_pwrite(int fd, const void *bytes, size_t len, off_t offset);
ssize_t __real_pwritev(int fd, const struct iovec *parts, int count, off_t offset);
void *__real_mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset);

void disk_lock(void);
void disk_unlock(void);

/* Requires the lock, for all that follow. */

/* The name in the folder that `path` means, or NULL; "" for the folder itself. */
const char *disk_name(const char *path);
struct handle *disk_handle(int fd); /* never NULL; an empty one where the model doesn't know it */

/* Count a call. Returns: what is to happen to it. */
struct fault disk_count(enum disk_call call);

bool disk_is_off_locked(void);
struct inode *disk_lookup(const char *name);
struct inode *disk_create(const char *name, ino_t real); /* `name` "": a file without one */
void disk_rename(const char *from, const char *to, struct inode *inode);
void disk_write(struct inode *inode, uint64_t offset, const void *bytes, size_t len);
void disk_keep_cut(struct inode *inode, uint64_t offset, const void *bytes, size_t len);
void disk_resize(struct inode *inode, uint64_t size);
void disk_sync_file(struct inode *inode);
void disk_sync_failed(struct inode *inode); /* the kernel drops what it could not write, and some it did write */
void disk_sync_folder(void);

/* The number of a file that the kernel calls `real`. */
uint64_t disk_number(ino_t real);

#endif
