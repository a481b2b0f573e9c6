/** From STORE on the command line to an open store, and from the engine's errors to a line and an exit status. */
#ifndef RDRIVE_TOOL_SESSION_H
#define RDRIVE_TOOL_SESSION_H

#include "cli.h"
#include "ops.h"

/** Open the call's first argument. Returns: STATUS_DONE, or the exit status after a line on stderr. */
RD_MUST_CHECK int session_open(const struct cli_call *call, const struct tool_open_how *how,
                               struct tool_store **out_store);

/** Tell that `err` came of `store`, about `what` ("key …"; NULL: the store as a whole). Returns: the exit status. */
int session_report(const struct tool_store *store, const char *what, rd_err err);

void session_cleanup(struct tool_store **store);
#define AUTO_STORE __attribute__((cleanup(session_cleanup))) struct tool_store

#endif
