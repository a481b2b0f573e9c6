/* A client on gRPC's C core: one thread, one queue, connections of their own. */
#include "load.h"
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *path;
    bool streams;
} methods[] = {
    [WORK_READ] = {"/rdrive.v1.DataStoreReaderService/Read", false},
    [WORK_BATCH_READ] = {"/rdrive.v1.DataStoreReaderService/BatchRead", false},
    [WORK_BATCH_HASHED] = {"/rdrive.v1.DataStoreReaderService/BatchReadHashedKeys", true},
    [WORK_BATCH_STREAM] = {"/rdrive.v1.DataStoreReaderService/BatchReadStream", true},
    [WORK_READ_STREAM] = {"/rdrive.v1.DataStoreReaderService/ReadStream", true},
};

enum tag_kind { TAG_SENT, TAG_MESSAGE, TAG_STATUS, TAG_COUNT };

struct slot;
struct tag {
    struct slot *slot;
    enum tag_kind kind;
};

struct slot {
    struct client *client;
    grpc_channel *channel;
    void *method;
    struct tag tags[TAG_COUNT];
    unsigned open; /* tags that will come */
    uint64_t begun_ns;
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_status_code status;
    grpc_slice details;
    grpc_byte_buffer *message;
    uint64_t *picks;
    struct answer answer;
};

struct client {
    const struct load *load;
    bool streams;
    grpc_completion_queue *queue;
    uint8_t *request;
    uint8_t *message; /* an answer's message in one piece */
    size_t message_max;
};

static void start(struct slot *slot, const grpc_op *ops, size_t count, enum tag_kind kind)
{
    slot->open++;
    CHECK(grpc_call_start_batch(slot->call, ops, count, &slot->tags[kind], NULL) == GRPC_CALL_OK);
}

static grpc_op message_op(struct slot *slot)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &slot->message;
    return op;
}

static grpc_op status_op(struct slot *slot)
{
    grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    op.data.recv_status_on_client.trailing_metadata = &slot->trailing;
    op.data.recv_status_on_client.status = &slot->status;
    op.data.recv_status_on_client.status_details = &slot->details;
    return op;
}

static void begin(struct slot *slot)
{
    struct client *client = slot->client;
    const struct load *load = client->load;
    if (!meter_begin(load->meter))
        return;
    work_pick(load->work, slot->picks);
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)client->request,
                                                     work_request(load->work, slot->picks, client->request));
    grpc_byte_buffer *request = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    answer_begin(&slot->answer, load->work, slot->picks);
    grpc_metadata_array_init(&slot->initial);
    grpc_metadata_array_init(&slot->trailing);
    slot->begun_ns = meter_now();
    slot->call = grpc_channel_create_registered_call(slot->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue,
                                                     slot->method, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_op ops[6] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                      {.op = GRPC_OP_SEND_MESSAGE},
                      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
                      {.op = GRPC_OP_RECV_INITIAL_METADATA},
                      message_op(slot),
                      status_op(slot)};
    ops[1].data.send_message.send_message = request;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &slot->initial;
    if (client->streams) {
        start(slot, ops, 4, TAG_SENT);
        start(slot, ops + 4, 1, TAG_MESSAGE);
        start(slot, ops + 5, 1, TAG_STATUS);
    } else {
        start(slot, ops, 6, TAG_STATUS);
    }
    grpc_byte_buffer_destroy(request);
}

static void take_message(struct slot *slot)
{
    struct client *client = slot->client;
    grpc_byte_buffer_reader reader;
    size_t len = grpc_byte_buffer_length(slot->message);
    size_t used = 0;
    if (len > client->message_max) {
        client->message = realloc(client->message, len);
        client->message_max = len;
        CHECK(client->message != NULL);
    }
    CHECK(grpc_byte_buffer_reader_init(&reader, slot->message));
    for (grpc_slice slice; grpc_byte_buffer_reader_next(&reader, &slice); grpc_slice_unref(slice)) {
        memcpy(client->message + used, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice));
        used += GRPC_SLICE_LENGTH(slice);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(slot->message);
    slot->message = NULL;
    answer_message(&slot->answer, client->message, used);
}

static void end(struct slot *slot)
{
    if (slot->status != GRPC_STATUS_OK)
        die("a call ended with status %d: %.*s", (int)slot->status, (int)GRPC_SLICE_LENGTH(slot->details),
            (const char *)GRPC_SLICE_START_PTR(slot->details));
    answer_end(&slot->answer);
    grpc_metadata_array_destroy(&slot->initial);
    grpc_metadata_array_destroy(&slot->trailing);
    grpc_slice_unref(slot->details);
    grpc_call_unref(slot->call);
    meter_end(slot->client->load->meter, slot->begun_ns, slot->answer.bytes);
    begin(slot);
}

static void event(struct tag *tag)
{
    struct slot *slot = tag->slot;
    slot->open--;
    if (slot->message != NULL && tag->kind != TAG_SENT) {
        take_message(slot);
        if (slot->client->streams) {
            grpc_op op = message_op(slot);
            start(slot, &op, 1, TAG_MESSAGE);
        }
    }
    if (slot->open == 0)
        end(slot);
}

static grpc_channel *connect_to(const char *address)
{
    /* Everything else is as clients have it by default. */
    grpc_arg args[] = {
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, .value.integer = 1},
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, .value.integer = -1},
        {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ENABLE_HTTP_PROXY, .value.integer = 0},
    };
    grpc_channel_args all = {.num_args = sizeof args / sizeof args[0], .args = args};
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(address, plain, &all);
    grpc_channel_credentials_release(plain);
    CHECK(channel != NULL);
    return channel;
}

static void init_slot(struct slot *slot, struct client *client, grpc_channel *channel, void *method)
{
    *slot = (struct slot){.client = client, .channel = channel, .method = method};
    for (int kind = 0; kind < TAG_COUNT; kind++)
        slot->tags[kind] = (struct tag){.slot = slot, .kind = (enum tag_kind)kind};
    slot->picks = malloc(client->load->work->batch * sizeof *slot->picks);
    CHECK(slot->picks != NULL);
}

static void run(struct client *client, struct slot *slots, size_t count)
{
    for (size_t i = 0; i < count; i++)
        begin(&slots[i]);
    while (!meter_done(client->load->meter)) {
        grpc_event came = grpc_completion_queue_next(client->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        CHECK(came.type == GRPC_OP_COMPLETE);
        event(came.tag);
    }
}

static void run_down(grpc_completion_queue *queue)
{
    grpc_completion_queue_shutdown(queue);
    while (grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type != GRPC_QUEUE_SHUTDOWN)
        ;
    grpc_completion_queue_destroy(queue);
}

void load_grpc(const struct load *load)
{
    struct client client = {.load = load, .streams = methods[load->work->kind].streams};
    const char *path = load->path != NULL ? load->path : methods[load->work->kind].path;
    size_t count = load->meter->in_flight;
    struct slot *slots = calloc(count, sizeof *slots);
    grpc_channel **channels = calloc(load->connections, sizeof(*channels));
    client.request = malloc(work_request_max(load->work));
    CHECK(slots != NULL && channels != NULL && client.request != NULL);
    grpc_init();
    client.queue = grpc_completion_queue_create_for_next(NULL);
    for (size_t i = 0; i < load->connections; i++)
        channels[i] = connect_to(load->address);
    for (size_t i = 0; i < count; i++) {
        grpc_channel *channel = channels[i % load->connections];
        init_slot(&slots[i], &client, channel, grpc_channel_register_call(channel, path, NULL, NULL));
    }
    meter_warm(load->meter);
    run(&client, slots, count);
    meter_start(load->meter);
    run(&client, slots, count);
    meter_stop(load->meter);
    for (size_t i = 0; i < load->connections; i++)
        grpc_channel_destroy(channels[i]);
    run_down(client.queue);
    for (size_t i = 0; i < count; i++)
        free(slots[i].picks);
    free(slots);
    free(channels);
    free(client.request);
    free(client.message);
    grpc_shutdown_blocking();
}
