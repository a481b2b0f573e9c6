#include "outcome.h"
#include "fields.h"
#include <stdarg.h>
#include <stdio.h>

#define ERROR_INFO "type.googleapis.com/google.rpc.ErrorInfo"
#define DOMAIN     "rdrive"

/* Field numbers of google/rpc/status.proto and google/rpc/error_details.proto. */
enum { STATUS_DETAILS = 3, ANY_TYPE_URL = 1, ANY_VALUE = 2, ERROR_INFO_REASON = 1, ERROR_INFO_DOMAIN = 2 };

static bool equals(rd_span bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

static void copy_text(char *to, size_t size, rd_span from)
{
    size_t len = from.len < size - 1 ? from.len : size - 1;
    if (len > 0)
        memcpy(to, from.data, len);
    to[len] = '\0';
}

/* The fields `first` and `second` of a message, where it has them as bytes; what is malformed ends it. */
static void two_fields(rd_span message, uint32_t first, rd_span *out_first, uint32_t second, rd_span *out_second)
{
    struct field field;
    while (field_next(&message, &field) == FIELD_OK) {
        if (field.type != WIRE_LEN)
            continue;
        if (field.number == first)
            *out_first = field.bytes;
        else if (field.number == second)
            *out_second = field.bytes;
    }
}

static void take_detail(struct outcome *outcome, rd_span any)
{
    rd_span type = {NULL, 0}, value = {NULL, 0}, reason = {NULL, 0}, domain = {NULL, 0};
    two_fields(any, ANY_TYPE_URL, &type, ANY_VALUE, &value);
    if (!equals(type, ERROR_INFO))
        return;
    two_fields(value, ERROR_INFO_REASON, &reason, ERROR_INFO_DOMAIN, &domain);
    if (!equals(domain, DOMAIN) || reason.len == 0)
        return;
    copy_text(outcome->reason, sizeof(outcome->reason), reason);
    outcome->refused = true;
}

static rd_span span_of(const grpc_slice *slice)
{
    return (rd_span){GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice)};
}

void outcome_take(struct outcome *outcome, grpc_status_code status, grpc_slice details,
                  const grpc_metadata_array *trailing)
{
    *outcome = (struct outcome){.status = status};
    copy_text(outcome->text, sizeof(outcome->text), span_of(&details));
    for (size_t i = 0; i < trailing->count; i++) {
        if (!equals(span_of(&trailing->metadata[i].key), "grpc-status-details-bin"))
            continue;
        rd_span rest = span_of(&trailing->metadata[i].value);
        struct field field;
        while (field_next(&rest, &field) == FIELD_OK)
            if (field.number == STATUS_DETAILS && field.type == WIRE_LEN)
                take_detail(outcome, field.bytes);
    }
}

void outcome_set(struct outcome *outcome, grpc_status_code status, const char *format, ...)
{
    *outcome = (struct outcome){.status = status};
    va_list args;
    va_start(args, format);
    (void)vsnprintf(outcome->text, sizeof(outcome->text), format, args);
    va_end(args);
}

/* The canonical codes, by number. */
static const struct {
    const char *name;
    rd_err err; /* where no reason says more */
} statuses[] = {
    [GRPC_STATUS_OK] = {"OK", RD_OK},
    [GRPC_STATUS_CANCELLED] = {"CANCELLED", RD_E_CANCELLED},
    [GRPC_STATUS_UNKNOWN] = {"UNKNOWN", RD_E_UNAVAILABLE},
    [GRPC_STATUS_INVALID_ARGUMENT] = {"INVALID_ARGUMENT", RD_E_INVALID},
    [GRPC_STATUS_DEADLINE_EXCEEDED] = {"DEADLINE_EXCEEDED", RD_E_UNAVAILABLE},
    [GRPC_STATUS_NOT_FOUND] = {"NOT_FOUND", RD_E_UNSUPPORTED},
    [GRPC_STATUS_ALREADY_EXISTS] = {"ALREADY_EXISTS", RD_E_INVALID},
    [GRPC_STATUS_PERMISSION_DENIED] = {"PERMISSION_DENIED", RD_E_READ_ONLY},
    [GRPC_STATUS_RESOURCE_EXHAUSTED] = {"RESOURCE_EXHAUSTED", RD_E_TOO_LARGE},
    [GRPC_STATUS_FAILED_PRECONDITION] = {"FAILED_PRECONDITION", RD_E_READ_ONLY},
    [GRPC_STATUS_ABORTED] = {"ABORTED", RD_E_UNAVAILABLE},
    [GRPC_STATUS_OUT_OF_RANGE] = {"OUT_OF_RANGE", RD_E_INVALID},
    [GRPC_STATUS_UNIMPLEMENTED] = {"UNIMPLEMENTED", RD_E_UNSUPPORTED},
    [GRPC_STATUS_INTERNAL] = {"INTERNAL", RD_E_IO},
    [GRPC_STATUS_UNAVAILABLE] = {"UNAVAILABLE", RD_E_UNAVAILABLE},
    [GRPC_STATUS_DATA_LOSS] = {"DATA_LOSS", RD_E_DAMAGED},
    [GRPC_STATUS_UNAUTHENTICATED] = {"UNAUTHENTICATED", RD_E_READ_ONLY},
};
#define STATUS_COUNT (sizeof(statuses) / sizeof(statuses[0]))

rd_err outcome_error(const struct outcome *outcome)
{
    if (outcome->status == GRPC_STATUS_OK)
        return RD_OK;
    if (strcmp(outcome->reason, "NO_SUCH_KEY") == 0)
        return RD_ABSENT;
    rd_err found = RD_OK;
    for (int err = RD_ABSENT + 1; err < RD_ERR_COUNT && outcome->refused; err++) {
        if (strcmp(outcome->reason, rd_err_reason((rd_err)err)) != 0)
            continue;
        if (strcmp(outcome->text, rd_err_text((rd_err)err)) == 0) /* several errors share a reason */
            return (rd_err)err;
        found = found == RD_OK ? (rd_err)err : found;
    }
    if (found != RD_OK)
        return found;
    return (size_t)outcome->status < STATUS_COUNT ? statuses[outcome->status].err : RD_E_UNAVAILABLE;
}

/* What a message of the core's about a connection that can't be had comes down to; else NULL. */
static const char *last_error(const char *text)
{
    static const char head[] = "failed to connect to all addresses; last error: ";
    if (strncmp(text, head, strlen(head)) != 0)
        return NULL;
    const char *name = text + strlen(head), *colon = strstr(name, ": ");
    return colon != NULL ? colon + 2 : name; /* behind the name of a status */
}

void outcome_text(const struct outcome *outcome, char *text, size_t size)
{
    const char *name = (size_t)outcome->status < STATUS_COUNT ? statuses[outcome->status].name : "an unknown status";
    const char *last = outcome->refused ? outcome->text : last_error(outcome->text);
    if (last != NULL)
        (void)snprintf(text, size, "%s", last);
    else
        (void)snprintf(text, size, "%s%s%s", name, outcome->text[0] != '\0' ? ": " : "", outcome->text);
}
