/**
 * The command line: a table of verbs, a table of options, and the one parser over both. Help, usage lines and error
 * messages come from the tables.
 */
#ifndef RDRIVE_TOOL_CLI_H
#define RDRIVE_TOOL_CLI_H

#include "report.h"
#include <stdbool.h>
#include <stddef.h>

enum cli_option {
    OPTION_HASH,
    OPTION_HEX_KEY,
    OPTION_NAMESPACE,
    OPTION_JSON,
    OPTION_CREATE,
    OPTION_SYNC,
    OPTION_FORMAT,
    OPTION_OUTPUT,
    OPTION_OLDER_VERSIONS,
    OPTION_INDEX,
    OPTION_THREADS,
    OPTION_DURATION,
    OPTION_OPERATIONS,
    OPTION_WARMUP,
    OPTION_BATCH,
    OPTION_DISTRIBUTION,
    OPTION_ZIPF_EXPONENT,
    OPTION_MISSES,
    OPTION_KEYS,
    OPTION_VERIFY,
    OPTION_CHECK,
    OPTION_SEED,
    OPTION_HISTOGRAM,
    OPTION_INFLIGHT,
    OPTION_KEY_LIST,
    OPTION_CA,
    OPTION_CERT,
    OPTION_TLS_KEY,
    OPTION_TIMEOUT,
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_COUNT,
};
_Static_assert(OPTION_COUNT <= 32, "an option is a bit");
#define OPTION_BIT(option) (1u << (option))

/** What a number on the command line may be: digits, and a decimal point where it isn't `whole`. */
struct cli_number {
    double min, max;
    double fallback; /* where it isn't given; below `min`: that means something of its own, which its help tells */
    bool whole;
};

struct cli_option_row {
    const char *name;
    const char *value;      /* what its value is called; NULL: it takes none */
    const char *choices[4]; /* the values allowed, NULL-ended; none: any */
    const char *help;
    const struct cli_number *number; /* NULL: its value is no number */
};
extern const struct cli_option_row cli_options[OPTION_COUNT];

/** A command line that was understood. Its strings are argv's. */
struct cli_call {
    const struct cli_verb *verb;
    char **args; /* the verb's positionals */
    size_t arg_count;
    bool given[OPTION_COUNT];
    const char *value[OPTION_COUNT];
    size_t choice[OPTION_COUNT]; /* where a row has choices: which one; the first if not given */
    double number[OPTION_COUNT]; /* where a row has a number: it, or its fallback */
};

struct cli_verb {
    const char *name;
    const char *args; /* as the usage line shows them */
    size_t arg_min, arg_max;
    unsigned options; /* OPTION_BITs, OPTION_HELP apart, which all take */
    const char *help; /* one line */
    const char *notes;
    int (*run)(const struct cli_call *call);
    size_t target_arg;     /* which argument names a second store; 0: none */
    const char *file_only; /* why STORE can't be one that is served; NULL: it can */
};
#define CLI_MANY ((size_t)-1)

extern const struct cli_verb cli_verbs[]; /* ends with a row of NULLs */

/** Understand and run a command line. Reorders `argv`. Returns: the exit status. */
int cli_main(int argc, char **argv);

/** `--help` for one verb, or for all where `verb` is NULL. Returns: the exit status. */
int help_print(const struct cli_verb *verb);
int help_version(void);

#define CLI_NUMBER_BYTES 32
/** A number as its row writes it, in plain digits. Returns `text`. */
const char *cli_number_text(const struct cli_number *row, double number, char text[CLI_NUMBER_BYTES]);

/** The verbs' functions: reads.c, key.c, list.c, put.c, transfer.c, import.c, export.c, verify.c, repair.c, compact.c,
 * index.c, bench.c. */
int verb_info(const struct cli_call *call);
int verb_get(const struct cli_call *call);
int verb_exists(const struct cli_call *call);
int verb_metadata(const struct cli_call *call);
int verb_last(const struct cli_call *call);
int verb_ls(const struct cli_call *call);
int verb_put(const struct cli_call *call);
int verb_delete(const struct cli_call *call);
int verb_rename(const struct cli_call *call);
int verb_copy(const struct cli_call *call);
int verb_move(const struct cli_call *call);
int verb_import(const struct cli_call *call);
int verb_export(const struct cli_call *call);
int verb_verify(const struct cli_call *call);
int verb_repair(const struct cli_call *call);
int verb_compact(const struct cli_call *call);
int verb_index(const struct cli_call *call);
int verb_bench(const struct cli_call *call);
int verb_hash(const struct cli_call *call);

#endif
