#include "scratch.h"

#include "../model/folder.h"
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[FOLDER_MAX];

static void remove_folder(void)
{
    (void)folder_remove(folder);
}

void scratch_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("wrong: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    remove_folder();
    abort();
}

void scratch_open(void)
{
    if (folder[0] != '\0')
        return;
    REQUIRE(folder_make("fuzz", folder), "no temporary folder");
    atexit(remove_folder);
}

const char *scratch_path(const char *name)
{
    static char paths[8][FOLDER_MAX + 64];
    static size_t next;
    char *path = paths[next++ % 8];
    REQUIRE(snprintf(path, sizeof(paths[0]), "%s/%s", folder, name) < (int)sizeof(paths[0]), "%s: too long", name);
    return path;
}

void scratch_save(const char *path, rd_span bytes)
{
    const uint8_t *at = bytes.data;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0, "%s can't be made", path);
    for (size_t left = bytes.len; left > 0;) {
        ssize_t done = write(fd, at, left);
        REQUIRE(done > 0, "%s can't be written", path);
        at += done;
        left -= (size_t)done;
    }
    close(fd);
}

rd_span scratch_load(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0 && fstat(fd, &st) == 0, "%s is gone", path);
    size_t len = (size_t)st.st_size, done = 0;
    uint8_t *data = malloc(len + 1);
    REQUIRE(data != NULL, "no memory");
    while (done < len) {
        ssize_t got = read(fd, data + done, len - done);
        REQUIRE(got > 0, "%s can't be read", path);
        done += (size_t)got;
    }
    close(fd);
    return (rd_span){data, len};
}

bool scratch_has(const char *name)
{
    return access(scratch_path(name), F_OK) == 0;
}

void scratch_clear(void)
{
    folder_clear(folder);
}

bool scratch_equal(rd_span a, rd_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

uint8_t feed_u8(struct feed *feed)
{
    if (feed->left == 0)
        return 0;
    feed->left--;
    return *feed->at++;
}

uint32_t feed_u16(struct feed *feed)
{
    uint32_t low = feed_u8(feed);
    return low | (uint32_t)feed_u8(feed) << 8;
}

uint64_t feed_u64(struct feed *feed)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)feed_u8(feed) << 8 * i;
    return value;
}

size_t feed_below(struct feed *feed, size_t bound)
{
    size_t value = feed_u16(feed);
    return bound == 0 ? 0 : value % bound;
}
