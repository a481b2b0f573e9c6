/* What the service itself refuses: the one list of its status codes and reasons. The engine's are in <rdrive/error.h>.
 */
#ifndef REFUSAL_H
#define REFUSAL_H

#include <grpc/status.h>

/* X(name, status, reason) */
#define REFUSALS(X)                                                                                                    \
    X(REFUSE_LENGTHS, GRPC_STATUS_INVALID_ARGUMENT, "LENGTH_MISMATCH")                                                 \
    X(REFUSE_BATCH, GRPC_STATUS_INVALID_ARGUMENT, "BATCH_TOO_LARGE")                                                   \
    X(REFUSE_SELECTOR, GRPC_STATUS_INVALID_ARGUMENT, "NO_SELECTOR")                                                    \
    X(REFUSE_PAYLOAD, GRPC_STATUS_INVALID_ARGUMENT, "PAYLOAD_REFUSED")                                                 \
    X(REFUSE_MALFORMED, GRPC_STATUS_INVALID_ARGUMENT, "MALFORMED")                                                     \
    X(REFUSE_OFFSET, GRPC_STATUS_OUT_OF_RANGE, "OFFSET")                                                               \
    X(REFUSE_RESPONSE, GRPC_STATUS_RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE")                                           \
    X(REFUSE_STALLED, GRPC_STATUS_RESOURCE_EXHAUSTED, "STALLED")                                                       \
    X(REFUSE_NO_KEY, GRPC_STATUS_NOT_FOUND, "NO_SUCH_KEY")                                                             \
    X(REFUSE_NOT_READY, GRPC_STATUS_UNAVAILABLE, "NOT_READY")                                                          \
    X(REFUSE_DRAINING, GRPC_STATUS_UNAVAILABLE, "DRAINING")                                                            \
    X(REFUSE_OVERLOADED, GRPC_STATUS_UNAVAILABLE, "OVERLOADED")                                                        \
    X(REFUSE_READ_ONLY_SERVER, GRPC_STATUS_PERMISSION_DENIED, "READ_ONLY_SERVER")                                      \
    X(REFUSE_NOT_ALLOWED, GRPC_STATUS_PERMISSION_DENIED, "NOT_ALLOWED")                                                \
    X(REFUSE_NO_IDENTITY, GRPC_STATUS_UNAUTHENTICATED, "NO_IDENTITY")                                                  \
    X(REFUSE_METHOD, GRPC_STATUS_UNIMPLEMENTED, "UNKNOWN_METHOD")                                                      \
    X(REFUSE_SERVICE, GRPC_STATUS_NOT_FOUND, "UNKNOWN_SERVICE")

#define REFUSAL_ENUM(name, status, reason) name,
enum refusal { REFUSALS(REFUSAL_ENUM) REFUSAL_COUNT };
#undef REFUSAL_ENUM

#endif
