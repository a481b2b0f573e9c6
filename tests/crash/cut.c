/* Every write of every operation is cut at every byte: the process dies with the first bytes of it in the file. */
#include "scene.h"
#include <stdlib.h>
#include <string.h>

#define DENSE_MAX  ((size_t)4096) /* of a longer write, its ends at every byte, the middle now and then */
#define END_LEN    ((size_t)160)
#define STEP_PAD   ((size_t)41)
#define STEP_LARGE ((size_t)9973)

/* How far to the next cut. */
static size_t step(const struct campaign *campaign, const struct operation *operation, const char *name, size_t at,
                   size_t len)
{
    const char *suffix = strrchr(name, '.');
    bool is_line = suffix != NULL && strcmp(suffix, ".writer") == 0;
    if (name[0] == '\0') /* nothing of a file without a name is left */
        return len;
    if (is_line && operation->setting != SETTING_EMPTY)
        return STEP_PAD; /* the same line each time */
    if (len > DENSE_MAX && at >= END_LEN && at < len - END_LEN)
        return len - END_LEN - at < STEP_LARGE ? len - END_LEN - at : STEP_LARGE;
    return campaign->every;
}

/* Returns: how many cuts there were. */
static uint64_t cut_write(const struct campaign *campaign, const struct operation *operation, uint64_t number)
{
    struct scene *scene = must_alloc(sizeof(*scene));
    const struct fault fault = {.kind = FAULT_CUT, .at = number};
    const char *name;
    uint64_t cuts = 0;
    at_place("%s, call %llu", operation->name, (unsigned long long)number);
    scene_begin(scene, campaign, operation);
    disk_arm(&fault);
    (void)operation->run(scene);
    disk_disarm();
    size_t len = disk_cut_write(&name);
    for (size_t at = 0; at <= len; at += step(campaign, operation, name, at, len), cuts++) {
        at_place("%s, call %llu: %zu of %zu bytes are written to %s", operation->name, (unsigned long long)number, at,
                 len, name);
        scene_check_left(scene, LEFT_BY_CUT, at);
    }
    scene_end(scene);
    free(scene);
    return cuts;
}

int main(int argc, char **argv)
{
    struct campaign campaign;
    uint64_t writes = 0;
    uint64_t cuts = 0;
    campaign_begin(&campaign, "cut", 1, true, argc, argv);
    for (size_t i = 0; i < operation_count; i++) {
        enum disk_call calls[SCENE_CALLS_MAX];
        uint64_t count = scene_list_calls(&campaign, &operations[i], calls);
        for (uint64_t number = 0; number < count; number++) {
            if (calls[number] != CALL_WRITE)
                continue;
            cuts += cut_write(&campaign, &operations[i], number);
            writes++;
        }
    }
    campaign_end(&campaign, "%zu operations, %llu writes, %llu cuts", operation_count, (unsigned long long)writes,
                 (unsigned long long)cuts);
    return 0;
}
