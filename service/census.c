#include "census.h"
#include "server.h"
#include <arpa/inet.h>
#include <grpc/byte_buffer.h>
#include <grpc/support/alloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define V4_AT         12 /* of the mapped address */
#define DELIVERED_MAX 65536
#define FRAMING_PART  64 /* of a message's bytes, at most, for the headers of its frames; of tiny frames it is more */

struct delivery {
    struct peer peer;
    uint64_t bytes;
};

static struct {
    pthread_mutex_t lock;
    struct delivery *list; /* by peer */
    size_t count;
    size_t room;
} delivered = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct peer peer_v4(const struct in_addr *address, uint32_t port)
{
    struct peer peer = {.port = port};
    peer.address.s6_addr[V4_AT - 2] = 0xff;
    peer.address.s6_addr[V4_AT - 1] = 0xff;
    memcpy(&peer.address.s6_addr[V4_AT], address, sizeof(*address));
    return peer;
}

/* Past `sign`, as itself or as it is escaped. */
static const char *skip(const char *text, const char *sign, const char *escaped)
{
    size_t len = strlen(escaped);
    return *text == *sign ? text + 1 : strncasecmp(text, escaped, len) == 0 ? text + len : text;
}

bool peer_parse(const char *text, struct peer *out_peer)
{
    char host[INET6_ADDRSTRLEN];
    struct in_addr v4;
    struct peer peer = {0};
    bool is_v4 = strncmp(text, "ipv4:", 5) == 0;
    const char *port = strrchr(text, ':');
    if (!is_v4 && strncmp(text, "ipv6:", 5) != 0)
        return false;
    text = is_v4 ? text + 5 : skip(text + 5, "[", "%5B");
    size_t len = is_v4 ? strcspn(text, ":") : strcspn(text, "]%"); /* a zone begins with a percent sign too */
    if (len >= sizeof(host) || port < text + len)
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    unsigned long number = strtoul(port + 1, NULL, 10);
    if (number > UINT16_MAX || inet_pton(is_v4 ? AF_INET : AF_INET6, host, is_v4 ? (void *)&v4 : &peer.address) != 1)
        return false;
    peer.port = (uint32_t)number;
    *out_peer = is_v4 ? peer_v4(&v4, peer.port) : peer;
    return true;
}

void peer_text(const struct peer *peer, char out_text[PEER_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN] = "";
    bool is_v4 = IN6_IS_ADDR_V4MAPPED(&peer->address);
    if (is_v4)
        inet_ntop(AF_INET, &peer->address.s6_addr[V4_AT], host, sizeof(host));
    else
        inet_ntop(AF_INET6, &peer->address, host, sizeof(host));
    snprintf(out_text, PEER_TEXT_MAX, is_v4 ? "%s:%u" : "[%s]:%u", host, (unsigned)peer->port);
}

int peer_compare(const void *left, const void *right)
{
    return memcmp(left, right, sizeof(struct peer));
}

void census_take(struct queue *queue)
{
    size_t open = 0;
    for (const struct call *call = queue->open_calls; call != NULL; call = call->next_open)
        open++;
    struct census *census = malloc(sizeof(*census) + open * sizeof(census->peers[0]));
    if (census == NULL)
        return;
    census->local = 0;
    census->count = 0;
    for (const struct call *call = queue->open_calls; call != NULL; call = call->next_open) {
        char *peer = grpc_call_get_peer(call->call);
        if (peer != NULL && peer_parse(peer, &census->peers[census->count]))
            census->count++;
        else
            census->local++;
        gpr_free(peer);
    }
    free(atomic_exchange(&queue->census, census));
}

/* Where `peer` is in the list, or would be. Requires: the lock. */
static size_t place_of(const struct peer *peer)
{
    size_t low = 0;
    size_t high = delivered.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (peer_compare(&delivered.list[middle].peer, peer) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_at(size_t at, const struct peer *peer)
{
    return at < delivered.count && peer_compare(&delivered.list[at].peer, peer) == 0;
}

/* Requires: the lock. Returns: false where there is no room for one more. */
static bool make_room(void)
{
    if (delivered.count < delivered.room)
        return true;
    size_t room = 2 * delivered.room + 64;
    struct delivery *larger = room > DELIVERED_MAX ? NULL : realloc(delivered.list, room * sizeof(*larger));
    if (larger == NULL)
        return false;
    delivered.list = larger;
    delivered.room = room;
    return true;
}

void census_deliver(const struct call *call)
{
    struct peer peer;
    if (!atomic_load_explicit(&call->queue->server->count_peers, memory_order_relaxed) || call->request == NULL)
        return;
    uint64_t bytes = grpc_byte_buffer_length(call->request);
    char *text = grpc_call_get_peer(call->call);
    bool known = text != NULL && peer_parse(text, &peer);
    gpr_free(text);
    if (!known)
        return;
    pthread_mutex_lock(&delivered.lock);
    size_t at = place_of(&peer);
    if (!is_at(at, &peer) && make_room()) {
        memmove(&delivered.list[at + 1], &delivered.list[at], (delivered.count - at) * sizeof(delivered.list[0]));
        delivered.list[at] = (struct delivery){.peer = peer};
        delivered.count++;
    }
    if (is_at(at, &peer))
        delivered.list[at].bytes += bytes + bytes / FRAMING_PART;
    pthread_mutex_unlock(&delivered.lock);
}

uint64_t census_delivered(const struct peer *peer)
{
    pthread_mutex_lock(&delivered.lock);
    size_t at = place_of(peer);
    uint64_t bytes = is_at(at, peer) ? delivered.list[at].bytes : 0;
    pthread_mutex_unlock(&delivered.lock);
    return bytes;
}

void census_forget(void)
{
    pthread_mutex_lock(&delivered.lock);
    free(delivered.list);
    delivered.list = NULL;
    delivered.count = 0;
    delivered.room = 0;
    pthread_mutex_unlock(&delivered.lock);
}
