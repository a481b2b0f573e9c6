#include "knock.h"
#include "accept.h"
#include "clock.h"
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TLS_HEADER_LEN 5 /* of a record: type, version, length */

static const struct knock_timing standard_timing = {KNOCK_EVERY_MS, KNOCK_AGAIN_MS, KNOCK_PATIENCE_MS};

static int ms_until(int64_t due_ms)
{
    int64_t left = due_ms - clock_ms();
    return left < 0 ? 0 : (int)left;
}

/* ---- where to knock ---- */

/* Where a wildcard address listens, it does so on the loopback too; 127.0.0.1 is there even where IPv6 is switched off.
 */
static void aim_v6(int listener, struct sockaddr_in6 *address)
{
    int only = 0;
    socklen_t len = sizeof(only);
    if (!IN6_IS_ADDR_UNSPECIFIED(&address->sin6_addr))
        return;
    address->sin6_addr = in6addr_loopback;
    if (getsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &only, &len) == 0 && only == 0)
        inet_pton(AF_INET6, "::ffff:127.0.0.1", &address->sin6_addr);
}

static bool aim(struct knock_door *door, int listener)
{
    char host[INET6_ADDRSTRLEN] = "";
    void *any = &door->address;
    struct sockaddr_in *v4 = any;
    struct sockaddr_in6 *v6 = any;
    const struct sockaddr_un *local = any;
    door->address_len = sizeof(door->address);
    if (getsockname(listener, any, &door->address_len) != 0)
        return false;
    if (door->address.ss_family == AF_UNIX) {
        snprintf(door->name, sizeof(door->name), "unix:%s", local->sun_path);
    } else if (door->address.ss_family == AF_INET) {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
        snprintf(door->name, sizeof(door->name), "%s:%d", host, ntohs(v4->sin_port));
        if (v4->sin_addr.s_addr == htonl(INADDR_ANY))
            v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else if (door->address.ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        snprintf(door->name, sizeof(door->name), "[%s]:%d", host, ntohs(v6->sin6_port));
        aim_v6(listener, v6);
    } else {
        return false;
    }
    return true;
}

/* What a client would say first: written by OpenSSL, so that no server has a reason to keep silent. */
static bool make_hello(struct knock *knock)
{
    static const unsigned char protocols[] = {2, 'h', '2'};
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *client = context == NULL ? NULL : SSL_new(context);
    BIO *in = BIO_new(BIO_s_mem());
    BIO *out = BIO_new(BIO_s_mem());
    int len = 0;
    if (client != NULL && in != NULL && out != NULL && SSL_set_alpn_protos(client, protocols, sizeof(protocols)) == 0) {
        SSL_set_bio(client, in, out); /* which owns them now */
        SSL_connect(client);          /* as far as it gets without an answer */
        len = BIO_read(out, knock->hello, sizeof(knock->hello));
    } else {
        BIO_free(in);
        BIO_free(out);
    }
    SSL_free(client);
    SSL_CTX_free(context);
    knock->hello_len = len > 0 ? (size_t)len : 0;
    return len > 0;
}

/* ---- a knock ---- */

static void conclude(struct knock_door *door, bool answered)
{
    bool was_up = atomic_load(&door->up);
    close(door->fd);
    door->fd = -1;
    door->misses = answered ? 0 : door->misses + 1;
    bool up = answered || (was_up && door->misses < KNOCK_MISSES);
    atomic_store(&door->up, up);
    if (up && !was_up)
        LOG(LOG_INFO, "listener up again", LOG_TEXT("address", door->name));
    else if (!up && was_up)
        LOG(LOG_ERROR, "listener dead", LOG_TEXT("address", door->name),
            LOG_TEXT("what", "it does not answer those who connect"));
}

/* A descriptor that can't be had is no fault of the listener's: then nothing is concluded. */
static void begin(struct knock_door *door)
{
    door->asked = false;
    door->answer_len = 0;
    door->fd = socket(door->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (door->fd < 0)
        return;
    if (connect(door->fd, (const struct sockaddr *)&door->address, door->address_len) != 0 && errno != EINPROGRESS)
        conclude(door, false);
}

/* Connected, or not: say what is to be said. */
static void ask(const struct knock *knock, struct knock_door *door)
{
    int error = 0;
    socklen_t len = sizeof(error);
    size_t said = 0;
    if (getsockopt(door->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0) {
        conclude(door, false);
        return;
    }
    if (door->tls)
        said = (size_t)send(door->fd, knock->hello, knock->hello_len, MSG_NOSIGNAL);
    door->asked = true;
    if (door->tls && said != knock->hello_len)
        conclude(door, accept_refused() > knock->refused);
}

/* A SETTINGS frame's header on stream 0, or a TLS record's. */
static bool is_answer(const struct knock_door *door)
{
    const uint8_t *bytes = door->answer;
    if (door->tls)
        return bytes[0] >= 20 && bytes[0] <= 23 && bytes[1] == 3;
    return bytes[3] == 4 && bytes[5] == 0 && bytes[6] == 0 && bytes[7] == 0 && bytes[8] == 0;
}

static void listen_for_answer(const struct knock *knock, struct knock_door *door)
{
    size_t wanted = door->tls ? TLS_HEADER_LEN : sizeof(door->answer);
    ssize_t len = recv(door->fd, door->answer + door->answer_len, wanted - door->answer_len, 0);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (len <= 0) {
        conclude(door, accept_refused() > knock->refused);
        return;
    }
    door->answer_len += (size_t)len;
    if (door->answer_len == wanted)
        conclude(door, is_answer(door));
}

/* ---- the thread ---- */

static bool stop_asked(const struct knock *knock, int wait_ms)
{
    struct pollfd stop = {.fd = knock->stop_fd, .events = POLLIN};
    return poll(&stop, 1, wait_ms) > 0;
}

/* Wait until a door answers, the stop is asked for or `due_ms`. Returns: false when nothing is under way any more. */
static bool wait_for_doors(struct knock *knock, int64_t due_ms)
{
    struct pollfd fds[LISTENERS_MAX + 1];
    struct knock_door *doors[LISTENERS_MAX];
    nfds_t count = 0;
    for (size_t i = 0; i < knock->door_count; i++) {
        struct knock_door *door = &knock->doors[i];
        if (door->fd < 0)
            continue;
        doors[count] = door;
        fds[count++] = (struct pollfd){.fd = door->fd, .events = door->asked ? POLLIN : POLLOUT};
    }
    fds[count] = (struct pollfd){.fd = knock->stop_fd, .events = POLLIN};
    if (count == 0 || poll(fds, count + 1, ms_until(due_ms)) <= 0)
        return count > 0;
    for (nfds_t i = 0; i < count; i++) {
        if (fds[i].revents == 0)
            continue;
        if (doors[i]->asked)
            listen_for_answer(knock, doors[i]);
        else
            ask(knock, doors[i]);
    }
    return true;
}

/* Knock at all doors at once. Returns: false when asked to stop. */
static bool knock_round(struct knock *knock)
{
    int64_t due = clock_ms() + knock->timing.patience_ms;
    bool stopped = false;
    knock->refused = accept_refused();
    for (size_t i = 0; i < knock->door_count; i++)
        begin(&knock->doors[i]);
    while (!(stopped = stop_asked(knock, 0)) && wait_for_doors(knock, due) && clock_ms() < due)
        ;
    for (size_t i = 0; i < knock->door_count; i++) {
        struct knock_door *door = &knock->doors[i];
        if (door->fd >= 0 && stopped)
            close(door->fd);
        else if (door->fd >= 0)
            conclude(door, false);
    }
    return !stopped;
}

static bool one_missed(const struct knock *knock)
{
    for (size_t i = 0; i < knock->door_count; i++)
        if (knock->doors[i].misses > 0)
            return true;
    return false;
}

static void *knock_thread(void *argument)
{
    struct knock *knock = argument;
    while (!stop_asked(knock, one_missed(knock) ? knock->timing.again_ms : knock->timing.every_ms))
        if (!knock_round(knock))
            break;
    return NULL;
}

/* ---- from outside ---- */

static bool cannot(const char *why)
{
    LOG(LOG_ERROR, "cannot start", LOG_TEXT("why", why));
    return false;
}

bool knock_start(struct knock *knock, const struct server *server, const struct knock_timing *timing)
{
    knock->timing = timing == NULL ? standard_timing : *timing;
    for (size_t i = 0; i < server->listener_count; i++) {
        struct knock_door *door = &knock->doors[knock->door_count];
        if (!aim(door, server->listeners[i].fd))
            return cannot("a listener has no address");
        door->fd = -1;
        door->tls = door->address.ss_family != AF_UNIX && server->config->tls_cert != NULL;
        atomic_init(&door->up, true);
        if (door->tls && knock->hello_len == 0 && !make_hello(knock))
            return cannot("OpenSSL makes no ClientHello");
        knock->door_count++;
    }
    knock->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (knock->stop_fd < 0)
        return cannot(strerror(errno));
    knock->running = pthread_create(&knock->thread, NULL, knock_thread, knock) == 0;
    if (!knock->running) {
        close(knock->stop_fd);
        return cannot("the system refuses a thread");
    }
    return true;
}

void knock_stop(struct knock *knock)
{
    uint64_t one = 1;
    if (!knock->running)
        return;
    ssize_t ignored = write(knock->stop_fd, &one, sizeof(one)); /* a fresh eventfd always takes it */
    (void)ignored;
    pthread_join(knock->thread, NULL);
    close(knock->stop_fd);
    knock->running = false;
}

bool knock_all_up(const struct knock *knock)
{
    for (size_t i = 0; i < knock->door_count; i++)
        if (!atomic_load(&knock->doors[i].up))
            return false;
    return true;
}
