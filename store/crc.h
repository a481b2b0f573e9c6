/* CRC-32/ISO-HDLC (F-06), whatever the crate calls it (E-01): of bytes in hand, and of any range of a file in bounded
   time. */
#ifndef RD_CRC_H
#define RD_CRC_H

#include <rdrive/error.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint32_t crc_of(const void *data, size_t len);

/* The CRC of what `crc` is of, followed by `data`. */
uint32_t crc_extend(uint32_t crc, const void *data, size_t len);

/* the CRCs of each prefix of a file, kept every CRC_STEP bytes: any range's CRC in at most 2 * CRC_STEP bytes. */
#define CRC_STEP        4096u
#define CRC_SHIFT_BYTES 6 /* of the distance: 48 bits (F-10) */

struct crc_prefixes {
    const uint8_t *base;
    uint64_t from, len;
    uint32_t *at;                          /* at[k] is the CRC of [from, from + k * CRC_STEP) */
    uint32_t shifts[CRC_SHIFT_BYTES][256]; /* shifts[k][i] is x^(8 * i * 256^k) modulo the polynomial */
};

/* One pass over [from, len) of `base`, which `cancel`, where not NULL, ends early. Whatever comes, give it back with
   crc_prefixes_fini. Returns: RD_OK, RD_E_NOMEM, RD_E_CANCELLED. */
RD_MUST_CHECK rd_err crc_prefixes_init(const uint8_t *base, uint64_t from, uint64_t len, const atomic_bool *cancel,
                                       struct crc_prefixes *out_prefixes);
void crc_prefixes_fini(struct crc_prefixes *prefixes);

/* The CRC of [from, to), which lies inside [prefixes->from, len]. */
uint32_t crc_of_range(const struct crc_prefixes *prefixes, uint64_t from, uint64_t to);

#endif
