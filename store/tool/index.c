/* index: the engine makes it; what is told of it. */
#include "out.h"
#include "session.h"

#include <inttypes.h>

int verb_index(const struct cli_call *call)
{
    static const struct tool_open_how read_only = {.index = "off"};
    AUTO_STORE *store = NULL;
    const char *path = call->given[OPTION_OUTPUT] ? call->value[OPTION_OUTPUT] : NULL;
    if (path != NULL && path[0] == '\0')
        return report(STATUS_USAGE, "index: --output: \"\" came; allowed: the path of the index");
    int status = session_open(call, &read_only, &store);
    if (status != STATUS_DONE)
        return status;
    rd_fault fault = {0};
    rd_indexed indexed = {0};
    rd_err err = store->ops->index(store, path, &fault, &indexed);
    if (err != RD_OK)
        return report(err == RD_ABSENT ? STATUS_ABSENT : STATUS_FAILED, "%s", fault.text);
    struct out out;
    out_init_stdout(&out);
    out_print(&out, "keys          %" PRIu64 "\nbytes         %" PRIu64 "\ncovered_bytes %" PRIu64 "\n", indexed.keys,
              indexed.bytes, indexed.covered_bytes);
    return out_finish(&out, STATUS_DONE);
}
