/* Files that would make a careless recovery slow: the same harm at any size. */
#ifndef RDRIVE_TESTS_HOSTILE_H
#define RDRIVE_TESTS_HOSTILE_H

#include "support.h"

/* X(name, what it is) */
#define HOSTILES(X)                                                                                                    \
    X(HOSTILE_NONE, "intact")                                                                                          \
    X(HOSTILE_LINK_OLDEST, "link of the oldest entry damaged")                                                         \
    X(HOSTILE_LINK_MIDDLE, "link of the middle entry damaged")                                                         \
    X(HOSTILE_LINK_NEWEST, "link of the newest entry damaged")                                                         \
    X(HOSTILE_TORN, "torn tail")                                                                                       \
    X(HOSTILE_ZEROS, "as many zeros appended")                                                                         \
    X(HOSTILE_NOISE, "as many random bytes appended")                                                                  \
    X(HOSTILE_PAYLOADS, "every second payload damaged")                                                                \
    X(HOSTILE_LINKS, "every second link zeroed")                                                                       \
    X(HOSTILE_FAKES, "fake links at every 8 bytes appended")

#define HOSTILE_ENUM(name, text) name,
enum hostile { HOSTILES(HOSTILE_ENUM) HOSTILE_KINDS };
#undef HOSTILE_ENUM

const char *hostile_text(enum hostile kind);
/* `count` entries of 8 bytes each under keys of fill_hash, harmed. */
struct bytes hostile_build(enum hostile kind, uint64_t count);
/* How many of them can be told to be whole: the least that a recovery must find. */
uint64_t hostile_whole(enum hostile kind, uint64_t count);

#endif
