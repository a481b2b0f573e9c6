/* Recovery on several threads: nothing comes out otherwise than on one. */
#include "recover.h"

#include "hostile.h"
#include "oracle.h"

#include <fcntl.h>
#include <libdeflate.h>
#include <rdrive/upkeep.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALONE  (UINT64_C(1) << 60) /* no file has two such stretches */
#define MANY   ((uint64_t)150000)  /* entries: several steps of stretches as long as they are by default */
#define ROUNDS 60
#define KEYS   ((uint64_t)300)
#define LARGE  ((size_t)70000)
#define SECTOR ((uint64_t)512)
#define HARMS  8

/* ---- What is summed, and what happens on the way ---------------------------------------------------------------- */

static _Atomic uint64_t summed;
static _Atomic uint64_t hook_at = UINT64_MAX;
static void (*hook)(void);

uint32_t __real_libdeflate_crc32(uint32_t crc, const void *data, size_t len);
uint32_t __wrap_libdeflate_crc32(uint32_t crc, const void *data, size_t len);

/* The linker puts it in libdeflate_crc32's place (--wrap). */
uint32_t __wrap_libdeflate_crc32(uint32_t crc, const void *data, size_t len)
{
    uint64_t before = atomic_fetch_add(&summed, len);
    uint64_t at = atomic_load(&hook_at);
    if (before < at && before + len >= at)
        hook();
    return __real_libdeflate_crc32(crc, data, len);
}

/* ---- Comparing two recoveries ----------------------------------------------------------------------------------- */

struct run {
    rd_err err;
    uint64_t fault_off;
    struct recovered found;
};

static struct run run_recover(const uint8_t *base, uint64_t len, const struct recover_options *options,
                              unsigned threads, uint64_t stretch_len)
{
    struct recover_options with = *options;
    with.threads = threads;
    with.stretch_len = stretch_len;
    struct run run = {.err = RD_OK};
    run.err = recover(base, len, &with, &run.fault_off, &run.found);
    return run;
}

static void run_fini(struct run *run)
{
    if (run->err == RD_OK)
        recovered_fini(&run->found);
}

static void expect_same_index(const struct index *want, const struct index *index, const char *label)
{
    static struct sighting sightings[BLOCK_SLOTS];
    struct index_cursor cursor = {0};
    size_t seen = 0;
    while (!cursor.ended) {
        size_t count = 0;
        assert_int_equal(index_scan(want, &cursor, sightings, &count), RD_OK);
        for (size_t i = 0; i < count; i++)
            EXPECT(index_find(index, sightings[i].hash) == sightings[i].word, "%s: key %016llx", label,
                   (unsigned long long)sightings[i].hash);
        seen += count;
    }
    EXPECT(seen == index_used(want) && seen == index_used(index), "%s: %zu keys instead of %zu", label,
           index_used(index), seen);
}

static void expect_same_layout(const struct layout *want, const struct layout *layout, const char *label)
{
    EXPECT(want->damage_count == layout->damage_count, "%s: %zu damaged ranges instead of %zu", label,
           layout->damage_count, want->damage_count);
    for (size_t i = 0; i < want->damage_count; i++) {
        const struct damage *a = &want->damage[i], *b = &layout->damage[i];
        EXPECT(a->begin_off == b->begin_off && a->end_off == b->end_off && a->kind == b->kind &&
                   a->has_key == b->has_key && (!a->has_key || a->key_hash == b->key_hash),
               "%s: damaged range %zu", label, i);
    }
    for (size_t kind = 0; kind <= RD_DAMAGE_KINDS; kind++)
        EXPECT(want->counts[kind] == layout->counts[kind], "%s: kind %zu", label, kind);
    EXPECT(want->provisional_count == layout->provisional_count, "%s: %zu provisional", label,
           layout->provisional_count);
    for (size_t i = 0; i < want->provisional_count; i++)
        EXPECT(want->provisional[i] == layout->provisional[i], "%s: provisional %zu", label, i);
}

static void expect_same(const struct run *want, const struct run *run, const char *label)
{
    EXPECT(want->err == run->err, "%s: %s instead of %s", label, rd_err_text(run->err), rd_err_text(want->err));
    if (want->err != RD_OK) {
        EXPECT(want->err == RD_E_UNAVAILABLE || want->fault_off == run->fault_off, "%s: fault", label);
        return;
    }
    const struct recovered *a = &want->found, *b = &run->found;
    EXPECT(a->tail_off == b->tail_off, "%s: tail", label);
    EXPECT(a->entries == b->entries, "%s: %llu entries", label, (unsigned long long)b->entries);
    EXPECT(a->live_keys == b->live_keys && a->live_bytes == b->live_bytes && a->live_stored == b->live_stored,
           "%s: live", label);
    EXPECT(a->damaged_keys == b->damaged_keys, "%s: damaged keys", label);
    expect_same_layout(a->layout, b->layout, label);
    expect_same_index(&a->index, &b->index, label);
}

/* A copy of its own: what is read beyond its ends, a sanitizer sees. */
static void expect_same_on_threads(const struct bytes *file, const struct recover_options *options, const char *label)
{
    static const struct {
        unsigned threads;
        uint64_t stretch_len;
    } ways[] = {{1, 300}, {2, 700}, {3, 4096}, {2, 65536}};
    AUTO_BYTES copy = bytes_copy(file);
    struct run want = run_recover(copy.data, copy.len, options, 1, ALONE);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct run run = run_recover(copy.data, copy.len, options, ways[i].threads, ways[i].stretch_len);
        expect_same(&want, &run, label);
        run_fini(&run);
    }
    run_fini(&want);
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

static uint64_t dice_state;

static uint64_t dice(uint64_t sides)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return (dice_state >> 11) % sides;
}

static void put_random(struct bytes *file, uint64_t key_hash, size_t len)
{
    AUTO_BYTES payload = bytes_xorshift(dice_state | 1, len);
    build_entry(file, key_hash, bytes_span(&payload), 64);
}

/* A store as a value: what holds in it is payload. */
static void put_store(struct bytes *file, uint64_t key_hash)
{
    AUTO_BYTES inner = {0};
    for (uint64_t i = dice(20) + 1; i > 0; i--)
        put_random(&inner, dice(KEYS), (size_t)dice(90) + 2);
    build_entry(file, key_hash, bytes_span(&inner), 64);
}

/* `shape` tells how small the entries are on the whole, and whether large ones are among them. */
static struct bytes build_random(uint64_t shape)
{
    struct bytes file = {0};
    uint64_t count = 200 + dice(shape % 3 == 2 ? 200 : 1500);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t key_hash = fill_hash(dice(KEYS));
        uint64_t face = dice(100);
        if (face < 10)
            build_tombstone(&file, key_hash);
        else if (face < 13)
            put_store(&file, key_hash);
        else if (face == 13 && shape % 2 == 1)
            put_random(&file, key_hash, LARGE);
        else
            put_random(&file, key_hash, (size_t)dice(shape % 3 == 2 ? 2000 : 40) + 2);
    }
    return file;
}

/* Links that lead into the pad in front, or past the end of the entry there: the payload is the same. */
static void bend_links(struct bytes *file)
{
    AUTO_ORACLE oracle = oracle_of(file);
    for (int i = 0; i < 5; i++) {
        const struct truth *truth = &oracle.truths[dice(oracle.truth_count)];
        uint64_t lowest = truth->start_off >= 63 ? truth->start_off - 63 : 0;
        if (!truth->tombstone)
            harm_link(file, truth_end(truth), lowest + dice(truth->start_off - lowest + 1));
    }
}

/* Damage of one kind, somewhere. */
static void harm(struct bytes *file, uint64_t kind)
{
    uint64_t at = dice(file->len - 2 * SECTOR) + SECTOR;
    switch (kind) {
    case 0: break;
    case 1: harm_flip(file, at, (int)dice(8)); break;
    case 2: harm_zero(file, at / SECTOR * SECTOR, at / SECTOR * SECTOR + SECTOR); break;
    case 3: file->len -= dice(SECTOR); break;
    case 4:
        for (int i = 0; i < 20; i++)
            harm_flip(file, dice(file->len), (int)dice(8));
        break;
    case 5: {
        AUTO_BYTES noise = bytes_xorshift(dice_state | 1, (size_t)dice(5000) + 1);
        bytes_append(file, noise.data, noise.len);
        break;
    }
    case 6: bend_links(file); break;
    default: /* many small ones: stretch after stretch is in vain */
        for (uint64_t off = dice(400); off < file->len; off += dice(400) + 1)
            file->data[off] ^= 1;
    }
}

/* Where an entry ends, about half-way. */
static uint64_t an_end(const struct bytes *file)
{
    AUTO_ORACLE oracle = oracle_of(file);
    return truth_end(&oracle.truths[oracle.truth_count / 4 + dice(oracle.truth_count / 2)]);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------ */

static void nothing_that_damage_does_depends_on_threads(void **state)
{
    (void)state;
    dice_state = 88172645463325252u;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        AUTO_BYTES file = build_random(round);
        uint64_t end_off = an_end(&file);
        harm(&file, round % HARMS);
        char label[64];
        snprintf(label, sizeof label, "round %llu", (unsigned long long)round);
        struct recover_options options = {.synced_off = SYNCED_UNKNOWN};
        expect_same_on_threads(&file, &options, label);
        options.check_all = options.end_proven = true;
        expect_same_on_threads(&file, &options, label);
        options = (struct recover_options){.synced_off = end_off};
        expect_same_on_threads(&file, &options, label);
        options.torn = (struct torn_ranges){.count = 1, .ranges = {{end_off / 2, end_off, end_off / 4}}};
        options.synced_off = file.len;
        expect_same_on_threads(&file, &options, label);
        options = (struct recover_options){.synced_off = SYNCED_UNKNOWN, .floor_off = end_off};
        expect_same_on_threads(&file, &options, label);
        options.floor_off++;
        expect_same_on_threads(&file, &options, label);
    }
}

static void nor_does_what_makes_a_recovery_slow(void **state)
{
    (void)state;
    for (enum hostile kind = 0; kind < HOSTILE_KINDS; kind++) {
        AUTO_BYTES file = hostile_build(kind, 5000);
        const struct recover_options options = {.synced_off = SYNCED_UNKNOWN};
        expect_same_on_threads(&file, &options, hostile_text(kind));
    }
}

/* Long enough that the index has parts: each key twice, and the newest wins though threads fill it. */
static void many_entries_in_stretches_as_they_are_by_default(void **state)
{
    (void)state;
    for (int damaged = 0; damaged < 2; damaged++) {
        AUTO_BYTES file = {0};
        for (uint64_t i = 0; i < MANY; i++) {
            uint64_t value[2] = {i, i};
            if (i % 50 == 7)
                build_tombstone(&file, fill_hash(i / 3));
            else
                build_entry(&file, fill_hash(i % (MANY / 2)), (rd_span){value, sizeof value}, 64);
        }
        for (uint64_t off = file.len / 7; damaged && off < file.len; off += file.len / 7)
            file.data[off / 64 * 64] ^= 1;
        const struct recover_options options = {.synced_off = SYNCED_UNKNOWN};
        struct run want = run_recover(file.data, file.len, &options, 1, ALONE);
        for (unsigned threads = 1; threads <= 4; threads++) {
            struct run run = run_recover(file.data, file.len, &options, threads, 0);
            expect_same(&want, &run, damaged ? "many, damaged" : "many");
            run_fini(&run);
        }
        assert_int_equal(want.found.damaged_keys > 0, damaged);
        run_fini(&want);
    }
}

#define CROWD  ((uint64_t)20000) /* more than a block of the index has slots */
#define SECRET UINT64_C(0x0123456789abcdef)

static _Atomic uint64_t secrets; /* given so far; 0: the system's are */

ssize_t __real_getrandom(void *to, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *to, size_t len, unsigned flags);

ssize_t __wrap_getrandom(void *to, size_t len, unsigned flags)
{
    uint64_t nth = atomic_load(&secrets);
    if (nth == 0 || len != sizeof nth)
        return __real_getrandom(to, len, flags);
    uint64_t secret = SECRET * atomic_fetch_add(&secrets, 1);
    memcpy(to, &secret, sizeof secret);
    return sizeof secret;
}

/* Hashes that somebody chose who knows the secret: they are all of one block. */
static void a_crowded_block_costs_no_entry(void **state)
{
    (void)state;
    AUTO_BYTES file = {0};
    uint64_t hash = 0;
    for (uint64_t i = 0; i < 3 * CROWD; i++) {
        do
            hash++;
        while (i % 3 == 0 && index_mix(SECRET, hash) >> 54 != 77);
        build_entry(&file, hash, (rd_span){&i, sizeof i}, 64);
    }
    for (uint64_t i = 0; i < CROWD; i++)
        build_tombstone(&file, i * 7);
    const struct recover_options options = {.synced_off = SYNCED_UNKNOWN};
    for (unsigned threads = 1; threads <= 3; threads++) {
        struct run want = run_recover(file.data, file.len, &options, 1, ALONE);
        atomic_store(&secrets, 1);
        struct run run = run_recover(file.data, file.len, &options, threads, 65536);
        EXPECT(atomic_load(&secrets) > 2, "no block was crowded");
        atomic_store(&secrets, 0);
        expect_same(&want, &run, "crowded");
        run_fini(&want);
        run_fini(&run);
    }
}

static atomic_bool cancel;

static void set_cancel(void)
{
    atomic_store(&cancel, true);
}

static void a_recovery_on_threads_is_cancelled_within_the_stretches_at_hand(void **state)
{
    (void)state;
    AUTO_BYTES file = hostile_build(HOSTILE_NONE, MANY);
    const struct recover_options options = {.synced_off = SYNCED_UNKNOWN, .cancel = &cancel};
    hook = set_cancel;
    for (unsigned threads = 1; threads <= 4; threads += 3) {
        atomic_store(&cancel, false);
        atomic_store(&summed, 0);
        atomic_store(&hook_at, MANY * 8 / 2);
        struct run run = run_recover(file.data, file.len, &options, threads, 65536);
        atomic_store(&hook_at, UINT64_MAX);
        assert_int_equal(run.err, RD_E_CANCELLED);
        uint64_t after = atomic_load(&summed) - MANY * 8 / 2;
        EXPECT(after <= threads * 65536, "%llu bytes summed after that", (unsigned long long)after);
    }
}

static rd_open_progress progress;
static uint64_t told_done, told_total;

static void note_progress(void)
{
    told_done = atomic_load(&progress.bytes_done);
    told_total = atomic_load(&progress.bytes_total);
}

static void a_recovery_tells_how_far_it_has_come(void **state)
{
    (void)state;
    AUTO_BYTES file = hostile_build(HOSTILE_NONE, MANY);
    const struct recover_options options = {.synced_off = SYNCED_UNKNOWN, .progress = &progress};
    hook = note_progress;
    for (unsigned threads = 1; threads <= 2; threads++) {
        atomic_store(&summed, 0);
        atomic_store(&hook_at, MANY * 8 / 2);
        struct run run = run_recover(file.data, file.len, &options, threads, threads == 1 ? ALONE : 65536);
        atomic_store(&hook_at, UINT64_MAX);
        assert_int_equal(told_total, file.len);
        assert_true(told_done > file.len / 3 && told_done < file.len / 3 * 2);
        assert_int_equal(atomic_load(&progress.bytes_done), file.len);
        run_fini(&run);
    }
}

/* Where the system lets go of a file's pages, its bytes are read ahead while they are walked. */
static void a_file_that_is_not_in_memory_comes_out_the_same(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES file = hostile_build(HOSTILE_PAYLOADS, 20);
    for (uint64_t i = 0; i < MANY; i++)
        put_random(&file, fill_hash(i % KEYS), (size_t)(i % 90) + 2);
    file_save(path, file.data, file.len);
    const struct recover_options options = {.synced_off = SYNCED_UNKNOWN};
    struct run want = run_recover(file.data, file.len, &options, 1, ALONE);
    for (unsigned threads = 1; threads <= 3; threads++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(fsync(fd), 0);
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        uint8_t *base = mmap(NULL, file.len, PROT_READ, MAP_SHARED, fd, 0);
        assert_true(base != MAP_FAILED);
        struct run run = run_recover(base, file.len, &options, threads, 0);
        expect_same(&want, &run, "cold");
        run_fini(&run);
        munmap(base, file.len);
        close(fd);
    }
    run_fini(&want);
}

static struct sigaction engines_own;
static int cut_fd;

static void cut(void)
{
    if (ftruncate(cut_fd, 4096) != 0)
        abort();
}

static void a_file_that_is_cut_under_the_threads_is_an_error_and_no_crash(void **state)
{
    assert_int_equal(sigaction(SIGBUS, &engines_own, NULL), 0); /* cmocka puts one of its own in for each test */
    const char *path = temp_path(state, "s");
    AUTO_BYTES file = hostile_build(HOSTILE_NONE, MANY);
    hook = cut;
    for (unsigned threads = 1; threads <= 4; threads++) {
        file_save(path, file.data, file.len);
        cut_fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(cut_fd >= 0);
        uint8_t *base = mmap(NULL, file.len, PROT_READ, MAP_SHARED, cut_fd, 0);
        assert_true(base != MAP_FAILED);
        const struct recover_options options = {.synced_off = SYNCED_UNKNOWN};
        atomic_store(&summed, 0);
        atomic_store(&hook_at, MANY * 8 / 4 * (threads % 3 + 1));
        struct run run = run_recover(base, file.len, &options, threads, 65536);
        atomic_store(&hook_at, UINT64_MAX);
        assert_int_equal(run.err, RD_E_TRUNCATED);
        munmap(base, file.len);
        close(cut_fd);
    }
}

int main(void)
{
    if (rd_sigbus_install() != RD_OK || sigaction(SIGBUS, NULL, &engines_own) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_that_damage_does_depends_on_threads),
        cmocka_unit_test(nor_does_what_makes_a_recovery_slow),
        cmocka_unit_test(many_entries_in_stretches_as_they_are_by_default),
        cmocka_unit_test(a_crowded_block_costs_no_entry),
        cmocka_unit_test(a_recovery_on_threads_is_cancelled_within_the_stretches_at_hand),
        cmocka_unit_test(a_recovery_tells_how_far_it_has_come),
        TEMP_TEST(a_file_that_is_not_in_memory_comes_out_the_same),
        TEMP_TEST(a_file_that_is_cut_under_the_threads_is_an_error_and_no_crash),
    };
    return cmocka_run_group_tests_name("recover_crew", tests, NULL, NULL);
}
