/* export: base64 by pieces, so that a value of any size passes through little memory. */
#include "out.h"
#include "progress.h"
#include "session.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nettle/base64.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES         ((size_t)3 << 14) /* whole groups of three: only the last piece has padding */
#define DAMAGED_LISTED_MAX  100               /* damaged entries reported one by one; the rest is counted */
#define PROGRESS_STEP_COUNT 256               /* entries between two looks at the clock */

struct export
{
    struct out out;
    const struct tool_store *store;
    struct progress progress;
    uint64_t seen;
    uint64_t damaged;
    bool vanished; /* the file was cut under the value that was being written */
    uint8_t piece[PIECE_BYTES];
    char text[BASE64_ENCODE_RAW_LENGTH(PIECE_BYTES)];
};

/** Returns: false where the payload's bytes vanished; then half a line is written, which no import takes for a whole.
 */
static bool put_base64(struct export *ex, rd_span payload)
{
    const uint8_t *from = payload.data;
    for (size_t at = 0; at < payload.len && ex->out.error == 0; at += PIECE_BYTES) {
        size_t len = payload.len - at < PIECE_BYTES ? payload.len - at : PIECE_BYTES;
        if (!rd_copy(ex->piece, (rd_span){from + at, len}))
            return false;
        base64_encode_raw(ex->text, len, ex->piece);
        out_bytes(&ex->out, (rd_span){ex->text, BASE64_ENCODE_RAW_LENGTH(len)});
    }
    return true;
}

static bool export_entry(void *arg, rd_err err, const rd_metadata *meta, rd_span payload)
{
    struct export *ex = arg;
    if (err == RD_OK) {
        out_print(&ex->out, "{\"key_hash\":\"%016" PRIx64 "\",\"value_base64\":\"", meta->key_hash);
        ex->vanished = !put_base64(ex, payload);
        if (ex->vanished)
            return false;
        out_text(&ex->out, "\"}\n");
    } else if (ex->damaged++ < DAMAGED_LISTED_MAX) {
        progress_clear(&ex->progress);
        (void)report(STATUS_FAILED, "%s: key hash %016" PRIx64 ": %s; left out", ex->store->target, meta->key_hash,
                     rd_err_text(err));
    }
    if (++ex->seen % PROGRESS_STEP_COUNT == 0)
        progress_step(&ex->progress, ex->seen, ex->seen);
    return ex->out.error == 0;
}

/** Open FILE for `ex->out`, or take standard output; never the store's own file, which would be its end. */
static int open_output(struct export *ex, struct tool_store *store, const char *path)
{
    bool to_file = path != NULL && strcmp(path, "-") != 0;
    int fd = to_file ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : STDOUT_FILENO;
    if (fd < 0)
        return report(STATUS_FAILED, "opening %s: %s", path, strerror(errno));
    out_init(&ex->out, fd, to_file ? path : "standard output");
    if (store->ops->is_file(store, fd))
        return report(STATUS_FAILED, "export: %s is the store itself", ex->out.name);
    struct stat about; /* emptied only now, when it is known not to be the store; pipes and devices stay as they are */
    if (to_file && (fstat(fd, &about) != 0 || (S_ISREG(about.st_mode) && ftruncate(fd, 0) != 0)))
        return report(STATUS_FAILED, "emptying %s: %s", path, strerror(errno));
    return STATUS_DONE;
}

int verb_export(const struct cli_call *call)
{
    static const struct tool_open_how read_only = {0};
    AUTO_STORE *store = NULL;
    int status = session_open(call, &read_only, &store);
    if (status != STATUS_DONE)
        return status;
    struct export ex = {.store = store};
    status = open_output(&ex, store, call->arg_count > 1 ? call->args[1] : NULL);
    if (status != STATUS_DONE)
        return status; /* the process ends with it, and its descriptor */
    progress_init(&ex.progress, "export", session_fact(store, "live_keys"));
    if (isatty(ex.out.fd) == 1)
        ex.progress.on = false; /* the entries themselves are to be seen there */
    rd_err err = store->ops->iterate(store, export_entry, &ex);
    progress_clear(&ex.progress);
    if (err == RD_OK && ex.vanished)
        err = RD_E_TRUNCATED;
    if (err != RD_OK)
        status = session_report(store, "export", err);
    else if (ex.damaged > 0) {
        status = report(STATUS_FAILED, "%s: %" PRIu64 " damaged %s left out", store->target, ex.damaged,
                        ex.damaged == 1 ? "entry was" : "entries were");
        session_tell_index(store);
    }
    return out_finish(&ex.out, status);
}
