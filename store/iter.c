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

rd_err rd_iter_next(rd_iter *iter, rd_entry *out_entry)
{
    const uint8_t *base = iter->snapshot.mapping->base;
    while (iter->end_off >= RD_ENTRY_MIN) {
        struct entry entry;
        if (!entry_parse(base, iter->end_off - RD_TRAILER_SIZE, &entry)) {
            iter->end_off = 0; /* the file changed under us: the chain ends here */
            *out_entry = (rd_entry){0};
            return RD_E_DAMAGED;
        }
        RD_TRY(index_reserve(&iter->seen, 1));
        iter->end_off = entry.prev_off;
        uint64_t word = entry.trailer_off | (entry.tombstone ? WORD_TOMBSTONE : 0);
        if (!index_set_if_new(&iter->seen, entry.key_hash, word) || entry.tombstone)
            continue;
        *out_entry = (rd_entry){0};
        return store_load(iter->store, &iter->snapshot, entry.key_hash, word, false, NULL, &out_entry->payload,
                          &out_entry->meta);
    }
    return RD_ABSENT;
}

void rd_iter_destroy(rd_iter *iter)
{
    if (iter == NULL)
        return;
    snapshot_release(&iter->snapshot);
    index_fini(&iter->seen);
    free(iter);
}
