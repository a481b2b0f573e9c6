/* Requests for the fuzzers of the service: bytes of the input as a message of the core's, and as a call that has it. */
#ifndef RDRIVE_TESTS_FUZZ_REQUEST_H
#define RDRIVE_TESTS_FUZZ_REQUEST_H

#include "call.h"
#include "scratch.h"

/* The bytes in slices of `piece` bytes each; 0: in one. Each is memory of its own, so that a step beyond it is found.
 */
grpc_byte_buffer *request_message(rd_span bytes, size_t piece);

/* A call that holds `message` as its request, enough of one to decode it. */
struct call *request_begin(grpc_byte_buffer *message);
void request_end(struct call *call);

/**
 * Decode the call's request, and see that no more memory was taken than a server can afford.
 * Returns: the message; NULL: it is malformed, and the call's status says so.
 */
void *request_decode(struct call *call, const ProtobufCMessageDescriptor *descriptor);

/* Forget fields that the contract doesn't have: protobuf-c takes a field 0 for one and writes it as what it refuses. */
void request_forget_unknown(ProtobufCMessage *message);

/* The message as bytes, to be freed. */
rd_span request_pack(const ProtobufCMessage *message);

#endif
