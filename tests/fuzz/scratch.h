/**
 * What the fuzzers share: a temporary folder in memory where there is such a place, files in it, and ending loudly.
 */
#ifndef RDRIVE_TESTS_SCRATCH_H
#define RDRIVE_TESTS_SCRATCH_H

#include <rdrive/store.h>

/* Make the folder, once; it goes when the process ends. */
void scratch_open(void);

/* The path of `name` in it; valid until the process ends or eight more were asked for. */
const char *scratch_path(const char *name);

void scratch_save(const char *path, rd_span bytes);

/* The file's bytes, to be freed; the process ends where there is none. */
rd_span scratch_load(const char *path);

/* Whether `name` is there. */
bool scratch_has(const char *name);

/* Remove every file in the folder. */
void scratch_clear(void);

bool scratch_equal(rd_span a, rd_span b);

/* End the process as a finding: libFuzzer keeps the input. */
__attribute__((noreturn, format(printf, 1, 2))) void scratch_fail(const char *format, ...);

#define REQUIRE(cond, ...)                                                                                             \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            scratch_fail(__VA_ARGS__);                                                                                 \
    } while (0)

/* Bytes of the input, taken one after another; zeros once they are used up. */
struct feed {
    const uint8_t *at;
    size_t left;
};
uint8_t feed_u8(struct feed *feed);
uint32_t feed_u16(struct feed *feed);
uint64_t feed_u64(struct feed *feed);

/* A number below `bound`, which may be 0. */
size_t feed_below(struct feed *feed, size_t bound);

#endif
