/* A refusal as clients get it: status, reason, and what to do, in the trailing metadata that gRPC libraries understand.
 */
#ifndef STATUS_H
#define STATUS_H

#include <grpc/grpc.h>

struct call;

#define STATUS_TEXT_MAX     256u
#define STATUS_METADATA_MAX 2u
#define STATUS_RETRY_MS     250 /* when to come back, where the status is UNAVAILABLE */

/**
 * Fill `out` with the trailing metadata of a call's status that is not OK: `grpc-status-details-bin` (ErrorInfo, domain
 * "rdrive", with what call_tell told), and for UNAVAILABLE RetryInfo in it and `grpc-retry-pushback-ms`.
 * Returns: how many; their values are to be unreferenced with status_metadata_fini.
 */
size_t status_metadata(const struct call *call, grpc_metadata out[STATUS_METADATA_MAX]);
void status_metadata_fini(grpc_metadata *metadata, size_t count);

#endif
