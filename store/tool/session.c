#include "session.h"

#include "text.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const struct tool_scheme *find_scheme(const char *target)
{
    const struct tool_scheme *scheme = tool_schemes;
    while (strncmp(target, scheme->prefix, strlen(scheme->prefix)) != 0)
        scheme++; /* the last row's prefix is empty and fits all */
    return scheme;
}

static int open_store(const struct cli_call *call, const char *target, const struct tool_open_how *how,
                      struct tool_store **out_store)
{
    const struct tool_scheme *scheme = find_scheme(target);
    if (scheme->ops == NULL)
        return report(STATUS_USAGE,
                      "%s: STORE %s: %s is not yet served by this build; allowed: a path (./%s... for a "
                      "file of such a name)",
                      call->verb->name, QUOTED(text_span(target)), scheme->prefix, scheme->prefix);
    rd_fault fault = {0};
    rd_err err = scheme->ops->open(target, how, &fault, out_store);
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

int session_report(const struct tool_store *store, const char *what, rd_err err)
{
    return report(err == RD_ABSENT ? STATUS_ABSENT : STATUS_FAILED, "%s: %s%s%s", store->target,
                  what != NULL ? what : "", what != NULL ? ": " : "", rd_err_text(err));
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
