#include "mapping.h"
#include "base.h"
#include <errno.h>
#include <sys/mman.h>

#define RESERVE_MIN (UINT64_C(64) << 30)
#define PAGE_MAX    ((size_t)64 << 10) /* no system of ours has larger ones */

/* As much as the limits let, up to `reserve`, at least `floor`. Where they refused more, half of what they let is given
   back: the index and its threads need room, too. Returns: MAP_FAILED, errno says why. */
static void *map_window(const struct file *file, size_t reserve, size_t floor, size_t *out_len)
{
    bool refused = false;
    void *base;
    for (;; reserve = reserve / 2 > floor ? reserve / 2 : floor) {
        base = mmap(NULL, reserve, PROT_READ, MAP_SHARED | MAP_NORESERVE, file->fd, 0);
        /* EINVAL is valgrind's way to say that its own address space has no such hole */
        if (base != MAP_FAILED || (errno != ENOMEM && errno != EINVAL) || reserve == floor)
            break;
        refused = true;
    }
    size_t half = (reserve / 2 > floor ? reserve / 2 : floor) / PAGE_MAX * PAGE_MAX + PAGE_MAX;
    if (base != MAP_FAILED && refused && half < reserve && munmap((uint8_t *)base + half, reserve - half) == 0)
        reserve = half;
    *out_len = reserve;
    return base;
}

rd_err mapping_create(const struct file *file, uint64_t bytes, uint64_t generation, struct layout *layout,
                      struct mapping **out_mapping)
{
    struct mapping *mapping = aligned_alloc(_Alignof(struct mapping), sizeof(*mapping));
    if (mapping == NULL)
        return RD_E_NOMEM;
    uint64_t floor = bytes > 0 ? bytes : 1;
    uint64_t reserve = bytes > RESERVE_MIN / 4 ? bytes * 4 : RESERVE_MIN;
    void *base = map_window(file, reserve, floor, &reserve);
    if (base == MAP_FAILED) {
        free(mapping);
        return errno == ENOMEM ? RD_E_NOMEM : RD_E_IO;
    }
    mapping->base = base;
    mapping->reserved = reserve;
    mapping->generation = generation;
    mapping->layout = layout_ref(layout);
    atomic_init(&mapping->shares_left, PIN_SHARES);
    for (size_t i = 0; i < PIN_SHARES; i++) {
        atomic_init(&mapping->shares[i].count, 1);
        mapping->shares[i].mapping = mapping;
    }
    *out_mapping = mapping;
    return RD_OK;
}

void pin_return(struct pin *pin, size_t count)
{
    if (pin == NULL || count == 0)
        return;
    if (atomic_fetch_sub_explicit(&pin->count, count, memory_order_release) != count)
        return;
    /* a load, not a fence: the thread sanitizer understands it */
    (void)atomic_load_explicit(&pin->count, memory_order_acquire);
    struct mapping *mapping = pin->mapping;
    if (atomic_fetch_sub_explicit(&mapping->shares_left, 1, memory_order_acq_rel) != 1)
        return;
    munmap((void *)(uintptr_t)mapping->base, mapping->reserved);
    layout_unref(mapping->layout);
    free(mapping);
}

void mapping_release(struct mapping *mapping)
{
    for (size_t i = 0; mapping != NULL && i < PIN_SHARES; i++)
        pin_return(&mapping->shares[i], 1); /* the mapping may be gone with the last of them, not before */
}
