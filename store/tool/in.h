/** Input, by lines of any length or as a whole. */
#ifndef RDRIVE_TOOL_IN_H
#define RDRIVE_TOOL_IN_H

#include "buf.h"

/** A line may be this long: a value of IN_VALUE_MAX in base64, its key, and room for a few escapes. */
#define IN_LINE_MAX ((size_t)2 << 30)
/** The largest value that is read in, as `rdrived --max-value-bytes` has it by default. */
#define IN_VALUE_MAX ((size_t)1 << 30)

enum in_result {
    IN_OK,
    IN_END,      /* no line is left */
    IN_TOO_LONG, /* longer than its limit */
    IN_NO_MEMORY,
    IN_ERROR, /* `error` is the errno */
};

struct in {
    int fd;
    const char *name; /* for messages */
    int error;
    uint64_t total;   /* bytes of a regular file, 0 where unknown */
    uint64_t read;    /* bytes read so far */
    struct buf bytes; /* read, from `begin` not yet handed out, up to `scanned` known to hold no line end */
    size_t begin;
    size_t scanned;
    bool at_end;
};

/** Open `path`, or standard input for NULL and "-". Returns: false, and `in->error`; in_close is fine either way. */
RD_MUST_CHECK bool in_open(struct in *in, const char *path);
void in_close(struct in *in);

/** The next line without its '\n', valid until the next call. A last line needs no '\n'. */
RD_MUST_CHECK enum in_result in_line(struct in *in, rd_span *out_line);

/** The next bytes, as they come, valid until the next call. */
RD_MUST_CHECK enum in_result in_piece(struct in *in, rd_span *out_bytes);

/** All that is left, valid until in_close; IN_TOO_LONG beyond `max` bytes. */
RD_MUST_CHECK enum in_result in_all(struct in *in, size_t max, rd_span *out_bytes);

/** What `result`, which is neither IN_OK nor IN_END, says. Never NULL. */
const char *in_why(const struct in *in, enum in_result result);

#define AUTO_IN __attribute__((cleanup(in_close))) struct in

#endif
