#include "reflection.h"
#include "method.h"
#include <grpc/status.h>
#include <stdarg.h>
#include <stdio.h>

/* Far more than any name takes. It bounds what a response that repeats its request takes. */
#define REQUEST_MAX 65536

#define ASKED(which) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##which

__attribute__((format(printf, 3, 4))) static void refuse(struct reflection_answer *answer, grpc_status_code status,
                                                         const char *format, ...)
{
    Grpc__Reflection__V1__ErrorResponse *error = &answer->u.error.message;
    char *text = answer->u.error.text;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(answer->u.error.text), format, arguments);
    va_end(arguments);
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f) /* it quotes what a client sent */
            *c = '?';
    grpc__reflection__v1__error_response__init(error);
    error->error_code = status;
    error->error_message = text;
    answer->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    answer->response.error_response = error;
}

static void add_file(struct reflection_answer *answer, unsigned file)
{
    rd_span bytes = descriptors()->files[file].bytes;
    Grpc__Reflection__V1__FileDescriptorResponse *files = &answer->u.files.message;
    files->file_descriptor_proto[files->n_file_descriptor_proto++] =
        (ProtobufCBinaryData){.len = bytes.len, .data = (uint8_t *)(uintptr_t)bytes.data};
}

/* The file, and behind it those that it needs and the stream has not sent. */
static void send_files(struct reflection_answer *answer, uint64_t *sent, unsigned file)
{
    Grpc__Reflection__V1__FileDescriptorResponse *files = &answer->u.files.message;
    grpc__reflection__v1__file_descriptor_response__init(files);
    files->file_descriptor_proto = answer->u.files.bytes;
    *sent |= UINT64_C(1) << file;
    uint64_t others = descriptors()->files[file].needs & ~*sent;
    *sent |= others;
    add_file(answer, file);
    for (; others != 0; others &= others - 1)
        add_file(answer, (unsigned)__builtin_ctzll(others));
    answer->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    answer->response.file_descriptor_response = files;
}

/* A leading dot, as in "fully qualified", changes nothing. */
static int file_of(const char *symbol)
{
    return descriptors_file_of(descriptors(), *symbol == '.' ? symbol + 1 : symbol);
}

static void answer_file(struct reflection_answer *answer, uint64_t *sent, const char *name)
{
    int file = descriptors_file(descriptors(), name);
    if (file < 0)
        refuse(answer, GRPC_STATUS_NOT_FOUND, "no file '%.100s' here", name);
    else
        send_files(answer, sent, (unsigned)file);
}

static void answer_symbol(struct reflection_answer *answer, uint64_t *sent, const char *symbol)
{
    int file = file_of(symbol);
    if (file < 0)
        refuse(answer, GRPC_STATUS_NOT_FOUND, "no symbol '%.100s' here; list_services names the services", symbol);
    else
        send_files(answer, sent, (unsigned)file);
}

/* Fields that no request has are not repeated: protobuf-c takes a field 0 for one, and no client could read it. */
static void forget_unknown(reflection_request *request)
{
    request->base.n_unknown_fields = 0;
    if (request->message_request_case == ASKED(FILE_CONTAINING_EXTENSION))
        request->file_containing_extension->base.n_unknown_fields = 0;
}

/* proto3 has extensions for options only, and none are defined here. */
static void answer_extension(struct reflection_answer *answer, const Grpc__Reflection__V1__ExtensionRequest *extension)
{
    refuse(answer, GRPC_STATUS_NOT_FOUND, "no extension %d of '%.100s' here; there are no extensions",
           (int)extension->extension_number, extension->containing_type);
}

static void answer_extension_numbers(struct reflection_answer *answer, char *type)
{
    if (file_of(type) < 0) {
        refuse(answer, GRPC_STATUS_NOT_FOUND, "no type '%.100s' here", type);
        return;
    }
    grpc__reflection__v1__extension_number_response__init(&answer->u.numbers);
    answer->u.numbers.base_type_name = type;
    answer->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    answer->response.all_extension_numbers_response = &answer->u.numbers;
}

static void answer_list(struct reflection_answer *answer)
{
    const struct descriptors *all = descriptors();
    Grpc__Reflection__V1__ListServiceResponse *list = &answer->u.list.message;
    grpc__reflection__v1__list_service_response__init(list);
    for (unsigned i = 0; i < all->service_count; i++) {
        grpc__reflection__v1__service_response__init(&answer->u.list.services[i]);
        answer->u.list.services[i].name = (char *)(uintptr_t)all->services[i];
        answer->u.list.pointers[i] = &answer->u.list.services[i];
    }
    list->n_service = all->service_count;
    list->service = answer->u.list.pointers;
    answer->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    answer->response.list_services_response = list;
}

void reflection_answer(reflection_request *request, uint64_t *sent, struct reflection_answer *out_answer)
{
    forget_unknown(request);
    grpc__reflection__v1__server_reflection_response__init(&out_answer->response);
    out_answer->response.valid_host = request->host;
    out_answer->response.original_request = request;
    switch (request->message_request_case) {
    case ASKED(FILE_BY_FILENAME): answer_file(out_answer, sent, request->file_by_filename); return;
    case ASKED(FILE_CONTAINING_SYMBOL): answer_symbol(out_answer, sent, request->file_containing_symbol); return;
    case ASKED(FILE_CONTAINING_EXTENSION): answer_extension(out_answer, request->file_containing_extension); return;
    case ASKED(ALL_EXTENSION_NUMBERS_OF_TYPE):
        answer_extension_numbers(out_answer, request->all_extension_numbers_of_type);
        return;
    case ASKED(LIST_SERVICES): answer_list(out_answer); return;
    case ASKED(_NOT_SET):
    case _GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__CASE_IS_INT_SIZE: break;
    }
    refuse(out_answer, GRPC_STATUS_INVALID_ARGUMENT,
           "the request asks for nothing; set file_by_filename, file_containing_symbol, file_containing_extension, "
           "all_extension_numbers_of_type or list_services");
}

/* ---- the stream ---- */

enum step reflection_begin(struct call *call)
{
    (void)call;
    return STEP_RECEIVE;
}

enum step reflection_resume(struct call *call)
{
    struct reflection_answer answer;
    if (call->last == STEP_SEND)
        return STEP_RECEIVE;
    if (call->request == NULL)
        return STEP_END;
    size_t len = grpc_byte_buffer_length(call->request);
    if (len > REQUEST_MAX)
        return call_refuse(call, REFUSE_MALFORMED,
                           "the request has %zu bytes, and at most %d are allowed; no name is that long", len,
                           REQUEST_MAX);
    reflection_request *request = call_decode(call, &grpc__reflection__v1__server_reflection_request__descriptor);
    if (request == NULL)
        return STEP_FAIL;
    reflection_answer(request, &call->u.reflection.sent_files, &answer);
    call_pack(call, &answer.response.base);
    arena_fini(&call->arena); /* the request: the next one finds it empty */
    return STEP_SEND;
}
