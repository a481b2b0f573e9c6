/* What the measurements of our engine share. */
#ifndef RDRIVE_BENCH_OURS_H
#define RDRIVE_BENCH_OURS_H

#include <rdrive/store.h>
#include <stdint.h>

/* Open or die. */
rd_store *ours_open_store(const char *path, const rd_open_options *options);
/* Open an empty store for writing. No measurement but that of the snapshot index has one. */
rd_store *ours_create(const char *path, rd_sync sync);
/* Format key i, read it, check its value, release it, return it. */
uint64_t ours_read_one(rd_store *store, uint64_t i);
/* Write keys [first, last) in batches; the value of key i is i + `offset`. `after`, where not NULL, is called with how
 * many keys there are, each time a batch is visible. */
typedef void ours_written(void *arg, uint64_t keys);
void ours_write_batches(rd_store *store, uint64_t first, uint64_t last, uint64_t offset, ours_written *after,
                        void *arg);

/* A store of keys 0 to `keys`, not measured. */
void ours_make_store(const char *path, uint64_t keys);

#endif
