/**
 * Accepting connections while descriptors are short.
 *
 * gRPC's core gives a listener up for good, with one line in its log, at any error of accept4 but EAGAIN, EINTR and
 * ECONNABORTED: one burst of connections, and nobody reaches the daemon any more. It calls accept4 through the dynamic
 * linker, so accept.c defines that function for the whole process:
 *
 * - A connection that gets no descriptor is taken from the queue and closed: its client sees that at once and may go
 *   elsewhere. For this, one descriptor is kept in reserve.
 * - So is one that would take a descriptor from the last ones, which are for the store's files and our own.
 * - What the network reports of a connection that failed before it was accepted is passed over.
 * - The caller hears EAGAIN only when nothing waits any more: the core waits for an edge. (Where even the reserve is
 *   gone, or the system has no memory, what waits is left to the next edge: the next connection brings it, at the
 * latest the watchdog's knock.)
 */
#ifndef ACCEPT_H
#define ACCEPT_H

#include <stdint.h>

#define ACCEPT_HEADROOM_MAX  64 /* descriptors that connections can't take: so many, */
#define ACCEPT_HEADROOM_PART 8  /* but no more than this part of the limit on them */

/* Take the reserve. Before the server listens; whoever links this library must call it, or accept4 stays libc's. */
void accept_prepare(void);

/* Give the reserve back and log what is untold. After the server has ended. */
void accept_end(void);

/* Connections refused so far. Any thread. */
uint64_t accept_refused(void);

/* Log the refusals of which the log has not told yet; each refusal does so too, at most once a second. Any thread. */
void accept_tell(void);

#endif
