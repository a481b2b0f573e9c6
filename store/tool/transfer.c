/* rename, copy and move: a value under another key, or in another store. */
#include "key.h"
#include "session.h"
#include "text.h"

#include <inttypes.h>
#include <stdio.h>

#define WHY_BYTES 800

int verb_rename(const struct cli_call *call)
{
    AUTO_KEY old_key = {0};
    AUTO_KEY new_key = {0};
    int status = key_parse(call, call->args[1], &old_key);
    if (status == STATUS_DONE)
        status = key_parse(call, call->args[2], &new_key);
    if (status != STATUS_DONE)
        return status;
    if (call->given[OPTION_HASH] && session_is_served(call->args[0]))
        return report(STATUS_USAGE, "rename: --hash came with STORE %s; a server renames keys, not hashes",
                      QUOTED(text_span(call->args[0])));
    if (old_key.key.hash == new_key.key.hash)
        return report(STATUS_USAGE, "rename: OLD %s and NEW %s have one hash, %016" PRIx64 "; allowed: two keys",
                      QUOTED(text_span(old_key.word)), QUOTED(text_span(new_key.word)), old_key.key.hash);
    AUTO_STORE *store = NULL;
    const struct tool_open_how how = {.writable = true, .sync = session_sync(call)};
    status = session_open(call, &how, &store);
    if (status != STATUS_DONE)
        return status;
    char label[KEY_LABEL_BYTES];
    rd_err err = store->ops->rename(store, &old_key.key, &new_key.key);
    return err == RD_OK ? STATUS_DONE : session_report(store, key_label(&old_key, label), err);
}

/** A value that goes from one store to another by way of us. */
struct carried {
    bool keep; /* else it is only looked at, whether it holds */
    struct buf bytes;
    bool vanished;
    rd_metadata meta; /* of the entry that it was */
};

static void carried_fini(struct carried *carried)
{
    buf_fini(&carried->bytes);
}

static bool carry(void *arg, rd_span bytes)
{
    struct carried *carried = arg;
    if (!carried->keep)
        return true;
    if (!buf_reserve(&carried->bytes, bytes.len))
        return false;
    carried->vanished = !rd_copy(carried->bytes.data + carried->bytes.len, bytes);
    carried->bytes.len += carried->vanished ? 0 : bytes.len;
    return !carried->vanished;
}

/** Read the value: RD_OK, or why there is none to be had. */
static rd_err take(struct tool_store *store, const struct key *key, struct carried *carried)
{
    rd_err err = carried->keep ? store->ops->metadata(store, &key->key, &carried->meta) : RD_OK;
    if (err == RD_OK)
        err = store->ops->read(store, &key->key, &(struct tool_sink){carry, carried});
    if (err != RD_E_CANCELLED)
        return err;
    return carried->vanished ? RD_E_TRUNCATED : RD_E_NOMEM;
}

/**
 * Open STORE and, once it is known that the key has a value that holds, and for a move that it may be deleted, TARGET:
 * no store is made for nothing.
 * Returns: STATUS_DONE, or the exit status after a line on stderr.
 */
static int open_both(const struct cli_call *call, const struct key *key, bool move, struct tool_store **out_store,
                     struct tool_store **out_target, struct carried *carried)
{
    char label[KEY_LABEL_BYTES];
    const char *target = call->args[2];
    const struct tool_open_how from = {.writable = move, .sync = session_sync(call)};
    const struct tool_open_how to = {
        .writable = true, .create = call->given[OPTION_CREATE], .offer_create = true, .sync = session_sync(call)};
    int status = session_open(call, &from, out_store);
    if (status != STATUS_DONE)
        return status;
    struct tool_store *store = *out_store;
    if (session_is_store(store, target))
        return report(STATUS_FAILED, "%s: TARGET %s is the store itself; allowed: another store", call->verb->name,
                      target);
    rd_err err = take(store, key, carried);
    if (err != RD_OK)
        return session_report(store, key_label(key, label), err);
    size_t deleted = 0;
    err = move && carried->keep ? store->ops->remove(store, NULL, 0, &deleted) : RD_OK; /* of no key: may we? */
    if (err != RD_OK)
        return session_report(store, key_label(key, label), err);
    return session_open_other(call, target, &to, out_target);
}

/** Tell what came of the transfer; the value itself was read before, so most errors are of TARGET. */
static int finish(const struct cli_call *call, const struct key *key, rd_err err, const char *why)
{
    char label[KEY_LABEL_BYTES];
    if (err == RD_OK)
        return STATUS_DONE;
    return report(err == RD_ABSENT ? STATUS_ABSENT : STATUS_FAILED, "%s: %s: %s to %s: %s", call->args[0],
                  key_label(key, label), call->verb->name, call->args[2], why);
}

/** Whether the key still has the entry that was carried; if not, nothing may be deleted. */
static bool is_unchanged(struct tool_store *store, const struct key *key, const struct carried *carried)
{
    rd_metadata now = {0};
    return store->ops->metadata(store, &key->key, &now) == RD_OK && now.prev_off == carried->meta.prev_off &&
           now.checksum == carried->meta.checksum;
}

/** Write what was read, and for a move delete it where it came from once TARGET has it durably. */
static int transfer_value(const struct cli_call *call, const struct key *key, bool move, struct tool_store *store,
                          struct tool_store *target, const struct carried *carried)
{
    const rd_write_item item = {key->key.hash, {carried->bytes.data, carried->bytes.len}};
    rd_err err = target->ops->write(target, &item, 1);
    if (err != RD_OK || !move)
        return finish(call, key, err, session_why(target, err));
    err = target->ops->sync(target);
    if (err == RD_E_UNSUPPORTED)
        return finish(call, key, err, "TARGET has it, but not durably yet, so STORE keeps it too");
    if (err != RD_OK)
        return finish(call, key, err, session_why(target, err));
    if (!is_unchanged(store, key, carried))
        return finish(call, key, RD_E_BUSY,
                      "STORE's value was written again meanwhile, or is TARGET's; STORE keeps it");
    size_t deleted = 0;
    err = store->ops->remove(store, &key->key.hash, 1, &deleted);
    if (err == RD_OK)
        return STATUS_DONE;
    char why[WHY_BYTES];
    (void)snprintf(why, sizeof(why), "TARGET has it, but STORE did not delete it: %s", session_why(store, err));
    return finish(call, key, err, why);
}

static int transfer(const struct cli_call *call, bool move)
{
    AUTO_KEY key = {0};
    AUTO_STORE *store = NULL;
    AUTO_STORE *target = NULL;
    struct carried carried
        __attribute__((cleanup(carried_fini))) = {.keep = session_by_value(call->args[0], call->args[2])};
    int status = key_parse(call, call->args[1], &key);
    if (status == STATUS_DONE)
        status = open_both(call, &key, move, &store, &target, &carried);
    if (status != STATUS_DONE || target == NULL)
        return status;
    if (carried.keep)
        return transfer_value(call, &key, move, store, target, &carried);
    rd_err err = move ? store->ops->move(store, key.key.hash, target) : store->ops->copy(store, key.key.hash, target);
    return finish(call, &key, err, rd_err_text(err));
}

int verb_copy(const struct cli_call *call)
{
    return transfer(call, false);
}

int verb_move(const struct cli_call *call)
{
    return transfer(call, true);
}
