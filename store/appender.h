/* Entries on their way into the file: small ones gathered in one buffer, large payloads written from where they are. */
#ifndef RD_APPENDER_H
#define RD_APPENDER_H

#include "file.h"
#include "format.h"

#define APPENDER_BUFFER   ((size_t)1 << 20)
#define APPENDER_COPY_MAX ((size_t)64 << 10) /* larger payloads are not copied */

struct appender {
    uint8_t *buffer; /* APPENDER_BUFFER bytes, made at the first use */
    size_t used;
    uint64_t buffer_off; /* where the buffer's first byte goes */
};

void appender_fini(struct appender *appender);

/* Start at `tail_off`. Returns: RD_OK, RD_E_NOMEM. */
RD_MUST_CHECK rd_err appender_begin(struct appender *appender, uint64_t tail_off);

/* Where the next entry's pad begins. */
static inline uint64_t appender_tail(const struct appender *appender)
{
    return appender->buffer_off + appender->used;
}

/**
 * Append a value (F-02), or, with an empty payload, a tombstone (F-05).
 * Returns: RD_OK `*out_entry` is where it lies; RD_E_TOO_FAR (F-10), RD_E_NO_SPACE, RD_E_IO: the file beyond the last
 *          published tail is to be cut.
 */
RD_MUST_CHECK rd_err appender_add(struct appender *appender, const struct file *file, uint64_t key_hash,
                                  rd_span payload, struct entry *out_entry);

/* The same of a payload above APPENDER_COPY_MAX whose CRC is known: it is handed to the kernel and not looked at. */
RD_MUST_CHECK rd_err appender_add_summed(struct appender *appender, const struct file *file, uint64_t key_hash,
                                         rd_span payload, uint32_t crc, struct entry *out_entry);

/* Hand what is gathered to the kernel. Returns: as appender_add. */
RD_MUST_CHECK rd_err appender_flush(struct appender *appender, const struct file *file);

#endif
