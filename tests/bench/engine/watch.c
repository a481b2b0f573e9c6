#include "watch.h"
#include "child.h"
#include "shape.h"

#include <sched.h>

static void *watch_run(void *arg)
{
    struct watch *watch = arg;
    uint64_t state = PICK_SEED;
    long switches = 0;
    latency_preempted(&switches);
    while (!atomic_load_explicit(&watch->stop, memory_order_relaxed)) {
        uint64_t i = pick_below(&state, atomic_load_explicit(&watch->keys, memory_order_acquire));
        uint64_t began = now_ns();
        watch->read_one(watch->store, i);
        uint64_t ns = now_ns() - began;
        bool preempted = latency_preempted(&switches);
        latency_add(&watch->whole, ns, preempted);
        latency_add(&watch->phases[atomic_load_explicit(&watch->phase, memory_order_relaxed)], ns, preempted);
        atomic_fetch_add_explicit(&watch->reads, 1, memory_order_relaxed);
    }
    return NULL;
}

void watch_begin(struct watch *watch, uint64_t (*read_one)(void *store, uint64_t i), void *store, uint64_t keys)
{
    watch->read_one = read_one;
    watch->store = store;
    atomic_store(&watch->keys, keys);
    CHECK(pthread_create(&watch->thread, NULL, watch_run, watch) == 0);
    while (atomic_load(&watch->reads) == 0)
        sched_yield();
}

void watch_end(struct watch *watch)
{
    atomic_store(&watch->stop, true);
    pthread_join(watch->thread, NULL);
}

unsigned watch_growth_phase(uint64_t first, uint64_t keys)
{
    return keys <= 2 * first ? 0 : keys <= 4 * first ? 1 : 2;
}

void watch_print(const struct watch *watch)
{
    static const char *const names[PHASES] = {"read0", "read1", "read2"};
    latency_print(&watch->whole, "read");
    for (unsigned phase = 0; phase < PHASES; phase++)
        latency_print(&watch->phases[phase], names[phase]);
}
