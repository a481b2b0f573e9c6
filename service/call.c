#include "call.h"
#include "access.h"
#include "method.h"
#include "server.h"
#include <grpc/support/alloc.h>
#include <stdlib.h>
#include <string.h>

/*
 *                  ┌─────────────────────────────────────────────┐ the server stopped
 *  POSTED ─► RUNNING ─► ASKING ────► RUNNING (the engine answered) │
 *               │ ├───► SENDING ───► RUNNING (a message is out)     │
 *               │ ├───► RECEIVING ─► RUNNING (a message is in)      ▼
 *               │ ├───► YIELDING ──► RUNNING (its turn)  ─► any may go DONE when the peer is gone
 *               │ ├───► QUEUED ────► RUNNING (room for its message)
 *               │ ├───► WATCHING ──► RUNNING (woken)
 *               │ └───► FINISHING (the status is on its way) ────► DONE
 *
 * RUNNING is the only state in which a method's code runs. A call is given back when it is DONE and no tag of it is in
 * flight.
 */
#define TO(state)   (1u << (state))
#define BACK_OR_END (TO(CALL_RUNNING) | TO(CALL_DONE))
static const struct {
    const char *name;
    unsigned next;
} call_states[] = {
    [CALL_POSTED] = {"posted", BACK_OR_END},
    [CALL_RUNNING] = {"running", TO(CALL_ASKING) | TO(CALL_SENDING) | TO(CALL_RECEIVING) | TO(CALL_QUEUED) |
                                     TO(CALL_YIELDING) | TO(CALL_WATCHING) | TO(CALL_FINISHING) | TO(CALL_DONE)},
    [CALL_ASKING] = {"asking", BACK_OR_END},
    [CALL_SENDING] = {"sending", BACK_OR_END},
    [CALL_RECEIVING] = {"receiving", BACK_OR_END},
    [CALL_QUEUED] = {"queued", BACK_OR_END},
    [CALL_YIELDING] = {"yielding", BACK_OR_END},
    [CALL_WATCHING] = {"watching", BACK_OR_END},
    [CALL_FINISHING] = {"finishing", TO(CALL_DONE)},
    [CALL_DONE] = {"done", 0},
};

#define FINISH_MS 250   /* that an answer may take to leave, before the call counts as one being served again */
#define MOVED_MIN 1024u /* bytes; an idle connection's pings are fewer */

/* Where the engine's operation is. The hook and the submitter each exchange it once, and whoever comes second acts. */
enum op_place { OP_PLACE_SUBMITTING, OP_PLACE_AWAITED, OP_PLACE_COMPLETED };

void call_bug(const struct call *call, const char *condition)
{
    LOG(LOG_ERROR, "bug", LOG_TEXT("not", condition), LOG_TEXT("state", call_states[call->state].name));
    abort();
}

static void call_move(struct call *call, enum call_state state)
{
    CALL_REQUIRE(call, (call_states[call->state].next & TO(state)) != 0);
    call->state = state;
}

static void call_settle(struct call *call)
{
    if (call->state != CALL_DONE || call->in_flight > 0)
        return;
    if (call->method->woken && health_detach(call))
        return; /* OP_WAKE will come */
    call_free(call);
}

/* ---- the engine ---- */

/* The operation has completed, on any thread: the submitter takes it up, or, if that has gone on, the call's queue. */
static void op_done(rd_op *op)
{
    struct call *call = (struct call *)((char *)op - offsetof(struct call, op));
    if (atomic_exchange(&call->op_place, OP_PLACE_COMPLETED) == OP_PLACE_AWAITED)
        call_post_tag(call, OP_ENGINE);
}

/* Returns: whether the engine answered at once. */
static bool ask(struct call *call, bool next)
{
    call_move(call, CALL_ASKING);
    atomic_store_explicit(&call->op_place, OP_PLACE_SUBMITTING, memory_order_relaxed);
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
    call_post_close(call);
    return false;
}

/* ---- running ---- */

/* From now on the peer is to take or send something. */
static void begin_waiting(struct call *call)
{
    call->since_ms = call->queue->now_ms;
    call->silent = 0;
}

/* Count the call among those that are as good as over, or no longer. Only the queue's thread writes the count. */
static void set_finishing(struct call *call, bool finishing)
{
    atomic_int *count = &call->queue->finishing;
    int before = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, before + finishing - call->finishing, memory_order_relaxed);
    call->finishing = finishing;
}

static void finish(struct call *call)
{
    call_move(call, CALL_FINISHING);
    begin_waiting(call);
    set_finishing(call, true);
    call_post_finish(call);
}

/* Wait for room for `bytes` in turn; then goes on with `step`. Returns: false where its tag will come. */
static bool queue_for_room(struct call *call, enum step step, size_t bytes)
{
    call->room = bytes;
    call->last = step;
    call_move(call, CALL_QUEUED);
    call->in_flight++; /* OP_ROOM */
    if (room_take(&call->queue->server->room, call, bytes)) {
        call->in_flight--;
        call_move(call, CALL_RUNNING);
        return true;
    }
    call_post_close(call);
    return false;
}

/**
 * Have room for just the copied bytes of the message that `step` sends. Small answers wait for none: those who ask for
 * little are served while others ask for much; nor do messages of what is never shed. What may be large has room
 * already (STEP_ROOM).
 * Returns: false where the call waits for it; its tag will come.
 */
static bool take_room(struct call *call, enum step step)
{
    struct room *room = &call->queue->server->room;
    size_t copied = call->reply.total - call->reply.referred;
    if (call->room > 0) {
        if (copied > call->room)
            room_force(room, copied - call->room);
        else if (copied < call->room)
            room_give(room, call->room - copied);
    } else if (copied > 0) {
        bool passes = call->method->never_shed || (step == STEP_END && copied <= CALL_SMALL_ANSWER);
        if (!passes)
            return queue_for_room(call, step, copied);
        room_pass(room, copied);
        call->passed = true;
    }
    call->room = copied;
    return true;
}

static void send_message(struct call *call)
{
    call_post_close(call);
    call_move(call, CALL_SENDING);
    begin_waiting(call);
    if (!call_post_message(call))
        call_move(call, CALL_DONE);
}

static void yield(struct call *call)
{
    struct queue *queue = call->queue;
    call_post_close(call);
    call_move(call, CALL_YIELDING);
    call->in_flight++;
    call->next_turn = NULL;
    *queue->last_turn = call;
    queue->last_turn = &call->next_turn;
}

static void receive(struct call *call)
{
    call_drop_request(call);
    call_post_close(call);
    call_move(call, CALL_RECEIVING);
    begin_waiting(call);
    call_post_receive(call);
}

static enum step resume(struct call *call, enum step last)
{
    call->last = last;
    return call->method->resume(call);
}

static enum step engine_answered(struct call *call, enum step last)
{
    bool answered = call->op.err == RD_OK || call->op.err == RD_ABSENT;
    return answered ? resume(call, last) : call_fail(call, call->op.err);
}

/* Do what the method wants, until it has to wait. */
static void run(struct call *call, enum step step)
{
    for (;;) {
        if (call->dead) {
            call_move(call, CALL_DONE);
            return;
        }
        switch (step) {
        case STEP_ASK:
        case STEP_NEXT:
            call->last = step;
            if (!ask(call, step == STEP_NEXT))
                return;
            call_move(call, CALL_RUNNING);
            step = engine_answered(call, step);
            break;
        case STEP_SEND:
            if (call->reply.err != RD_OK)
                finish(call); /* with that error */
            else if (take_room(call, step))
                send_message(call);
            return;
        case STEP_ROOM:
            if (!queue_for_room(call, step, call->wanted))
                return;
            step = resume(call, step);
            break;
        case STEP_RECEIVE: receive(call); return;
        case STEP_YIELD: yield(call); return;
        case STEP_WATCH:
            call_post_close(call);
            call_move(call, CALL_WATCHING);
            return;
        case STEP_END:
            if (call->reply.err != RD_OK || take_room(call, step))
                finish(call);
            return;
        case STEP_FAIL: finish(call); return;
        }
    }
}

/* Whether the server takes this call on, and if not why. */
static enum step admit(struct call *call)
{
    struct server *server = call->queue->server;
    const struct method *method = call->method;
    if (atomic_load_explicit(&server->phase, memory_order_relaxed) != SERVER_SERVING)
        return call_refuse(call, REFUSE_DRAINING, "the server is shutting down; retry on another connection");
    if (!method->never_shed && server_is_full(server)) {
        call_tell(call, "limit", server->config->max_inflight);
        return call_refuse(call, REFUSE_OVERLOADED,
                           "more than %llu calls are open, the server's --max-inflight; retry later or elsewhere",
                           (unsigned long long)server->config->max_inflight);
    }
    call->engine = atomic_load_explicit(&server->engine, memory_order_acquire);
    if (method->needs_engine && call->engine == NULL)
        return call_refuse(call, REFUSE_NOT_READY, "the store is still being opened; retry later or elsewhere");
    if (method->writes && !access_may_write(call))
        return STEP_FAIL;
    return method->begin(call);
}

/* ---- events ---- */

static void requested(struct call *call, bool success)
{
    struct server *server = call->queue->server;
    if (!success) { /* the server is stopping */
        call_move(call, CALL_DONE);
        return;
    }
    server_taken(call->queue, call->method);
    call_opened(call);
    if (server->config->slow_ms > 0)
        call->begun_us = server_now_us();
    call_move(call, CALL_RUNNING);
    run(call, admit(call));
}

/* The peer is gone or has what it wanted. */
static void closed(struct call *call)
{
    if (!call->close_cancelled)
        return;
    call->dead = true;
    if (call->state == CALL_ASKING) {
        rd_engine_cancel(call->engine, &call->op); /* its completion ends the call */
    } else if (call->state == CALL_WATCHING) {
        call_move(call, CALL_DONE);
    } else if (call->state == CALL_QUEUED && room_leave(&call->queue->server->room, call)) {
        call->in_flight--;
        call->room = 0;
        call_move(call, CALL_DONE);
    }
}

static void sent(struct call *call, bool success)
{
    call_give_room(call);
    if (!success)
        call->dead = true;
    if (call->dead) {
        call_move(call, CALL_DONE);
        return;
    }
    call_move(call, CALL_RUNNING);
    run(call, resume(call, STEP_SEND));
}

static void received(struct call *call, bool success)
{
    if (call->state != CALL_RECEIVING) { /* it was ended meanwhile */
        call_drop_request(call);
        return;
    }
    /* Broken off, which is no end of the client's messages. What is asked of a call that was ended already fails, and
     * perhaps before OP_CLOSE tells of the end. */
    if (!success || (call->request == NULL && grpc_call_failed_before_recv_message(call->call)))
        call->dead = true;
    census_deliver(call);
    call_move(call, CALL_RUNNING);
    run(call, call->dead ? STEP_FAIL : resume(call, STEP_RECEIVE));
}

/* Its room was taken. */
static void roomed(struct call *call)
{
    call_move(call, CALL_RUNNING);
    run(call, call->last == STEP_ROOM && !call->dead ? resume(call, STEP_ROOM) : call->last);
}

static void woken(struct call *call)
{
    health_woken(call);
    if (call->state != CALL_WATCHING)
        return;
    call_move(call, CALL_RUNNING);
    run(call, resume(call, STEP_WATCH));
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
    case OP_RECEIVE: received(call, success); break;
    case OP_FINISH:
        set_finishing(call, false);
        call_move(call, CALL_DONE);
        break;
    case OP_ENGINE:
        CALL_REQUIRE(call, atomic_load(&call->op_place) == OP_PLACE_COMPLETED); /* acquires what the engine wrote */
        call_move(call, CALL_RUNNING);
        run(call, call->dead ? STEP_FAIL : engine_answered(call, call->last));
        break;
    case OP_ROOM: roomed(call); break;
    case OP_WAKE: woken(call); break;
    case OP_COUNT: break;
    }
    call_settle(call);
}

void call_turn(struct call *call)
{
    call->in_flight--;
    call_move(call, CALL_RUNNING);
    run(call, call->dead ? STEP_FAIL : resume(call, STEP_YIELD));
    call_settle(call);
}

/* Whether its connection moved more than the pings of an idle one since this was last asked. */
static bool has_moved(struct call *call, struct moves *moves)
{
    char *peer = grpc_call_get_peer(call->call);
    uint64_t moved = listen_moved(call->queue->server, moves, peer);
    gpr_free(peer);
    bool more = moved - call->moved >= MOVED_MIN;
    call->moved = moved;
    return more;
}

/* The core tells of whole messages only; how those get on shows in what their connection moves. Each half of the time
 * is looked at, so that at least the whole time was silent. */
void call_check_stall(struct call *call, struct moves *moves)
{
    static const char text[] = "nothing was sent or received for --stall-timeout; read faster, or send";
    const struct queue *queue = call->queue;
    uint64_t limit_s = queue->server->config->stall_timeout_s;
    if (call->state != CALL_SENDING && call->state != CALL_FINISHING && call->state != CALL_RECEIVING)
        return;
    if (call->finishing && queue->now_ms - call->since_ms >= FINISH_MS)
        set_finishing(call, false); /* its client takes its time, and keeps its place meanwhile */
    if (limit_s == 0 || queue->now_ms - call->since_ms < (int64_t)limit_s * 500)
        return;
    call->since_ms = queue->now_ms;
    call->silent = has_moved(call, moves) ? 0 : call->silent + 1;
    if (call->silent < 2)
        return;
    call->silent = 0;
    if (call->state == CALL_RECEIVING) {
        call_tell(call, "limit", limit_s);
        call_refuse(call, REFUSE_STALLED, "%s within %llu s", text, (unsigned long long)limit_s);
        call_move(call, CALL_RUNNING);
        finish(call);
        return;
    }
    call_refuse(call, REFUSE_STALLED, "%s", text); /* for the log: no trailing metadata gets past what waits */
    call->has_status = true;
    grpc_call_cancel_with_status(call->call, call->status, text, NULL);
}

void call_drop(struct call *call)
{
    /* what waits for the peer fails, what waits for the engine is told by OP_CLOSE */
    grpc_call_cancel_with_status(call->call, GRPC_STATUS_UNAVAILABLE,
                                 "the server is shutting down and can't wait for this call; retry elsewhere", NULL);
}

void call_wake(struct call *call)
{
    call_post_tag(call, OP_WAKE);
}

void call_room(struct call *call)
{
    call_post_tag(call, OP_ROOM);
}
