/* The tables that the command line is made of. */
#include "cli.h"

const struct cli_option_row cli_options[OPTION_COUNT] = {
    [OPTION_HASH] = {"--hash", NULL, {NULL}, "KEY is a key's hash: 16 hex digits"},
    [OPTION_HEX_KEY] = {"--hex-key", NULL, {NULL}, "KEY is given in hex, two digits a byte"},
    [OPTION_NAMESPACE] = {"--namespace", "NS", {NULL}, "KEY lies in this namespace, as namespaced writers store it"},
    [OPTION_JSON] = {"--json", NULL, {NULL}, "print one JSON document"},
    [OPTION_CREATE] = {"--create", NULL, {NULL}, "make the store that is written to where there is none"},
    [OPTION_SYNC] = {"--sync",
                     "WHEN",
                     {"always", "none"},
                     "always (default): return once the write is durable; none: "
                     "once the kernel has it"},
    [OPTION_FORMAT] = {"--format",
                       "FORMAT",
                       {"tsv", "jsonl"},
                       "tsv or jsonl (default: jsonl where FILE ends in .jsonl, "
                       "else tsv)"},
    [OPTION_OUTPUT] = {"--output", "NEW", {NULL}, "the file to write; there must be none of this name yet"},
    [OPTION_OLDER_VERSIONS] = {"--older-versions",
                               NULL,
                               {NULL},
                               "where a key's newest version is damaged, write the newest one that holds"},
    [OPTION_HELP] = {"--help", NULL, {NULL}, "print help"},
    [OPTION_VERSION] = {"--version", NULL, {NULL}, "print the version"},
};

#define KEY_OPTIONS (OPTION_BIT(OPTION_HASH) | OPTION_BIT(OPTION_HEX_KEY) | OPTION_BIT(OPTION_NAMESPACE))
#define JSON        OPTION_BIT(OPTION_JSON)

const struct cli_verb cli_verbs[] = {
    {"info", "STORE", 1, 1, JSON, "print what a store holds",
     "unread_bytes are bytes behind the last whole entry: torn, or a writer is at work. Damaged ranges are listed as\n"
     "verify lists them; values above 64 KiB are checked by verify alone.",
     verb_info},
    {"get", "STORE KEY", 2, 2, KEY_OPTIONS, "write a key's value to standard output, byte for byte",
     "Nothing of a damaged value is written.", verb_get},
    {"exists", "STORE KEY", 2, 2, KEY_OPTIONS, "print true or false, and exit with 0 or 1", NULL, verb_exists},
    {"metadata", "STORE KEY", 2, 2, KEY_OPTIONS | JSON, "print hash, link and checksum of a key's newest entry",
     "The value itself is neither read nor checked.", verb_metadata},
    {"last", "STORE", 1, 1, JSON, "print the entry that was written last, deletions included", NULL, verb_last},
    {"ls", "STORE", 1, 1, JSON, "list the live entries, newest first",
     "Columns: key hash, bytes, checksum, offset at which the entry before it ends. A damaged entry has - for its\n"
     "bytes and a fifth column, damaged; the exit status is then 2. Keys are not stored, only their hashes.",
     verb_ls},
    {"put", "STORE KEY [VALUE|-]", 2, 3, KEY_OPTIONS | OPTION_BIT(OPTION_CREATE) | OPTION_BIT(OPTION_SYNC),
     "write a value under a key",
     "Without VALUE, or with -, the value is read from standard input (at most 1 GiB). The format holds neither an\n"
     "empty value nor the single byte 0x00.",
     verb_put},
    {"delete", "STORE KEY...", 2, CLI_MANY, KEY_OPTIONS | OPTION_BIT(OPTION_SYNC), "delete keys, all in one batch",
     "Exits with 1 if none of them was present.", verb_delete},
    {"rename", "STORE OLD NEW", 3, 3, KEY_OPTIONS | OPTION_BIT(OPTION_SYNC), "give a key's value to another key",
     "OLD is deleted and NEW written in one batch. What NEW had is replaced. OLD and NEW are both given as the key\n"
     "options say.",
     verb_rename},
    {"copy", "STORE KEY TARGET", 3, 3, KEY_OPTIONS | OPTION_BIT(OPTION_CREATE) | OPTION_BIT(OPTION_SYNC),
     "write a key's value to another store", "TARGET is the path of a store. What the key has there is replaced.",
     verb_copy},
    {"move", "STORE KEY TARGET", 3, 3, KEY_OPTIONS | OPTION_BIT(OPTION_CREATE) | OPTION_BIT(OPTION_SYNC),
     "copy, then delete the key from STORE",
     "TARGET is the path of a store. STORE loses the key only once TARGET has it durably, whatever --sync says.",
     verb_move},
    {"import", "STORE [FILE|-]", 1, 2, OPTION_BIT(OPTION_FORMAT), "write the entries that a file lists",
     "STORE is made where there is none. Without FILE, or with -, standard input is read. Lines end with \\n; a \\r\n"
     "before it belongs to a tsv value.\n"
     "tsv:   key<TAB>value, the key up to the first tab; nothing is escaped.\n"
     "jsonl: an object with one of \"key\" (text), \"key_hex\", \"key_hash\" (16 hex digits), and one of \"value\" "
     "(text),\n"
     "       \"value_base64\".\n"
     "Entries are synced once, at the end. The first bad line ends the import with status 2; what came before it is\n"
     "synced and stays. A value has at most 1 GiB.",
     verb_import},
    {"export", "STORE [FILE|-]", 1, 2, 0, "write the live entries as JSON lines that `import` reads",
     "One {\"key_hash\":\"16 hex digits\",\"value_base64\":\"...\"} a line, newest first; keys are not stored, only "
     "their\n"
     "hashes. Damaged entries are reported and left out; the exit status is then 2. FILE is overwritten.",
     verb_export},
    {"verify", "STORE", 1, 1, JSON, "check every byte of a store, on all cores",
     "Superseded entries are checked too. Exits with 2 where anything is damaged. Each damaged range is a line:\n"
     "damaged, offset, bytes, key hash (- where nobody can tell it), what it is; unidentified ones may hide further\n"
     "keys. 100 are listed, all are counted. unread_bytes, behind the last entry, are no damage.",
     verb_verify},
    {"repair", "STORE --output NEW", 1, 1, OPTION_BIT(OPTION_OUTPUT) | OPTION_BIT(OPTION_OLDER_VERSIONS),
     "write what holds of a damaged store to a new file",
     "NEW gets the newest version of each key, in file order; STORE is only read. A key whose newest version is\n"
     "damaged is left out, or, with --older-versions, written as it was before; each is a line on standard output.\n"
     "NEW appears once it is whole and synced. Exits with 2 where anything was left out, is older, or may be.",
     verb_repair},
    {"compact", "STORE", 1, 1, 0, "rewrite a store without what is superseded or deleted",
     "Readers may go on meanwhile. A damaged store is refused: see repair. If it fails, nothing has changed.",
     verb_compact},
    {"hash", "KEY...", 1, CLI_MANY, OPTION_BIT(OPTION_HEX_KEY) | OPTION_BIT(OPTION_NAMESPACE),
     "print the hash that stands for each key, 16 hex digits a line", NULL, verb_hash},
    {0},
};
