#include "session.h"

#include "text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct tool_scheme *find_scheme(const char *target)
{
    const struct tool_scheme *scheme = tool_schemes;
    while (strncmp(target, scheme->prefix, strlen(scheme->prefix)) != 0)
        scheme++; /* the last row's prefix is empty and fits all */
    return scheme;
}

/** Whether a store at `target`, one that is served, is something for this verb. */
static int check_verb(const struct cli_call *call, const char *target, const struct tool_scheme *scheme)
{
    if (!scheme->served || call->verb->file_only == NULL)
        return STATUS_DONE;
    return report(STATUS_USAGE,
                  "%s: STORE %s came, but `%s` needs a file: %s; allowed: a path (./%s... for a file of "
                  "such a name)",
                  call->verb->name, QUOTED(text_span(target)), call->verb->name, call->verb->file_only, scheme->prefix);
}

/** Tell that no store that is named takes `option`, and which kinds do. */
static int refuse_option(const struct cli_call *call, size_t option)
{
    char kinds[128] = "";
    const struct tool_scheme *scheme = tool_schemes;
    for (bool last = false; !last; scheme++) {
        last = scheme->prefix[0] == '\0';
        if ((scheme->options & OPTION_BIT(option)) != 0)
            (void)snprintf(kinds + strlen(kinds), sizeof(kinds) - strlen(kinds), "%s%s", kinds[0] != '\0' ? ", " : "",
                           last ? "a path" : scheme->prefix);
    }
    const char *target = call->verb->target_arg != 0 ? call->args[call->verb->target_arg] : "";
    return report(STATUS_USAGE, "%s: option %s is not for STORE %s%s%s; allowed: with %s", call->verb->name,
                  cli_options[option].name, QUOTED(text_span(call->args[0])),
                  target[0] != '\0' ? " nor for TARGET " : "", target[0] != '\0' ? QUOTED(text_span(target)) : "",
                  kinds);
}

/** Whether each option that asks for some kind of store goes with one that is named. */
static int check_options(const struct cli_call *call)
{
    unsigned asking = 0, taken = find_scheme(call->args[0])->options;
    const struct tool_scheme *scheme = tool_schemes;
    for (; scheme->prefix[0] != '\0'; scheme++)
        asking |= scheme->options;
    asking |= scheme->options;
    if (call->verb->target_arg != 0)
        taken |= find_scheme(call->args[call->verb->target_arg])->options;
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (call->given[i] && (asking & ~taken & OPTION_BIT(i)) != 0)
            return refuse_option(call, i);
    if (call->given[OPTION_CERT] != call->given[OPTION_TLS_KEY])
        return report(STATUS_USAGE, "%s: %s came alone; allowed: --cert and --key, or neither", call->verb->name,
                      call->given[OPTION_CERT] ? "--cert" : "--key");
    return STATUS_DONE;
}

static int open_store(const struct cli_call *call, const char *target, struct tool_open_how *how,
                      struct tool_store **out_store)
{
    const struct tool_scheme *scheme = find_scheme(target);
    int status = check_verb(call, target, scheme);
    if (status != STATUS_DONE)
        return status;
    how->ca = call->value[OPTION_CA];
    how->cert = call->value[OPTION_CERT];
    how->key = call->value[OPTION_TLS_KEY];
    how->timeout = call->number[OPTION_TIMEOUT];
    rd_fault fault = {0};
    rd_err err = scheme->ops->open(target, how, &fault, out_store);
    if (err == RD_E_INVALID)
        return report(STATUS_USAGE, "%s: STORE %s: %s", call->verb->name, QUOTED(text_span(target)), fault.text);
    if (err == RD_OK)
        return STATUS_DONE;
    const char *hint = err == RD_E_IO && fault.os_error == ENOENT && how->offer_create && !how->create
                           ? " (--create makes a new store)"
                           : "";
    if (fault.text[0] != '\0')
        return report(STATUS_FAILED, "%s%s", fault.text, hint);
    return report(STATUS_FAILED, "%s: %s%s", target, rd_err_text(err), hint);
}

int session_open(const struct cli_call *call, const struct tool_open_how *how, struct tool_store **out_store)
{
    struct tool_open_how full = *how;
    int status = check_options(call);
    if (status != STATUS_DONE)
        return status;
    if (call->given[OPTION_INDEX])
        full.index = call->value[OPTION_INDEX];
    if (full.index != NULL && full.index[0] == '\0')
        return report(STATUS_USAGE, "%s: --index: \"\" came; allowed: auto, off, or a path", call->verb->name);
    return open_store(call, call->args[0], &full, out_store);
}

/** A path that --index names is that of STORE's index. */
int session_open_other(const struct cli_call *call, const char *target, const struct tool_open_how *how,
                       struct tool_store **out_store)
{
    struct tool_open_how full = *how;
    if (call->given[OPTION_INDEX] && strcmp(call->value[OPTION_INDEX], "off") == 0)
        full.index = "off";
    return open_store(call, target, &full, out_store);
}

rd_sync session_sync(const struct cli_call *call)
{
    return call->choice[OPTION_SYNC] == 0 ? RD_SYNC_ALWAYS : RD_SYNC_NONE; /* as the option's row has its choices */
}

bool session_is_store(struct tool_store *store, const char *path)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    bool is_store = fd >= 0 && store->ops->is_file(store, fd);
    if (fd >= 0)
        (void)close(fd);
    return is_store;
}

bool session_is_served(const char *target)
{
    return find_scheme(target)->served;
}

bool session_streams(const char *target)
{
    return find_scheme(target)->ops->write_from != NULL;
}

bool session_by_value(const char *target, const char *other)
{
    const struct tool_ops *ops = find_scheme(target)->ops;
    return ops != find_scheme(other)->ops || ops->copy == NULL;
}

const char *session_why(struct tool_store *store, rd_err err)
{
    return store->ops->why != NULL ? store->ops->why(store, err) : rd_err_text(err);
}

int session_report(struct tool_store *store, const char *what, rd_err err)
{
    return report(err == RD_ABSENT ? STATUS_ABSENT : STATUS_FAILED, "%s: %s%s%s", store->target,
                  what != NULL ? what : "", what != NULL ? ": " : "", session_why(store, err));
}

uint64_t session_fact(struct tool_store *store, const char *name)
{
    struct tool_fact facts[TOOL_FACTS_MAX];
    size_t count = 0;
    if (store->ops->info(store, facts, &count) != RD_OK)
        return 0;
    for (size_t i = 0; i < count; i++)
        if (strcmp(facts[i].name, name) == 0)
            return facts[i].number;
    return 0;
}

void session_tell_index(struct tool_store *store)
{
    struct tool_fact facts[TOOL_FACTS_MAX];
    size_t count = 0;
    if (store->ops->info(store, facts, &count) != RD_OK)
        return;
    for (size_t i = 0; i < count; i++)
        if (strcmp(facts[i].name, "index") == 0 && strcmp(facts[i].text, rd_index_text(RD_INDEX_SNAPSHOT)) == 0)
            (void)report(STATUS_FAILED,
                         "%s: it was opened by its snapshot index, and has been damaged since that was made: more may "
                         "be missing than is named; again with --index off tells all that can be recovered",
                         store->target);
}

void session_cleanup(struct tool_store **store)
{
    if (*store != NULL)
        (*store)->ops->close(*store);
}
