/* Threads that take jobs from a queue, some at a time. */
#ifndef RD_POOL_H
#define RD_POOL_H

#include <rdrive/error.h>
#include <stddef.h>

struct job {
    struct job *next;
};

struct pool;

/* `run` gets a list of 1 to `take_max` jobs in the order of their arrival; they are its own. */
typedef void pool_run(void *context, struct job *jobs);

/* Returns: RD_OK; RD_E_NOMEM where memory or threads are refused. */
RD_MUST_CHECK rd_err pool_create(size_t thread_count, size_t take_max, pool_run *run, void *context,
                                 struct pool **out_pool);

/* Never blocks for long and never fails. Any thread. */
void pool_submit(struct pool *pool, struct job *job);

/* Run what is queued, then end. NULL is fine. */
void pool_destroy(struct pool *pool);

#endif
