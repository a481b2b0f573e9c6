/**
 * What the tests of the snapshot index share: small stores, index files made of them, and the one question: does a
 * store opened by it answer as one that is recovered?
 */
#ifndef RDRIVE_TESTS_INDEXING_H
#define RDRIVE_TESTS_INDEXING_H

#include "support.h"

extern const rd_open_options open_recovering; /* read-only, without the index */

/* The store "s": overwritten and deleted keys among 40 entries of many sizes, closed; no index file beside it. */
void indexed_make(void **state);

/* Recover the store `name` and make its index file. */
rd_indexed index_ok(void **state, const char *name);

/* Open the store `name` read-only. Returns: what its index came from. */
rd_index_source source_of(void **state, const char *name);

/* The same, and that all is as in the store recovered: figures, damage, each key, every entry in order. `what` says
   which case of many. */
rd_index_source source_if_same(void **state, const char *name, const char *what);

/* That, and what it must be. */
void expect_source(void **state, const char *name, rd_index_source want, const char *what);

/* Copy a file's bytes to another inode. */
void copy_file(const char *from, const char *to);

/* An index file's bytes with all its sums made right again, whatever was changed in them. */
void index_reseal(struct bytes *file);

#endif
