/* Compaction: the new file, and its way into the store's place. */
#include "base.h"
#include "compact_internal.h"
#include "index_file.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMPACT_SUFFIX ".compact"
#define MODE_BITS      07777u

/* What the rename would replace must be the file that is open. */
static rd_err check_target(const struct compaction *compaction)
{
    struct stat named;
    struct stat opened;
    if (stat(compaction->target, &named) != 0 || fstat(compaction->store->file.fd, &opened) != 0)
        return RD_E_IO;
    if (named.st_ino == opened.st_ino && named.st_dev == opened.st_dev)
        return RD_OK;
    return compact_refuse(compaction, RD_E_IO, "%s: names another file than the one that is open; nothing was changed",
                          compaction->target);
}

/* ---- the new file ----------------------------------------------------------------------------------------------- */

/* A compaction that was killed leaves its file. This process has the store's lock, so it is nobody's, unless somebody
   has that file open as a store. */
static rd_err remove_left_over(const struct compaction *compaction)
{
    int fd = open(compaction->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    if (locked)
        return compact_refuse(compaction, RD_E_LOCKED,
                              "%s: another process has it open for writing; nothing was changed", compaction->path);
    return unlink(compaction->path) == 0 || errno == ENOENT ? RD_OK : RD_E_IO;
}

/* Owner and group of the old file. Who may write it need not be its owner, so that one is kept where it can be; but
   under another group its bits would shut out who reads it, and let in who must not. */
static rd_err inherit_owner(const struct compaction *compaction, const struct stat *old)
{
    struct stat made;
    int fd = compaction->file.fd;
    unsigned group_bits = old->st_mode >> 3 & 7;
    if (fchown(fd, old->st_uid, old->st_gid) == 0 || fchown(fd, (uid_t)-1, old->st_gid) == 0)
        return RD_OK;
    int saved = errno;
    if (fstat(fd, &made) == 0 && (made.st_gid == old->st_gid || group_bits == (old->st_mode & 7)))
        return RD_OK;
    return compact_refuse(compaction, RD_E_IO,
                          "%s: giving the new file its group, %u: %s; nothing was changed: compact it as a member of "
                          "that group",
                          compaction->store->path, (unsigned)old->st_gid, strerror(saved));
}

/* The lock, owner and mode of the old file for the new. */
static rd_err inherit(const struct compaction *compaction)
{
    struct stat old;
    int fd = compaction->file.fd;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? RD_E_LOCKED : RD_E_IO;
    if (fstat(compaction->store->file.fd, &old) != 0)
        return RD_E_IO;
    if (old.st_nlink > 1)
        return compact_refuse(compaction, RD_E_UNSUPPORTED,
                              "%s: it has %llu names (hard links), and the others would be left with the old file; "
                              "nothing was changed: remove them first",
                              compaction->target, (unsigned long long)old.st_nlink);
    RD_TRY(inherit_owner(compaction, &old));
    return fchmod(fd, old.st_mode & MODE_BITS) == 0 ? RD_OK : RD_E_IO;
}

rd_err compact_make_file(struct compaction *compaction)
{
    compaction->doing = "making the new file";
    compaction->target = realpath(compaction->store->path, NULL);
    if (compaction->target == NULL)
        return RD_E_IO;
    RD_TRY(check_target(compaction));
    compaction->path = file_beside(compaction->target, COMPACT_SUFFIX);
    if (compaction->path == NULL)
        return RD_E_NOMEM;
    RD_TRY(remove_left_over(compaction));
    compaction->file.fd = open(compaction->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (compaction->file.fd < 0)
        return file_error();
    RD_TRY(inherit(compaction));
    RD_TRY(index_init(&compaction->index));
    return appender_begin(&compaction->appender, 0);
}

/* ---- taking the store's place: `write` is held ------------------------------------------------------------------- */

/* The live ones are the same in both files, and nobody changes them while writers are held; save a reader that finds
   damage, which in a file that was checked just now is news. */
static rd_err take_figures(const struct compaction *compaction, struct figures *out_figures)
{
    struct figures figures;
    uint64_t tail_off;
    view_figures(compaction->store->view, &figures, &tail_off);
    figures.entries = compaction->entries;
    *out_figures = figures;
    return figures.damaged_keys > 0 ? compact_check_damage(compaction) : RD_OK;
}

/* The next generation. `figures` may be those of damage that is the old file's alone. */
static rd_err make_view(struct compaction *compaction, struct figures *figures)
{
    struct layout *layout;
    struct mapping *mapping;
    uint64_t tail_off = appender_tail(&compaction->appender);
    RD_TRY(layout_create(&layout)); /* all of it is checked, so it is empty */
    compaction->doing = "mapping the new file";
    rd_err err = mapping_create(&compaction->file, tail_off, compaction->generation + 1, layout, &mapping);
    layout_unref(layout);
    RD_TRY(err);
    figures->damaged_keys = 0;
    err = view_create(mapping, &compaction->index, &compaction->file, tail_off, figures,
                      compaction->store->options.verify, &compaction->view);
    if (err != RD_OK)
        mapping_release(mapping);
    return err;
}

/* A snapshot of the index is of the old file (I-12). What lies there and is none stays: it is never believed. */
static rd_err remove_index(const struct compaction *compaction)
{
    struct index_file beside = {0};
    struct index_file *file = &compaction->store->index_file;
    RD_TRY(index_file_init(&beside, compaction->target, NULL));
    rd_err err = index_file_check(beside.path) != RD_OK ? RD_OK : index_file_remove(beside.path);
    free(beside.path);
    if (err == RD_OK && file->path != NULL && !file->beside) {
        rd_err elsewhere = index_file_remove(file->path);
        (void)elsewhere; /* it may not be ours to remove, and would be refused */
    }
    file->entries = 0;
    file->first_off = 0;
    return err;
}

static rd_err rename_copy(struct compaction *compaction)
{
    compaction->doing = "putting the new file in place";
    RD_TRY(check_target(compaction));
    if (rename(compaction->path, compaction->target) == 0) {
        compaction->placed = true;
        return RD_OK;
    }
    compaction->fault->os_error = errno;
    if (errno == EBUSY)
        return compact_refuse(
            compaction, RD_E_IO,
            "%s: it is a mount point, which can't be replaced; nothing was changed: mount the directory, not "
            "the file",
            compaction->target);
    return file_error();
}

/* The last steps that can fail, and the rename. */
static rd_err put_in_place(struct compaction *compaction)
{
    rd_store *store = compaction->store;
    compaction->doing = "writing STORE.writer";
    const struct layout *layout = store->view->mapping->layout;
    uint64_t tail_off = appender_tail(&compaction->appender);
    rd_err err = writer_line_move(store->line, &store->file, layout, &compaction->file, tail_off);
    compaction->doing = err == RD_OK ? "removing STORE.idx" : compaction->doing;
    if (err == RD_OK)
        err = remove_index(compaction);
    if (err == RD_OK)
        err = rename_copy(compaction);
    if (err != RD_OK) {
        int saved = errno;
        rd_err back = writer_line_move(store->line, &store->file, layout, &store->file, store->view->tail_off);
        (void)back; /* a line that isn't back is written before the next append */
        errno = saved;
    }
    return err;
}

/* Nothing can fail any more. What the store had is the compaction's now: giving it back may take long, so that waits
   until writers go on. */
static void swap(struct compaction *compaction)
{
    rd_store *store = compaction->store;
    struct file old_file = store->file;
    store->file = compaction->file;
    compaction->file = old_file;
    compaction->view = store_replace(store, compaction->view);
    store->unsynced = false;
}

static rd_err replace(struct compaction *compaction)
{
    rd_store *store = compaction->store;
    struct figures figures;
    RD_TRY(compact_check_file(compaction));
    RD_TRY(compact_copy_appended(compaction, false));
    RD_TRY(take_figures(compaction, &figures));
    RD_TRY(compact_sync_copy(compaction));
    compaction->doing = "syncing the store";
    if (file_sync(&store->file) != RD_OK) { /* a crash before the rename must find it whole: no line speaks for it */
        store->write_ended = true;
        return RD_E_SYNC;
    }
    RD_TRY(make_view(compaction, &figures));
    RD_TRY(put_in_place(compaction));
    compaction->doing = "syncing the directory";
    rd_err err = file_sync_directory(compaction->target);
    if (err != RD_OK)
        store->write_ended = true; /* a power cut may bring the old file back, without what would be appended here */
    int saved = errno;
    swap(compaction);
    errno = saved;
    return err == RD_OK ? RD_OK : RD_E_SYNC;
}

rd_err compact_replace(struct compaction *compaction)
{
    pthread_mutex_lock(&compaction->store->write);
    rd_err err = replace(compaction);
    pthread_mutex_unlock(&compaction->store->write);
    return err;
}
