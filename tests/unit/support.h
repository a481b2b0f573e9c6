/**
 * What the unit tests share: a temporary folder a test, bytes and files, checks that say where they failed, and
 * entries built by hand.
 *
 * Caveats first: a failed check leaves its test by longjmp, so cleanups don't run then, and only the main thread may
 * check. Other threads note what they saw and let the main thread judge.
 */
#ifndef RDRIVE_TESTS_SUPPORT_H
#define RDRIVE_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include <rdrive/store.h>

/* Fail the test unless `cond`, saying with which case of many. */
#define EXPECT(cond, ...)                                                                                              \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            support_fail(__FILE__, __LINE__, #cond, __VA_ARGS__);                                                      \
    } while (0)

__attribute__((noreturn, format(printf, 4, 5))) void support_fail(const char *file, int line, const char *cond,
                                                                  const char *format, ...);

/* ---- A temporary folder a test ---------------------------------------------------------------------------------- */

int temp_setup(void **state);
int temp_teardown(void **state);
#define TEMP_TEST(f) cmocka_unit_test_setup_teardown(f, temp_setup, temp_teardown)

/* The path of `name` in this test's folder; valid until its teardown. */
const char *temp_path(void **state, const char *name);
/* How many names the folder holds. */
size_t temp_count(void **state);

/* ---- Bytes and files -------------------------------------------------------------------------------------------- */

struct bytes {
    uint8_t *data;
    size_t len;
    size_t capacity; /* what bytes_append may use; 0: as much as `len` */
};

#define AUTO_BYTES __attribute__((cleanup(bytes_free))) struct bytes

void bytes_free(struct bytes *bytes);
struct bytes bytes_of_hex(const char *hex);
struct bytes bytes_xorshift(uint64_t seed, size_t len); /* as the fixtures' README defines it */
void bytes_append(struct bytes *bytes, const void *data, size_t len);
void bytes_append_le64(struct bytes *bytes, uint64_t value);
rd_span bytes_span(const struct bytes *bytes);
rd_span text_span(const char *text);
bool span_equal(rd_span span, const void *data, size_t len);

struct bytes file_load(const char *path);
void file_save(const char *path, const void *data, size_t len);
/* As a disk does that goes bad: the file was not written to, as its times have it. */
void file_poke(const char *path, uint64_t offset, uint8_t flip_mask);
uint64_t file_len(const char *path);
/* Fail unless the file holds exactly these bytes. */
void file_expect(const char *path, const void *data, size_t len, const char *what);
/* The path of a fixture, as "valid/02_single.srd"; to be freed. */
char *fixture_path(const char *name);
struct bytes fixture_load(const char *name);

/* ---- Sums, of our own so that the engine can't agree with itself ------------------------------------------------ */

uint32_t sum_crc32(const void *data, size_t len); /* F-06 */
void sum_sha256(const void *data, size_t len, char out_hex[65]);
#ifndef RD_FORMAT_H /* a test of the engine's insides has the engine's own */
uint64_t load_le64(const uint8_t *from);
#endif

/* ---- Entries by hand -------------------------------------------------------------------------------------------- */

/* Append an entry whose payload starts at a multiple of `alignment` (F-02 has 64). */
void build_entry(struct bytes *file, uint64_t key_hash, rd_span payload, size_t alignment);
void build_tombstone(struct bytes *file, uint64_t key_hash);

/* ---- Stores ----------------------------------------------------------------------------------------------------- */

extern const rd_open_options open_reading; /* verify first */
extern const rd_open_options open_writing; /* no sync */
extern const rd_open_options open_making;  /* no sync; creates */

rd_store *store_open_ok(const char *path, const rd_open_options *options);
/* Open, expecting `want`; checks the fault, and that nothing was handed out. */
void store_open_fails(const char *path, const rd_open_options *options, rd_err want);
rd_store *store_make(void **state, const char *name);
rd_store_info store_info(rd_store *store);
rd_written store_put(rd_store *store, const char *key, const void *payload, size_t len);
/* Write `count` keys "key-<i>" with i as their 8 LE bytes, in batches of 1000. */
void store_fill(rd_store *store, uint64_t first, uint64_t count);
uint64_t fill_hash(uint64_t number);
void store_expect(rd_store *store, uint64_t key_hash, const void *payload, size_t len);
void store_expect_absent(rd_store *store, uint64_t key_hash);

#endif
