#include "file.h"
#include "base.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_PARTS_MAX  1024 /* IOV_MAX on Linux */
#define FILE_CREATE_MODE 0644

/* One attempt; `*out_moved` says that the path names another file now. `*created` stays set from attempt to attempt. */
static rd_err open_once(const char *path, const rd_open_options *options, bool *created, struct file *out_file,
                        bool *out_moved)
{
    /* O_NONBLOCK: a FIFO must be refused, not waited for. */
    int access = options->writable ? O_RDWR : O_RDONLY;
    struct stat named;
    int fd = open(path, access | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT && options->writable && options->create) {
        fd = open(path, access | O_CREAT | O_EXCL | O_CLOEXEC | O_NONBLOCK, FILE_CREATE_MODE);
        *created = *created || fd >= 0;
        /* made by another meanwhile; but a link that leads nowhere exists too, and stays so */
        *out_moved = fd < 0 && errno == EEXIST && stat(path, &named) == 0;
    }
    if (fd < 0)
        return errno == EISDIR || errno == ENXIO ? RD_E_NOT_FILE : RD_E_IO; /* ENXIO: a socket */
    struct file file = {.fd = fd, .created = *created};
    struct stat opened;
    rd_err err = RD_OK;
    if (fstat(fd, &opened) != 0)
        err = RD_E_IO;
    else if (!S_ISREG(opened.st_mode))
        err = RD_E_NOT_FILE;
    else if (options->writable && flock(fd, LOCK_EX | LOCK_NB) != 0)
        err = errno == EWOULDBLOCK ? RD_E_LOCKED : RD_E_IO;
    else if (options->writable &&
             (stat(path, &named) != 0 || named.st_ino != opened.st_ino || named.st_dev != opened.st_dev))
        *out_moved = true;
    if (err != RD_OK || *out_moved) {
        int saved = errno;
        file_close(&file);
        errno = saved;
        return err;
    }
    *out_file = file;
    return RD_OK;
}

rd_err file_open(const char *path, const rd_open_options *options, struct file *out_file)
{
    enum { TRIES_MAX = 100 };
    bool created = false;
    for (int i = 0; i < TRIES_MAX; i++) {
        bool moved = false;
        rd_err err = open_once(path, options, &created, out_file, &moved);
        if (!moved)
            return err;
    }
    errno = EAGAIN;
    return RD_E_IO;
}

void file_close(struct file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}

rd_err file_size(const struct file *file, uint64_t *out_bytes)
{
    struct stat st;
    if (fstat(file->fd, &st) != 0)
        return RD_E_IO;
    *out_bytes = (uint64_t)st.st_size;
    return RD_OK;
}

rd_err file_error(void)
{
    return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? RD_E_NO_SPACE : RD_E_IO;
}

bool file_is_gone(const struct file *file)
{
    struct stat st;
    return fstat(file->fd, &st) == 0 && st.st_nlink == 0;
}

/* Step over `done` bytes of `parts`. */
static void parts_advance(struct iovec **parts, size_t *count, size_t done)
{
    while (*count > 0 && done >= (*parts)->iov_len) {
        done -= (*parts)->iov_len;
        (*parts)++;
        (*count)--;
    }
    if (*count > 0) {
        (*parts)->iov_base = (char *)(*parts)->iov_base + done;
        (*parts)->iov_len -= done;
    }
}

rd_err file_write_at(const struct file *file, struct iovec *parts, size_t count, uint64_t offset)
{
    parts_advance(&parts, &count, 0);
    while (count > 0) {
        int now = (int)(count < WRITE_PARTS_MAX ? count : WRITE_PARTS_MAX);
        ssize_t done = pwritev(file->fd, parts, now, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno == EFAULT)
            return RD_E_TRUNCATED; /* the part lies in a mapping whose file was cut */
        if (done <= 0)
            return file_error();
        offset += (uint64_t)done;
        parts_advance(&parts, &count, (size_t)done);
    }
    return RD_OK;
}

rd_err file_cut(const struct file *file, uint64_t bytes)
{
    int result;
    do
        result = ftruncate(file->fd, (off_t)bytes);
    while (result != 0 && errno == EINTR);
    return result == 0 ? RD_OK : RD_E_IO;
}

rd_err file_sync(const struct file *file)
{
    return fdatasync(file->fd) == 0 ? RD_OK : RD_E_SYNC; /* never tried again: the kernel may have dropped the pages */
}

rd_err file_sync_directory(const char *path)
{
    char *copy = strdup(path);
    if (copy == NULL)
        return RD_E_NOMEM;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0)
        return RD_E_SYNC;
    int result = fsync(fd);
    close(fd);
    return result == 0 ? RD_OK : RD_E_SYNC;
}

char *file_beside(const char *path, const char *suffix)
{
    char *resolved = realpath(path, NULL);
    char *beside = NULL;
    if (asprintf(&beside, "%s%s", resolved != NULL ? resolved : path, suffix) < 0)
        beside = NULL;
    free(resolved);
    return beside;
}
