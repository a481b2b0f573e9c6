#include "work.h"
#include <rdrive/store.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Field numbers of proto/rdrive/v1/reader.proto. */
enum { READ_KEY = 1, BATCH_KEYS = 1, BATCH_OMIT = 2, HASHED_HASHES = 1, HASHED_OMIT = 3, STREAM_KEY = 1 };
enum { VARINT = 0, LEN = 2 };

__attribute__((format(printf, 1, 2))) void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("bench_service_load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

/* splitmix64 */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

size_t work_key(char out_key[KEY_MAX], uint64_t i)
{
    char digits[20];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + i % 10);
    while ((i /= 10) != 0);
    memcpy(out_key, "bench-key-", 10);
    for (size_t k = 0; k < count; k++)
        out_key[10 + k] = digits[count - 1 - k];
    return 10 + count;
}

void work_init(struct work *work)
{
    uint64_t state = 1;
    CHECK(work->value_len >= VALUE_LEN_MIN && work->keys > 0 && work->batch > 0);
    work->pattern = malloc(work->value_len + 8);
    work->hashes = malloc(work->keys * sizeof *work->hashes);
    CHECK(work->pattern != NULL && work->hashes != NULL);
    for (size_t i = 0; i < work->value_len; i += 8)
        memcpy(work->pattern + i, &(uint64_t){random_next(&state)}, 8);
    for (uint64_t i = 0; i < work->keys; i++) {
        char key[KEY_MAX];
        work->hashes[i] = rd_hash((rd_span){.data = key, .len = work_key(key, i)});
    }
}

void work_fini(struct work *work)
{
    free(work->pattern);
    free(work->hashes);
}

void work_value(const struct work *work, uint64_t i, uint8_t *out_value)
{
    memcpy(out_value, work->pattern, work->value_len);
    memcpy(out_value, &i, 8);
}

bool work_is_value(const struct work *work, uint64_t i, uint64_t off, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    if (off + len > work->value_len)
        return false;
    for (; off < 8 && len > 0; off++, at++, len--)
        if (*at != (uint8_t)(i >> (8 * off)))
            return false;
    return memcmp(at, work->pattern + off, len) == 0;
}

void work_pick(struct work *work, uint64_t *out_picks)
{
    for (size_t k = 0; k < work->batch; k++) {
        uint64_t nth = work->asked * work->batch + k;
        uint64_t random = random_next(&work->seed);
        out_picks[k] = work->asked < work->in_order ? nth % work->keys
                                                    : (uint64_t)(((unsigned __int128)random * work->keys) >> 64);
    }
    work->asked++;
}

static uint8_t *put_varint(uint8_t *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

static uint8_t *put_key(uint8_t *at, unsigned field, uint64_t i)
{
    char key[KEY_MAX];
    size_t len = work_key(key, i);
    *at++ = (uint8_t)(field << 3 | LEN);
    at = put_varint(at, len);
    memcpy(at, key, len);
    return at + len;
}

static uint8_t *put_flag(uint8_t *at, unsigned field, bool flag)
{
    if (!flag)
        return at;
    *at++ = (uint8_t)(field << 3 | VARINT);
    *at++ = 1;
    return at;
}

size_t work_request_max(const struct work *work)
{
    return 16 + work->batch * (KEY_MAX + 2);
}

size_t work_request(const struct work *work, const uint64_t *picks, uint8_t *out_request)
{
    uint8_t *at = out_request;
    switch (work->kind) {
    case WORK_READ: at = put_key(at, READ_KEY, picks[0]); break;
    case WORK_READ_STREAM: at = put_key(at, STREAM_KEY, picks[0]); break;
    case WORK_BATCH_READ:
    case WORK_BATCH_STREAM:
        for (size_t k = 0; k < work->batch; k++)
            at = put_key(at, BATCH_KEYS, picks[k]);
        at = put_flag(at, BATCH_OMIT, work->omit_metadata);
        break;
    case WORK_BATCH_HASHED:
        *at++ = (uint8_t)(HASHED_HASHES << 3 | LEN);
        at = put_varint(at, 8 * work->batch);
        for (size_t k = 0; k < work->batch; k++, at += 8)
            memcpy(at, &work->hashes[picks[k]], 8);
        at = put_flag(at, HASHED_OMIT, work->omit_metadata);
        break;
    case WORK_COUNT: break;
    }
    return (size_t)(at - out_request);
}
