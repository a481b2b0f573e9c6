/**
 * What the tests of the index share: keys that are numbers, and hashes chosen as somebody would who knows the secret.
 */
#ifndef RDRIVE_TESTS_INDEXES_H
#define RDRIVE_TESTS_INDEXES_H

#include "index.h"

#include "support.h"

/* Of a number: its hash, which no other has. 0 and 1 have the least and the greatest there are. */
uint64_t number_hash(uint64_t number);

struct random {
    uint64_t state; /* never 0 */
};
uint64_t random_below(struct random *random, uint64_t end);

/* The hash that is mixed to `mixed` by a table of this secret. */
uint64_t hash_that_mixes_to(uint64_t secret, uint64_t mixed);

struct table *index_table(const struct index *index);
bool index_moves(const struct index *index);
size_t index_slots(const struct index *index);

/* Reserve room and put. */
void index_put(struct index *index, uint64_t hash, uint64_t word);

/* An index of numbers [0, count), each with its word, number_word. */
struct index index_of_numbers(uint64_t count);
uint64_t number_word(uint64_t number);

/* Fail unless it finds all of them, and none of as many more. */
void index_expect_numbers(const struct index *index, uint64_t count);

#endif
