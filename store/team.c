#include "team.h"
#include "base.h"
#include "thread.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SPINS_MAX 2000u /* some ten µs: pieces follow each other closely, and waking a thread takes as long */

/* Which call of team_run, and how many of its pieces nobody has begun: one word, so that a piece can't be taken of a
   call that is over. What else is of the call is read only once a piece of it has been taken. */
#define TICKET_LEFT UINT64_C(0xffffffff)
#define TICKET_CALL (TICKET_LEFT + 1)

struct team {
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) atomic_size_t done; /* pieces of this call */
    size_t count;
    team_work *work;
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t begun;    /* a call, or the end */
    pthread_cond_t finished; /* its last piece */
    atomic_bool ending;
    unsigned size;
    struct member {
        struct team *team;
        unsigned number;
        pthread_t thread;
    } members[TEAM_THREADS_MAX]; /* the first is the caller */
};

unsigned team_cores(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < 1 ? 1 : count > TEAM_THREADS_MAX ? TEAM_THREADS_MAX : (unsigned)count;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Take pieces until all have been begun. */
static void work_along(struct team *team, unsigned member)
{
    uint64_t ticket = atomic_load_explicit(&team->ticket, memory_order_acquire);
    while ((ticket & TICKET_LEFT) != 0) {
        if (!atomic_compare_exchange_weak_explicit(&team->ticket, &ticket, ticket - 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        size_t count = team->count;
        team->work(team->context, count - (size_t)(ticket & TICKET_LEFT), member);
        if (atomic_fetch_add_explicit(&team->done, 1, memory_order_acq_rel) + 1 == count) {
            pthread_mutex_lock(&team->lock); /* the caller is awake, or waits for this */
            pthread_cond_signal(&team->finished);
            pthread_mutex_unlock(&team->lock);
        }
        ticket = atomic_load_explicit(&team->ticket, memory_order_acquire);
    }
}

static bool is_idle(struct team *team)
{
    return (atomic_load_explicit(&team->ticket, memory_order_acquire) & TICKET_LEFT) == 0 &&
           !atomic_load_explicit(&team->ending, memory_order_acquire);
}

static void *member_run(void *argument)
{
    struct member *member = argument;
    struct team *team = member->team;
    while (!atomic_load_explicit(&team->ending, memory_order_acquire)) {
        work_along(team, member->number);
        for (unsigned spins = 0; spins < SPINS_MAX && is_idle(team); spins++)
            relax();
        pthread_mutex_lock(&team->lock);
        while (is_idle(team))
            pthread_cond_wait(&team->begun, &team->lock);
        pthread_mutex_unlock(&team->lock);
    }
    return NULL;
}

rd_err team_create(unsigned size, struct team **out_team)
{
    RD_REQUIRE(size >= 1 && size <= TEAM_THREADS_MAX);
    struct team *team = aligned_alloc(_Alignof(struct team), sizeof(*team));
    if (team == NULL)
        return RD_E_NOMEM;
    *team = (struct team){.size = 1};
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->begun, NULL);
    pthread_cond_init(&team->finished, NULL);
    for (; team->size < size; team->size++) {
        struct member *member = &team->members[team->size];
        *member = (struct member){.team = team, .number = team->size};
        if (thread_start(member_run, member, &member->thread) != RD_OK)
            break;
    }
    *out_team = team;
    return RD_OK;
}

unsigned team_size(const struct team *team)
{
    return team->size;
}

void team_run(struct team *team, size_t count, team_work *work, void *context)
{
    RD_REQUIRE(count <= TICKET_LEFT);
    if (count == 0)
        return;
    team->count = count;
    team->work = work;
    team->context = context;
    atomic_store_explicit(&team->done, 0, memory_order_relaxed);
    uint64_t call = (atomic_load_explicit(&team->ticket, memory_order_relaxed) & ~TICKET_LEFT) + TICKET_CALL;
    if (count > 1 && team->size > 1) {
        pthread_mutex_lock(&team->lock); /* nobody is between looking and going to sleep */
        atomic_store_explicit(&team->ticket, call | count, memory_order_release);
        pthread_cond_broadcast(&team->begun);
        pthread_mutex_unlock(&team->lock);
    } else {
        atomic_store_explicit(&team->ticket, call | count, memory_order_release);
    }
    work_along(team, 0);
    for (unsigned spins = 0; spins < SPINS_MAX; spins++) {
        if (atomic_load_explicit(&team->done, memory_order_acquire) == count)
            break;
        relax();
    }
    pthread_mutex_lock(&team->lock);
    while (atomic_load_explicit(&team->done, memory_order_acquire) != count)
        pthread_cond_wait(&team->finished, &team->lock);
    pthread_mutex_unlock(&team->lock);
}

void team_destroy(struct team *team)
{
    if (team == NULL)
        return;
    pthread_mutex_lock(&team->lock);
    atomic_store_explicit(&team->ending, true, memory_order_release);
    pthread_cond_broadcast(&team->begun);
    pthread_mutex_unlock(&team->lock);
    for (unsigned i = 1; i < team->size; i++)
        pthread_join(team->members[i].thread, NULL);
    pthread_cond_destroy(&team->finished);
    pthread_cond_destroy(&team->begun);
    pthread_mutex_destroy(&team->lock);
    free(team);
}
