/* The only places where the engine loads from a mapping: each survives a file that is cut under it. */
#ifndef RD_GUARD_H
#define RD_GUARD_H

#include "format.h"

/**
 * Run `leaf(arg)`, which loads only from [base, base + len) of a mapping and calls nothing that keeps a resource.
 * Returns: false where the bytes vanished under it; what it wrote is then undefined. Without rd_sigbus_install the
 * process gets its SIGBUS.
 */
RD_MUST_CHECK bool guard_run(const void *base, size_t len, void (*leaf)(void *arg), void *arg);

/* The CRC of what `crc` is of, followed by [data, data + len). Returns: false where they vanished. */
RD_MUST_CHECK bool guard_crc(uint32_t crc, const uint8_t *data, size_t len, uint32_t *out_crc);

extern atomic_bool guard_installed; /* the process has our handler */

rd_err guard_parse_armed(const uint8_t *base, uint64_t trailer_off, struct entry *out_entry);

/* entry_parse of the trailer at `trailer_off`, and what it says. Returns: RD_OK, RD_E_DAMAGED, RD_E_TRUNCATED. */
RD_MUST_CHECK static inline rd_err guard_parse(const uint8_t *base, uint64_t trailer_off, struct entry *out_entry)
{
    if (atomic_load_explicit(&guard_installed, memory_order_acquire))
        return guard_parse_armed(base, trailer_off, out_entry);
    return entry_parse(base, trailer_off, out_entry) ? RD_OK : RD_E_DAMAGED; /* embedders without it pay nothing */
}

#endif
