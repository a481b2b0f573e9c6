#include "child.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS_MAX 64u

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bench_engine: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec at;
    clock_gettime(id, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t busy_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t process_busy_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

void print_figure(const char *name, double number)
{
    printf("%s %.17g\n", name, number);
}

double memory_anonymous(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    CHECK(status != NULL);
    char line[256];
    double kib = -1;
    while (fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0)
            kib = strtod(line + 8, NULL);
    fclose(status);
    CHECK(kib >= 0);
    return kib * 1024;
}

struct begun {
    pthread_barrier_t *barrier;
    void *(*body)(void *);
    void *arg;
    uint64_t began, ended, busy;
};

/* Each takes its own times: whoever waits for them may be late. */
static void *begin(void *arg)
{
    struct begun *begun = arg;
    pthread_barrier_wait(begun->barrier);
    begun->began = now_ns();
    begun->body(begun->arg);
    begun->ended = now_ns();
    begun->busy = busy_ns();
    return NULL;
}

struct took threads_run(size_t count, void *(*body)(void *), void *args, size_t arg_size)
{
    pthread_t threads[THREADS_MAX];
    struct begun begun[THREADS_MAX];
    pthread_barrier_t barrier;
    CHECK(count >= 1 && count <= THREADS_MAX);
    CHECK(pthread_barrier_init(&barrier, NULL, (unsigned)count) == 0);
    for (size_t i = 0; i < count; i++) {
        begun[i] = (struct begun){.barrier = &barrier, .body = body, .arg = (char *)args + i * arg_size};
        CHECK(pthread_create(&threads[i], NULL, begin, &begun[i]) == 0);
    }
    uint64_t first = UINT64_MAX, last = 0, busy = 0;
    for (size_t i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        first = begun[i].began < first ? begun[i].began : first;
        busy += begun[i].busy;
        last = begun[i].ended > last ? begun[i].ended : last;
    }
    pthread_barrier_destroy(&barrier);
    return (struct took){last - first, busy};
}

void print_scaling(void *(*body)(void *), void *args, size_t arg_size)
{
    struct took one = threads_run(1, body, args, arg_size), two = threads_run(2, body, args, arg_size);
    print_figure("scaling", 2 * (double)one.ns / (double)two.ns);
    print_figure("scaling_busy", 4 * (double)one.busy_ns / (double)two.busy_ns);
}
