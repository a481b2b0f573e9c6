/* Between the table of options and what reads and describes their values. */
#ifndef OPTIONS_INTERNAL_H
#define OPTIONS_INTERNAL_H

#include "options.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

enum option_kind {
    KIND_ADDRESSES, /* repeatable; comma-separated in the environment */
    KIND_NAMES,     /* the same, of anything */
    KIND_FLAG,      /* alone, or with true or false */
    KIND_COUNT,     /* a plain number */
    KIND_BYTES,     /* a number with K, M or G */
    KIND_OCTAL,
    KIND_INDEX,  /* auto, off, or a path */
    KIND_PATH,   /* of a file */
    KIND_SYNC,   /* always, interval:<ms>, none */
    KIND_CHOICE, /* one of `choices`, stored as its place in the list */
    KIND_PROBE,  /* alone, or with an address; the command line only, as are the next two */
    KIND_VERSION,
    KIND_HELP,
};

#define ALLOWED_MAX 128u

struct option_row {
    const char *name;
    enum option_kind kind;
    size_t field; /* offset in struct config */
    const char *standard;
    uint64_t min;
    uint64_t max;
    const char *const *choices;
    const char *help;
};

/* What a row allows, for --help and for errors; empty for what takes no value. */
void option_describe(const struct option_row *row, char out[ALLOWED_MAX]);

/* Read `value` into its field of `config`. Returns: false where it isn't allowed. */
bool option_set(const struct option_row *row, const char *value, struct config *config);

/* Whether a listener at `address` can be reached from this machine only. */
bool option_is_local(const char *address);

#endif
