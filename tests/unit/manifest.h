/**
 * The fixtures' manifests (tests/fixtures/README.md), read with jansson.
 */
#ifndef RDRIVE_TESTS_MANIFEST_H
#define RDRIVE_TESTS_MANIFEST_H

#include "support.h"

#include <jansson.h>

#define FIXTURES_MIN 18

/* One valid fixture: its name without the folder ("02_single.srd"), its bytes, its manifest. */
struct fixture {
    const char *name;
    struct bytes file;
    json_t *manifest;
};

struct fixture fixture_get(const char *name);
void fixture_fini(struct fixture *fixture);
#define AUTO_FIXTURE __attribute__((cleanup(fixture_fini))) struct fixture

/* Call `visit` for each valid fixture, in the order of their names; fails if there are fewer than FIXTURES_MIN. */
void fixture_each(void (*visit)(const struct fixture *fixture, void *arg), void *arg);

/* Fields; a field that is missing fails the test. */
json_t *field(const json_t *object, const char *name);
uint64_t field_u64(const json_t *object, const char *name);
const char *field_text(const json_t *object, const char *name);
bool field_is(const json_t *object, const char *name, const char *text);
bool field_true(const json_t *object, const char *name);
uint64_t field_hash(const json_t *object, const char *name); /* hex → number; also a crc */
uint64_t hash_of_hex(const char *hex);

/* The bytes of a payload as an op names it. */
struct bytes payload_make(const json_t *payload);
/* Whether the bytes are the payload of an object with `payload_hex` or `payload_sha256`. */
bool payload_matches(const json_t *object, rd_span payload);

/* expect.json of the damaged files. */
json_t *expect_load(void);

#endif
