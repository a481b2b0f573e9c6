/* WriteStream: one value that arrives in messages, and is written once the client has ended well. */
#include "method.h"
#include "server.h"
#include <rdrive/v1/writer.pb-c.h>

enum step write_stream_begin(struct call *call)
{
    (void)call;
    return STEP_RECEIVE;
}

/* Count what the engine gathers in memory among the calls' own. Returns: false where that is too much. */
static bool keep(struct call *call)
{
    uint64_t len = call->u.upload.data_len;
    size_t more = (len < RD_STREAM_MEMORY ? (size_t)len : RD_STREAM_MEMORY) - call->kept;
    if (!budget_take(&call->queue->server->budget, more)) {
        call->arena.refused = true;
        return false;
    }
    call->kept += more;
    return true;
}

/* The pieces lie in `request`, which stays until the engine has taken them. */
static enum step take_message(struct call *call)
{
    struct upload *upload = &call->u.upload;
    struct upload_message message;
    switch (decode_upload(call->request, &call->arena, &message)) {
    case DECODE_OK: break;
    case DECODE_NOMEM: return call_fail(call, RD_E_NOMEM);
    case DECODE_MORE:
    case DECODE_TOO_MANY:
    case DECODE_LENGTHS:
    case DECODE_PAYLOAD:
    case DECODE_MALFORMED: return call_refuse_malformed(call);
    }
    if (!upload->begun && message.selector == UPLOAD_NONE)
        return call_refuse(call, REFUSE_SELECTOR,
                           "neither key nor key_hash is set in the first message; set one of them");
    if (upload->begun && message.selector != UPLOAD_NONE)
        return call_refuse(call, REFUSE_SELECTOR,
                           "key or key_hash is set in a message after the first; set it in the first only");
    upload->data_len += message.data_len;
    if (!keep(call))
        return call_fail(call, RD_E_NOMEM);
    call->op.pieces = message.pieces;
    call->op.piece_count = message.piece_count;
    if (upload->begun)
        return STEP_NEXT;
    upload->begun = true;
    call->key[0] = (rd_key){.hash = message.key_hash};
    call->op = (rd_op){.kind = RD_OP_STREAM,
                       .keys = call->key,
                       .key_count = 1,
                       .pieces = message.pieces,
                       .piece_count = message.piece_count};
    call->key_count = 1;
    return STEP_ASK;
}

static enum step commit(struct call *call)
{
    if (!call->u.upload.begun)
        return call_refuse(call, REFUSE_SELECTOR, "no message came; the first one sets key or key_hash");
    call->op.pieces = NULL;
    call->op.piece_count = 0;
    call->op.last = true;
    return STEP_NEXT;
}

static enum step answer(struct call *call)
{
    Rdrive__V1__Commit commit;
    rdrive__v1__commit__init(&commit);
    commit.tail_offset = call->op.written.tail_off;
    commit.durable = call->op.written.durable;
    Rdrive__V1__WriteStreamResponse response;
    rdrive__v1__write_stream_response__init(&response);
    response.commit = &commit;
    response.payload_size = call->op.streamed.size;
    response.checksum = call->op.streamed.checksum;
    call_pack(call, &response.base);
    return STEP_END;
}

enum step write_stream_resume(struct call *call)
{
    if (call->last == STEP_RECEIVE)
        return call->request != NULL ? take_message(call) : commit(call);
    arena_fini(&call->arena); /* the message's pieces */
    return call->op.more ? STEP_RECEIVE : answer(call);
}
