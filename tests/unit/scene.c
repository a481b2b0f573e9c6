#include "scene.h"

#include <string.h>

void scene_fini(struct scene *scene)
{
    oracle_fini(&scene->oracle);
    bytes_free(&scene->file);
    bytes_free(&scene->damaged);
}

uint64_t scene_put(struct scene *scene, uint64_t key_hash, uint64_t seed, size_t len)
{
    AUTO_BYTES payload = bytes_xorshift(seed, len);
    build_entry(&scene->file, key_hash, bytes_span(&payload), 64);
    return scene->file.len;
}

uint64_t scene_put_tombstone(struct scene *scene, uint64_t key_hash)
{
    build_tombstone(&scene->file, key_hash);
    return scene->file.len;
}

void scene_built(struct scene *scene, const char *label)
{
    scene->oracle = oracle_of(&scene->file);
    scene->damaged = bytes_copy(&scene->file);
    strncpy(scene->oracle.label, label, sizeof scene->oracle.label - 1);
}

void scene_judge(struct scene *scene)
{
    oracle_compare(&scene->oracle, &scene->damaged);
    oracle_answer(&scene->oracle);
}

rd_span scene_value(const struct scene *scene, size_t number)
{
    return truth_value(&scene->oracle, &scene->oracle.truths[number]);
}

void scene_expect_range(const struct scene *scene, const struct outcome *outcome, rd_damage_kind kind, uint64_t begin,
                        uint64_t end, uint64_t key_hash)
{
    const char *label = scene->oracle.label;
    EXPECT(outcome->info.damaged_ranges == 1 && outcome->range_count == 1, "%s: %zu ranges", label,
           outcome->range_count);
    const rd_range *range = &outcome->ranges[0];
    EXPECT(range->kind == kind, "%s: %s", label, range->what);
    EXPECT(range->offset == begin && range->offset + range->size == end, "%s: [%llu, +%llu)", label,
           (unsigned long long)range->offset, (unsigned long long)range->size);
    EXPECT(range->key_hash == key_hash, "%s: key %016llx", label, (unsigned long long)range->key_hash);
    bool hides = kind == RD_DAMAGE_RANGE || kind == RD_DAMAGE_UNIDENTIFIED;
    EXPECT(outcome->info.unidentified_ranges == (hides ? 1 : 0), "%s", label);
}

void scene_build_three(struct scene *scene, uint64_t ends[3], const char *label)
{
    for (uint64_t i = 0; i < 3; i++)
        ends[i] = scene_put(scene, fill_hash(i), i + 1, 100 + 30 * i);
    scene_built(scene, label);
}
