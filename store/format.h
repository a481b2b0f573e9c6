/* F-01 to F-10: the file's bytes, and the one test whether an entry holds. */
#ifndef RD_FORMAT_H
#define RD_FORMAT_H

#include "crc.h"
#include <rdrive/store.h>
#include <string.h>

#define RD_ALIGNMENT     64u                   /* F-02 */
#define RD_OFFSET_MAX    ((UINT64_C(1) << 48)) /* F-10 */
#define RD_TRAILER_SIZE  ((uint64_t)sizeof(struct raw_trailer))
#define RD_ENTRY_MIN     (RD_TRAILER_SIZE + 1)
#define RD_TOMBSTONE_CRC UINT32_C(0xd202ef8d) /* F-05: the CRC of one zero byte */

/* F-03: the trailer as it lies on disk. Bytes only: no padding, no alignment, no endianness. */
struct raw_trailer {
    uint8_t key_hash[8];  /* 00-07 */
    uint8_t prev_tail[8]; /* 08-15 */
    uint8_t crc32[4];     /* 16-19 */
};
_Static_assert(sizeof(struct raw_trailer) == 20, "F-03");

static inline uint64_t load_le64(const uint8_t bytes[8])
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static inline uint32_t load_le32(const uint8_t bytes[4])
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static inline void store_le64(uint8_t bytes[8], uint64_t value)
{
    memcpy(bytes, &value, sizeof(value));
}

static inline void store_le32(uint8_t bytes[4], uint32_t value)
{
    memcpy(bytes, &value, sizeof(value));
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the loads and stores above assume it");

/* An entry in core: the twin of what lies on disk. */
struct entry {
    uint64_t start_off;   /* of the payload */
    uint64_t trailer_off; /* where the payload ends */
    uint64_t prev_off;    /* F-04 */
    uint64_t key_hash;
    uint32_t crc;
    bool tombstone; /* F-05 */
};

static inline uint64_t entry_end(const struct entry *entry)
{
    return entry->trailer_off + RD_TRAILER_SIZE;
}

static inline uint64_t entry_payload_len(const struct entry *entry)
{
    return entry->trailer_off - entry->start_off;
}

/* F-02: zero bytes between a tail and the payload that follows it. */
static inline uint64_t entry_pad(uint64_t prev_off)
{
    return (0 - prev_off) & (RD_ALIGNMENT - 1);
}

/* What an entry takes in a compacted file, the pad behind it included: the next payload's start is a multiple of 64. */
static inline uint64_t entry_stored_len(const struct entry *entry)
{
    uint64_t len = entry_payload_len(entry) + RD_TRAILER_SIZE;
    return len + entry_pad(len);
}

/**
 * Where the payload of an entry with this link and trailer starts (F-02, F-05); `alignment` is a power of two.
 * Returns: false where it would not lie before the trailer.
 */
static inline bool payload_start(const uint8_t *base, uint64_t prev_off, uint64_t trailer_off, uint64_t alignment,
                                 uint64_t *out_start_off)
{
    if (prev_off >= trailer_off)
        return false;
    uint64_t start_off = prev_off;
    bool unpadded = trailer_off - prev_off == 1 && base[prev_off] == 0; /* F-05 */
    if (!unpadded)
        start_off = (prev_off + alignment - 1) & ~(alignment - 1);
    if (start_off >= trailer_off)
        return false;
    *out_start_off = start_off;
    return true;
}

/**
 * Read the trailer at `trailer_off` and place its payload by `prev_off`, whatever its own link says.
 * Returns: false where the start that follows doesn't lie before the trailer.
 */
static inline bool entry_parse_relinked_aligned(const uint8_t *base, uint64_t trailer_off, uint64_t prev_off,
                                                uint64_t alignment, struct entry *out_entry)
{
    const struct raw_trailer *raw = (const struct raw_trailer *)(base + trailer_off);
    uint64_t start_off;
    if (!payload_start(base, prev_off, trailer_off, alignment, &start_off))
        return false;
    out_entry->start_off = start_off;
    out_entry->trailer_off = trailer_off;
    out_entry->prev_off = prev_off;
    out_entry->key_hash = load_le64(raw->key_hash);
    out_entry->crc = load_le32(raw->crc32);
    out_entry->tombstone = trailer_off - start_off == 1 && base[start_off] == 0;
    return true;
}

static inline bool entry_parse_relinked(const uint8_t *base, uint64_t trailer_off, uint64_t prev_off,
                                        struct entry *out_entry)
{
    return entry_parse_relinked_aligned(base, trailer_off, prev_off, RD_ALIGNMENT, out_entry);
}

/**
 * The same by its own link.
 * Returns: false where the link or the start that follows from it doesn't lie before the trailer. No CRC is looked at.
 */
static inline bool entry_parse_aligned(const uint8_t *base, uint64_t trailer_off, uint64_t alignment,
                                       struct entry *out_entry)
{
    const struct raw_trailer *raw = (const struct raw_trailer *)(base + trailer_off);
    return entry_parse_relinked_aligned(base, trailer_off, load_le64(raw->prev_tail), alignment, out_entry);
}

static inline bool entry_parse(const uint8_t *base, uint64_t trailer_off, struct entry *out_entry)
{
    return entry_parse_aligned(base, trailer_off, RD_ALIGNMENT, out_entry);
}

/* F-06 */
static inline bool entry_crc_holds(const uint8_t *base, const struct entry *entry)
{
    return crc_of(base + entry->start_off, entry_payload_len(entry)) == entry->crc;
}

/* F-09: what may be written; all zeros as well, if they are two or more (E-08). */
static inline bool payload_is_legal(rd_span payload)
{
    return payload.len > 1 || (payload.len == 1 && *(const uint8_t *)payload.data != 0);
}

#endif
