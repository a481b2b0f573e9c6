/* I-01 to I-05: STORE.idx byte by byte, as FORMAT.md has it. */
#ifndef RD_INDEX_FILE_FORMAT_H
#define RD_INDEX_FILE_FORMAT_H

#include "format.h"
#include "index.h"
#include "layout.h"
#include <sys/stat.h>

#define INDEX_FILE_MAGIC   "rdrv-idx"
#define INDEX_FILE_VERSION 1u
#define INDEX_FILE_PAGE    ((uint64_t)4096)
#define INDEX_MARKS_MAX    64u /* I-07: trailers that are compared one by one */
#define INDEX_RECENT_MAX   64u /* I-07: and the last of the chain, as one sum */
#define PIECE_BLOCKS       2u  /* of the table that have one sum: they stay in a core's cache */

struct raw_index_mark {
    uint8_t trailer_off[8]; /* 00-07 */
    uint8_t trailer[20];    /* 08-27: F-03 */
};
_Static_assert(sizeof(struct raw_index_mark) == 28 && sizeof(struct raw_trailer) == 20, "I-03");

/* I-02: the head. Bytes only, as a trailer. */
struct raw_index_head {
    uint8_t magic[8];                             /* 000-007 */
    uint8_t checksum[8];                          /* 008-015: of the file from here on, up to the slots (I-04) */
    uint8_t version[4];                           /* 016-019 */
    uint8_t mark_count[4];                        /* 020-023 */
    uint8_t file_len[8];                          /* 024-031 */
    uint8_t tail_off[8];                          /* 032-039: T */
    uint8_t secret[8];                            /* 040-047 */
    uint8_t used[8];                              /* 048-055 */
    uint8_t blocks_log2[4];                       /* 056-059 */
    uint8_t block_slots[4];                       /* 060-063 */
    uint8_t entries[8];                           /* 064-071 */
    uint8_t live_keys[8];                         /* 072-079 */
    uint8_t live_bytes[8];                        /* 080-087 */
    uint8_t live_stored[8];                       /* 088-095 */
    uint8_t damaged_keys[8];                      /* 096-103 */
    uint8_t damage_count[8];                      /* 104-111 */
    uint8_t provisional_count[8];                 /* 112-119 */
    uint8_t writer[8];                            /* 120-127: who STORE.writer spoke of (I-09); 0: nobody */
    uint8_t recent[8];                            /* 128-135: I-07 */
    uint8_t made_of[8];                           /* 136-143: the store's device and inode, one sum (I-07) */
    uint8_t modified_ns[8];                       /* 144-151: and when its bytes were last modified */
    struct raw_index_mark marks[INDEX_MARKS_MAX]; /* 152-1943; ascending, the unused zero */
};
_Static_assert(sizeof(struct raw_index_head) == 152 + 28 * INDEX_MARKS_MAX, "I-02");

/* I-05: a damaged range. `kind` as rd_damage_kind counts, and 4 for a torn one. */
struct raw_index_damage {
    uint8_t begin_off[8]; /* 00-07 */
    uint8_t end_off[8];   /* 08-15 */
    uint8_t key_hash[8];  /* 16-23 */
    uint8_t kind;         /* 24 */
    uint8_t has_key;      /* 25: 0 or 1 */
    uint8_t zero[6];      /* 26-31 */
};
_Static_assert(sizeof(struct raw_index_damage) == 32, "I-05");
_Static_assert(RD_DAMAGE_ENTRY == 0 && RD_DAMAGE_LINK == 1 && RD_DAMAGE_RANGE == 2 && RD_DAMAGE_UNIDENTIFIED == 3 &&
                   DAMAGE_TORN == 4,
               "I-05: a file has these numbers");

/* I-01: a slot, as it is in core on a machine that counts like the file. */
struct raw_index_slot {
    uint8_t hash[8];
    uint8_t word[8];
};
_Static_assert(sizeof(struct raw_index_slot) == sizeof(struct slot), "I-01");

/* Where everything lies in a file, from its counts. */
struct index_places {
    uint64_t pieces;
    uint64_t sums_off, damage_off, provisional_off, slots_off;
    uint64_t slot_bytes;
    uint64_t file_len;
};

/* Returns: false where no file has such counts. */
static inline bool index_places_of(const struct raw_index_head *head, struct index_places *out_places)
{
    uint64_t most = RD_OFFSET_MAX; /* of anything: so nothing below overflows */
    uint64_t damage = load_le64(head->damage_count);
    uint64_t provisional = load_le64(head->provisional_count);
    uint32_t blocks_log2 = load_le32(head->blocks_log2);
    uint32_t block_slots = load_le32(head->block_slots);
    if (damage > most || provisional > most || blocks_log2 > 32 || block_slots == 0 || block_slots > BLOCK_SLOTS)
        return false;
    uint64_t blocks = UINT64_C(1) << blocks_log2;
    struct index_places places = {.pieces = (blocks + PIECE_BLOCKS - 1) / PIECE_BLOCKS,
                                  .sums_off = sizeof(struct raw_index_head),
                                  .slot_bytes = blocks * block_slots * sizeof(struct raw_index_slot)};
    places.damage_off = places.sums_off + places.pieces * sizeof(uint64_t);
    places.provisional_off = places.damage_off + damage * sizeof(struct raw_index_damage);
    uint64_t end = places.provisional_off + provisional * sizeof(uint64_t);
    places.slots_off = (end + INDEX_FILE_PAGE - 1) & ~(INDEX_FILE_PAGE - 1);
    places.file_len = places.slots_off + places.slot_bytes;
    *out_places = places;
    return true;
}

/* The bytes of the n-th piece of the slots; its length is `*out_len`. */
static inline uint64_t index_piece(const struct raw_index_head *head, const struct index_places *places, uint64_t n,
                                   uint64_t *out_len)
{
    uint64_t whole = (uint64_t)PIECE_BLOCKS * load_le32(head->block_slots) * sizeof(struct raw_index_slot);
    uint64_t left = places->slot_bytes - n * whole;
    *out_len = left < whole ? left : whole;
    return n * whole;
}

/* I-04: XXH3-64, as keys have it. */
static inline uint64_t index_sum(const void *data, uint64_t len)
{
    return rd_hash((rd_span){data, (size_t)len});
}

#define INDEX_SUMMED_OFF ((uint64_t)offsetof(struct raw_index_head, version))

/* I-04: of the front, which is all up to the slots. */
static inline uint64_t index_front_sum(const uint8_t *front, const struct index_places *places)
{
    return index_sum(front + INDEX_SUMMED_OFF, places->slots_off - INDEX_SUMMED_OFF);
}

/* I-07: which file on this machine; a copy is another. */
static inline uint64_t index_made_of(const struct stat *store)
{
    const uint64_t names[] = {(uint64_t)store->st_dev, (uint64_t)store->st_ino};
    return index_sum(names, sizeof(names));
}

static inline uint64_t index_modified_ns(const struct stat *store)
{
    return (uint64_t)store->st_mtim.tv_sec * UINT64_C(1000000000) + (uint64_t)store->st_mtim.tv_nsec;
}

/**
 * I-07: one sum over the last trailers below `tail_off`, from each to where its link leads. Any bytes have one. Loads
 * from the mapping: for a leaf.
 */
static inline uint64_t index_recent_sum(const uint8_t *base, uint64_t tail_off)
{
    struct raw_trailer recent[INDEX_RECENT_MAX];
    size_t count = 0;
    for (uint64_t end_off = tail_off; count < INDEX_RECENT_MAX && end_off >= RD_ENTRY_MIN; count++) {
        memcpy(&recent[count], base + end_off - RD_TRAILER_SIZE, sizeof(recent[count]));
        uint64_t link = load_le64(recent[count].prev_tail);
        end_off = link < end_off - RD_TRAILER_SIZE ? link : 0;
    }
    return index_sum(recent, count * sizeof(*recent));
}

#endif
