/* The calls of writer.h that write what they are given: each one commit. */
#include "base.h"
#include "store_internal.h"

rd_err rd_store_batch_write(rd_store *store, const rd_write_item *items, size_t count, rd_written *out_done)
{
    static const rd_write_item none;
    struct commit commit = {.items = count > 0 ? items : &none, .count = count};
    return store_submit(store, &commit, out_done);
}

rd_err rd_store_write_hash(rd_store *store, uint64_t key_hash, rd_span payload, rd_written *out_done)
{
    rd_write_item item = {.key_hash = key_hash, .payload = payload};
    return rd_store_batch_write(store, &item, 1, out_done);
}

rd_err rd_store_write(rd_store *store, rd_span key, rd_span payload, rd_written *out_done)
{
    return rd_store_write_hash(store, rd_hash(key), payload, out_done);
}

rd_err rd_store_delete(rd_store *store, rd_span key, rd_written *out_done)
{
    uint64_t hash = rd_hash(key);
    return rd_store_batch_delete(store, &hash, 1, out_done);
}

rd_err rd_store_batch_delete(rd_store *store, const uint64_t *key_hashes, size_t count, rd_written *out_done)
{
    rd_key *keys = calloc(count > 0 ? count : 1, sizeof(*keys));
    if (keys == NULL)
        return RD_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        keys[i].hash = key_hashes[i];
    struct commit commit = {.keys = keys, .count = count};
    rd_err err = store_submit(store, &commit, out_done);
    free(keys);
    return err;
}

rd_err rd_store_rename_hash(rd_store *store, uint64_t old_hash, uint64_t new_hash, rd_written *out_done)
{
    const rd_key keys[] = {{.hash = old_hash}, {.hash = new_hash}};
    struct commit commit = {.keys = keys, .count = 2, .rename = true};
    return store_submit(store, &commit, out_done);
}

rd_err rd_store_rename(rd_store *store, rd_span old_key, rd_span new_key, rd_written *out_done)
{
    return rd_store_rename_hash(store, rd_hash(old_key), rd_hash(new_key), out_done);
}

rd_err rd_store_sync(rd_store *store)
{
    return store_sync(store);
}
