#include "method.h"
#include <grpc/support/alloc.h>

#define READER "/rdrive.v1.DataStoreReaderService/"
#define WRITER "/rdrive.v1.DataStoreWriterService/"
#define HEALTH "/grpc.health.v1.Health/"

/* Both versions have the same messages. A drain doesn't wait for what a person may have left open. */
#define REFLECTION_ROW(version)                                                                                        \
    {                                                                                                                  \
        .path = "/grpc.reflection." version ".ServerReflection/ServerReflectionInfo", .begin = reflection_begin,       \
        .resume = reflection_resume, .never_shed = true, .watches = true, .client_streams = true                       \
    }

/* A reader's method: begin asks the engine, resume answers. */
#define READ_ROW(name, begin_, resume_)                                                                                \
    {                                                                                                                  \
        .path = READER name, .begin = begin_, .resume = resume_, .needs_engine = true                                  \
    }

#define WRITE_ROW(name, begin_, resume_)                                                                               \
    {                                                                                                                  \
        .path = WRITER name, .begin = begin_, .resume = resume_, .needs_engine = true, .writes = true                  \
    }

const struct method methods[] = {
    READ_ROW("Exists", exists_begin, exists_resume),
    READ_ROW("ExistsWithKeyHash", exists_hash_begin, exists_resume),
    READ_ROW("Read", read_begin, read_resume),
    READ_ROW("ReadWithKeyHash", read_hash_begin, read_resume),
    READ_ROW("ReadLastEntry", read_last_begin, read_resume),
    READ_ROW("ReadMetadata", metadata_begin, metadata_resume),
    READ_ROW("Len", len_begin, len_resume),
    READ_ROW("IsEmpty", is_empty_begin, is_empty_resume),
    READ_ROW("FileSize", file_size_begin, file_size_resume),
    READ_ROW("ReadStream", read_stream_begin, read_stream_resume),
    READ_ROW("BatchRead", batch_read_begin, batch_read_resume),
    READ_ROW("BatchReadStream", batch_stream_begin, batch_stream_resume),
    READ_ROW("BatchReadHashedKeys", batch_hashed_begin, batch_stream_resume),
    {.path = READER "GetStoreInfo",
     .begin = store_info_begin,
     .resume = store_info_resume,
     .never_shed = true,
     .needs_engine = true},
    WRITE_ROW("Write", write_begin, write_resume),
    WRITE_ROW("WriteWithKeyHash", write_hash_begin, write_resume),
    WRITE_ROW("BatchWrite", batch_write_begin, batch_write_resume),
    WRITE_ROW("BatchWriteWithKeyHashes", batch_write_hash_begin, batch_write_resume),
    WRITE_ROW("Rename", rename_begin, write_resume),
    WRITE_ROW("Delete", delete_begin, delete_resume),
    WRITE_ROW("BatchDelete", batch_delete_begin, batch_delete_resume),
    WRITE_ROW("BatchDeleteKeyHashes", batch_delete_hash_begin, batch_delete_resume),
    WRITE_ROW("Compact", compact_begin, compact_resume),
    {.path = WRITER "WriteStream",
     .begin = write_stream_begin,
     .resume = write_stream_resume,
     .needs_engine = true,
     .writes = true,
     .client_streams = true},
    {.path = HEALTH "Check", .begin = health_check_begin, .never_shed = true},
    {.path = HEALTH "List", .begin = health_list_begin, .never_shed = true},
    {.path = HEALTH "Watch",
     .begin = health_watch_begin,
     .resume = health_watch_resume,
     .never_shed = true,
     .watches = true,
     .woken = true},
    REFLECTION_ROW("v1"),
    REFLECTION_ROW("v1alpha"),
};
const size_t method_count = sizeof(methods) / sizeof(methods[0]);
_Static_assert(sizeof(methods) / sizeof(methods[0]) <= METHOD_MAX, "the server keeps a handle of each");

enum step unknown_begin(struct call *call)
{
    char *path = grpc_slice_to_c_string(call->details.method);
    enum step step = call_refuse(call, REFUSE_METHOD, "no method '%.150s' here; the contract is proto/rdrive/v1", path);
    gpr_free(path);
    return step;
}

const struct method unknown_method = {.path = "unknown", .begin = unknown_begin, .never_shed = true};
