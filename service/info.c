/* Figures of the store: Len, IsEmpty, FileSize, GetStoreInfo. */
#include "method.h"
#include "server.h"
#include <rdrive/upkeep.h>
#include <rdrive/v1/reader.pb-c.h>

static enum step ask_info(struct call *call, const ProtobufCMessageDescriptor *descriptor)
{
    if (call_decode(call, descriptor) == NULL)
        return STEP_FAIL;
    call->op = (rd_op){.kind = RD_OP_INFO};
    return STEP_ASK;
}

enum step len_begin(struct call *call)
{
    return ask_info(call, &rdrive__v1__len_request__descriptor);
}

enum step len_resume(struct call *call)
{
    Rdrive__V1__LenResponse response;
    rdrive__v1__len_response__init(&response);
    response.len = call->op.info.live_keys;
    call_pack(call, &response.base);
    return STEP_END;
}

enum step is_empty_begin(struct call *call)
{
    return ask_info(call, &rdrive__v1__is_empty_request__descriptor);
}

enum step is_empty_resume(struct call *call)
{
    Rdrive__V1__IsEmptyResponse response;
    rdrive__v1__is_empty_response__init(&response);
    response.is_empty = call->op.info.live_keys == 0;
    call_pack(call, &response.base);
    return STEP_END;
}

enum step file_size_begin(struct call *call)
{
    return ask_info(call, &rdrive__v1__file_size_request__descriptor);
}

enum step file_size_resume(struct call *call)
{
    Rdrive__V1__FileSizeResponse response;
    rdrive__v1__file_size_response__init(&response);
    response.file_size = call->op.info.file_size;
    call_pack(call, &response.base);
    return STEP_END;
}

enum step store_info_begin(struct call *call)
{
    return ask_info(call, &rdrive__v1__get_store_info_request__descriptor);
}

/* The damaged ranges as the answer has them. They lie on the stack: GetStoreInfo is answered also where calls have
 * taken all of --max-memory. */
struct ranges {
    Rdrive__V1__DamagedRange *pointers[RD_DAMAGE_LISTED_MAX];
    Rdrive__V1__DamagedRange ranges[RD_DAMAGE_LISTED_MAX];
};

static void put_ranges(const rd_engine_info *info, struct ranges *ranges, Rdrive__V1__GetStoreInfoResponse *response)
{
    size_t count = info->damaged_range_count < RD_DAMAGE_LISTED_MAX ? info->damaged_range_count : RD_DAMAGE_LISTED_MAX;
    for (size_t i = 0; i < count; i++) {
        Rdrive__V1__DamagedRange *range = &ranges->ranges[i];
        rdrive__v1__damaged_range__init(range);
        range->offset = info->damaged_ranges[i].offset;
        range->size = info->damaged_ranges[i].size;
        range->what = (char *)(uintptr_t)info->damaged_ranges[i].what;
        ranges->pointers[i] = range;
    }
    response->n_damaged_ranges = count;
    response->damaged_ranges = ranges->pointers;
}

enum step store_info_resume(struct call *call)
{
    const rd_engine_info *info = &call->op.info;
    const struct config *config = call->queue->server->config;
    Rdrive__V1__Limits limits;
    rdrive__v1__limits__init(&limits);
    limits.max_batch_keys = config->max_batch_keys;
    limits.max_request_bytes = config->max_request_bytes;
    limits.max_response_bytes = config->max_response_bytes;
    limits.chunk_bytes = config->chunk_bytes;
    Rdrive__V1__GetStoreInfoResponse response;
    rdrive__v1__get_store_info_response__init(&response);
    response.live_keys = info->live_keys;
    response.entries = info->entries;
    response.tail_offset = info->tail_off;
    response.file_size = info->file_size;
    response.generation = info->generation;
    response.damaged_entries = info->damaged_entries;
    response.writable = info->writable;
    response.atomic_batches = info->atomic_batches;
    response.limits = &limits;
    response.server_version = (char *)(uintptr_t)RDRIVE_VERSION;
    response.engine = (char *)(uintptr_t)info->engine;
    struct ranges ranges;
    put_ranges(info, &ranges, &response);
    call_pack(call, &response.base);
    return STEP_END;
}
