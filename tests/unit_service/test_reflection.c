/**
 * What reflection answers to one request after the other. What there is to find is known from elsewhere too: from the
 * descriptors that protobuf-c has generated.
 */
#include "message.h"
#include "method.h"
#include "reflection.h"

#include <grpc/health/v1/health.pb-c.h>
#include <grpc/reflection/v1alpha/reflection.pb-c.h>
#include <grpc/status.h>
#include <rdrive/v1/reader.pb-c.h>
#include <rdrive/v1/writer.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK(which)    GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##which
#define ANSWER(which) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##which

static const ProtobufCServiceDescriptor *const services[] = {
    &grpc__health__v1__health__descriptor,
    &grpc__reflection__v1__server_reflection__descriptor,
    &grpc__reflection__v1alpha__server_reflection__descriptor,
    &rdrive__v1__data_store_reader_service__descriptor,
    &rdrive__v1__data_store_writer_service__descriptor,
};
#define SERVICE_COUNT (sizeof services / sizeof services[0])

/* The file of each package that says most. */
static const char *const files[] = {
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
    "rdrive/v1/reader.proto",
    "rdrive/v1/writer.proto",
};

/* ---- Asking ------------------------------------------------------------------------------------------------------ */

/* The response as a client has it. To be freed by freed(). */
static reflection_response *packed(const struct reflection_answer *answer)
{
    size_t size = grpc__reflection__v1__server_reflection_response__get_packed_size(&answer->response);
    uint8_t *bytes = malloc(size);
    EXPECT(grpc__reflection__v1__server_reflection_response__pack(&answer->response, bytes) == size, "%zu", size);
    reflection_response *response = grpc__reflection__v1__server_reflection_response__unpack(NULL, size, bytes);
    free(bytes);
    EXPECT(response != NULL, "it can't be read");
    return response;
}

static reflection_response *ask(reflection_request request, uint64_t *sent)
{
    struct reflection_answer answer;
    reflection_answer(&request, sent, &answer);
    reflection_response *response = packed(&answer);
    EXPECT(strcmp(response->valid_host, request.host) == 0, "%s", response->valid_host);
    EXPECT(response->original_request->message_request_case == request.message_request_case, "not the request");
    return response;
}

static void freed(reflection_response **response)
{
    grpc__reflection__v1__server_reflection_response__free_unpacked(*response, NULL);
}
#define AUTO_RESPONSE __attribute__((cleanup(freed))) reflection_response

/* Memory for a request, given back all at once, as a call's is. */
struct pool {
    _Alignas(16) uint8_t bytes[4096];
    size_t used;
};

static void *pool_alloc(void *argument, size_t bytes)
{
    struct pool *pool = argument;
    void *piece = pool->bytes + pool->used;
    pool->used += (bytes + 15) & ~(size_t)15;
    return pool->used <= sizeof pool->bytes ? piece : NULL;
}

static void pool_free(void *pool, void *bytes)
{
    (void)pool;
    (void)bytes;
}

static reflection_request asking(Grpc__Reflection__V1__ServerReflectionRequest__MessageRequestCase which,
                                 const char *text)
{
    reflection_request request;
    grpc__reflection__v1__server_reflection_request__init(&request);
    request.host = (char *)(uintptr_t) "a.host";
    request.message_request_case = which;
    request.file_by_filename = (char *)(uintptr_t)text; /* the strings share their place */
    return request;
}

static void expect_refused(reflection_request request, grpc_status_code status, const char *quoted)
{
    uint64_t sent = 0;
    AUTO_RESPONSE *response = ask(request, &sent);
    EXPECT(response->message_response_case == ANSWER(ERROR_RESPONSE), "case %d for %s",
           (int)response->message_response_case, quoted);
    EXPECT(response->error_response->error_code == (int)status, "%d", (int)response->error_response->error_code);
    EXPECT(strstr(response->error_response->error_message, quoted) != NULL, "%s",
           response->error_response->error_message);
    EXPECT(sent == 0, "nothing was sent");
}

/* The file a response begins with, by its name. */
static const struct descriptor_file *first_file(const reflection_response *response)
{
    EXPECT(response->message_response_case == ANSWER(FILE_DESCRIPTOR_RESPONSE), "no files");
    EXPECT(response->file_descriptor_response->n_file_descriptor_proto > 0, "no file");
    const ProtobufCBinaryData *first = response->file_descriptor_response->file_descriptor_proto;
    const struct descriptors *all = descriptors();
    for (unsigned i = 0; i < all->file_count; i++)
        if (span_equal(all->files[i].bytes, first->data, first->len))
            return &all->files[i];
    EXPECT(false, "an unknown file of %zu bytes", first->len);
}

static void expect_symbol(const char *symbol, const char *file)
{
    uint64_t sent = 0;
    AUTO_RESPONSE *response = ask(asking(ASK(FILE_CONTAINING_SYMBOL), symbol), &sent);
    EXPECT(response->message_response_case == ANSWER(FILE_DESCRIPTOR_RESPONSE), "%s is not found", symbol);
    EXPECT(strcmp(first_file(response)->name, file) == 0, "%s in %s", symbol, first_file(response)->name);
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void the_list_has_every_service_in_order(void **state)
{
    (void)state;
    uint64_t sent = 0;
    AUTO_RESPONSE *response = ask(asking(ASK(LIST_SERVICES), "*"), &sent);
    EXPECT(response->message_response_case == ANSWER(LIST_SERVICES_RESPONSE), "no list");
    EXPECT(response->list_services_response->n_service == SERVICE_COUNT, "%zu",
           response->list_services_response->n_service);
    for (size_t i = 0; i < SERVICE_COUNT; i++)
        EXPECT(strcmp(response->list_services_response->service[i]->name, services[i]->name) == 0, "%s, not %s",
               response->list_services_response->service[i]->name, services[i]->name);
}

static void every_service_and_method_is_found_in_its_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < SERVICE_COUNT; i++) {
        expect_symbol(services[i]->name, files[i]);
        for (size_t k = 0; k < services[i]->n_methods; k++) {
            char symbol[200];
            snprintf(symbol, sizeof symbol, ".%s.%s", services[i]->name, services[i]->methods[k].name);
            expect_symbol(symbol, files[i]);     /* the dot in front says that the name is whole */
            expect_symbol(symbol + 1, files[i]); /* as everybody knows */
        }
    }
}

/* A message's fields and what they are made of, to some depth: messages may hold themselves. */
static size_t expect_message(const ProtobufCMessageDescriptor *message, unsigned depth)
{
    char symbol[200];
    size_t found = 1;
    uint64_t sent = 0;
    AUTO_RESPONSE *response = ask(asking(ASK(FILE_CONTAINING_SYMBOL), message->name), &sent);
    const char *file = first_file(response)->name;
    const char *package = message->package_name;
    EXPECT(span_equal(first_file(response)->package, package, strlen(package)), "%s in %s", message->name, file);
    for (unsigned i = 0; i < message->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->fields[i];
        snprintf(symbol, sizeof symbol, "%s.%s", message->name, field->name);
        expect_symbol(symbol, file);
        found++;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE && depth > 0)
            found += expect_message(field->descriptor, depth - 1);
        if (field->type == PROTOBUF_C_TYPE_ENUM) {
            const ProtobufCEnumDescriptor *values = field->descriptor;
            const char *dot = strrchr(values->name, '.');
            expect_symbol(values->name, file);
            for (unsigned k = 0; k < values->n_values; k++) { /* beside the enum, and not in it */
                snprintf(symbol, sizeof symbol, "%.*s.%s", (int)(dot - values->name), values->name,
                         values->values[k].name);
                expect_symbol(symbol, file);
                snprintf(symbol, sizeof symbol, "%s.%s", values->name, values->values[k].name);
                expect_refused(asking(ASK(FILE_CONTAINING_SYMBOL), symbol), GRPC_STATUS_NOT_FOUND, symbol);
                found++;
            }
        }
    }
    return found;
}

static void every_message_field_and_enum_value_is_found_in_its_package(void **state)
{
    (void)state;
    size_t found = 0;
    for (size_t i = 0; i < SERVICE_COUNT; i++)
        for (size_t k = 0; k < services[i]->n_methods; k++)
            found +=
                expect_message(services[i]->methods[k].input, 4) + expect_message(services[i]->methods[k].output, 4);
    EXPECT(found > 200, "%zu", found);
    expect_symbol("rdrive.v1.ReadStreamRequest.selector", "rdrive/v1/reader.proto"); /* a oneof */
}

static void what_is_not_defined_is_not_found(void **state)
{
    (void)state;
    static const char *const symbols[] = {
        "",
        ".",
        "..",
        "rdrive",
        "rdrive.v1",
        "rdrive.v1.",
        "rdrive.v1..ReadRequest",
        "..rdrive.v1.ReadRequest",
        "rdrive.v1.ReadRequest.",
        "rdrive.v1.ReadReques",
        "rdrive.v1.ReadRequests",
        "rdrive.v1.ReadRequest.key.key",
        "rdrive.v1.ReadRequest.keys",
        "ReadRequest",
        "rdrive.v2.ReadRequest",
        "rdrive.v1.DataStoreReaderService.read",
        "rdrive/v1/reader.proto",
        "google.protobuf.FileDescriptorProto",
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        expect_refused(asking(ASK(FILE_CONTAINING_SYMBOL), symbols[i]), GRPC_STATUS_NOT_FOUND, symbols[i]);
        expect_refused(asking(ASK(ALL_EXTENSION_NUMBERS_OF_TYPE), symbols[i]), GRPC_STATUS_NOT_FOUND, symbols[i]);
        if (strcmp(symbols[i], "rdrive/v1/reader.proto") != 0)
            expect_refused(asking(ASK(FILE_BY_FILENAME), symbols[i]), GRPC_STATUS_NOT_FOUND, symbols[i]);
    }
}

static void a_file_comes_with_all_that_it_imports_once_a_stream(void **state)
{
    (void)state;
    uint64_t sent = 0;
    for (unsigned round = 0; round < 3; round++) {
        AUTO_RESPONSE *response = ask(asking(ASK(FILE_BY_FILENAME), "rdrive/v1/reader.proto"), &sent);
        const Grpc__Reflection__V1__FileDescriptorResponse *all = response->file_descriptor_response;
        EXPECT(strcmp(first_file(response)->name, "rdrive/v1/reader.proto") == 0, "%s", first_file(response)->name);
        EXPECT(all->n_file_descriptor_proto == (round == 0 ? 2 : 1), "%zu files", all->n_file_descriptor_proto);
        if (round > 0)
            continue;
        int entry = descriptors_file(descriptors(), "rdrive/v1/entry.proto");
        rd_span bytes = descriptors()->files[entry].bytes;
        EXPECT(span_equal(bytes, all->file_descriptor_proto[1].data, all->file_descriptor_proto[1].len), "imports");
    }
    AUTO_RESPONSE *entry = ask(asking(ASK(FILE_BY_FILENAME), "rdrive/v1/entry.proto"), &sent);
    EXPECT(strcmp(first_file(entry)->name, "rdrive/v1/entry.proto") == 0, "asked for by name, it comes again");
}

static void every_file_names_only_files_that_are_there(void **state)
{
    (void)state;
    const struct descriptors *all = descriptors();
    uint64_t every = 0;
    for (unsigned i = 0; i < all->file_count; i++) {
        every |= UINT64_C(1) << i;
        EXPECT((all->files[i].needs & UINT64_C(1) << i) != 0 && (all->files[i].needs & ~every) == 0, "%s needs %llx",
               all->files[i].name, (unsigned long long)all->files[i].needs);
    }
    EXPECT(all->file_count == 6, "%u files", all->file_count);
}

static void there_are_no_extensions(void **state)
{
    (void)state;
    uint64_t sent = 0;
    AUTO_RESPONSE *numbers = ask(asking(ASK(ALL_EXTENSION_NUMBERS_OF_TYPE), "rdrive.v1.ReadRequest"), &sent);
    EXPECT(numbers->message_response_case == ANSWER(ALL_EXTENSION_NUMBERS_RESPONSE), "no numbers");
    EXPECT(numbers->all_extension_numbers_response->n_extension_number == 0, "there is one");
    EXPECT(strcmp(numbers->all_extension_numbers_response->base_type_name, "rdrive.v1.ReadRequest") == 0, "of what");

    Grpc__Reflection__V1__ExtensionRequest extension;
    grpc__reflection__v1__extension_request__init(&extension);
    extension.containing_type = (char *)(uintptr_t) "rdrive.v1.ReadRequest";
    extension.extension_number = -7;
    reflection_request request = asking(ASK(FILE_CONTAINING_EXTENSION), NULL);
    request.file_containing_extension = &extension;
    expect_refused(request, GRPC_STATUS_NOT_FOUND, "-7 of 'rdrive.v1.ReadRequest'");
}

static void a_request_for_nothing_says_what_can_be_asked(void **state)
{
    (void)state;
    expect_refused(asking(ASK(_NOT_SET), NULL), GRPC_STATUS_INVALID_ARGUMENT, "list_services");
}

static void what_an_error_quotes_is_short_and_printable(void **state)
{
    (void)state;
    char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    uint64_t sent = 0;
    AUTO_RESPONSE *response = ask(asking(ASK(FILE_CONTAINING_SYMBOL), longest), &sent);
    EXPECT(strlen(response->error_response->error_message) < 256, "%s", response->error_response->error_message);
    expect_refused(asking(ASK(FILE_BY_FILENAME), "\xff\n\x1b"), GRPC_STATUS_NOT_FOUND, "'??");
}

/* Some of which protobuf-c reads, and writes as what nobody reads. */
static void fields_that_no_request_has_are_not_repeated(void **state)
{
    (void)state;
    AUTO_BYTES message = bytes_of_hex("80000052017832037a2e61");
    struct pool pool = {.used = 0};
    ProtobufCAllocator allocator = {.alloc = pool_alloc, .free = pool_free, .allocator_data = &pool};
    reflection_request *request =
        grpc__reflection__v1__server_reflection_request__unpack(&allocator, message.len, message.data);
    EXPECT(request != NULL && request->base.n_unknown_fields == 2, "the request");
    uint64_t sent = 0;
    struct reflection_answer answer;
    reflection_answer(request, &sent, &answer);
    AUTO_RESPONSE *response = packed(&answer);
    EXPECT(response->original_request->base.n_unknown_fields == 0, "%u",
           response->original_request->base.n_unknown_fields);
    EXPECT(strcmp(response->original_request->all_extension_numbers_of_type, "z.a") == 0, "another request");
}

static bool is_served(const char *service, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "/%s/%s", service, name);
    for (size_t i = 0; i < method_count; i++)
        if (strcmp(methods[i].path, path) == 0)
            return true;
    return false;
}

static void what_is_described_is_served_and_the_reverse(void **state)
{
    (void)state;
    size_t described = 0;
    for (size_t i = 0; i < SERVICE_COUNT; i++) {
        for (size_t k = 0; k < services[i]->n_methods; k++)
            EXPECT(is_served(services[i]->name, services[i]->methods[k].name), "%s.%s is not served", services[i]->name,
                   services[i]->methods[k].name);
        described += services[i]->n_methods;
    }
    EXPECT(described == method_count, "%zu are described, %zu served", described, method_count);
}

/* The server takes one for the other. */
static void expect_same(const ProtobufCMessageDescriptor *a, const ProtobufCMessageDescriptor *b)
{
    EXPECT(strcmp(a->short_name, b->short_name) == 0, "%s, %s", a->name, b->name);
    EXPECT(a->n_fields == b->n_fields && a->sizeof_message == b->sizeof_message, "%s", a->name);
    for (unsigned i = 0; i < a->n_fields; i++) {
        const ProtobufCFieldDescriptor *one = &a->fields[i];
        const ProtobufCFieldDescriptor *other = &b->fields[i];
        EXPECT(strcmp(one->name, other->name) == 0, "%s, %s", one->name, other->name);
        EXPECT(one->id == other->id && one->type == other->type && one->label == other->label &&
                   one->offset == other->offset && one->flags == other->flags,
               "%s", one->name);
        if (one->type == PROTOBUF_C_TYPE_MESSAGE)
            expect_same(one->descriptor, other->descriptor);
    }
}

static void v1alpha_has_the_messages_of_v1(void **state)
{
    (void)state;
    expect_same(&grpc__reflection__v1__server_reflection_request__descriptor,
                &grpc__reflection__v1alpha__server_reflection_request__descriptor);
    expect_same(&grpc__reflection__v1__server_reflection_response__descriptor,
                &grpc__reflection__v1alpha__server_reflection_response__descriptor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_list_has_every_service_in_order),
        cmocka_unit_test(every_service_and_method_is_found_in_its_file),
        cmocka_unit_test(every_message_field_and_enum_value_is_found_in_its_package),
        cmocka_unit_test(what_is_not_defined_is_not_found),
        cmocka_unit_test(a_file_comes_with_all_that_it_imports_once_a_stream),
        cmocka_unit_test(every_file_names_only_files_that_are_there),
        cmocka_unit_test(there_are_no_extensions),
        cmocka_unit_test(a_request_for_nothing_says_what_can_be_asked),
        cmocka_unit_test(what_an_error_quotes_is_short_and_printable),
        cmocka_unit_test(fields_that_no_request_has_are_not_repeated),
        cmocka_unit_test(what_is_described_is_served_and_the_reverse),
        cmocka_unit_test(v1alpha_has_the_messages_of_v1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
