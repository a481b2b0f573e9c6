/* rename, copy and move: a value under another key, or in another store. */
#include "key.h"
#include "session.h"
#include "text.h"

#include <inttypes.h>

int verb_rename(const struct cli_call *call)
{
    AUTO_KEY old_key = {0};
    AUTO_KEY new_key = {0};
    int status = key_parse(call, call->args[1], &old_key);
    if (status == STATUS_DONE)
        status = key_parse(call, call->args[2], &new_key);
    if (status != STATUS_DONE)
        return status;
    if (old_key.key.hash == new_key.key.hash)
        return report(STATUS_USAGE, "rename: OLD %s and NEW %s have one hash, %016" PRIx64 "; allowed: two keys",
                      QUOTED(text_span(old_key.word)), QUOTED(text_span(new_key.word)), old_key.key.hash);
    AUTO_STORE *store = NULL;
    const struct tool_open_how how = {.writable = true, .sync = session_sync(call)};
    status = session_open(call, &how, &store);
    if (status != STATUS_DONE)
        return status;
    char label[KEY_LABEL_BYTES];
    rd_err err = store->ops->rename(store, old_key.key.hash, new_key.key.hash);
    return err == RD_OK ? STATUS_DONE : session_report(store, key_label(&old_key, label), err);
}

static bool drop(void *arg, rd_span bytes)
{
    (void)arg;
    (void)bytes;
    return true;
}

/**
 * Open STORE and, once it is known that the key has a value that holds, TARGET: no store is made for nothing.
 * Returns: STATUS_DONE, or the exit status after a line on stderr.
 */
static int open_both(const struct cli_call *call, const struct key *key, bool move, struct tool_store **out_store,
                     struct tool_store **out_target)
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
    rd_err err = store->ops->read(store, &key->key, &(struct tool_sink){drop, NULL});
    if (err != RD_OK)
        return session_report(store, key_label(key, label), err);
    status = session_open_other(call, target, &to, out_target);
    if (status == STATUS_DONE && (*out_target)->ops != store->ops)
        status = report(STATUS_USAGE, "%s: TARGET %s is another kind of store than STORE; allowed: the same kind",
                        call->verb->name, target);
    return status;
}

/** Tell what came of the transfer; the value itself was read before, so most errors are of TARGET. */
static int finish(const struct cli_call *call, const struct key *key, rd_err err)
{
    char label[KEY_LABEL_BYTES];
    if (err == RD_OK)
        return STATUS_DONE;
    return report(err == RD_ABSENT ? STATUS_ABSENT : STATUS_FAILED, "%s: %s: %s to %s: %s", call->args[0],
                  key_label(key, label), call->verb->name, call->args[2], rd_err_text(err));
}

static int transfer(const struct cli_call *call, bool move)
{
    AUTO_KEY key = {0};
    AUTO_STORE *store = NULL;
    AUTO_STORE *target = NULL;
    int status = key_parse(call, call->args[1], &key);
    if (status == STATUS_DONE)
        status = open_both(call, &key, move, &store, &target);
    if (status != STATUS_DONE)
        return status;
    rd_err err = move ? store->ops->move(store, key.key.hash, target) : store->ops->copy(store, key.key.hash, target);
    return finish(call, &key, err);
}

int verb_copy(const struct cli_call *call)
{
    return transfer(call, false);
}

int verb_move(const struct cli_call *call)
{
    return transfer(call, true);
}
