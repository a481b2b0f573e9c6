#include "in.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IN_STEP_BYTES ((size_t)1 << 18)

bool in_open(struct in *in, const char *path)
{
    *in = (struct in){.fd = STDIN_FILENO, .name = "standard input"};
    if (path != NULL && strcmp(path, "-") != 0) {
        in->name = path;
        in->fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    struct stat about;
    if (in->fd < 0 || fstat(in->fd, &about) != 0) {
        in->error = errno;
        return false;
    }
    if (S_ISDIR(about.st_mode)) {
        in->error = EISDIR; /* told now, before anything is done on the input's account */
        return false;
    }
    if (S_ISREG(about.st_mode))
        in->total = (uint64_t)about.st_size;
    return true;
}

void in_close(struct in *in)
{
    if (in->fd > STDERR_FILENO)
        (void)close(in->fd);
    in->fd = -1;
    buf_fini(&in->bytes);
}

/** Read some more behind what is there. */
static enum in_result fill(struct in *in)
{
    if (!buf_reserve(&in->bytes, IN_STEP_BYTES))
        return IN_NO_MEMORY;
    for (;;) {
        ssize_t got = read(in->fd, in->bytes.data + in->bytes.len, in->bytes.cap - in->bytes.len);
        if (got >= 0) {
            in->at_end = got == 0;
            in->bytes.len += (size_t)got;
            in->read += (uint64_t)got;
            return IN_OK;
        }
        if (errno == EAGAIN) {
            struct pollfd ready = {in->fd, POLLIN, 0};
            (void)poll(&ready, 1, -1);
        } else if (errno != EINTR) {
            in->error = errno;
            return IN_ERROR;
        }
    }
}

/** Move what is not handed out to the front, so that the buffer grows with the line, not with the file. */
static void shift(struct in *in)
{
    size_t left = in->bytes.len - in->begin;
    if (in->begin == 0)
        return;
    memmove(in->bytes.data, in->bytes.data + in->begin, left);
    in->bytes.len = left;
    in->scanned -= in->begin;
    in->begin = 0;
}

enum in_result in_line(struct in *in, rd_span *out_line)
{
    for (;;) {
        uint8_t *from = in->bytes.data + in->scanned;
        size_t left = in->bytes.len - in->scanned;
        uint8_t *end = left == 0 ? NULL : memchr(from, '\n', left);
        if (end != NULL || (in->at_end && in->begin < in->bytes.len)) {
            size_t stop = end != NULL ? (size_t)(end - in->bytes.data) : in->bytes.len;
            *out_line = (rd_span){in->bytes.data + in->begin, stop - in->begin};
            in->begin = end != NULL ? stop + 1 : stop;
            in->scanned = in->begin;
            return out_line->len <= IN_LINE_MAX ? IN_OK : IN_TOO_LONG;
        }
        if (in->at_end)
            return IN_END;
        in->scanned = in->bytes.len;
        shift(in);
        if (in->bytes.len > IN_LINE_MAX)
            return IN_TOO_LONG;
        enum in_result result = fill(in);
        if (result != IN_OK)
            return result;
    }
}

enum in_result in_piece(struct in *in, rd_span *out_bytes)
{
    in->bytes.len = 0;
    enum in_result result = in->at_end ? IN_END : fill(in);
    if (result != IN_OK)
        return result;
    *out_bytes = (rd_span){in->bytes.data, in->bytes.len};
    return in->at_end ? IN_END : IN_OK;
}

enum in_result in_all(struct in *in, size_t max, rd_span *out_bytes)
{
    while (!in->at_end) {
        enum in_result result = fill(in);
        if (result != IN_OK)
            return result;
        if (in->bytes.len > max)
            return IN_TOO_LONG;
    }
    *out_bytes = (rd_span){in->bytes.data, in->bytes.len};
    return IN_OK;
}

const char *in_why(const struct in *in, enum in_result result)
{
    switch (result) {
    case IN_TOO_LONG: return "too long: a value may have 1 GiB, a line 2 GiB";
    case IN_NO_MEMORY: return rd_err_text(RD_E_NOMEM);
    case IN_ERROR: return strerror(in->error);
    case IN_OK:
    case IN_END: break;
    }
    return "no error";
}
