/* verify: every payload of the file, superseded ones too. */
#include "facts.h"
#include "progress.h"
#include "session.h"

#include <inttypes.h>

static bool verify_step(void *arg, uint64_t bytes_done, uint64_t bytes_total, uint64_t entries_done)
{
    struct progress *progress = arg;
    progress->total = bytes_total;
    progress_step(progress, bytes_done, entries_done);
    return true;
}

static rd_err check(struct tool_store *store, rd_verified *out_verified, struct tool_damage *out_damage)
{
    struct progress progress;
    progress_init(&progress, "verify", 0);
    progress_show(&progress);
    rd_err err = store->ops->verify(store, verify_step, &progress, out_verified);
    progress_clear(&progress);
    return err == RD_OK ? store->ops->damage(store, out_damage) : err;
}

int verb_verify(const struct cli_call *call)
{
    static const struct tool_open_how read_only = {.index = "off"};
    AUTO_STORE *store = NULL;
    int status = session_open(call, &read_only, &store);
    if (status != STATUS_DONE)
        return status;
    rd_verified verified = {0};
    struct tool_damage damage = {0};
    rd_err err = check(store, &verified, &damage);
    if (err != RD_OK)
        return session_report(store, "verify", err);
    bool is_damaged = verified.failed > 0 || damage.damaged_ranges > 0 || damage.damaged_entries > 0;
    const struct tool_fact facts[] = {
        {"path", store->target, 0},
        {"result", is_damaged ? "damaged" : "ok", 0},
        {"entries", NULL, verified.entries},
        {"bytes", NULL, verified.bytes},
        {"unread_bytes", NULL, damage.unread_bytes},
        {"damaged_entries", NULL, damage.damaged_entries},
        {"damaged_ranges", NULL, damage.damaged_ranges},
        {"unidentified_ranges", NULL, damage.unidentified_ranges},
    };
    struct out out;
    out_init_stdout(&out);
    facts_print(&out, call->given[OPTION_JSON], facts, sizeof(facts) / sizeof(facts[0]), &damage);
    if (is_damaged)
        status = report(STATUS_FAILED,
                        "%s: damaged: keys %" PRIu64 ", ranges %" PRIu64 ", of these unidentified %" PRIu64
                        "; `rdrive repair` writes what holds to a new file",
                        store->target, damage.damaged_entries, damage.damaged_ranges, damage.unidentified_ranges);
    return out_finish(&out, status);
}
