#include "view.h"
#include "base.h"

rd_err view_create(struct mapping *mapping, struct index *index, const struct file *file, uint64_t tail_off,
                   const struct figures *figures, rd_verify verify, struct view **out_view)
{
    struct view *view = calloc(1, sizeof(*view));
    if (view == NULL)
        return RD_E_NOMEM;
    pthread_mutex_init(&view->counting, NULL);
    view->index = *index;
    *index = (struct index){.used = 0};
    view->index.last_flags = verify == RD_VERIFY_ALWAYS ? 0 : WORD_VERIFIED; /* what is checked is not checked again */
    atomic_init(&view->mapping, mapping);
    atomic_init(&view->tail_off, tail_off);
    view->generation = mapping->generation;
    view->fd = file->fd;
    view->figures = *figures;
    atomic_init(&view->live_keys, figures->live_keys);
    *out_view = view;
    return RD_OK;
}

void view_destroy(struct view *view)
{
    if (view == NULL)
        return;
    mapping_release(atomic_load(&view->mapping));
    index_fini(&view->index);
    undo_fini(&view->undo);
    pthread_mutex_destroy(&view->counting);
    free(view);
}

void view_figures(struct view *view, struct figures *out_figures, uint64_t *out_tail_off)
{
    pthread_mutex_lock(&view->counting);
    *out_figures = view->figures;
    *out_tail_off = atomic_load(&view->tail_off);
    pthread_mutex_unlock(&view->counting);
}

/* Requires: `counting` is held. */
static void add(struct view *view, const struct figures *more)
{
    view->figures.entries += more->entries;
    view->figures.live_keys += more->live_keys;
    view->figures.live_bytes += more->live_bytes;
    view->figures.live_stored += more->live_stored;
    view->figures.damaged_keys += more->damaged_keys;
    atomic_store_explicit(&view->live_keys, view->figures.live_keys, memory_order_release);
}

void view_count(struct view *view, const struct figures *more, uint64_t tail_off)
{
    pthread_mutex_lock(&view->counting);
    add(view, more);
    atomic_store(&view->tail_off, tail_off);
    pthread_mutex_unlock(&view->counting);
}

bool view_flag(struct view *view, uint64_t hash, uint64_t word, uint64_t flag, const struct figures *more)
{
    pthread_mutex_lock(&view->counting);
    bool flagged = index_flag(&view->index, hash, word, flag);
    if (flagged)
        add(view, more);
    pthread_mutex_unlock(&view->counting);
    return flagged;
}
