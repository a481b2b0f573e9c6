#include "session.h"

#include "text.h"
#include <errno.h>
#include <string.h>

static const struct tool_scheme *find_scheme(const char *target)
{
    const struct tool_scheme *scheme = tool_schemes;
    while (strncmp(target, scheme->prefix, strlen(scheme->prefix)) != 0)
        scheme++; /* the last row's prefix is empty and fits all */
    return scheme;
}

int session_open(const struct cli_call *call, const struct tool_open_how *how, struct tool_store **out_store)
{
    const char *target = call->args[0];
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
    /* The hint is for the verb that has the option and was not given it. */
    const char *hint =
        err == RD_E_IO && fault.os_error == ENOENT && !how->create && (call->verb->options & OPTION_BIT(OPTION_CREATE))
            ? " (--create makes a new store)"
            : "";
    if (fault.text[0] != '\0')
        return report(STATUS_FAILED, "%s%s", fault.text, hint);
    return report(STATUS_FAILED, "%s: %s%s", target, rd_err_text(err), hint);
}

int session_report(const struct tool_store *store, const char *what, rd_err err)
{
    return report(err == RD_ABSENT ? STATUS_ABSENT : STATUS_FAILED, "%s: %s%s%s", store->target,
                  what != NULL ? what : "", what != NULL ? ": " : "", rd_err_text(err));
}

void session_cleanup(struct tool_store **store)
{
    if (*store != NULL)
        (*store)->ops->close(*store);
}
