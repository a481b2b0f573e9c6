/** What the tool says on stderr, and the exit statuses, which scripts depend on. */
#ifndef RDRIVE_TOOL_REPORT_H
#define RDRIVE_TOOL_REPORT_H

enum tool_status {
    STATUS_DONE = 0,
    STATUS_ABSENT = 1, /* the key has no value */
    STATUS_FAILED = 2, /* damage, refused data, I/O errors */
    STATUS_USAGE = 64, /* EX_USAGE: the command line is at fault */
};

/** Print one line, "rdrive: " before it, control characters made harmless. Returns `status`, for `return report(…)`. */
__attribute__((format(printf, 2, 3))) int report(enum tool_status status, const char *format, ...);

#endif
