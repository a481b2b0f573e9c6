/* Files of versions up to 0.14, which align to 16 or not at all, are refused (E-13), and those that only look so
 * aren't. */
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t alignments[] = {16, 1};

/* A file as an older version wrote it; the payloads' lengths make it read differently under 64. */
static struct bytes build_old(size_t count, size_t alignment)
{
    struct bytes file = {0};
    for (size_t i = 0; i < count; i++) {
        AUTO_BYTES payload = bytes_xorshift(i + 1, 7 + 5 * i);
        build_entry(&file, fill_hash(i), bytes_span(&payload), alignment);
    }
    return file;
}

static void expect_refused(void **state, const struct bytes *file, const char *what)
{
    const char *path = temp_path(state, "s");
    file_save(path, file->data, file->len);
    store_open_fails(path, &open_reading, RD_E_ALIGNMENT);
    store_open_fails(path, &open_writing, RD_E_ALIGNMENT);
    file_expect(path, file->data, file->len, what);
    EXPECT(temp_count(state) == 1, "%s: a file appeared", what);
}

static void whole_file_of_another_alignment_is_refused(void **state)
{
    for (size_t a = 0; a < 2; a++) {
        for (size_t count = 2; count <= 20; count++) {
            AUTO_BYTES file = build_old(count, alignments[a]);
            expect_refused(state, &file, "whole");
        }
    }
}

static void torn_file_of_another_alignment_is_refused(void **state)
{
    for (size_t a = 0; a < 2; a++) {
        AUTO_BYTES file = build_old(12, alignments[a]);
        size_t whole = file.len;
        for (size_t cut = 1; cut < 80; cut++) { /* the newest entry at least */
            file.len = whole - cut;
            expect_refused(state, &file, "torn");
        }
    }
}

static void damaged_file_of_another_alignment_is_refused(void **state)
{
    for (size_t a = 0; a < 2; a++) {
        AUTO_BYTES file = build_old(12, alignments[a]);
        for (size_t back = 1; back < file.len / 2; back += 3) {
            harm_flip(&file, file.len - back, (int)(back % 8));
            expect_refused(state, &file, "damaged");
            harm_flip(&file, file.len - back, (int)(back % 8));
        }
    }
}

static void file_that_reads_the_same_under_both_alignments_is_served(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES payload = bytes_xorshift(3, 44); /* with its trailer 64 bytes: the next needs no pad */
    for (size_t a = 0; a < 2; a++) {
        struct bytes file = {0};
        for (uint64_t i = 0; i < 5; i++)
            build_entry(&file, i, bytes_span(&payload), alignments[a]);
        file_save(path, file.data, file.len);
        rd_store *store = store_open_ok(path, &open_reading);
        assert_int_equal(rd_store_len(store), 5);
        store_expect(store, 4, payload.data, payload.len);
        rd_store_close(store);
        bytes_free(&file);
    }
}

/* What is stored is the caller's business: a backup of an old file is no old file. */
static void damage_behind_an_old_file_that_is_stored_as_a_value_refuses_nothing(void **state)
{
    for (size_t a = 0; a < 2; a++) {
        AUTO_BYTES old = build_old(12, alignments[a]);
        AUTO_BYTES file = {0};
        build_entry(&file, fill_hash(100), bytes_span(&old), 64);
        for (uint64_t i = 0; i < 4; i++) {
            AUTO_BYTES payload = bytes_xorshift(50 + i, 60);
            build_entry(&file, fill_hash(200 + i), bytes_span(&payload), 64);
        }
        AUTO_ORACLE oracle = oracle_of(&file);
        for (size_t which = 0; which < 5; which++) {
            for (uint64_t back = 1; back <= 21; back += 4) {
                if (back > 12 && back <= 20)
                    continue; /* a flipped hash is another matter */
                AUTO_BYTES damaged = bytes_copy(&file);
                harm_flip(&damaged, truth_end(&oracle.truths[which]) - back, 5);
                oracle_compare(&oracle, &damaged);
                oracle_answer(&oracle);
                snprintf(oracle.label, sizeof oracle.label, "an old file in entry 0, damage in %zu at -%llu", which,
                         (unsigned long long)back);
                oracle_try(state, &oracle, &damaged);
            }
        }
    }
}

static void torn_tail_behind_an_old_file_that_is_stored_as_a_value_refuses_nothing(void **state)
{
    for (size_t a = 0; a < 2; a++) {
        AUTO_BYTES old = build_old(12, alignments[a]);
        AUTO_BYTES file = {0};
        build_entry(&file, fill_hash(100), bytes_span(&old), 64);
        build_entry(&file, fill_hash(101), bytes_span(&old), 64);
        AUTO_ORACLE oracle = oracle_of(&file);
        for (size_t cut = truth_end(&oracle.truths[0]) + 1; cut < file.len; cut += 11) {
            AUTO_BYTES torn = bytes_copy(&file);
            torn.len = cut;
            oracle_compare(&oracle, &torn);
            oracle_answer(&oracle);
            snprintf(oracle.label, sizeof oracle.label, "an old file as a value, cut at %zu", cut);
            oracle_try(state, &oracle, &torn);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(whole_file_of_another_alignment_is_refused),
        TEMP_TEST(torn_file_of_another_alignment_is_refused),
        TEMP_TEST(damaged_file_of_another_alignment_is_refused),
        TEMP_TEST(file_that_reads_the_same_under_both_alignments_is_served),
        TEMP_TEST(damage_behind_an_old_file_that_is_stored_as_a_value_refuses_nothing),
        TEMP_TEST(torn_tail_behind_an_old_file_that_is_stored_as_a_value_refuses_nothing),
    };
    return cmocka_run_group_tests_name("damage_alignment", tests, NULL, NULL);
}
