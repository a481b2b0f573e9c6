/**
 * Output of which every byte is accounted for: the first error sticks, later calls do nothing, and out_finish tells it.
 * A reader that went away ends the process by SIGPIPE, quietly, as pipelines expect; with SIGPIPE ignored it is EPIPE
 * here.
 */
#ifndef RDRIVE_TOOL_OUT_H
#define RDRIVE_TOOL_OUT_H

#include "report.h"
#include <rdrive/store.h>

#define OUT_BUFFER_BYTES 65536

struct out {
    int fd;
    const char *name; /* for messages */
    int error;        /* errno of the first failure, or 0 */
    size_t len;
    uint8_t buffer[OUT_BUFFER_BYTES];
};

/** Write to `fd`, which stays the caller's until out_finish closes it. */
void out_init(struct out *out, int fd, const char *name);
void out_init_stdout(struct out *out);

void out_bytes(struct out *out, rd_span bytes);
/** A payload that may lie in a mapped file. Returns: false where its bytes vanished meanwhile; some may be written. */
RD_MUST_CHECK bool out_payload(struct out *out, rd_span payload);
void out_text(struct out *out, const char *text);
__attribute__((format(printf, 2, 3))) void out_print(struct out *out, const char *format, ...); /* up to 511 bytes */

/** `bytes` as a JSON string; what is not UTF-8 becomes U+FFFD, since JSON can't hold it. */
void out_json_string(struct out *out, rd_span bytes);

/** What is buffered, written; then the descriptor closed, since some file systems tell only then. Returns `status`, or
 *  STATUS_FAILED with a line on stderr if any of it failed. Once. */
RD_MUST_CHECK int out_finish(struct out *out, int status);

#endif
