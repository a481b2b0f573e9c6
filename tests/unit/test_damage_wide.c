/* Damage of many bytes: lost sectors, lost links, mixtures; healing; more ranges than are listed. */
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* `count` entries of keys 0, 1, 2, …, each its own payload of `len` bytes. */
static struct bytes build_many(uint64_t count, size_t len)
{
    struct bytes file = {0};
    for (uint64_t i = 0; i < count; i++) {
        AUTO_BYTES payload = bytes_xorshift(i + 1, len);
        build_entry(&file, fill_hash(i), bytes_span(&payload), 64);
    }
    return file;
}

static void label(struct oracle *oracle, const char *text)
{
    snprintf(oracle->label, sizeof oracle->label, "%s", text);
}

/* Beside what differs: keys of lost ranges may be damaged, or absent where nothing names them. */
static void allow_lost(struct oracle *oracle)
{
    for (size_t i = 0; i < oracle->truth_count; i++)
        if (oracle->truths[i].fate != WHOLE && oracle->truths[i].fate != LINK_HIT)
            oracle_allow(oracle, oracle->truths[i].key_hash, (rd_span){0}, MAY_ABSENT | MAY_DAMAGED);
}

/* A trailer that was half lost names a key that never was. */
static void allow_half_names(struct oracle *oracle, const struct bytes *damaged)
{
    for (size_t i = 0; i < oracle->truth_count; i++) {
        uint64_t half = load_le64(damaged->data + oracle->truths[i].trailer_off);
        if (oracle->truths[i].fate == NAMELESS)
            oracle_allow(oracle, half, (rd_span){0}, MAY_ABSENT | MAY_DAMAGED);
    }
}

/* ---- Lost sectors ----------------------------------------------------------------------------------------------- */

static void lost_sectors_cost_only_what_lay_in_them(void **state)
{
    AUTO_BYTES file = build_many(60, 100);
    AUTO_ORACLE oracle = oracle_of(&file);
    const uint64_t seconds[] = {512, 1024, 2048, 3072, 7168 - 512};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        for (uint64_t first = 0; first < 2048; first += 512) {
            AUTO_BYTES damaged = bytes_copy(&file);
            harm_zero(&damaged, first, first + 512);
            harm_zero(&damaged, seconds[i], seconds[i] + 512);
            oracle_compare(&oracle, &damaged);
            oracle_answer(&oracle);
            allow_lost(&oracle);
            allow_half_names(&oracle, &damaged);
            snprintf(oracle.label, sizeof oracle.label, "sectors %llu and %llu", (unsigned long long)first,
                     (unsigned long long)seconds[i]);
            struct outcome outcome = oracle_try(state, &oracle, &damaged);
            EXPECT(outcome.info.unidentified_ranges >= 1, "%s", oracle.label);
        }
    }
}

/* Bytes of another file in a sector's place. */
static void strange_sectors_cost_only_what_lay_in_them(void **state)
{
    AUTO_BYTES file = build_many(60, 100);
    AUTO_ORACLE oracle = oracle_of(&file);
    for (uint64_t at = 0; at + 1024 < file.len; at += 512) {
        AUTO_BYTES damaged = bytes_copy(&file);
        AUTO_BYTES noise = bytes_xorshift(at + 3, 512);
        memcpy(damaged.data + at, noise.data, noise.len);
        oracle_compare(&oracle, &damaged);
        oracle_answer(&oracle);
        allow_lost(&oracle);
        allow_half_names(&oracle, &damaged);
        snprintf(oracle.label, sizeof oracle.label, "noise at %llu", (unsigned long long)at);
        oracle_try(state, &oracle, &damaged);
    }
}

/* A sector may end or begin inside a trailer: half of it says nothing that costs another entry (R-04 d above all). */
static void sector_that_is_lost_up_to_the_middle_of_a_trailer_costs_no_other_entry(void **state)
{
    for (uint64_t part = 1; part < TRAILER_LEN; part++) { /* of the trailer lies below 1024 */
        AUTO_BYTES file = build_many(5, 100);
        AUTO_BYTES payload = bytes_xorshift(99, 1024 - part - 640);
        build_entry(&file, fill_hash(99), bytes_span(&payload), 64);
        for (uint64_t i = 5; i < 12; i++) {
            AUTO_BYTES more = bytes_xorshift(i + 1, 100);
            build_entry(&file, fill_hash(i), bytes_span(&more), 64);
        }
        AUTO_ORACLE oracle = oracle_of(&file);
        assert_int_equal(oracle.truths[5].trailer_off, 1024 - part);
        for (uint64_t sector = 512; sector <= 1024; sector += 512) {
            AUTO_BYTES damaged = bytes_copy(&file);
            harm_zero(&damaged, sector, sector + 512);
            oracle_compare(&oracle, &damaged);
            oracle_answer(&oracle);
            allow_lost(&oracle);
            allow_half_names(&oracle, &damaged);
            snprintf(oracle.label, sizeof oracle.label, "sector %llu, %llu bytes of a trailer",
                     (unsigned long long)sector, (unsigned long long)part);
            oracle_try(state, &oracle, &damaged);
        }
    }
}

/* ---- Links ------------------------------------------------------------------------------------------------------ */

/* Each payload's CRC still tells where its entry begins (R-04a); 100 of the ranges are listed, all are counted. */
static void no_value_is_lost_with_every_second_link(void **state)
{
    AUTO_BYTES file = build_many(301, 40);
    AUTO_BYTES damaged = bytes_copy(&file);
    AUTO_ORACLE oracle = oracle_of(&file);
    label(&oracle, "every second link zeroed");
    for (size_t i = 1; i < 300; i += 2)
        harm_link(&damaged, truth_end(&oracle.truths[i]), 0);
    oracle_compare(&oracle, &damaged);
    oracle_answer(&oracle);
    for (size_t i = 1; i < 300; i += 2)
        oracle_allow(&oracle, fill_hash(i), truth_value(&oracle, &oracle.truths[i]), MAY_VALUE);
    struct outcome outcome = oracle_try(state, &oracle, &damaged);
    assert_int_equal(outcome.info.entries, 301);
    assert_int_equal(outcome.info.damaged_ranges, 150);
    assert_int_equal(outcome.range_count, 100);
    for (size_t i = 0; i < outcome.range_count; i++) { /* the latest come first */
        const struct truth *truth = &oracle.truths[299 - 2 * i];
        assert_int_equal(outcome.ranges[i].key_hash, truth->key_hash);
        assert_int_equal(outcome.ranges[i].offset + outcome.ranges[i].size, truth_end(truth));
        assert_int_equal(outcome.ranges[i].kind, RD_DAMAGE_LINK);
    }
    assert_int_equal(outcome.info.unidentified_ranges, 0);
}

/* ---- Many ranges ------------------------------------------------------------------------------------------------ */

static void every_second_payload_may_be_damaged(void **state)
{
    AUTO_BYTES file = build_many(301, 40);
    AUTO_BYTES damaged = bytes_copy(&file);
    AUTO_ORACLE oracle = oracle_of(&file);
    label(&oracle, "every second payload damaged");
    for (size_t i = 1; i < 300; i += 2)
        harm_flip(&damaged, oracle.truths[i].start_off + i % 40, (int)(i % 8));
    oracle_compare(&oracle, &damaged);
    oracle_answer(&oracle);
    struct outcome outcome = oracle_try(state, &oracle, &damaged);
    assert_int_equal(outcome.info.damaged_ranges, 150);
    assert_int_equal(outcome.info.damaged_entries, 150);
    assert_int_equal(outcome.range_count, 100);
}

static void a_caller_gets_no_more_ranges_than_it_asks_for(void **state)
{
    AUTO_BYTES file = build_many(10, 40);
    AUTO_ORACLE oracle = oracle_of(&file);
    const char *path = temp_path(state, "s");
    for (size_t i = 0; i < 9; i += 2)
        harm_flip(&file, oracle.truths[i].start_off, 0);
    file_save(path, file.data, file.len);
    rd_store *store = store_open_ok(path, &open_reading);
    rd_range ranges[5] = {{.offset = 77}, {.offset = 77}, {.offset = 77}, {.offset = 77}, {.offset = 77}};
    assert_int_equal(rd_store_damage(store, ranges, 0), 0);
    assert_int_equal(ranges[0].offset, 77);
    assert_int_equal(rd_store_damage(store, ranges, 3), 3);
    assert_int_equal(ranges[3].offset, 77);
    assert_int_equal(rd_store_damage(store, ranges, 5), 5);
    assert_int_equal(ranges[4].offset, 0);
    rd_store_close(store);
}

/* ---- Mixtures --------------------------------------------------------------------------------------------------- */

static void damage_in_the_middle_stays_while_a_torn_tail_goes(void **state)
{
    AUTO_BYTES file = build_many(12, 100);
    AUTO_ORACLE oracle = oracle_of(&file);
    for (uint64_t cut = file.len - 119; cut < file.len; cut += 7) {
        AUTO_BYTES damaged = bytes_copy(&file);
        damaged.len = cut;
        harm_flip(&damaged, oracle.truths[4].start_off + 5, 2);
        harm_link(&damaged, truth_end(&oracle.truths[7]), UINT64_C(1) << 50);
        oracle_compare(&oracle, &damaged);
        oracle_answer(&oracle);
        snprintf(oracle.label, sizeof oracle.label, "middle and tail, %llu", (unsigned long long)cut);
        struct outcome outcome = oracle_try(state, &oracle, &damaged);
        assert_int_equal(outcome.info.tail_off, truth_end(&oracle.truths[10]));
        assert_int_equal(outcome.info.damaged_ranges, 2);
        assert_int_equal(outcome.info.damaged_entries, 1);
    }
}

/* ---- Healing ---------------------------------------------------------------------------------------------------- */

static void expect_counts(rd_store *store, uint64_t live, uint64_t damaged)
{
    rd_store_info info = store_info(store);
    assert_int_equal(rd_store_len(store), live);
    assert_int_equal(info.live_keys, live);
    assert_int_equal(info.damaged_entries, damaged);
}

static void writing_and_deleting_heal_and_renaming_doesnt(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES file = build_many(5, 100);
    AUTO_ORACLE oracle = oracle_of(&file);
    harm_flip(&file, oracle.truths[1].start_off, 0);
    harm_flip(&file, oracle.truths[3].start_off, 0);
    file_save(path, file.data, file.len);
    rd_store *store = store_open_ok(path, &open_writing);
    rd_written done = {0};
    expect_counts(store, 3, 2);
    assert_int_equal(rd_store_rename_hash(store, fill_hash(1), fill_hash(9), &done), RD_E_DAMAGED);
    assert_int_equal(store_info(store).tail_off, file.len); /* nothing was written */
    expect_counts(store, 3, 2);
    assert_int_equal(rd_store_write_hash(store, fill_hash(1), text_span("healed"), &done), RD_OK);
    expect_counts(store, 4, 1);
    store_expect(store, fill_hash(1), "healed", 6);
    uint64_t damaged = fill_hash(3);
    assert_int_equal(rd_store_batch_delete(store, &damaged, 1, &done), RD_OK);
    assert_int_equal(done.deleted_count, 1); /* F-14: it was not absent */
    expect_counts(store, 4, 0);
    store_expect_absent(store, damaged);
    assert_int_equal(store_info(store).damaged_ranges, 2); /* the bytes stay damaged */
    rd_store_close(store);

    store = store_open_ok(path, &open_reading);
    expect_counts(store, 4, 0);
    store_expect(store, fill_hash(1), "healed", 6);
    store_expect_absent(store, damaged);
    assert_int_equal(store_info(store).damaged_ranges, 2);
    rd_store_close(store);
}

static void renaming_onto_a_damaged_key_heals_it(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES file = build_many(3, 100);
    AUTO_BYTES value = bytes_xorshift(1, 100);
    AUTO_ORACLE oracle = oracle_of(&file);
    harm_flip(&file, oracle.truths[1].start_off, 0);
    file_save(path, file.data, file.len);
    rd_store *store = store_open_ok(path, &open_writing);
    rd_written done = {0};
    assert_int_equal(rd_store_rename_hash(store, fill_hash(0), fill_hash(1), &done), RD_OK);
    store_expect(store, fill_hash(1), value.data, value.len);
    store_expect_absent(store, fill_hash(0));
    expect_counts(store, 2, 0);
    rd_store_close(store);
}

static void copying_a_damaged_key_writes_nothing(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES file = build_many(3, 100);
    AUTO_ORACLE oracle = oracle_of(&file);
    harm_flip(&file, oracle.truths[1].start_off, 0);
    file_save(path, file.data, file.len);
    rd_store *store = store_open_ok(path, &open_writing), *target = store_make(state, "t");
    rd_written done = {0};
    assert_int_equal(rd_store_copy_hash(store, fill_hash(1), target, &done), RD_E_DAMAGED);
    assert_int_equal(rd_store_move_hash(store, fill_hash(1), target, &done), RD_E_DAMAGED);
    assert_int_equal(store_info(target).tail_off, 0);
    assert_int_equal(store_info(store).tail_off, file.len);
    rd_store_close(target);
    rd_store_close(store);
}

static void last_entry_that_is_damaged_is_no_older_one(void **state)
{
    const char *path = temp_path(state, "s");
    AUTO_BYTES file = build_many(3, 100);
    AUTO_ORACLE oracle = oracle_of(&file);
    harm_flip(&file, oracle.truths[2].start_off, 0);
    file_save(path, file.data, file.len);
    rd_store *store = store_open_ok(path, &open_reading);
    rd_entry entry = {0};
    assert_int_equal(rd_store_read_last(store, &entry), RD_E_DAMAGED);
    assert_null(entry.pin);
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(lost_sectors_cost_only_what_lay_in_them),
        TEMP_TEST(strange_sectors_cost_only_what_lay_in_them),
        TEMP_TEST(sector_that_is_lost_up_to_the_middle_of_a_trailer_costs_no_other_entry),
        TEMP_TEST(no_value_is_lost_with_every_second_link),
        TEMP_TEST(every_second_payload_may_be_damaged),
        TEMP_TEST(a_caller_gets_no_more_ranges_than_it_asks_for),
        TEMP_TEST(damage_in_the_middle_stays_while_a_torn_tail_goes),
        TEMP_TEST(writing_and_deleting_heal_and_renaming_doesnt),
        TEMP_TEST(renaming_onto_a_damaged_key_heals_it),
        TEMP_TEST(copying_a_damaged_key_writes_nothing),
        TEMP_TEST(last_entry_that_is_damaged_is_no_older_one),
    };
    return cmocka_run_group_tests_name("damage_wide", tests, NULL, NULL);
}
