/**
 * What protobuf-c says of requests to write, for the decoders by hand to be held against: by unit tests and by a
 * fuzzer. Uses nothing of either's.
 */
#ifndef ITEMS_ORACLE_H
#define ITEMS_ORACLE_H

#include "decode.h"

/* Each returns what is wrong with the outcome, or NULL. The bytes are none that wire_differs() says something of. */

/* BatchWrite; by_hash: BatchWriteWithKeyHashes. *out_result is what the decoder said. */
const char *items_judge(const uint8_t *bytes, size_t len, bool by_hash, uint64_t max, uint64_t payload_max,
                        enum decode_result *out_result);

/* Write; by_hash: WriteWithKeyHash. */
const char *item_judge(const uint8_t *bytes, size_t len, bool by_hash);

/* A message of WriteStream: `message` holds the same bytes, in slices of any cut. */
const char *upload_judge(const uint8_t *bytes, size_t len, const grpc_byte_buffer *message,
                         enum decode_result *out_result);

#endif
