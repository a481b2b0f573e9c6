/* gRPC's reflection: what this server offers, told to clients that have no .proto files of it. */
#ifndef REFLECTION_H
#define REFLECTION_H

#include "descriptors.h"
#include <grpc/reflection/v1/reflection.pb-c.h>

/* v1alpha's messages are the same bytes, so both versions are v1 here. */
typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;

/* A response and what it points to, apart from the request and the descriptors. */
struct reflection_answer {
    reflection_response response;
    union {
        struct {
            Grpc__Reflection__V1__FileDescriptorResponse message;
            ProtobufCBinaryData bytes[DESCRIPTOR_FILES_MAX];
        } files;
        struct {
            Grpc__Reflection__V1__ListServiceResponse message;
            Grpc__Reflection__V1__ServiceResponse services[DESCRIPTOR_SERVICES_MAX];
            Grpc__Reflection__V1__ServiceResponse *pointers[DESCRIPTOR_SERVICES_MAX];
        } list;
        Grpc__Reflection__V1__ExtensionNumberResponse numbers;
        struct {
            Grpc__Reflection__V1__ErrorResponse message;
            char text[256];
        } error;
    } u;
};

/**
 * Answer one request of a stream. What can't be answered is an error response; the stream goes on.
 * `sent` has a bit for each file that the stream has sent: imports among them are not sent again. It begins as 0.
 * The answer is valid while the request is, which loses the fields that no request has. Requires: the request's memory
 * is not freed piece by piece.
 */
void reflection_answer(reflection_request *request, uint64_t *sent, struct reflection_answer *out_answer);

#endif
