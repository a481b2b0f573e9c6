/* a link that is wrong by less than a pad, where deletions and noise make it hard to tell. */
#include "scene.h"

#include <stdlib.h>
#include <string.h>

/* Every wrong link with the same start: the payload holds, so only the chain below could get lost. */
static void link_that_is_wrong_by_less_than_its_pad_hides_nothing(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t ends[3];
    scene_put(&scene, fill_hash(5), 9, 200);
    scene_build_three(&scene, ends, "R-02");
    uint64_t start = (ends[1] + 63) & ~UINT64_C(63);
    for (uint64_t link = start - 63; link <= start; link++) {
        if (link == ends[1] || link == ends[1] + 21 || link == ends[1] + 42 || link == ends[1] + 63)
            continue;
        harm_link(&scene.damaged, ends[2], link);
        scene_judge(&scene);
        oracle_allow(&scene.oracle, fill_hash(2), scene_value(&scene, 3), MAY_VALUE);
        struct outcome outcome = oracle_try_reading(state, &scene.oracle, &scene.damaged);
        scene_expect_range(&scene, &outcome, RD_DAMAGE_LINK, ends[1], ends[2], fill_hash(2));
        if (link % 8 == 0)
            oracle_try_writing(state, &scene.oracle, &scene.damaged);
    }
}

/* What isn't zero between the entry below and where a link leads is no pad: it is counted, and hides nothing. */
static void link_behind_noise_hides_nothing_and_the_noise_is_counted(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t ends[3];
    scene_build_three(&scene, ends, "R-02, a pad of noise");
    AUTO_BYTES noise = bytes_xorshift(6, 30);
    memcpy(scene.damaged.data + ends[1], noise.data, noise.len);
    for (uint64_t link = ends[1] + 1; link <= ends[1] + 30; link++) {
        harm_link(&scene.damaged, ends[2], link);
        scene_judge(&scene);
        oracle_allow(&scene.oracle, fill_hash(2), scene_value(&scene, 2), MAY_VALUE);
        bool named = link >= ends[1] + TRAILER_LEN; /* there is room for a trailer, whose hash is noise */
        uint64_t key_hash = named ? load_le64(scene.damaged.data + link - TRAILER_LEN) : 0;
        if (named)
            oracle_allow(&scene.oracle, key_hash, (rd_span){0}, MAY_DAMAGED);
        struct outcome outcome = oracle_try_reading(state, &scene.oracle, &scene.damaged);
        scene_expect_range(&scene, &outcome, named ? RD_DAMAGE_RANGE : RD_DAMAGE_UNIDENTIFIED, ends[1], link, key_hash);
    }
}

/* Four bytes behind these that make the CRC of all of them `want`. */
static void append_until_crc_is(struct bytes *bytes, uint32_t want)
{
    uint32_t back = ~want;
    for (int bit = 0; bit < 32; bit++)
        back = back & UINT32_C(0x80000000) ? (back ^ UINT32_C(0xedb88320)) << 1 | 1 : back << 1;
    uint32_t patch = back ^ ~sum_crc32(bytes->data, bytes->len);
    uint8_t raw[4] = {(uint8_t)patch, (uint8_t)(patch >> 8), (uint8_t)(patch >> 16), (uint8_t)(patch >> 24)};
    bytes_append(bytes, raw, sizeof raw);
    assert_int_equal(sum_crc32(bytes->data, bytes->len), want);
}

/* Eight bytes into the pad, the CRC of the entry below stands where a link is looked for: here it is a true one. */
static void link_into_a_pad_is_mended_before_any_trailer_is_asked_there(void **state)
{
    AUTO_SCENE scene = {0};
    scene_put(&scene, fill_hash(0), 1, 100);
    AUTO_BYTES payload = bytes_xorshift(2, 96);
    append_until_crc_is(&payload, 128 + 100 + 20);
    build_entry(&scene.file, fill_hash(1), bytes_span(&payload), 64);
    uint64_t below = scene.file.len;
    assert_int_equal(below, 128 + 100 + 20);
    uint64_t end = scene_put(&scene, fill_hash(2), 3, 50);
    scene_put(&scene, fill_hash(3), 4, 50);
    scene_built(&scene, "R-02 before R-04");
    harm_link(&scene.damaged, end, below + 8);
    scene_judge(&scene);
    oracle_allow(&scene.oracle, fill_hash(2), scene_value(&scene, 2), MAY_VALUE);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_LINK, below, end, fill_hash(2));
}

/* A deletion that fits into the next value's pad would be skipped by a link to what lies below it. */
static void deletion_in_a_pad_is_not_skipped_by_a_link_below_it(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t below = scene_put(&scene, fill_hash(0), 1, 64);
    uint64_t deleted = scene_put_tombstone(&scene, fill_hash(0));
    uint64_t end = scene_put(&scene, fill_hash(1), 2, 30);
    scene_put(&scene, fill_hash(2), 3, 30);
    scene_built(&scene, "R-02, a tombstone in the pad");
    harm_link(&scene.damaged, end, below);
    scene_judge(&scene);
    oracle_allow(&scene.oracle, fill_hash(1), scene_value(&scene, 2), MAY_VALUE);
    struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_LINK, deleted, end, fill_hash(1));
    assert_int_equal(outcome.info.entries, 4);
}

/* 21, 42 or 63 bytes with nothing that holds in them: deletions were lost, and not the link. */
static void lost_deletions_are_not_taken_for_a_damaged_link(void **state)
{
    for (size_t lost = 1; lost <= 3; lost++) {
        AUTO_SCENE scene = {0};
        uint64_t begin = scene_put(&scene, fill_hash(0), 1, 45), end = begin; /* 65: three deletions fit below 128 */
        for (size_t i = 0; i < lost; i++)
            end = scene_put_tombstone(&scene, fill_hash(7));
        scene_put(&scene, fill_hash(1), 2, 30);
        scene_built(&scene, "R-02, lost tombstones");
        harm_zero(&scene.damaged, begin, end);
        scene_judge(&scene);
        struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
        scene_expect_range(&scene, &outcome, RD_DAMAGE_UNIDENTIFIED, begin, end, 0);
    }
}

/* A value of key 0, `more` deletions, its own deletion with a damaged CRC, and key 1's value behind these, in whose pad
   they lie, with that link. Returns where the damaged deletion ends; key 1's value ends at `*out_end`. */
static uint64_t build_lost_deletion(struct scene *scene, size_t more, bool proven, uint64_t link, uint64_t *out_end)
{
    scene_put(scene, fill_hash(0), 1, 64);
    for (size_t i = 0; i < more; i++)
        scene_put_tombstone(scene, fill_hash(7));
    uint64_t deleted = scene_put_tombstone(scene, fill_hash(0));
    *out_end = scene_put(scene, fill_hash(1), 2, 30);
    if (proven)
        scene_put(scene, fill_hash(2), 3, 30);
    scene_built(scene, "a lost deletion in the pad");
    harm_flip(&scene->damaged, deleted - 1, 3);
    harm_link(&scene->damaged, *out_end, link);
    scene_judge(scene);
    return deleted;
}

/* With the link behind it gone, a deletion that doesn't hold is asked what it was, whichever rule mends that link. */
static void lost_deletion_in_front_of_a_mended_link_is_named(void **state)
{
    for (size_t more = 0; more <= 1; more++) { /* R-04a where the link leads nowhere; R-02 where it leads too low */
        AUTO_SCENE scene = {0};
        uint64_t end;
        uint64_t deleted = build_lost_deletion(&scene, more, true, more == 0 ? UINT64_C(1) << 50 : 70, &end);
        oracle_allow(&scene.oracle, fill_hash(1), scene_value(&scene, 2 + more), MAY_VALUE);
        struct outcome outcome = oracle_try(state, &scene.oracle, &scene.damaged);
        assert_int_equal(outcome.range_count, 2);
        assert_int_equal(outcome.ranges[0].kind, RD_DAMAGE_LINK);
        assert_int_equal(outcome.ranges[0].offset, deleted);
        assert_int_equal(outcome.ranges[0].offset + outcome.ranges[0].size, end);
        assert_int_equal(outcome.ranges[1].kind, RD_DAMAGE_ENTRY);
        assert_int_equal(outcome.ranges[1].offset, deleted - 21);
        assert_int_equal(outcome.ranges[1].size, 21);
        assert_int_equal(outcome.ranges[1].key_hash, fill_hash(0));
    }
}

/* R-04a at the end of the file serves nothing, and says that something else was there. */
static void lost_deletion_in_front_of_a_last_entry_with_a_damaged_link_is_counted(void **state)
{
    AUTO_SCENE scene = {0};
    uint64_t end;
    uint64_t deleted = build_lost_deletion(&scene, 0, false, UINT64_C(1) << 50, &end);
    oracle_allow(&scene.oracle, fill_hash(0), scene_value(&scene, 0), MAY_VALUE);
    struct outcome outcome = oracle_try_reading(state, &scene.oracle, &scene.damaged);
    scene_expect_range(&scene, &outcome, RD_DAMAGE_RANGE, deleted - 21, end, fill_hash(1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(link_that_is_wrong_by_less_than_its_pad_hides_nothing),
        TEMP_TEST(link_behind_noise_hides_nothing_and_the_noise_is_counted),
        TEMP_TEST(link_into_a_pad_is_mended_before_any_trailer_is_asked_there),
        TEMP_TEST(deletion_in_a_pad_is_not_skipped_by_a_link_below_it),
        TEMP_TEST(lost_deletions_are_not_taken_for_a_damaged_link),
        TEMP_TEST(lost_deletion_in_front_of_a_mended_link_is_named),
        TEMP_TEST(lost_deletion_in_front_of_a_last_entry_with_a_damaged_link_is_counted),
    };
    return cmocka_run_group_tests_name("recover_links", tests, NULL, NULL);
}
