/* Memory that a burst took and glibc keeps. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdint.h>

/**
 * Give pages back to the system where far more is held than is in use.
 * Returns: in how many milliseconds to come again. Threads: one.
 */
int64_t memory_give_back(void);

#endif
