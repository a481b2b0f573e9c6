#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void support_fail(const char *file, int line, const char *cond, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print_error("expected: %s\n   where: %s\n", cond, text);
    _fail(file, line);
    abort(); /* _fail has left the test; the compiler doesn't know */
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------ */

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}

static struct bytes bytes_alloc(size_t len)
{
    struct bytes bytes = {.data = malloc(len > 0 ? len : 1), .len = len};
    EXPECT(bytes.data != NULL, "%zu bytes", len);
    return bytes;
}

static uint8_t hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c == '\0' ? NULL : strchr(digits, c);
    EXPECT(at != NULL, "'%c' is no hex digit", c);
    return (uint8_t)(at - digits);
}

struct bytes bytes_of_hex(const char *hex)
{
    struct bytes bytes = bytes_alloc(strlen(hex) / 2);
    for (size_t i = 0; i < bytes.len; i++)
        bytes.data[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
    return bytes;
}

struct bytes bytes_xorshift(uint64_t seed, size_t len)
{
    struct bytes bytes = bytes_alloc(len);
    uint64_t x = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    for (size_t i = 0; i < len; i++) {
        if (i % 8 == 0) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        bytes.data[i] = (uint8_t)(x >> (8 * (i % 8)));
    }
    return bytes;
}

void bytes_append(struct bytes *bytes, const void *data, size_t len)
{
    if (len == 0)
        return;
    if (bytes->len + len > bytes->capacity) {
        size_t capacity = 2 * (bytes->len + len);
        uint8_t *grown = realloc(bytes->data, capacity);
        EXPECT(grown != NULL, "%zu bytes", capacity);
        bytes->data = grown;
        bytes->capacity = capacity;
    }
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
}

void bytes_append_le64(struct bytes *bytes, uint64_t value)
{
    uint8_t raw[8];
    for (size_t i = 0; i < sizeof raw; i++)
        raw[i] = (uint8_t)(value >> (8 * i));
    bytes_append(bytes, raw, sizeof raw);
}

rd_span bytes_span(const struct bytes *bytes)
{
    return (rd_span){.data = bytes->data, .len = bytes->len};
}

rd_span text_span(const char *text)
{
    return (rd_span){.data = text, .len = strlen(text)};
}

bool span_equal(rd_span span, const void *data, size_t len)
{
    return span.len == len && (len == 0 || memcmp(span.data, data, len) == 0);
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

struct bytes file_load(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    EXPECT(fd >= 0, "%s: %s", path, strerror(errno));
    struct stat stat;
    EXPECT(fstat(fd, &stat) == 0, "%s: %s", path, strerror(errno));
    struct bytes bytes = bytes_alloc((size_t)stat.st_size);
    for (size_t done = 0; done < bytes.len;) {
        ssize_t got = read(fd, bytes.data + done, bytes.len - done);
        EXPECT(got > 0, "%s at %zu: %s", path, done, strerror(errno));
        done += (size_t)got;
    }
    close(fd);
    return bytes;
}

void file_save(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644); /* in place: giving blocks back is slow */
    EXPECT(fd >= 0, "%s: %s", path, strerror(errno));
    for (size_t done = 0; done < len;) {
        ssize_t put = write(fd, (const uint8_t *)data + done, len - done);
        EXPECT(put > 0, "%s at %zu: %s", path, done, strerror(errno));
        done += (size_t)put;
    }
    EXPECT(ftruncate(fd, (off_t)len) == 0, "%s: %s", path, strerror(errno));
    EXPECT(close(fd) == 0, "%s", path);
}

void file_poke(const char *path, uint64_t offset, uint8_t flip_mask)
{
    uint8_t byte = 0;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    EXPECT(fd >= 0, "%s: %s", path, strerror(errno));
    EXPECT(pread(fd, &byte, 1, (off_t)offset) == 1, "%s at %llu", path, (unsigned long long)offset);
    byte ^= flip_mask;
    struct stat at;
    EXPECT(fstat(fd, &at) == 0, "%s: %s", path, strerror(errno));
    EXPECT(pwrite(fd, &byte, 1, (off_t)offset) == 1, "%s at %llu", path, (unsigned long long)offset);
    EXPECT(futimens(fd, (const struct timespec[]){at.st_atim, at.st_mtim}) == 0, "%s: %s", path, strerror(errno));
    close(fd);
}

uint64_t file_len(const char *path)
{
    struct stat at;
    EXPECT(stat(path, &at) == 0, "%s: %s", path, strerror(errno));
    return (uint64_t)at.st_size;
}

void file_expect(const char *path, const void *data, size_t len, const char *what)
{
    AUTO_BYTES now = file_load(path);
    EXPECT(now.len == len, "%s: %zu bytes, expected %zu", what, now.len, len);
    for (size_t i = 0; i < len; i++)
        EXPECT(now.data[i] == ((const uint8_t *)data)[i], "%s: differs at %zu", what, i);
}

char *fixture_path(const char *name)
{
    char *path = NULL;
    EXPECT(asprintf(&path, "%s/%s", RDRIVE_FIXTURES, name) > 0, "%s", name);
    return path;
}

struct bytes fixture_load(const char *name)
{
    char *path = fixture_path(name);
    struct bytes bytes = file_load(path);
    free(path);
    return bytes;
}

/* ---- Sums ------------------------------------------------------------------------------------------------------- */

uint32_t sum_crc32(const void *data, size_t len)
{
    static uint32_t table[256]; /* filled by the main thread at its first use, in a setup */
    if (table[255] == 0) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t crc = i;
            for (int bit = 0; bit < 8; bit++)
                crc = crc >> 1 ^ (UINT32_C(0xedb88320) & (0 - (crc & 1)));
            table[i] = crc;
        }
    }
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < len; i++)
        crc = crc >> 8 ^ table[(crc ^ ((const uint8_t *)data)[i]) & 0xff];
    return ~crc;
}

void sum_sha256(const void *data, size_t len, char out_hex[65])
{
    struct sha256_ctx ctx;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&ctx);
    sha256_update(&ctx, len, data);
    sha256_digest(&ctx, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(out_hex + 2 * i, 3, "%02x", digest[i]);
}

uint64_t load_le64(const uint8_t *from)
{
    uint64_t value = 0;
    for (size_t i = 8; i-- > 0;)
        value = value << 8 | from[i];
    return value;
}

/* ---- Entries by hand -------------------------------------------------------------------------------------------- */

static void build_trailer(struct bytes *file, uint64_t key_hash, uint64_t prev_tail, uint32_t crc)
{
    bytes_append_le64(file, key_hash);
    bytes_append_le64(file, prev_tail);
    for (int i = 0; i < 4; i++) {
        uint8_t byte = (uint8_t)(crc >> (8 * i));
        bytes_append(file, &byte, 1);
    }
}

void build_entry(struct bytes *file, uint64_t key_hash, rd_span payload, size_t alignment)
{
    static const uint8_t zeros[64];
    uint64_t prev_tail = file->len;
    bytes_append(file, zeros, (alignment - file->len % alignment) % alignment);
    bytes_append(file, payload.data, payload.len);
    build_trailer(file, key_hash, prev_tail, sum_crc32(payload.data, payload.len));
}

void build_tombstone(struct bytes *file, uint64_t key_hash)
{
    uint64_t prev_tail = file->len;
    bytes_append(file, "", 1);
    build_trailer(file, key_hash, prev_tail, UINT32_C(0xd202ef8d)); /* F-05 */
}
