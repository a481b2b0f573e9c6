/**
 * What the crash campaigns share: a seeded source of numbers, their command line, a temporary folder, and one way to
 * fail, which says how to see it again.
 */
#ifndef RDRIVE_CRASH_COMMON_H
#define RDRIVE_CRASH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Numbers: the same for the same seed on every machine -------------------------------------------------------- */

struct rng {
    uint64_t state;
};

struct rng rng_of(uint64_t seed);
uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t limit); /* 0 to limit - 1; 0 where limit is 0 */
bool rng_chance(struct rng *rng, unsigned percent);
uint64_t mix(uint64_t a, uint64_t b); /* one number of two */

/* ---- Bytes --------------------------------------------------------------------------------------------------------
 */

struct buffer {
    uint8_t *data;
    size_t len;
    size_t capacity;
};

void buffer_resize(struct buffer *buffer, size_t len); /* zeros where it grows */
void buffer_put(struct buffer *buffer, size_t offset, const void *bytes, size_t len);
void buffer_free(struct buffer *buffer);
void *must_alloc(size_t len); /* zeroed */

/* ---- A campaign ---------------------------------------------------------------------------------------------------
 */

struct campaign {
    const char *name;
    uint64_t seed;
    uint64_t rounds;
    uint64_t every;   /* of cases that are listed, not drawn: 1 takes all, 5 each fifth */
    char folder[256]; /* temporary, without links in its path; removed by campaign_end */
};

/* Read `[--rounds N] [--seed N] [--every N]`. `in_memory`: its files, on which no real sync matters, go to a file
   system in memory where there is one. Ends the process where it can't begin. */
void campaign_begin(struct campaign *campaign, const char *name, uint64_t rounds, bool in_memory, int argc,
                    char **argv);
/* Print what was done, and remove the folder. */
__attribute__((format(printf, 2, 3))) void campaign_end(struct campaign *campaign, const char *format, ...);

/* Where the campaign is, for a failure's message. Threads: the main one. */
__attribute__((format(printf, 1, 2))) void at_place(const char *format, ...);
/* Say what is wrong, where, and how to see it again; the folder stays. Threads: any. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);

#define PATH_LEN 512
__attribute__((format(printf, 2, 3))) void path_of(char out_path[PATH_LEN], const char *format, ...);
void folder_make(const char *path);
void folder_remove(const char *path); /* with the files in it */

#endif
