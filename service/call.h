/**
 * A call, from the moment the server can take it to the moment nothing of it is left.
 *
 * It belongs to one queue and that queue's one thread, so its fields need no lock. Three things reach it from
 * elsewhere, and all only post a tag to its queue: the engine's completion, the health service's wake and room for its
 * answer.
 *
 * call.c: its states and events. call_life.c: its storage. call_core.c: what is asked of gRPC's core for it.
 * call_method.c: what methods use.
 */
#ifndef CALL_H
#define CALL_H

#include "arena.h"
#include "decode.h"
#include "encode.h"
#include "refusal.h"
#include "reply.h"
#include "room.h"
#include "status.h"
#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>
#include <rdrive/engine.h>

struct method;
struct server;
struct queue;

enum call_state {
    CALL_POSTED,
    CALL_RUNNING,
    CALL_ASKING,
    CALL_SENDING,
    CALL_RECEIVING,
    CALL_QUEUED,
    CALL_YIELDING,
    CALL_WATCHING,
    CALL_FINISHING,
    CALL_DONE
};

/* What a method wants next. */
enum step {
    STEP_ASK,     /* submit `op`; go on when it has completed */
    STEP_NEXT,    /* bring `op`'s next window; go on then */
    STEP_SEND,    /* send `reply` as one message of a stream; go on when it is sent */
    STEP_ROOM,    /* wait for room for `wanted` bytes of an answer; go on then */
    STEP_RECEIVE, /* bring the client's next message into `request`, NULL where it has ended; go on then */
    STEP_YIELD,   /* let other calls of the queue have their turn; go on then */
    STEP_WATCH,   /* go on when woken */
    STEP_END,     /* send `reply`, if it holds a message, and status OK */
    STEP_FAIL,    /* send the status that call_refuse or call_fail has set */
};

/* Tags of the completion queue. Each is in flight at most once. */
enum call_op_kind { OP_REQUEST, OP_CLOSE, OP_SEND, OP_RECEIVE, OP_FINISH, OP_ENGINE, OP_ROOM, OP_WAKE, OP_COUNT };

struct call_op {
    struct call *call;
    enum call_op_kind kind;
};

/* A batch on its way out: which value is next, and how much of it has gone. */
struct batch_progress {
    struct key_decoder decoder;
    size_t next;       /* in op.values */
    uint64_t sent_len; /* of that value's payload, when it travels in fragments */
};

struct stream_progress {
    uint64_t offset; /* of the next byte to send */
    uint64_t end;
    bool begun;
};

/* A WriteStream. */
struct upload {
    bool begun;        /* the key is known */
    uint64_t data_len; /* of the messages so far */
};

/* A health watch; the list and `wake_posted` are guarded by the health service's lock. */
struct watch {
    struct call *next;
    struct call **link; /* what points at this one; NULL: not on the list */
    bool wake_posted;
    int service; /* place in its table, or -1 */
    int told;    /* the last status sent, or -1 */
};

/* A reflection stream: the files whose descriptors it was sent. */
struct reflection_progress {
    uint64_t sent_files;
};

#define CALL_DETAILS_MAX 4

/* Copied bytes of a unary answer that waits for no room. */
#define CALL_SMALL_ANSWER 65536u

/* A fact that a refusal tells machines, in ErrorInfo.metadata. */
struct call_detail {
    const char *name;
    char value[24];
};

struct call {
    struct queue *queue;
    const struct method *method;
    enum call_state state;
    enum step last;     /* the step that a resuming method comes from */
    unsigned in_flight; /* tags that will still come, OP_WAKE apart; a turn in the queue's list counts as one */
    struct call *next_free;
    struct call *next_turn;
    struct call *next_open;  /* of its queue's list */
    struct call **open_link; /* what points at this one; NULL: not on it */

    grpc_call *call;
    grpc_call_details details; /* of a call to no method of ours */
    grpc_metadata_array metadata;
    gpr_timespec deadline;
    grpc_byte_buffer *request; /* NULL: half close without a message */

    bool counted; /* among the server's open_calls[epoch] */
    unsigned epoch;
    bool close_posted; /* OP_CLOSE, or within OP_FINISH */
    bool sent_initial;
    bool finishing;  /* counted in its queue's `finishing` */
    bool has_status; /* `status` was sent, or is what the call was ended with */
    bool dead;       /* cancelled, out of time or connection lost: nothing we send arrives */
    int close_cancelled;

    int64_t begun_us; /* --slow-ms */
    int64_t since_ms; /* when it last sent or received something */
    uint64_t moved;   /* what its connection had moved when that was last looked at */
    unsigned silent;  /* halves of --stall-timeout in which next to nothing moved */
    size_t room;      /* bytes taken of the server's, */
    bool passed;      /* as a small answer */
    size_t kept;      /* bytes taken of its budget, for what the engine keeps of an upload */
    size_t wanted;    /* STEP_ROOM */
    uint64_t sent_bytes;
    uint64_t key_count; /* asked for, where that is more than one */
    struct room_place place;

    struct reply reply;
    grpc_status_code status;
    const char *reason;
    size_t detail_count;

    rd_engine *engine;
    bool op_open; /* submitted, not finished */
    atomic_int op_place;

    union {
        struct batch_progress batch;
        struct stream_progress stream;
        struct item_decoder items;
        struct upload upload;
        struct watch watch;
        struct reflection_progress reflection;
    } u;

    /* What follows is not cleared for a new call. */
    ProtobufCAllocator allocator; /* over the arena */
    struct call_op ops[OP_COUNT];
    rd_op op;
    rd_key key[2];      /* storage for one key, or two, */
    rd_value value;     /* one result, */
    rd_write_item item; /* and one item */
    char status_text[STATUS_TEXT_MAX];
    struct call_detail detail[CALL_DETAILS_MAX];
    struct arena arena;
};

/* ---- for the server ---- */

/* Make a call that waits for `method` (NULL: for a method nobody serves) on `queue`. NULL when out of memory. */
struct call *call_create(struct queue *queue, const struct method *method);

/* Handle a tag that came out of the call's queue. */
void call_event(struct call_op *op, bool success);

/* A call that yielded has its turn. */
void call_turn(struct call *call);

struct moves;

/* Now and then: end the call if its peer has neither taken nor sent anything for the server's --stall-timeout. `moves`
 * is this sweep's, and made where it is needed. */
void call_check_stall(struct call *call, struct moves *moves);

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

/* Add to a refusal what a machine may want to know of it. `name` is a literal. */
void call_tell(struct call *call, const char *name, uint64_t number);
void call_tell_text(struct call *call, const char *name, const char *text);

/**
 * Decode the request by protobuf-c into the call's arena.
 * Returns: the message, valid as long as the call; or NULL, with STEP_FAIL's status set.
 */
void *call_decode(struct call *call, const ProtobufCMessageDescriptor *descriptor);

/* Decode a request of many keys. Returns: false with STEP_FAIL's status set. */
bool call_begin_decoder(struct call *call, struct key_decoder *decoder, const struct key_fields *fields);

/**
 * Go on with it. Returns: true where the keys are there and the request is given back; else `*out_step` is what to do:
 * STEP_YIELD and call again, or STEP_FAIL.
 */
bool call_run_decoder(struct call *call, struct key_decoder *decoder, enum step *out_step);

/* More keys or items than --max-batch-keys. */
enum step call_refuse_batch(struct call *call, uint64_t count);

/* The request is no message of its method. */
enum step call_refuse_malformed(struct call *call);

/* The request's bytes in one piece, copied into the arena only where they came in several; NULL when out of memory. */
const uint8_t *call_request_bytes(struct call *call, size_t *out_len);

/* Where its answer's payloads come from, for encode.h. */
struct encode_source call_source(struct call *call);

/**
 * Before up to `bytes` are copied into the reply. Returns: true go ahead; false with STEP_ROOM to be returned first.
 */
bool call_has_room(struct call *call, uint64_t bytes);

/* Pack a message as the reply. */
void call_pack(struct call *call, const ProtobufCMessage *message);

/* Prepare `op` for one key, one value. */
void call_ask_one(struct call *call, uint64_t key_hash, bool no_payload);

/* Post the wake tag. Requires: the health service's lock, no wake posted, the call on its list. */
void call_wake(struct call *call);

/* Room was taken for it. Requires: the room's lock. */
void call_room(struct call *call);

/* ---- between call.c and call_life.c ---- */

/* A client has begun it: list it, and count it where the drain will look for it. */
void call_opened(struct call *call);

/* Give back the room that its message took, and the request. */
void call_give_room(struct call *call);
void call_drop_request(struct call *call);

/* Tell the log of its end, where that is worth a line (call_log.c). */
void call_log_end(const struct call *call);

/* Give back all it holds, and the call. Requires: it is done, and no tag of it will come. */
void call_free(struct call *call);

/* ---- between call.c and call_core.c ---- */

/* Give an operation to the core; its tag will come. */
void call_post_close(struct call *call);
void call_post_receive(struct call *call);

/* Returns: false where memory is out: the call is cancelled, and no tag comes. */
bool call_post_message(struct call *call);

/* The last message, if there is one, and the status. An answer given at once is this one batch and no other. */
void call_post_finish(struct call *call);

/* Have an empty batch's tag posted. Any thread. */
void call_post_tag(struct call *call, enum call_op_kind kind);

/* A bug of ours if it ever fires: nothing a client does chooses these. */
#define CALL_REQUIRE(call, condition)                                                                                  \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            call_bug((call), #condition);                                                                              \
    } while (0)
__attribute__((noreturn)) void call_bug(const struct call *call, const char *condition);

#endif
