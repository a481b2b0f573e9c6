/* A value's way from one store to another. */
#include "base.h"
#include "store_internal.h"
#include <sys/stat.h>

#define MOVE_TRIES_MAX 100

/* Which file a store has open; a compaction may put another in its place meanwhile. */
static rd_err file_of(rd_store *store, struct stat *out_stat)
{
    pthread_mutex_lock(&store->write);
    int result = fstat(store->file.fd, out_stat);
    pthread_mutex_unlock(&store->write);
    return result == 0 ? RD_OK : RD_E_IO;
}

static rd_err check_stores(rd_store *store, rd_store *target)
{
    struct stat from;
    struct stat to;
    if (store == target)
        return RD_E_INVALID;
    if (!target->options.writable)
        return RD_E_READ_ONLY;
    RD_TRY(file_of(store, &from));
    RD_TRY(file_of(target, &to));
    return from.st_dev == to.st_dev && from.st_ino == to.st_ino ? RD_E_INVALID : RD_OK;
}

static rd_err copy_entry(const rd_entry *entry, rd_store *target, rd_written *out_done)
{
    RD_CLEANUP(taken_fini) struct taken taken = {0};
    RD_TRY(take(entry->payload, entry->meta.checksum, &taken));
    rd_write_item item = {.key_hash = entry->meta.key_hash, .payload = taken.bytes};
    struct commit commit = {.items = &item, .crcs = &taken.crc, .count = 1};
    return store_submit(target, &commit, out_done);
}

rd_err rd_store_copy_hash(rd_store *store, uint64_t key_hash, rd_store *target, rd_written *out_done)
{
    RD_CLEANUP(rd_entry_release) rd_entry entry = {0};
    RD_TRY(check_stores(store, target));
    RD_TRY(rd_store_read_hash(store, key_hash, &entry));
    return copy_entry(&entry, target, out_done);
}

/* Delete the key if `copied` is still its newest entry. Returns: as a commit; RD_E_UNAVAILABLE it is another. */
static rd_err delete_copied(rd_store *store, const rd_entry *copied)
{
    const struct mapping *mapping = ((const struct pin *)copied->pin)->mapping;
    const uint8_t *end = (const uint8_t *)copied->payload.data + copied->payload.len;
    struct place place = {.generation = mapping->generation, .trailer_off = (uint64_t)(end - mapping->base)};
    rd_key key = {.hash = copied->meta.key_hash};
    struct commit commit = {.keys = &key, .count = 1, .only = &place};
    return store_submit(store, &commit, NULL);
}

/* Copy, sync, delete: what is deleted is what was copied. */
static rd_err move_once(rd_store *store, uint64_t key_hash, rd_store *target, rd_written *out_done)
{
    rd_written done;
    RD_CLEANUP(rd_entry_release) rd_entry entry = {0};
    RD_TRY(rd_store_read_hash(store, key_hash, &entry));
    RD_TRY(copy_entry(&entry, target, &done));
    RD_TRY(store_sync(target));
    RD_TRY(delete_copied(store, &entry));
    done.durable = true;
    *out_done = done;
    return RD_OK;
}

rd_err rd_store_move_hash(rd_store *store, uint64_t key_hash, rd_store *target, rd_written *out_done)
{
    rd_written done;
    if (!store->options.writable)
        return RD_E_READ_ONLY;
    RD_TRY(check_stores(store, target));
    rd_err err = RD_E_UNAVAILABLE;
    for (int i = 0; i < MOVE_TRIES_MAX && err == RD_E_UNAVAILABLE; i++)
        err = move_once(store, key_hash, target, &done); /* again where somebody wrote the key meanwhile */
    if (err == RD_OK && out_done != NULL)
        *out_done = done;
    return err;
}
