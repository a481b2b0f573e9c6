/**
 * Readers that stay between epoch_enter and epoch_leave for as long as a test wants, on threads of their own.
 */
#ifndef RDRIVE_TESTS_PARKED_H
#define RDRIVE_TESTS_PARKED_H

#include "epoch.h"

#include <pthread.h>
#include <semaphore.h>

struct parked {
    pthread_t thread;
    sem_t entered, may_leave;
    const struct epoch_reader *line;
};

/* Returns once it has entered. */
void parked_enter(struct parked *parked);
/* Returns once its thread has ended. */
void parked_leave(struct parked *parked);

#endif
