/* Configuration and decisions. */
#include "internal.h"
#include <errno.h>
#include <string.h>

static uint64_t number_from(const char *name, uint64_t standard)
{
    const char *text = getenv(name);
    char *end;
    if (text == NULL)
        return standard;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        fprintf(stderr, "chaos: %s='%s' is no number\n", name, text);
        exit(64);
    }
    return number;
}

static enum chaos_mode mode_from(const char *name)
{
    static const char *const names[] = {[CHAOS_MIX] = "mix", [CHAOS_INLINE] = "inline", [CHAOS_LATE] = "late"};
    const char *text = getenv(name);
    if (text == NULL)
        return CHAOS_MIX;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], text) == 0)
            return (enum chaos_mode)i;
    fprintf(stderr, "chaos: %s='%s': mix, inline or late\n", name, text);
    exit(64);
}

void chaos_config_read(struct chaos_config *out_config)
{
    *out_config = (struct chaos_config){
        .seed = number_from("CHAOS_SEED", 1),
        .mode = mode_from("CHAOS_MODE"),
        .delay_us_max = number_from("CHAOS_DELAY_US_MAX", 2000),
        .fail_per_mille = number_from("CHAOS_FAIL_PER_MILLE", 0),
        .damage_per_mille = number_from("CHAOS_DAMAGE_PER_MILLE", 0),
        .deny_per_mille = number_from("CHAOS_DENY_PER_MILLE", 0),
        .heed_per_mille = number_from("CHAOS_HEED_PER_MILLE", 500),
        .window_max = number_from("CHAOS_WINDOW_MAX", 0),
        .threads = number_from("CHAOS_THREADS", 4),
        .range_count = number_from("CHAOS_RANGES", 0),
        .hold = number_from("CHAOS_HOLD", 0) != 0,
        .shut = number_from("CHAOS_SHUT", 0) != 0,
        .control = getenv("CHAOS_CONTROL"),
    };
}

/* splitmix64 over the count of decisions. */
static uint64_t decide(struct chaos *chaos)
{
    uint64_t number = atomic_fetch_add(&chaos->decisions, 1);
    uint64_t z = chaos->config.seed * UINT64_C(0xd1342543de82ef95) + (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

bool plan_chance(struct chaos *chaos, uint64_t per_mille)
{
    return per_mille > 0 && decide(chaos) % 1000 < per_mille;
}

struct plan plan_make(struct chaos *chaos, const rd_op *op)
{
    const struct chaos_config *config = &chaos->config;
    struct plan plan = {.err = RD_OK, .value_max = op->value_max};
    uint64_t dice = decide(chaos);
    if (config->mode == CHAOS_LATE || (config->mode == CHAOS_MIX && dice % 8 >= 3))
        plan.delay_ns = 1 + (config->delay_us_max > 0 ? decide(chaos) % (config->delay_us_max * 1000) : 0);
    else if (config->mode == CHAOS_MIX && dice % 8 == 2)
        plan.meanwhile =
            op->kind != RD_OP_COMPACT; /* whose answer may be long in coming: submit and next don't block */
    plan.asks_late = plan.delay_ns > 0 && (dice & 16) != 0;
    if (plan_chance(chaos, config->fail_per_mille))
        plan.err = (dice & 32) != 0 ? RD_E_UNAVAILABLE : RD_E_IO;
    if (config->window_max > 0 && plan.value_max > 1) {
        size_t most = plan.value_max < config->window_max ? plan.value_max : (size_t)config->window_max;
        plan.value_max = 1 + decide(chaos) % most;
    }
    return plan;
}
