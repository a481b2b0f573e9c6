/*
 * Requests that protobuf-c decodes into a call's arena: of every method that is served. Whatever the bytes are, memory
 * stays in proportion; what is decoded is whole: it can be written, and read again as the same.
 */
#include "request.h"

#include <grpc/health/v1/health.pb-c.h>
#include <grpc/reflection/v1/reflection.pb-c.h>
#include <rdrive/v1/reader.pb-c.h>
#include <rdrive/v1/writer.pb-c.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCServiceDescriptor *const services[] = {
    &rdrive__v1__data_store_reader_service__descriptor,
    &rdrive__v1__data_store_writer_service__descriptor,
    &grpc__health__v1__health__descriptor,
    &grpc__reflection__v1__server_reflection__descriptor,
};
#define SERVICE_COUNT (sizeof services / sizeof services[0])

static void expect_same_again(const ProtobufCMessageDescriptor *descriptor, const ProtobufCMessage *message)
{
    REQUIRE(protobuf_c_message_check(message), "a %s that is not whole", descriptor->name);
    rd_span bytes = request_pack(message);
    ProtobufCMessage *again = protobuf_c_message_unpack(descriptor, NULL, bytes.len, bytes.data);
    REQUIRE(again != NULL, "a %s that was decoded is written as what is none", descriptor->name);
    rd_span same = request_pack(again);
    REQUIRE(scratch_equal(bytes, same), "a %s changes when it is written and read", descriptor->name);
    protobuf_c_message_free_unpacked(again, NULL);
    free((void *)(uintptr_t)bytes.data);
    free((void *)(uintptr_t)same.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    const ProtobufCServiceDescriptor *service = services[feed_u8(&feed) % SERVICE_COUNT];
    const ProtobufCMessageDescriptor *descriptor = service->methods[feed_u8(&feed) % service->n_methods].input;
    size_t piece = feed_u8(&feed) % 16;
    struct call *call = request_begin(request_message((rd_span){.data = feed.at, .len = feed.left}, piece));
    ProtobufCMessage *message = request_decode(call, descriptor);
    if (message != NULL) {
        request_forget_unknown(message);
        expect_same_again(descriptor, message);
    }
    request_end(call);
    return 0;
}
