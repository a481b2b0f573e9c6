/**
 * What a store must answer that was damaged on purpose, told from its undamaged bytes alone.
 *
 * Caveats first: an oracle borrows the bytes it was made of. Hashes that it doesn't know are taken for false.
 */
#ifndef RDRIVE_TESTS_ORACLE_H
#define RDRIVE_TESTS_ORACLE_H

#include "support.h"

#define TRAILER_LEN ((uint64_t)20)

/* What damage did to an entry. */
enum fate {
    WHOLE,
    LINK_HIT, /* the link alone: it is served, or damaged */
    HIT,      /* the payload or its CRC: the key is damaged, and never shows an older version */
    NAMELESS, /* the hash, or all of the trailer: the key shows an older version or nothing */
    CUT_OFF,  /* torn: as NAMELESS, and no damage */
};

/* An entry of the undamaged file. */
struct truth {
    uint64_t key_hash, prev_off, start_off, trailer_off;
    bool tombstone;
    enum fate fate; /* for the test to set */
};

/* What a key may answer, and what it did. */
enum { MAY_VALUE = 1, MAY_ABSENT = 2, MAY_DAMAGED = 4 };

struct answer {
    uint64_t key_hash;
    rd_span value; /* what MAY_VALUE means */
    unsigned may, did;
    unsigned later; /* what it may do beside once something was appended: a boundary is proven then */
};

struct oracle {
    const uint8_t *file;
    struct truth *truths; /* oldest first */
    size_t truth_count;
    struct answer *answers;
    size_t answer_count, answer_capacity;
    char label[160]; /* which case of many */
};

/* Follow an undamaged file's chain; fails where it is broken. Every entry is WHOLE. */
struct oracle oracle_of(const struct bytes *file);
void oracle_fini(struct oracle *oracle);
#define AUTO_ORACLE __attribute__((cleanup(oracle_fini))) struct oracle

uint64_t truth_end(const struct truth *truth);
/* The entry whose pad, payload or trailer holds the byte at `offset`. */
struct truth *oracle_truth_at(const struct oracle *oracle, uint64_t offset);

/* Make each entry WHOLE, and forget the answers. */
void oracle_reset(struct oracle *oracle);
/* Fates from two files of one size: what differs, and where. A pad may differ. */
void oracle_compare(struct oracle *oracle, const struct bytes *damaged);
/* Answers for each key, as the fates have it. */
void oracle_answer(struct oracle *oracle);
/* One more answer, or another for a key that has one; valid until the next. */
struct answer *oracle_allow(struct oracle *oracle, uint64_t key_hash, rd_span value, unsigned may);
rd_span truth_value(const struct oracle *oracle, const struct truth *truth);

/* That all ways to read agree with the answers and with each other: each key alone and in a batch, iteration, numbers.
   Notes what each key did. */
void oracle_check(struct oracle *oracle, rd_store *store);
/* The keys alone, where others may appear. */
void oracle_check_keys(struct oracle *oracle, rd_store *store);
/* From now on each key must answer as it did. */
void oracle_pin(struct oracle *oracle);
/* How many keys did that. */
uint64_t oracle_count(const struct oracle *oracle, unsigned did);

/* ---- A damaged file, read and written --------------------------------------------------------------------------- */

struct outcome {
    rd_store_info info; /* of a read-only open */
    rd_range ranges[RD_DAMAGE_LISTED_MAX];
    size_t range_count;
};

/* Open these bytes for reading: the answers hold, no byte changes and no file appears. Then each answer is pinned. */
struct outcome oracle_try_reading(void **state, struct oracle *oracle, const struct bytes *damaged);
/* Then a copy for writing: a torn tail is saved and cut; each key answers as it did, also after one more was written
   and the store reopened; and each damaged key is healed by a deletion. */
void oracle_try_writing(void **state, struct oracle *oracle, const struct bytes *damaged);
struct outcome oracle_try(void **state, struct oracle *oracle, const struct bytes *damaged);

/* ---- Doing harm ------------------------------------------------------------------------------------------------- */

/* Bytes of their own, to be damaged. */
struct bytes bytes_copy(const struct bytes *from);
void harm_zero(struct bytes *file, uint64_t from, uint64_t to);
void harm_flip(struct bytes *file, uint64_t offset, int bit);
/* The link of the entry that ends at `end`. */
void harm_link(struct bytes *file, uint64_t end, uint64_t link);

#endif
