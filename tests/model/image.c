#include "image.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- CRC-32, eight bytes a step --------------------------------------------------------------------------------- */

static uint32_t crc_table[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ ((crc & 1) != 0 ? UINT32_C(0xedb88320) : 0);
        crc_table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            crc_table[k][i] = crc_table[k - 1][i] >> 8 ^ crc_table[0][crc_table[k - 1][i] & 0xff];
}

uint64_t image_le64(const uint8_t *from)
{
    return (uint64_t)image_le32(from) | (uint64_t)image_le32(from + 4) << 32;
}

uint32_t image_le32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

uint32_t image_crc_extend(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *at = data;
    pthread_once(&crc_once, crc_make_table);
    crc = ~crc;
    for (; len >= 8; at += 8, len -= 8) {
        uint32_t low = image_le32(at) ^ crc, high = image_le32(at + 4);
        crc = crc_table[7][low & 0xff] ^ crc_table[6][low >> 8 & 0xff] ^ crc_table[5][low >> 16 & 0xff] ^
              crc_table[4][low >> 24] ^ crc_table[3][high & 0xff] ^ crc_table[2][high >> 8 & 0xff] ^
              crc_table[1][high >> 16 & 0xff] ^ crc_table[0][high >> 24];
    }
    for (; len > 0; at++, len--)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *at) & 0xff];
    return ~crc;
}

uint32_t image_crc(const void *data, size_t len)
{
    return image_crc_extend(0, data, len);
}

/* ---- Building --------------------------------------------------------------------------------------------------- */

static void *grow(void *array, size_t size)
{
    void *grown = realloc(array, size);
    if (grown == NULL) {
        fprintf(stderr, "no memory for %zu bytes\n", size);
        abort();
    }
    return grown;
}

void image_fini(struct image *image)
{
    free(image->data);
    free(image->entries);
    *image = (struct image){0};
}

void image_clear(struct image *image)
{
    image->len = 0;
    image->count = 0;
}

void image_append_raw(struct image *image, const void *data, size_t len)
{
    if (image->capacity - image->len < len) {
        image->capacity = 2 * image->capacity + len + 4096;
        image->data = grow(image->data, image->capacity);
    }
    if (len > 0)
        memcpy(image->data + image->len, data, len);
    image->len += len;
}

static void append_trailer(struct image *image, const struct image_entry *entry)
{
    rd_span payload = image_payload(image, entry);
    uint32_t crc = image_crc(payload.data, payload.len);
    uint8_t trailer[IMAGE_TRAILER];
    for (int i = 0; i < 8; i++) {
        trailer[i] = (uint8_t)(entry->hash >> 8 * i);
        trailer[8 + i] = (uint8_t)((uint64_t)entry->prev_off >> 8 * i);
    }
    for (int i = 0; i < 4; i++)
        trailer[16 + i] = (uint8_t)(crc >> 8 * i);
    image_append_raw(image, trailer, sizeof(trailer));
    if (image->count == image->entry_capacity) {
        image->entry_capacity = 2 * image->entry_capacity + 64;
        image->entries = grow(image->entries, image->entry_capacity * sizeof(*image->entries));
    }
    image->entries[image->count++] = *entry;
}

void image_write(struct image *image, uint64_t hash, rd_span payload)
{
    static const uint8_t zeros[64];
    struct image_entry entry = {.hash = hash, .prev_off = image->len};
    image_append_raw(image, zeros, -image->len % 64);
    entry.start_off = image->len;
    image_append_raw(image, payload.data, payload.len);
    entry.trailer_off = image->len;
    append_trailer(image, &entry);
}

void image_delete(struct image *image, uint64_t hash)
{
    struct image_entry entry = {.hash = hash, .prev_off = image->len, .start_off = image->len, .tombstone = true};
    image_append_raw(image, "", 1);
    entry.trailer_off = image->len;
    append_trailer(image, &entry);
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

/* The entry of an undamaged file that ends at `end_off`. */
static bool parse_entry(const uint8_t *data, size_t end_off, struct image_entry *out_entry)
{
    if (end_off < IMAGE_TRAILER + 1)
        return false;
    const uint8_t *trailer = data + end_off - IMAGE_TRAILER;
    struct image_entry entry = {.hash = image_le64(trailer), .trailer_off = end_off - IMAGE_TRAILER};
    uint64_t prev_off = image_le64(trailer + 8);
    if (prev_off >= entry.trailer_off)
        return false;
    entry.prev_off = (size_t)prev_off;
    entry.start_off = entry.prev_off + -entry.prev_off % 64;
    if (entry.trailer_off - entry.prev_off == 1 && data[entry.prev_off] == 0)
        entry.start_off = entry.prev_off; /* F-05 */
    if (entry.start_off >= entry.trailer_off)
        return false;
    size_t len = entry.trailer_off - entry.start_off;
    entry.tombstone = len == 1 && data[entry.start_off] == 0;
    *out_entry = entry;
    return image_crc(data + entry.start_off, len) == image_le32(trailer + 16);
}

bool image_parse(struct image *image, const void *data, size_t len)
{
    struct image_entry entry;
    size_t count = 0;
    image_clear(image);
    for (size_t end_off = len; end_off > 0; end_off = entry.prev_off, count++)
        if (!parse_entry(data, end_off, &entry))
            return false;
    image_append_raw(image, data, len);
    image->entry_capacity = count + 64;
    image->entries = grow(image->entries, image->entry_capacity * sizeof(*image->entries));
    image->count = count;
    for (size_t end_off = len; end_off > 0; end_off = entry.prev_off) {
        (void)parse_entry(data, end_off, &entry);
        image->entries[--count] = entry;
    }
    return true;
}

struct newest {
    uint64_t hash;
    size_t idx;
};

static int by_hash_then_newest(const void *left, const void *right)
{
    const struct newest *a = left, *b = right;
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    return a->idx < b->idx ? 1 : -1;
}

void image_compact(const struct image *image, struct image *out_image)
{
    struct newest *order = grow(NULL, (image->count + 1) * sizeof(*order));
    bool *live = grow(NULL, image->count + 1);
    for (size_t i = 0; i < image->count; i++)
        order[i] = (struct newest){image->entries[i].hash, i};
    qsort(order, image->count, sizeof(*order), by_hash_then_newest);
    for (size_t i = 0; i < image->count; i++)
        live[order[i].idx] = (i == 0 || order[i - 1].hash != order[i].hash) && !image->entries[order[i].idx].tombstone;
    for (size_t i = 0; i < image->count; i++)
        if (live[i])
            image_write(out_image, image->entries[i].hash, image_payload(image, &image->entries[i]));
    free(live);
    free(order);
}
