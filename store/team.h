/* A few threads that carry out numbered pieces of work together with who asks them to, and then wait for the next. */
#ifndef RD_TEAM_H
#define RD_TEAM_H

#include <rdrive/error.h>
#include <stddef.h>

#define TEAM_THREADS_MAX 16

struct team;

/* Carry out piece `number`; `member` is 0 for who called team_run, and at most as large as the team, less one. */
typedef void team_work(void *context, size_t number, unsigned member);

/* How many threads the system lets this one run on, at most TEAM_THREADS_MAX. */
unsigned team_cores(void);

/* `size` includes the caller; where threads are refused it is smaller, which only takes longer.
   Returns: RD_OK, RD_E_NOMEM. */
RD_MUST_CHECK rd_err team_create(unsigned size, struct team **out_team);

unsigned team_size(const struct team *team);

/**
 * Carry out pieces 0 to `count` - 1, begun in that order, each exactly once; all are done when it returns.
 * Requires: `count` is below 2^32. `work` returns: it jumps out of nothing. Threads: one at a time.
 */
void team_run(struct team *team, size_t count, team_work *work, void *context);

/* Nothing is being run. NULL is fine. */
void team_destroy(struct team *team);

#endif
