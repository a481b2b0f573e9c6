/* What the process holds, and what a burst took and glibc keeps. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* Keep glibc from raising, by itself, what each thread's arena may keep to 64 MiB. Before any thread starts. */
void memory_configure(void);

/* Before the others, and before descriptors run short. Returns: false, with errno, where the system says nothing. */
bool memory_prepare(void);

/**
 * Give pages back to the system where far more is held than is in use.
 * Returns: in how many milliseconds to come again. Threads: one.
 */
int64_t memory_give_back(void);

/* Pages that are this process's own: neither the store's mapping nor code. 0 where the system doesn't say. Any thread.
 */
uint64_t memory_held(void);

#endif
