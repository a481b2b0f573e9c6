#ifndef RD_THREAD_H
#define RD_THREAD_H

#include <pthread.h>
#include <rdrive/error.h>

/**
 * Start a thread of the engine's own. Signals are the process's business, so it has them blocked, those apart that a
 * fault raises: the kernel ends a process whose faulting thread blocks them, whatever handler there is.
 * Returns: RD_OK, RD_E_NOMEM.
 */
RD_MUST_CHECK rd_err thread_start(void *(*run)(void *argument), void *argument, pthread_t *out_thread);

#endif
