/* The contract's answers that carry payloads, packed by hand as protobuf-c would pack them. */
#ifndef ENCODE_H
#define ENCODE_H

#include "reply.h"
#include <protobuf-c/protobuf-c.h>

/**
 * From here up a payload is sent from where it lies; below, copying it is cheaper. The bytes of a payload that is
 * copied may vanish meanwhile (its file was cut): an item is RD_E_TRUNCATED then, any other message fails with that.
 */
#ifndef ENCODE_REFER_MIN /* tests/bench/service.sh --sweep sets it */
#define ENCODE_REFER_MIN ((size_t)16 << 10)
#endif

/* Bytes a payload fragment takes besides its data, item and message around it included: more than it can ever be. */
#define ENCODE_FRAGMENT_OVERHEAD ((size_t)96)

/* The same for an item, so that its exact size is worked out only where it matters. */
#define ENCODE_ITEM_OVERHEAD ((size_t)320)

/* Where a value came from, so that its payload can be kept while it travels. */
struct encode_source {
    rd_engine *engine;
    rd_op *op;
    bool by_reference; /* the peer's connection is plain; under TLS payloads are copied */
};

/* Any message, packed by protobuf-c straight into the reply. */
void encode_message(struct reply *reply, const ProtobufCMessage *message);

/* The same, and what of it lies inside `value`'s payload travels as that payload does. */
void encode_value_message(struct reply *reply, const struct encode_source *source, const rd_value *value,
                          const ProtobufCMessage *message);

/* `message { Entry entry = 1; }`. Returns: its size. */
size_t encode_entry_message_size(const rd_value *value);
void encode_entry_message(struct reply *reply, const struct encode_source *source, const rd_value *value);

/* One element of `message { repeated BatchReadItem items = 1; }`, whatever its outcome. */
size_t encode_item_size(uint32_t index, const rd_value *value, bool omit_metadata);
void encode_item(struct reply *reply, const struct encode_source *source, uint32_t index, const rd_value *value,
                 bool omit_metadata);

/* A run of a value's payload. */
struct encode_run {
    uint64_t offset;
    size_t len;
    bool with_metadata;
};

/* The same element with a fragment, and `message { PayloadFragment fragment = 1; }`. */
void encode_fragment_item(struct reply *reply, const struct encode_source *source, uint32_t index,
                          const rd_value *value, const struct encode_run *run);
void encode_fragment_message(struct reply *reply, const struct encode_source *source, const rd_value *value,
                             const struct encode_run *run);

/* `message { EntryMetadata metadata = 1; }` */
void encode_metadata_message(struct reply *reply, const rd_metadata *meta);

#endif
