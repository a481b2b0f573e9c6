#include "server.h"
#include <grpc/grpc.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define POSTS_MAX      64u
#define POSTS_SHARE    4u /* of the calls of a sweep, those that may well come at once */
#define KIB            1024
#define HANDSHAKE_MS   10000
#define QUEUE_TURN_MS  250 /* a queue\'s thread looks around at least this often */
#define DISCONNECT_MS  250 /* for the core to drop its connections */
#define STREAMS_MIN    100
#define LINGER_MS      1000 /* for peers to take what was sent to them */
#define LINGER_IDLE_MS 200  /* for those who have it to notice the end; some look only at their next call */

/* What the core is told, each with its reason; values that the configuration decides are filled in below. */
enum { ARG_MAX_REQUEST, ARG_MAX_RESPONSE, ARG_AGE, ARG_STREAMS };
static const struct {
    const char *name;
    int value;
} channel_args[] = {
    [ARG_MAX_REQUEST] = {GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, 0}, /* --max-request-bytes */
    [ARG_MAX_RESPONSE] = {GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1},  /* we keep to our own limits */
    [ARG_AGE] = {GRPC_ARG_MAX_CONNECTION_AGE_MS, 0},              /* --max-connection-age */
    /* A quarter of --max-inflight, and no less than STREAMS_MIN: no one connection takes all of it. Libraries wait. */
    [ARG_STREAMS] = {GRPC_ARG_MAX_CONCURRENT_STREAMS, 0},
    /* A gzip message is inflated without limit before its size is checked: only identity is enabled. */
    {GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE},
    /* We never compress, nor does anybody ask for the core's own figures: both cost each call some instructions. */
    {GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0},
    {GRPC_ARG_ENABLE_CHANNELZ, 0},
    /* With it a second daemon on the port would take half the calls in silence. */
    {GRPC_ARG_ALLOW_REUSEPORT, 0},
    /* The probe would open windows to 4 MiB a stream; requests are small. */
    {GRPC_ARG_HTTP2_BDP_PROBE, 0},
    {GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 64 * KIB},
    /* Find peers that vanished: a ping each minute, 20 s for its answer. */
    {GRPC_ARG_KEEPALIVE_TIME_MS, 60000},
    {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000},
    {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
    /* Clients may ping every 10 s, also without calls, as proxies and mobile clients do. */
    {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000},
    {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
    /* A connection that never says a word is dropped after this, not after two minutes. */
    {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS},
};
#define ARG_COUNT (sizeof(channel_args) / sizeof(channel_args[0]))

static grpc_server *create_core(const struct config *config)
{
    grpc_arg args[ARG_COUNT + 1];
    size_t count = 0;
    for (size_t i = 0; i < ARG_COUNT; i++) {
        int value = channel_args[i].value;
        if (i == ARG_MAX_REQUEST)
            value = (int)config->max_request_bytes;
        else if (i == ARG_STREAMS)
            value = (int)(config->max_inflight / 4 > STREAMS_MIN ? config->max_inflight / 4 : STREAMS_MIN);
        else if (i == ARG_AGE && config->max_connection_age_s == 0)
            continue; /* never */
        else if (i == ARG_AGE)
            value = (int)(config->max_connection_age_s > 2000000 ? 2000000 : config->max_connection_age_s) * 1000;
        args[count] = (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)channel_args[i].name};
        args[count++].value.integer = value;
    }
    /* Messages still arriving are invisible to us; only the core's quota bounds what they take. */
    grpc_resource_quota *quota = grpc_resource_quota_create("rdrived");
    grpc_resource_quota_resize(quota, config->max_memory);
    args[count] = (grpc_arg){.type = GRPC_ARG_POINTER, .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA};
    args[count].value.pointer.p = quota;
    args[count++].value.pointer.vtable = grpc_resource_quota_arg_vtable();
    grpc_channel_args all = {.num_args = count, .args = args};
    grpc_server *core = grpc_server_create(&all, NULL);
    grpc_resource_quota_unref(quota);
    return core;
}

/* ---- calls ---- */

static struct posts *posts_of(struct queue *queue, const struct method *method)
{
    return &queue->posts[method == &unknown_method ? METHOD_MAX : (size_t)(method - methods)];
}

/* Post a call for `method` on `queue`. Returns: false where memory is out: a sweep makes up for it. */
static bool post(struct queue *queue, const struct method *method)
{
    struct server *server = queue->server;
    struct call *call = call_create(queue, method);
    if (call == NULL) {
        LOG(LOG_ERROR, "out of memory", LOG_TEXT("method", method->path));
        return false;
    }
    void *tag = &call->ops[OP_REQUEST];
    grpc_call_error error;
    if (method == &unknown_method)
        error = grpc_server_request_call(server->core, &call->call, &call->details, &call->metadata, queue->core,
                                         queue->core, tag);
    else
        error = grpc_server_request_registered_call(
            server->core, server->registered[method - methods], &call->call, &call->deadline, &call->metadata,
            method->client_streams ? NULL : &call->request, queue->core, queue->core, tag);
    if (error != GRPC_CALL_OK) /* the queue's own thread, or nobody yet, runs it: safe to call here */
        call_event(tag, false);
    posts_of(queue, method)->posted++;
    return true;
}

static void top_up(struct queue *queue, const struct method *method)
{
    struct posts *posts = posts_of(queue, method);
    if (atomic_load(&queue->server->phase) == SERVER_STOPPING)
        return;
    while (posts->posted < posts->target && post(queue, method))
        ;
}

void server_taken(struct queue *queue, const struct method *method)
{
    struct posts *posts = posts_of(queue, method);
    posts->posted--;
    posts->taken++;
    top_up(queue, method);
}

static void sweep_posts(struct queue *queue)
{
    for (size_t i = 0; i <= method_count; i++) {
        const struct method *method = i < method_count ? &methods[i] : &unknown_method;
        struct posts *posts = posts_of(queue, method);
        unsigned wanted = posts->taken / POSTS_SHARE;
        posts->taken = 0;
        posts->target = wanted < 1 ? 1 : wanted > POSTS_MAX ? POSTS_MAX : wanted; /* as calls come, it sinks to that */
        top_up(queue, method);
    }
}

size_t server_open_calls(const struct server *server)
{
    return atomic_load(&server->open_calls[0]) + atomic_load(&server->open_calls[1]);
}

bool server_is_full(const struct server *server)
{
    size_t open = server_open_calls(server);
    if (open <= server->config->max_inflight)
        return false;
    for (size_t i = 0; i < server->queue_count; i++)
        open -= (size_t)atomic_load_explicit(&server->queues[i].finishing, memory_order_relaxed);
    return open > server->config->max_inflight;
}

int64_t server_now_us(void)
{
    gpr_timespec now = gpr_now(GPR_CLOCK_MONOTONIC);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void server_wake(const struct server *server)
{
    uint64_t one = 1;
    ssize_t ignored = write(server->wake_fd, &one, sizeof(one)); /* full means that it is readable already */
    (void)ignored;
}

void server_set_engine(struct server *server, rd_engine *engine)
{
    atomic_store(&server->engine, engine);
    health_set(&server->health, true, server->config->writable);
}

/* ---- start ---- */

/* Good to some milliseconds, at a tenth of the other clock's cost. */
static int64_t coarse_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void drop_calls(struct queue *queue)
{
    queue->dropped = true;
    for (struct call *call = queue->open_calls; call != NULL; call = call->next_open)
        call_drop(call);
}

/* What is looked after now and then. */
static void sweep(struct queue *queue)
{
    queue->sweep_ms = queue->now_ms;
    sweep_posts(queue);
    if (atomic_load_explicit(&queue->server->count_peers, memory_order_relaxed))
        census_take(queue);
    struct moves moves = {0};
    for (struct call *call = queue->open_calls; call != NULL; call = call->next_open)
        call_check_stall(call, &moves);
    free(moves.list);
}

/* The next call that yielded: one for each event, so that those who wait for the peer get on as well. */
static void take_turn(struct queue *queue)
{
    struct call *call = queue->turns;
    queue->turns = call->next_turn;
    if (queue->turns == NULL)
        queue->last_turn = &queue->turns;
    call_turn(call);
}

static void *queue_thread(void *argument)
{
    struct queue *queue = argument;
    const struct server *server = queue->server;
    gpr_timespec until; /* the exact clock is asked only now and then */
    bool due = true;
    for (;;) {
        queue->now_ms = coarse_ms();
        if (due || queue->now_ms - queue->sweep_ms >= QUEUE_TURN_MS) {
            sweep(queue);
            until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(QUEUE_TURN_MS, GPR_TIMESPAN));
        }
        grpc_event event = grpc_completion_queue_next(
            queue->core, queue->turns != NULL ? gpr_inf_past(GPR_CLOCK_MONOTONIC) : until, NULL);
        due = event.type == GRPC_QUEUE_TIMEOUT && queue->turns == NULL;
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (event.type == GRPC_OP_COMPLETE)
            call_event(event.tag, event.success != 0);
        if (queue->turns != NULL)
            take_turn(queue);
        if (!queue->dropped && atomic_load_explicit(&server->phase, memory_order_relaxed) >= SERVER_DROPPING)
            drop_calls(queue);
    }
}

static bool create_queues(struct server *server)
{
    server->queues = calloc(server->config->threads, sizeof(*server->queues));
    if (server->queues == NULL)
        return false;
    server->queue_count = server->config->threads;
    for (size_t i = 0; i < server->queue_count; i++) {
        struct queue *queue = &server->queues[i];
        queue->server = server;
        queue->last_turn = &queue->turns;
        queue->core = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server->core, queue->core, NULL);
    }
    return true;
}

static bool register_methods(struct server *server)
{
    for (size_t i = 0; i < method_count; i++) {
        server->registered[i] = grpc_server_register_method(
            server->core, methods[i].path, NULL,
            methods[i].client_streams ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
        if (server->registered[i] == NULL)
            return false;
    }
    return true;
}

/* The first calls are posted before the queue's thread starts: afterwards only it posts. */
static bool start_queue(struct queue *queue)
{
    sweep_posts(queue);
    queue->running = pthread_create(&queue->thread, NULL, queue_thread, queue) == 0;
    return queue->running;
}

bool server_start(struct server *server, const struct config *config, int wake_fd)
{
    *server = (struct server){.config = config, .wake_fd = wake_fd, .budget.max = config->max_memory};
    health_init(&server->health);
    room_init(&server->room, config->max_queued_bytes);
    server->core = create_core(config);
    if (!create_queues(server) || !register_methods(server)) {
        LOG(LOG_ERROR, "cannot start", LOG_TEXT("why", "out of memory"));
        return false;
    }
    if (!tls_start(&server->tls, config) || !listen_all(server))
        return false;
    grpc_server_start(server->core);
    for (size_t i = 0; i < server->queue_count; i++) {
        if (!start_queue(&server->queues[i])) {
            LOG(LOG_ERROR, "cannot start", LOG_TEXT("why", "the system refuses a thread"));
            return false;
        }
    }
    return true;
}

/* ---- end ---- */

void server_refuse(struct server *server)
{
    listen_stop(server);
    atomic_store(&server->phase, SERVER_REFUSING);
    health_end(&server->health);
}

void server_drop(struct server *server)
{
    atomic_store(&server->phase, SERVER_DROPPING);
}

static int64_t now_ms(void)
{
    return server_now_us() / 1000;
}

/* Wait until no connection is left; `unsent_ms` at most while bytes are under way, else `idle_ms`. */
static bool connections_ended(const struct server *server, int64_t idle_ms, int64_t unsent_ms)
{
    int64_t begun = now_ms();
    uint64_t unsent;
    while (listen_connections(server, &unsent) > 0) {
        if (now_ms() - begun >= (unsent > 0 ? unsent_ms : idle_ms))
            return false;
        poll(NULL, 0, 1);
    }
    return true;
}

/**
 * End every connection while calls that still arrive on them are answered: once the core is shutting down it would end
 * them CANCELLED, which no client retries. First as peers like it: they read all that was sent and then the end, and
 * close; were the socket closed on them, their next write would fail and take what they had not read yet with it. Then
 * the core drops what is left, when the thread that works on it has a moment; it doesn't say when, but the kernel
 * knows.
 */
static void disconnect(struct server *server)
{
    listen_half_close(server);
    if (connections_ended(server, LINGER_IDLE_MS, LINGER_MS))
        return;
    grpc_server_cancel_all_calls(server->core);
    connections_ended(server, DISCONNECT_MS, DISCONNECT_MS);
}

/* Tags may still come until the last call is gone, and a batch on a queue that is shut down would abort. */
static bool wait_for_calls(struct server *server)
{
    int64_t until = now_ms() + SERVER_END_MS;
    while (atomic_load(&server->calls) > 0) {
        struct pollfd wake = {.fd = server->wake_fd, .events = POLLIN};
        uint64_t count;
        int64_t left = until - now_ms();
        if (left <= 0)
            return false;
        poll(&wake, 1, (int)left);
        ssize_t ignored = read(server->wake_fd, &count, sizeof(count));
        (void)ignored;
    }
    return true;
}

static void shut_core_down(struct server *server)
{
    grpc_completion_queue *ended = grpc_completion_queue_create_for_next(NULL);
    grpc_server_shutdown_and_notify(server->core, ended, NULL);
    grpc_server_cancel_all_calls(
        server->core); /* once more: a connection that came last would be waited for, for 20 s */
    grpc_completion_queue_next(ended, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    grpc_completion_queue_shutdown(ended);
    while (grpc_completion_queue_next(ended, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type != GRPC_QUEUE_SHUTDOWN)
        ;
    grpc_completion_queue_destroy(ended);
}

/* A queue whose thread never ran is emptied here. */
static void end_queue(struct queue *queue)
{
    grpc_completion_queue_shutdown(queue->core);
    if (queue->running)
        pthread_join(queue->thread, NULL);
    else
        queue_thread(queue);
    grpc_completion_queue_destroy(queue->core);
    free(atomic_exchange(&queue->census, NULL));
    while (queue->free_calls != NULL) {
        struct call *call = queue->free_calls;
        queue->free_calls = call->next_free;
        call_destroy(call);
    }
}

bool server_end(struct server *server)
{
    bool running = server->queue_count > 0 && server->queues[0].running;
    listen_stop(server);
    if (running)
        disconnect(server);
    atomic_store(&server->phase, SERVER_STOPPING);
    atomic_store(&server->tell_ends, true);
    if (server->core != NULL)
        shut_core_down(server);
    if (running && !wait_for_calls(server)) {
        listen_release(server);
        return false;
    }
    for (size_t i = 0; i < server->queue_count; i++)
        end_queue(&server->queues[i]);
    if (server->core != NULL)
        grpc_server_destroy(server->core);
    tls_stop(&server->tls);
    free(server->queues);
    listen_release(server);
    health_fini(&server->health);
    room_fini(&server->room);
    return true;
}
