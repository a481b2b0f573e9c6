/* The engine's system calls, as the linker's --wrap brings them here. */
#include "disk_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* The wrappers themselves. */
int __wrap_open(const char *path, int flags, ...);
int __wrap___open_2(const char *path, int flags);
int __wrap_close(int fd);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fstat(int fd, struct stat *out);
int __wrap_stat(const char *path, struct stat *out);
int __wrap_flock(int fd, int operation);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
ssize_t __wrap_pread(int fd, void *bytes, size_t len, off_t offset);
ssize_t __wrap___pread_chk(int fd, void *bytes, size_t len, off_t offset, size_t room);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t len, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *parts, int count, off_t offset);
void *__wrap_mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __real_clock_gettime(clockid_t clock, struct timespec *out);

static atomic_bool hurries;
static atomic_uint seconds_skipped;

void disk_hurry(bool hurry)
{
    atomic_store(&hurries, hurry);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    int result = __real_clock_gettime(clock, out);
    if (result == 0 && clock == CLOCK_MONOTONIC && atomic_load(&hurries))
        out->tv_sec += atomic_fetch_add(&seconds_skipped, 1) + 1;
    return result;
}

static bool is_error(const struct fault *fault)
{
    return fault->kind == FAULT_ERROR || fault->kind == FAULT_ERRORS || fault->kind == FAULT_DEAD;
}

/* Whether the call fails. errno is set then. */
static bool fails(enum disk_call call)
{
    struct fault fault = disk_count(call);
    if (!is_error(&fault))
        return false;
    errno = fault.error;
    return true;
}

static bool is_known(int fd)
{
    const struct handle *handle = disk_handle(fd);
    return handle->inode != NULL || handle->folder;
}

static int open_modelled(const char *path, const char *name, int flags, mode_t mode)
{
    struct stat st;
    if (fails(CALL_OPEN))
        return -1;
    struct inode *inode = disk_lookup(name);
    bool unnamed = (flags & O_TMPFILE) == O_TMPFILE;
    if (disk_is_off_locked() && (unnamed || (inode == NULL && (flags & O_CREAT) != 0))) {
        errno = EIO;
        return -1;
    }
    int fd = __real_open(path, flags, mode);
    if (fd < 0)
        return -1;
    struct handle *handle = disk_handle(fd);
    handle->folder = name[0] == '\0' && !unnamed;
    if (handle->folder)
        return fd;
    if (inode == NULL && __real_fstat(fd, &st) != 0)
        fail("fstat: %s", strerror(errno));
    handle->inode = inode != NULL ? inode : disk_create(unnamed ? "" : name, st.st_ino);
    return fd;
}

static int open_any(const char *path, int flags, mode_t mode)
{
    disk_lock();
    const char *name = disk_name(path);
    int fd = name != NULL ? open_modelled(path, name, flags, mode) : __real_open(path, flags, mode);
    disk_unlock();
    return fd;
}

int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return open_any(path, flags, mode);
}

int __wrap___open_2(const char *path, int flags)
{
    return open_any(path, flags, 0);
}

int __wrap_close(int fd)
{
    disk_lock();
    bool failed = is_known(fd) && fails(CALL_CLOSE);
    int saved = errno;
    *disk_handle(fd) = (struct handle){0};
    int result = __real_close(fd);
    disk_unlock();
    if (!failed)
        return result;
    errno = saved; /* closed it is all the same */
    return -1;
}

/* The engine has one use for it, with a number. */
int __wrap_fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    int argument = va_arg(arguments, int);
    va_end(arguments);
    disk_lock();
    int copy = is_known(fd) && fails(CALL_DUP) ? -1 : __real_fcntl(fd, command, argument);
    if (copy >= 0)
        *disk_handle(copy) = *disk_handle(fd);
    disk_unlock();
    return copy;
}

int __wrap_fstat(int fd, struct stat *out)
{
    disk_lock();
    int result = is_known(fd) && fails(CALL_STAT) ? -1 : __real_fstat(fd, out);
    if (result == 0)
        out->st_ino = disk_number(out->st_ino);
    disk_unlock();
    return result;
}

int __wrap_stat(const char *path, struct stat *out)
{
    disk_lock();
    int result = disk_name(path) != NULL && fails(CALL_STAT) ? -1 : __real_stat(path, out);
    if (result == 0)
        out->st_ino = disk_number(out->st_ino);
    disk_unlock();
    return result;
}

int __wrap_flock(int fd, int operation)
{
    disk_lock();
    int result = is_known(fd) && fails(CALL_LOCK) ? -1 : __real_flock(fd, operation);
    disk_unlock();
    return result;
}

int __wrap_ftruncate(int fd, off_t size)
{
    disk_lock();
    struct inode *inode = disk_handle(fd)->inode;
    int result = inode != NULL && fails(CALL_RESIZE) ? -1 : __real_ftruncate(fd, size);
    if (result == 0 && inode != NULL)
        disk_resize(inode, (uint64_t)size);
    disk_unlock();
    return result;
}

/* No file of a test is really synced: what the model keeps is what counts. */
static int sync_any(int fd)
{
    disk_lock();
    const struct handle *handle = disk_handle(fd);
    bool failed = is_known(fd) && fails(CALL_SYNC);
    if (failed && handle->inode != NULL && !disk_is_off_locked())
        disk_sync_failed(handle->inode);
    else if (!failed && handle->inode != NULL)
        disk_sync_file(handle->inode);
    else if (!failed && handle->folder)
        disk_sync_folder();
    disk_unlock();
    return failed ? -1 : 0;
}

int __wrap_fsync(int fd)
{
    return sync_any(fd);
}

int __wrap_fdatasync(int fd)
{
    return sync_any(fd);
}

int __wrap_rename(const char *from, const char *to)
{
    disk_lock();
    const char *from_name = disk_name(from);
    const char *to_name = disk_name(to);
    bool known = from_name != NULL && to_name != NULL;
    int result = known && fails(CALL_RENAME) ? -1 : __real_rename(from, to);
    if (result == 0 && known)
        disk_rename(from_name, to_name, disk_lookup(from_name));
    disk_unlock();
    return result;
}

int __wrap_unlink(const char *path)
{
    disk_lock();
    const char *name = disk_name(path);
    int result = name != NULL && fails(CALL_UNLINK) ? -1 : __real_unlink(path);
    if (result == 0 && name != NULL)
        disk_rename(name, "", NULL);
    disk_unlock();
    return result;
}

ssize_t __wrap_pread(int fd, void *bytes, size_t len, off_t offset)
{
    disk_lock();
    struct fault fault = {.kind = FAULT_NONE};
    if (is_known(fd))
        fault = disk_count(CALL_READ);
    disk_unlock();
    if (is_error(&fault)) {
        errno = fault.error;
        return -1;
    }
    return __real_pread(fd, bytes, fault.kind == FAULT_SHORT && fault.bytes < len ? fault.bytes : len, offset);
}

ssize_t __wrap___pread_chk(int fd, void *bytes, size_t len, off_t offset, size_t room)
{
    if (len > room)
        fail("pread of %zu bytes into %zu", len, room);
    return __wrap_pread(fd, bytes, len, offset);
}

/* All of `bytes`, as far as the fault lets it. */
static ssize_t write_modelled(int fd, struct inode *inode, const uint8_t *bytes, size_t len, off_t offset)
{
    struct fault fault = disk_count(CALL_WRITE);
    if (is_error(&fault)) {
        errno = fault.error;
        return -1;
    }
    if (fault.kind == FAULT_CUT) {
        disk_keep_cut(inode, (uint64_t)offset, bytes, len);
        errno = EIO;
        return -1;
    }
    if ((fault.kind == FAULT_SHORT || fault.kind == FAULT_FULL) && fault.bytes < len)
        len = fault.bytes;
    for (size_t done = 0; done < len;) {
        ssize_t now = __real_pwrite(fd, bytes + done, len - done, offset + (off_t)done);
        if (now <= 0)
            fail("a write that should succeed does not: %s", strerror(errno));
        done += (size_t)now;
    }
    disk_write(inode, (uint64_t)offset, bytes, len);
    return (ssize_t)len;
}

ssize_t __wrap_pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    disk_lock();
    struct inode *inode = disk_handle(fd)->inode;
    ssize_t done =
        inode != NULL ? write_modelled(fd, inode, bytes, len, offset) : __real_pwrite(fd, bytes, len, offset);
    disk_unlock();
    return done;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    struct buffer bytes = {0};
    disk_lock();
    struct inode *inode = disk_handle(fd)->inode;
    for (int i = 0; inode != NULL && i < count; i++)
        buffer_put(&bytes, bytes.len, parts[i].iov_base, parts[i].iov_len);
    ssize_t done = inode != NULL ? write_modelled(fd, inode, bytes.data, bytes.len, offset)
                                 : __real_pwritev(fd, parts, count, offset);
    int saved = errno;
    buffer_free(&bytes);
    errno = saved;
    disk_unlock();
    return done;
}

void *__wrap_mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) != 0)
        return __real_mmap(address, len, protection, flags, fd, offset);
    disk_lock();
    bool failed = is_known(fd) && fails(CALL_MAP);
    disk_unlock();
    return failed ? MAP_FAILED : __real_mmap(address, len, protection, flags, fd, offset);
}
