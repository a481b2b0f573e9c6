#include "call.h"
#include "method.h"
#include "server.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/*
 *                  ┌─────────────────────────────────────────────┐ the server stopped
 *  POSTED ─► RUNNING ─► ASKING ──► RUNNING (the engine answered)  │
 *               │ ├───► SENDING ─► RUNNING (a message is out)      ▼
 *               │ ├───► WATCHING ► RUNNING (woken) ─► any may go DONE when the peer is gone
 *               │ └───► FINISHING (the status is on its way) ────► DONE
 *
 * RUNNING is the only state in which a method's code runs. A call is given back when it is DONE and no tag of it is in
 * flight.
 */
#define TO(state) (1u << (state))
static const struct {
    const char *name;
    unsigned next;
} call_states[] = {
    [CALL_POSTED] = {"posted", TO(CALL_RUNNING) | TO(CALL_DONE)},
    [CALL_RUNNING] = {"running",
                      TO(CALL_ASKING) | TO(CALL_SENDING) | TO(CALL_WATCHING) | TO(CALL_FINISHING) | TO(CALL_DONE)},
    [CALL_ASKING] = {"asking", TO(CALL_RUNNING) | TO(CALL_DONE)},
    [CALL_SENDING] = {"sending", TO(CALL_RUNNING) | TO(CALL_DONE)},
    [CALL_WATCHING] = {"watching", TO(CALL_RUNNING) | TO(CALL_DONE)},
    [CALL_FINISHING] = {"finishing", TO(CALL_DONE)},
    [CALL_DONE] = {"done", 0},
};

/* A bug of ours if it ever fires: nothing a client does chooses these. */
#define CALL_REQUIRE(call, condition)                                                                                  \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            LOG(LOG_ERROR, "bug", LOG_TEXT("not", #condition), LOG_TEXT("state", call_states[(call)->state].name));    \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define DECODE_SLACK   65536 /* what decoding a request may take beyond the request's own size */
#define FREE_CALLS_MAX 256   /* idle calls a queue keeps */

/* Where the engine's operation is. The hook and the submitter each exchange it once, and whoever comes second acts. */
enum op_place { OP_PLACE_SUBMITTING, OP_PLACE_AWAITED, OP_PLACE_COMPLETED };

static const struct {
    grpc_status_code status;
    const char *reason;
} refusals[] = {
#define REFUSAL_ROW(name, status, reason) [name] = {status, reason},
    REFUSALS(REFUSAL_ROW)
#undef REFUSAL_ROW
};

static void call_move(struct call *call, enum call_state state)
{
    CALL_REQUIRE(call, (call_states[call->state].next & TO(state)) != 0);
    call->state = state;
}

/* ---- life ---- */

static void *allocator_alloc(void *arena, size_t bytes)
{
    return arena_alloc(arena, bytes);
}

static void allocator_free(void *arena, void *bytes)
{
    (void)arena;
    (void)bytes; /* all at once, with the call */
}

struct call *call_create(struct queue *queue, const struct method *method)
{
    struct call *call = queue->free_calls;
    if (call != NULL) {
        queue->free_calls = call->next_free;
        queue->free_count--;
    } else if ((call = malloc(sizeof(*call))) == NULL) {
        return NULL;
    }
    /* the arena's first block is large and need not be cleared */
    memset(call, 0, offsetof(struct call, arena));
    memset(&call->allocator, 0, sizeof(*call) - offsetof(struct call, allocator));
    arena_init(&call->arena);
    call->queue = queue;
    call->method = method;
    call->state = CALL_POSTED;
    for (int i = 0; i < OP_COUNT; i++)
        call->ops[i] = (struct call_op){.call = call, .kind = (enum call_op_kind)i};
    call->allocator =
        (ProtobufCAllocator){.alloc = allocator_alloc, .free = allocator_free, .allocator_data = &call->arena};
    grpc_metadata_array_init(&call->metadata);
    grpc_call_details_init(&call->details);
    call->in_flight = 1; /* OP_REQUEST, which the server posts */
    atomic_fetch_add(&queue->server->calls, 1);
    return call;
}

void call_destroy(struct call *call)
{
    free(call);
}

/* Give back all that the call holds of others, as soon as it is done. */
static void call_let_go(struct call *call)
{
    if (call->op_open)
        rd_engine_finish(call->engine, &call->op);
    call->op_open = false;
    if (call->method->release != NULL)
        call->method->release(call);
    reply_fini(&call->reply);
    if (call->request != NULL)
        grpc_byte_buffer_destroy(call->request);
    call->request = NULL;
}

static void list_open(struct call *call)
{
    struct queue *queue = call->queue;
    call->next_open = queue->open_calls;
    call->open_link = &queue->open_calls;
    if (call->next_open != NULL)
        call->next_open->open_link = &call->next_open;
    queue->open_calls = call;
}

static void unlist_open(struct call *call)
{
    if (call->open_link == NULL)
        return;
    *call->open_link = call->next_open;
    if (call->next_open != NULL)
        call->next_open->open_link = call->open_link;
    call->open_link = NULL;
}

static void call_uncount(struct call *call)
{
    struct server *server = call->queue->server;
    unlist_open(call);
    if (call->counted)
        atomic_fetch_sub(&server->open_calls[call->epoch], 1);
    atomic_fetch_sub(&server->calls, 1);
    if (atomic_load(&server->tell_ends))
        server_wake(server);
}

static void call_free(struct call *call)
{
    struct queue *queue = call->queue;
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_details_destroy(&call->details);
    arena_fini(&call->arena);
    if (call->call != NULL)
        grpc_call_unref(call->call);
    call_uncount(call);
    if (queue->free_count >= FREE_CALLS_MAX) {
        call_destroy(call);
        return;
    }
    call->next_free = queue->free_calls;
    queue->free_calls = call;
    queue->free_count++;
}

static void call_done(struct call *call)
{
    call_move(call, CALL_DONE);
}

/* The end of every event: a call that is done and has nothing in flight is gone. */
static void call_settle(struct call *call)
{
    if (call->state != CALL_DONE || call->in_flight > 0)
        return;
    if (call->method->watches && health_detach(call))
        return; /* OP_WAKE will come */
    call_let_go(call);
    call_free(call);
}

/* ---- batches ---- */

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
static void post_close(struct call *call)
{
    if (call->close_posted)
        return;
    grpc_op op = close_op(call);
    start_batch(call, &op, 1, OP_CLOSE);
}

static grpc_op initial_op(struct call *call)
{
    call->sent_initial = true;
    return (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
}

/* One message of a stream. */
static void send_message(struct call *call)
{
    grpc_op ops[2];
    size_t count = 0;
    grpc_byte_buffer *message = reply_take(&call->reply);
    if (message == NULL) { /* out of memory: the stream can't go on, nor can it say so well */
        grpc_call_cancel_with_status(call->call, GRPC_STATUS_UNAVAILABLE, "out of memory", NULL);
        call->dead = true;
        call_done(call);
        return;
    }
    post_close(call);
    call_move(call, CALL_SENDING);
    if (!call->sent_initial)
        ops[count++] = initial_op(call);
    ops[count] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
    ops[count++].data.send_message.send_message = message;
    start_batch(call, ops, count, OP_SEND);
    grpc_byte_buffer_destroy(message); /* the core has its own references */
}

/* The last message, if there is one, and the status. An answer given at once is this one batch and no other. */
static void finish(struct call *call)
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
    call_move(call, CALL_FINISHING);
    if (!call->sent_initial)
        ops[count++] = initial_op(call);
    if (message != NULL) {
        ops[count] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
        ops[count++].data.send_message.send_message = message;
    }
    grpc_metadata trailing[STATUS_METADATA_MAX];
    size_t trailing_count = 0;
    grpc_slice text = grpc_slice_from_copied_string(call->status_text);
    ops[count] = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
    ops[count].data.send_status_from_server.status = call->status;
    if (call->status != GRPC_STATUS_OK) {
        trailing_count = status_metadata(call->status, call->status_text, call->reason, trailing);
        ops[count].data.send_status_from_server.status_details = &text;
        ops[count].data.send_status_from_server.trailing_metadata_count = trailing_count;
        ops[count].data.send_status_from_server.trailing_metadata = trailing;
    }
    count++;
    if (!call->close_posted)
        ops[count++] = close_op(call);
    start_batch(call, ops, count, OP_FINISH);
    grpc_slice_unref(text);
    status_metadata_fini(trailing, trailing_count);
    if (message != NULL)
        grpc_byte_buffer_destroy(message);
}

/* ---- the engine ---- */

/* The operation has completed, on any thread: the submitter takes it up, or, if that has gone on, the call's queue. */
static void op_done(rd_op *op)
{
    struct call *call = (struct call *)((char *)op - offsetof(struct call, op));
    if (atomic_exchange(&call->op_place, OP_PLACE_COMPLETED) == OP_PLACE_AWAITED)
        grpc_call_start_batch(call->call, NULL, 0, &call->ops[OP_ENGINE], NULL); /* an empty batch posts its tag */
}

/* Returns: whether the engine answered at once. */
static bool ask(struct call *call, bool next)
{
    call_move(call, CALL_ASKING);
    atomic_store(&call->op_place, OP_PLACE_SUBMITTING);
    if (next) {
        rd_engine_next(call->engine, &call->op);
    } else {
        call->op.done = op_done;
        call->op_open = true;
        rd_engine_submit(call->engine, &call->op);
    }
    call->in_flight++; /* OP_ENGINE, unless it isn't needed */
    if (atomic_exchange(&call->op_place, OP_PLACE_AWAITED) == OP_PLACE_COMPLETED) {
        call->in_flight--;
        return true;
    }
    post_close(call);
    return false;
}

/* ---- running ---- */

static enum step engine_answered(struct call *call)
{
    return call->op.err == RD_OK ? call->method->resume(call) : call_fail(call, call->op.err);
}

/* Do what the method wants, until it has to wait. */
static void run(struct call *call, enum step step)
{
    for (;;) {
        if (call->dead) {
            call_done(call);
            return;
        }
        switch (step) {
        case STEP_ASK:
        case STEP_NEXT:
            if (!ask(call, step == STEP_NEXT))
                return;
            call_move(call, CALL_RUNNING);
            step = engine_answered(call);
            break;
        case STEP_SEND:
            if (call->reply.err == RD_OK)
                send_message(call);
            else
                finish(call); /* with that error */
            return;
        case STEP_WATCH:
            post_close(call);
            call_move(call, CALL_WATCHING);
            return;
        case STEP_END:
        case STEP_FAIL: finish(call); return;
        }
    }
}

/* Whether the server takes this call on, and if not why. */
static enum step admit(struct call *call)
{
    struct server *server = call->queue->server;
    const struct method *method = call->method;
    if (atomic_load(&server->phase) != SERVER_SERVING)
        return call_refuse(call, REFUSE_DRAINING, "the server is shutting down; retry on another connection");
    if (!method->never_shed && server_open_calls(server) > server->config->max_inflight)
        return call_refuse(call, REFUSE_OVERLOADED,
                           "more than %llu calls are open, the server's --max-inflight; retry later or elsewhere",
                           (unsigned long long)server->config->max_inflight);
    call->engine = atomic_load(&server->engine);
    if (method->needs_engine && call->engine == NULL)
        return call_refuse(call, REFUSE_NOT_READY, "the store is still being opened; retry later or elsewhere");
    return method->begin(call);
}

/* Count the call where the drain will look for it. */
static void call_count(struct call *call)
{
    struct server *server = call->queue->server;
    call->counted = true;
    if (call->method->watches) {
        call->epoch = OPEN_WATCHES;
        atomic_fetch_add(&server->open_calls[OPEN_WATCHES], 1);
        return;
    }
    do {
        call->epoch = atomic_load(&server->epoch);
        atomic_fetch_add(&server->open_calls[call->epoch], 1);
        if (call->epoch == atomic_load(&server->epoch))
            return;
        atomic_fetch_sub(&server->open_calls[call->epoch], 1); /* the drain went on meanwhile */
    } while (true);
}

static void requested(struct call *call, bool success)
{
    if (!success) { /* the server is stopping */
        call_done(call);
        return;
    }
    server_post(call->queue, call->method);
    list_open(call);
    call_count(call);
    call_move(call, CALL_RUNNING);
    run(call, admit(call));
}

/* The peer is gone or has what it wanted. */
static void closed(struct call *call)
{
    if (!call->close_cancelled)
        return;
    call->dead = true;
    if (call->state == CALL_ASKING)
        rd_engine_cancel(call->engine, &call->op); /* its completion ends the call */
    else if (call->state == CALL_WATCHING)
        call_done(call);
}

static void sent(struct call *call, bool success)
{
    if (!success)
        call->dead = true;
    if (call->dead) {
        call_done(call);
        return;
    }
    call_move(call, CALL_RUNNING);
    run(call, call->method->resume(call));
}

void call_event(struct call_op *op, bool success)
{
    struct call *call = op->call;
    if (op->kind != OP_WAKE)
        call->in_flight--;
    switch (op->kind) {
    case OP_REQUEST: requested(call, success); break;
    case OP_CLOSE: closed(call); break;
    case OP_SEND: sent(call, success); break;
    case OP_FINISH: call_done(call); break;
    case OP_ENGINE:
        CALL_REQUIRE(call, atomic_load(&call->op_place) == OP_PLACE_COMPLETED); /* acquires what the engine wrote */
        call_move(call, CALL_RUNNING);
        run(call, call->dead ? STEP_FAIL : engine_answered(call));
        break;
    case OP_WAKE:
        health_woken(call);
        if (call->state == CALL_WATCHING) {
            call_move(call, CALL_RUNNING);
            run(call, call->method->resume(call));
        }
        break;
    case OP_COUNT: break;
    }
    call_settle(call);
}

void call_drop(struct call *call)
{
    /* what waits for the peer fails, what waits for the engine is told by OP_CLOSE */
    grpc_call_cancel_with_status(call->call, GRPC_STATUS_UNAVAILABLE,
                                 "the server is shutting down and can't wait for this call; retry elsewhere", NULL);
}

void call_wake(struct call *call)
{
    grpc_call_start_batch(call->call, NULL, 0, &call->ops[OP_WAKE], NULL);
}

/* ---- for methods ---- */

static enum step set_status(struct call *call, grpc_status_code status, const char *reason)
{
    call->status = status;
    call->reason = reason;
    reply_fini(&call->reply);
    return STEP_FAIL;
}

enum step call_refuse(struct call *call, enum refusal refusal, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(call->status_text, sizeof(call->status_text), format, arguments);
    va_end(arguments);
    for (char *c = call->status_text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 ||
            (unsigned char)*c >= 0x7f) /* it may quote what a client sent, and must be valid UTF-8 */
            *c = '?';
    return set_status(call, refusals[refusal].status, refusals[refusal].reason);
}

enum step call_fail(struct call *call, rd_err err)
{
    snprintf(call->status_text, sizeof(call->status_text), "%s", rd_err_text(err));
    return set_status(call, (grpc_status_code)rd_err_status(err), rd_err_reason(err));
}

/* The request's bytes in one piece; copied into the arena only where they came in several. */
static const uint8_t *request_bytes(struct call *call, size_t *out_len)
{
    const grpc_slice_buffer *slices = &call->request->data.raw.slice_buffer;
    *out_len = slices->length;
    if (slices->count == 1)
        return GRPC_SLICE_START_PTR(slices->slices[0]);
    uint8_t *bytes = arena_alloc(&call->arena, slices->length + 1);
    size_t used = 0;
    for (size_t i = 0; bytes != NULL && i < slices->count; i++) {
        memcpy(bytes + used, GRPC_SLICE_START_PTR(slices->slices[i]), GRPC_SLICE_LENGTH(slices->slices[i]));
        used += GRPC_SLICE_LENGTH(slices->slices[i]);
    }
    return bytes;
}

void *call_decode(struct call *call, const ProtobufCMessageDescriptor *descriptor)
{
    if (call->request == NULL) {
        call_refuse(call, REFUSE_MALFORMED, "no message came before the half close; send exactly one %s",
                    descriptor->name);
        return NULL;
    }
    size_t len;
    const uint8_t *bytes = request_bytes(call, &len);
    /* protobuf-c keeps 40 bytes and more of each unknown field, however small: 15 MiB of them would take 570 */
    arena_limit(&call->arena, len + DECODE_SLACK);
    void *message = bytes != NULL ? protobuf_c_message_unpack(descriptor, &call->allocator, len, bytes) : NULL;
    arena_limit(&call->arena, SIZE_MAX);
    if (message == NULL)
        call_refuse(call, REFUSE_MALFORMED, "the request's %zu bytes are not a %s, or mostly fields it doesn't have",
                    len, descriptor->name);
    return message;
}

void call_pack(struct call *call, const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *at = reply_reserve(&call->reply, len);
    if (at != NULL)
        reply_commit(&call->reply, protobuf_c_message_pack(message, at));
}

void call_ask_one(struct call *call, uint64_t key_hash, bool no_payload)
{
    call->key = (rd_key){.hash = key_hash};
    call->op = (rd_op){.kind = RD_OP_READ,
                       .keys = &call->key,
                       .key_count = 1,
                       .no_payload = no_payload,
                       .values = &call->value,
                       .value_max = 1};
}
