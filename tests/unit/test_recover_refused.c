/* Recovery where memory or a thread is refused: each request in turn. */
#include "recover.h"

#include "hostile.h"
#include "oracle.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ENTRIES      ((uint64_t)60000)
#define REQUESTS_MAX 400

/* ---- Requests, counted and refused ------------------------------------------------------------------------------ */

static atomic_size_t requests;
static atomic_size_t refused = SIZE_MAX; /* the how many-th is */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_request_is_an_error_or_makes_it_slower),
        cmocka_unit_test(so_it_is_where_damage_is_met),
    };
    return cmocka_run_group_tests_name("recover_refused", tests, NULL, NULL);
}
