/* A message on its way out. */
#include "message.h"
#include "reply.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t outside[50000] = {7};

struct counted {
    unsigned released;
};

static void release(void *counted)
{
    ((struct counted *)counted)->released++;
}

static void refer(struct reply *reply, struct counted *counted, size_t len)
{
    reply_refer(reply, (rd_span){.data = outside, .len = len}, (rd_hold){.release = release, .arg = counted});
}

static void nothing_begun_is_no_message_and_an_empty_one_is(void **state)
{
    (void)state;
    struct reply reply = {0};
    EXPECT(!reply.any, "nothing was begun");
    reply_reserve(&reply, 0);
    EXPECT(reply.any && reply.total == 0, "%zu", reply.total);
    grpc_byte_buffer *message = reply_take(&reply);
    EXPECT(message != NULL && grpc_byte_buffer_length(message) == 0, "empty");
    grpc_byte_buffer_destroy(message);
    EXPECT(!reply.any && reply.capacity == 0 && reply.closed == NULL, "it is empty again");
}

/* Random puts, reserves, partial commits and references, against the same bytes gathered by hand. */
static void bytes_come_out_as_they_went_in_however_it_grows(void **state)
{
    (void)state;
    struct dice dice = {21};
    for (size_t round = 0; round < 300; round++) {
        struct reply reply = {0};
        struct counted counted = {0};
        unsigned referred = 0;
        AUTO_BYTES wanted = {0};
        size_t steps = (size_t)dice_roll(&dice, 100);
        for (size_t i = 0; i < steps; i++) {
            uint8_t noise[3000];
            size_t len = (size_t)dice_roll(&dice, dice_roll(&dice, 4) == 0 ? sizeof noise : 40);
            memset(noise, (int)dice_roll(&dice, 256), sizeof noise);
            if (dice_roll(&dice, 6) == 0) {
                refer(&reply, &counted, 1 + 10 * len);
                bytes_append(&wanted, outside, 1 + 10 * len);
                referred++;
            } else if (dice_roll(&dice, 2) == 0) {
                reply_put(&reply, noise, len);
                bytes_append(&wanted, noise, len);
            } else {
                size_t less = (size_t)dice_roll(&dice, len + 1); /* more was reserved than is needed */
                uint8_t *at = reply_reserve(&reply, len);
                memcpy(at, noise, len);
                reply_commit(&reply, less);
                bytes_append(&wanted, noise, less);
            }
            EXPECT(reply.total == wanted.len, "%zu, not %zu", reply.total, wanted.len);
        }
        grpc_byte_buffer *message = reply_take(&reply);
        EXPECT(message != NULL && counted.released == 0, "%u released", counted.released);
        AUTO_BYTES got = message_eat(message);
        EXPECT(got.len == wanted.len, "%zu, not %zu", got.len, wanted.len);
        if (got.len > 0)
            assert_memory_equal(got.data, wanted.data, got.len);
        EXPECT(counted.released == referred, "%u of %u released", counted.released, referred);
        reply_fini(&reply);
    }
}

static void growth_is_by_doubling(void **state)
{
    (void)state;
    struct reply reply = {0};
    size_t grown = 0;
    size_t capacity = 0;
    for (size_t i = 0; i < 1000000; i++) {
        reply_put(&reply, "x", 1);
        grown += reply.capacity != capacity;
        capacity = reply.capacity;
    }
    EXPECT(grown <= 14, "it grew %zu times", grown);
    EXPECT(capacity < 2500000, "%zu bytes for a million", capacity);
    reply_fini(&reply);
}

static void many_slices_keep_their_order(void **state)
{
    (void)state;
    struct reply reply = {0};
    struct counted counted = {0};
    for (size_t i = 0; i < 3000; i++) {
        uint8_t byte = (uint8_t)i;
        if (i % 3 != 2)
            reply_put(&reply, &byte, 1);
        else
            refer(&reply, &counted, 1);
    }
    AUTO_BYTES got = message_eat(reply_take(&reply));
    EXPECT(got.len == 3000, "%zu", got.len);
    for (size_t i = 0; i < got.len; i++)
        EXPECT(got.data[i] == (i % 3 != 2 ? (uint8_t)i : 7), "byte %zu", i);
    EXPECT(counted.released == 1000, "%u", counted.released);
}

static void references_beside_each_other_need_no_bytes_between(void **state)
{
    (void)state;
    struct reply reply = {0};
    struct counted counted = {0};
    refer(&reply, &counted, 100);
    refer(&reply, &counted, sizeof outside);
    grpc_byte_buffer *message = reply_take(&reply);
    EXPECT(message->data.raw.slice_buffer.count == 2, "%zu", message->data.raw.slice_buffer.count);
    EXPECT(grpc_byte_buffer_length(message) == 100 + sizeof outside, "length");
    grpc_byte_buffer_destroy(message);
    EXPECT(counted.released == 2, "%u", counted.released);
    reply_fini(&reply);
}

static void thrown_away_in_any_state_it_gives_everything_back(void **state)
{
    (void)state;
    for (unsigned steps = 0; steps < 8; steps++) {
        struct reply reply = {0};
        struct counted counted = {0};
        if (steps & 1)
            reply_put(&reply, "abc", 3);
        if (steps & 2)
            refer(&reply, &counted, 10);
        if (steps & 4)
            reply_reserve(&reply, 1000);
        reply_fini(&reply);
        EXPECT(counted.released == (steps & 2) / 2, "%u", counted.released);
        EXPECT(!reply.any && reply.total == 0 && reply.capacity == 0, "not empty");
        reply_fini(&reply); /* twice */
        reply_put(&reply, "again", 5);
        AUTO_BYTES got = message_eat(reply_take(&reply));
        EXPECT(got.len == 5 && memcmp(got.data, "again", 5) == 0, "%zu", got.len);
    }
}

/* Each allocation of ours fails in turn. */
static void without_memory_it_fails_and_releases_every_hold_once(void **state)
{
    (void)state;
    uint64_t count = 0;
    for (bool failed = true; failed; count++) {
        struct reply reply = {0};
        struct counted counted = {0};
        memory_fail_after(count);
        for (size_t i = 0; i < 20; i++) {
            reply_put(&reply, "abc", 3);
            refer(&reply, &counted, 10);
        }
        failed = memory_has_failed();
        EXPECT((reply.err == RD_E_NOMEM) == failed, "after %llu", (unsigned long long)count);
        grpc_byte_buffer *message = reply_take(&reply);
        memory_fail_after(UINT64_MAX);
        EXPECT((message == NULL) == failed, "after %llu", (unsigned long long)count);
        EXPECT(reply.err == RD_OK && !reply.any, "it can be used again");
        if (message != NULL)
            grpc_byte_buffer_destroy(message);
        EXPECT(counted.released == 20, "after %llu: %u released", (unsigned long long)count, counted.released);
    }
    EXPECT(count > 20, "only %llu allocations", (unsigned long long)count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_begun_is_no_message_and_an_empty_one_is),
        cmocka_unit_test(bytes_come_out_as_they_went_in_however_it_grows),
        cmocka_unit_test(growth_is_by_doubling),
        cmocka_unit_test(many_slices_keep_their_order),
        cmocka_unit_test(references_beside_each_other_need_no_bytes_between),
        cmocka_unit_test(thrown_away_in_any_state_it_gives_everything_back),
        cmocka_unit_test(without_memory_it_fails_and_releases_every_hold_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
