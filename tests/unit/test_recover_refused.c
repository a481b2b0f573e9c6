/* Recovery where memory or a thread is refused: each request in turn. And that it asks for no more than it needs. */
#include "recover.h"

#include "crc.h"
#include "format.h"
#include "hostile.h"
#include "oracle.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ENTRIES      ((uint64_t)60000)
#define REQUESTS_MAX 400
#define LARGE        ((uint64_t)8 << 20)
#define LARGE_COUNT  ((uint64_t)500)

/* ---- Requests, counted and refused ------------------------------------------------------------------------------ */

static atomic_size_t requests;
static atomic_size_t refused = SIZE_MAX; /* the how many-th is */
static atomic_size_t largest;            /* of those for a mapping */

static bool refuse(void)
{
    return atomic_fetch_add(&requests, 1) + 1 == atomic_load(&refused);
}

void *__real_malloc(size_t len);
void *__wrap_malloc(size_t len);
void *__real_calloc(size_t count, size_t len);
void *__wrap_calloc(size_t count, size_t len);
void *__real_realloc(void *block, size_t len);
void *__wrap_realloc(void *block, size_t len);
void *__real_aligned_alloc(size_t alignment, size_t len);
void *__wrap_aligned_alloc(size_t alignment, size_t len);
void *__real_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
int __real_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);

void *__wrap_malloc(size_t len)
{
    return refuse() ? NULL : __real_malloc(len);
}

void *__wrap_calloc(size_t count, size_t len)
{
    return refuse() ? NULL : __real_calloc(count, len);
}

void *__wrap_realloc(void *block, size_t len)
{
    return refuse() ? NULL : __real_realloc(block, len);
}

void *__wrap_aligned_alloc(size_t alignment, size_t len)
{
    return refuse() ? NULL : __real_aligned_alloc(alignment, len);
}

void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    if (len > atomic_load(&largest))
        atomic_store(&largest, len);
    errno = ENOMEM;
    return refuse() ? MAP_FAILED : __real_mmap(at, len, protection, flags, fd, offset);
}

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    return refuse() ? EAGAIN : __real_pthread_create(out, attributes, run, argument);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------ */

/* Recovers with one request after the other refused, until none is. Returns: how many there are. */
static size_t refuse_each(const struct bytes *file, uint64_t entries)
{
    const struct recover_options options = {.synced_off = SYNCED_UNKNOWN, .threads = 3, .stretch_len = 65536};
    for (size_t nth = 1; nth < REQUESTS_MAX; nth++) {
        struct recovered found;
        uint64_t fault_off;
        atomic_store(&requests, 0);
        atomic_store(&refused, nth);
        rd_err err = recover(file->data, file->len, &options, &fault_off, &found);
        atomic_store(&refused, SIZE_MAX);
        EXPECT(err == RD_OK || err == RD_E_NOMEM, "request %zu: %s", nth, rd_err_text(err));
        if (err != RD_OK)
            continue;
        EXPECT(found.entries == entries && found.live_keys == index_used(&found.index) - found.damaged_keys,
               "request %zu: %llu entries", nth, (unsigned long long)found.entries);
        recovered_fini(&found);
        if (atomic_load(&requests) < nth)
            return nth - 1;
    }
    support_fail(__FILE__, __LINE__, "an end", "more than %d requests", REQUESTS_MAX);
}

static void a_refused_request_is_an_error_or_makes_it_slower(void **state)
{
    (void)state;
    AUTO_BYTES file = hostile_build(HOSTILE_NONE, ENTRIES);
    assert_true(refuse_each(&file, ENTRIES) > 10);
}

static void so_it_is_where_damage_is_met(void **state)
{
    (void)state;
    AUTO_BYTES file = hostile_build(HOSTILE_NONE, ENTRIES);
    for (uint64_t i = 1; i < 40; i++)
        file.data[i * ENTRIES / 40 * 64] ^= 1;
    assert_true(refuse_each(&file, ENTRIES - 39) > 10);
}

/* An entry of `len` bytes that are there already, behind what ends at `end_off`. Returns: where it ends. */
static uint64_t put_entry(uint8_t *base, uint64_t end_off, uint64_t key_hash, uint64_t len, uint32_t crc)
{
    uint64_t trailer_off = (end_off + RD_ALIGNMENT - 1) / RD_ALIGNMENT * RD_ALIGNMENT + len;
    struct raw_trailer *raw = (struct raw_trailer *)(base + trailer_off);
    store_le64(raw->key_hash, key_hash);
    store_le64(raw->prev_tail, end_off);
    store_le32(raw->crc32, crc);
    return trailer_off + RD_TRAILER_SIZE;
}

/* By the bytes that are left, there would be millions to come. */
static void small_entries_above_large_ones_get_no_room_for_more(void **state)
{
    (void)state;
    size_t bytes = (size_t)(LARGE_COUNT * (LARGE + 2 * RD_ALIGNMENT) + ENTRIES * 2 * RD_ALIGNMENT);
    uint8_t *base =
        __real_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(base != MAP_FAILED);
    uint32_t large_crc = crc_of(base, LARGE), small_crc = crc_of(base, 8);
    uint64_t len = 0;
    for (uint64_t i = 1; i <= LARGE_COUNT + ENTRIES; i++)
        len = put_entry(base, len, i * UINT64_C(0x9e3779b97f4a7c15), i <= LARGE_COUNT ? LARGE : 8,
                        i <= LARGE_COUNT ? large_crc : small_crc);
    const struct recover_options options = {.synced_off = SYNCED_UNKNOWN, .threads = 3, .stretch_len = 65536};
    struct recovered found;
    uint64_t fault_off;
    atomic_store(&largest, 0);
    assert_int_equal(recover(base, len, &options, &fault_off, &found), RD_OK);
    EXPECT(found.entries == LARGE_COUNT + ENTRIES, "%llu entries", (unsigned long long)found.entries);
    EXPECT(atomic_load(&largest) < (size_t)8 << 20, "a mapping of %zu bytes", atomic_load(&largest));
    recovered_fini(&found);
    munmap(base, bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_request_is_an_error_or_makes_it_slower),
        cmocka_unit_test(so_it_is_where_damage_is_met),
        cmocka_unit_test(small_entries_above_large_ones_get_no_room_for_more),
    };
    return cmocka_run_group_tests_name("recover_refused", tests, NULL, NULL);
}
