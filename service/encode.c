#include "encode.h"
#include "wire.h"
#include <rdrive/v1/reader.pb-c.h>

/* Field numbers of proto/rdrive/v1/entry.proto. */
enum {
    OUTER_FIELD = 1, /* `entry`, `items`, `fragment`, `metadata`: each answer's only field */
    ENTRY_PAYLOAD = 1,
    ENTRY_METADATA = 2,
    METADATA_KEY_HASH = 1,
    METADATA_PREV_OFFSET = 2,
    METADATA_CHECKSUM = 3,
    METADATA_TOMBSTONE = 4,
    FRAGMENT_DATA = 1,
    FRAGMENT_OFFSET = 2,
    FRAGMENT_SIZE = 3,
    FRAGMENT_METADATA = 4,
    ITEM_INDEX = 1,
    ITEM_ENTRY = 2,
    ITEM_FRAGMENT = 3,
    ITEM_ERROR = 4,
    ITEM_ABSENT = 5,
    ERROR_CODE = 1,
    ERROR_MESSAGE = 2,
    ERROR_REASON = 3,
};

/* More than the tags, lengths and numbers before or behind any payload can take. */
#define HEAD_MAX ((size_t)96)

static size_t metadata_size(const rd_metadata *meta)
{
    return (meta->key_hash != 0 ? 9u : 0u) + wire_varint_field_size(meta->prev_off) + (meta->checksum != 0 ? 5u : 0u) +
           (meta->tombstone ? 2u : 0u);
}

static uint8_t *put_metadata(uint8_t *at, unsigned field, const rd_metadata *meta)
{
    at = wire_put_len(at, field, metadata_size(meta));
    at = wire_put_fixed64_field(at, METADATA_KEY_HASH, meta->key_hash);
    at = wire_put_varint_field(at, METADATA_PREV_OFFSET, meta->prev_off);
    at = wire_put_fixed32_field(at, METADATA_CHECKSUM, meta->checksum);
    return wire_put_varint_field(at, METADATA_TOMBSTONE, meta->tombstone);
}

static size_t bytes_field_size(size_t len)
{
    return len == 0 ? 0 : wire_len_size(len);
}

static size_t entry_size(const rd_value *value, bool omit_metadata)
{
    return bytes_field_size(value->payload.len) + (omit_metadata ? 0 : wire_len_size(metadata_size(&value->meta)));
}

static size_t fragment_size(const rd_value *value, const struct encode_run *run)
{
    return bytes_field_size(run->len) + wire_varint_field_size(run->offset) +
           wire_varint_field_size(value->payload.len) +
           (run->with_metadata ? wire_len_size(metadata_size(&value->meta)) : 0);
}

/* What was written from `start` up to `at` is part of the message. */
static void commit_to(struct reply *reply, const uint8_t *start, const uint8_t *at)
{
    reply_commit(reply, (size_t)(at - start));
}

/* Payload bytes: by reference where that pays and the engine can keep them, else a copy. */
static void put_payload(struct reply *reply, const struct encode_source *source, const rd_value *value, uint64_t offset,
                        size_t len)
{
    rd_span bytes = {.data = (const uint8_t *)value->payload.data + offset, .len = len};
    rd_hold hold;
    if (len >= ENCODE_REFER_MIN && source->by_reference &&
        rd_engine_hold(source->engine, source->op, value, &hold) == RD_OK)
        reply_refer(reply, bytes, hold);
    else
        reply_put_payload(reply, bytes);
}

struct packer {
    ProtobufCBuffer buffer; /* first */
    struct reply *reply;
    const struct encode_source *source;
    const rd_value *value; /* NULL: there is none */
};

/* Bytes inside the value's payload are known by their address: only those are kept by its pin. */
static void append(ProtobufCBuffer *buffer, size_t len, const uint8_t *data)
{
    struct packer *packer = (struct packer *)buffer;
    const rd_value *value = packer->value;
    uintptr_t offset = value != NULL ? (uintptr_t)data - (uintptr_t)value->payload.data : UINTPTR_MAX;
    if (value != NULL && offset < value->payload.len && len <= value->payload.len - offset)
        put_payload(packer->reply, packer->source, value, offset, len);
    else
        reply_put(packer->reply, data, len);
}

void encode_value_message(struct reply *reply, const struct encode_source *source, const rd_value *value,
                          const ProtobufCMessage *message)
{
    struct packer packer = {.buffer.append = append, .reply = reply, .source = source, .value = value};
    reply_reserve(reply, 0); /* a message of no bytes is one too */
    protobuf_c_message_pack_to_buffer(message, &packer.buffer);
}

void encode_message(struct reply *reply, const ProtobufCMessage *message)
{
    encode_value_message(reply, NULL, NULL, message);
}

/* Whether a payload is copied to where its message is made. */
static bool is_small(const rd_value *value)
{
    return value->payload.len < ENCODE_REFER_MIN;
}

/* An Entry's fields where its payload is small; NULL where that vanishes. */
static uint8_t *put_small_entry(uint8_t *at, const rd_value *value, bool omit_metadata)
{
    if (value->payload.len > 0) {
        at = wire_put_len(at, ENTRY_PAYLOAD, value->payload.len);
        if (!rd_copy(at, value->payload))
            return NULL;
        at += value->payload.len;
    }
    return omit_metadata ? at : put_metadata(at, ENTRY_METADATA, &value->meta);
}

/* The same where it is large, behind `at` in what was reserved from `start`. */
static void put_large_entry(struct reply *reply, const struct encode_source *source, const uint8_t *start, uint8_t *at,
                            const rd_value *value, bool omit_metadata)
{
    at = wire_put_len(at, ENTRY_PAYLOAD, value->payload.len);
    commit_to(reply, start, at);
    put_payload(reply, source, value, 0, value->payload.len);
    if (omit_metadata)
        return;
    at = reply_reserve(reply, HEAD_MAX);
    if (at != NULL)
        commit_to(reply, at, put_metadata(at, ENTRY_METADATA, &value->meta));
}

size_t encode_entry_message_size(const rd_value *value)
{
    return wire_len_size(entry_size(value, false));
}

void encode_entry_message(struct reply *reply, const struct encode_source *source, const rd_value *value)
{
    uint8_t *start = reply_reserve(reply, 2 * HEAD_MAX + (is_small(value) ? value->payload.len : 0));
    if (start == NULL)
        return;
    uint8_t *at = wire_put_len(start, OUTER_FIELD, entry_size(value, false));
    if (!is_small(value)) {
        put_large_entry(reply, source, start, at, value, false);
        return;
    }
    at = put_small_entry(at, value, false);
    if (at != NULL)
        commit_to(reply, start, at);
    else
        reply_fail(reply, RD_E_TRUNCATED);
}

/* ItemError: three fields, none of them zero. */
static size_t error_size(rd_err err)
{
    return wire_varint_field_size((uint64_t)rd_err_status(err)) + wire_len_size(strlen(rd_err_text(err))) +
           wire_len_size(strlen(rd_err_reason(err)));
}

static void put_error(struct reply *reply, rd_err err)
{
    const char *texts[] = {[ERROR_MESSAGE] = rd_err_text(err), [ERROR_REASON] = rd_err_reason(err)};
    uint8_t *start = reply_reserve(reply, error_size(err));
    if (start == NULL)
        return;
    uint8_t *at = wire_put_varint_field(start, ERROR_CODE, (uint64_t)rd_err_status(err));
    for (unsigned field = ERROR_MESSAGE; field <= ERROR_REASON; field++) {
        size_t len = strlen(texts[field]);
        at = wire_put_len(at, field, len);
        memcpy(at, texts[field], len);
        at += len;
    }
    commit_to(reply, start, at);
}

/* The size of the outcome's message, without its tag and length. */
static size_t outcome_size(const rd_value *value, bool omit_metadata)
{
    if (value->err == RD_OK)
        return entry_size(value, omit_metadata);
    return value->err == RD_ABSENT ? 0 : error_size(value->err);
}

size_t encode_item_size(uint32_t index, const rd_value *value, bool omit_metadata)
{
    return wire_len_size(wire_varint_field_size(index) + wire_len_size(outcome_size(value, omit_metadata)));
}

/* `items = 1 {index = 1, FIELD = ...`; returns where the outcome's message goes. */
static uint8_t *put_item_head(uint8_t *at, uint32_t index, unsigned field, size_t outcome_len)
{
    at = wire_put_len(at, OUTER_FIELD, wire_varint_field_size(index) + wire_len_size(outcome_len));
    at = wire_put_varint_field(at, ITEM_INDEX, index);
    return wire_put_len(at, field, outcome_len);
}

void encode_item(struct reply *reply, const struct encode_source *source, uint32_t index, const rd_value *value,
                 bool omit_metadata)
{
    bool small = is_small(value);
    uint8_t *start = reply_reserve(reply, 2 * HEAD_MAX + (small ? value->payload.len : 0));
    if (start == NULL)
        return;
    unsigned field = value->err == RD_OK ? ITEM_ENTRY : value->err == RD_ABSENT ? ITEM_ABSENT : ITEM_ERROR;
    uint8_t *at = put_item_head(start, index, field, outcome_size(value, omit_metadata));
    if (field == ITEM_ENTRY && !small) {
        put_large_entry(reply, source, start, at, value, omit_metadata);
        return;
    }
    if (field == ITEM_ENTRY && (at = put_small_entry(at, value, omit_metadata)) == NULL) {
        const rd_value gone = {.err = RD_E_TRUNCATED}; /* nothing of it was committed */
        encode_item(reply, source, index, &gone, omit_metadata);
        return;
    }
    commit_to(reply, start, at);
    if (field == ITEM_ERROR)
        put_error(reply, value->err);
}

/* A PayloadFragment's fields, behind `at` in what was reserved from `start`. */
static void put_fragment(struct reply *reply, const struct encode_source *source, const uint8_t *start, uint8_t *at,
                         const rd_value *value, const struct encode_run *run)
{
    if (run->len > 0) {
        at = wire_put_len(at, FRAGMENT_DATA, run->len);
        commit_to(reply, start, at);
        put_payload(reply, source, value, run->offset, run->len);
        at = reply_reserve(reply, HEAD_MAX);
        if (at == NULL)
            return;
        start = at;
    }
    at = wire_put_varint_field(at, FRAGMENT_OFFSET, run->offset);
    at = wire_put_varint_field(at, FRAGMENT_SIZE, value->payload.len);
    if (run->with_metadata)
        at = put_metadata(at, FRAGMENT_METADATA, &value->meta);
    commit_to(reply, start, at);
}

void encode_fragment_item(struct reply *reply, const struct encode_source *source, uint32_t index,
                          const rd_value *value, const struct encode_run *run)
{
    uint8_t *start = reply_reserve(reply, HEAD_MAX);
    if (start == NULL)
        return;
    uint8_t *at = put_item_head(start, index, ITEM_FRAGMENT, fragment_size(value, run));
    put_fragment(reply, source, start, at, value, run);
}

/* One a chunk, so protobuf-c may pack it: it takes the payload by reference as well. */
void encode_fragment_message(struct reply *reply, const struct encode_source *source, const rd_value *value,
                             const struct encode_run *run)
{
    Rdrive__V1__EntryMetadata metadata;
    Rdrive__V1__PayloadFragment fragment;
    Rdrive__V1__ReadStreamResponse response;
    rdrive__v1__entry_metadata__init(&metadata);
    metadata.key_hash = value->meta.key_hash;
    metadata.prev_offset = value->meta.prev_off;
    metadata.checksum = value->meta.checksum;
    metadata.tombstone = value->meta.tombstone;
    rdrive__v1__payload_fragment__init(&fragment);
    fragment.data.data = (uint8_t *)(uintptr_t)value->payload.data + run->offset;
    fragment.data.len = run->len;
    fragment.payload_offset = run->offset;
    fragment.payload_size = value->payload.len;
    fragment.metadata = run->with_metadata ? &metadata : NULL;
    rdrive__v1__read_stream_response__init(&response);
    response.fragment = &fragment;
    encode_value_message(reply, source, value, &response.base);
}

void encode_metadata_message(struct reply *reply, const rd_metadata *meta)
{
    uint8_t *start = reply_reserve(reply, HEAD_MAX);
    if (start != NULL)
        commit_to(reply, start, put_metadata(start, OUTER_FIELD, meta));
}
