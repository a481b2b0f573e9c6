/* Where the server listens: TCP addresses and unix sockets, each socket guarded by a lock file. */
#include "server.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grpc/grpc_security.h>
#include <limits.h>
#include <linux/sockios.h>
#include <linux/tcp.h> /* its tcp_info counts bytes; libc's doesn't */
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LOCK_TRIES_MAX 100

/* tcp_info's states of a connection that nobody on our side has ended. */
enum { STATE_ESTABLISHED = 1, STATE_CLOSE_WAIT = 8 };

static bool cannot(const char *address, const char *why)
{
    LOG(LOG_ERROR, "cannot listen", LOG_TEXT("address", address), LOG_TEXT("why", why));
    return false;
}

/* What lists this process's descriptors, open from start to end: once none is left, opening it would fail. */
static struct {
    pthread_mutex_t lock;
    DIR *list;
} descriptors = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool open_descriptors(void)
{
    if (descriptors.list == NULL)
        descriptors.list = opendir("/proc/self/fd");
    return descriptors.list != NULL;
}

static void close_descriptors(void)
{
    if (descriptors.list != NULL)
        closedir(descriptors.list);
    descriptors.list = NULL;
}

/* Whose lock it is, for the message. */
static bool lock_is_taken(const char *address, const char *lock_path, int fd)
{
    char pid[24] = "unknown";
    char why[PATH_MAX + 128];
    ssize_t len = pread(fd, pid, sizeof(pid) - 1, 0);
    if (len > 0)
        pid[strcspn(pid, "\n")] = '\0';
    snprintf(why, sizeof(why), "process %s serves there (it holds %s); stop it, or choose another path", pid,
             lock_path);
    return cannot(address, why);
}

/* Write our pid into a lock that is ours. */
static bool sign_lock(int fd)
{
    char pid[24];
    int len = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    return ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)len, 0) == len;
}

/**
 * The core removes a socket file that exists, whoever serves on it; so only the holder of PATH.lock may let it. The
 * lock file is removed by its holder, hence the look whether the one that was locked is still the one at the path.
 */
static bool take_lock(struct server *server, const char *address, const char *path)
{
    char lock_path[PATH_MAX];
    snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
    for (int i = 0; i < LOCK_TRIES_MAX; i++) {
        struct stat locked;
        struct stat named;
        int fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return cannot(address, strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            bool taken = lock_is_taken(address, lock_path, fd);
            close(fd);
            return taken;
        }
        if (fstat(fd, &locked) == 0 && stat(lock_path, &named) == 0 && locked.st_ino == named.st_ino &&
            locked.st_dev == named.st_dev && sign_lock(fd)) {
            server->locks[server->lock_count++] = (struct listen_lock){.fd = fd, .path = strdup(lock_path)};
            return true;
        }
        close(fd);
    }
    return cannot(address, "its lock file keeps changing or can't be written");
}

void listen_release(struct server *server)
{
    close_descriptors();
    while (server->lock_count > 0) {
        struct listen_lock *lock = &server->locks[--server->lock_count];
        if (lock->path != NULL)
            unlink(lock->path);
        free(lock->path);
        close(lock->fd);
    }
}

/* Returns: the port, or 0. Takes the credentials over. */
static int add_port(struct server *server, const char *address, grpc_server_credentials *credentials)
{
    int port = grpc_server_add_http2_port(server->core, address, credentials);
    grpc_server_credentials_release(credentials);
    return port;
}

static bool listen_unix(struct server *server, const char *address)
{
    const char *path = address + strlen("unix:");
    struct stat existing;
    if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return cannot(address, "the path is longer than 107 bytes, which the kernel allows for a socket");
    if (lstat(path, &existing) == 0 && !S_ISSOCK(existing.st_mode))
        return cannot(address, "the path exists and is not a socket; remove it, or choose another path");
    if (!take_lock(server, address, path))
        return false;
    /* never wider than asked for, not even between bind and chmod */
    mode_t before = umask((mode_t)(~server->config->unix_mode & 0777));
    int port = add_port(server, address, grpc_insecure_server_credentials_create()); /* its mode says who may */
    umask(before);
    if (port == 0 || chmod(path, (mode_t)server->config->unix_mode) != 0)
        return cannot(address, "see grpc's own line before this one");
    LOG(LOG_INFO, "listening", LOG_TEXT("address", address));
    return true;
}

/* The core says in prose of its own why it can't; asked directly, the system says it in a word. */
static bool cannot_bind(const char *address)
{
    char host[256];
    const char *port = strrchr(address, ':') + 1;
    size_t len = (size_t)(port - 1 - address);
    bool bracketed = address[0] == '[';
    snprintf(host, sizeof(host), "%.*s", (int)(bracketed ? len - 2 : len), address + bracketed);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0)
        return cannot(address, gai_strerror(error));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    bool bound = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
                 bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 1) == 0;
    const char *why = bound                 ? "grpc refuses it; see its own line before this one"
                      : errno == EADDRINUSE ? "another process serves there; stop it, or choose another port"
                                            : strerror(errno);
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
    return cannot(address, why);
}

static bool listen_tcp(struct server *server, const char *address)
{
    char bound[280];
    int port = add_port(server, address, tls_credentials(&server->tls));
    if (port == 0)
        return cannot_bind(address);
    size_t host_len = (size_t)(strrchr(address, ':') - address);
    snprintf(bound, sizeof(bound), "%.*s:%d", (int)(host_len < 256 ? host_len : 256), address, port);
    LOG(LOG_INFO, "listening", LOG_TEXT("address", bound));
    return true;
}

/* ---- the sockets themselves: the core neither lists its own nor stops listening short of shutting down ---- */

static bool is_stream_socket(int fd, bool *out_listening)
{
    int type;
    int listening;
    socklen_t len = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) != 0)
        return false;
    *out_listening = listening != 0;
    return true;
}

static bool place_of(int fd, struct listen_place *out_place)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } address;
    socklen_t len = sizeof(address);
    memset(&address, 0, sizeof(address));
    if (getsockname(fd, &address.any, &len) != 0)
        return false;
    *out_place = (struct listen_place){0};
    if (address.any.sa_family == AF_INET)
        out_place->port = address.v4.sin_port;
    else if (address.any.sa_family == AF_INET6)
        out_place->port = address.v6.sin6_port;
    else if (address.any.sa_family == AF_UNIX)
        memcpy(out_place->path, address.local.sun_path, sizeof(out_place->path));
    else
        return false;
    return true;
}

static bool is_our_connection(const struct server *server, int fd)
{
    struct listen_place place;
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0 || !place_of(fd, &place))
        return false; /* a stopped listener has no peer */
    for (size_t i = 0; i < server->listener_count; i++)
        if (memcmp(&place, &server->listeners[i].place, sizeof(place)) == 0)
            return true;
    return false;
}

/* Look at them from the first one on, and alone, until end_sockets. Requires: open_descriptors did. */
static void begin_sockets(void)
{
    pthread_mutex_lock(&descriptors.lock);
    rewinddir(descriptors.list);
}

static void end_sockets(void)
{
    pthread_mutex_unlock(&descriptors.lock);
}

/* The next descriptor of this process that is a stream socket, or -1. */
static int next_socket(bool *out_listening)
{
    for (const struct dirent *entry; (entry = readdir(descriptors.list)) != NULL;) {
        int fd = atoi(entry->d_name);
        if (fd > STDERR_FILENO && is_stream_socket(fd, out_listening))
            return fd;
    }
    return -1;
}

/* Do `act` to each connection there is. Returns: how many there are, and in `*out_sum` the sum of what it returned. */
static size_t each_connection(const struct server *server, int (*act)(int fd), uint64_t *out_sum)
{
    size_t count = 0;
    bool listening;
    *out_sum = 0;
    begin_sockets();
    for (int fd; (fd = next_socket(&listening)) >= 0;) {
        if (listening || !is_our_connection(server, fd))
            continue;
        *out_sum += (uint64_t)act(fd);
        count++;
    }
    end_sockets();
    return count;
}

/* Put the listening sockets there are into `out_fds`. Returns: how many. */
static size_t listening_sockets(int out_fds[LISTENERS_MAX])
{
    size_t count = 0;
    bool listening;
    begin_sockets();
    for (int fd; (fd = next_socket(&listening)) >= 0;)
        if (listening && count < LISTENERS_MAX)
            out_fds[count++] = fd;
    end_sockets();
    return count;
}

/* The core's are those that were not there before it listened. */
static void find_listeners(struct server *server, const int *before, size_t before_count)
{
    int now[LISTENERS_MAX];
    size_t now_count = listening_sockets(now);
    for (size_t i = 0; i < now_count; i++) {
        struct listener listener = {.fd = now[i]};
        bool inherited = false;
        for (size_t k = 0; k < before_count; k++)
            inherited = inherited || before[k] == now[i];
        if (!inherited && place_of(now[i], &listener.place))
            server->listeners[server->listener_count++] = listener;
    }
}

void listen_stop(const struct server *server)
{
    log_quieten_core(); /* it reports the end of a listener as an error */
    for (size_t i = 0; i < server->listener_count; i++) {
        bool listening;
        if (is_stream_socket(server->listeners[i].fd, &listening) && listening)
            shutdown(server->listeners[i].fd, SHUT_RD);
    }
}

static int half_close(int fd)
{
    shutdown(fd, SHUT_WR);
    return 0;
}

/* What the peer has not taken yet: acknowledged over TCP, read over a unix socket. */
static int unsent_bytes(int fd)
{
    int bytes;
    return ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? bytes : 0;
}

void listen_half_close(const struct server *server)
{
    uint64_t none;
    each_connection(server, half_close, &none);
}

size_t listen_connections(const struct server *server, uint64_t *out_unsent)
{
    return each_connection(server, unsent_bytes, out_unsent);
}

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);
    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0 ? cookie : 0;
}

/* Returns: false for what has no port. */
static bool peer_of(int fd, struct peer *out_peer)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
    socklen_t len = sizeof(address);
    memset(&address, 0, sizeof(address));
    if (getpeername(fd, &address.any, &len) != 0)
        return false;
    if (address.any.sa_family == AF_INET)
        *out_peer = peer_v4(&address.v4.sin_addr, ntohs(address.v4.sin_port));
    else if (address.any.sa_family == AF_INET6)
        *out_peer = (struct peer){.address = address.v6.sin6_addr, .port = ntohs(address.v6.sin6_port)};
    else
        return false;
    return true;
}

/* Returns: false for what is no TCP connection, or one that we have ended. */
static bool traffic_of(int fd, struct traffic *out_traffic)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    uint64_t cookie = cookie_of(fd);
    if (cookie == 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        (info.tcpi_state != STATE_ESTABLISHED && info.tcpi_state != STATE_CLOSE_WAIT))
        return false;
    *out_traffic = (struct traffic){
        .fd = fd, .cookie = cookie, .received = info.tcpi_bytes_received, .acknowledged = info.tcpi_bytes_acked};
    return peer_of(fd, &out_traffic->peer);
}

size_t listen_traffic(const struct server *server, struct traffic **out_list)
{
    struct traffic *list = NULL;
    size_t count = 0;
    size_t room = 0;
    bool listening;
    begin_sockets();
    for (int fd; (fd = next_socket(&listening)) >= 0;) {
        struct traffic traffic;
        if (listening || !is_our_connection(server, fd) || !traffic_of(fd, &traffic))
            continue;
        if (count == room) {
            room = 2 * room + 64;
            struct traffic *larger = realloc(list, room * sizeof(*list));
            if (larger == NULL)
                break; /* those found so far */
            list = larger;
        }
        list[count++] = traffic;
    }
    end_sockets();
    *out_list = list;
    return count;
}

static int by_peer(const void *left, const void *right)
{
    const struct traffic *a = left;
    const struct traffic *b = right;
    return peer_compare(&a->peer, &b->peer);
}

void traffic_sort(struct traffic *list, size_t count)
{
    if (count > 0)
        qsort(list, count, sizeof(*list), by_peer);
}

struct traffic *traffic_find(struct traffic *list, size_t count, const struct peer *peer)
{
    struct traffic wanted = {.peer = *peer};
    return count == 0 ? NULL : bsearch(&wanted, list, count, sizeof(*list), by_peer);
}

/* To dissolve it resets it and throws away what it has brought and nobody has read, which a shutdown would leave. */
bool listen_drop(const struct traffic *connection)
{
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    if (cookie_of(connection->fd) != connection->cookie)
        return false;
    return connect(connection->fd, &nowhere, sizeof(nowhere)) == 0 || shutdown(connection->fd, SHUT_RDWR) == 0;
}

uint64_t listen_moved(const struct server *server, struct moves *moves, const char *peer)
{
    struct peer wanted;
    if (!moves->made) {
        moves->count = listen_traffic(server, &moves->list);
        traffic_sort(moves->list, moves->count);
    }
    moves->made = true;
    const struct traffic *found = peer_parse(peer, &wanted) ? traffic_find(moves->list, moves->count, &wanted) : NULL;
    return found == NULL ? 0 : found->received + found->acknowledged;
}

bool listen_all(struct server *server)
{
    int before[LISTENERS_MAX];
    if (!open_descriptors())
        return cannot("/proc/self/fd", strerror(errno));
    size_t before_count = listening_sockets(before);
    for (size_t i = 0; i < server->config->listen.count; i++) {
        const char *address = server->config->listen.at[i];
        bool is_unix = strncmp(address, "unix:", 5) == 0;
        if (!(is_unix ? listen_unix : listen_tcp)(server, address))
            return false;
    }
    find_listeners(server, before, before_count);
    return true;
}
