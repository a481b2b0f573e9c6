/* Down the file, a window of entries at a time, so that what each of them needs of memory is on its way before it is
   needed, and a fault has to be guarded against once a window. */
#include "base.h"
#include "guard.h"
#include "store_internal.h"

#define WINDOW_MAX 64u
#define CHECK_MAX  4096u /* larger payloads are checked one by one, where nobody has yet */

struct sight {
    struct entry entry;
    const struct damage *damage; /* NULL: it is an entry */
    bool checked;                /* and it holds */
};

struct rd_iter {
    rd_store *store;
    struct snapshot snapshot;
    uint64_t end_off;  /* of the next entry to look at */
    rd_err broken;     /* what there is to say from now on */
    bool unique;       /* no key has two entries, so each sight is the first */
    struct index seen; /* else F-12: the first sight of a hash decides */
    uint64_t missing;  /* live keys that are still to be seen */
    size_t next, count;
    struct sight window[WINDOW_MAX];
};

rd_err rd_iter_create(rd_store *store, rd_iter **out_iter)
{
    rd_iter *iter = calloc(1, sizeof(*iter));
    if (iter == NULL)
        return RD_E_NOMEM;
    struct figures figures;
    struct reading reading = reading_begin(store);
    view_figures(reading.view, &figures, &iter->end_off);
    reading_pin(&reading, iter->end_off, &iter->snapshot);
    reading_end(&reading);
    iter->store = store;
    iter->broken = RD_OK;
    iter->missing = figures.live_keys;
    const struct layout *layout = iter->snapshot.mapping->layout;
    iter->unique = figures.entries == figures.live_keys && (layout == NULL || layout->damage_count == 0);
    rd_err err = iter->unique ? RD_OK : index_init(&iter->seen);
    if (err == RD_OK && !iter->unique)
        err = index_reserve(&iter->seen, (size_t)figures.live_keys);
    if (err != RD_OK) {
        rd_iter_destroy(iter);
        return err;
    }
    *out_iter = iter;
    return RD_OK;
}

/* ---- filling the window ------------------------------------------------------------------------------------------ */

/* What has no damage to it, down to `stop_off`, where there is some. */
static void walk_leaf(void *argument)
{
    rd_iter *iter = argument;
    const uint8_t *base = iter->snapshot.mapping->base;
    uint64_t stop_off = layout_next(iter->snapshot.mapping->layout, iter->end_off);
    bool check = iter->store->options.verify != RD_VERIFY_OFF;
    while (iter->count < WINDOW_MAX && iter->end_off > stop_off && iter->end_off >= RD_ENTRY_MIN) {
        struct sight *sight = &iter->window[iter->count];
        struct entry *entry = &sight->entry;
        if (!entry_parse(base, iter->end_off - RD_TRAILER_SIZE, entry))
            return;
        sight->damage = NULL;
        /* the zeros of a file cut inside a page are told from others by who can ask for its size */
        sight->checked =
            entry->crc != 0 && (!check || (entry_payload_len(entry) <= CHECK_MAX && entry_crc_holds(base, entry)));
        iter->end_off = entry->prev_off;
        iter->count++;
    }
}

/* One step, whatever lies there. Returns: RD_OK; RD_ABSENT at the end; RD_E_DAMAGED, RD_E_TRUNCATED the chain broke. */
static rd_err walk_one(rd_iter *iter)
{
    struct sight *sight = &iter->window[iter->count];
    rd_err err = snapshot_walk(&iter->snapshot, &iter->end_off, &sight->entry, &sight->damage);
    sight->checked = false;
    if (err == RD_OK)
        iter->count++;
    return err;
}

static uint64_t sight_hash(const struct sight *sight)
{
    return sight->damage == NULL ? sight->entry.key_hash : sight->damage->key_hash;
}

/* Keep of the window what is seen for the first time and is to be told. Returns: RD_OK, RD_E_NOMEM. */
static rd_err sift(rd_iter *iter)
{
    size_t kept = 0;
    RD_TRY(index_reserve(&iter->seen, iter->count));
    for (size_t i = 0; i < iter->count; i++)
        index_prefetch(&iter->seen, sight_hash(&iter->window[i]));
    for (size_t i = 0; i < iter->count; i++) {
        const struct sight *sight = &iter->window[i];
        bool known = sight->damage == NULL || sight->damage->has_key;
        bool first = known && index_set_if_new(&iter->seen, sight_hash(sight), 1);
        bool tombstone = sight->damage == NULL && sight->entry.tombstone;
        if (first && !tombstone)
            iter->window[kept++] = *sight;
    }
    iter->count = kept;
    return RD_OK;
}

/* The chain's end. A link that was damaged after it was checked may have led past live keys (I-13): all must have been
   seen. */
static rd_err end_of_chain(const rd_iter *iter)
{
    return iter->missing == 0 ? RD_ABSENT : RD_E_DAMAGED;
}

static void count_seen(rd_iter *iter)
{
    for (size_t i = 0; i < iter->count; i++)
        if (iter->window[i].damage == NULL && iter->missing > 0)
            iter->missing--;
}

/* Returns: RD_OK with something in the window, RD_ABSENT at the end, RD_E_NOMEM; RD_E_DAMAGED, RD_E_TRUNCATED. */
static rd_err fill(rd_iter *iter)
{
    iter->next = iter->count = 0;
    while (iter->count == 0) {
        rd_err err = iter->broken;
        uint64_t end_off = iter->end_off;
        if (err == RD_OK && !guard_run(iter->snapshot.mapping->base, (size_t)end_off, walk_leaf, iter)) {
            iter->count = 0; /* one by one, then, up to the one that is gone */
            iter->end_off = end_off;
        }
        if (err == RD_OK && iter->count == 0) {
            err = walk_one(iter);
            err = err == RD_ABSENT ? end_of_chain(iter) : err;
        }
        if (err == RD_OK && !iter->unique)
            err = sift(iter);
        if (err == RD_OK)
            count_seen(iter);
        if (err == RD_E_DAMAGED) /* the file changed, and the chain ends here */
            upkeep_recover(iter->store->upkeep);
        if (err != RD_OK) {
            iter->broken = err == RD_E_NOMEM ? err : RD_ABSENT;
            iter->count = 0;
            return err;
        }
    }
    return RD_OK;
}

/* ---- telling what is in it --------------------------------------------------------------------------------------- */

static rd_err tell(rd_iter *iter, const struct sight *sight, rd_entry *out_entry)
{
    const struct entry *entry = &sight->entry;
    if (sight->damage != NULL) {
        out_entry->meta.key_hash = sight->damage->key_hash;
        return RD_E_DAMAGED;
    }
    if (!sight->checked)
        return store_load(iter->store, &iter->snapshot, entry->key_hash, entry->trailer_off, NULL, (struct wanted){0},
                          NULL, &out_entry->payload, &out_entry->meta);
    out_entry->payload.data = iter->snapshot.mapping->base + entry->start_off;
    out_entry->payload.len = (size_t)entry_payload_len(entry);
    out_entry->meta = metadata_of(entry);
    return RD_OK;
}

rd_err rd_iter_next(rd_iter *iter, rd_entry *out_entry)
{
    *out_entry = (rd_entry){0};
    if (iter->next == iter->count)
        RD_TRY(fill(iter));
    return tell(iter, &iter->window[iter->next++], out_entry);
}

void rd_iter_destroy(rd_iter *iter)
{
    if (iter == NULL)
        return;
    snapshot_release(&iter->snapshot);
    index_fini(&iter->seen);
    free(iter);
}
