/* The store as readers see it: one generation of its file. Compaction and late recovery put another in its place; the
   writer publishes into the one that is there. CONCURRENCY.md tells how readers do without a lock. */
#ifndef RD_VIEW_H
#define RD_VIEW_H

#include "epoch.h"
#include "index.h"
#include "mapping.h"
#include "undo.h"
#include <pthread.h>

struct figures {
    uint64_t entries;
    uint64_t live_keys;
    uint64_t live_bytes;
    uint64_t live_stored; /* entry_stored_len of live entries */
    uint64_t damaged_keys;
};

struct view {
    struct index index;
    struct undo undo;
    struct mapping *_Atomic mapping; /* and with it the layout */
    _Atomic uint64_t tail_off;       /* an entry that ends beyond it is not there yet */
    uint64_t generation;
    int fd; /* the file's; closed once nobody reads here any more */

    pthread_mutex_t counting; /* the tail moves, and the figures change, together */
    struct figures figures;
    _Atomic uint64_t live_keys; /* as the figures have it, for who wants nothing else */
};

/**
 * Takes over `mapping` and `index`, which is zeros then.
 * Returns: RD_OK; RD_E_NOMEM, both are still the caller's.
 */
RD_MUST_CHECK rd_err view_create(struct mapping *mapping, struct index *index, const struct file *file,
                                 uint64_t tail_off, const struct figures *figures, rd_verify verify,
                                 struct view **out_view);

/* Nobody reads here any more. NULL is fine. */
void view_destroy(struct view *view);

/* The tail and the figures, of one instant. */
void view_figures(struct view *view, struct figures *out_figures, uint64_t *out_tail_off);

/* Add to the figures (what wraps around subtracts), and move the tail to `tail_off` at that instant. */
void view_count(struct view *view, const struct figures *more, uint64_t tail_off);

/* index_flag, and what follows from the flag added to the figures at once: a writer that meets the flag counts after.
   Returns: whether it was added. */
bool view_flag(struct view *view, uint64_t hash, uint64_t word, uint64_t flag, const struct figures *more);

/* The word of `hash`, whose place was found since, as it was when the tail was `tail_off`, which the caller found after
 * it entered its epoch. */
static inline uint64_t view_find(const struct view *view, struct index_place place, uint64_t hash, uint64_t tail_off)
{
    uint64_t word = index_find_at(place, hash);
    while (__builtin_expect(word != WORD_NONE && word_off(word) >= tail_off, 0))
        word = undo_before(&view->undo, word_off(word));
    return word;
}

#endif
