/* ls: a line an entry as it goes by, so that a store of any size is listed in little memory. */
#include "out.h"
#include "session.h"

#include <inttypes.h>

struct listing {
    struct out out;
    bool json;
    uint64_t count;
    uint64_t damaged;
};

static bool list_entry(void *arg, rd_err err, const rd_metadata *meta, rd_span payload)
{
    struct listing *listing = arg;
    struct out *out = &listing->out;
    bool damaged = err != RD_OK;
    if (listing->json) {
        out_print(out, "%s\n{\"key_hash\": \"%016" PRIx64 "\", ", listing->count == 0 ? "" : ",", meta->key_hash);
        if (damaged) /* its bytes are not known to be that many, so none are named */
            out_text(out, "\"payload_size\": null");
        else
            out_print(out, "\"payload_size\": %zu", payload.len);
        out_print(out, ", \"checksum\": \"%08" PRIx32 "\", \"prev_offset\": %" PRIu64 ", \"damaged\": %s}",
                  meta->checksum, meta->prev_off, damaged ? "true" : "false");
    } else if (damaged) {
        out_print(out, "%016" PRIx64 " %10s %08" PRIx32 " %" PRIu64 " damaged\n", meta->key_hash, "-", meta->checksum,
                  meta->prev_off);
    } else {
        out_print(out, "%016" PRIx64 " %10zu %08" PRIx32 " %" PRIu64 "\n", meta->key_hash, payload.len, meta->checksum,
                  meta->prev_off);
    }
    listing->count++;
    listing->damaged += damaged ? 1 : 0;
    return out->error == 0;
}

int verb_ls(const struct cli_call *call)
{
    static const struct tool_open_how read_only = {0};
    AUTO_STORE *store = NULL;
    int status = session_open(call, &read_only, &store);
    if (status != STATUS_DONE)
        return status;
    struct listing listing = {.json = call->given[OPTION_JSON]};
    out_init_stdout(&listing.out);
    out_text(&listing.out, listing.json ? "[" : "");
    rd_err err = store->ops->iterate(store, list_entry, &listing);
    if (err != RD_OK) /* the JSON document stays open on purpose: half a list must not pass for a whole one */
        return out_finish(&listing.out, session_report(store, "listing", err));
    out_text(&listing.out, listing.json ? "\n]\n" : "");
    if (listing.damaged > 0) {
        status = report(STATUS_FAILED, "%s: %" PRIu64 " damaged %s", store->target, listing.damaged,
                        listing.damaged == 1 ? "entry" : "entries");
        session_tell_index(store);
    }
    return out_finish(&listing.out, status);
}
