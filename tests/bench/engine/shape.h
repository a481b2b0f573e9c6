/* The work, as the Rust crate's own benchmark shapes it: keys `bench-key-{i}`, the value of key i is i as 8
 * little-endian bytes, batches of 1024. Both engines and the bare loops use these very functions, inside the clock. */
#ifndef RDRIVE_BENCH_SHAPE_H
#define RDRIVE_BENCH_SHAPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INDEX_SUFFIX  ".idx" /* the snapshot index of a store, beside it */
#define BATCH         1024u
#define KEY_LEN_MAX   32u
#define VALUE_LEN     8u
#define LARGE_LEN     128u /* of single writes by many threads */
#define WRITERS_LARGE 8u
#define WRITERS_SYNC  64u

/* What an entry of these values takes in the file, its pad included. */
#define ENTRY_LEN       64u
#define ENTRY_LEN_LARGE 192u

/* The eight digits of i < 100,000,000, the first in the lowest byte: all at once, halves of halves. */
static inline uint64_t digits_of(uint64_t i)
{
    uint64_t fours = i / 10000 | (i % 10000) << 32;
    uint64_t high = (fours * 10486 >> 20) & UINT64_C(0x0000007f0000007f); /* by 100 */
    uint64_t twos = high | (fours - 100 * high) << 16;
    high = (twos * 103 >> 10) & UINT64_C(0x000f000f000f000f); /* by 10 */
    return high | (twos - 10 * high) << 8;
}

/* By hand and without a loop, so that what is measured is the look-up. i < 100,000,000.
 * Returns: the key's length; it isn't terminated. */
static inline size_t key_format(char out_key[KEY_LEN_MAX], uint64_t i)
{
    uint64_t digits = digits_of(i);
    unsigned zeros = (unsigned)__builtin_ctzll(digits | UINT64_C(1) << 56) & ~7u; /* bits of the leading ones */
    digits = (digits | UINT64_C(0x3030303030303030)) >> zeros;
    uint64_t middle = (uint64_t)'y' | (uint64_t)'-' << 8 | digits << 16;
    memcpy(out_key, "bench-ke", 8);
    memcpy(out_key + 8, &middle, 8);
    memcpy(out_key + 16, (const char *)&(uint64_t){digits >> 48}, 8);
    return 18 - zeros / 8;
}

/* splitmix64: the random picks of both engines are the same. */
#define PICK_SEED UINT64_C(0x5eed)
static inline uint64_t pick_below(uint64_t *state, uint64_t limit)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return (uint64_t)(((unsigned __int128)z * limit) >> 64);
}

/* `value`, of which the compiler knows no more than the processor does. */
static inline uint64_t hidden(uint64_t value)
{
    __asm__ volatile("" : "+r"(value));
    return value;
}

static inline uint64_t value_load(const void *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

#endif
