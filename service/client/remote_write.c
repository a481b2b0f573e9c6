/* Writing to a store that is served. */
#include "remote.h"
#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>

#define PIECE_BYTES_MAX ((size_t)256 << 10) /* of a value, in one message */

static ProtobufCBinaryData binary_of(rd_span bytes)
{
    return (ProtobufCBinaryData){.len = bytes.len, .data = (uint8_t *)(uintptr_t)bytes.data};
}

/* Note whether it is durable. Returns: RD_OK, or that there is no commit. */
static rd_err take_commit(struct remote_store *store, const Rdrive__V1__Commit *commit)
{
    if (commit == NULL)
        return remote_nonsense(store, "it has no commit");
    store->not_durable |= !commit->durable;
    return RD_OK;
}

/* ---- values of any size ---- */

static bool send_piece(struct stream *stream, Rdrive__V1__WriteStreamRequest *request, rd_span piece)
{
    request->data = binary_of(piece);
    bool sent = stream_send(stream, &request->base);
    request->selector_case = RDRIVE__V1__WRITE_STREAM_REQUEST__SELECTOR__NOT_SET; /* in the first message only */
    return sent;
}

/* What was sent of a value. */
struct sent {
    uint64_t size;
    uint32_t crc;
};

/* Send all that the source brings. Returns: false if it failed. */
static bool send_all(struct remote_store *store, struct stream *stream, uint64_t key_hash,
                     const struct tool_source *source, struct sent *sent)
{
    size_t most = store->base.write_bytes_max < PIECE_BYTES_MAX ? store->base.write_bytes_max : PIECE_BYTES_MAX;
    Rdrive__V1__WriteStreamRequest request;
    rdrive__v1__write_stream_request__init(&request);
    request.selector_case = RDRIVE__V1__WRITE_STREAM_REQUEST__SELECTOR_KEY_HASH;
    request.key_hash = key_hash;
    for (;;) {
        rd_span piece = {NULL, 0};
        enum tool_source_result result = source->piece(source->arg, &piece);
        if (result != TOOL_SOURCE_PIECE)
            return result == TOOL_SOURCE_END;
        sent->crc = libdeflate_crc32(sent->crc, piece.data, piece.len);
        sent->size += piece.len;
        while (piece.len > 0) {
            size_t len = piece.len < most ? piece.len : most;
            if (!send_piece(stream, &request, (rd_span){piece.data, len}))
                return true; /* the server has ended the call: its status says why */
            piece = (rd_span){(const uint8_t *)piece.data + len, piece.len - len};
        }
    }
}

static rd_err take_written(struct remote_store *store, grpc_byte_buffer *buffer, const struct sent *sent)
{
    Rdrive__V1__WriteStreamResponse *response =
        (void *)message_unpack(buffer, &rdrive__v1__write_stream_response__descriptor);
    if (response == NULL)
        return remote_nonsense(store, "no WriteStreamResponse");
    rd_err err = take_commit(store, response->commit);
    if (err == RD_OK && (response->payload_size != sent->size || response->checksum != sent->crc))
        err = remote_nonsense(store, "it has written other bytes than were sent");
    remote_free(response);
    return err;
}

rd_err remote_write_from(struct tool_store *base, uint64_t key_hash, const struct tool_source *source)
{
    struct remote_store *store = remote_of(base);
    struct stream stream;
    struct sent sent = {0, 0};
    stream_begin(&stream, &store->channel, WRITER("WriteStream"));
    bool whole = send_all(store, &stream, key_hash, source, &sent);
    if (!whole) {
        stream_end(&stream, true, &store->outcome);
        return RD_E_CANCELLED;
    }
    stream_send_end(&stream);
    grpc_byte_buffer *answer = stream_receive(&stream);
    stream_end(&stream, false, &store->outcome);
    if (store->outcome.status == GRPC_STATUS_OK && answer != NULL)
        return take_written(store, answer, &sent);
    if (answer != NULL)
        grpc_byte_buffer_destroy(answer);
    if (store->outcome.status == GRPC_STATUS_OK)
        return remote_nonsense(store, "none came");
    return remote_note(store);
}

static enum tool_source_result one_piece(void *arg, rd_span *out_piece)
{
    rd_span *piece = arg;
    if (piece->len == 0)
        return TOOL_SOURCE_END;
    *out_piece = *piece;
    piece->len = 0;
    return TOOL_SOURCE_PIECE;
}

/* ---- one message ---- */

static rd_err write_one(struct remote_store *store, const rd_write_item *item)
{
    rd_span payload = item->payload;
    if (payload.len + TOOL_ITEM_BYTES > store->base.write_bytes_max)
        return remote_write_from(&store->base, item->key_hash, &(struct tool_source){one_piece, &payload});
    Rdrive__V1__WriteWithKeyHashRequest request;
    rdrive__v1__write_with_key_hash_request__init(&request);
    request.key_hash = item->key_hash;
    request.payload = binary_of(payload);
    rd_err err = RD_OK;
    Rdrive__V1__WriteWithKeyHashResponse *answer =
        remote_ask(store, WRITER("WriteWithKeyHash"), &request.base,
                   &rdrive__v1__write_with_key_hash_response__descriptor, false, &err);
    if (answer != NULL)
        err = take_commit(store, answer->commit);
    remote_free(answer);
    return err;
}

/* Write `count` items, for each of which there is room in `sent` and `pointers`. */
static rd_err write_batch(struct remote_store *store, const rd_write_item *items, size_t count,
                          Rdrive__V1__HashedWriteItem *sent, Rdrive__V1__HashedWriteItem **pointers)
{
    for (size_t i = 0; i < count; i++) {
        rdrive__v1__hashed_write_item__init(&sent[i]);
        sent[i].key_hash = items[i].key_hash;
        sent[i].payload = binary_of(items[i].payload);
        pointers[i] = &sent[i];
    }
    Rdrive__V1__BatchWriteWithKeyHashesRequest request;
    rdrive__v1__batch_write_with_key_hashes_request__init(&request);
    request.n_items = count;
    request.items = pointers;
    rd_err err = RD_OK;
    Rdrive__V1__BatchWriteWithKeyHashesResponse *answer =
        remote_ask(store, WRITER("BatchWriteWithKeyHashes"), &request.base,
                   &rdrive__v1__batch_write_with_key_hashes_response__descriptor, false, &err);
    if (answer != NULL)
        err = take_commit(store, answer->commit);
    remote_free(answer);
    return err;
}

rd_err remote_write(struct tool_store *base, const rd_write_item *items, size_t count)
{
    struct remote_store *store = remote_of(base);
    if (count == 1)
        return write_one(store, items);
    Rdrive__V1__HashedWriteItem *sent = calloc(count, sizeof(*sent));
    Rdrive__V1__HashedWriteItem **pointers = calloc(count, sizeof(*pointers));
    rd_err err = RD_E_NOMEM;
    store->why[0] = '\0';
    if (sent != NULL && pointers != NULL)
        err = write_batch(store, items, count, sent, pointers);
    free(sent);
    free(pointers);
    return err;
}

rd_err remote_remove(struct tool_store *base, const uint64_t *key_hashes, size_t count, size_t *out_deleted)
{
    struct remote_store *store = remote_of(base);
    Rdrive__V1__BatchDeleteKeyHashesRequest request;
    rdrive__v1__batch_delete_key_hashes_request__init(&request);
    request.n_key_hashes = count;
    request.key_hashes = (uint64_t *)(uintptr_t)key_hashes;
    rd_err err = RD_OK;
    Rdrive__V1__BatchDeleteKeyHashesResponse *answer =
        remote_ask(store, WRITER("BatchDeleteKeyHashes"), &request.base,
                   &rdrive__v1__batch_delete_key_hashes_response__descriptor, false, &err);
    if (answer == NULL)
        return err;
    bool not_durable = store->not_durable;
    err = take_commit(store, answer->commit);
    if (err == RD_OK)
        *out_deleted = (size_t)answer->deleted_count;
    if (answer->deleted_count == 0)
        store->not_durable = not_durable; /* nothing was written */
    remote_free(answer);
    return err;
}

rd_err remote_sync(struct tool_store *store)
{
    return remote_of(store)->not_durable ? RD_E_UNSUPPORTED : RD_OK;
}

rd_err remote_rename(struct tool_store *base, const struct tool_key *old_key, const struct tool_key *new_key)
{
    struct remote_store *store = remote_of(base);
    store->why[0] = '\0';
    if (old_key->hash_only || new_key->hash_only)
        return RD_E_UNSUPPORTED; /* the contract renames keys */
    Rdrive__V1__RenameRequest request;
    rdrive__v1__rename_request__init(&request);
    request.old_key = binary_of(old_key->bytes);
    request.new_key = binary_of(new_key->bytes);
    rd_err err = RD_OK;
    Rdrive__V1__RenameResponse *answer =
        remote_ask(store, WRITER("Rename"), &request.base, &rdrive__v1__rename_response__descriptor, false, &err);
    if (answer != NULL)
        err = take_commit(store, answer->commit);
    remote_free(answer);
    return err;
}

/* ---- compaction ---- */

/* Take one message. Returns: RD_OK, or what ends it. */
static rd_err take_progress(struct remote_store *store, grpc_byte_buffer *buffer, const rd_compact_options *options,
                            rd_compacted *compacted, bool *done)
{
    Rdrive__V1__CompactResponse *response = (void *)message_unpack(buffer, &rdrive__v1__compact_response__descriptor);
    if (response == NULL)
        return remote_nonsense(store, "no CompactResponse");
    const rd_compact_progress step = {.entries_done = response->entries_done, .entries_total = response->entries_total};
    *compacted = (rd_compacted){.entries = response->entries_done,
                                .bytes_written = response->bytes_written,
                                .bytes_reclaimed = response->bytes_reclaimed};
    *done = response->done != 0;
    remote_free(response);
    return options->progress == NULL || options->progress(options->arg, &step) ? RD_OK : RD_E_CANCELLED;
}

rd_err remote_compact(struct tool_store *base, const rd_compact_options *options, rd_fault *out_fault,
                      rd_compacted *out_compacted)
{
    struct remote_store *store = remote_of(base);
    struct stream stream;
    Rdrive__V1__CompactRequest request;
    rdrive__v1__compact_request__init(&request);
    *out_fault = (rd_fault){0};
    stream_begin(&stream, &store->channel, WRITER("Compact"));
    if (stream_send(&stream, &request.base))
        stream_send_end(&stream);
    rd_compacted compacted = {0};
    rd_err err = RD_OK;
    bool done = false;
    for (grpc_byte_buffer *buffer; err == RD_OK && (buffer = stream_receive(&stream)) != NULL;)
        err = take_progress(store, buffer, options, &compacted, &done);
    struct outcome outcome;
    stream_end(&stream, err != RD_OK, &outcome);
    if (err != RD_OK)
        return err;
    store->outcome = outcome;
    if (outcome.status != GRPC_STATUS_OK)
        return remote_note(store);
    if (!done)
        return remote_nonsense(store, "the compaction has no end");
    *out_compacted = compacted;
    return RD_OK;
}
