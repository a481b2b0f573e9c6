/* one rule a test: each fails where its rule is left out. */
#include "scene.h"

#include <stdlib.h>
#include <string.h>

/* ---- R-04 a ----------------------------------------------------------------------------------------------------- */

static void whole_entry_whose_link_is_lost_is_served_and_reported(void **state)
{
    const uint64_t links[] = {0, 1, 63, 129, UINT64_C(1) << 47, UINT64_C(1) << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        AUTO_SCENE scene = {0};
        uint64_t ends[3];
        scene_build_three(&scene, ends, "R-04a");
        harm_link(&scene.damaged, ends[1], links[i]);
        scene_judge(&scene);
        oracle_allow(&scene.oracle, fill_hash(1), scene_value(&scene, 1), MAY_VALUE);
        struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
        scene_expect_range(&scene, &outcome, RD_DAMAGE_LINK, ends[0], ends[1], fill_hash(1));
        assert_int_equal(outcome.info.entries, 3);
    }
}

/* The links inside a store that is the first value are true offsets: only the CRC from 0 tells the outer entry. */
static void first_value_that_is_a_store_is_served_when_its_own_link_is_lost(void **state)
{
    AUTO_SCENE inner = {0};
    AUTO_SCENE scene = {0};
    for (uint64_t i = 0; i < 3; i++)
        scene_put(&inner, fill_hash(10 + i), 10 + i, 40);
    build_entry(&scene.file, fill_hash(0), bytes_span(&inner.file), 64);
    uint64_t end = scene.file.len;
    scene_put(&scene, fill_hash(1), 1, 50);
    scene_built(&scene, "R-04a from 0");
    harm_link(&scene.damaged, end, UINT64_C(1) << 40);
    scene_judge(&scene);
    oracle_allow(&scene.oracle, fill_hash(0), scene_value(&scene, 0), MAY_VALUE);
    for (uint64_t i = 0; i < 3; i++)
        oracle_allow(&scene.oracle, fill_hash(10 + i), (rd_span){0}, MAY_ABSENT);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_LINK, 0, end, fill_hash(0));
}

/* Nothing proves where the file should end, so a last entry without its link is not served. */
static void last_entry_whose_link_is_lost_is_damaged(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t ends[3];
    scene_build_three(&scene, ends, "R-04a, not proven");
    harm_link(&scene.damaged, ends[2], UINT64_C(1) << 63);
    scene_judge(&scene);
    oracle_allow(&scene.oracle, fill_hash(2), scene_value(&scene, 2), MAY_DAMAGED)->later = MAY_VALUE;
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_ENTRY, ends[1], ends[2], fill_hash(2));
    assert_int_equal(outcome.info.tail_off, scene.file.len);
}

/* ---- R-04 b ----------------------------------------------------------------------------------------------------- */

static void damaged_payload_or_checksum_costs_its_own_key_alone(void **state)
{
    for (size_t which = 0; which < 3; which++) {
        for (uint64_t back = 1; back <= 21; back += 20) { /* the last byte of the CRC, then of the payload */
            AUTO_SCENE scene = {0};
            uint64_t ends[3];
            scene_build_three(&scene, ends, "R-04b");
            harm_flip(&scene.damaged, ends[which] - back, 4);
            scene_judge(&scene);
            struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
            scene_expect_range(&scene, &outcome, RD_DAMAGE_ENTRY, which == 0 ? 0 : ends[which - 1], ends[which],
                               fill_hash(which));
            assert_int_equal(outcome.info.entries, 2);
        }
    }
}

/* Its trailer looks like one beside which zeros were lost (R-04d), but nothing below contradicts its link. */
static void damaged_first_entry_is_told_by_its_link_alone(void **state)
{
    AUTO_SCENE scene = {0};
    const uint64_t key_hash = UINT64_C(0x0011223344556677);
    uint64_t end = scene_put(&scene, key_hash, 1, 100);
    scene_put(&scene, fill_hash(1), 2, 50);
    scene_built(&scene, "R-04b from 0");
    harm_flip(&scene.damaged, 10, 0);
    scene_judge(&scene);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_ENTRY, 0, end, key_hash);
}

/* ---- R-04 c ----------------------------------------------------------------------------------------------------- */

/* A payload may hold an entry with true offsets. While the payload is whole it hides it; damaged, R-04c does. */
static void entry_inside_a_damaged_payload_stays_payload(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t first = scene_put(&scene, fill_hash(0), 1, 64); /* [0, 84) */
    AUTO_BYTES at_its_place = bytes_xorshift(2, 202);
    AUTO_BYTES false_value = bytes_xorshift(3, 20), filler = bytes_xorshift(4, 30);
    build_entry(&at_its_place, fill_hash(9), bytes_span(&false_value), 64); /* link 202, value at 256 */
    bytes_append(&at_its_place, filler.data, filler.len);
    build_entry(&scene.file, fill_hash(1), (rd_span){at_its_place.data + 128, at_its_place.len - 128}, 64);
    uint64_t second = scene.file.len;
    scene_put(&scene, fill_hash(2), 5, 10);
    scene_built(&scene, "R-04c");
    harm_flip(&scene.damaged, 130, 0);
    scene_judge(&scene);
    oracle_allow(&scene.oracle, fill_hash(9), (rd_span){0}, MAY_ABSENT);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_ENTRY, first, second, fill_hash(1));
}

/* ---- R-04 d ----------------------------------------------------------------------------------------------------- */

/* A store as the first value, under key 0, and one more entry. Returns where the first ends. */
static uint64_t build_nested_first(struct scene *scene, uint64_t key_hash, const char *label)
{
    AUTO_SCENE inner = {0};
    for (uint64_t i = 0; i < 4; i++)
        scene_put(&inner, fill_hash(10 + i), 10 + i, 40);
    build_entry(&scene->file, key_hash, bytes_span(&inner.file), 64);
    uint64_t end = scene->file.len;
    scene_put(scene, fill_hash(1), 1, 50);
    scene_built(scene, label);
    return end;
}

static void nothing_of_a_store_that_is_the_first_value_is_served_when_it_is_damaged(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t end = build_nested_first(&scene, fill_hash(0), "R-04d");
    EXPECT(scene.file.data[end - 20 + 7] != 0 && scene.file.data[end - 20 + 16] != 0, "R-04d wants such a trailer");
    for (uint64_t offset = 0; offset < end - TRAILER_LEN; offset += 3) { /* any place, its last entry included */
        harm_flip(&scene.damaged, offset, (int)(offset % 8));
        scene_judge(&scene);
        for (uint64_t i = 0; i < 4; i++)
            oracle_allow(&scene.oracle, fill_hash(10 + i), (rd_span){0}, MAY_ABSENT);
        struct outcome outcome = oracle_try_reading(state, &scene.oracle, &scene.damaged);
        scene_expect_range(&scene, &outcome, RD_DAMAGE_ENTRY, 0, end, fill_hash(0));
        harm_flip(&scene.damaged, offset, (int)(offset % 8));
    }
}

/* An exception of the format: a zero byte beside the link, and a last stored entry that doesn't hold. */
static void zero_beside_the_link_of_a_damaged_first_value_may_show_what_is_stored_in_it(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t end = build_nested_first(&scene, UINT64_C(0x0011223344556677), "R-04d, zero beside the link");
    AUTO_ORACLE stored = {0};
    struct bytes inner = {.data = scene.file.data, .len = end - TRAILER_LEN};
    stored = oracle_of(&inner);
    harm_flip(&scene.damaged, end - 2 * TRAILER_LEN - 1, 3);
    scene_judge(&scene);
    for (size_t i = 0; i < 4; i++)
        oracle_allow(&scene.oracle, fill_hash(10 + i), truth_value(&stored, &stored.truths[i]),
                     i < 3 ? MAY_VALUE | MAY_ABSENT : MAY_ABSENT);
    struct outcome outcome = oracle_try_reading(state, &scene.oracle, &scene.damaged);
    assert_int_equal(outcome.info.damaged_ranges, 1);

    /* With the last stored entry whole, it ends where the outer trailer begins: that tells too. */
    harm_flip(&scene.damaged, end - 2 * TRAILER_LEN - 1, 3);
    harm_flip(&scene.damaged, 10, 3);
    scene_judge(&scene);
    for (size_t i = 0; i < 4; i++)
        oracle_allow(&scene.oracle, fill_hash(10 + i), (rd_span){0}, MAY_ABSENT);
    outcome = oracle_try_reading(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_ENTRY, 0, end, UINT64_C(0x0011223344556677));
}

/* A link of zeros beside more zeros is a lost link, and not that of the first entry. */
static void zeros_over_a_link_and_its_neighbour_cost_no_other_entry(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t ends[3];
    scene_build_three(&scene, ends, "R-04d, link and CRC lost");
    harm_zero(&scene.damaged, ends[1] - 12, ends[1]);
    scene_judge(&scene);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_RANGE, ends[0], ends[1], fill_hash(1));
}

/* With the CRC whole the payload is known to be, but not whose: as with a flipped hash. */
static void value_whose_hash_and_link_are_lost_shows_under_another_key(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t ends[3];
    scene_build_three(&scene, ends, "R-04a, hash and link lost");
    harm_zero(&scene.damaged, ends[1] - TRAILER_LEN, ends[1] - 4);
    scene_judge(&scene);
    oracle_allow(&scene.oracle, 0, scene_value(&scene, 1), MAY_VALUE);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_LINK, ends[0], ends[1], 0);
}

/* Exceptions of the format: without its outer trailer, or torn, a store that is the first value is a store. */
static void store_that_is_the_first_value_shows_once_its_outer_trailer_is_gone(void **state)
{
    for (int torn = 0; torn < 2; torn++) {
        AUTO_SCENE scene = {0};
        uint64_t end = build_nested_first(&scene, fill_hash(0), torn ? "torn around a store" : "trailer lost");
        struct bytes inner = {.data = scene.file.data, .len = end - TRAILER_LEN};
        AUTO_ORACLE stored = oracle_of(&inner);
        if (torn)
            scene.damaged.len = end - 1;
        else
            harm_zero(&scene.damaged, end - TRAILER_LEN, end);
        scene_judge(&scene);
        for (size_t i = 0; i < 4; i++)
            oracle_allow(&scene.oracle, fill_hash(10 + i), truth_value(&stored, &stored.truths[i]), MAY_VALUE);
        struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
        assert_int_equal(outcome.info.unidentified_ranges, torn ? 0 : 1);
        assert_int_equal(outcome.info.unread_bytes, torn ? 19 : 0);
    }
}

/* ---- R-04 e ----------------------------------------------------------------------------------------------------- */

static void lost_trailer_costs_an_entry_that_nobody_can_name(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t ends[3];
    scene_build_three(&scene, ends, "R-04e, zeros");
    harm_zero(&scene.damaged, ends[1] - TRAILER_LEN, ends[1]);
    scene_judge(&scene);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_UNIDENTIFIED, ends[0], ends[1], 0);
}

static void trailer_of_noise_names_a_key_and_hides_others(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t ends[3];
    scene_build_three(&scene, ends, "R-04e, noise");
    AUTO_BYTES noise = bytes_xorshift(77, TRAILER_LEN);
    memcpy(scene.damaged.data + ends[1] - TRAILER_LEN, noise.data, TRAILER_LEN);
    scene_judge(&scene);
    oracle_allow(&scene.oracle, load_le64(noise.data), (rd_span){0}, MAY_DAMAGED);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_RANGE, ends[0], ends[1], load_le64(noise.data));
}

static void damaged_entry_behind_a_lost_trailer_hides_a_key(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t ends[4];
    for (uint64_t i = 0; i < 4; i++)
        ends[i] = scene_put(&scene, fill_hash(i), i + 1, 90);
    scene_built(&scene, "R-04e, two neighbours");
    harm_zero(&scene.damaged, ends[1] - TRAILER_LEN, ends[1]);
    harm_flip(&scene.damaged, ends[2] - 30, 1);
    scene_judge(&scene);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_RANGE, ends[0], ends[2], fill_hash(2));
}

/* Their trailers lead from one to the next, so that each names its key. */
static void damaged_neighbours_are_each_named(void **state)
{
    for (uint64_t first = 1; first < 5; first++) {
        for (uint64_t last = first + 1; last < 6; last++) { /* 5 is the file's last */
            AUTO_SCENE scene = {0};
            uint64_t ends[6];
            for (uint64_t i = 0; i < 6; i++)
                ends[i] = scene_put(&scene, fill_hash(i), i + 1, 90);
            scene_built(&scene, "neighbours");
            for (uint64_t i = first; i <= last; i++)
                harm_flip(&scene.damaged, ends[i] - 30, 1);
            scene_judge(&scene);
            struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
            assert_int_equal(outcome.info.damaged_ranges, last - first + 1);
            assert_int_equal(outcome.info.unidentified_ranges, 0);
            for (uint64_t i = first; i <= last; i++) {
                assert_int_equal(outcome.ranges[last - i].key_hash, fill_hash(i));
                assert_int_equal(outcome.ranges[last - i].offset, ends[i - 1]);
            }
        }
    }
}

/* ---- R-04 f ----------------------------------------------------------------------------------------------------- */

static void bytes_that_no_entry_claims_are_a_torn_tail(void **state)
{
    const size_t lens[] = {1, 19, 20, 21, 40, 100, 5000, 70000};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        for (int fill = 0; fill < 3; fill++) {
            AUTO_SCENE scene = {0};
            uint64_t ends[3];
            scene_build_three(&scene, ends, "R-04f");
            AUTO_BYTES tail = bytes_xorshift(5, lens[i]);
            if (fill > 0)
                memset(tail.data, fill == 1 ? 0 : 0xff, tail.len);
            bytes_append(&scene.damaged, tail.data, tail.len);
            scene_judge(&scene);
            struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
            assert_int_equal(outcome.info.damaged_ranges, 0);
            assert_int_equal(outcome.info.unread_bytes, lens[i]);
        }
    }
}

static void last_entry_that_links_above_what_holds_is_damaged_and_not_torn(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t ends[3];
    scene_build_three(&scene, ends, "R-04f, damaged");
    harm_zero(&scene.damaged, ends[1] - TRAILER_LEN, ends[1]);
    harm_flip(&scene.damaged, ends[2] - 30, 1);
    scene_judge(&scene);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    assert_int_equal(outcome.info.unread_bytes, 0);
    assert_int_equal(outcome.info.damaged_ranges, 1);
    assert_int_equal(outcome.ranges[0].offset, ends[0]);
    assert_int_equal(outcome.ranges[0].key_hash, fill_hash(2));
}

/* ---- R-05, R-06 ------------------------------------------------------------------------------------------------- */

static void file_in_which_nothing_holds_is_no_store(void **state)
{
    AUTO_SCENE scene = {0};
    scene_put(&scene, fill_hash(0), 1, 100);
    scene_built(&scene, "R-05");
    harm_flip(&scene.damaged, 50, 0);
    const char *path = temp_path(state, "s");
    file_save(path, scene.damaged.data, scene.damaged.len);
    store_open_fails(path, &open_reading, RD_E_NOT_STORE);
    store_open_fails(path, &open_writing, RD_E_NOT_STORE);
    file_expect(path, scene.damaged.data, scene.damaged.len, "R-05");
}

/* Where in the newer of two versions the damage lies, counted back from its end; the link is served, R-04a. */
static void older_version_never_stands_in_for_a_damaged_newer_one(void **state)
{
    const uint64_t backs[] = {1, 4, 21, 5, 12};
    for (size_t i = 0; i < sizeof backs / sizeof *backs; i++) {
        AUTO_SCENE scene = {0};
        scene_put(&scene, fill_hash(0), 1, 50);
        scene_put(&scene, fill_hash(1), 2, 50);
        uint64_t newer = scene_put(&scene, fill_hash(0), 3, 50);
        scene_put(&scene, fill_hash(2), 4, 50);
        scene_built(&scene, "R-06");
        harm_flip(&scene.damaged, newer - backs[i], 6);
        scene_judge(&scene);
        bool link = backs[i] == 5 || backs[i] == 12;
        if (link)
            oracle_allow(&scene.oracle, fill_hash(0), scene_value(&scene, 2), MAY_VALUE);
        struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
        assert_int_equal(outcome.info.damaged_entries, link ? 0 : 1);
    }
}

static void damaged_older_version_doesnt_touch_the_newer_one(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t older = scene_put(&scene, fill_hash(0), 1, 50);
    scene_put(&scene, fill_hash(1), 2, 50);
    scene_put(&scene, fill_hash(0), 3, 50);
    scene_put_tombstone(&scene, fill_hash(1));
    scene_built(&scene, "R-06, older");
    harm_flip(&scene.damaged, older - 30, 6);
    scene_judge(&scene);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    assert_int_equal(outcome.info.damaged_entries, 0);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_ENTRY, 0, older, fill_hash(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(whole_entry_whose_link_is_lost_is_served_and_reported),
        TEMP_TEST(first_value_that_is_a_store_is_served_when_its_own_link_is_lost),
        TEMP_TEST(last_entry_whose_link_is_lost_is_damaged),
        TEMP_TEST(damaged_payload_or_checksum_costs_its_own_key_alone),
        TEMP_TEST(damaged_first_entry_is_told_by_its_link_alone),
        TEMP_TEST(entry_inside_a_damaged_payload_stays_payload),
        TEMP_TEST(nothing_of_a_store_that_is_the_first_value_is_served_when_it_is_damaged),
        TEMP_TEST(zero_beside_the_link_of_a_damaged_first_value_may_show_what_is_stored_in_it),
        TEMP_TEST(store_that_is_the_first_value_shows_once_its_outer_trailer_is_gone),
        TEMP_TEST(zeros_over_a_link_and_its_neighbour_cost_no_other_entry),
        TEMP_TEST(value_whose_hash_and_link_are_lost_shows_under_another_key),
        TEMP_TEST(lost_trailer_costs_an_entry_that_nobody_can_name),
        TEMP_TEST(trailer_of_noise_names_a_key_and_hides_others),
        TEMP_TEST(damaged_entry_behind_a_lost_trailer_hides_a_key),
        TEMP_TEST(damaged_neighbours_are_each_named),
        TEMP_TEST(bytes_that_no_entry_claims_are_a_torn_tail),
        TEMP_TEST(last_entry_that_links_above_what_holds_is_damaged_and_not_torn),
        TEMP_TEST(file_in_which_nothing_holds_is_no_store),
        TEMP_TEST(older_version_never_stands_in_for_a_damaged_newer_one),
        TEMP_TEST(damaged_older_version_doesnt_touch_the_newer_one),
    };
    return cmocka_run_group_tests_name("recover_rules", tests, NULL, NULL);
}
