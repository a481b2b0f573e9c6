/* The tool's table of operations (store/tool/ops.h) over the contract: what its parts share. */
#ifndef CLIENT_REMOTE_H
#define CLIENT_REMOTE_H

#include "channel.h"
#include "ops.h"
#include <rdrive/v1/reader.pb-c.h>
#include <rdrive/v1/writer.pb-c.h>

#define READER(method) "/rdrive.v1.DataStoreReaderService/" method
#define WRITER(method) "/rdrive.v1.DataStoreWriterService/" method

struct remote_store {
    struct tool_store base;
    struct channel_to to;
    struct channel channel;
    Rdrive__V1__GetStoreInfoResponse *info; /* as it was when last asked */
    char version[32], engine[64];
    struct outcome outcome;  /* of the last call */
    char why[700];           /* what is to be said of it */
    atomic_flag lane_failed; /* a lane has said why */
    bool not_durable;        /* something was written that is not durable yet */
};

static inline struct remote_store *remote_of(struct tool_store *store)
{
    return (struct remote_store *)store;
}

/**
 * Ask a unary method. What the server refuses for now is asked again a few times, and so is what a broken connection
 * left unanswered where it is `repeatable`, as reads are.
 * Returns: the answer, to be freed by remote_free; or NULL and `*out_err`.
 */
void *remote_ask(struct remote_store *store, const char *method, const ProtobufCMessage *request,
                 const ProtobufCMessageDescriptor *answer, bool repeatable, rd_err *out_err);
void remote_free(void *answer);

/* Wait before the next try, longer each time. Returns: false if there shall be none. */
bool remote_again(const struct remote_store *store, unsigned *tries, bool repeatable);

/* Note how a call ended. Returns: outcome_error. */
rd_err remote_note(struct remote_store *store);

/* Note that what the server answered can't be. Returns: RD_E_DAMAGED. */
rd_err remote_nonsense(struct remote_store *store, const char *what);

rd_err remote_read(struct tool_store *store, const struct tool_key *key, const struct tool_sink *sink);
rd_err remote_exists(struct tool_store *store, const struct tool_key *key);
rd_err remote_metadata(struct tool_store *store, const struct tool_key *key, rd_metadata *out_meta);
rd_err remote_last(struct tool_store *store, rd_metadata *out_meta, uint64_t *out_size);

rd_err remote_write(struct tool_store *store, const rd_write_item *items, size_t count);
rd_err remote_write_from(struct tool_store *store, uint64_t key_hash, const struct tool_source *source);
rd_err remote_remove(struct tool_store *store, const uint64_t *key_hashes, size_t count, size_t *out_deleted);
rd_err remote_sync(struct tool_store *store);
rd_err remote_rename(struct tool_store *store, const struct tool_key *old_key, const struct tool_key *new_key);
rd_err remote_compact(struct tool_store *store, const rd_compact_options *options, rd_fault *out_fault,
                      rd_compacted *out_compacted);

rd_err remote_lane_open(struct tool_store *store, size_t places, struct tool_lane **out_lane);
void remote_lane_close(struct tool_lane *lane);
void remote_lane_ask(struct tool_lane *lane, size_t at, const uint64_t *key_hashes, size_t count, rd_batch_item *items);
rd_err remote_lane_take(struct tool_lane *lane, size_t *out_place);
void remote_lane_give(struct tool_lane *lane, size_t at);

extern const struct tool_ops tool_remote_ops;

#endif
