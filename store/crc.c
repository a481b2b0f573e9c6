#include "crc.h"
#include "base.h"
#include <libdeflate.h>

#define CANCEL_EVERY   1024u                /* steps between two looks at the cancel flag */
#define CRC_POLYNOMIAL UINT32_C(0xedb88320) /* reflected */

uint32_t crc_of(const void *data, size_t len)
{
    return libdeflate_crc32(0, data, len);
}

uint32_t crc_extend(uint32_t crc, const void *data, size_t len)
{
    return libdeflate_crc32(crc, data, len);
}

/* a * b modulo the polynomial; bit 31 is x^0. */
static uint32_t gf2_multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (; a != 0; a <<= 1) {
        product ^= b & (0 - (a >> 31));
        b = (b >> 1) ^ (CRC_POLYNOMIAL & (0 - (b & 1)));
    }
    return product;
}

/* As many as distances up to `len` need. One a bit would do, but files full of what looks like links would take twice
   as long. */
static void make_shifts(uint64_t len, uint32_t shifts[CRC_SHIFT_BYTES][256])
{
    uint32_t step = UINT32_C(1) << 23; /* x^8 */
    for (size_t k = 0; k < CRC_SHIFT_BYTES && len != 0; k++, len >>= 8) {
        shifts[k][0] = UINT32_C(1) << 31; /* x^0 */
        for (size_t i = 1; i < 256; i++)
            shifts[k][i] = gf2_multiply(shifts[k][i - 1], step);
        step = gf2_multiply(shifts[k][255], step);
    }
}

rd_err crc_prefixes_init(const uint8_t *base, uint64_t from, uint64_t len, const atomic_bool *cancel,
                         struct crc_prefixes *out_prefixes)
{
    size_t count = (size_t)((len - from) / CRC_STEP) + 1;
    uint32_t *at = malloc(count * sizeof(*at));
    if (at == NULL)
        return RD_E_NOMEM;
    *out_prefixes =
        (struct crc_prefixes){.base = base, .from = from, .len = len, .at = at}; /* a fault below finds it there */
    make_shifts(len, out_prefixes->shifts);
    at[0] = 0;
    for (size_t i = 1; i < count; i++) {
        if (i % CANCEL_EVERY == 0 && cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed))
            return RD_E_CANCELLED;
        at[i] = libdeflate_crc32(at[i - 1], base + from + (i - 1) * CRC_STEP, CRC_STEP);
    }
    return RD_OK;
}

void crc_prefixes_fini(struct crc_prefixes *prefixes)
{
    free(prefixes->at);
    prefixes->at = NULL;
}

/* crc * x^(8 * bytes): what `bytes` zero bytes behind it make of a CRC. */
static uint32_t crc_shift(const struct crc_prefixes *prefixes, uint32_t crc, uint64_t bytes)
{
    for (size_t k = 0; bytes != 0; k++, bytes >>= 8)
        if ((bytes & 0xff) != 0)
            crc = gf2_multiply(prefixes->shifts[k][bytes & 0xff], crc);
    return crc;
}

static uint32_t prefix_crc(const struct crc_prefixes *prefixes, uint64_t to)
{
    uint64_t step = (to - prefixes->from) / CRC_STEP;
    uint64_t step_off = prefixes->from + step * CRC_STEP;
    return libdeflate_crc32(prefixes->at[step], prefixes->base + step_off, (size_t)(to - step_off));
}

uint32_t crc_of_range(const struct crc_prefixes *prefixes, uint64_t from, uint64_t to)
{
    RD_REQUIRE(prefixes->from <= from && from <= to && to <= prefixes->len);
    if (to - from <= CRC_STEP)
        return crc_of(prefixes->base + from, (size_t)(to - from));
    return prefix_crc(prefixes, to) ^ crc_shift(prefixes, prefix_crc(prefixes, from), to - from);
}
