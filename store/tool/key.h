/** KEY on the command line, as --hash, --hex-key and --namespace have it. */
#ifndef RDRIVE_TOOL_KEY_H
#define RDRIVE_TOOL_KEY_H

#include "buf.h"
#include "cli.h"
#include "ops.h"

struct key {
    struct tool_key key;
    const char *word; /* as it was given, for messages */
    struct buf owned; /* its bytes, where they are not those of the command line */
};

/** Understand `word`. Returns: STATUS_DONE, or the exit status after a line on stderr; key_fini is fine either way. */
RD_MUST_CHECK int key_parse(const struct cli_call *call, const char *word, struct key *key);
void key_fini(struct key *key);

#define AUTO_KEY __attribute__((cleanup(key_fini))) struct key

#define KEY_LABEL_BYTES 300
/** "key …", as it was given, for a message. Returns `label`. */
const char *key_label(const struct key *key, char label[KEY_LABEL_BYTES]);

#endif
