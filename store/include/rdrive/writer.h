/**
 * The writing half of librdrive; part of <rdrive/store.h>. Every call needs a store that is open for writing.
 */
#ifndef RDRIVE_WRITER_H
#define RDRIVE_WRITER_H

#include <rdrive/store.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rd_write_item {
    uint64_t key_hash;
    rd_span payload; /* F-09: one byte or more, and not the single byte 0x00 */
} rd_write_item;

/** Where a write left the store. */
typedef struct rd_written {
    uint64_t tail_off;    /* where the store ends with it */
    bool durable;         /* it survives a power cut */
    size_t deleted_count; /* tombstones written, by deletes */
} rd_written;

/**
 * Append; reads that begin after this returns see it. Where a failed append can't even be taken back, writing has ended
 * and some of it, each entry whole, may be there once the store is reopened.
 * Requires: the store is open for writing.
 * Returns:  RD_OK           appended and visible; durable as the store's sync mode says.
 *           RD_E_PAYLOAD    one payload is refused (F-09); nothing was written.
 *           RD_E_TOO_FAR    F-10; nothing was written.
 *           RD_E_NO_SPACE, RD_E_IO  not written, nothing of it will be served; the store goes on.
 *           RD_E_SYNC       unknown until reopened; writing has ended.
 *           RD_E_ENDED      writing ended earlier; reopen the store.
 *           RD_E_READ_ONLY, RD_E_NOMEM.
 * Threads:  any. Writers queue.
 */
RD_MUST_CHECK rd_err rd_store_write(rd_store *store, rd_span key, rd_span payload, rd_written *out_done);
RD_MUST_CHECK rd_err rd_store_write_hash(rd_store *store, uint64_t key_hash, rd_span payload, rd_written *out_done);

/** All of `items`, in order, visible at one instant (F-13). As rd_store_write; no items: RD_OK, nothing written. */
RD_MUST_CHECK rd_err rd_store_batch_write(rd_store *store, const rd_write_item *items, size_t count,
                                          rd_written *out_done);

/**
 * Write a tombstone for the key if it is present, or its newest entry is damaged (F-14). As rd_store_write.
 */
RD_MUST_CHECK rd_err rd_store_delete(rd_store *store, rd_span key, rd_written *out_done);

/** The same for many hashes at one instant; a present key named twice gets two tombstones (F-14). */
RD_MUST_CHECK rd_err rd_store_batch_delete(rd_store *store, const uint64_t *key_hashes, size_t count,
                                           rd_written *out_done);

/**
 * Make all that was written durable.
 * Returns: RD_OK; RD_E_SYNC (writing has ended); RD_E_IO it was not tried: try again; RD_E_ENDED; RD_E_READ_ONLY.
 */
RD_MUST_CHECK rd_err rd_store_sync(rd_store *store);

/**
 * Give the newest value of `old_key` to `new_key`, and delete `old_key`: one batch (F-14).
 * Returns: as rd_store_write; RD_ABSENT there is no such key; RD_E_DAMAGED, RD_E_TRUNCATED its value is; RD_E_INVALID
 *          the two are one key. Nothing was written then.
 */
RD_MUST_CHECK rd_err rd_store_rename(rd_store *store, rd_span old_key, rd_span new_key, rd_written *out_done);
RD_MUST_CHECK rd_err rd_store_rename_hash(rd_store *store, uint64_t old_hash, uint64_t new_hash, rd_written *out_done);

/**
 * Write the newest value of a key of `store`, checked, under the same hash in `target`, another store.
 * Returns: as rd_store_write on `target`; RD_ABSENT, RD_E_DAMAGED, RD_E_TRUNCATED of the source; RD_E_INVALID the two
 *          are one store or one file. Nothing was written then.
 */
RD_MUST_CHECK rd_err rd_store_copy_hash(rd_store *store, uint64_t key_hash, rd_store *target, rd_written *out_done);

/**
 * Copy, sync the target whatever its sync mode, and only then delete from `store`; `out_done` is of the target.
 * Returns: as rd_store_copy_hash; an error of the deletion leaves the key in both.
 */
RD_MUST_CHECK rd_err rd_store_move_hash(rd_store *store, uint64_t key_hash, rd_store *target, rd_written *out_done);

#define RD_STREAM_MEMORY ((size_t)1 << 20)

/**
 * A value that arrives in pieces. It is gathered in memory up to RD_STREAM_MEMORY and then in an unnamed file beside
 * the store, so that a slow source holds nobody up, and is appended as one entry at commit: nothing of it is seen, or
 * left, unless commit succeeds (E-05, E-06). Threads: one a stream.
 */
typedef struct rd_stream rd_stream;
RD_MUST_CHECK rd_err rd_stream_begin(rd_store *store, uint64_t key_hash, rd_stream **out_stream);

/** Returns: RD_OK; RD_E_TOO_LARGE beyond `max_value_bytes`; RD_E_NO_SPACE, RD_E_IO, RD_E_NOMEM: abort it then. */
RD_MUST_CHECK rd_err rd_stream_append(rd_stream *stream, rd_span piece);

/** Write it as rd_store_write does, and end the stream whatever comes. `out_size`, `out_crc`: of the payload. */
RD_MUST_CHECK rd_err rd_stream_commit(rd_stream *stream, rd_written *out_done, uint64_t *out_size, uint32_t *out_crc);

/** End it; nothing is written. NULL is fine. */
void rd_stream_abort(rd_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
