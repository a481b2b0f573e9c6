/* Compact: its progress as a stream, while it runs. */
#include "method.h"
#include "server.h"
#include <rdrive/v1/writer.pb-c.h>

enum step compact_begin(struct call *call)
{
    if (call_decode(call, &rdrive__v1__compact_request__descriptor) == NULL)
        return STEP_FAIL;
    call->op = (rd_op){.kind = RD_OP_COMPACT};
    return STEP_ASK;
}

enum step compact_resume(struct call *call)
{
    if (call->last == STEP_SEND)
        return STEP_NEXT;
    const rd_engine_compacted *compacted = &call->op.compacted;
    Rdrive__V1__CompactResponse response;
    rdrive__v1__compact_response__init(&response);
    response.entries_done = compacted->entries_done;
    response.entries_total = compacted->entries_total;
    response.bytes_written = compacted->bytes_written;
    response.bytes_reclaimed = compacted->bytes_reclaimed;
    response.done = !call->op.more;
    call_pack(call, &response.base);
    return call->op.more ? STEP_SEND : STEP_END;
}
