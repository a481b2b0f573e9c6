/* One line an event on standard error, as logfmt or JSON. Any thread. No keys, no payloads. */
#ifndef LOG_H
#define LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_LOGFMT, LOG_JSON };

struct log_field {
    const char *name; /* NULL ends a list */
    const char *text; /* NULL: `number` */
    int64_t number;
};
#define LOG_TEXT(field, value)   ((struct log_field){.name = (field), .text = (value)})
#define LOG_NUMBER(field, value) ((struct log_field){.name = (field), .number = (int64_t)(value)})

/* Before other threads start. */
void log_configure(enum log_level level, enum log_format format);

/* Hand gRPC's own log lines to ours. Before grpc_init. */
void log_adopt_core(void);

/* From now on the core's lines are for debugging only: what it reports while it is torn down is no error. Any thread.
 */
void log_quieten_core(void);

/* `fields` ends with an empty one. */
void log_event(enum log_level level, const char *event, const struct log_field *fields);

/* For what others can make happen as often as they like: at most a line a second. Zeroed storage is ready. Any thread.
 */
struct log_limit {
    atomic_int_fast64_t told_s; /* when, by a clock that doesn't stand at 0 */
    atomic_int_fast64_t untold;
};

/* Whether it may be told now. `*out_untold`: how often it wasn't, since it last was. */
bool log_due(struct log_limit *limit, int64_t *out_untold);

/* LOG(LOG_INFO, "listening", LOG_TEXT("address", text), LOG_NUMBER("port", port)) */
#define LOG(level, event, ...) log_event((level), (event), (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}})

#endif
