/* compact: the engine does it; what is told of it. */
#include "out.h"
#include "progress.h"
#include "session.h"
#include "text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

static bool compact_step(void *arg, const rd_compact_progress *step)
{
    struct progress *progress = arg;
    progress->total = step->entries_total;
    progress_step(progress, step->entries_done, step->entries_done);
    return true;
}

static void path_free(char **path)
{
    free(*path);
}

/** The Rust crate's own compaction leaves STORE.bk where it is interrupted, and takes it up again at its next (E-08).
 */
static void tell_of_leftover(const struct tool_store *store)
{
    char *path __attribute__((cleanup(path_free))) = text_join(store->target, ".bk");
    struct stat about;
    if (path != NULL && lstat(path, &about) == 0)
        (void)report(STATUS_DONE,
                     "%s: left by an interrupted compaction of the Rust crate; it was left alone; remove it before the "
                     "crate compacts this store, or deleted keys come back",
                     path);
}

int verb_compact(const struct cli_call *call)
{
    static const struct tool_open_how writable = {.writable = true, .index = "off"};
    AUTO_STORE *store = NULL;
    int status = session_open(call, &writable, &store);
    if (status != STATUS_DONE)
        return status;
    tell_of_leftover(store);
    uint64_t bytes_before = session_fact(store, "file_size");
    struct progress progress;
    progress_init(&progress, "compact", 0);
    progress_show(&progress);
    rd_fault fault = {0};
    rd_compacted compacted = {0};
    const rd_compact_options options = {.progress = compact_step, .arg = &progress};
    rd_err err = store->ops->compact(store, &options, &fault, &compacted);
    progress_clear(&progress);
    if (err != RD_OK)
        return fault.text[0] != '\0' ? report(STATUS_FAILED, "%s", fault.text) : session_report(store, "compact", err);
    struct out out;
    out_init_stdout(&out);
    out_print(&out,
              "entries         %" PRIu64 "\nbytes_before    %" PRIu64 "\nbytes_after     %" PRIu64
              "\nbytes_reclaimed %" PRIu64 "\n",
              compacted.entries, bytes_before, compacted.bytes_written, compacted.bytes_reclaimed);
    return out_finish(&out, STATUS_DONE);
}
