/* Each cut and each flipped bit of every small fixture: no intact entry is lost, nothing false is served. */
#include "manifest.h"
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Larger files take part with a sample. Payloads above 64 KiB are another test's: opening doesn't check them. */
#define SMALL_MAX 2048
#define SAMPLES   400

/* The sanitizers cost an order of magnitude: fewer bits there, another one at each byte. */
#if defined(__SANITIZE_THREAD__)
#define BIT_STEP 31
#define CUT_STEP 5
#elif defined(__SANITIZE_ADDRESS__)
#define BIT_STEP 9
#define CUT_STEP 1
#else
#define BIT_STEP 1
#define CUT_STEP 1
#endif

static uint32_t le32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static void expect_no_store(void **state, const struct oracle *oracle, const struct bytes *file)
{
    const char *path = temp_path(state, "read");
    file_save(path, file->data, file->len);
    store_open_fails(path, &open_reading, RD_E_NOT_STORE);
    store_open_fails(path, &open_writing, RD_E_NOT_STORE);
    file_expect(path, file->data, file->len, oracle->label);
}

/* ---- Cuts ------------------------------------------------------------------------------------------------------- */

/**
 * R-04 a, b and f: a torn payload whose last 20 bytes read as the trailer of a damaged entry, [whole, cut). Its false
 * key is called damaged then, and nothing is torn. f passes over a tombstone that is not right behind its link.
 */
static bool cut_reads_as_damage(const struct bytes *file, uint64_t whole, uint64_t cut, bool *out_holds)
{
    if (cut < whole + TRAILER_LEN)
        return false;
    uint64_t at = cut - TRAILER_LEN, start = (whole + 63) & ~UINT64_C(63);
    const uint8_t *trailer = file->data + at;
    uint64_t link = load_le64(trailer + 8);
    uint32_t crc = le32(trailer + 16);
    bool tombstone = crc == UINT32_C(0xd202ef8d) && file->data[at - 1] == 0;
    *out_holds = start < at && sum_crc32(file->data + start, at - start) == crc;
    return *out_holds || (link == whole && whole > 0) || (whole < link && link < at && !tombstone);
}

static void try_cut(void **state, struct oracle *oracle, const struct bytes *file, uint64_t cut)
{
    struct bytes part = {.data = file->data, .len = cut};
    uint64_t whole = 0, entries = 0;
    oracle_reset(oracle);
    for (size_t i = 0; i < oracle->truth_count; i++) {
        struct truth *truth = &oracle->truths[i];
        truth->fate = truth_end(truth) <= cut ? WHOLE : CUT_OFF;
        if (truth->fate == CUT_OFF)
            continue;
        whole = truth_end(truth);
        entries++;
    }
    if (whole == 0 && cut > 0) { /* */
        expect_no_store(state, oracle, &part);
        return;
    }
    oracle_answer(oracle);
    bool holds = false, damage = cut_reads_as_damage(file, whole, cut, &holds);
    if (damage) {
        uint64_t at = cut - TRAILER_LEN, start = (whole + 63) & ~UINT64_C(63);
        rd_span stored = {file->data + start, holds ? at - start : 0};
        struct answer *answer = oracle_allow(oracle, load_le64(file->data + at), stored, MAY_DAMAGED);
        answer->later = holds ? MAY_VALUE : 0; /* an exception that RECOVERY.md names: more was appended behind it */
    }
    struct outcome outcome = oracle_try_reading(state, oracle, &part);
    EXPECT(outcome.info.entries == entries, "%s: %llu entries", oracle->label,
           (unsigned long long)outcome.info.entries);
    EXPECT(outcome.info.tail_off == (damage ? cut : whole), "%s: tail %llu", oracle->label,
           (unsigned long long)outcome.info.tail_off);
    EXPECT(outcome.info.damaged_ranges == (damage ? 1 : 0), "%s", oracle->label);
    if (damage || cut % 8 == 0) /* writing syncs, and syncing takes its time */
        oracle_try_writing(state, oracle, &part);
}

/* ---- Flips ------------------------------------------------------------------------------------------------------ */

/* What one flipped bit of this byte does to its entry. */
static enum fate fate_of_flip(const struct truth *truth, uint64_t offset)
{
    if (offset < truth->start_off)
        return WHOLE; /* a pad's bytes don't matter */
    if (offset < truth->trailer_off || offset >= truth->trailer_off + 16)
        return HIT;
    return offset < truth->trailer_off + 8 ? NAMELESS : LINK_HIT;
}

/* Whether an entry stored in the payload of `truth`, with the flipped byte in its trailer, holds. */
static bool stored_entry_holds(const struct bytes *file, const struct truth *truth, uint64_t offset)
{
    for (uint64_t end = offset + 1; end <= offset + TRAILER_LEN && end <= truth->trailer_off; end++) {
        if (end < truth->start_off + TRAILER_LEN + 1)
            continue;
        const uint8_t *trailer = file->data + end - TRAILER_LEN;
        uint64_t at = end - TRAILER_LEN, link = load_le64(trailer + 8), start = (link + 63) & ~UINT64_C(63);
        if (link >= at || memcmp(trailer, trailer + 1, TRAILER_LEN - 1) == 0)
            continue;
        if (at - link == 1 && file->data[link] == 0)
            start = link;
        if (start < at && sum_crc32(file->data + start, at - start) == le32(trailer + 16))
            return true;
    }
    return false;
}

/* What is stored in the damaged entry may show; all other keys are as ever, and each sum is right. */
static void expect_stored_may_show(void **state, struct oracle *oracle, const struct bytes *file, uint64_t damaged)
{
    const char *path = temp_path(state, "read");
    rd_iter *iter = NULL;
    rd_entry entry = {0};
    oracle_allow(oracle, damaged, (rd_span){0}, MAY_ABSENT | MAY_DAMAGED);
    file_save(path, file->data, file->len);
    rd_store *store = store_open_ok(path, &open_reading);
    oracle_check_keys(oracle, store);
    EXPECT(rd_iter_create(store, &iter) == RD_OK, "%s", oracle->label);
    for (rd_err err = rd_iter_next(iter, &entry); err != RD_ABSENT; err = rd_iter_next(iter, &entry))
        EXPECT(err == RD_E_DAMAGED || sum_crc32(entry.payload.data, entry.payload.len) == entry.meta.checksum, "%s",
               oracle->label);
    rd_iter_destroy(iter);
    rd_store_close(store);
    file_expect(path, file->data, file->len, oracle->label);
}

/* Returns whether an exception of the format applied: a flip that turns a stored entry's link into a true offset. */
static bool try_flip(void **state, struct oracle *oracle, const struct bytes *flipped, uint64_t offset, int bit)
{
    struct truth *truth = oracle_truth_at(oracle, offset);
    oracle_reset(oracle);
    truth->fate = fate_of_flip(truth, offset);
    if (oracle->truth_count == 1 && truth->fate != WHOLE && truth->fate != NAMELESS) {
        expect_no_store(state, oracle, flipped); /* it was the only entry */
        return false;
    }
    oracle_answer(oracle);
    if (truth->fate == NAMELESS) /* a flipped hash shows its entry under another key (E-14) */
        oracle_allow(oracle, load_le64(flipped->data + truth->trailer_off), truth_value(oracle, truth),
                     truth->tombstone ? MAY_ABSENT : MAY_VALUE);
    const struct bytes whole = {.data = (uint8_t *)(uintptr_t)oracle->file, .len = flipped->len};
    if (truth->fate == HIT && stored_entry_holds(flipped, truth, offset) &&
        !stored_entry_holds(&whole, truth, offset)) {
        expect_stored_may_show(state, oracle, flipped, truth->key_hash);
        return true;
    }
    struct outcome outcome = oracle_try_reading(state, oracle, flipped);
    bool damage = truth->fate == HIT || truth->fate == LINK_HIT;
    EXPECT(outcome.info.damaged_ranges == (damage ? 1 : 0), "%s: %llu ranges", oracle->label,
           (unsigned long long)outcome.info.damaged_ranges);
    EXPECT(outcome.info.unidentified_ranges == 0, "%s", oracle->label);
    EXPECT(outcome.info.tail_off == flipped->len, "%s", oracle->label);
    if (offset % 16 == 0 && bit == (int)(offset / 16 % 8))
        oracle_try_writing(state, oracle, flipped);
    return false;
}

/* ---- Over the fixtures ------------------------------------------------------------------------------------------ */

struct tour {
    void **state;
    size_t seen, exceptions;
};

static void cut_everywhere(void **state, const char *name, const struct bytes *file)
{
    AUTO_ORACLE oracle = oracle_of(file);
    for (uint64_t cut = 0; cut <= file->len; cut += CUT_STEP) {
        snprintf(oracle.label, sizeof oracle.label, "%s cut at %llu", name, (unsigned long long)cut);
        try_cut(state, &oracle, file, cut);
    }
}

/* Flip each `step`-th bit. Returns how often the exception applied. */
static size_t flip_bits(void **state, const char *name, const struct bytes *file, uint64_t step)
{
    size_t exceptions = 0;
    AUTO_ORACLE oracle = oracle_of(file);
    AUTO_BYTES flipped = bytes_copy(file);
    for (uint64_t i = 0; i < 8 * file->len; i += step) {
        uint64_t offset = i / 8;
        int bit = (int)((i + offset) % 8);
        snprintf(oracle.label, sizeof oracle.label, "%s bit %d of %llu", name, bit, (unsigned long long)offset);
        harm_flip(&flipped, offset, bit);
        exceptions += try_flip(state, &oracle, &flipped, offset, bit);
        harm_flip(&flipped, offset, bit);
    }
    return exceptions;
}

static void cut_fixture(const struct fixture *fixture, void *arg)
{
    struct tour *tour = arg;
    if (fixture->file.len > SMALL_MAX)
        return;
    cut_everywhere(tour->state, fixture->name, &fixture->file);
    tour->seen++;
}

static void flip_fixture(const struct fixture *fixture, void *arg)
{
    struct tour *tour = arg;
    if (fixture->file.len > SMALL_MAX)
        return;
    tour->exceptions += flip_bits(tour->state, fixture->name, &fixture->file, BIT_STEP);
    tour->seen++;
}

static bool has_large_payload(const struct bytes *file)
{
    AUTO_ORACLE oracle = oracle_of(file);
    for (size_t i = 0; i < oracle.truth_count; i++)
        if (oracle.truths[i].trailer_off - oracle.truths[i].start_off > 65536)
            return true;
    return false;
}

static void sample_fixture(const struct fixture *fixture, void *arg)
{
    struct tour *tour = arg;
    if (fixture->file.len <= SMALL_MAX || has_large_payload(&fixture->file))
        return;
    flip_bits(tour->state, fixture->name, &fixture->file, BIT_STEP * (8 * fixture->file.len / SAMPLES | 1));
    tour->seen++;
}

static void no_cut_costs_more_than_the_torn_entry(void **state)
{
    struct tour tour = {.state = state};
    fixture_each(cut_fixture, &tour);
    assert_true(tour.seen >= 13);
}

static void no_flipped_bit_costs_more_than_its_entry(void **state)
{
    struct tour tour = {.state = state};
    fixture_each(flip_fixture, &tour);
    assert_true(tour.seen >= 13);
    assert_int_equal(tour.exceptions, 0);
}

static void flipped_bit_of_a_larger_file_costs_no_more_either(void **state)
{
    struct tour tour = {.state = state};
    fixture_each(sample_fixture, &tour);
    assert_true(tour.seen >= 4);
}

/* A store within a store, at an offset above 0: its links mean nothing there. */
static void stored_store_survives_any_cut_around_it(void **state)
{
    AUTO_BYTES file = fixture_load("damaged/n_intact.bin");
    cut_everywhere(state, "n_intact.bin", &file);
}

static void stored_store_shows_nothing_while_no_flip_makes_a_link_of_it_true(void **state)
{
    AUTO_BYTES file = fixture_load("damaged/n_intact.bin");
    size_t exceptions = flip_bits(state, "n_intact.bin", &file, BIT_STEP);
    EXPECT(exceptions <= 18, "%zu exceptions", exceptions); /* one bit of each stored link at most */
}

/* Its links are true offsets, so that only the outer entry tells that they are payload (R-04 a and d). */
static void store_stored_as_the_first_value_hides_no_flipped_bit(void **state)
{
    AUTO_BYTES inner = {0};
    AUTO_BYTES file = {0};
    for (uint64_t i = 0; i < 3; i++) {
        AUTO_BYTES payload = bytes_xorshift(i + 1, 50);
        build_entry(&inner, fill_hash(10 + i), bytes_span(&payload), 64);
    }
    build_tombstone(&inner, fill_hash(11));
    build_entry(&file, fill_hash(0), bytes_span(&inner), 64);
    build_entry(&file, fill_hash(1), text_span("an entry behind it"), 64);
    build_entry(&file, fill_hash(2), text_span("and another"), 64);
    assert_int_equal(flip_bits(state, "a store at 0", &file, BIT_STEP), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(no_cut_costs_more_than_the_torn_entry),
        TEMP_TEST(no_flipped_bit_costs_more_than_its_entry),
        TEMP_TEST(flipped_bit_of_a_larger_file_costs_no_more_either),
        TEMP_TEST(stored_store_survives_any_cut_around_it),
        TEMP_TEST(stored_store_shows_nothing_while_no_flip_makes_a_link_of_it_true),
        TEMP_TEST(store_stored_as_the_first_value_hides_no_flipped_bit),
    };
    return cmocka_run_group_tests_name("recover_flips", tests, NULL, NULL);
}
