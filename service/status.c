#include "status.h"
#include "wire.h"
#include <stdio.h>

#define REASON_MAX 64u
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

static grpc_slice details(grpc_status_code status, const char *text, const char *reason)
{
    uint8_t message[STATUS_TEXT_MAX + REASON_MAX + 256];
    uint8_t value[REASON_MAX + 32];
    size_t reason_len = strnlen(reason, REASON_MAX);
    uint8_t *at = wire_put_varint_field(message, STATUS_CODE, (uint64_t)status);
    at = put_bytes(at, STATUS_MESSAGE, text, strnlen(text, STATUS_TEXT_MAX));

    uint8_t *value_at = put_bytes(value, ERROR_INFO_REASON, reason, reason_len);
    value_at = put_bytes(value_at, ERROR_INFO_DOMAIN, DOMAIN, strlen(DOMAIN));
    at = put_any(at, ERROR_INFO, value, (size_t)(value_at - value));

    if (status == GRPC_STATUS_UNAVAILABLE) {
        uint8_t delay[16];
        uint8_t *delay_at = wire_put_varint_field(delay, DURATION_NANOS, STATUS_RETRY_MS * UINT64_C(1000000));
        value_at = put_bytes(value, RETRY_INFO_DELAY, delay, (size_t)(delay_at - delay));
        at = put_any(at, RETRY_INFO, value, (size_t)(value_at - value));
    }
    return grpc_slice_from_copied_buffer((const char *)message, (size_t)(at - message));
}

size_t status_metadata(grpc_status_code status, const char *text, const char *reason,
                       grpc_metadata out[STATUS_METADATA_MAX])
{
    size_t count = 0;
    out[count++] = (grpc_metadata){.key = grpc_slice_from_static_string("grpc-status-details-bin"),
                                   .value = details(status, text, reason)};
    if (status == GRPC_STATUS_UNAVAILABLE) {
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
