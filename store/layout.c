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

const struct damage *layout_find(const struct layout *layout, uint64_t end_off)
{
    size_t low = 0;
    size_t high = layout == NULL ? 0 : layout->damage_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (layout->damage[middle].end_off == end_off)
            return &layout->damage[middle];
        if (layout->damage[middle].end_off > end_off)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
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
