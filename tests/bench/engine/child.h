/* What one measurement is made of: a process of its own that prints figures, a line each: `name number`. */
#ifndef RDRIVE_BENCH_CHILD_H
#define RDRIVE_BENCH_CHILD_H

#include <rdrive/store.h>
#include <stdint.h>
#include <stdio.h>

struct job {
    const char *path; /* the store to read, or the one to make */
    uint64_t keys;
    uint64_t count; /* what it means is the job's */
    rd_verify verify;
};

typedef void job_run(const struct job *job);

/* Ours */
job_run ours_reads, ours_threads, ours_open, ours_make, ours_singles, ours_durable, ours_grow, ours_compact;
/* The limit of this machine */
job_run bare_reads, bare_threads, bare_open, bare_make, bare_singles, bare_durable, bare_grow;

/* A wrong answer or a failed call: say so and end with status 2. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (__builtin_expect(!(condition), 0))                                                                         \
            die("%s:%d: not %s", __FILE__, __LINE__, #condition);                                                      \
    } while (0)

uint64_t now_ns(void);
void print_figure(const char *name, double number);
/* Memory of this process that no file backs, in bytes. */
double memory_anonymous(void);

/* Let `count` threads run `body(arg + i * size)`, all beginning together. Returns: nanoseconds from the first's
 * beginning to the last's end. */
uint64_t threads_run(size_t count, void *(*body)(void *), void *args, size_t arg_size);

#endif
