/*
 * The least that a server on gRPC's C core can do for a unary call: the limit of this machine for such work. Each queue
 * has one thread; a call is one request and one batch (headers, message, status and the peer's end), and another
 * request is posted before it is answered. (--sharing gives a queue more threads, for comparison.) The answer is always
 * the same bytes, copied into a slice (or pointed at:
 * --refer), whatever was asked.
 */
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 64
#define ARGS_MAX    32
#define SOURCES_MAX 1024
#define BYTES_MAX   ((size_t)64 << 20)

enum slot_state { SLOT_POSTED, SLOT_ANSWERING };

struct slot {
    enum slot_state state;
    struct slot *next_free;
    grpc_call *call;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *request;
    int cancelled;
};

struct queue {
    grpc_completion_queue *core;
    pthread_t threads[THREADS_MAX];
    pthread_mutex_t lock; /* of `free_slots`, where several threads share the queue */
    struct slot *free_slots;
    size_t source; /* of the next answer; by whichever thread */
};

static grpc_server *server;
static void *method;
static struct queue queues[THREADS_MAX];

/* What was asked for. */
static const char *listen_on = "127.0.0.1:0";
static const char *path = "/rdrive.v1.DataStoreReaderService/Read";
static size_t queue_count = 1;
static size_t sharing = 1; /* threads a queue */
static size_t posts = 8;   /* requests that wait on a queue; the core looks through all of them at each event */
static bool refer;
static uint8_t *answer;
static size_t answer_len = 127;
static size_t sources = 1; /* of the answer, one behind the other */

/* Those of the daemon's channel arguments that change what happens on the wire or to a call; --arg adds and replaces.
 */
#define INTEGER_ARG(name, number)                                                                                      \
    {                                                                                                                  \
        .type = GRPC_ARG_INTEGER, .key = (char *)(name), .value.integer = (number)                                     \
    }
static grpc_arg args[ARGS_MAX] = {
    INTEGER_ARG(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE),
    INTEGER_ARG(GRPC_ARG_ALLOW_REUSEPORT, 0),
    INTEGER_ARG(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
    INTEGER_ARG(GRPC_ARG_ENABLE_CHANNELZ, 0),
    INTEGER_ARG(GRPC_ARG_HTTP2_BDP_PROBE, 0),
    INTEGER_ARG(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 64 << 10),
    INTEGER_ARG(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, 16 << 20),
};
static size_t arg_count = 5;

__attribute__((noreturn)) static void die(const char *what)
{
    fprintf(stderr, "bench_service_echo: %s\n", what);
    exit(2);
}

static struct slot *take_slot(struct queue *queue)
{
    if (sharing > 1)
        pthread_mutex_lock(&queue->lock);
    struct slot *slot = queue->free_slots;
    if (slot != NULL)
        queue->free_slots = slot->next_free;
    if (sharing > 1)
        pthread_mutex_unlock(&queue->lock);
    if (slot == NULL && (slot = calloc(1, sizeof *slot)) == NULL)
        die("out of memory");
    return slot;
}

static void post(struct queue *queue)
{
    struct slot *slot = take_slot(queue);
    slot->state = SLOT_POSTED;
    grpc_metadata_array_init(&slot->metadata);
    if (grpc_server_request_registered_call(server, method, &slot->call, &slot->deadline, &slot->metadata,
                                            &slot->request, queue->core, queue->core, slot) != GRPC_CALL_OK)
        die("a request can't be posted");
}

static void keep(void *bytes)
{
    (void)bytes;
}

static void answer_call(struct queue *queue, struct slot *slot)
{
    uint8_t *source = answer;
    if (sources > 1) /* several threads may take the same: no harm */
        source += __atomic_fetch_add(&queue->source, 1, __ATOMIC_RELAXED) % sources * answer_len;
    grpc_slice slice = refer ? grpc_slice_new_with_user_data(source, answer_len, keep, source)
                             : grpc_slice_from_copied_buffer((const char *)source, answer_len);
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    grpc_op ops[4] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                      {.op = GRPC_OP_SEND_MESSAGE},
                      {.op = GRPC_OP_SEND_STATUS_FROM_SERVER},
                      {.op = GRPC_OP_RECV_CLOSE_ON_SERVER}};
    ops[1].data.send_message.send_message = message;
    ops[3].data.recv_close_on_server.cancelled = &slot->cancelled;
    slot->state = SLOT_ANSWERING;
    if (grpc_call_start_batch(slot->call, ops, 4, slot, NULL) != GRPC_CALL_OK)
        die("a call can't be answered");
    grpc_byte_buffer_destroy(message);
}

static void give_back(struct queue *queue, struct slot *slot)
{
    grpc_metadata_array_destroy(&slot->metadata);
    if (slot->request != NULL)
        grpc_byte_buffer_destroy(slot->request);
    if (slot->call != NULL)
        grpc_call_unref(slot->call);
    slot->request = NULL;
    slot->call = NULL;
    if (sharing > 1)
        pthread_mutex_lock(&queue->lock);
    slot->next_free = queue->free_slots;
    queue->free_slots = slot;
    if (sharing > 1)
        pthread_mutex_unlock(&queue->lock);
}

static void *serve(void *argument)
{
    struct queue *queue = argument;
    for (;;) {
        grpc_event event = grpc_completion_queue_next(queue->core, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        struct slot *slot = event.tag;
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (slot->state == SLOT_POSTED && event.success) {
            post(queue);
            answer_call(queue, slot);
        } else {
            give_back(queue, slot);
        }
    }
}

static void start(void)
{
    grpc_channel_args all = {.num_args = arg_count, .args = args};
    server = grpc_server_create(&all, NULL);
    for (size_t i = 0; i < queue_count; i++) {
        queues[i].core = grpc_completion_queue_create_for_next(NULL);
        pthread_mutex_init(&queues[i].lock, NULL);
        grpc_server_register_completion_queue(server, queues[i].core, NULL);
    }
    method = grpc_server_register_method(server, path, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    int port = grpc_server_add_http2_port(server, listen_on, plain);
    grpc_server_credentials_release(plain);
    if (method == NULL || port == 0)
        die("can't listen");
    grpc_server_start(server);
    for (size_t i = 0; i < queue_count; i++) {
        for (size_t k = 0; k < posts; k++)
            post(&queues[i]);
        for (size_t k = 0; k < sharing; k++)
            if (pthread_create(&queues[i].threads[k], NULL, serve, &queues[i]) != 0)
                die("the system refuses a thread");
    }
    fprintf(stderr, "listening address=%.*s:%d\n", (int)(strrchr(listen_on, ':') - listen_on), listen_on, port);
}

static void stop(void)
{
    grpc_completion_queue *ended = grpc_completion_queue_create_for_next(NULL);
    grpc_server_shutdown_and_notify(server, ended, NULL);
    grpc_server_cancel_all_calls(server);
    grpc_completion_queue_next(ended, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    for (size_t i = 0; i < queue_count; i++) {
        grpc_completion_queue_shutdown(queues[i].core);
        for (size_t k = 0; k < sharing; k++)
            pthread_join(queues[i].threads[k], NULL);
        grpc_completion_queue_destroy(queues[i].core);
    }
    grpc_server_destroy(server);
}

/* NAME=NUMBER; the last of one name holds. */
static bool add_arg(char *text)
{
    char *number = strchr(text, '=');
    size_t at = 0;
    if (number == NULL)
        return false;
    *number++ = '\0';
    while (at < arg_count && strcmp(args[at].key, text) != 0)
        at++;
    if (at == ARGS_MAX)
        return false;
    args[at] = (grpc_arg)INTEGER_ARG(text, (int)strtol(number, NULL, 10));
    if (at == arg_count)
        arg_count++;
    return true;
}

static bool parse(int count, char **words)
{
    const struct {
        const char *name;
        const char **text;
        size_t *number;
    } options[] = {
        {"--listen", &listen_on, NULL}, {"--path", &path, NULL},   {"--threads", NULL, &queue_count},
        {"--sharing", NULL, &sharing},  {"--posts", NULL, &posts}, {"--bytes", NULL, &answer_len},
        {"--sources", NULL, &sources},
    };
    for (int i = 1; i < count; i++) {
        size_t at = 0;
        if (strcmp(words[i], "--refer") == 0) {
            refer = true;
            continue;
        }
        while (at < sizeof options / sizeof options[0] && strcmp(words[i], options[at].name) != 0)
            at++;
        char *value = ++i < count ? words[i] : NULL;
        if (value == NULL)
            return false;
        if (at == sizeof options / sizeof options[0]) {
            if (strcmp(words[i - 1], "--arg") != 0 || !add_arg(value))
                return false;
        } else if (options[at].text != NULL) {
            *options[at].text = value;
        } else {
            *options[at].number = strtoul(value, NULL, 10);
        }
    }
    return posts >= 1 && queue_count >= 1 && queue_count <= THREADS_MAX && sharing >= 1 && sharing <= THREADS_MAX &&
           answer_len <= BYTES_MAX && sources >= 1 && sources <= SOURCES_MAX && strrchr(listen_on, ':') != NULL;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fputs("usage: bench_service_echo [--listen HOST:PORT] [--path /SERVICE/METHOD] [--threads N] [--sharing N]\n"
              "                          [--posts N] [--bytes N] [--sources N] [--refer] [--arg NAME=NUMBER]...\n",
              stderr);
        return 64;
    }
    answer = malloc(sources * answer_len + 1);
    if (answer == NULL)
        die("out of memory");
    for (size_t i = 0; i < sources * answer_len; i++)
        answer[i] = (uint8_t)(i * 31 + (i >> 8));
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    grpc_init();
    start();
    while (sigwaitinfo(&ends, NULL) < 0 && errno == EINTR)
        ;
    stop();
    grpc_shutdown_blocking();
    free(answer);
    return 0;
}
