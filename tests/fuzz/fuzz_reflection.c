/*
 * A stream of reflection requests: each that can be decoded is answered by a response that any client can read, which
 * repeats the request, and is no larger than that and all descriptors together; what a stream has sent only grows.
 */
#include "request.h"

#include "reflection.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RESPONSE_MAX 4096 /* what a response may take beyond descriptors and request */

#define ANSWER(which) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##which

static void expect_files(const Grpc__Reflection__V1__FileDescriptorResponse *files, uint64_t before, uint64_t after)
{
    const struct descriptors *all = descriptors();
    size_t fresh = (size_t)__builtin_popcountll(after & ~before);
    size_t count = files->n_file_descriptor_proto;
    REQUIRE(count > 0 && (count == fresh || count == fresh + 1), "%zu files, of which %zu had not been sent", count,
            fresh);
    for (size_t i = 0; i < count; i++) {
        bool known = false;
        for (unsigned k = 0; k < all->file_count; k++) {
            rd_span sent = {.data = files->file_descriptor_proto[i].data, .len = files->file_descriptor_proto[i].len};
            known = known || ((after & UINT64_C(1) << k) != 0 && scratch_equal(all->files[k].bytes, sent));
        }
        REQUIRE(known, "file %zu is none of ours, or not noted as sent", i);
    }
}

static void expect_response(const reflection_response *response, reflection_request *request, uint64_t before,
                            uint64_t after)
{
    rd_span echoed = request_pack(&response->original_request->base);
    rd_span asked = request_pack(&request->base);
    REQUIRE(scratch_equal(echoed, asked), "the response repeats another request");
    REQUIRE(strcmp(response->valid_host, request->host) == 0, "another host");
    free((void *)(uintptr_t)echoed.data);
    free((void *)(uintptr_t)asked.data);
    REQUIRE((before & ~after) == 0, "what was sent is forgotten");
    if (response->message_response_case == ANSWER(FILE_DESCRIPTOR_RESPONSE)) {
        expect_files(response->file_descriptor_response, before, after);
        return;
    }
    REQUIRE(before == after, "files were noted as sent, and were not");
    REQUIRE(response->message_response_case != ANSWER(_NOT_SET), "a response without an answer");
    if (response->message_response_case != ANSWER(ERROR_RESPONSE))
        return;
    int code = response->error_response->error_code;
    REQUIRE(code == GRPC_STATUS_NOT_FOUND || code == GRPC_STATUS_INVALID_ARGUMENT, "status %d", code);
    for (const char *at = response->error_response->error_message; *at != '\0'; at++)
        REQUIRE((uint8_t)*at >= 0x20 && (uint8_t)*at < 0x7f, "a message that is not for people");
}

static void answer(reflection_request *request, size_t len, uint64_t *sent)
{
    struct reflection_answer out;
    uint64_t before = *sent;
    reflection_answer(request, sent, &out);
    rd_span bytes = request_pack(&out.response.base);
    size_t descriptors_size = 0;
    for (unsigned i = 0; i < descriptors()->file_count; i++)
        descriptors_size += descriptors()->files[i].bytes.len;
    REQUIRE(bytes.len <= descriptors_size + 3 * len + RESPONSE_MAX, "%zu bytes", bytes.len);
    reflection_response *response =
        grpc__reflection__v1__server_reflection_response__unpack(NULL, bytes.len, bytes.data);
    REQUIRE(response != NULL, "a response that can't be read");
    expect_response(response, request, before, *sent);
    grpc__reflection__v1__server_reflection_response__free_unpacked(response, NULL);
    free((void *)(uintptr_t)bytes.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    uint64_t sent = 0;
    while (feed.left > 0) {
        size_t len = feed_u8(&feed);
        len = len < feed.left ? len : feed.left;
        struct call *call = request_begin(request_message((rd_span){.data = feed.at, .len = len}, 0));
        reflection_request *request =
            request_decode(call, &grpc__reflection__v1__server_reflection_request__descriptor);
        if (request != NULL)
            answer(request, len, &sent);
        request_end(call);
        feed.at += len;
        feed.left -= len;
    }
    return 0;
}
