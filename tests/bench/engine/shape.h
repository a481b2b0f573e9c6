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

/* Returns: the key's length; it isn't terminated. */
static inline size_t key_format(char out_key[KEY_LEN_MAX], uint64_t i)
{
    static const char prefix[] = "bench-key-";
    char digits[20];
    size_t first = sizeof digits;
    do {
        digits[--first] = (char)('0' + i % 10);
        i /= 10;
    } while (i != 0);
    memcpy(out_key, prefix, sizeof prefix - 1);
    memcpy(out_key + sizeof prefix - 1, digits + first, sizeof digits - first);
    return sizeof prefix - 1 + sizeof digits - first;
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

static inline uint64_t value_load(const void *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

#endif
