#include "base.h"
#include "store_internal.h"

struct rd_iter {
    rd_store *store;
    struct snapshot snapshot;
    uint64_t end_off;  /* of the next entry to look at */
    struct index seen; /* F-12: the first sight of a hash decides */
};

rd_err rd_iter_create(rd_store *store, rd_iter **out_iter)
{
    rd_iter *iter = calloc(1, sizeof(*iter));
    if (iter == NULL)
        return RD_E_NOMEM;
    rd_err err = index_init(&iter->seen);
    if (err != RD_OK) {
        free(iter);
        return err;
    }
    iter->store = store;
    store_snapshot(store, &iter->snapshot);
    iter->end_off = iter->snapshot.tail_off;
    *out_iter = iter;
    return RD_OK;
}

/* Whether this is the first sight of a hash. Returns: RD_OK, RD_E_NOMEM. */
static rd_err see(rd_iter *iter, uint64_t hash, uint64_t word, bool *out_first)
{
    RD_TRY(index_reserve(&iter->seen, 1));
    *out_first = index_set_if_new(&iter->seen, hash, word);
    return RD_OK;
}

/* One step down. Returns: as rd_iter_next; `*out_sight` is false where nothing is to be told of it. */
static rd_err step(rd_iter *iter, rd_entry *out_entry, bool *out_sight)
{
    struct entry entry;
    const struct damage *damage = NULL;
    *out_sight = true;
    rd_err err = snapshot_walk(&iter->snapshot, &iter->end_off, &entry, &damage);
    if (err != RD_OK) {
        iter->end_off = 0; /* the end; or the file changed under us, and the chain ends here */
        return err;
    }
    if (damage != NULL) {
        *out_sight = false;
        if (damage->has_key)
            RD_TRY(see(iter, damage->key_hash, (damage->end_off - RD_TRAILER_SIZE) | WORD_DAMAGED, out_sight));
        out_entry->meta.key_hash = damage->key_hash;
        return *out_sight ? RD_E_DAMAGED : RD_OK;
    }
    uint64_t word = entry.trailer_off | (entry.tombstone ? WORD_TOMBSTONE : 0);
    RD_TRY(see(iter, entry.key_hash, word, out_sight));
    *out_sight = *out_sight && !entry.tombstone;
    if (!*out_sight)
        return RD_OK;
    return store_load(iter->store, &iter->snapshot, entry.key_hash, word, false, NULL, &out_entry->payload,
                      &out_entry->meta);
}

rd_err rd_iter_next(rd_iter *iter, rd_entry *out_entry)
{
    bool sight = false;
    rd_err err = RD_OK;
    while (!sight) {
        *out_entry = (rd_entry){0};
        err = step(iter, out_entry, &sight);
        if (err == RD_E_NOMEM)
            return err;
    }
    return err;
}

void rd_iter_destroy(rd_iter *iter)
{
    if (iter == NULL)
        return;
    snapshot_release(&iter->snapshot);
    index_fini(&iter->seen);
    free(iter);
}
