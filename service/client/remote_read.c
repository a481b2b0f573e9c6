/* Reading one key of a store that is served. */
#include "remote.h"
#include <libdeflate.h>

static ProtobufCBinaryData binary_of(rd_span bytes)
{
    return (ProtobufCBinaryData){.len = bytes.len, .data = (uint8_t *)(uintptr_t)bytes.data};
}

static rd_metadata metadata_of(const Rdrive__V1__EntryMetadata *metadata)
{
    return (rd_metadata){.key_hash = metadata->key_hash,
                         .prev_off = metadata->prev_offset,
                         .checksum = metadata->checksum,
                         .tombstone = metadata->tombstone != 0};
}

/* ---- whole values ---- */

/* A value as it comes, over as many calls as it takes. */
struct reading {
    struct remote_store *store;
    const struct tool_sink *sink;
    bool begun; /* size and checksum are known */
    uint64_t offset, size;
    uint32_t checksum, crc;
    rd_metadata meta;
};

/* Whether a fragment is the one that must come now. `first`: of its call. NULL, or what is wrong. */
static const char *check_fragment(const struct reading *reading, const Rdrive__V1__PayloadFragment *fragment,
                                  bool first)
{
    if (fragment->data.len == 0)
        return "a fragment without a byte of payload";
    if (first && fragment->metadata == NULL)
        return "the first fragment has no metadata";
    if (fragment->payload_offset != reading->offset)
        return "a fragment is not the one that follows";
    if (fragment->data.len > fragment->payload_size || reading->offset > fragment->payload_size - fragment->data.len)
        return "a fragment goes beyond its payload's end";
    if (reading->begun && fragment->payload_size != reading->size)
        return "fragments of one payload differ in its size";
    return NULL;
}

/* Take one message. Returns: RD_OK, or what ends the reading. */
static rd_err take_fragment(struct reading *reading, const Rdrive__V1__PayloadFragment *fragment, bool first)
{
    if (fragment == NULL)
        return remote_nonsense(reading->store, "a message of ReadStream without a fragment");
    bool replaced = reading->begun && first && fragment->metadata != NULL &&
                    (fragment->payload_size != reading->size || fragment->metadata->checksum != reading->checksum);
    if (replaced)
        return remote_nonsense(reading->store, "the value was replaced while it was read; read it again");
    const char *wrong = check_fragment(reading, fragment, first);
    if (wrong != NULL)
        return remote_nonsense(reading->store, wrong);
    if (!reading->begun) {
        reading->begun = true;
        reading->size = fragment->payload_size;
        reading->checksum = fragment->metadata->checksum;
        reading->meta = metadata_of(fragment->metadata);
    }
    reading->crc = libdeflate_crc32(reading->crc, fragment->data.data, fragment->data.len);
    reading->offset += fragment->data.len;
    return reading->sink->bytes(reading->sink->arg, (rd_span){fragment->data.data, fragment->data.len})
               ? RD_OK
               : RD_E_CANCELLED;
}

/* One call, from where the last one broke off. Returns: RD_OK it ended by itself, and the outcome says how. */
static rd_err read_on(struct reading *reading, Rdrive__V1__ReadStreamRequest *request)
{
    struct stream stream;
    rd_err err = RD_OK;
    request->offset = reading->offset;
    stream_begin(&stream, &reading->store->channel, READER("ReadStream"));
    if (stream_send(&stream, &request->base))
        stream_send_end(&stream);
    for (bool first = true; err == RD_OK; first = false) {
        grpc_byte_buffer *buffer = stream_receive(&stream);
        if (buffer == NULL)
            break;
        Rdrive__V1__ReadStreamResponse *response =
            (void *)message_unpack(buffer, &rdrive__v1__read_stream_response__descriptor);
        err = response != NULL ? take_fragment(reading, response->fragment, first)
                               : remote_nonsense(reading->store, "no ReadStreamResponse");
        remote_free(response);
        if (request->limit != 0)
            break; /* what was asked for is there */
    }
    struct outcome outcome;
    stream_end(&stream, err != RD_OK, &outcome);
    if (err == RD_OK)
        reading->store->outcome = outcome;
    return err;
}

static void select_key(Rdrive__V1__ReadStreamRequest *request, const struct tool_key *key)
{
    rdrive__v1__read_stream_request__init(request);
    request->selector_case = key->hash_only ? RDRIVE__V1__READ_STREAM_REQUEST__SELECTOR_KEY_HASH
                                            : RDRIVE__V1__READ_STREAM_REQUEST__SELECTOR_KEY;
    if (key->hash_only)
        request->key_hash = key->hash;
    else
        request->key = binary_of(key->bytes);
}

/* Read until the call or the reading ends; a broken connection is gone over. Returns: as remote_read. */
static rd_err read_all(struct reading *reading, Rdrive__V1__ReadStreamRequest *request)
{
    unsigned tries = 0;
    for (;;) {
        uint64_t before = reading->offset;
        rd_err err = read_on(reading, request);
        if (err != RD_OK)
            return err;
        if (reading->store->outcome.status == GRPC_STATUS_OK)
            break;
        tries = reading->offset > before ? 0 : tries;
        if (!remote_again(reading->store, &tries, true))
            return remote_note(reading->store);
    }
    if (!reading->begun)
        return RD_ABSENT;
    if (request->limit != 0)
        return RD_OK;
    if (reading->offset < reading->size)
        return remote_nonsense(reading->store, "the value ends before its end");
    if (reading->crc != reading->checksum)
        return remote_nonsense(reading->store, "these are not the bytes that the value's checksum is of");
    return RD_OK;
}

rd_err remote_read(struct tool_store *base, const struct tool_key *key, const struct tool_sink *sink)
{
    struct reading reading = {.store = remote_of(base), .sink = sink};
    Rdrive__V1__ReadStreamRequest request;
    select_key(&request, key);
    return read_all(&reading, &request);
}

/* ---- what is said of a key ---- */

rd_err remote_exists(struct tool_store *base, const struct tool_key *key)
{
    struct remote_store *store = remote_of(base);
    rd_err err = RD_OK;
    bool exists = false;
    if (key->hash_only) {
        Rdrive__V1__ExistsWithKeyHashRequest request;
        rdrive__v1__exists_with_key_hash_request__init(&request);
        request.key_hash = key->hash;
        Rdrive__V1__ExistsWithKeyHashResponse *answer =
            remote_ask(store, READER("ExistsWithKeyHash"), &request.base,
                       &rdrive__v1__exists_with_key_hash_response__descriptor, true, &err);
        exists = answer != NULL && answer->exists;
        remote_free(answer);
    } else {
        Rdrive__V1__ExistsRequest request;
        rdrive__v1__exists_request__init(&request);
        request.key = binary_of(key->bytes);
        Rdrive__V1__ExistsResponse *answer =
            remote_ask(store, READER("Exists"), &request.base, &rdrive__v1__exists_response__descriptor, true, &err);
        exists = answer != NULL && answer->exists;
        remote_free(answer);
    }
    return err != RD_OK ? err : exists ? RD_OK : RD_ABSENT;
}

static bool drop(void *arg, rd_span bytes)
{
    (void)arg;
    (void)bytes;
    return true;
}

/* ReadMetadata takes no hash: the first byte of the value brings its metadata along. */
static rd_err metadata_by_hash(struct remote_store *store, const struct tool_key *key, rd_metadata *out_meta)
{
    const struct tool_sink sink = {drop, NULL};
    struct reading reading = {.store = store, .sink = &sink};
    Rdrive__V1__ReadStreamRequest request;
    select_key(&request, key);
    request.limit = 1;
    rd_err err = read_all(&reading, &request);
    if (err == RD_OK)
        *out_meta = reading.meta;
    return err;
}

rd_err remote_metadata(struct tool_store *base, const struct tool_key *key, rd_metadata *out_meta)
{
    struct remote_store *store = remote_of(base);
    if (key->hash_only)
        return metadata_by_hash(store, key, out_meta);
    Rdrive__V1__ReadMetadataRequest request;
    rdrive__v1__read_metadata_request__init(&request);
    request.key = binary_of(key->bytes);
    rd_err err = RD_ABSENT;
    Rdrive__V1__ReadMetadataResponse *answer = remote_ask(store, READER("ReadMetadata"), &request.base,
                                                          &rdrive__v1__read_metadata_response__descriptor, true, &err);
    if (answer != NULL && answer->metadata != NULL) {
        *out_meta = metadata_of(answer->metadata);
        err = RD_OK;
    }
    remote_free(answer);
    return err;
}

rd_err remote_last(struct tool_store *base, rd_metadata *out_meta, uint64_t *out_size)
{
    struct remote_store *store = remote_of(base);
    Rdrive__V1__ReadLastEntryRequest request;
    rdrive__v1__read_last_entry_request__init(&request);
    rd_err err = RD_ABSENT;
    Rdrive__V1__ReadLastEntryResponse *answer = remote_ask(
        store, READER("ReadLastEntry"), &request.base, &rdrive__v1__read_last_entry_response__descriptor, true, &err);
    if (answer != NULL && answer->entry != NULL && answer->entry->metadata == NULL)
        err = remote_nonsense(store, "the newest entry has no metadata");
    else if (answer != NULL && answer->entry != NULL) {
        *out_meta = metadata_of(answer->entry->metadata);
        *out_size = answer->entry->payload.len;
        err = RD_OK;
    }
    remote_free(answer);
    return err;
}
