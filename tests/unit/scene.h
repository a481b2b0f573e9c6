/* A file that is built by hand and then damaged, and its oracle. */
#ifndef RDRIVE_TESTS_SCENE_H
#define RDRIVE_TESTS_SCENE_H

#include "oracle.h"

struct scene {
    struct bytes file, damaged;
    struct oracle oracle;
};

void scene_fini(struct scene *scene);
#define AUTO_SCENE __attribute__((cleanup(scene_fini))) struct scene

/* Append a value of `len` bytes that no other seed has; returns where the entry ends. */
uint64_t scene_put(struct scene *scene, uint64_t key_hash, uint64_t seed, size_t len);
uint64_t scene_put_tombstone(struct scene *scene, uint64_t key_hash);
/* The file is whole; from now on it is damaged. */
void scene_built(struct scene *scene, const char *label);
/* Entries of keys 0, 1 and 2, of which test after test damages one; built. */
void scene_build_three(struct scene *scene, uint64_t ends[3], const char *label);

/* Answers by what differs now. */
void scene_judge(struct scene *scene);
rd_span scene_value(const struct scene *scene, size_t number);
void scene_expect_range(const struct scene *scene, const struct outcome *outcome, rd_damage_kind kind, uint64_t begin,
                        uint64_t end, uint64_t key_hash);

#endif
