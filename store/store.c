#include "base.h"
#include "recover.h"
#include "store_internal.h"
#include <errno.h>
#include <stdarg.h>

static rd_store *store_alloc(const char *path, const rd_open_options *options)
{
    rd_store *store = calloc(1, sizeof(*store));
    char *copy = strdup(path);
    pthread_rwlockattr_t attributes;
    if (store == NULL || copy == NULL || pthread_rwlockattr_init(&attributes) != 0) {
        free(copy);
        free(store);
        return NULL;
    }
    /* readers come without end; a writer must get its turn */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&store->publish, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    pthread_mutex_init(&store->write, NULL);
    store->path = copy;
    store->options = *options;
    store->options.cancel = NULL; /* the caller's, and only while opening */
    store->file.fd = -1;
    return store;
}

void rd_store_close(rd_store *store)
{
    if (store == NULL)
        return;
    mapping_unpin(store->mapping, 1);
    index_fini(&store->index);
    appender_fini(&store->appender);
    file_close(&store->file);
    pthread_rwlock_destroy(&store->publish);
    pthread_mutex_destroy(&store->write);
    free(store->path);
    free(store);
}

static void store_close_up(rd_store **store)
{
    rd_store_close(*store);
}

__attribute__((format(printf, 3, 4))) static rd_err refuse(rd_fault *fault, rd_err err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->text, sizeof(fault->text), format, arguments);
    va_end(arguments);
    return err;
}

static rd_err open_file(rd_store *store, const rd_open_options *options, rd_fault *fault)
{
    rd_err err = file_open(store->path, options, &store->file);
    if (err == RD_E_IO) {
        fault->os_error = errno;
        return refuse(fault, err, "%s: %s", store->path, strerror(fault->os_error));
    }
    if (err == RD_E_LOCKED)
        return refuse(fault, err, "%s: another process has it open for writing; stop that one, or open read-only",
                      store->path);
    return err == RD_OK ? RD_OK : refuse(fault, err, "%s: %s", store->path, rd_err_text(err));
}

static rd_err index_file(rd_store *store, const atomic_bool *cancel, rd_fault *fault)
{
    uint64_t bytes;
    rd_err err = file_size(&store->file, &bytes);
    if (err == RD_OK && bytes > RD_OFFSET_MAX)
        return refuse(fault, RD_E_NOT_STORE, "%s: larger than 256 TiB, which no store can be (F-10)", store->path);
    if (err == RD_OK)
        err = mapping_create(&store->file, bytes, 1, NULL, &store->mapping);
    if (err == RD_OK)
        err = index_init(&store->index);
    if (err != RD_OK) {
        fault->os_error = errno;
        return refuse(fault, err, "%s: %s (%s)", store->path, rd_err_text(err), strerror(errno));
    }
    struct recovered found;
    err = recover(store->mapping->base, bytes, cancel, &store->index, &fault->offset, &found);
    if (err == RD_E_DAMAGED)
        return refuse(fault, err, "%s: damaged: no whole entry ends at offset %llu; nothing was changed", store->path,
                      (unsigned long long)fault->offset);
    if (err != RD_OK)
        return refuse(fault, err, "%s: %s", store->path, rd_err_text(err));
    store->tail_off = found.tail_off;
    store->entries = found.entries;
    store->live_keys = found.live_keys;
    store->live_bytes = found.live_bytes;
    store->unread_bytes = bytes - found.tail_off;
    return RD_OK;
}

static rd_err check_writable(rd_store *store, rd_fault *fault)
{
    if (!store->options.writable)
        return RD_OK;
    if (store->unread_bytes > 0) {
        fault->offset = store->tail_off;
        return refuse(
            fault, RD_E_DAMAGED,
            "%s: a torn tail of %llu bytes begins at offset %llu, so it can't be opened for writing; what lies "
            "before it can be read; nothing was changed",
            store->path, (unsigned long long)store->unread_bytes, (unsigned long long)store->tail_off);
    }
    if (store->file.created && file_sync_directory(store->path) != RD_OK) {
        fault->os_error = errno;
        return refuse(fault, RD_E_SYNC, "%s: syncing its directory: %s", store->path, strerror(errno));
    }
    return RD_OK;
}

rd_err rd_store_open(const char *path, const rd_open_options *options, rd_fault *out_fault, rd_store **out_store)
{
    rd_fault scratch;
    rd_fault *fault = out_fault != NULL ? out_fault : &scratch;
    *fault = (rd_fault){0};
    RD_CLEANUP(store_close_up) rd_store *store = store_alloc(path, options);
    if (store == NULL)
        return refuse(fault, RD_E_NOMEM, "%s: %s", path, rd_err_text(RD_E_NOMEM));
    RD_TRY(open_file(store, options, fault));
    RD_TRY(index_file(store, options->cancel, fault));
    RD_TRY(check_writable(store, fault));
    *out_store = store;
    store = NULL; /* ownership leaves */
    return RD_OK;
}

rd_err rd_store_file_size(rd_store *store, uint64_t *out_bytes)
{
    return file_size(&store->file, out_bytes);
}

rd_err rd_store_info_get(rd_store *store, rd_store_info *out_info)
{
    rd_store_info info = {.unread_bytes = store->unread_bytes, .writable = store->options.writable};
    RD_TRY(file_size(&store->file, &info.file_size));
    pthread_rwlock_rdlock(&store->publish);
    info.live_keys = store->live_keys;
    info.entries = store->entries;
    info.tail_off = store->tail_off;
    info.live_bytes = store->live_bytes;
    info.damaged_entries = store->damaged_keys;
    info.index_bytes = store->index.capacity * sizeof(struct slot);
    pthread_rwlock_unlock(&store->publish);
    *out_info = info;
    return RD_OK;
}

uint64_t rd_store_len(rd_store *store)
{
    pthread_rwlock_rdlock(&store->publish);
    uint64_t live_keys = store->live_keys;
    pthread_rwlock_unlock(&store->publish);
    return live_keys;
}

bool rd_store_is_empty(rd_store *store)
{
    return rd_store_len(store) == 0;
}
