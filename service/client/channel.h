/**
 * A connection to one server, and calls on it that wait for their answers.
 *
 * Caveats first:
 * - One thread at a time uses a channel. What has many calls under way at once (lane.h) brings its own queue.
 * - Every wait ends: at the call's deadline, or once the connection is lost, which keepalive finds out of a peer that
 *   has fallen silent within half a minute.
 * - The core's own log is silenced: a call's outcome says what there is to say.
 */
#ifndef CLIENT_CHANNEL_H
#define CLIENT_CHANNEL_H

#include "outcome.h"
#include <protobuf-c/protobuf-c.h>

/* The largest message that is taken from a server. */
#define CHANNEL_MESSAGE_MAX (256 << 20)

struct channel {
    grpc_channel *channel;
    grpc_completion_queue *queue;
    int64_t timeout_ms; /* of each call; 0: none */
};

/* How to reach a server. */
struct channel_to {
    const char *address; /* host:port or unix:/path */
    bool tls;
    const char *ca;         /* PEM file of the roots that its certificate must lead to; NULL: the system's */
    const char *cert, *key; /* PEM files of what we show it; NULL: nothing. Both or neither */
    int64_t timeout_ms;
};

/* Returns: false where `address` is neither host:port nor unix:/path. */
bool channel_address_is_valid(const char *address);

/**
 * Make a channel; it connects at its first call.
 * Returns: false, with a line in `why`: a file can't be read, or holds nothing of use.
 */
bool channel_open(struct channel *channel, const struct channel_to *to, char *why, size_t why_size);

/* Close it. A zeroed channel is fine. */
void channel_close(struct channel *channel);

/* The moment `ms` from now; 0: never. */
gpr_timespec channel_deadline(int64_t ms);

/* One call: the bytes of an answer, and those of a request. `method` is a literal, "/package.Service/Method". */
grpc_call *channel_call(const struct channel *channel, grpc_completion_queue *queue, const char *method,
                        gpr_timespec deadline);

/* `message` packed. NULL when out of memory. */
grpc_byte_buffer *message_pack(const ProtobufCMessage *message);

/* All bytes of `buffer` in one slice, which is the caller's. `buffer` is destroyed. Returns: false out of memory. */
bool message_join(grpc_byte_buffer *buffer, grpc_slice *out_slice);

/**
 * Unpack a message from `buffer`, which is destroyed. NULL: it is none, or there is no memory; free it by
 * protobuf_c_message_free_unpacked.
 */
ProtobufCMessage *message_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *descriptor);

/**
 * Ask `request` of a unary method and wait for the answer. `timeout_ms` 0: the channel's.
 * Returns: the answer, to be freed by protobuf_c_message_free_unpacked, and `out_outcome->status` is OK; else NULL.
 */
ProtobufCMessage *channel_unary(struct channel *channel, const char *method, const ProtobufCMessage *request,
                                const ProtobufCMessageDescriptor *answer, int64_t timeout_ms,
                                struct outcome *out_outcome);

/* A call of several messages, in either direction. */
struct stream {
    struct channel *channel;
    grpc_call *call;
    bool begun;  /* the server's side of it was looked at */
    bool broken; /* no message can be sent any more: stream_end tells why */
    grpc_metadata_array initial;
};

/* Begin a call. Never fails: what is wrong is told by stream_end. */
void stream_begin(struct stream *stream, struct channel *channel, const char *method);

/* Send a message and wait until there is room for the next. Returns: false if the call has ended. */
bool stream_send(struct stream *stream, const ProtobufCMessage *message);

/* Say that no message follows. */
void stream_send_end(struct stream *stream);

/* Wait for a message, which is the caller's. Returns: NULL if none follows. */
grpc_byte_buffer *stream_receive(struct stream *stream);

/* End it: at once where `cancel`, else once the server has ended it. Once for each stream_begin. */
void stream_end(struct stream *stream, bool cancel, struct outcome *out_outcome);

#endif
