/* The client in the daemon: is another one's health good? */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stddef.h>

/**
 * Ask Health.Check "" of the server at `address` (host:port or unix:/path, plaintext; a wildcard host means loopback).
 * Returns: whether it is SERVING; else `out_why` is one line that says what is the case. Takes `timeout_ms` at most,
 * and ends the core before it returns: not for a process that serves.
 */
bool probe_health(const char *address, int timeout_ms, char *out_why, size_t why_size);

#endif
