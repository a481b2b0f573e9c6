#include "buf.h"

#include <stdlib.h>
#include <string.h>

#define BUF_FIRST_CAP 4096

bool buf_reserve(struct buf *buf, size_t more)
{
    if (more <= buf->cap - buf->len)
        return true;
    if (more > SIZE_MAX / 2 - buf->len)
        return false;
    size_t need = buf->len + more;
    size_t cap = buf->cap > BUF_FIRST_CAP ? buf->cap : BUF_FIRST_CAP;
    while (cap < need)
        cap *= 2;
    uint8_t *data = realloc(buf->data, cap);
    if (data == NULL)
        return false;
    buf->data = data;
    buf->cap = cap;
    return true;
}

bool buf_add(struct buf *buf, rd_span bytes)
{
    if (!buf_reserve(buf, bytes.len))
        return false;
    if (bytes.len > 0)
        memcpy(buf->data + buf->len, bytes.data, bytes.len);
    buf->len += bytes.len;
    return true;
}

void buf_fini(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){0};
}
