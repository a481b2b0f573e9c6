/* The limit of this machine: the system calls alone, of the same sizes. */
#include "bare.h"
#include "child.h"
#include "ours.h"
#include "shape.h"
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define READ_LEN ((size_t)1 << 20)

static int create_file(const char *path)
{
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        die("%s: %s", path, strerror(errno));
    return file;
}

static uint64_t append(int file, uint64_t offset, const uint8_t *bytes, size_t len)
{
    struct iovec piece = {(void *)(uintptr_t)bytes, len};
    CHECK(pwritev(file, &piece, 1, (off_t)offset) == (ssize_t)len);
    return offset + len;
}

void bare_make(const struct job *job)
{
    static uint8_t bytes[BATCH * ENTRY_LEN];
    memset(bytes, 1, sizeof bytes);
    int file = create_file(job->path);
    uint64_t began = now_ns(), busy = process_busy_ns(), offset = 0;
    for (uint64_t left = job->keys; left != 0;) {
        uint64_t here = left < BATCH ? left : BATCH;
        offset = append(file, offset, bytes, here * ENTRY_LEN);
        left -= here;
    }
    print_figure("write_ns", (double)(now_ns() - began) / (double)job->keys);
    print_figure("write_busy_ns", (double)(process_busy_ns() - busy) / (double)job->keys);
    close(file);
}

/* By one thread: appends to one file come one after the other anyway. */
void bare_singles(const struct job *job)
{
    uint8_t bytes[ENTRY_LEN_LARGE] = {1};
    int file = create_file(job->path);
    uint64_t began = now_ns(), offset = 0, count = job->keys * WRITERS_LARGE;
    for (uint64_t i = 0; i < count; i++)
        offset = append(file, offset, bytes, sizeof bytes);
    print_figure("write_ns", (double)(now_ns() - began) / (double)count);
    close(file);
}

void bare_durable(const struct job *job)
{
    uint8_t bytes[ENTRY_LEN] = {1};
    int file = create_file(job->path);
    uint64_t began = now_ns(), offset = 0;
    for (uint64_t i = 0; i < job->keys; i++) {
        offset = append(file, offset, bytes, sizeof bytes);
        CHECK(fdatasync(file) == 0);
    }
    print_figure("one_ns", (double)(now_ns() - began) / (double)job->keys);
    close(file);
}

static void time_reading(const char *path)
{
    uint8_t *bytes = malloc(READ_LEN);
    CHECK(bytes != NULL);
    memset(bytes, 1, READ_LEN);
    uint64_t began = now_ns(), busy = process_busy_ns();
    int file = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0);
    ssize_t got;
    do
        got = read(file, bytes, READ_LEN);
    while (got > 0);
    CHECK(got == 0);
    print_figure("open_ns", (double)(now_ns() - began));
    print_figure("open_busy_ns", (double)(process_busy_ns() - busy));
    close(file);
    free(bytes);
}

/* The file read once, from its beginning. */
void bare_open(const struct job *job)
{
    time_reading(job->path);
}

/* Its snapshot index read once. */
void bare_snapshot(const struct job *job)
{
    char path[4096 + 8];
    CHECK(snprintf(path, sizeof path, "%s" INDEX_SUFFIX, job->path) < (int)sizeof path);
    time_reading(path);
}

/* One thread reads a bare table of `keys` keys that nobody changes, while another appends to a file beside it what a
 * store would: how long reads take then is the machine's doing. */
void bare_grow(const struct job *job)
{
    static struct watch watch;
    static uint8_t bytes[BATCH * ENTRY_LEN];
    struct bare bare;
    memset(bytes, 1, sizeof bytes);
    ours_make_store(job->path, job->keys);
    bare_load(&bare, job->path, job->keys);
    CHECK(unlink(job->path) == 0);
    int file = create_file(job->path);
    watch_begin(&watch, bare_read_one, &bare, job->keys);
    uint64_t began = now_ns(), offset = 0;
    for (uint64_t keys = job->keys; keys < job->count; keys += BATCH) {
        offset = append(file, offset, bytes, sizeof bytes);
        atomic_store_explicit(&watch.phase, watch_growth_phase(job->keys, keys), memory_order_relaxed);
    }
    print_figure("write_ns", (double)(now_ns() - began) / (double)(job->count - job->keys));
    watch_end(&watch);
    watch_print(&watch);
    close(file);
}
