/* What is asked of gRPC's core for a call, batch by batch. */
#include "call.h"
#include "server.h"

static void start_batch(struct call *call, const grpc_op *ops, size_t count, enum call_op_kind kind)
{
    call->in_flight++;
    grpc_call_error error = grpc_call_start_batch(call->call, ops, count, &call->ops[kind], NULL);
    CALL_REQUIRE(call, error == GRPC_CALL_OK);
}

static grpc_op close_op(struct call *call)
{
    call->close_posted = true;
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &call->close_cancelled;
    return op;
}

/* Learn of the peer's end while the call waits for something. */
void call_post_close(struct call *call)
{
    if (call->close_posted)
        return;
    grpc_op op = close_op(call);
    start_batch(call, &op, 1, OP_CLOSE);
}

void call_post_receive(struct call *call)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &call->request;
    start_batch(call, &op, 1, OP_RECEIVE);
}

void call_post_tag(struct call *call, enum call_op_kind kind)
{
    grpc_call_start_batch(call->call, NULL, 0, &call->ops[kind], NULL);
}

static grpc_op initial_op(struct call *call)
{
    call->sent_initial = true;
    return (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
}

static grpc_op message_op(struct call *call, grpc_byte_buffer *message)
{
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
    op.data.send_message.send_message = message;
    call->sent_bytes += message->data.raw.slice_buffer.length;
    return op;
}

bool call_post_message(struct call *call)
{
    grpc_op ops[2];
    size_t count = 0;
    grpc_byte_buffer *message = reply_take(&call->reply);
    if (message == NULL) { /* the stream can't go on, nor can it say so well */
        grpc_call_cancel_with_status(call->call, GRPC_STATUS_UNAVAILABLE, "out of memory", NULL);
        call->dead = true;
        return false;
    }
    if (!call->sent_initial)
        ops[count++] = initial_op(call);
    ops[count++] = message_op(call, message);
    start_batch(call, ops, count, OP_SEND);
    grpc_byte_buffer_destroy(message); /* the core has its own references */
    return true;
}

void call_post_finish(struct call *call)
{
    grpc_op ops[4];
    size_t count = 0;
    grpc_byte_buffer *message = NULL;
    rd_err err = call->reply.err;
    if (err == RD_OK && call->status == GRPC_STATUS_OK && call->reply.any &&
        (message = reply_take(&call->reply)) == NULL)
        err = RD_E_NOMEM;
    if (err != RD_OK)
        call_fail(call, err);
    if (!call->sent_initial)
        ops[count++] = initial_op(call);
    if (message != NULL)
        ops[count++] = message_op(call, message);
    grpc_metadata trailing[STATUS_METADATA_MAX];
    size_t trailing_count = 0;
    grpc_slice text = {0}; /* empty, which needs no unref */
    call->has_status = true;
    ops[count] = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
    ops[count].data.send_status_from_server.status = call->status;
    if (call->status != GRPC_STATUS_OK) {
        text = grpc_slice_from_copied_string(call->status_text);
        trailing_count = status_metadata(call, trailing);
        ops[count].data.send_status_from_server.status_details = &text;
        ops[count].data.send_status_from_server.trailing_metadata_count = trailing_count;
        ops[count].data.send_status_from_server.trailing_metadata = trailing;
    }
    count++;
    if (!call->close_posted)
        ops[count++] = close_op(call);
    start_batch(call, ops, count, OP_FINISH);
    if (call->status != GRPC_STATUS_OK) {
        grpc_slice_unref(text);
        status_metadata_fini(trailing, trailing_count);
    }
    if (message != NULL)
        grpc_byte_buffer_destroy(message);
}
