/* Verbs that look at one thing: info, get, exists, metadata, last. */
#include "facts.h"
#include "key.h"
#include "out.h"
#include "session.h"
#include "text.h"

#include <inttypes.h>
#include <stdio.h>

static const struct tool_open_how read_only = {0};

int verb_info(const struct cli_call *call)
{
    AUTO_STORE *store = NULL;
    int status = session_open(call, &read_only, &store);
    if (status != STATUS_DONE)
        return status;
    struct tool_fact facts[TOOL_FACTS_MAX];
    size_t count = 0;
    struct tool_damage damage = {0};
    rd_err err = store->ops->info(store, facts, &count);
    if (err == RD_OK)
        err = store->ops->damage(store, &damage);
    if (err != RD_OK)
        return session_report(store, NULL, err);
    struct out out;
    out_init_stdout(&out);
    facts_print(&out, call->given[OPTION_JSON], facts, count, &damage);
    return out_finish(&out, STATUS_DONE);
}

/** Understand KEY and open the store, in this order: a bad command line touches no file. */
static int open_for_key(const struct cli_call *call, struct key *key, struct tool_store **out_store)
{
    int status = key_parse(call, call->args[1], key);
    return status != STATUS_DONE ? status : session_open(call, &read_only, out_store);
}

static int report_key(struct tool_store *store, const struct key *key, rd_err err)
{
    char label[KEY_LABEL_BYTES];
    return session_report(store, key_label(key, label), err);
}

struct payload_sink {
    struct out out;
    bool vanished;
};

static bool sink_to_out(void *arg, rd_span bytes)
{
    struct payload_sink *sink = arg;
    sink->vanished = !out_payload(&sink->out, bytes);
    return !sink->vanished && sink->out.error == 0;
}

int verb_get(const struct cli_call *call)
{
    AUTO_KEY key = {0};
    AUTO_STORE *store = NULL;
    int status = open_for_key(call, &key, &store);
    if (status != STATUS_DONE)
        return status;
    struct payload_sink sink = {.vanished = false};
    out_init_stdout(&sink.out);
    rd_err err = store->ops->read(store, &key.key, &(struct tool_sink){sink_to_out, &sink});
    if (err != RD_OK && sink.out.error == 0)
        return report_key(store, &key, sink.vanished ? RD_E_TRUNCATED : err);
    return out_finish(&sink.out, STATUS_DONE);
}

int verb_exists(const struct cli_call *call)
{
    AUTO_KEY key = {0};
    AUTO_STORE *store = NULL;
    int status = open_for_key(call, &key, &store);
    if (status != STATUS_DONE)
        return status;
    rd_err err = store->ops->exists(store, &key.key);
    if (err != RD_OK && err != RD_ABSENT)
        return report_key(store, &key, err);
    struct out out;
    out_init_stdout(&out);
    out_text(&out, err == RD_OK ? "true\n" : "false\n");
    return out_finish(&out, err == RD_OK ? STATUS_DONE : STATUS_ABSENT);
}

/** Print what the file says of an entry; `size` is NULL where it was not asked. */
static int print_entry(const struct cli_call *call, const rd_metadata *meta, const uint64_t *size)
{
    char key_hash[17], checksum[9];
    (void)snprintf(key_hash, sizeof(key_hash), "%016" PRIx64, meta->key_hash);
    (void)snprintf(checksum, sizeof(checksum), "%08" PRIx32, meta->checksum);
    struct out out;
    out_init_stdout(&out);
    if (call->given[OPTION_JSON]) {
        out_print(&out, "{\"key_hash\": \"%s\", ", key_hash);
        if (size != NULL)
            out_print(&out, "\"payload_size\": %" PRIu64 ", ", *size);
        out_print(&out, "\"checksum\": \"%s\", \"prev_offset\": %" PRIu64 ", \"tombstone\": %s}\n", checksum,
                  meta->prev_off, meta->tombstone ? "true" : "false");
    } else {
        out_print(&out, "%-13s %s\n", "key_hash", key_hash);
        if (size != NULL)
            out_print(&out, "%-13s %" PRIu64 "\n", "payload_size", *size);
        out_print(&out, "%-13s %s\n%-13s %" PRIu64 "\n%-13s %s\n", "checksum", checksum, "prev_offset", meta->prev_off,
                  "tombstone", meta->tombstone ? "true" : "false");
    }
    return out_finish(&out, STATUS_DONE);
}

int verb_metadata(const struct cli_call *call)
{
    AUTO_KEY key = {0};
    AUTO_STORE *store = NULL;
    int status = open_for_key(call, &key, &store);
    if (status != STATUS_DONE)
        return status;
    rd_metadata meta = {0};
    rd_err err = store->ops->metadata(store, &key.key, &meta);
    return err == RD_OK ? print_entry(call, &meta, NULL) : report_key(store, &key, err);
}

int verb_last(const struct cli_call *call)
{
    AUTO_STORE *store = NULL;
    int status = session_open(call, &read_only, &store);
    if (status != STATUS_DONE)
        return status;
    rd_metadata meta = {0};
    uint64_t size = 0;
    rd_err err = store->ops->last(store, &meta, &size);
    if (err == RD_ABSENT)
        return report(STATUS_ABSENT, "%s: the store has no entry", store->target);
    return err == RD_OK ? print_entry(call, &meta, &size) : session_report(store, "the newest entry", err);
}
