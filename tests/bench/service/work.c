#include "work.h"
#include <rdrive/store.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Field numbers of proto/rdrive/v1/reader.proto. */
enum { READ_KEY = 1, BATCH_KEYS = 1, BATCH_OMIT = 2, HASHED_HASHES = 1, HASHED_OMIT = 3, STREAM_KEY = 1 };
enum { VARINT = 0, LEN = 2 };

#define KEYS_MAX 100000000u /* that key_format can do */

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

uint64_t work_hash(uint64_t i)
{
    char key[KEY_LEN_MAX];
    size_t len = key_format(key, i);
    return rd_hash((rd_span){.data = key, .len = len});
}

void work_init(struct work *work)
{
    uint64_t state = 1;
    CHECK(work->value_len >= VALUE_LEN_MIN && work->keys > 0 && work->keys <= KEYS_MAX && work->batch > 0);
    work->pattern = malloc(work->value_len + 8);
    CHECK(work->pattern != NULL);
    for (size_t i = 0; i < work->value_len; i += 8)
        memcpy(work->pattern + i, &(uint64_t){pick_below(&state, UINT64_MAX)}, 8);
}

void work_fini(struct work *work)
{
    free(work->pattern);
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
        uint64_t random = pick_below(&work->seed, work->keys);
        out_picks[k] = work->asked < work->in_order ? (work->asked * work->batch + k) % work->keys : random;
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
    char key[KEY_LEN_MAX];
    size_t len = key_format(key, i);
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
    return 16 + work->batch * (KEY_LEN_MAX + 2);
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
            memcpy(at, &(uint64_t){work_hash(picks[k])}, 8);
        at = put_flag(at, HASHED_OMIT, work->omit_metadata);
        break;
    case WORK_COUNT: break;
    }
    return (size_t)(at - out_request);
}
