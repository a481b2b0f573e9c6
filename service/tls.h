/**
 * The TLS listeners' certificate, key and client CA, and what becomes of their files: a thread looks at them each
 * second, through symlinks, so that neither a signal nor a restart is needed. What it finds good is what connections
 * are made with from then on; what it finds bad changes nothing but the log. Connections there are keep what they began
 * with.
 */
#ifndef TLS_H
#define TLS_H

#include "certificate.h"
#include "options.h"
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct tls;

/* What a listener was given last; the core asks for each of its own. */
struct tls_listener {
    struct tls *tls;
    uint64_t generation;
};

/* When a file was what, as far as the file system tells. */
struct tls_stamp {
    uint64_t device, inode, size, changed_ns;
};

struct tls {
    const char *paths[CERTIFICATE_FILES];
    pthread_t thread;
    bool running;
    struct tls_listener listeners[LISTEN_MAX];
    size_t listener_count;

    pthread_mutex_t lock; /* the core's accepting threads, the watching thread, the daemon's; guards: */
    pthread_cond_t wake;
    bool stopping;
    struct certificate current;
    uint64_t generation; /* of `current`; 0: none */

    /* of the watching thread: */
    struct tls_stamp seen[CERTIFICATE_FILES];
    bool unsettled;                 /* one had changed so lately that the next change might not show */
    char told[CERTIFICATE_WHY_MAX]; /* why the files are refused; empty: they aren't */
    int told_validity;

    /* for whoever wants to know: */
    atomic_uint_fast64_t reloads; /* taken, the first load apart */
    atomic_uint_fast64_t refusals;
    atomic_int_fast64_t not_after; /* of the certificate in force, in seconds since 1970; 0: no TLS */
};

/**
 * Load what `config` names and begin to watch it; nothing to do where it names no certificate. `tls` is zeroed, and
 * stays where it is until the core is gone. Returns: false where the files can't be used; the log says why.
 */
bool tls_start(struct tls *tls, const struct config *config);

/* Credentials for one more TCP listener, to be released; plain ones where there is no TLS. */
grpc_server_credentials *tls_credentials(struct tls *tls);

/* End the watch. After the core is shut down; zeroed or half-started is fine. */
void tls_stop(struct tls *tls);

#endif
