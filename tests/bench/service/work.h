/* What is asked of every server alike: which keys, their values, and whether what comes back is right. */
#ifndef RDRIVE_BENCH_SERVICE_WORK_H
#define RDRIVE_BENCH_SERVICE_WORK_H

#include "../engine/shape.h"
#include <stdbool.h>

/* Each of them has a row in load_grpc.c; Redis and memcached do the first three. */
enum work_kind { WORK_READ, WORK_BATCH_READ, WORK_BATCH_HASHED, WORK_BATCH_STREAM, WORK_READ_STREAM, WORK_COUNT };

struct work {
    enum work_kind kind;
    uint64_t keys; /* shape.h's, all of them there */
    size_t value_len;
    size_t batch; /* keys a call asks for */
    bool omit_metadata;
    uint64_t in_order;   /* the first calls ask for key 0, 1 and so on: every page and checksum has been seen then */
    uint64_t seed;       /* then for random ones */
    uint64_t asked;      /* calls so far */
    size_t expect_bytes; /* not 0: answers are not looked at, only whether each has so many bytes */
    uint8_t *pattern;    /* what values have in common */
};

/* The value of key i is i as 8 little-endian bytes, then bytes that are the same in all values. */
#define VALUE_LEN_MIN 8u

void work_init(struct work *work);
void work_fini(struct work *work);

/* Of key i. It is computed each time: a table of so many would be slower. */
uint64_t work_hash(uint64_t i);
void work_value(const struct work *work, uint64_t i, uint8_t *out_value);
/* `bytes` are `len` of key i's value from `off` on. */
bool work_is_value(const struct work *work, uint64_t i, uint64_t off, const void *bytes, size_t len);

/* The keys of the next call: `batch` of them. */
void work_pick(struct work *work, uint64_t *out_picks);

/* The call's request as the contract has it. Returns: its length, at most work_request_max. */
size_t work_request_max(const struct work *work);
size_t work_request(const struct work *work, const uint64_t *picks, uint8_t *out_request);

/* An answer as it comes in, message by message. */
struct answer {
    const struct work *work;
    const uint64_t *picks;
    uint64_t next; /* item that is to come */
    uint64_t off;  /* of its payload, where that came in part */
    uint64_t bytes;
};

void answer_begin(struct answer *answer, const struct work *work, const uint64_t *picks);
/* These end the program where the answer is wrong. */
void answer_message(struct answer *answer, const uint8_t *message, size_t len);
void answer_end(const struct answer *answer);

/* A wrong answer or a failed call: say so and end with status 2. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (__builtin_expect(!(condition), 0))                                                                         \
            die("%s:%d: not %s", __FILE__, __LINE__, #condition);                                                      \
    } while (0)

#endif
