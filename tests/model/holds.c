#include "holds.h"

#include <stdlib.h>
#include <string.h>

/* ---- crc(B) = crc(AB) xor crc(A)·x^(8|B|), as R-07 has it, with a prefix for every byte -------------------------- */

static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t bit = UINT32_C(1) << 31; bit != 0; bit >>= 1) {
        if ((a & bit) != 0)
            product ^= b;
        b = b >> 1 ^ ((b & 1) != 0 ? UINT32_C(0xedb88320) : 0);
    }
    return product;
}

/* x^(8n) */
static uint32_t power(const uint32_t squares[64], uint64_t n)
{
    uint32_t result = UINT32_C(1) << 31;
    for (size_t k = 0; n != 0; n >>= 1, k++)
        if ((n & 1) != 0)
            result = multiply(squares[k], result);
    return result;
}

static uint32_t *make_prefixes(rd_span bytes, uint32_t squares[64])
{
    uint32_t *prefixes = malloc((bytes.len + 1) * sizeof(*prefixes));
    if (prefixes == NULL)
        abort();
    prefixes[0] = 0;
    for (size_t i = 0; i < bytes.len; i++)
        prefixes[i + 1] = image_crc_extend(prefixes[i], (const uint8_t *)bytes.data + i, 1);
    squares[0] = UINT32_C(1) << 23; /* x^8 */
    for (size_t k = 1; k < 64; k++)
        squares[k] = multiply(squares[k - 1], squares[k - 1]);
    return prefixes;
}

/* ---- Trying them all -------------------------------------------------------------------------------------------- */

static bool place(const uint8_t *data, size_t end_off, size_t alignment, struct hold *out_hold)
{
    const uint8_t *trailer = data + end_off - IMAGE_TRAILER;
    size_t trailer_off = end_off - IMAGE_TRAILER;
    uint64_t link = image_le64(trailer + 8);
    if (link >= trailer_off)
        return false;
    size_t start_off = (size_t)link + (-(size_t)link & (alignment - 1));
    if (trailer_off - link == 1 && data[link] == 0)
        start_off = (size_t)link; /* F-05 */
    *out_hold = (struct hold){end_off, (size_t)link, start_off, image_le64(trailer)};
    return start_off < trailer_off;
}

static void add(struct holds *holds, const struct hold *hold)
{
    if (holds->count == holds->capacity) {
        holds->capacity = 2 * holds->capacity + 64;
        holds->list = realloc(holds->list, holds->capacity * sizeof(*holds->list));
        if (holds->list == NULL)
            abort();
    }
    holds->list[holds->count++] = *hold;
}

void holds_find(rd_span bytes, size_t alignment, struct holds *out_holds)
{
    const uint8_t *data = bytes.data;
    struct holds holds = {0};
    struct hold hold;
    uint32_t squares[64];
    uint32_t *prefixes = make_prefixes(bytes, squares);
    for (size_t end_off = IMAGE_TRAILER + 1; end_off <= bytes.len; end_off++) {
        if (!place(data, end_off, alignment, &hold))
            continue;
        size_t trailer_off = end_off - IMAGE_TRAILER;
        uint32_t before = multiply(power(squares, trailer_off - hold.start_off), prefixes[hold.start_off]);
        if ((prefixes[trailer_off] ^ before) == image_le32(data + trailer_off + 16))
            add(&holds, &hold);
    }
    free(prefixes);
    *out_holds = holds;
}

void holds_fini(struct holds *holds)
{
    free(holds->list);
    *holds = (struct holds){0};
}

static int by_end(const void *key, const void *element)
{
    uint64_t end_off = *(const uint64_t *)key, other = ((const struct hold *)element)->end_off;
    return (end_off > other) - (end_off < other);
}

const struct hold *holds_at(const struct holds *holds, uint64_t end_off)
{
    if (holds->count == 0)
        return NULL;
    return bsearch(&end_off, holds->list, holds->count, sizeof(*holds->list), by_end);
}

bool holds_reach(const struct holds *holds, uint64_t end_off, uint64_t link)
{
    while (end_off > link) {
        const struct hold *hold = holds_at(holds, end_off);
        if (hold == NULL)
            return false;
        end_off = hold->link;
    }
    return end_off == link;
}
