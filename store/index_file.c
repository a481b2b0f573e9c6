/* STORE.idx: what loading and making it share, and the call that makes one. */
#include "index_file.h"
#include "base.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define INDEX_SUFFIX ".idx"

static const struct {
    bool stale;
    const char *text;
} sources[] = {
#define SOURCE_ROW(name, stale, text) [name] = {stale, text},
    RD_INDEX_SOURCES(SOURCE_ROW)
#undef SOURCE_ROW
};

const char *rd_index_text(rd_index_source source)
{
    return (unsigned)source < RD_INDEX_SOURCE_COUNT ? sources[source].text : "unknown";
}

bool index_file_is_stale(rd_index_source source)
{
    return (unsigned)source < RD_INDEX_SOURCE_COUNT && sources[source].stale;
}

rd_err index_file_init(struct index_file *file, const char *store_path, const char *option)
{
    if (option != NULL && strcmp(option, "off") == 0)
        return RD_OK;
    file->beside = option == NULL || strcmp(option, "auto") == 0;
    file->path = file->beside ? file_beside(store_path, INDEX_SUFFIX) : strdup(option);
    return file->path != NULL ? RD_OK : RD_E_NOMEM;
}

uint64_t index_file_writer(const char *store_path, uint64_t inode, struct writer_said *out_said)
{
    char text[160];
    if (!writer_line_read(store_path, out_said) || out_said->inode != inode)
        return 0;
    int len =
        snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64 " %s", out_said->pid, out_said->start, out_said->host);
    return rd_hash((rd_span){text, (size_t)len});
}

/* The line for people. */
static rd_err tell(rd_fault *fault, const rd_store *store, const char *path, const char *doing, rd_err err)
{
    const char *why = rd_err_text(err);
    fault->os_error = err == RD_E_IO || err == RD_E_NO_SPACE || err == RD_E_SYNC ? errno : 0;
    if (err == RD_ABSENT)
        why = "the store has no entry, so there is nothing to index";
    else if (err == RD_E_DAMAGED)
        why = "the store's newest entry is damaged, or damage was found just now: write to it, or repair it";
    else if (err == RD_E_LOCKED)
        why = "another process is making one";
    else if (fault->os_error == EEXIST)
        why = "what lies there, or under that name and .new, is no index of rdrive; move it away";
    else if (fault->os_error == ELOOP)
        why = "it is a symbolic link; move it away";
    else if (fault->os_error == ESTALE)
        why = "the path names another file than the one that is open";
    else if (fault->os_error != 0)
        why = strerror(fault->os_error);
    snprintf(fault->text, sizeof(fault->text), "%s: %s (%s): %s", store->path, doing, path, why);
    return err;
}

rd_err rd_store_save_index(rd_store *store, const char *path, rd_fault *out_fault, rd_indexed *out_indexed)
{
    rd_fault scratch;
    rd_fault *fault = out_fault != NULL ? out_fault : &scratch;
    struct index_file beside = {0};
    const char *doing = "naming the file";
    *fault = (rd_fault){0};
    if (path == NULL && index_file_init(&beside, store->path, NULL) != RD_OK)
        return tell(fault, store, INDEX_SUFFIX, doing, RD_E_NOMEM);
    const char *target = path != NULL ? path : beside.path;
    pthread_mutex_lock(&store->write);
    rd_err err = index_file_write(store, target, &doing, out_indexed);
    pthread_mutex_unlock(&store->write);
    if (err != RD_OK)
        tell(fault, store, target, doing, err);
    free(beside.path);
    return err;
}
