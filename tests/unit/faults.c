#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define LOG_MAX 8192

ssize_t __real_pwritev(int fd, const struct iovec *parts, int count, off_t offset);
int __real_fdatasync(int fd);
int __real_fsync(int fd);
int __real_ftruncate(int fd, off_t bytes);
int __real_clock_gettime(clockid_t clock, struct timespec *out_now);
int __real_sem_wait(sem_t *semaphore);
int __real_open(const char *path, int flags, ...);
ssize_t __wrap_pwritev(int fd, const struct iovec *parts, int count, off_t offset);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
int __wrap_ftruncate(int fd, off_t bytes);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out_now);
int __wrap_sem_wait(sem_t *semaphore);
int __wrap_open(const char *path, int flags, ...);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static pthread_cond_t waits_changed = PTHREAD_COND_INITIALIZER;
static struct {
    size_t counts[CALL_KINDS];
    size_t fail_at[CALL_KINDS]; /* 0: never */
    int errors[CALL_KINDS];
    char log[LOG_MAX];
    size_t log_len;
    void (*hook)(enum call call, const char *name, void *arg);
    void *hook_arg;
    size_t short_bytes;
    bool interrupted;
    bool refuse_unnamed;
    long seconds;
    size_t waits;
} faults;

void faults_clear(void)
{
    pthread_mutex_lock(&lock);
    long seconds = faults.seconds;
    memset(&faults, 0, sizeof faults);
    faults.seconds = seconds;
    pthread_mutex_unlock(&lock);
}

/* The clock stands still: whether STORE.writer is rewritten after a sync must not depend on how fast a test runs. */
int faults_setup(void **state)
{
    struct timespec now;
    __real_clock_gettime(CLOCK_MONOTONIC, &now);
    faults_clear();
    faults_clock((long)now.tv_sec);
    return temp_setup(state);
}

void faults_file_size_limit(rlim_t bytes)
{
    struct rlimit limit;
    EXPECT(getrlimit(RLIMIT_FSIZE, &limit) == 0, "%s", strerror(errno));
    limit.rlim_cur = bytes;
    EXPECT(setrlimit(RLIMIT_FSIZE, &limit) == 0, "%s", strerror(errno));
}

int faults_teardown(void **state)
{
    faults_file_size_limit(RLIM_INFINITY);
    faults_clear();
    return temp_teardown(state);
}

void faults_fail(enum call call, size_t nth, int error)
{
    pthread_mutex_lock(&lock);
    faults.fail_at[call] = faults.counts[call] + nth;
    faults.errors[call] = error;
    pthread_mutex_unlock(&lock);
}

size_t faults_count(enum call call)
{
    pthread_mutex_lock(&lock);
    size_t count = faults.counts[call];
    pthread_mutex_unlock(&lock);
    return count;
}

const char *faults_log(void)
{
    return faults.log; /* asked for when no other thread is at work */
}

void faults_hook(void (*hook)(enum call call, const char *name, void *arg), void *arg)
{
    pthread_mutex_lock(&lock);
    faults.hook = hook;
    faults.hook_arg = arg;
    pthread_mutex_unlock(&lock);
}

void faults_short_writes(size_t bytes)
{
    pthread_mutex_lock(&lock);
    faults.short_bytes = bytes;
    pthread_mutex_unlock(&lock);
}

void faults_refuse_unnamed(void)
{
    pthread_mutex_lock(&lock);
    faults.refuse_unnamed = true;
    pthread_mutex_unlock(&lock);
}

void faults_clock(long seconds)
{
    pthread_mutex_lock(&lock);
    faults.seconds = seconds;
    pthread_mutex_unlock(&lock);
}

void faults_await_waiting(size_t count)
{
    pthread_mutex_lock(&lock);
    while (faults.waits < count)
        pthread_cond_wait(&waits_changed, &lock);
    pthread_mutex_unlock(&lock);
}

static void name_of(int fd, char *out_name, size_t size)
{
    char link[64];
    char path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    path[len > 0 ? len : 0] = '\0';
    const char *slash = strrchr(path, '/');
    snprintf(out_name, size, "%.*s", (int)size - 1, slash != NULL ? slash + 1 : path);
}

/* Note a call and run its hook. Returns: false, with errno, where it is to fail. */
static bool pass(enum call call, int fd)
{
    static const char *const names[] = {"pwritev", "fdatasync", "fsync", "ftruncate"};
    char name[256];
    name_of(fd, name, sizeof name);
    pthread_mutex_lock(&lock);
    void (*hook)(enum call call, const char *name, void *arg) = faults.hook;
    void *arg = faults.hook_arg;
    bool fails = ++faults.counts[call] == faults.fail_at[call];
    int error = faults.errors[call];
    int used = snprintf(faults.log + faults.log_len, LOG_MAX - faults.log_len, "%s %s\n", names[call], name);
    if ((size_t)used < LOG_MAX - faults.log_len)
        faults.log_len += (size_t)used;
    pthread_mutex_unlock(&lock);
    if (hook != NULL)
        hook(call, name, arg);
    if (fails)
        errno = error;
    return !fails;
}

/* Returns: what this call may write; 0 where it is interrupted. */
static size_t write_max(void)
{
    pthread_mutex_lock(&lock);
    size_t bytes = faults.short_bytes != 0 ? faults.short_bytes : SIZE_MAX;
    faults.interrupted = faults.short_bytes != 0 && !faults.interrupted;
    if (faults.interrupted)
        bytes = 0;
    pthread_mutex_unlock(&lock);
    return bytes;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (!pass(CALL_PWRITEV, fd))
        return -1;
    size_t most = write_max();
    if (most == 0) {
        errno = EINTR;
        return -1;
    }
    if (most == SIZE_MAX)
        return __real_pwritev(fd, parts, count, offset);
    struct iovec part = {.iov_base = parts[0].iov_base, .iov_len = parts[0].iov_len < most ? parts[0].iov_len : most};
    return __real_pwritev(fd, &part, 1, offset);
}

int __wrap_fdatasync(int fd)
{
    return pass(CALL_FDATASYNC, fd) ? __real_fdatasync(fd) : -1;
}

int __wrap_fsync(int fd)
{
    return pass(CALL_FSYNC, fd) ? __real_fsync(fd) : -1;
}

int __wrap_ftruncate(int fd, off_t bytes)
{
    return pass(CALL_FTRUNCATE, fd) ? __real_ftruncate(fd, bytes) : -1;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out_now)
{
    pthread_mutex_lock(&lock);
    long seconds = faults.seconds;
    pthread_mutex_unlock(&lock);
    if (clock != CLOCK_MONOTONIC || seconds == 0) /* no test has begun */
        return __real_clock_gettime(clock, out_now);
    *out_now = (struct timespec){.tv_sec = seconds};
    return 0;
}

int __wrap_sem_wait(sem_t *semaphore)
{
    pthread_mutex_lock(&lock);
    faults.waits++;
    pthread_cond_broadcast(&waits_changed);
    pthread_mutex_unlock(&lock);
    return __real_sem_wait(semaphore);
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    pthread_mutex_lock(&lock);
    bool refused = faults.refuse_unnamed && (flags & O_TMPFILE) == O_TMPFILE;
    pthread_mutex_unlock(&lock);
    if (refused) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return __real_open(path, flags, mode);
}
