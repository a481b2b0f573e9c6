/* Writes, deletions and renames: each is one commit of the engine's, and the engine shares its syncs among them. */
#include "method.h"
#include "server.h"
#include <rdrive/v1/writer.pb-c.h>

/* Field numbers of proto/rdrive/v1/writer.proto. */
static const struct key_fields delete_keys = {.keys = 1};
static const struct key_fields delete_hashes = {.key_hashes = 1};

static enum step ask_write(struct call *call, const rd_write_item *items, size_t count)
{
    call->op = (rd_op){.kind = RD_OP_WRITE, .items = items, .item_count = count};
    call->key_count = count;
    return STEP_ASK;
}

static enum step refuse_payload(struct call *call, size_t index, size_t len)
{
    uint64_t limit = call->queue->server->config->max_value_bytes;
    call_tell(call, "index", index);
    call_tell(call, "size", len);
    if (len > 1) {
        call_tell(call, "limit", limit);
        return call_refuse(call, REFUSE_PAYLOAD,
                           "payload %zu takes %zu bytes and at most %llu are allowed (--max-value-bytes)", index, len,
                           (unsigned long long)limit);
    }
    return call_refuse(call, REFUSE_PAYLOAD,
                       "payload %zu is %s, which the file can't hold; write another value, or delete the key", index,
                       len == 0 ? "empty" : "the single byte 0x00");
}

/* ---- one value ---- */

static enum step begin_write(struct call *call, bool by_hash)
{
    size_t len;
    if (call->request == NULL)
        return call_refuse_malformed(call);
    const uint8_t *bytes = call_request_bytes(call, &len);
    if (bytes == NULL)
        return call_fail(call, RD_E_NOMEM);
    if (!decode_item(bytes, len, by_hash, &call->item))
        return call_refuse_malformed(call);
    if (!decode_payload_is_legal(call->item.payload, call->queue->server->config->max_value_bytes))
        return refuse_payload(call, 0, call->item.payload.len);
    return ask_write(call, &call->item, 1);
}

enum step write_begin(struct call *call)
{
    return begin_write(call, false);
}

enum step write_hash_begin(struct call *call)
{
    return begin_write(call, true);
}

/* ---- many ---- */

static enum step decode_items(struct call *call)
{
    struct item_decoder *decoder = &call->u.items;
    switch (item_decoder_run(decoder)) {
    case DECODE_OK: return ask_write(call, decoder->items, decoder->count);
    case DECODE_MORE: return STEP_YIELD;
    case DECODE_TOO_MANY: return call_refuse_batch(call, decoder->count);
    case DECODE_PAYLOAD: return refuse_payload(call, decoder->bad_index, decoder->bad_len);
    case DECODE_NOMEM: return call_fail(call, RD_E_NOMEM);
    case DECODE_LENGTHS:
    case DECODE_MALFORMED: break;
    }
    return call_refuse_malformed(call);
}

static enum step begin_items(struct call *call, bool by_hash)
{
    const struct config *config = call->queue->server->config;
    size_t len;
    if (call->request == NULL)
        return call_refuse_malformed(call);
    const uint8_t *bytes = call_request_bytes(call, &len);
    if (bytes == NULL)
        return call_fail(call, RD_E_NOMEM);
    item_decoder_init(&call->u.items, bytes, len, by_hash, config->max_batch_keys, config->max_value_bytes,
                      &call->arena);
    return decode_items(call);
}

enum step batch_write_begin(struct call *call)
{
    return begin_items(call, false);
}

enum step batch_write_hash_begin(struct call *call)
{
    return begin_items(call, true);
}

enum step batch_write_resume(struct call *call)
{
    return call->last == STEP_YIELD ? decode_items(call) : write_resume(call);
}

/* ---- renames ---- */

enum step rename_begin(struct call *call)
{
    const Rdrive__V1__RenameRequest *request = call_decode(call, &rdrive__v1__rename_request__descriptor);
    if (request == NULL)
        return STEP_FAIL;
    call->key[0] = (rd_key){.hash = rd_hash((rd_span){.data = request->old_key.data, .len = request->old_key.len})};
    call->key[1] = (rd_key){.hash = rd_hash((rd_span){.data = request->new_key.data, .len = request->new_key.len})};
    if (call->key[0].hash == call->key[1].hash)
        return call_refuse(call, REFUSE_MALFORMED, "old_key and new_key are one key; give another new_key");
    call->op = (rd_op){.kind = RD_OP_RENAME, .keys = call->key, .key_count = 2};
    call->key_count = 2;
    return STEP_ASK;
}

/* ---- deletions ---- */

static enum step ask_delete(struct call *call, rd_key *keys, size_t count)
{
    call->op = (rd_op){.kind = RD_OP_DELETE, .keys = keys, .key_count = count};
    call->key_count = count;
    return STEP_ASK;
}

enum step delete_begin(struct call *call)
{
    const Rdrive__V1__DeleteRequest *request = call_decode(call, &rdrive__v1__delete_request__descriptor);
    if (request == NULL)
        return STEP_FAIL;
    call->key[0] = (rd_key){.hash = rd_hash((rd_span){.data = request->key.data, .len = request->key.len})};
    return ask_delete(call, call->key, 1);
}

static enum step decode_deletes(struct call *call)
{
    struct key_decoder *decoder = &call->u.batch.decoder;
    enum step step;
    return call_run_decoder(call, decoder, &step) ? ask_delete(call, decoder->keys, decoder->count) : step;
}

static enum step begin_deletes(struct call *call, const struct key_fields *fields)
{
    return call_begin_decoder(call, &call->u.batch.decoder, fields) ? decode_deletes(call) : STEP_FAIL;
}

enum step batch_delete_begin(struct call *call)
{
    return begin_deletes(call, &delete_keys);
}

enum step batch_delete_hash_begin(struct call *call)
{
    return begin_deletes(call, &delete_hashes);
}

enum step batch_delete_resume(struct call *call)
{
    return call->last == STEP_YIELD ? decode_deletes(call) : delete_resume(call);
}

/* ---- answers ---- */

static Rdrive__V1__Commit commit_of(const struct call *call)
{
    Rdrive__V1__Commit commit;
    rdrive__v1__commit__init(&commit);
    commit.tail_offset = call->op.written.tail_off;
    commit.durable = call->op.written.durable;
    return commit;
}

/* All answers to writes and renames have one shape. */
enum step write_resume(struct call *call)
{
    if (call->op.err == RD_ABSENT)
        return call_refuse(call, REFUSE_NO_KEY, "old_key has no value; nothing was written");
    Rdrive__V1__Commit commit = commit_of(call);
    Rdrive__V1__WriteResponse response;
    rdrive__v1__write_response__init(&response);
    response.commit = &commit;
    call_pack(call, &response.base);
    return STEP_END;
}

/* And those to deletions. */
enum step delete_resume(struct call *call)
{
    Rdrive__V1__Commit commit = commit_of(call);
    Rdrive__V1__DeleteResponse response;
    rdrive__v1__delete_response__init(&response);
    response.commit = &commit;
    response.deleted_count = call->op.written.deleted_count;
    call_pack(call, &response.base);
    return STEP_END;
}
