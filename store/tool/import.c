/*
 * import: lines become items, items batches, and one sync at the end makes all of it durable. Whatever stops it, what
 * was understood before is written and synced, and the message says how much that was and which line stopped it.
 */
#include "in.h"
#include "parse.h"
#include "progress.h"
#include "session.h"
#include "text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_ITEMS_MAX 1000
#define BATCH_BYTES     ((size_t)4 << 20) /* a batch ends once its values reach this */

struct import {
    struct in in;
    struct tool_store *store;
    parse_line *parse;
    struct progress progress;
    uint64_t written; /* entries; as each line is one, the line that comes next is written + item_count + 1 */

    /* The batch. Values lie in one buffer that moves as it grows, so items point into it only when it is written. */
    rd_write_item items[BATCH_ITEMS_MAX];
    size_t item_count;
    struct buf values;

    rd_err err;    /* of the store */
    char why[700]; /* what else ended the import; empty: the end of the input */
};

static void import_free(struct import **import)
{
    if (*import == NULL)
        return;
    session_cleanup(&(*import)->store);
    in_close(&(*import)->in);
    buf_fini(&(*import)->values);
    free(*import);
}

static bool flush(struct import *im)
{
    size_t at = 0;
    if (im->item_count == 0)
        return true;
    for (size_t i = 0; i < im->item_count; i++) {
        im->items[i].payload.data = im->values.data + at;
        at += im->items[i].payload.len;
    }
    im->err = im->store->ops->write(im->store, im->items, im->item_count);
    if (im->err != RD_OK)
        return false;
    im->written += im->item_count;
    im->item_count = 0;
    memmove(im->values.data, im->values.data + at, im->values.len - at); /* the line that had no room in it */
    im->values.len -= at;
    progress_step(&im->progress, im->in.read, im->written);
    return true;
}

/** Whether the store takes one more item, whose value is the last of `values`, in the batch. */
static bool fits(const struct import *im)
{
    size_t items_max = im->store->write_items_max, bytes_max = im->store->write_bytes_max;
    return (items_max == 0 || im->item_count < items_max) &&
           (bytes_max == 0 || im->values.len + (im->item_count + 1) * TOOL_ITEM_BYTES <= bytes_max);
}

/** Take one line into the batch. Returns: false if the import ends here. */
static bool take_line(struct import *im, rd_span line)
{
    struct parse_why why = {{0}};
    uint64_t hash = 0;
    size_t start = im->values.len;
    rd_err err = im->parse(line, &im->values, &hash, &why);
    if (err != RD_OK) {
        (void)snprintf(im->why, sizeof(im->why), "%s", err == RD_E_INVALID ? why.text : rd_err_text(err));
        return false;
    }
    size_t len = im->values.len - start;
    if (!fits(im) && !flush(im))
        return false;
    im->items[im->item_count++] = (rd_write_item){hash, {NULL, len}};
    if (im->item_count < BATCH_ITEMS_MAX && im->values.len < BATCH_BYTES)
        return true;
    return flush(im);
}

static void take_lines(struct import *im)
{
    for (;;) {
        rd_span line;
        enum in_result result = in_line(&im->in, &line);
        if (result == IN_END)
            return;
        if (result != IN_OK) {
            (void)snprintf(im->why, sizeof(im->why), "%s", in_why(&im->in, result));
            return;
        }
        if (!take_line(im, line))
            return;
    }
}

/** Write what is left, sync, and tell what came of it. Returns: the exit status. */
static int finish(struct import *im)
{
    uint64_t line = im->written + im->item_count + 1; /* the one that stopped it, where one did */
    if (im->err == RD_OK && im->item_count > 0)
        (void)flush(im);
    uint64_t first_unwritten = im->written + 1;
    progress_clear(&im->progress);
    char why[sizeof(im->why)];
    (void)snprintf(why, sizeof(why), "%s", session_why(im->store, im->err)); /* before the sync has its own */
    rd_err sync_err = im->store->ops->sync(im->store);
    const char *name = im->in.name;
    if (im->err != RD_OK)
        return report(STATUS_FAILED,
                      "%s: %s; nothing was written from %s line %" PRIu64
                      " on; entries before it, written %s: %" PRIu64,
                      im->store->target, why, name, first_unwritten,
                      sync_err == RD_OK ? "and synced" : "but not synced", im->written);
    if (im->why[0] != '\0')
        return report(STATUS_FAILED, "%s: line %" PRIu64 ": %s; entries before it, written %s: %" PRIu64, name, line,
                      im->why, sync_err == RD_OK ? "and synced" : "but not synced", im->written);
    if (sync_err != RD_OK && sync_err != RD_E_UNSUPPORTED) /* a store that syncs by itself says so at its close */
        return report(STATUS_FAILED, "%s: %s; entries written, none of them known to be durable: %" PRIu64,
                      im->store->target, session_why(im->store, sync_err), im->written);
    return STATUS_DONE;
}

static parse_line *pick_parser(const struct cli_call *call, const char *path)
{
    static parse_line *const parsers[] = {[PARSE_TSV] = parse_tsv, [PARSE_JSONL] = parse_jsonl};
    static const char ending[] = ".jsonl";
    size_t len = path == NULL ? 0 : strlen(path);
    if (!call->given[OPTION_FORMAT] && len >= sizeof(ending) - 1 &&
        strcmp(path + len - (sizeof(ending) - 1), ending) == 0)
        return parse_jsonl;
    return parsers[call->choice[OPTION_FORMAT]];
}

int verb_import(const struct cli_call *call)
{
    const char *path = call->arg_count > 1 ? call->args[1] : NULL;
    struct import *im __attribute__((cleanup(import_free))) = calloc(1, sizeof(*im));
    if (im == NULL)
        return report(STATUS_FAILED, "import: %s", rd_err_text(RD_E_NOMEM));
    im->parse = pick_parser(call, path);
    if (!in_open(&im->in, path)) /* before the store: where there is nothing to read, none is made */
        return report(STATUS_FAILED, "reading %s: %s", im->in.name, strerror(im->in.error));
    const struct tool_open_how how = {.writable = true, .create = true, .sync = RD_SYNC_NONE};
    int status = session_open(call, &how, &im->store);
    if (status != STATUS_DONE)
        return status;
    if (im->store->ops->is_file(im->store, im->in.fd))
        return report(STATUS_FAILED, "import: %s is the store itself", im->in.name);
    progress_init(&im->progress, "import", im->in.total);
    take_lines(im);
    return finish(im);
}
