/* What the log tells of a call that has ended: that it failed for a reason of the server's, and, with --slow-ms, that
 * it took long. Never its keys. */
#include "method.h"
#include "server.h"
#include <grpc/support/alloc.h>
#include <string.h>

/* The reasons that are somebody's to look after, each at most one line a second. */
static struct {
    const char *reason;
    enum log_level level;
    struct log_limit limit;
} told[] = {
    {.reason = "IO", .level = LOG_ERROR},        {.reason = "NO_SPACE", .level = LOG_ERROR},
    {.reason = "READ_ONLY", .level = LOG_ERROR}, {.reason = "TRUNCATED", .level = LOG_ERROR},
    {.reason = "DAMAGED", .level = LOG_WARN},    {.reason = "OVERLOADED", .level = LOG_WARN},
    {.reason = "STALLED", .level = LOG_WARN},
};

static void tell_failure(const struct call *call)
{
    int64_t untold;
    for (size_t i = 0; call->reason != NULL && i < sizeof(told) / sizeof(told[0]); i++)
        if (strcmp(told[i].reason, call->reason) == 0 && log_due(&told[i].limit, &untold))
            LOG(told[i].level, "call failed", LOG_TEXT("reason", call->reason), LOG_TEXT("method", call->method->path),
                LOG_TEXT("what", call->status_text), LOG_NUMBER("others_before", untold));
}

/* Of a call that was given no status: what its client makes of it. */
static grpc_status_code code_without_status(const struct call *call)
{
    bool timely = gpr_time_cmp(gpr_now(call->deadline.clock_type), call->deadline) < 0;
    return timely ? GRPC_STATUS_CANCELLED : GRPC_STATUS_DEADLINE_EXCEEDED;
}

static void tell_slow(const struct call *call)
{
    int64_t us = server_now_us() - call->begun_us;
    if (us / 1000 < (int64_t)call->queue->server->config->slow_ms)
        return;
    char *peer = grpc_call_get_peer(call->call);
    LOG(LOG_WARN, "slow call", LOG_TEXT("method", call->method->path), LOG_NUMBER("ms", us / 1000),
        LOG_NUMBER("code", call->has_status ? call->status : code_without_status(call)),
        LOG_NUMBER("keys", call->key_count), LOG_NUMBER("bytes", call->sent_bytes), LOG_TEXT("peer", peer));
    gpr_free(peer);
}

void call_log_end(const struct call *call)
{
    if (call->status != GRPC_STATUS_OK)
        tell_failure(call);
    if (call->begun_us > 0 && !call->method->watches)
        tell_slow(call);
}
