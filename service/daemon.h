/* The daemon's life: options, ports, store, serving, drain. */
#ifndef DAEMON_H
#define DAEMON_H

#include <rdrive/engine.h>

/**
 * Run until a signal ends it. `wrap`, where not NULL, may put another engine in front of the embedded one, which it
 * then owns; it returns NULL to give up. Returns: the exit status: 0 after a clean stop, 2 where the store can't be
 * opened or an address can't be served, 64 for a wrong option; of --probe 0 where the daemon serves and 1 where not.
 */
int daemon_main(int argc, char **argv, rd_engine *(*wrap)(rd_engine *embedded));

#endif
