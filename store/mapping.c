#include "mapping.h"
#include "base.h"
#include <errno.h>
#include <sys/mman.h>

#define RESERVE_MIN (UINT64_C(64) << 30)

rd_err mapping_create(const struct file *file, uint64_t bytes, uint64_t generation, struct layout *layout,
                      struct mapping **out_mapping)
{
    struct mapping *mapping = malloc(sizeof(*mapping));
    if (mapping == NULL)
        return RD_E_NOMEM;
    uint64_t floor = bytes > 0 ? bytes : 1;
    uint64_t reserve = bytes > RESERVE_MIN / 4 ? bytes * 4 : RESERVE_MIN;
    void *base = MAP_FAILED;
    for (;; reserve = reserve / 2 > floor ? reserve / 2 : floor) {
        base = mmap(NULL, reserve, PROT_READ, MAP_SHARED | MAP_NORESERVE, file->fd, 0);
        if (base != MAP_FAILED || errno != ENOMEM || reserve == floor)
            break;
    }
    if (base == MAP_FAILED) {
        free(mapping);
        return errno == ENOMEM ? RD_E_NOMEM : RD_E_IO;
    }
    mapping->base = base;
    mapping->reserved = reserve;
    mapping->generation = generation;
    mapping->layout = layout_ref(layout);
    atomic_init(&mapping->pins, 1);
    *out_mapping = mapping;
    return RD_OK;
}

void mapping_unpin(struct mapping *mapping, size_t count)
{
    if (mapping == NULL || count == 0)
        return;
    if (atomic_fetch_sub_explicit(&mapping->pins, count, memory_order_release) != count)
        return;
    /* a load, not a fence: the thread sanitizer understands it */
    (void)atomic_load_explicit(&mapping->pins, memory_order_acquire);
    munmap((void *)(uintptr_t)mapping->base, mapping->reserved);
    layout_unref(mapping->layout);
    free(mapping);
}
