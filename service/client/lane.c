/*
 * Many calls under way at once, from one thread, over a connection of its own: the core keeps a connection with one of
 * its server's threads, so several lanes reach several.
 *
 * A call, Read of one key or BatchReadHashedKeys of more:
 *
 *     FREE ── ask ──► UNARY ──────────────────────────────► TAKEN ── give ──► FREE
 *       └──── ask ──► MESSAGES ──► STATUS ──────────────────►┘
 *                     └──┘ while messages come
 */
#include "answers.h"
#include "remote.h"
#include <stdlib.h>
#include <string.h>

enum place_state { PLACE_FREE, PLACE_UNARY, PLACE_MESSAGES, PLACE_STATUS, PLACE_TAKEN };

/* A call's tag is its place. */
struct place {
    enum place_state state;
    grpc_call *call;
    grpc_byte_buffer *sent, *received;
    grpc_metadata_array initial, trailing;
    grpc_status_code status;
    grpc_slice details;
    struct answers items;
    const char *wrong; /* with the answer; NULL: nothing so far */
};

struct tool_lane {
    struct remote_store *store;
    struct channel channel;
    grpc_completion_queue *queue;
    size_t place_count;
    struct place places[];
};

static void start(struct place *place, const grpc_op *ops, size_t count)
{
    if (grpc_call_start_batch(place->call, ops, count, place, NULL) != GRPC_CALL_OK)
        abort(); /* the ops above are right, or we are wrong */
}

/* ---- open and close ---- */

rd_err remote_lane_open(struct tool_store *base, size_t places, struct tool_lane **out_lane)
{
    struct remote_store *store = remote_of(base);
    struct tool_lane *lane = calloc(1, sizeof(*lane) + places * sizeof(struct place));
    if (lane == NULL)
        return RD_E_NOMEM;
    lane->store = store;
    lane->place_count = places;
    if (!channel_open(&lane->channel, &store->to, store->why, sizeof(store->why))) {
        free(lane);
        return RD_E_IO;
    }
    lane->queue = grpc_completion_queue_create_for_next(NULL);
    /* the connection is made now, so that no call's time has it in it */
    struct outcome outcome;
    Rdrive__V1__IsEmptyRequest request;
    rdrive__v1__is_empty_request__init(&request);
    void *answer = channel_unary(&lane->channel, READER("IsEmpty"), &request.base,
                                 &rdrive__v1__is_empty_response__descriptor, 0, &outcome);
    if (answer == NULL) {
        store->outcome = outcome;
        remote_lane_close(lane);
        return remote_note(store);
    }
    remote_free(answer);
    *out_lane = lane;
    return RD_OK;
}

/* What a call is made of, given back. */
static void place_clear(struct place *place)
{
    if (place->call == NULL)
        return;
    grpc_byte_buffer_destroy(place->sent);
    grpc_byte_buffer_destroy(place->received);
    grpc_metadata_array_destroy(&place->initial);
    grpc_metadata_array_destroy(&place->trailing);
    grpc_slice_unref(place->details);
    grpc_call_unref(place->call);
    place->sent = place->received = NULL;
    place->call = NULL;
}

void remote_lane_close(struct tool_lane *lane)
{
    grpc_completion_queue_shutdown(lane->queue);
    grpc_completion_queue_destroy(lane->queue);
    channel_close(&lane->channel);
    free(lane);
}

/* ---- asking ---- */

static grpc_op receive_status(struct place *place)
{
    return (grpc_op){.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                     .data.recv_status_on_client = {.trailing_metadata = &place->trailing,
                                                    .status = &place->status,
                                                    .status_details = &place->details}};
}

static void place_begin(struct tool_lane *lane, struct place *place, const char *method,
                        const ProtobufCMessage *request, enum place_state state)
{
    place->call = channel_call(&lane->channel, lane->queue, method, channel_deadline(lane->store->channel.timeout_ms));
    place->sent = message_pack(request);
    place->received = NULL;
    place->status = GRPC_STATUS_UNKNOWN;
    place->details = grpc_empty_slice();
    place->wrong = NULL;
    place->state = state;
    grpc_metadata_array_init(&place->initial);
    grpc_metadata_array_init(&place->trailing);
    const grpc_op ops[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = place->sent},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &place->initial},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &place->received},
        receive_status(place),
    };
    size_t count = sizeof(ops) / sizeof(ops[0]);
    start(place, ops, state == PLACE_UNARY ? count : count - 1);
}

void remote_lane_ask(struct tool_lane *lane, size_t at, const uint64_t *key_hashes, size_t count, rd_batch_item *items)
{
    struct place *place = &lane->places[at];
    place->items = (struct answers){.items = items, .count = count};
    if (count == 1) {
        Rdrive__V1__ReadWithKeyHashRequest request;
        rdrive__v1__read_with_key_hash_request__init(&request);
        request.key_hash = key_hashes[0];
        place_begin(lane, place, READER("ReadWithKeyHash"), &request.base, PLACE_UNARY);
        return;
    }
    Rdrive__V1__BatchReadHashedKeysRequest request;
    rdrive__v1__batch_read_hashed_keys_request__init(&request);
    request.n_key_hashes = count;
    request.key_hashes = (uint64_t *)(uintptr_t)key_hashes;
    place_begin(lane, place, READER("BatchReadHashedKeys"), &request.base, PLACE_MESSAGES);
}

/* ---- answers ---- */

/* Decode the message that came, unless something is wrong already. */
static void place_decode(struct place *place)
{
    grpc_byte_buffer *buffer = place->received;
    place->received = NULL;
    const struct answers_piece *message = answers_hold(&place->items, buffer);
    if (message == NULL)
        place->wrong = "there is no memory for a message";
    else
        place->wrong = place->state == PLACE_UNARY ? answers_take_entry(&place->items, message)
                                                   : answers_take(&place->items, message);
}

/* Go on after a completion. Returns: whether the call has ended. */
static bool place_step(struct place *place)
{
    bool message = place->received != NULL;
    if (message && place->wrong == NULL)
        place_decode(place);
    if (place->state == PLACE_UNARY || place->state == PLACE_STATUS)
        return true;
    if (message && place->wrong == NULL) {
        const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &place->received};
        start(place, &op, 1);
        return false;
    }
    if (place->wrong != NULL)
        (void)grpc_call_cancel(place->call, NULL);
    place->state = PLACE_STATUS;
    const grpc_op op = receive_status(place);
    start(place, &op, 1);
    return false;
}

/* An error of one key, which Read ends with; RD_OK: it is one of the call. */
static rd_err error_of_key(const struct outcome *outcome, rd_err err)
{
    if (strcmp(outcome->reason, "RESPONSE_TOO_LARGE") == 0)
        return RD_E_TOO_LARGE;
    return err == RD_E_DAMAGED || err == RD_E_TRUNCATED ? err : RD_OK;
}

/* Tell what ended a call, unless another lane was first. Returns: its error. */
static rd_err note(struct remote_store *store, const struct outcome *outcome)
{
    if (!atomic_flag_test_and_set(&store->lane_failed)) {
        store->outcome = *outcome;
        (void)remote_note(store);
    }
    rd_err err = outcome_error(outcome);
    return err == RD_E_NOMEM ? RD_E_UNAVAILABLE : err; /* the server has no memory, not we */
}

/* How the call ended. */
static rd_err place_result(struct tool_lane *lane, struct place *place)
{
    struct outcome outcome;
    outcome_take(&outcome, place->status, place->details, &place->trailing);
    const char *wrong = place->wrong;
    if (wrong == NULL && outcome.status == GRPC_STATUS_OK)
        wrong = answers_end(&place->items);
    if (wrong != NULL) {
        outcome_set(&outcome, GRPC_STATUS_DATA_LOSS, "the server's answer: %s", wrong);
        return note(lane->store, &outcome);
    }
    rd_err err = outcome_error(&outcome);
    if (err == RD_OK)
        return RD_OK;
    rd_err of_key = place->items.count == 1 ? error_of_key(&outcome, err) : RD_OK;
    if (of_key == RD_OK)
        return note(lane->store, &outcome);
    place->items.items[0] = (rd_batch_item){.err = of_key};
    return RD_OK;
}

rd_err remote_lane_take(struct tool_lane *lane, size_t *out_place)
{
    for (;;) {
        grpc_event event = grpc_completion_queue_next(lane->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        struct place *place = event.tag;
        if (!place_step(place))
            continue;
        rd_err err = place_result(lane, place);
        place_clear(place);
        place->state = PLACE_TAKEN;
        *out_place = (size_t)(place - lane->places);
        return err;
    }
}

void remote_lane_give(struct tool_lane *lane, size_t at)
{
    answers_fini(&lane->places[at].items);
    lane->places[at].state = PLACE_FREE;
}
