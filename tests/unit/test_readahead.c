/* Having the system read a mapping from its end down, before it is walked. */
#include "readahead.h"

#include "support.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LEN    ((UINT64_C(40) << 20) + 777)
#define FLOOR  ((UINT64_C(3) << 20) + 5000)
#define MIDDLE (UINT64_C(24) << 20)
#define WAIT_S 60

/* A hole: nothing of it was ever in memory. */
static uint8_t *map_hole(void **state, int *out_fd)
{
    int fd = open(temp_path(state, "hole"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)LEN), 0);
    uint8_t *base = mmap(NULL, LEN, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(base != MAP_FAILED);
    *out_fd = fd;
    return base;
}

static void await_resident(const uint8_t *base, uint64_t begin_off, uint64_t end_off)
{
    time_t until = time(NULL) + WAIT_S;
    while (!is_resident(base, begin_off, end_off)) {
        EXPECT(time(NULL) < until, "never read");
        sched_yield();
    }
}

static void what_is_wanted_is_read_and_nothing_below_the_floor(void **state)
{
    int fd;
    uint8_t *base = map_hole(state, &fd);
    assert_false(is_resident(base, 0, LEN));
    assert_false(is_resident(base, LEN - 4096, LEN));
    struct readahead *readahead = NULL;
    assert_int_equal(readahead_start(base, FLOOR, LEN, &readahead), RD_OK);
    readahead_want(readahead, MIDDLE);
    await_resident(base, MIDDLE, LEN);
    readahead_want(readahead, 0);
    await_resident(base, FLOOR, LEN);
    readahead_stop(readahead);
    munmap(base, LEN);
    close(fd);
}

static void it_can_be_stopped_before_and_amid_reading(void **state)
{
    int fd;
    uint8_t *base = map_hole(state, &fd);
    for (int wanted = 0; wanted < 2; wanted++) {
        struct readahead *readahead = NULL;
        assert_int_equal(readahead_start(base, 0, LEN, &readahead), RD_OK);
        if (wanted != 0)
            readahead_want(readahead, 0);
        readahead_stop(readahead);
    }
    readahead_stop(NULL);
    munmap(base, LEN);
    close(fd);
}

/* A file that is cut meanwhile costs nothing but its bytes. */
static void reading_ahead_of_a_file_that_was_cut_is_harmless(void **state)
{
    int fd;
    uint8_t *base = map_hole(state, &fd);
    assert_int_equal(ftruncate(fd, 4096), 0);
    struct readahead *readahead = NULL;
    assert_int_equal(readahead_start(base, 0, LEN, &readahead), RD_OK);
    readahead_want(readahead, 0);
    await_resident(base, 0, 4096);
    readahead_stop(readahead);
    munmap(base, LEN);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(what_is_wanted_is_read_and_nothing_below_the_floor),
        TEMP_TEST(it_can_be_stopped_before_and_amid_reading),
        TEMP_TEST(reading_ahead_of_a_file_that_was_cut_is_harmless),
    };
    return cmocka_run_group_tests_name("readahead", tests, NULL, NULL);
}
