#include "parked.h"

#include "support.h"

static void *park(void *argument)
{
    struct parked *parked = argument;
    struct epoch_reader *reader = epoch_enter();
    parked->line = reader;
    sem_post(&parked->entered);
    while (sem_wait(&parked->may_leave) != 0) {
    }
    epoch_leave(reader);
    return NULL;
}

void parked_enter(struct parked *parked)
{
    EXPECT(sem_init(&parked->entered, 0, 0) == 0 && sem_init(&parked->may_leave, 0, 0) == 0, "no semaphores");
    EXPECT(pthread_create(&parked->thread, NULL, park, parked) == 0, "no thread");
    while (sem_wait(&parked->entered) != 0) {
    }
}

void parked_leave(struct parked *parked)
{
    sem_post(&parked->may_leave);
    pthread_join(parked->thread, NULL);
    sem_destroy(&parked->entered);
    sem_destroy(&parked->may_leave);
}
