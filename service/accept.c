#include "accept.h"
#include "clock.h"
#include "log.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FAILED_MAX 1000 /* connections that failed before they were accepted, passed over in one call */
#define TELL_MS    1000

static struct {
    pthread_mutex_t lock;
    int reserve; /* -1: none */
    /* of which the log has not told: */
    uint64_t untold;
    int why; /* errno of the last one */
    int64_t told_ms;
} guard = {.lock = PTHREAD_MUTEX_INITIALIZER, .reserve = -1};

static atomic_uint_fast64_t refused_count;

/* ---- the log ---- */

static rlim_t descriptor_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

/* Requires: the lock. */
static void tell(void)
{
    if (guard.untold == 0)
        return;
    LOG(LOG_WARN, "connections refused", LOG_NUMBER("count", guard.untold), LOG_TEXT("why", strerror(guard.why)),
        LOG_NUMBER("descriptor_limit", descriptor_limit()));
    guard.untold = 0;
    guard.told_ms = clock_ms();
}

/* Requires: the lock. */
static void tell_if_due(void)
{
    if (guard.told_ms == 0 || clock_ms() - guard.told_ms >= TELL_MS)
        tell();
}

void accept_tell(void)
{
    pthread_mutex_lock(&guard.lock);
    tell_if_due();
    pthread_mutex_unlock(&guard.lock);
}

uint64_t accept_refused(void)
{
    return atomic_load(&refused_count);
}

/* Requires: the lock. */
static void count_refusal(int why)
{
    atomic_fetch_add(&refused_count, 1);
    guard.untold++;
    guard.why = why;
    tell_if_due();
}

/* ---- the reserve ---- */

/* A file of its own, so that it stands for one where the whole system's are short, and of no file system. */
static int take_reserve(void)
{
    return eventfd(0, EFD_CLOEXEC);
}

void accept_prepare(void)
{
    pthread_mutex_lock(&guard.lock);
    if (guard.reserve < 0)
        guard.reserve = take_reserve();
    pthread_mutex_unlock(&guard.lock);
}

void accept_end(void)
{
    pthread_mutex_lock(&guard.lock);
    if (guard.reserve >= 0)
        close(guard.reserve);
    guard.reserve = -1;
    tell();
    pthread_mutex_unlock(&guard.lock);
}

/* ---- accepting ---- */

static int kernel_accept(int listener, struct sockaddr *address, socklen_t *len, int flags)
{
    return (int)syscall(SYS_accept4, listener, address, len, flags);
}

/**
 * Take one connection from the queue with the reserve's descriptor, and close it. `why` is what kept it out.
 * Returns: 0, or the error that this met too.
 */
static int refuse_next(int listener, int why)
{
    pthread_mutex_lock(&guard.lock);
    if (guard.reserve >= 0)
        close(guard.reserve);
    int fd = kernel_accept(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int error = fd < 0 ? errno : 0;
    if (fd >= 0) {
        count_refusal(why); /* first: whoever sees the end of its connection may look at the count */
        close(fd);
    }
    guard.reserve = take_reserve();
    pthread_mutex_unlock(&guard.lock);
    return error;
}

static void refuse(int fd)
{
    pthread_mutex_lock(&guard.lock);
    count_refusal(EMFILE);
    pthread_mutex_unlock(&guard.lock);
    close(fd);
}

/* The kernel hands out the lowest number that is free, so this one says how many are taken. */
static bool is_headroom(int fd)
{
    rlim_t limit = descriptor_limit();
    rlim_t part = limit / ACCEPT_HEADROOM_PART;
    return (rlim_t)fd >= limit - (part < ACCEPT_HEADROOM_MAX ? part : ACCEPT_HEADROOM_MAX);
}

static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* Nothing waits; or the socket listens no more, or never did: the caller should know. */
static bool is_for_caller(int error)
{
    return error == EAGAIN || error == EINVAL || error == EBADF || error == ENOTSOCK || error == EFAULT;
}

/* In libc's stead, by libc's prototype: the address is a union of pointers to any kind of it. */
int accept4(int listener, __SOCKADDR_ARG address, socklen_t *restrict len, int flags)
{
    socklen_t room = len == NULL ? 0 : *len;
    for (int failed = 0; failed < FAILED_MAX;) {
        if (len != NULL)
            *len = room;
        int fd = kernel_accept(listener, address.__sockaddr__, len, flags);
        int error = fd < 0 ? errno : 0;
        if (fd >= 0 && !is_headroom(fd))
            return fd;
        if (fd >= 0)
            refuse(fd);
        else if (is_shortage(error))
            error = refuse_next(listener, error);
        if (is_shortage(error))
            break; /* even so: left to the next edge */
        if (is_for_caller(error)) {
            errno = error;
            return -1;
        }
        if (error != 0)
            failed++; /* EINTR, ECONNABORTED, and what the network says of a connection */
    }
    errno = EAGAIN;
    return -1;
}
