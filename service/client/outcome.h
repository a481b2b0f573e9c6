/* How a call ended: its status, and what the server says of it in `grpc-status-details-bin`. */
#ifndef CLIENT_OUTCOME_H
#define CLIENT_OUTCOME_H

#include <grpc/grpc.h>
#include <rdrive/store.h>

struct outcome {
    grpc_status_code status;
    bool refused;    /* the server itself says so, by a reason: the call did nothing else */
    char reason[48]; /* of ErrorInfo in the domain "rdrive"; empty without one */
    char text[512];  /* the status's message, whole words of its server */
};

/* Take `status` and `details` as the core gives them; `trailing` may hold the reason. */
void outcome_take(struct outcome *outcome, grpc_status_code status, grpc_slice details,
                  const grpc_metadata_array *trailing);

/* An outcome of our own: an answer that is none. */
__attribute__((format(printf, 3, 4))) void outcome_set(struct outcome *outcome, grpc_status_code status,
                                                       const char *format, ...);

/* As <rdrive/error.h> has it: by reason and words, else by the status alone. */
rd_err outcome_error(const struct outcome *outcome);

/* Put a line for people into `text`: the server's own words, with the status's name where they have no reason. */
void outcome_text(const struct outcome *outcome, char *text, size_t size);

#endif
