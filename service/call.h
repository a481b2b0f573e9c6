/**
 * A call, from the moment the server can take it to the moment nothing of it is left.
 *
 * It belongs to one queue and that queue's one thread, so its fields need no lock. Two things reach it from elsewhere,
 * and both only post a tag to its queue: the engine's completion and the health service's wake.
 */
#ifndef CALL_H
#define CALL_H

#include "arena.h"
#include "refusal.h"
#include "reply.h"
#include "status.h"
#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>
#include <rdrive/engine.h>

struct method;
struct server;
struct queue;

enum call_state { CALL_POSTED, CALL_RUNNING, CALL_ASKING, CALL_SENDING, CALL_WATCHING, CALL_FINISHING, CALL_DONE };

/* What a method wants next. */
enum step {
    STEP_ASK,   /* submit `op`; go on when it has completed */
    STEP_NEXT,  /* bring `op`'s next window; go on then */
    STEP_SEND,  /* send `reply` as one message of a stream; go on when it is sent */
    STEP_WATCH, /* go on when woken */
    STEP_END,   /* send `reply`, if it holds a message, and status OK */
    STEP_FAIL,  /* send the status that call_refuse or call_fail has set */
};

/* Tags of the completion queue. Each is in flight at most once. */
enum call_op_kind { OP_REQUEST, OP_CLOSE, OP_SEND, OP_FINISH, OP_ENGINE, OP_WAKE, OP_COUNT };

struct call_op {
    struct call *call;
    enum call_op_kind kind;
};

/* A batch on its way out: which value is next, and how much of it has gone. */
struct batch_progress {
    bool omit_metadata;
    size_t next;       /* in op.values */
    uint64_t sent_len; /* of that value's payload, when it travels in fragments */
    uint64_t size;     /* of the unary answer so far */
};

struct stream_progress {
    uint64_t offset; /* of the next byte to send */
    uint64_t end;
    bool begun;
};

/* A health watch; the list and `wake_posted` are guarded by the health service's lock. */
struct watch {
    struct call *next;
    struct call **link; /* what points at this one; NULL: not on the list */
    bool wake_posted;
    int service; /* place in its table, or -1 */
    int told;    /* the last status sent, or -1 */
};

struct call {
    struct queue *queue;
    const struct method *method;
    enum call_state state;
    unsigned in_flight; /* tags that will still come, OP_WAKE apart */
    struct call *next_free;
    struct call *next_open;  /* of its queue's list */
    struct call **open_link; /* what points at this one; NULL: not on it */

    grpc_call *call;
    grpc_call_details details; /* of a call to no method of ours */
    grpc_metadata_array metadata;
    gpr_timespec deadline;
    grpc_byte_buffer *request; /* NULL: half close without a message */
    struct call_op ops[OP_COUNT];

    bool counted; /* among the server's open_calls[epoch] */
    unsigned epoch;
    bool close_posted; /* OP_CLOSE, or within OP_FINISH */
    bool sent_initial;
    bool dead; /* cancelled, out of time or connection lost: nothing we send arrives */
    int close_cancelled;

    struct arena arena;
    ProtobufCAllocator allocator; /* over the arena */
    struct reply reply;
    grpc_status_code status;
    const char *reason;
    char status_text[STATUS_TEXT_MAX];

    rd_engine *engine;
    rd_op op;
    bool op_open; /* submitted, not finished */
    atomic_int op_place;
    rd_key key;     /* storage for one key, */
    rd_value value; /* and one result */
    rd_key *keys;   /* of a batch, on the heap */

    union {
        struct batch_progress batch;
        struct stream_progress stream;
        struct watch watch;
    } u;
};

/* ---- for the server ---- */

/* Make a call that waits for `method` (NULL: for a method nobody serves) on `queue`. NULL when out of memory. */
struct call *call_create(struct queue *queue, const struct method *method);

/* Handle a tag that came out of the call's queue. */
void call_event(struct call_op *op, bool success);

/* End an open call with UNAVAILABLE: the server can't wait for it. */
void call_drop(struct call *call);

/* Give a call's memory back, from the pool of idle ones. */
void call_destroy(struct call *call);

/* ---- for methods ---- */

/* Set the status that STEP_FAIL sends, and return STEP_FAIL. `format` says what came, what is allowed and what to do.
 */
__attribute__((format(printf, 3, 4))) enum step call_refuse(struct call *call, enum refusal refusal, const char *format,
                                                            ...);
/* The same for an error of the engine. */
enum step call_fail(struct call *call, rd_err err);

/**
 * Decode the request by protobuf-c into the call's arena.
 * Returns: the message, valid as long as the call; or NULL, with STEP_FAIL's status set.
 */
void *call_decode(struct call *call, const ProtobufCMessageDescriptor *descriptor);

/* Pack a small message as the reply. */
void call_pack(struct call *call, const ProtobufCMessage *message);

/* Prepare `op` for one key, one value. */
void call_ask_one(struct call *call, uint64_t key_hash, bool no_payload);

/* Post the wake tag. Requires: the health service's lock, no wake posted, the call on its list. */
void call_wake(struct call *call);

#endif
