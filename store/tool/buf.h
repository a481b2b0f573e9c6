/** Bytes that grow. A zeroed buffer is empty and needs no init. */
#ifndef RDRIVE_TOOL_BUF_H
#define RDRIVE_TOOL_BUF_H

#include <rdrive/store.h>

struct buf {
    uint8_t *data;
    size_t len;
    size_t cap;
};

/** Room for `more` bytes behind `len`; `data` may move. Returns: false if there is no memory; nothing changed. */
RD_MUST_CHECK bool buf_reserve(struct buf *buf, size_t more);

/** Append `bytes`. Returns: as buf_reserve. */
RD_MUST_CHECK bool buf_add(struct buf *buf, rd_span bytes);

void buf_fini(struct buf *buf);

#define AUTO_BUF __attribute__((cleanup(buf_fini))) struct buf

#endif
