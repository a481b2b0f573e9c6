#include "status.h"
#include "call.h"
#include "wire.h"
#include <stdio.h>

#define REASON_MAX      64u
#define DETAIL_NAME_MAX 32u
#define VALUE_MAX                                                                                                      \
    (REASON_MAX + 32u + CALL_DETAILS_MAX * (DETAIL_NAME_MAX + sizeof(((struct call_detail *)0)->value) + 6u))
#define DOMAIN     "rdrive"
#define ERROR_INFO "type.googleapis.com/google.rpc.ErrorInfo"
#define RETRY_INFO "type.googleapis.com/google.rpc.RetryInfo"

/* Field numbers of google/rpc/status.proto, google/rpc/error_details.proto, and the well-known types they use. */
enum {
    STATUS_CODE = 1,
    STATUS_MESSAGE = 2,
    STATUS_DETAILS = 3,
    ANY_TYPE_URL = 1,
    ANY_VALUE = 2,
    ERROR_INFO_REASON = 1,
    ERROR_INFO_DOMAIN = 2,
    ERROR_INFO_METADATA = 3, /* map<string, string> */
    MAP_KEY = 1,
    MAP_VALUE = 2,
    RETRY_INFO_DELAY = 1,
    DURATION_NANOS = 2,
};

static uint8_t *put_bytes(uint8_t *at, unsigned field, const void *bytes, size_t len)
{
    at = wire_put_len(at, field, len);
    memcpy(at, bytes, len);
    return at + len;
}

static uint8_t *put_any(uint8_t *at, const char *type_url, const uint8_t *value, size_t len)
{
    at = wire_put_len(at, STATUS_DETAILS, wire_len_size(strlen(type_url)) + wire_len_size(len));
    at = put_bytes(at, ANY_TYPE_URL, type_url, strlen(type_url));
    return put_bytes(at, ANY_VALUE, value, len);
}

static uint8_t *put_detail(uint8_t *at, const struct call_detail *detail)
{
    size_t name_len = strnlen(detail->name, DETAIL_NAME_MAX);
    size_t value_len = strnlen(detail->value, sizeof(detail->value));
    at = wire_put_len(at, ERROR_INFO_METADATA, wire_len_size(name_len) + wire_len_size(value_len));
    at = put_bytes(at, MAP_KEY, detail->name, name_len);
    return put_bytes(at, MAP_VALUE, detail->value, value_len);
}

static grpc_slice details(const struct call *call)
{
    uint8_t message[STATUS_TEXT_MAX + VALUE_MAX + 256];
    uint8_t value[VALUE_MAX];
    size_t reason_len = strnlen(call->reason, REASON_MAX);
    grpc_status_code status = call->status;
    uint8_t *at = wire_put_varint_field(message, STATUS_CODE, (uint64_t)status);
    at = put_bytes(at, STATUS_MESSAGE, call->status_text, strnlen(call->status_text, STATUS_TEXT_MAX));

    uint8_t *value_at = put_bytes(value, ERROR_INFO_REASON, call->reason, reason_len);
    value_at = put_bytes(value_at, ERROR_INFO_DOMAIN, DOMAIN, strlen(DOMAIN));
    for (size_t i = 0; i < call->detail_count; i++)
        value_at = put_detail(value_at, &call->detail[i]);
    at = put_any(at, ERROR_INFO, value, (size_t)(value_at - value));

    if (status == GRPC_STATUS_UNAVAILABLE) {
        uint8_t delay[16];
        uint8_t *delay_at = wire_put_varint_field(delay, DURATION_NANOS, STATUS_RETRY_MS * UINT64_C(1000000));
        value_at = put_bytes(value, RETRY_INFO_DELAY, delay, (size_t)(delay_at - delay));
        at = put_any(at, RETRY_INFO, value, (size_t)(value_at - value));
    }
    return grpc_slice_from_copied_buffer((const char *)message, (size_t)(at - message));
}

size_t status_metadata(const struct call *call, grpc_metadata out[STATUS_METADATA_MAX])
{
    size_t count = 0;
    out[count++] =
        (grpc_metadata){.key = grpc_slice_from_static_string("grpc-status-details-bin"), .value = details(call)};
    if (call->status == GRPC_STATUS_UNAVAILABLE) {
        char milliseconds[16];
        snprintf(milliseconds, sizeof(milliseconds), "%d", STATUS_RETRY_MS);
        out[count++] = (grpc_metadata){.key = grpc_slice_from_static_string("grpc-retry-pushback-ms"),
                                       .value = grpc_slice_from_copied_string(milliseconds)};
    }
    return count;
}

void status_metadata_fini(grpc_metadata *metadata, size_t count)
{
    for (size_t i = 0; i < count; i++)
        grpc_slice_unref(metadata[i].value);
}
