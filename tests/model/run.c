#include "run.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct run run;

void run_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "seed %llu, operation %llu (%s), %s:%d: ", (unsigned long long)run.seed,
            (unsigned long long)run.op_idx, run.op_name, file, line);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nthe stores are in %s; again: --seed %llu --ops %llu\n", run.folder, (unsigned long long)run.seed,
            (unsigned long long)run.op_count);
    exit(1);
}

/* splitmix64 */
uint64_t run_random(void)
{
    uint64_t x = run.random += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

size_t run_below(size_t bound)
{
    return (size_t)(run_random() % bound);
}

/* ---- Keys ------------------------------------------------------------------------------------------------------- */

/* Text, empty, binary and namespaced keys, and hashes that no key has (F-07). */
static void make_key(size_t i, struct key *key)
{
    static const uint64_t alone[8] = {0, 1, UINT64_MAX, 2, UINT64_C(1) << 63, 64, UINT64_C(0xd202ef8d), 20};
    if (i < 8) {
        *key = (struct key){.hash = alone[i], .hash_only = true};
        return;
    }
    if (i % 5 == 0) {
        static const char *const names[3] = {"", "one", "another namespace"};
        rd_namespace_key((rd_span){names[i % 3], strlen(names[i % 3])}, (rd_span){&i, 1 + i % 2},
                         (uint8_t *)key->bytes);
        key->len = 16;
    } else if (i != 8) { /* which is the empty key */
        key->len = (size_t)snprintf(key->bytes, sizeof(key->bytes), i % 5 == 1 ? "%zu\n\1" : "key-%zu", i);
    }
    key->hash = rd_hash((rd_span){key->bytes, key->len});
}

static int by_hash(const void *left, const void *right)
{
    uint64_t a = run.keys[*(const size_t *)left].hash, b = run.keys[*(const size_t *)right].hash;
    return (a > b) - (a < b);
}

ptrdiff_t run_key_of(uint64_t hash)
{
    size_t low = 0, high = KEY_COUNT;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (run.sorted[middle] < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < KEY_COUNT && run.sorted[low] == hash ? (ptrdiff_t)run.sorted_key[low] : -1;
}

static void make_keys(void)
{
    for (size_t i = 0; i < KEY_COUNT; i++) {
        make_key(i, &run.keys[i]);
        run.sorted_key[i] = i;
    }
    qsort(run.sorted_key, KEY_COUNT, sizeof(run.sorted_key[0]), by_hash);
    for (size_t i = 0; i < KEY_COUNT; i++)
        run.sorted[i] = run.keys[run.sorted_key[i]].hash;
    for (size_t i = 1; i < KEY_COUNT; i++)
        CHECK(run.sorted[i] != run.sorted[i - 1], "two keys are one");
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

rd_span run_file(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0, "%s is gone", path);
    size_t len = (size_t)st.st_size, done = 0;
    uint8_t *data = malloc(len + 1);
    CHECK(data != NULL, "no memory");
    while (done < len) {
        ssize_t got = read(fd, data + done, len - done);
        CHECK(got > 0, "%s can't be read", path);
        done += (size_t)got;
    }
    close(fd);
    return (rd_span){data, len};
}

/* In place: the file stays the one it was, as when a disk damages it. */
void run_save(const char *path, rd_span bytes)
{
    const uint8_t *at = bytes.data;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0, "%s can't be made", path);
    for (size_t left = bytes.len; left > 0;) {
        ssize_t done = write(fd, at, left);
        CHECK(done > 0, "%s can't be written", path);
        at += done;
        left -= (size_t)done;
    }
    close(fd);
}

/* ---- Begin and end ---------------------------------------------------------------------------------------------- */

void run_init(uint64_t seed)
{
    run.seed = seed;
    run.random = seed;
    run.op_name = "begin";
    CHECK(folder_make("model", run.folder), "no temporary folder");
    make_keys();
    run.pool = malloc(POOL_LEN);
    CHECK(run.pool != NULL, "no memory");
    for (size_t i = 0; i < POOL_LEN; i += 8) {
        uint64_t word = run_random();
        memcpy(run.pool + i, &word, 8);
    }
    for (size_t i = 0; i < 2; i++) {
        const rd_open_options making = {.writable = true, .create = true, .sync = RD_SYNC_NONE};
        struct side *side = &run.sides[i];
        (void)snprintf(side->path, sizeof(side->path), "%s/%c", run.folder, "ab"[i]);
        side_adopt(side);
        side_open(side, &making);
    }
}

void run_fini(void)
{
    run.op_name = "end";
    for (size_t i = 0; i < 2; i++) {
        side_close(&run.sides[i], true);
        image_fini(&run.sides[i].image);
    }
    free(run.pool);
    CHECK(folder_remove(run.folder), "%s is not empty", run.folder);
}
