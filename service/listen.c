/* Where the server listens: TCP addresses and unix sockets, each socket guarded by a lock file. */
#include "server.h"
#include <errno.h>
#include <fcntl.h>
#include <grpc/grpc_security.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LOCK_TRIES_MAX 100

static bool cannot(const char *address, const char *why)
{
    LOG(LOG_ERROR, "cannot listen", LOG_TEXT("address", address), LOG_TEXT("why", why));
    return false;
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
    while (server->lock_count > 0) {
        struct listen_lock *lock = &server->locks[--server->lock_count];
        if (lock->path != NULL)
            unlink(lock->path);
        free(lock->path);
        close(lock->fd);
    }
}

static int add_port(struct server *server, const char *address)
{
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    int port = grpc_server_add_http2_port(server->core, address, plain);
    grpc_server_credentials_release(plain);
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
    int port = add_port(server, address);
    umask(before);
    if (port == 0 || chmod(path, (mode_t)server->config->unix_mode) != 0)
        return cannot(address, "see grpc's own line before this one");
    LOG(LOG_INFO, "listening", LOG_TEXT("address", address));
    return true;
}

static bool listen_tcp(struct server *server, const char *address)
{
    char bound[280];
    int port = add_port(server, address);
    if (port == 0)
        return cannot(address, "see grpc's own line before this one; does another process serve on that port?");
    size_t host_len = (size_t)(strrchr(address, ':') - address);
    snprintf(bound, sizeof(bound), "%.*s:%d", (int)(host_len < 256 ? host_len : 256), address, port);
    LOG(LOG_INFO, "listening", LOG_TEXT("address", bound));
    return true;
}

bool listen_all(struct server *server)
{
    for (size_t i = 0; i < server->config->listen_count; i++) {
        const char *address = server->config->listen[i];
        bool is_unix = strncmp(address, "unix:", 5) == 0;
        if (!(is_unix ? listen_unix : listen_tcp)(server, address))
            return false;
    }
    return true;
}
