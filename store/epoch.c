#include "epoch.h"
#include "base.h"
#include <pthread.h>
#include <time.h>

static _Atomic uint64_t clock_now = 1;
static struct epoch_reader *_Atomic readers; /* all lines ever made */
static atomic_uint made;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key; /* gives a line back as its thread ends */

/* For threads that got no line: while any of them reads, nothing passes. */
static struct epoch_reader shared;
static atomic_size_t sharing;

/* initial-exec: a look at it is one instruction, and allocates nothing */
static __attribute__((tls_model("initial-exec"))) _Thread_local struct epoch_reader *mine;

static void give_back(void *reader)
{
    mine = NULL;
    atomic_store_explicit(&((struct epoch_reader *)reader)->taken, false, memory_order_release);
}

/* In a child of fork only the thread that forked lives on: no other reads, and none will leave. */
static void forget_others(void)
{
    atomic_store(&sharing, 0);
    for (struct epoch_reader *line = atomic_load(&readers); line != NULL; line = line->next) {
        if (line == mine)
            continue;
        atomic_store(&line->entered, 0);
        atomic_store(&line->taken, false);
    }
}

static void make_key(void)
{
    RD_REQUIRE(pthread_key_create(&key, give_back) == 0);
    int refused = pthread_atfork(NULL, NULL, forget_others);
    (void)refused; /* without memory: then a child that opens a store of its own may keep what it replaces */
}

/* A line that an ended thread has left, or a new one; NULL without memory. */
static struct epoch_reader *take_line(void)
{
    struct epoch_reader *line = atomic_load_explicit(&readers, memory_order_acquire);
    for (; line != NULL; line = line->next) {
        bool taken = false;
        if (atomic_compare_exchange_strong(&line->taken, &taken, true))
            return line;
    }
    line = aligned_alloc(_Alignof(struct epoch_reader), sizeof(*line));
    if (line == NULL)
        return NULL;
    *line = (struct epoch_reader){.number = atomic_fetch_add(&made, 1)};
    atomic_init(&line->taken, true);
    line->next = atomic_load(&readers);
    while (!atomic_compare_exchange_weak(&readers, &line->next, line)) {
    }
    return line;
}

static __attribute__((noinline)) struct epoch_reader *first_enter(void)
{
    pthread_once(&once, make_key);
    struct epoch_reader *line = take_line();
    if (line != NULL && pthread_setspecific(key, line) != 0) {
        atomic_store_explicit(&line->taken, false, memory_order_release);
        line = NULL;
    }
    mine = line;
    if (line != NULL)
        return line;
    atomic_fetch_add(&sharing, 1);
    return &shared;
}

struct epoch_reader *epoch_enter(void)
{
    struct epoch_reader *reader = mine;
    if (__builtin_expect(reader == NULL, 0)) {
        reader = first_enter();
        if (reader == &shared)
            return reader;
    }
    uint64_t now = atomic_load(&clock_now);
    /* an exchange, for its barrier: whoever unlinks something after this is seen by what is loaded next, and whoever
       did before sees this line */
    uint64_t before = atomic_exchange(&reader->entered, now);
    RD_REQUIRE(before == 0);
    return reader;
}

void epoch_leave(struct epoch_reader *reader)
{
    if (__builtin_expect(reader == &shared, 0))
        atomic_fetch_sub(&sharing, 1);
    else
        atomic_store_explicit(&reader->entered, 0, memory_order_release);
}

uint64_t epoch_retire(void)
{
    return atomic_fetch_add(&clock_now, 1);
}

bool epoch_passed(uint64_t epoch)
{
    if (atomic_load(&sharing) > 0)
        return false;
    const struct epoch_reader *line = atomic_load(&readers);
    for (; line != NULL; line = line->next) {
        uint64_t entered = atomic_load(&line->entered);
        if (entered != 0 && entered <= epoch)
            return false;
    }
    return true;
}

void epoch_wait(uint64_t epoch)
{
    static const struct timespec pause = {.tv_nsec = 20000};
    while (!epoch_passed(epoch))
        nanosleep(&pause, NULL);
}
