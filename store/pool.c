#include "pool.h"
#include "base.h"
#include "thread.h"
#include <stdbool.h>

#define POOL_THREADS_MAX 64

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct job *head;
    struct job **tail;
    bool ending;
    size_t take_max;
    pool_run *run;
    void *context;
    size_t thread_count;
    pthread_t threads[POOL_THREADS_MAX];
};

/* Wait for jobs and unlink up to take_max of them; NULL at the end. */
static struct job *pool_take(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->head == NULL && !pool->ending)
        pthread_cond_wait(&pool->arrived, &pool->lock);
    struct job *first = pool->head;
    struct job *last = first;
    for (size_t i = 1; last != NULL && last->next != NULL && i < pool->take_max; i++)
        last = last->next;
    if (last != NULL) {
        pool->head = last->next;
        if (pool->head == NULL)
            pool->tail = &pool->head;
        last->next = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    return first;
}

static void *pool_thread(void *argument)
{
    struct pool *pool = argument;
    struct job *jobs;
    while ((jobs = pool_take(pool)) != NULL)
        pool->run(pool->context, jobs);
    return NULL;
}

static void start_threads(struct pool *pool, size_t thread_count)
{
    while (pool->thread_count < thread_count &&
           thread_start(pool_thread, pool, &pool->threads[pool->thread_count]) == RD_OK)
        pool->thread_count++;
}

rd_err pool_create(size_t thread_count, size_t take_max, pool_run *run, void *context, struct pool **out_pool)
{
    RD_REQUIRE(thread_count > 0 && thread_count <= POOL_THREADS_MAX && take_max > 0);
    struct pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL)
        return RD_E_NOMEM;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->arrived, NULL);
    pool->tail = &pool->head;
    pool->take_max = take_max;
    pool->run = run;
    pool->context = context;
    start_threads(pool, thread_count);
    if (pool->thread_count < thread_count) {
        pool_destroy(pool);
        return RD_E_NOMEM;
    }
    *out_pool = pool;
    return RD_OK;
}

void pool_submit(struct pool *pool, struct job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&pool->lock);
    *pool->tail = job;
    pool->tail = &job->next;
    pthread_cond_signal(&pool->arrived);
    pthread_mutex_unlock(&pool->lock);
}

void pool_destroy(struct pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    pthread_cond_broadcast(&pool->arrived);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->arrived);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
