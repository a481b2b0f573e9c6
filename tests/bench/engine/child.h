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
job_run ours_reads, ours_threads, ours_open, ours_make, ours_singles, ours_durable, ours_grow, ours_compact,
    ours_compact_written, ours_snapshot, ours_save_index;
/* The limit of this machine */
job_run bare_reads, bare_threads, bare_open, bare_make, bare_singles, bare_durable, bare_grow, bare_snapshot;

/* A wrong answer or a failed call: say so and end with status 2. */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (__builtin_expect(!(condition), 0))                                                                         \
            die("%s:%d: not %s", __FILE__, __LINE__, #condition);                                                      \
    } while (0)

uint64_t now_ns(void);
/* Of the calling thread's time on a processor: for loops of one thread that never wait. On a quiet machine the two are
 * the same; on a busy one this leaves out the time others took. */
uint64_t busy_ns(void);
/* The same of all threads of the process. */
uint64_t process_busy_ns(void);
void print_figure(const char *name, double number);
/* Memory of this process that no file backs, in bytes. */
double memory_anonymous(void);

/* What threads took: from the first's beginning to the last's end, and their time on a processor, all together. */
struct took {
    uint64_t ns, busy_ns;
};

/* Let `count` threads run `body(args + i * arg_size)`, all beginning together. */
struct took threads_run(size_t count, void *(*body)(void *), void *args, size_t arg_size);

/* One thread, then two with as much to do each: print how many times as much two get done, by the clock (`scaling`) and
 * by their time on processors (`scaling_busy`: what they cost each other, waiting for locks apart). */
void print_scaling(void *(*body)(void *), void *args, size_t arg_size);

#endif
