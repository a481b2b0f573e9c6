/* How long opening takes whatever lies in the file: R-07 with a clock. A bench, not a test: it judges by ratios. */
#include "hostile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_DEFAULT 5
#define ROUNDS_MAX     101
#define SMALL          ((uint64_t)100000)
#define LARGE          ((uint64_t)400000)

static const char usage[] =
    "usage: recover [--rounds N] [FOLDER]\n"
    "\n"
    "Open stores of 100,000 and 400,000 entries of 8 bytes, intact and damaged in each way that R-07 is about, N "
    "times\n"
    "(5 to 101, odd; 5), all kinds by turns, with their files under FOLDER (.) and in memory. Printed are medians:\n"
    "\n"
    "  ms        opening 100,000 entries\n"
    "  / intact  that, as a multiple of opening the intact file; at most 3 for one damaged link, a torn tail, and as "
    "many\n"
    "            zeros or random bytes appended as the file is long\n"
    "  ns/byte   opening time a byte of the file, at 100,000 and at 400,000 entries\n"
    "  growth    the latter by the former; at most 1.5\n"
    "\n"
    "Exit status 1 if a limit is passed.\n";

struct timing {
    char path[256];
    uint64_t len;
    uint64_t ns[ROUNDS_MAX];
};

static struct timing timings[HOSTILE_KINDS][2];

static uint64_t now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static void make(const char *folder, enum hostile kind, int size)
{
    struct timing *timing = &timings[kind][size];
    AUTO_BYTES file = hostile_build(kind, size == 0 ? SMALL : LARGE);
    snprintf(timing->path, sizeof timing->path, "%s/recover-%d-%d", folder, (int)kind, size);
    file_save(timing->path, file.data, file.len);
    timing->len = file.len;
}

static uint64_t time_open(const struct timing *timing, enum hostile kind, int size)
{
    uint64_t begin = now_ns();
    rd_store *store = store_open_ok(timing->path, &open_reading);
    uint64_t ns = now_ns() - begin;
    uint64_t whole = hostile_whole(kind, size == 0 ? SMALL : LARGE);
    EXPECT(store_info(store).entries == whole, "%s", hostile_text(kind));
    rd_store_close(store);
    return ns;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static double median(struct timing *timing, size_t rounds)
{
    qsort(timing->ns, rounds, sizeof timing->ns[0], compare);
    return (double)timing->ns[rounds / 2];
}

/* Only these are held to a multiple of the intact file's time. */
static bool is_beside_intact(enum hostile kind)
{
    return kind >= HOSTILE_LINK_OLDEST && kind <= HOSTILE_NOISE;
}

static int report(size_t rounds)
{
    int status = 0;
    double intact = median(&timings[HOSTILE_NONE][0], rounds);
    printf("%-38s %9s %9s %19s %8s\n", "opening 100,000 entries, and 400,000", "ms", "/ intact", "ns/byte", "growth");
    for (enum hostile kind = 0; kind < HOSTILE_KINDS; kind++) {
        double small = median(&timings[kind][0], rounds), large = median(&timings[kind][1], rounds);
        double small_byte = small / (double)timings[kind][0].len, large_byte = large / (double)timings[kind][1].len;
        bool slow = is_beside_intact(kind) && small > 3 * intact, grows = large_byte > 1.5 * small_byte;
        printf("%-38s %9.2f %8.2f%s %9.3f %9.3f %7.2f%s\n", hostile_text(kind), small / 1e6, small / intact,
               slow ? "!" : " ", small_byte, large_byte, large_byte / small_byte, grows ? "!" : " ");
        if (slow || grows)
            status = 1;
    }
    return status;
}

static int bench(const char *folder, size_t rounds)
{
    for (enum hostile kind = 0; kind < HOSTILE_KINDS; kind++)
        for (int size = 0; size < 2; size++)
            make(folder, kind, size);
    for (size_t round = 0; round < rounds; round++)
        for (int size = 0; size < 2; size++)
            for (enum hostile kind = 0; kind < HOSTILE_KINDS; kind++)
                timings[kind][size].ns[round] = time_open(&timings[kind][size], kind, size);
    int status = report(rounds);
    for (enum hostile kind = 0; kind < HOSTILE_KINDS; kind++)
        for (int size = 0; size < 2; size++)
            unlink(timings[kind][size].path);
    return status;
}

int main(int count, char **words)
{
    const char *parent = ".";
    size_t rounds = ROUNDS_DEFAULT;
    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--help") == 0)
            return fputs(usage, stdout) < 0;
        if (strcmp(words[i], "--rounds") == 0 && i + 1 < count) {
            rounds = strtoul(words[++i], NULL, 10);
        } else if (words[i][0] != '-') {
            parent = words[i];
        } else {
            rounds = 0;
        }
    }
    if (rounds < ROUNDS_DEFAULT || rounds > ROUNDS_MAX || rounds % 2 == 0) {
        fputs(usage, stderr);
        return 64;
    }
    char folder[128];
    snprintf(folder, sizeof folder, "%.100s/recover-XXXXXX", parent);
    if (mkdtemp(folder) == NULL) {
        fprintf(stderr, "%s: %s\n", folder, strerror(errno));
        return 2;
    }
    int status = bench(folder, rounds);
    rmdir(folder);
    return status;
}
