/**
 * What the tests of compaction share: a store of many kinds of entries, and compactions that succeed or change nothing.
 */
#ifndef RDRIVE_TESTS_COMPACTING_H
#define RDRIVE_TESTS_COMPACTING_H

#include "support.h"

rd_compacted compact_ok(rd_store *store);
/* Compact, expecting `want` and a text that has `part`; nothing may have changed. */
void compact_fails(rd_store *store, const char *path, const rd_compact_options *options, rd_err want, const char *part);
void remove_key(rd_store *store, uint64_t hash);
void put_hash(rd_store *store, uint64_t hash, rd_span payload);

/* The store "s" of many kinds of entries, and the bytes that a compaction must leave. */
rd_store *make_mixed(void **state, struct bytes *want);
/* Its answers. */
void expect_mixed(rd_store *store);

#endif
