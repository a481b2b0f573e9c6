/**
 * Operations of the asynchronous engine interface, waited for on a condition variable and counted.
 */
#ifndef RDRIVE_TESTS_ASYNCOP_H
#define RDRIVE_TESTS_ASYNCOP_H

#include "support.h"

#include <pthread.h>
#include <rdrive/engine.h>

/* An operation with what its hook needs: it finds this again by its address. */
struct asyncop {
    rd_op op; /* first */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    unsigned started, completed;
    bool on_caller; /* the last completion came on the thread that started it */
    pthread_t caller;
};

void asyncop_init(struct asyncop *a, rd_op_kind kind);
void asyncop_submit(rd_engine *engine, struct asyncop *a);
void asyncop_next(rd_engine *engine, struct asyncop *a);
/* Wait until every start has completed. Any thread; it checks nothing. */
void asyncop_wait(struct asyncop *a);
rd_err asyncop_run(rd_engine *engine, struct asyncop *a); /* submit and wait */
/* Finish, and fail unless each start completed exactly once. Main thread. */
void asyncop_finish(rd_engine *engine, struct asyncop *a);
/* Whether it completed as often as it was started; for threads, which can't fail a test. */
bool asyncop_is_even(struct asyncop *a);
void asyncop_fini(struct asyncop *a);

/* An engine over a store at "s" of the test's folder. */
rd_engine *asyncop_engine(void **state, const rd_open_options *options);
/* One key's result; where it has a value, that must be this payload. */
rd_err asyncop_read(rd_engine *engine, uint64_t hash, const void *payload, size_t len);
uint64_t asyncop_tail(rd_engine *engine);
/* A write of `item`, which must stay. */
void asyncop_write_init(struct asyncop *a, const rd_write_item *item);

#endif
