/*
 * repair: what holds goes to a new file. It is written as NEW.repair and takes its name only once it is whole and
 * synced, so that half a store, after a crash too, never passes for a repaired one.
 */
#include "out.h"
#include "session.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct draft {
    const char *path; /* NEW */
    char *temp;       /* NEW.repair */
    char *writer;     /* what the engine notes beside it while it writes */
    bool made;
    bool opened; /* by the engine, which writes over no `writer` of somebody else */
};

static void draft_fini(struct draft *draft)
{
    if (draft->made)
        (void)unlink(draft->temp);
    if (draft->opened)
        (void)unlink(draft->writer);
    free(draft->temp);
    free(draft->writer);
}

/** Make the empty NEW.repair, readable by whom `store_path` is. Returns: STATUS_DONE, or after a line on stderr. */
static int draft_make(struct draft *draft, const char *store_path)
{
    struct stat about;
    if (lstat(draft->path, &about) == 0)
        return report(STATUS_FAILED, "repair: --output %s exists; allowed: a name that is free", draft->path);
    if (errno != ENOENT)
        return report(STATUS_FAILED, "repair: --output %s: %s", draft->path, strerror(errno));
    draft->temp = text_join(draft->path, ".repair");
    draft->writer = text_join(draft->path, ".repair.writer");
    if (draft->temp == NULL || draft->writer == NULL)
        return report(STATUS_FAILED, "repair: %s", rd_err_text(RD_E_NOMEM));
    mode_t mode = stat(store_path, &about) == 0 ? about.st_mode & 0666 : 0600;
    int fd = open(draft->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode | 0600);
    if (fd < 0 && errno == EEXIST)
        return report(STATUS_FAILED, "repair: %s exists: a repair is at work, or was interrupted; then remove it first",
                      draft->temp);
    if (fd < 0)
        return report(STATUS_FAILED, "repair: making %s: %s", draft->temp, strerror(errno));
    draft->made = true;
    (void)close(fd);
    return STATUS_DONE;
}

static bool sync_directory(const char *path)
{
    char *copy = strdup(path);
    int fd = copy == NULL ? -1 : open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    int error = errno;
    free(copy);
    if (fd >= 0)
        (void)close(fd);
    errno = error;
    return synced;
}

/** Give the whole and synced draft its name. Returns: STATUS_DONE, or after a line on stderr, and NEW is not there. */
static int draft_keep(struct draft *draft)
{
    if (renameat2(AT_FDCWD, draft->temp, AT_FDCWD, draft->path, RENAME_NOREPLACE) != 0 &&
        /* a file system that knows no such flag; a moment ago the name was free */
        (errno != EINVAL || rename(draft->temp, draft->path) != 0))
        return report(STATUS_FAILED, "repair: renaming %s to %s: %s", draft->temp, draft->path, strerror(errno));
    if (!sync_directory(draft->path)) {
        int error = errno;
        (void)unlink(draft->path);
        return report(STATUS_FAILED, "repair: syncing the directory of %s: %s", draft->path, strerror(error));
    }
    return STATUS_DONE;
}

static void note_key(void *arg, uint64_t key_hash, bool written)
{
    out_print(arg, "%016" PRIx64 " %s\n", key_hash, written ? "written as an older version" : "left out");
}

/** Fill the draft from `store`, and sync it. */
static int draft_fill(const struct cli_call *call, struct draft *draft, struct tool_store *store, struct out *out,
                      rd_repaired *out_repaired)
{
    static const struct tool_open_how how = {.writable = true, .sync = RD_SYNC_NONE, .index = "off"};
    AUTO_STORE *target = NULL;
    int status = session_open_other(call, draft->temp, &how, &target);
    if (status != STATUS_DONE)
        return status;
    draft->opened = true;
    rd_err err = store->ops->repair(store, target, call->given[OPTION_OLDER_VERSIONS], note_key, out, out_repaired);
    if (err == RD_OK)
        err = target->ops->sync(target);
    return err == RD_OK ? STATUS_DONE
                        : report(STATUS_FAILED, "%s: repair to %s: %s; nothing of it was kept", store->target,
                                 draft->path, rd_err_text(err));
}

/** Say how much is in NEW, and whether it is all there was. */
static int tell(const struct tool_store *store, const char *path, const rd_repaired *repaired,
                const struct tool_damage *damage, struct out *out)
{
    out_print(out,
              "written             %" PRIu64 "\nolder               %" PRIu64 "\nleft_out            %" PRIu64
              "\nunidentified_ranges %" PRIu64 "\n",
              repaired->written, repaired->older, repaired->left_out, damage->unidentified_ranges);
    if (repaired->older == 0 && repaired->left_out == 0 && damage->unidentified_ranges == 0)
        return STATUS_DONE;
    return report(
        STATUS_FAILED,
        "%s: repaired to %s, but not all is as it was: keys written %" PRIu64 ", of these older versions %" PRIu64
        "; keys left out %" PRIu64 "; unidentified ranges, where further keys may be lost or older, %" PRIu64,
        store->target, path, repaired->written, repaired->older, repaired->left_out, damage->unidentified_ranges);
}

int verb_repair(const struct cli_call *call)
{
    static const struct tool_open_how read_only = {.index = "off"};
    struct draft draft __attribute__((cleanup(draft_fini))) = {.path = call->value[OPTION_OUTPUT]};
    if (!call->given[OPTION_OUTPUT])
        return report(STATUS_USAGE, "repair: --output NEW is missing; usage: rdrive repair STORE --output NEW");
    if (draft.path[0] == '\0')
        return report(STATUS_USAGE, "repair: --output: \"\" came; allowed: the path of a new file");
    AUTO_STORE *store = NULL;
    int status = session_open(call, &read_only, &store);
    if (status == STATUS_DONE)
        status = draft_make(&draft, store->target);
    if (status != STATUS_DONE)
        return status;
    struct out out;
    rd_repaired repaired = {0};
    struct tool_damage damage = {0};
    out_init_stdout(&out);
    status = draft_fill(call, &draft, store, &out, &repaired);
    if (status == STATUS_DONE)
        status = draft_keep(&draft);
    if (status != STATUS_DONE)
        return status;
    rd_err err = store->ops->damage(store, &damage);
    status = err == RD_OK ? tell(store, draft.path, &repaired, &damage, &out) : session_report(store, "repair", err);
    return out_finish(&out, status);
}
