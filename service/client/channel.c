#include "channel.h"
#include "certificate.h"
#include "wire.h"
#include <errno.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/compression.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>

#define KEEPALIVE_MS         20000 /* the server allows a ping every 10 s */
#define KEEPALIVE_TIMEOUT_MS 10000
#define RECONNECT_MIN_MS     100
#define RECONNECT_MAX_MS     1000
#define CONNECT_MS           5000      /* which a connection may take: in the core, the least time between two tries */
#define WINDOW_BYTES         (4 << 20) /* of a stream: what a server may send ahead */
#define PEM_BYTES_MAX        ((size_t)16 << 20)

/* ---- addresses and credentials ---- */

bool channel_address_is_valid(const char *address)
{
    if (strncmp(address, "unix:", 5) == 0)
        return address[5] == '/' && address[6] != '\0';
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address || strcspn(address, "/@?# ") != strlen(address))
        return false;
    bool bracketed = address[0] == '[' && colon[-1] == ']';
    if (!bracketed && memchr(address, ':', (size_t)(colon - address)) != NULL)
        return false; /* an IPv6 address without its brackets */
    size_t digits = strspn(colon + 1, "0123456789");
    return digits > 0 && digits <= 5 && colon[1 + digits] == '\0' && atoi(colon + 1) > 0 && atoi(colon + 1) <= 65535;
}

/* Read all of `file` into `text`, which has room for PEM_BYTES_MAX and one more. Returns: NULL, or what is wrong. */
static const char *read_text(FILE *file, char *text)
{
    errno = 0;
    size_t len = fread(text, 1, PEM_BYTES_MAX + 1, file);
    if (ferror(file))
        return strerror(errno);
    if (len > PEM_BYTES_MAX)
        return "larger than any PEM file";
    text[len] = '\0';
    return strstr(text, "-----BEGIN ") != NULL ? NULL : "there is no PEM block in it";
}

/* A file's text, to be freed; NULL with a line in `why`. */
static char *read_pem(const char *path, char *why, size_t why_size)
{
    FILE *file = fopen(path, "re");
    char *text = file != NULL ? malloc(PEM_BYTES_MAX + 1) : NULL;
    const char *wrong = text != NULL ? read_text(file, text) : strerror(errno);
    if (file != NULL)
        (void)fclose(file);
    if (wrong == NULL)
        return text;
    (void)snprintf(why, why_size, "reading %s: %s", path, wrong);
    free(text);
    return NULL;
}

/* The core takes any text, and says "empty address list" of what it can't use. */
static bool pem_is_good(const struct channel_to *to, char *ca, char *cert, char *key, char *why, size_t why_size)
{
    const char *const paths[CERTIFICATE_FILES] = {to->cert, to->key, to->ca};
    struct certificate shown = {.pem = {cert, key, ca}}; /* the caller's, still */
    char text[CERTIFICATE_WHY_MAX];
    bool good = certificate_check(&shown, paths, text);
    if (!good)
        (void)snprintf(why, why_size, "TLS: %s", text);
    return good;
}

/* NULL with a line in `why`. */
static grpc_channel_credentials *make_credentials(const struct channel_to *to, char *why, size_t why_size)
{
    if (!to->tls)
        return grpc_insecure_credentials_create();
    char *ca = to->ca != NULL ? read_pem(to->ca, why, why_size) : NULL;
    char *cert = to->cert != NULL ? read_pem(to->cert, why, why_size) : NULL;
    char *key = to->key != NULL ? read_pem(to->key, why, why_size) : NULL;
    bool whole = (to->ca == NULL) == (ca == NULL) && (to->cert == NULL) == (cert == NULL) &&
                 (to->key == NULL) == (key == NULL) && pem_is_good(to, ca, cert, key, why, why_size);
    grpc_ssl_pem_key_cert_pair pair = {.private_key = key, .cert_chain = cert};
    grpc_channel_credentials *credentials =
        whole ? grpc_ssl_credentials_create_ex(ca, cert != NULL ? &pair : NULL, NULL, NULL) : NULL;
    if (whole && credentials == NULL)
        (void)snprintf(why, why_size, "TLS: certificate and key can't be used");
    free(ca);
    free(cert);
    free(key);
    return credentials;
}

/* ---- the channel ---- */

static void be_silent(gpr_log_func_args *args)
{
    (void)args;
}

static grpc_arg integer_arg(const char *name, int value)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)name, .value.integer = value};
}

bool channel_open(struct channel *channel, const struct channel_to *to, char *why, size_t why_size)
{
    gpr_set_log_function(be_silent);
    grpc_init();
    grpc_channel_credentials *credentials = make_credentials(to, why, why_size);
    if (credentials == NULL) {
        grpc_shutdown_blocking();
        return false;
    }
    grpc_arg all[] = {
        integer_arg(GRPC_ARG_ENABLE_RETRIES, 0),    /* ours know what may be repeated */
        integer_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0), /* the address that was given is the one that is meant */
        integer_arg("grpc.service_config_disable_resolution", 1),
        integer_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
        integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, CHANNEL_MESSAGE_MAX),
        /* a window of a fixed size; the core's own estimate lets it grow to whatever a fast server fills */
        integer_arg(GRPC_ARG_HTTP2_BDP_PROBE, 0),
        integer_arg(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, WINDOW_BYTES),
        integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        integer_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        integer_arg("grpc.initial_reconnect_backoff_ms", RECONNECT_MIN_MS),
        integer_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS),
        integer_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_MS),
        /* a compressed answer, which rdrived never sends, would be inflated without a limit */
        integer_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE),
    };
    const grpc_channel_args args = {.num_args = sizeof(all) / sizeof(all[0]), .args = all};
    *channel = (struct channel){
        .channel = grpc_channel_create(to->address, credentials, &args),
        .queue = grpc_completion_queue_create_for_pluck(NULL),
        .timeout_ms = to->timeout_ms,
    };
    grpc_channel_credentials_release(credentials);
    return true;
}

void channel_close(struct channel *channel)
{
    if (channel->channel == NULL)
        return;
    grpc_channel_destroy(channel->channel);
    grpc_completion_queue_shutdown(channel->queue);
    grpc_completion_queue_destroy(channel->queue);
    grpc_shutdown_blocking();
    *channel = (struct channel){0};
}

gpr_timespec channel_deadline(int64_t ms)
{
    return ms == 0 ? gpr_inf_future(GPR_CLOCK_MONOTONIC)
                   : gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

grpc_call *channel_call(const struct channel *channel, grpc_completion_queue *queue, const char *method,
                        gpr_timespec deadline)
{
    return grpc_channel_create_call(channel->channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                    grpc_slice_from_static_string(method), NULL, deadline, NULL);
}

/* ---- messages ---- */

grpc_byte_buffer *message_pack(const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    grpc_slice slice = grpc_slice_malloc(len);
    (void)protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

bool message_join(grpc_byte_buffer *buffer, grpc_slice *out_slice)
{
    grpc_byte_buffer_reader reader;
    bool ok = grpc_byte_buffer_reader_init(&reader, buffer) != 0;
    if (ok) {
        *out_slice = grpc_byte_buffer_reader_readall(&reader);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    grpc_byte_buffer_destroy(buffer);
    return ok;
}

ProtobufCMessage *message_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *descriptor)
{
    grpc_slice slice;
    if (!message_join(buffer, &slice))
        return NULL;
    ProtobufCMessage *message =
        protobuf_c_message_unpack(descriptor, NULL, GRPC_SLICE_LENGTH(slice), GRPC_SLICE_START_PTR(slice));
    grpc_slice_unref(slice);
    return message;
}

/* ---- calls ---- */

/* Run a batch and wait for it. Returns: whether all of it was done. */
static bool run(struct channel *channel, grpc_call *call, const grpc_op *ops, size_t count)
{
    if (grpc_call_start_batch(call, ops, count, call, NULL) != GRPC_CALL_OK)
        return false;
    grpc_event event = grpc_completion_queue_pluck(channel->queue, call, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    return event.type == GRPC_OP_COMPLETE && event.success != 0;
}

ProtobufCMessage *channel_unary(struct channel *channel, const char *method, const ProtobufCMessage *request,
                                const ProtobufCMessageDescriptor *answer, int64_t timeout_ms,
                                struct outcome *out_outcome)
{
    grpc_call *call = channel_call(channel, channel->queue, method,
                                   channel_deadline(timeout_ms != 0 ? timeout_ms : channel->timeout_ms));
    grpc_byte_buffer *sent = message_pack(request), *received = NULL;
    grpc_metadata_array initial, trailing;
    grpc_metadata_array_init(&initial);
    grpc_metadata_array_init(&trailing);
    grpc_status_code status = GRPC_STATUS_UNKNOWN;
    grpc_slice details = grpc_empty_slice();
    const grpc_op ops[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = sent},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &initial},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &received},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &trailing, .status = &status, .status_details = &details}},
    };
    (void)run(channel, call, ops, sizeof(ops) / sizeof(ops[0]));
    outcome_take(out_outcome, status, details, &trailing);
    grpc_slice_unref(details);
    grpc_metadata_array_destroy(&initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_byte_buffer_destroy(sent);
    grpc_call_unref(call);
    ProtobufCMessage *message = received != NULL ? message_unpack(received, answer) : NULL;
    if (status == GRPC_STATUS_OK && message == NULL)
        outcome_set(out_outcome, GRPC_STATUS_INTERNAL, "the answer is no %s", answer->name);
    if (status != GRPC_STATUS_OK && message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
        message = NULL;
    }
    return message;
}

void stream_begin(struct stream *stream, struct channel *channel, const char *method)
{
    *stream = (struct stream){
        .channel = channel,
        .call = channel_call(channel, channel->queue, method, channel_deadline(channel->timeout_ms)),
    };
    grpc_metadata_array_init(&stream->initial);
    const grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    stream->broken = !run(channel, stream->call, &op, 1);
}

bool stream_send(struct stream *stream, const ProtobufCMessage *message)
{
    if (stream->broken)
        return false;
    grpc_byte_buffer *buffer = message_pack(message);
    const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};
    stream->broken = !run(stream->channel, stream->call, &op, 1);
    grpc_byte_buffer_destroy(buffer);
    return !stream->broken;
}

void stream_send_end(struct stream *stream)
{
    const grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    if (!stream->broken)
        stream->broken = !run(stream->channel, stream->call, &op, 1);
}

grpc_byte_buffer *stream_receive(struct stream *stream)
{
    grpc_byte_buffer *received = NULL;
    grpc_op ops[2] = {{.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &received}};
    size_t count = 1;
    if (!stream->begun) /* once, with the first message */
        ops[count++] = (grpc_op){.op = GRPC_OP_RECV_INITIAL_METADATA,
                                 .data.recv_initial_metadata.recv_initial_metadata = &stream->initial};
    stream->begun = true;
    (void)run(stream->channel, stream->call, ops, count);
    return received;
}

void stream_end(struct stream *stream, bool cancel, struct outcome *out_outcome)
{
    if (cancel)
        (void)grpc_call_cancel(stream->call, NULL);
    grpc_metadata_array trailing;
    grpc_metadata_array_init(&trailing);
    grpc_status_code status = GRPC_STATUS_UNKNOWN;
    grpc_slice details = grpc_empty_slice();
    const grpc_op op = {
        .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
        .data.recv_status_on_client = {.trailing_metadata = &trailing, .status = &status, .status_details = &details}};
    (void)run(stream->channel, stream->call, &op, 1);
    outcome_take(out_outcome, status, details, &trailing);
    grpc_slice_unref(details);
    grpc_metadata_array_destroy(&stream->initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_call_unref(stream->call);
    stream->call = NULL;
}
