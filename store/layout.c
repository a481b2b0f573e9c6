#include "layout.h"
#include "base.h"
#include <string.h>

rd_err layout_create(struct layout **out_layout)
{
    struct layout *layout = calloc(1, sizeof(*layout));
    if (layout == NULL)
        return RD_E_NOMEM;
    atomic_init(&layout->refs, 1);
    *out_layout = layout;
    return RD_OK;
}

struct layout *layout_ref(struct layout *layout)
{
    if (layout != NULL)
        atomic_fetch_add_explicit(&layout->refs, 1, memory_order_relaxed);
    return layout;
}

void layout_unref(struct layout *layout)
{
    if (layout == NULL || atomic_fetch_sub_explicit(&layout->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(layout->damage);
    free(layout->provisional);
    free(layout);
}

/* Room for one more element of `size` bytes. */
static rd_err grow(void **array, size_t size, size_t count, size_t *capacity)
{
    if (count < *capacity)
        return RD_OK;
    size_t more = *capacity == 0 ? 16 : 2 * *capacity;
    void *grown = realloc(*array, more * size);
    if (grown == NULL)
        return RD_E_NOMEM;
    *array = grown;
    *capacity = more;
    return RD_OK;
}

rd_err layout_add(struct layout *layout, const struct damage *damage)
{
    void *array = layout->damage;
    RD_TRY(grow(&array, sizeof(*damage), layout->damage_count, &layout->damage_capacity));
    layout->damage = array;
    layout->damage[layout->damage_count++] = *damage;
    layout->counts[damage->kind]++;
    return RD_OK;
}

rd_err layout_add_provisional(struct layout *layout, uint64_t end_off)
{
    void *array = layout->provisional;
    RD_TRY(grow(&array, sizeof(end_off), layout->provisional_count, &layout->provisional_capacity));
    layout->provisional = array;
    layout->provisional[layout->provisional_count++] = end_off;
    return RD_OK;
}

void layout_drop_above(struct layout *layout, uint64_t tail_off)
{
    size_t above = 0;
    while (above < layout->damage_count && layout->damage[above].end_off > tail_off)
        layout->counts[layout->damage[above++].kind]--;
    if (above == 0)
        return;
    layout->damage_count -= above;
    memmove(layout->damage, layout->damage + above, layout->damage_count * sizeof(*layout->damage));
}

/* The first damage that ends at or below `end_off`, or NULL. */
static const struct damage *first_at_or_below(const struct layout *layout, uint64_t end_off)
{
    size_t low = 0;
    size_t high = layout == NULL ? 0 : layout->damage_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (layout->damage[middle].end_off > end_off)
            low = middle + 1;
        else
            high = middle;
    }
    return layout != NULL && low < layout->damage_count ? &layout->damage[low] : NULL;
}

const struct damage *layout_find(const struct layout *layout, uint64_t end_off)
{
    const struct damage *damage = first_at_or_below(layout, end_off);
    return damage != NULL && damage->end_off == end_off ? damage : NULL;
}

uint64_t layout_next(const struct layout *layout, uint64_t end_off)
{
    const struct damage *damage = first_at_or_below(layout, end_off);
    return damage == NULL ? 0 : damage->end_off;
}

/* One more range, below the others. No gap but the smallest is given up, so the largest are kept, whatever comes. */
static void add_torn(struct torn_ranges *torn, const struct damage *damage)
{
    struct torn_range all[TORN_RANGES_MAX + 1];
    size_t count = torn->count;
    memcpy(all, torn->ranges, count * sizeof(*all));
    all[count++] = (struct torn_range){
        .begin_off = damage->begin_off, .end_off = damage->end_off, .torn_bytes = damage->end_off - damage->begin_off};
    if (count > TORN_RANGES_MAX) {
        size_t closest = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (all[i].begin_off - all[i + 1].end_off < all[closest].begin_off - all[closest + 1].end_off)
                closest = i;
        all[closest].begin_off = all[closest + 1].begin_off;
        all[closest].torn_bytes += all[closest + 1].torn_bytes;
        count--;
        memmove(&all[closest + 1], &all[closest + 2], (count - closest - 1) * sizeof(*all));
    }
    memcpy(torn->ranges, all, count * sizeof(*all));
    torn->count = count;
}

void layout_torn(const struct layout *layout, struct torn_ranges *out_torn)
{
    struct torn_ranges torn = {0};
    for (size_t i = 0; layout != NULL && i < layout->damage_count; i++)
        if (layout->damage[i].kind == DAMAGE_TORN)
            add_torn(&torn, &layout->damage[i]);
    *out_torn = torn;
}

static const struct {
    bool hides;
    const char *text;
} kinds[] = {
#define DAMAGE_ROW(name, hides, text) [name] = {hides, text},
    RD_DAMAGES(DAMAGE_ROW)
#undef DAMAGE_ROW
};

const char *rd_damage_text(rd_damage_kind kind)
{
    return (unsigned)kind < RD_DAMAGE_KINDS ? kinds[kind].text : "not damage";
}

bool rd_damage_hides(rd_damage_kind kind)
{
    return (unsigned)kind < RD_DAMAGE_KINDS && kinds[kind].hides;
}
