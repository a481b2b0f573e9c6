/* What the daemon can be told, from one table: the command line, the environment, --help and the error messages. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "log.h"
#include <rdrive/store.h>
#include <stdio.h>

#define TEXTS_MAX  16 /* values that a repeatable option takes */
#define LISTEN_MAX TEXTS_MAX

struct texts {
    const char *at[TEXTS_MAX];
    size_t count;
};

/* When a write is durable. */
struct sync_mode {
    rd_sync mode;
    uint32_t interval_ms;
};

struct config {
    const char *store_path;
    struct texts listen;
    bool writable;
    bool create;
    struct sync_mode sync;
    int verify;        /* rd_verify */
    const char *index; /* as rd_open_options.index */
    uint64_t scrub_rate;
    uint64_t max_value_bytes;
    uint64_t threads;
    uint64_t max_batch_keys;
    uint64_t max_request_bytes;
    uint64_t max_response_bytes;
    uint64_t chunk_bytes;
    uint64_t max_inflight;
    uint64_t max_memory;
    uint64_t max_queued_bytes;
    uint64_t stall_timeout_s;
    uint64_t max_connection_age_s;
    uint64_t drain_delay_s;
    uint64_t drain_grace_s;
    uint64_t unix_mode;
    const char *tls_cert; /* NULL: no TLS */
    const char *tls_key;
    const char *tls_client_ca;
    struct texts allow_writer;
    int log_format; /* enum log_format */
    int log_level;  /* enum log_level */
    uint64_t slow_ms;
    bool probe;                /* be a client instead of a server */
    const char *probe_address; /* NULL: the first that is listened on */
};

enum options_result {
    OPTIONS_RUN, /* or probe, where the configuration says so: `*out_config` is filled; its strings live as long as argv
                    and the environment */
    OPTIONS_DONE,  /* --help or --version was answered on `out` */
    OPTIONS_WRONG, /* one line on `err` says what came and what is allowed */
};

/**
 * Read `argv` and `environment` (RDRIVED_<OPTION>; the command line wins). Unknown RDRIVED_ variables are one warning
 * on `err`; those that Kubernetes injects for a Service of that name are passed over.
 */
enum options_result options_parse(int argc, char **argv, char **environment, FILE *out, FILE *err,
                                  struct config *out_config);

#endif
