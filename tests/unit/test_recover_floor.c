/* Recovery down to a floor, where an entry is known to end: as a snapshot index needs it. */
#include "recover.h"

#include "oracle.h"
#include "scene.h"

#include <stdlib.h>
#include <string.h>

#define KEYS ((uint64_t)9)

static rd_err recover_above(const struct bytes *file, uint64_t floor_off, struct recovered *out_found)
{
    const struct recover_options options = {.synced_off = SYNCED_UNKNOWN, .floor_off = floor_off};
    uint64_t fault_off;
    return recover(file->data, file->len, &options, &fault_off, out_found);
}

/* Values of all sizes, tombstones among them, keys written again and again. */
static void build(struct scene *scene)
{
    for (uint64_t i = 0; i < 40; i++) {
        size_t len = i % 13 == 5 ? 70000 : (size_t)(i * 37 % 400) + 2;
        if (i % 7 == 3)
            scene_put_tombstone(scene, i % KEYS);
        else
            scene_put(scene, i % KEYS, i + 1, len);
    }
    scene_built(scene, "floor");
}

/* What lies above the floor, by the undamaged file's chain. */
static void expect_above(const struct scene *scene, uint64_t floor_off, uint64_t tail_off, struct recovered *found)
{
    uint64_t entries = 0, live = 0, bytes = 0;
    bool seen[KEYS] = {false};
    for (size_t i = scene->oracle.truth_count; i-- > 0;) {
        const struct truth *truth = &scene->oracle.truths[i];
        if (truth_end(truth) > tail_off || truth_end(truth) <= floor_off)
            continue;
        entries++;
        if (seen[truth->key_hash])
            continue;
        seen[truth->key_hash] = true;
        uint64_t word = index_find(&found->index, truth->key_hash);
        EXPECT(word_off(word) == truth->trailer_off, "key %llu", (unsigned long long)truth->key_hash);
        EXPECT(((word & WORD_TOMBSTONE) != 0) == truth->tombstone, "key %llu", (unsigned long long)truth->key_hash);
        live += !truth->tombstone;
        bytes += truth->tombstone ? 0 : truth->trailer_off - truth->start_off;
    }
    for (uint64_t key = 0; key < KEYS; key++)
        EXPECT(seen[key] || index_find(&found->index, key) == WORD_NONE, "key %llu", (unsigned long long)key);
    EXPECT(found->entries == entries, "%llu of %llu entries", (unsigned long long)found->entries,
           (unsigned long long)entries);
    EXPECT(found->live_keys == live && found->live_bytes == bytes, "%llu keys", (unsigned long long)found->live_keys);
    EXPECT(found->tail_off == tail_off, "tail %llu", (unsigned long long)found->tail_off);
    assert_int_equal(found->layout->damage_count, 0);
}

static void what_lies_above_any_entrys_end_is_recovered_alone(void **state)
{
    (void)state;
    AUTO_SCENE scene = {0};
    build(&scene);
    for (size_t i = 0; i < scene.oracle.truth_count; i++) {
        uint64_t floor_off = truth_end(&scene.oracle.truths[i]);
        memset(scene.damaged.data, 0x5a, floor_off); /* nobody needs what lies below */
        struct recovered found;
        assert_int_equal(recover_above(&scene.damaged, floor_off, &found), RD_OK);
        expect_above(&scene, floor_off, scene.file.len, &found);
        recovered_fini(&found);
    }
}

static void a_floor_where_no_entry_ends_is_refused(void **state)
{
    (void)state;
    AUTO_SCENE scene = {0};
    for (uint64_t i = 0; i < 12; i++)
        scene_put(&scene, i, i + 1, (size_t)(20 + 30 * i));
    scene_built(&scene, "no floor");
    size_t next = 0;
    for (uint64_t floor_off = 1; floor_off <= scene.file.len + 1; floor_off++) {
        struct recovered found;
        rd_err err = recover_above(&scene.file, floor_off, &found);
        bool ends = next < scene.oracle.truth_count && floor_off == truth_end(&scene.oracle.truths[next]);
        EXPECT(err == (ends ? RD_OK : RD_E_UNAVAILABLE), "%llu: %s", (unsigned long long)floor_off, rd_err_text(err));
        if (err == RD_OK)
            recovered_fini(&found);
        next += ends;
    }
}

/* A file cut anywhere: above the floor it is as if there were no floor, or everything is to be recovered. */
static void a_torn_tail_above_the_floor_is_told_as_without_one(void **state)
{
    (void)state;
    AUTO_SCENE scene = {0};
    for (uint64_t i = 0; i < KEYS; i++)
        scene_put(&scene, i, i + 1, (size_t)(20 + 30 * i));
    scene_put_tombstone(&scene, 1);
    scene_built(&scene, "torn");
    uint64_t floor_off = truth_end(&scene.oracle.truths[3]);
    size_t refused = 0;
    for (uint64_t len = scene.file.len; len >= floor_off; len--) {
        const struct bytes cut = {.data = scene.file.data, .len = len};
        struct recovered all, above;
        assert_int_equal(recover_above(&cut, 0, &all), RD_OK);
        rd_err err = recover_above(&cut, floor_off, &above);
        if (err == RD_OK) {
            expect_above(&scene, floor_off, all.tail_off, &above);
            assert_int_equal(all.layout->damage_count, 0);
            recovered_fini(&above);
        } else {
            EXPECT(err == RD_E_UNAVAILABLE, "%llu: %s", (unsigned long long)len, rd_err_text(err));
            refused++;
        }
        recovered_fini(&all);
    }
    /* what looks like a link across the floor, which the zeros of a pad do now and then */
    EXPECT(refused * 8 < scene.file.len - floor_off, "%zu lengths refused", refused);
    const struct bytes shorter = {.data = scene.file.data, .len = floor_off - 1};
    struct recovered found;
    assert_int_equal(recover_above(&shorter, floor_off, &found), RD_E_UNAVAILABLE);
}

/* Each bit above the floor flipped: refused, or nothing is different from a recovery without a floor. */
static void damage_above_the_floor_is_refused_or_without_effect(void **state)
{
    (void)state;
    AUTO_SCENE scene = {0};
    for (uint64_t i = 0; i < 6; i++)
        scene_put(&scene, i, i + 1, (size_t)(20 + 30 * i));
    scene_built(&scene, "flipped");
    uint64_t floor_off = truth_end(&scene.oracle.truths[2]);
    for (uint64_t bit = 8 * floor_off; bit < 8 * scene.file.len; bit++) {
        harm_flip(&scene.damaged, bit / 8, (int)(bit % 8));
        struct recovered all, above;
        assert_int_equal(recover_above(&scene.damaged, 0, &all), RD_OK);
        rd_err err = recover_above(&scene.damaged, floor_off, &above);
        EXPECT(err == RD_OK || err == RD_E_UNAVAILABLE, "bit %llu: %s", (unsigned long long)bit, rd_err_text(err));
        if (err == RD_OK) {
            EXPECT(all.layout->damage_count == 0, "bit %llu", (unsigned long long)bit);
            EXPECT(above.tail_off == all.tail_off, "bit %llu", (unsigned long long)bit);
            EXPECT(above.entries + 3 == all.entries, "bit %llu", (unsigned long long)bit);
            recovered_fini(&above);
        }
        recovered_fini(&all);
        harm_flip(&scene.damaged, bit / 8, (int)(bit % 8));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_lies_above_any_entrys_end_is_recovered_alone),
        cmocka_unit_test(a_floor_where_no_entry_ends_is_refused),
        cmocka_unit_test(a_torn_tail_above_the_floor_is_told_as_without_one),
        cmocka_unit_test(damage_above_the_floor_is_refused_or_without_effect),
    };
    return cmocka_run_group_tests_name("recover_floor", tests, NULL, NULL);
}
