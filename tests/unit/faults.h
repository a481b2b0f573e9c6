/**
 * System calls of the engine that a test watches and makes fail: linked with --wrap, so the engine itself is as it is.
 *
 * Caveats first: the calls of every thread are counted together; a hook runs in the thread that calls.
 */
#ifndef RDRIVE_TESTS_FAULTS_H
#define RDRIVE_TESTS_FAULTS_H

#include "support.h"

#include <sys/resource.h>

enum call { CALL_PWRITEV, CALL_FDATASYNC, CALL_FSYNC, CALL_FTRUNCATE, CALL_KINDS };

/* No fault, no hook, no count; the clock stays as it is. Also the group's setup and teardown for each test. */
void faults_clear(void);
int faults_setup(void **state);
int faults_teardown(void **state);
#define FAULT_TEST(f) cmocka_unit_test_setup_teardown(f, faults_setup, faults_teardown)

/* From now on the `nth` call (1: the next) fails with `error`; those behind it work again. */
void faults_fail(enum call call, size_t nth, int error);

/* Calls since the last clear, failed ones included. */
size_t faults_count(enum call call);

/* They as lines "pwritev NAME", NAME being the last part of the file's path. Begins anew at each clear. */
const char *faults_log(void);

/* Called before each of the calls, without a lock. */
void faults_hook(void (*hook)(enum call call, const char *name, void *arg), void *arg);

/* Let pwritev write at most `bytes` at a time; 0: all. Every second call is interrupted too. */
void faults_short_writes(size_t bytes);

/* Have O_TMPFILE refused, as some file systems do. */
void faults_refuse_unnamed(void);

/* No file of this process may grow beyond `bytes`, until the test ends; SIGXFSZ is the test's to ignore. */
void faults_file_size_limit(rlim_t bytes);

/* The monotonic clock of the engine says this. As a test begins it stands still. */
void faults_clock(long seconds);

/* Wait until so many threads in all have begun to wait for the commit of another since the last clear. */
void faults_await_waiting(size_t count);

#endif
