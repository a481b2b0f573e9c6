/* A call's storage: made, pooled, listed, counted and given back. */
#include "method.h"
#include "server.h"
#include <stdlib.h>
#include <string.h>

#define FREE_CALLS_MAX 256 /* idle calls a queue keeps */

static void *allocator_alloc(void *arena, size_t bytes)
{
    return arena_alloc(arena, bytes);
}

static void allocator_free(void *arena, void *bytes)
{
    (void)arena;
    (void)bytes; /* all at once, with the call */
}

/* What stays as it is when a call is used again. */
static void call_init(struct call *call, struct queue *queue)
{
    for (int i = 0; i < OP_COUNT; i++)
        call->ops[i] = (struct call_op){.call = call, .kind = (enum call_op_kind)i};
    call->allocator =
        (ProtobufCAllocator){.alloc = allocator_alloc, .free = allocator_free, .allocator_data = &call->arena};
    arena_init(&call->arena, &queue->server->budget);
}

struct call *call_create(struct queue *queue, const struct method *method)
{
    struct call *call = queue->free_calls;
    if (call != NULL) {
        queue->free_calls = call->next_free;
        queue->free_count--;
    } else if ((call = malloc(sizeof(*call))) == NULL) {
        return NULL;
    } else {
        call_init(call, queue);
    }
    memset(call, 0, offsetof(struct call, allocator));
    call->queue = queue;
    call->method = method;
    call->state = CALL_POSTED;
    grpc_metadata_array_init(&call->metadata);
    if (method == &unknown_method)
        grpc_call_details_init(&call->details);
    call->in_flight = 1; /* OP_REQUEST, which the server posts */
    atomic_fetch_add(&queue->server->calls, 1);
    return call;
}

void call_destroy(struct call *call)
{
    free(call);
}

void call_give_room(struct call *call)
{
    struct room *room = &call->queue->server->room;
    if (call->room > 0 && call->passed)
        room_passed(room, call->room);
    else if (call->room > 0)
        room_give(room, call->room);
    call->room = 0;
    call->passed = false;
}

void call_drop_request(struct call *call)
{
    if (call->request != NULL)
        grpc_byte_buffer_destroy(call->request);
    call->request = NULL;
}

/* Give back all that the call holds of others, as soon as it is done. */
static void call_let_go(struct call *call)
{
    if (call->op_open)
        rd_engine_finish(call->engine, &call->op);
    call->op_open = false;
    budget_give(&call->queue->server->budget, call->kept);
    call->kept = 0;
    call_give_room(call);
    reply_fini(&call->reply);
    call_drop_request(call);
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

void call_free(struct call *call)
{
    struct queue *queue = call->queue;
    if (call->counted)
        call_log_end(call);
    call_let_go(call);
    grpc_metadata_array_destroy(&call->metadata);
    if (call->method == &unknown_method)
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

/* The end of every event: a call that is done and has nothing in flight is gone. */

/* Count the call where the drain will look for it. */
static void count_open(struct call *call)
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

void call_opened(struct call *call)
{
    list_open(call);
    count_open(call);
    census_deliver(call);
}
