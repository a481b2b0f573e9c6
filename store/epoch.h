/* Epoch-based reclamation, for a whole process: who looks at what others may replace says from when to when; who takes
   something away frees it once all have left who might have seen it. Nobody waits for anybody. */
#ifndef RD_EPOCH_H
#define RD_EPOCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A thread's own line. It is made at the thread's first read, taken over by another once the thread has ended, and
   never freed: there are as many as threads ever read at once. */
struct epoch_reader {
    _Alignas(64) _Atomic uint64_t entered; /* the clock when its thread began to read; 0 while it doesn't */
    struct epoch_reader *next;             /* in the list of all */
    atomic_bool taken;
    unsigned number; /* counts up from 0: which share of a counter is its thread's */
};

/**
 * Begin to read: what is loaded (seq_cst; what hangs from it, acquire) from shared pointers until
 * epoch_leave stays valid up to there. Takes no lock
 * and writes to no line that another thread writes to. Don't nest it; between the two don't block, and touch no
 * mapping. Never NULL: where memory for a line is refused, threads share one.
 */
struct epoch_reader *epoch_enter(void);
void epoch_leave(struct epoch_reader *reader);

/**
 * What was unlinked (seq_cst) before this call is nobody's any more once epoch_passed(the result) holds.
 * Threads: any.
 */
uint64_t epoch_retire(void);
bool epoch_passed(uint64_t epoch);

/* Wait until then. Not between enter and leave. */
void epoch_wait(uint64_t epoch);

#endif
