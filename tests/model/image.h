/**
 * A store as its bytes and the list of its entries, made by the format's rules and by nothing of the engine, so that
 * the engine can't agree with itself. Allocation failures end the process: this is for tests.
 */
#ifndef RDRIVE_TESTS_IMAGE_H
#define RDRIVE_TESTS_IMAGE_H

#include <rdrive/store.h>

#define IMAGE_TRAILER ((size_t)20)

struct image_entry {
    uint64_t hash;
    size_t prev_off;  /* F-04 */
    size_t start_off; /* F-02 */
    size_t trailer_off;
    bool tombstone;
};

struct image {
    uint8_t *data;
    size_t len;
    size_t capacity;
    struct image_entry *entries; /* in file order */
    size_t count;
    size_t entry_capacity;
};

void image_fini(struct image *image);
void image_clear(struct image *image);
void image_write(struct image *image, uint64_t hash, rd_span payload);
void image_delete(struct image *image, uint64_t hash);

/* Bytes that no entry owns. */
void image_append_raw(struct image *image, const void *data, size_t len);

/* Make `image` of an undamaged file. Returns: false where the bytes are none; then `image` is empty. */
bool image_parse(struct image *image, const void *data, size_t len);

/* What a compaction makes of it: the newest live entries, in file order. */
void image_compact(const struct image *image, struct image *out_image);

static inline size_t image_entry_end(const struct image_entry *entry)
{
    return entry->trailer_off + IMAGE_TRAILER;
}

static inline rd_span image_payload(const struct image *image, const struct image_entry *entry)
{
    return (rd_span){image->data + entry->start_off, entry->trailer_off - entry->start_off};
}

uint32_t image_crc(const void *data, size_t len); /* F-06 */
uint32_t image_crc_extend(uint32_t crc, const void *data, size_t len);
uint64_t image_le64(const uint8_t *from);
uint32_t image_le32(const uint8_t *from);

#endif
