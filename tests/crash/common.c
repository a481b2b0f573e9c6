#include "common.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Numbers ---- */

uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t z = a + UINT64_C(0x9e3779b97f4a7c15) * (b + 1); /* splitmix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

struct rng rng_of(uint64_t seed)
{
    return (struct rng){.state = mix(seed, 1) | 1};
}

uint64_t rng_next(struct rng *rng)
{
    rng->state ^= rng->state << 13;
    rng->state ^= rng->state >> 7;
    rng->state ^= rng->state << 17;
    return rng->state;
}

uint64_t rng_below(struct rng *rng, uint64_t limit)
{
    return limit > 0 ? (rng_next(rng) >> 11) % limit : 0;
}

bool rng_chance(struct rng *rng, unsigned percent)
{
    return rng_below(rng, 100) < percent;
}

/* ---- Bytes ---- */

void *must_alloc(size_t len)
{
    void *bytes = calloc(1, len > 0 ? len : 1);
    if (bytes == NULL)
        fail("out of memory");
    return bytes;
}

void buffer_resize(struct buffer *buffer, size_t len)
{
    if (len > buffer->capacity) {
        size_t capacity = len > 2 * buffer->capacity ? len : 2 * buffer->capacity;
        uint8_t *data = realloc(buffer->data, capacity);
        if (data == NULL)
            fail("out of memory");
        buffer->data = data;
        buffer->capacity = capacity;
    }
    if (len > buffer->len)
        memset(buffer->data + buffer->len, 0, len - buffer->len);
    buffer->len = len;
}

void buffer_put(struct buffer *buffer, size_t offset, const void *bytes, size_t len)
{
    if (len == 0)
        return;
    if (offset + len > buffer->len)
        buffer_resize(buffer, offset + len);
    memcpy(buffer->data + offset, bytes, len);
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

/* ---- A campaign ---- */

static struct campaign *running;
static char place[512];

void at_place(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(place, sizeof(place), format, arguments);
    va_end(arguments);
}

void fail(const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "crash.%s: %s: %s\n  again: crash_%s --seed %llu --rounds %llu; its files stay in %s\n",
            running->name, place, text, running->name, (unsigned long long)running->seed,
            (unsigned long long)running->rounds, running->folder);
    _exit(1);
}

static uint64_t number_of(const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = text != NULL ? strtoull(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != '\0' || errno != 0) {
        fprintf(stderr, "usage: crash_%s [--rounds N] [--seed N] [--every N]\n", running->name);
        exit(64);
    }
    return number;
}

void campaign_begin(struct campaign *campaign, const char *name, uint64_t rounds, bool in_memory, int argc, char **argv)
{
    *campaign = (struct campaign){.name = name, .seed = 1, .rounds = rounds, .every = 1};
    running = campaign;
    for (int i = 1; i < argc; i += 2) {
        if (strcmp(argv[i], "--rounds") == 0)
            campaign->rounds = number_of(argv[i + 1]);
        else if (strcmp(argv[i], "--seed") == 0)
            campaign->seed = number_of(argv[i + 1]);
        else if (strcmp(argv[i], "--every") == 0)
            campaign->every = number_of(argv[i + 1]);
        else
            number_of(NULL);
    }
    if (campaign->every == 0)
        number_of(NULL);
    const char *base = getenv("TMPDIR");
    char real[PATH_MAX];
    if (base == NULL)
        base = in_memory && access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    if (realpath(base, real) == NULL || strlen(real) > 200)
        fail("there is no folder for temporary files");
    snprintf(campaign->folder, sizeof(campaign->folder), "%.200s/rdrive-crash-%s-XXXXXX", real, name);
    if (mkdtemp(campaign->folder) == NULL)
        fail("%s: %s", campaign->folder, strerror(errno));
}

void campaign_end(struct campaign *campaign, const char *format, ...)
{
    va_list arguments;
    printf("crash.%s, seed %llu: ", campaign->name, (unsigned long long)campaign->seed);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    folder_remove(campaign->folder);
}

/* ---- Folders ---- */

void path_of(char out_path[PATH_LEN], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(out_path, PATH_LEN, format, arguments) >= PATH_LEN)
        fail("a path is too long");
    va_end(arguments);
}

void folder_make(const char *path)
{
    if (mkdir(path, 0700) != 0)
        fail("%s: %s", path, strerror(errno));
}

/* Call `visit` with the path of each file in a folder. */
static void folder_each(const char *path, void (*visit)(const char *file, const char *name, const void *arg),
                        const void *arg)
{
    char file[PATH_MAX];
    DIR *dir = opendir(path);
    if (dir == NULL)
        fail("%s: %s", path, strerror(errno));
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
        visit(file, entry->d_name, arg);
    }
    closedir(dir);
}

static void remove_one(const char *file, const char *name, const void *arg)
{
    (void)name;
    (void)arg;
    if (remove(file) != 0) /* a file, or an empty folder */
        folder_remove(file);
}

void folder_remove(const char *path)
{
    folder_each(path, remove_one, NULL);
    if (rmdir(path) != 0)
        fail("%s: %s", path, strerror(errno));
}
