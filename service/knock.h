/**
 * The watchdog of the listeners: a thread that connects to each as a client would, and expects a server's first words.
 *
 * The core may give a listener up without a word, a socket's file may be removed or taken over, the queues' threads may
 * hang: all of it is a knock without an answer. A plain listener answers with its SETTINGS, which come unasked; one
 * with TLS with a record of any kind, after a ClientHello. A connection that accept.c refused for want of descriptors
 * is an answer too: who is turned away at the door has been heard.
 */
#ifndef KNOCK_H
#define KNOCK_H

#include "server.h"

#define KNOCK_MISSES      2 /* in a row, then the listener counts as dead */
#define KNOCK_HELLO_MAX   2048
#define KNOCK_NAME_MAX    128
#define KNOCK_EVERY_MS    10000
#define KNOCK_AGAIN_MS    2000
#define KNOCK_PATIENCE_MS 2000

struct knock_timing {
    int every_ms;
    int again_ms;    /* instead, while one has not answered */
    int patience_ms; /* for an answer */
};

/* One listener. */
struct knock_door {
    struct sockaddr_storage address; /* to connect to */
    socklen_t address_len;
    char name[KNOCK_NAME_MAX]; /* host:port or unix:/path */
    bool tls;
    atomic_bool up;
    /* of the thread alone: */
    unsigned misses;
    int fd;     /* -1: no knock under way */
    bool asked; /* it is connected, and has our ClientHello if it is to have one */
    uint8_t answer[9];
    size_t answer_len;
};

struct knock {
    struct knock_timing timing;
    struct knock_door doors[LISTENERS_MAX];
    size_t door_count;
    uint8_t hello[KNOCK_HELLO_MAX]; /* a ClientHello, for listeners with TLS */
    size_t hello_len;
    uint64_t refused; /* by accept.c, before this round */
    int stop_fd;
    pthread_t thread;
    bool running;
};

/**
 * Watch `server`'s listeners from now on; the first knock comes after `timing`'s interval (NULL: the constants above).
 * Requires: `knock` is zeroed; the server has started, and its listeners stay until knock_stop.
 * Returns: whether it watches; if not, the log says why.
 */
bool knock_start(struct knock *knock, const struct server *server, const struct knock_timing *timing);

/* End at once, a knock under way too. Does nothing where it never started, or has stopped. One thread. */
void knock_stop(struct knock *knock);

/* Whether every listener answers, as far as the last knocks tell. Any thread, between start and stop. */
bool knock_all_up(const struct knock *knock);

#endif
