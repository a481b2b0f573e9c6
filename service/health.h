/* grpc.health.v1: what is served now, told to those who ask and to those who watch. */
#ifndef HEALTH_H
#define HEALTH_H

#include <pthread.h>
#include <stdbool.h>

struct call;

struct health {
    pthread_mutex_t lock; /* guards all below and each watch on the list */
    bool serving;
    bool writing;
    bool ending; /* watches end */
    struct call *watches;
};

void health_init(struct health *health);
void health_fini(struct health *health);

/* Set what is told, of the writer and of all else, and wake the watches. Any thread. */
void health_set(struct health *health, bool serving, bool writing);

/* End every watch, now and from now on, with UNAVAILABLE. Any thread. */
void health_end(struct health *health);

/* OP_WAKE has come for a watch. */
void health_woken(struct call *call);

/* Take a watch off the list. Returns: whether its wake tag will still come. */
bool health_detach(struct call *call);

#endif
