/* The few words that every module of the engine uses. */
#ifndef RD_BASE_H
#define RD_BASE_H

#include <rdrive/error.h>
#include <stdio.h>
#include <stdlib.h>

/* A caller's bug, never bad input: always on. */
#define RD_REQUIRE(condition)                                                                                          \
    do {                                                                                                               \
        if (__builtin_expect(!(condition), 0)) {                                                                       \
            fprintf(stderr, "rdrive: %s:%d: caller's bug: not %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define RD_TRY(expression)                                                                                             \
    do {                                                                                                               \
        rd_err try_err_ = (expression);                                                                                \
        if (try_err_ != RD_OK)                                                                                         \
            return try_err_;                                                                                           \
    } while (0)

#define RD_CLEANUP(function) __attribute__((cleanup(function)))

#endif
