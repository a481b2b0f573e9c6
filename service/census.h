/**
 * Who has calls open, and who brought messages that have reached us: both by connection, and only while memory is short
 * (the server's count_peers), since to ask each call for its peer is too dear for every call.
 */
#ifndef CENSUS_H
#define CENSUS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct call;
struct queue;

/* The other end of a TCP connection; IPv4 as IPv6 has it, ::ffff:a.b.c.d. Compared by memory: it has no padding. */
struct peer {
    struct in6_addr address;
    uint32_t port;
};
#define PEER_TEXT_MAX (INET6_ADDRSTRLEN + 9)

struct peer peer_v4(const struct in_addr *address, uint32_t port);

/* What gRPC calls it: ipv4:1.2.3.4:5, ipv6:[::1]:5, the brackets perhaps as %5B and %5D. Returns: false for others. */
bool peer_parse(const char *text, struct peer *out_peer);

/* As people write it: 1.2.3.4:5 or [::1]:5. */
void peer_text(const struct peer *peer, char out_text[PEER_TEXT_MAX]);

/* For qsort and bsearch. */
int peer_compare(const void *left, const void *right);

struct census {
    size_t local;        /* calls by unix sockets */
    size_t count;        /* by TCP: */
    struct peer peers[]; /* one a call */
};

/* Put a fresh list into `queue->census`; without memory the old one stays. Requires: the queue's own thread. */
void census_take(struct queue *queue);

/* Where memory is short: the call's request has reached us, and is held to the limits there are. Any thread. */
void census_deliver(const struct call *call);

/* Bytes that came by `peer`'s connection and have reached us since census_forget, and about what framed them. */
uint64_t census_delivered(const struct peer *peer);
void census_forget(void);

#endif
