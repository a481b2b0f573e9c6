/*
 * A disk that a test can slow down, stop and break, preloaded into a daemon: counts its syncs, and withholds or fails
 * what the test says. RDRIVE_SLOW_DISK names a file that both have mapped; disk.py is the other side.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* As it lies in the file: seven 32-bit words. */
struct control {
    atomic_uint syncs;        /* begun, of any file */
    atomic_uint hold_syncs;   /* while it isn't 0 none goes on */
    atomic_uint held_syncs;   /* that wait for it */
    atomic_uint sync_error;   /* what the next sync fails with, once; 0: it doesn't */
    atomic_uint hold_copies;  /* while it isn't 0 no compaction writes a byte */
    atomic_uint held_copies;  /* that wait for it */
    atomic_uint append_error; /* what each write fails with; 0: it doesn't */
};

static struct control *control;
static int (*real_fdatasync)(int fd);
static ssize_t (*real_pwritev)(int fd, const struct iovec *parts, int count, off_t offset);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("RDRIVE_SLOW_DISK");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map = fd >= 0 ? mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (map == MAP_FAILED)
        abort();
    close(fd);
    control = map;
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_pwritev = dlsym(RTLD_NEXT, "pwritev");
}

static void wait_while(atomic_uint *hold, atomic_uint *held)
{
    const struct timespec moment = {.tv_nsec = 200000};
    if (atomic_load(hold) == 0)
        return;
    atomic_fetch_add(held, 1);
    while (atomic_load(hold) != 0)
        nanosleep(&moment, NULL);
    atomic_fetch_sub(held, 1);
}

int fdatasync(int fd)
{
    atomic_fetch_add(&control->syncs, 1);
    wait_while(&control->hold_syncs, &control->held_syncs);
    unsigned error = atomic_exchange(&control->sync_error, 0);
    if (error != 0) {
        errno = (int)error;
        return -1;
    }
    return real_fdatasync(fd);
}

static int is_copy(int fd)
{
    static const char suffix[] = ".compact";
    char link[32];
    char path[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof(path));
    size_t end = sizeof(suffix) - 1;
    return len >= (ssize_t)end && memcmp(path + len - end, suffix, end) == 0;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (is_copy(fd))
        wait_while(&control->hold_copies, &control->held_copies);
    unsigned error = atomic_load(&control->append_error);
    if (error != 0) {
        errno = (int)error;
        return -1;
    }
    return real_pwritev(fd, parts, count, offset);
}
