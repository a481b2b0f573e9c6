/* The tables that the command line is made of. */
#include "cli.h"

#define NUMBER(min, max, fallback, whole) (&(const struct cli_number){min, max, fallback, whole})

const struct cli_option_row cli_options[OPTION_COUNT] = {
    [OPTION_HASH] = {"--hash", NULL, {NULL}, "KEY is a key's hash: 16 hex digits", NULL},
    [OPTION_HEX_KEY] = {"--hex-key", NULL, {NULL}, "KEY is given in hex, two digits a byte", NULL},
    [OPTION_NAMESPACE] =
        {"--namespace", "NS", {NULL}, "KEY lies in this namespace, as namespaced writers store it", NULL},
    [OPTION_JSON] = {"--json", NULL, {NULL}, "print one JSON document", NULL},
    [OPTION_CREATE] = {"--create", NULL, {NULL}, "make the store that is written to where there is none", NULL},
    [OPTION_SYNC] = {"--sync",
                     "WHEN",
                     {"always", "none"},
                     "always (default): return once the write is durable; none: "
                     "once the kernel has it",
                     NULL},
    [OPTION_FORMAT] = {"--format",
                       "FORMAT",
                       {"tsv", "jsonl"},
                       "tsv or jsonl (default: jsonl where FILE ends in .jsonl, "
                       "else tsv)",
                       NULL},
    [OPTION_OUTPUT] = {"--output",
                       "NEW",
                       {NULL},
                       "the file to write; an index is replaced, else there must be none of this name yet",
                       NULL},
    [OPTION_OLDER_VERSIONS] = {"--older-versions",
                               NULL,
                               {NULL},
                               "where a key's newest version is damaged, write the newest one that holds",
                               NULL},
    [OPTION_INDEX] = {"--index",
                      "auto|PATH|off",
                      {NULL},
                      "the snapshot index to open STORE by where it can be trusted: auto (default), STORE.idx; another "
                      "file; none",
                      NULL},
    [OPTION_THREADS] = {"--threads", "N", {NULL}, "threads that ask", NUMBER(1, 64, 1, true)},
    [OPTION_DURATION] = {"--duration",
                         "S",
                         {NULL},
                         "stop after S seconds; with --operations, only where both are given",
                         NUMBER(0.001, 86400, 10, false)},
    [OPTION_OPERATIONS] = {"--operations", "N", {NULL}, "stop after N calls of all threads", NUMBER(1, 1e15, 0, true)},
    [OPTION_WARMUP] = {"--warmup", "S", {NULL}, "ask for S seconds before anything counts", NUMBER(0, 3600, 0, false)},
    [OPTION_BATCH] = {"--batch", "N", {NULL}, "keys a call; 1: single reads", NUMBER(1, 65536, 1, true)},
    [OPTION_DISTRIBUTION] = {"--distribution",
                             "LAW",
                             {"uniform", "zipf"},
                             "uniform (default): each key as often as any; zipf: few keys most of the time",
                             NULL},
    [OPTION_ZIPF_EXPONENT] = {"--zipf-exponent",
                              "X",
                              {NULL},
                              "the k-th key comes k to the power of -X as often as the first",
                              NUMBER(0.01, 10, 0.99, false)},
    [OPTION_MISSES] =
        {"--misses", "PERCENT", {NULL}, "so many of the keys asked for are absent ones", NUMBER(0, 100, 0, false)},
    [OPTION_KEYS] =
        {"--keys", "N", {NULL}, "ask for at most N different keys, picked at random", NUMBER(1, 1e9, 1e7, true)},
    [OPTION_VERIFY] = {"--verify",
                       "WHEN",
                       {"first", "always", "off"},
                       "when the engine checks a value: first (default), once an open, so here while keys are "
                       "gathered; always; off",
                       NULL},
    [OPTION_CHECK] = {"--check",
                      "WHETHER",
                      {"on", "off"},
                      "on (default): check each value that comes, outside of the latencies; off",
                      NULL},
    [OPTION_SEED] = {"--seed", "N", {NULL}, "equal seeds ask for equal keys", NUMBER(0, 4294967295, 1, true)},
    [OPTION_HISTOGRAM] = {"--histogram", NULL, {NULL}, "print how many calls took how long", NULL},
    [OPTION_INFLIGHT] =
        {"--inflight", "N", {NULL}, "calls of each thread that are under way at once", NUMBER(1, 4096, 1, true)},
    [OPTION_KEY_LIST] = {"--key-list", "FILE", {NULL}, "the keys to ask for, one a line; -: standard input", NULL},
    [OPTION_CA] = {"--ca",
                   "FILE",
                   {NULL},
                   "PEM file of the roots that the server's certificate must lead to (default: the system's)",
                   NULL},
    [OPTION_CERT] = {"--cert", "FILE", {NULL}, "PEM file of the certificate to show to the server", NULL},
    [OPTION_TLS_KEY] = {"--key", "FILE", {NULL}, "PEM file of that certificate's key", NULL},
    [OPTION_TIMEOUT] = {"--timeout",
                        "S",
                        {NULL},
                        "give up on a call to a server after S seconds (default: never, as long as it lives)",
                        NUMBER(0.001, 86400, 0, false)},
    [OPTION_HELP] = {"--help", NULL, {NULL}, "print help", NULL},
    [OPTION_VERSION] = {"--version", NULL, {NULL}, "print the version", NULL},
};

#define KEY_OPTIONS (OPTION_BIT(OPTION_HASH) | OPTION_BIT(OPTION_HEX_KEY) | OPTION_BIT(OPTION_NAMESPACE))
#define JSON        OPTION_BIT(OPTION_JSON)
#define INDEX       OPTION_BIT(OPTION_INDEX)
#define REMOTE                                                                                                         \
    (OPTION_BIT(OPTION_CA) | OPTION_BIT(OPTION_CERT) | OPTION_BIT(OPTION_TLS_KEY) | OPTION_BIT(OPTION_TIMEOUT))
#define BENCH_OPTIONS                                                                                                  \
    (OPTION_BIT(OPTION_THREADS) | OPTION_BIT(OPTION_DURATION) | OPTION_BIT(OPTION_OPERATIONS) |                        \
     OPTION_BIT(OPTION_WARMUP) | OPTION_BIT(OPTION_BATCH) | OPTION_BIT(OPTION_DISTRIBUTION) |                          \
     OPTION_BIT(OPTION_ZIPF_EXPONENT) | OPTION_BIT(OPTION_MISSES) | OPTION_BIT(OPTION_KEYS) |                          \
     OPTION_BIT(OPTION_INFLIGHT) | OPTION_BIT(OPTION_KEY_LIST) | KEY_OPTIONS | OPTION_BIT(OPTION_VERIFY) |             \
     OPTION_BIT(OPTION_CHECK) | OPTION_BIT(OPTION_SEED) | OPTION_BIT(OPTION_HISTOGRAM))

const struct cli_verb cli_verbs[] = {
    {"info", "STORE", 1, 1, JSON | INDEX | REMOTE, "print what a store holds",
     "unread_bytes are bytes behind the last whole entry: torn, or a writer is at work. Damaged ranges are listed as\n"
     "verify lists them; values above 64 KiB are checked by verify alone. index says whether the store was read, or "
     "opened\n"
     "by its snapshot index: what was damaged since that was made is then not seen; --index off reads all.",
     verb_info, 0, NULL},
    {"get", "STORE KEY", 2, 2, KEY_OPTIONS | INDEX | REMOTE, "write a key's value to standard output, byte for byte",
     "Nothing of a damaged value is written.", verb_get, 0, NULL},
    {"exists", "STORE KEY", 2, 2, KEY_OPTIONS | INDEX | REMOTE, "print true or false, and exit with 0 or 1", NULL,
     verb_exists, 0, NULL},
    {"metadata", "STORE KEY", 2, 2, KEY_OPTIONS | JSON | INDEX | REMOTE,
     "print hash, link and checksum of a key's newest entry", "The value itself is neither read nor checked.",
     verb_metadata, 0, NULL},
    {"last", "STORE", 1, 1, JSON | INDEX | REMOTE, "print the entry that was written last, deletions included", NULL,
     verb_last, 0, NULL},
    {"ls", "STORE", 1, 1, JSON | INDEX, "list the live entries, newest first",
     "Columns: key hash, bytes, checksum, offset at which the entry before it ends. A damaged entry has - for its\n"
     "bytes and a fifth column, damaged; the exit status is then 2. Keys are not stored, only their hashes.",
     verb_ls, 0, "the contract has no iteration"},
    {"put", "STORE KEY [VALUE|-]", 2, 3,
     KEY_OPTIONS | OPTION_BIT(OPTION_CREATE) | OPTION_BIT(OPTION_SYNC) | INDEX | REMOTE, "write a value under a key",
     "Without VALUE, or with -, the value is read from standard input (at most 1 GiB). The format holds neither an\n"
     "empty value nor the single byte 0x00. A server is sent standard input as it comes.",
     verb_put, 0, NULL},
    {"delete", "STORE KEY...", 2, CLI_MANY, KEY_OPTIONS | OPTION_BIT(OPTION_SYNC) | INDEX | REMOTE,
     "delete keys, all in one batch", "Exits with 1 if none of them was present.", verb_delete, 0, NULL},
    {"rename", "STORE OLD NEW", 3, 3, KEY_OPTIONS | OPTION_BIT(OPTION_SYNC) | INDEX | REMOTE,
     "give a key's value to another key",
     "OLD is deleted and NEW written in one batch. What NEW had is replaced. OLD and NEW are both given as the key\n"
     "options say.",
     verb_rename, 0, NULL},
    {"copy", "STORE KEY TARGET", 3, 3,
     KEY_OPTIONS | OPTION_BIT(OPTION_CREATE) | OPTION_BIT(OPTION_SYNC) | INDEX | REMOTE,
     "write a key's value to another store",
     "TARGET is a path, or served, as STORE is. What the key has there is replaced.", verb_copy, 2, NULL},
    {"move", "STORE KEY TARGET", 3, 3,
     KEY_OPTIONS | OPTION_BIT(OPTION_CREATE) | OPTION_BIT(OPTION_SYNC) | INDEX | REMOTE,
     "copy, then delete the key from STORE",
     "TARGET is a path, or served, as STORE is. STORE loses the key only once TARGET has it durably, whatever --sync "
     "says.\n"
     "Where a server is among them the value is read and written, and STORE keeps a key that was written meanwhile.",
     verb_move, 2, NULL},
    {"import", "STORE [FILE|-]", 1, 2, OPTION_BIT(OPTION_FORMAT) | INDEX | REMOTE,
     "write the entries that a file lists",
     "STORE is made where there is none. Without FILE, or with -, standard input is read. Lines end with \\n; a \\r\n"
     "before it belongs to a tsv value.\n"
     "tsv:   key<TAB>value, the key up to the first tab; nothing is escaped.\n"
     "jsonl: an object with one of \"key\" (text), \"key_hex\", \"key_hash\" (16 hex digits), and one of \"value\" "
     "(text),\n"
     "       \"value_base64\".\n"
     "Entries are synced once, at the end. The first bad line ends the import with status 2; what came before it is\n"
     "synced and stays. A value has at most 1 GiB.",
     verb_import, 0, NULL},
    {"export", "STORE [FILE|-]", 1, 2, INDEX, "write the live entries as JSON lines that `import` reads",
     "One {\"key_hash\":\"16 hex digits\",\"value_base64\":\"...\"} a line, newest first; keys are not stored, only "
     "their\n"
     "hashes. Damaged entries are reported and left out; the exit status is then 2. FILE is overwritten.",
     verb_export, 0, "the contract has no iteration"},
    {"verify", "STORE", 1, 1, JSON, "check every byte of a store, on all cores",
     "Superseded entries are checked too. Exits with 2 where anything is damaged. Each damaged range is a line:\n"
     "damaged, offset, bytes, key hash (- where nobody can tell it), what it is; unidentified ones may hide further\n"
     "keys. 100 are listed, all are counted. unread_bytes, behind the last entry, are no damage.",
     verb_verify, 0, "a server checks its store by itself, and `info` tells what it found"},
    {"repair", "STORE --output NEW", 1, 1, OPTION_BIT(OPTION_OUTPUT) | OPTION_BIT(OPTION_OLDER_VERSIONS),
     "write what holds of a damaged store to a new file",
     "NEW gets the newest version of each key, in file order; STORE is only read. A key whose newest version is\n"
     "damaged is left out, or, with --older-versions, written as it was before; each is a line on standard output.\n"
     "NEW appears once it is whole and synced. Exits with 2 where anything was left out, is older, or may be.",
     verb_repair, 0, "it reads the damaged bytes themselves"},
    {"compact", "STORE", 1, 1, REMOTE, "rewrite a store without what is superseded or deleted",
     "Readers may go on meanwhile. A damaged store is refused: see repair. If it fails, nothing has changed.",
     verb_compact, 0, NULL},
    {"index", "STORE [--output NEW]", 1, 1, OPTION_BIT(OPTION_OUTPUT),
     "write a snapshot index, so that opening need not read the store",
     "It is STORE.idx, or NEW, which --index then has to name; an older one is replaced. STORE is read, checked and\n"
     "synced, not changed. An index is believed only as long as the store has the bytes that it was made of; what\n"
     "rdrive appends later is read at opening. A copy of both files is as good.",
     verb_index, 0, "it is written beside the file"},
    {"hash", "KEY...", 1, CLI_MANY, OPTION_BIT(OPTION_HEX_KEY) | OPTION_BIT(OPTION_NAMESPACE),
     "print the hash that stands for each key, 16 hex digits a line", NULL, verb_hash, 0, NULL},
    {"bench", "STORE", 1, 1, BENCH_OPTIONS | JSON | INDEX | REMOTE,
     "measure how fast a store answers, by reading keys that it has",
     "Nothing is written: what a bench wrote would stay in the store, its keys among yours, until a compaction; for\n"
     "writes, time `rdrive import` into a store of its own. The keys are read off the file first, each with the same\n"
     "chance where there are more than --keys; that takes 16 bytes of memory a key, more meanwhile, and warms the "
     "file.\n"
     "A server can't say which keys it has: --key-list names them, as the key options say, and each is asked for once\n"
     "first. `rdrive ls FILE | cut -c1-16` lists a file's hashes, for --hash. A thread has a connection of its own; "
     "its\n"
     "calls are Read, or BatchReadHashedKeys where --batch is more than 1.\n"
     "Each thread calls again as soon as it is answered. A latency is that of one call of --batch keys, by the\n"
     "monotonic clock, whose own cost is printed and not subtracted; it is exact to 1/128 of itself. The rates are by\n"
     "wall clock: choosing keys and checking values are in them, and in_calls is the part of the time that was the\n"
     "store's. Ctrl-C ends the run and prints what was measured so far. Exits with 2 where an answer was wrong or a "
     "key\n"
     "is damaged, with its hash on standard error.",
     verb_bench, 0, NULL},
    {0},
};
