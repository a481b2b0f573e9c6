/** From STORE on the command line to an open store, and from the engine's errors to a line and an exit status. */
#ifndef RDRIVE_TOOL_SESSION_H
#define RDRIVE_TOOL_SESSION_H

#include "cli.h"
#include "ops.h"

/** Open the call's first argument. Returns: STATUS_DONE, or the exit status after a line on stderr. */
RD_MUST_CHECK int session_open(const struct cli_call *call, const struct tool_open_how *how,
                               struct tool_store **out_store);

/** The same for another store than the first argument. Requires: `target` outlives the store. */
RD_MUST_CHECK int session_open_other(const struct cli_call *call, const char *target, const struct tool_open_how *how,
                                     struct tool_store **out_store);

/** What --sync says; RD_SYNC_ALWAYS where it was not given. */
rd_sync session_sync(const struct cli_call *call);

/** Whether `path` names the file that `store` has open. */
bool session_is_store(struct tool_store *store, const char *path);

/** Whether STORE `target` is one that is served. */
bool session_is_served(const char *target);

/** Whether STORE `target` takes values as they come (tool_ops.write_from). */
bool session_streams(const char *target);

/** Whether values go from one to the other by reading and writing them; else by the store's own copy and move. */
bool session_by_value(const char *target, const char *other);

/** What is to be said of `err`, which the operation of `store` just before ended with. */
const char *session_why(struct tool_store *store, rd_err err);

/** Tell that `err` came of `store`, about `what` ("key …"; NULL: the store as a whole). Returns: the exit status. */
int session_report(struct tool_store *store, const char *what, rd_err err);

/** A number that `info` prints; 0 where there is none of this name, or it can't be had. */
uint64_t session_fact(struct tool_store *store, const char *name);

/** Where damage was met, and `store` was opened by a snapshot index: tell that more may be missing, and what to do. */
void session_tell_index(struct tool_store *store);

void session_cleanup(struct tool_store **store);
#define AUTO_STORE __attribute__((cleanup(session_cleanup))) struct tool_store

#endif
