#include "out.h"

#include "text.h"
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void out_init(struct out *out, int fd, const char *name)
{
    out->fd = fd;
    out->name = name;
    out->error = 0;
    out->len = 0;
}

void out_init_stdout(struct out *out)
{
    out_init(out, STDOUT_FILENO, "standard output");
}

static void write_all(struct out *out, const uint8_t *data, size_t len)
{
    while (len > 0 && out->error == 0) {
        ssize_t wrote = write(out->fd, data, len);
        if (wrote >= 0) {
            data += wrote;
            len -= (size_t)wrote;
        } else if (errno == EAGAIN) {
            /* whoever shares our terminal or pipe made it non-blocking */
            struct pollfd ready = {out->fd, POLLOUT, 0};
            (void)poll(&ready, 1, -1);
        } else if (errno != EINTR) {
            out->error = errno;
        }
    }
}

static void flush(struct out *out)
{
    write_all(out, out->buffer, out->len);
    out->len = 0;
}

void out_bytes(struct out *out, rd_span bytes)
{
    if (bytes.len == 0)
        return;
    if (bytes.len > OUT_BUFFER_BYTES - out->len)
        flush(out);
    if (bytes.len >= OUT_BUFFER_BYTES) {
        write_all(out, bytes.data, bytes.len);
        return;
    }
    memcpy(out->buffer + out->len, bytes.data, bytes.len);
    out->len += bytes.len;
}

bool out_payload(struct out *out, rd_span payload)
{
    const uint8_t *from = payload.data;
    for (size_t left = payload.len; left > 0 && out->error == 0;) {
        if (out->len == OUT_BUFFER_BYTES)
            flush(out);
        size_t room = OUT_BUFFER_BYTES - out->len;
        size_t len = left < room ? left : room;
        if (!rd_copy(out->buffer + out->len, (rd_span){from, len}))
            return false;
        out->len += len;
        from += len;
        left -= len;
    }
    return true;
}

void out_text(struct out *out, const char *text)
{
    out_bytes(out, text_span(text));
}

void out_print(struct out *out, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof(text)) {
        if (out->error == 0)
            out->error = EOVERFLOW; /* a line of ours that outgrew its room must not go out cut short */
        return;
    }
    out_bytes(out, (rd_span){text, (size_t)len});
}

void out_json_string(struct out *out, rd_span bytes)
{
    const uint8_t *at = bytes.data;
    out_text(out, "\"");
    for (size_t i = 0; i < bytes.len;) {
        size_t len = text_utf8_len(at + i, bytes.len - i);
        if (len == 0)
            out_text(out, "\\ufffd");
        else if (at[i] < 0x20 || at[i] == '"' || at[i] == '\\')
            out_print(out, "\\u%04x", at[i]);
        else
            out_bytes(out, (rd_span){at + i, len});
        i += len == 0 ? 1 : len;
    }
    out_text(out, "\"");
}

int out_finish(struct out *out, int status)
{
    flush(out);
    if (close(out->fd) != 0 && out->error == 0 && errno != EINTR)
        out->error = errno;
    if (out->error == 0)
        return status;
    return report(STATUS_FAILED, "writing to %s: %s", out->name, strerror(out->error));
}
