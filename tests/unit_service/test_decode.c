/**
 * Requests with keys: key_decoder and decode_key against protobuf-c, on valid messages and on what becomes of them when
 * bytes change, are lost or are added, in slices of every cut.
 */
#include "keys_oracle.h"
#include "message.h"
#include "wire_oracle.h"

#include <stdlib.h>
#include <string.h>

static const struct keys_kind *const kinds[] = {&keys_by_key, &keys_by_stream, &keys_by_hash};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])

/* Decode `message`, which is destroyed. */
static void expect_decoded(const struct keys_kind *kind, const struct keys_wanted *wanted, uint64_t max,
                           grpc_byte_buffer *message)
{
    const char *wrong = keys_judge(kind, wanted, max, message);
    EXPECT(wrong == NULL, "%s: %s", wrong, message_hex(message));
    grpc_byte_buffer_destroy(message);
}

/* One message, whole and in slices of one byte, and cut in two at `cut` of its places. */
static enum decode_result compare(const struct keys_kind *kind, const struct bytes *bytes, uint64_t max, bool every_cut)
{
    struct keys_wanted wanted = keys_wanted_of(kind, bytes->data, bytes->len, max);
    expect_decoded(kind, &wanted, max, message_whole(bytes->data, bytes->len));
    expect_decoded(kind, &wanted, max, message_pieces(bytes->data, bytes->len, 1));
    for (size_t at = 0; every_cut && at <= bytes->len; at++)
        expect_decoded(kind, &wanted, max, message_cut(bytes->data, bytes->len, at));
    enum decode_result result = wanted.result;
    keys_wanted_fini(&wanted);
    return result;
}

/* ---- Messages ---------------------------------------------------------------------------------------------------- */

static void put_unknown(struct dice *dice, struct bytes *message)
{
    uint8_t noise[40];
    static const unsigned types[] = {0, 1, 2, 5};
    unsigned type = types[dice_roll(dice, 4)];
    uint64_t field = 4 + (dice_number(dice) & ((1 << 29) - 8));
    memset(noise, (int)dice_roll(dice, 256), sizeof noise);
    if (type == 2) {
        put_len(message, field, noise, (size_t)dice_roll(dice, sizeof noise));
        return;
    }
    put_tag(message, field, type);
    if (type == 0)
        put_varint(message, dice_number(dice), 0);
    else
        put_fixed(message, dice_number(dice), type == 1 ? 8 : 4);
}

static void put_hashes(struct dice *dice, struct bytes *message, size_t count)
{
    put_tag(message, keys_by_hash.fields.key_hashes, 2);
    put_varint(message, 8 * count, (size_t)dice_roll(dice, 3));
    for (size_t i = 0; i < count; i++)
        put_fixed(message, dice_number(dice), 8);
}

static void put_key(struct dice *dice, const struct keys_kind *kind, struct bytes *message)
{
    uint8_t key[30];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)dice_roll(dice, 256);
    put_len(message, kind->fields.keys, key, (size_t)dice_roll(dice, sizeof key));
}

/* A valid message: hashes packed and not, keys, flags and unknown fields in any order. */
static struct bytes random_message(struct dice *dice, const struct keys_kind *kind)
{
    struct bytes message = {0};
    size_t fields = (size_t)dice_roll(dice, 8);
    for (size_t i = 0; i < fields; i++) {
        uint64_t which = dice_roll(dice, 8);
        if (which == 0) {
            put_unknown(dice, &message);
        } else if (which == 1) {
            put_tag(&message, kind->fields.omit_metadata, 0);
            put_varint(&message, dice_roll(dice, 2) * dice_number(dice), 0);
        } else if (which <= 3 || kind != &keys_by_hash) {
            put_key(dice, kind, &message);
        } else if (which <= 5) {
            put_tag(&message, kind->fields.key_hashes, 1);
            put_fixed(&message, dice_number(dice), 8);
        } else {
            put_hashes(dice, &message, (size_t)dice_roll(dice, 4));
        }
    }
    return message;
}

/* Hashes with the keys they are of, but for one in eight. */
static struct bytes paired_message(struct dice *dice, size_t count)
{
    struct bytes message = {0};
    struct bytes keys = {0};
    put_tag(&message, keys_by_hash.fields.key_hashes, 2);
    put_varint(&message, 8 * count, 0);
    for (size_t i = 0; i < count; i++) {
        uint8_t key[200];
        size_t len = (size_t)dice_roll(dice, sizeof key);
        memset(key, (int)i, sizeof key);
        uint64_t hash = rd_hash((rd_span){.data = key, .len = len});
        put_fixed(&message, dice_roll(dice, 8) == 0 ? hash ^ 1 : hash, 8);
        put_len(&keys, keys_by_hash.fields.keys, key, len);
    }
    bytes_append(&message, keys.data, keys.len);
    bytes_free(&keys);
    return message;
}

static void mutate(struct dice *dice, struct bytes *message)
{
    uint8_t noise = (uint8_t)dice_number(dice);
    size_t at = message->len > 0 ? (size_t)dice_roll(dice, message->len) : 0;
    switch (message->len == 0 ? 3 : dice_roll(dice, 4)) {
    case 0: message->data[at] = noise; break;
    case 1: message->data[at] ^= (uint8_t)(1 << dice_roll(dice, 8)); break;
    case 2: /* one is lost */
        memmove(message->data + at, message->data + at + 1, message->len - at - 1);
        message->len--;
        break;
    default: /* one comes in */
        bytes_append(message, &noise, 1);
        memmove(message->data + at + 1, message->data + at, message->len - at - 1);
        message->data[at] = noise;
    }
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void valid_messages_decode_as_protobuf_says_wherever_they_are_cut(void **state)
{
    (void)state;
    size_t counts[5] = {0};
    struct dice dice = {1};
    for (size_t i = 0; i < 2000; i++) {
        const struct keys_kind *kind = kinds[i % KIND_COUNT];
        AUTO_BYTES message = random_message(&dice, kind);
        counts[compare(kind, &message, 4, true)]++;
    }
    EXPECT(counts[DECODE_OK] > 500 && counts[DECODE_LENGTHS] > 50 && counts[DECODE_TOO_MANY] > 50, "%zu, %zu, %zu",
           counts[DECODE_OK], counts[DECODE_LENGTHS], counts[DECODE_TOO_MANY]);
    EXPECT(counts[DECODE_MALFORMED] == 0, "%zu", counts[DECODE_MALFORMED]);
}

static void a_hash_that_is_not_its_keys_is_to_be_skipped(void **state)
{
    (void)state;
    struct dice dice = {2};
    for (size_t count = 1; count < 40; count++) {
        AUTO_BYTES message = paired_message(&dice, count);
        EXPECT(compare(&keys_by_hash, &message, 100, count < 6) == DECODE_OK, "%zu", count);
        for (size_t i = 0; i < 20; i++) {
            struct keys_wanted wanted = keys_wanted_of(&keys_by_hash, message.data, message.len, 100);
            expect_decoded(&keys_by_hash, &wanted, 100, message_shattered(&dice, message.data, message.len));
            keys_wanted_fini(&wanted);
        }
    }
}

static void a_message_cut_short_anywhere_is_judged_as_protobuf_does(void **state)
{
    (void)state;
    struct dice dice = {3};
    for (size_t i = 0; i < 600; i++) {
        const struct keys_kind *kind = kinds[i % KIND_COUNT];
        AUTO_BYTES message = random_message(&dice, kind);
        for (struct bytes cut = message; cut.len > 0; cut.len--)
            compare(kind, &cut, 3, false);
    }
}

static void mutated_messages_are_judged_as_protobuf_does(void **state)
{
    (void)state;
    size_t counts[5] = {0};
    size_t known = 0;
    struct dice dice = {4};
    for (size_t i = 0; i < 300000; i++) {
        const struct keys_kind *kind = kinds[i % KIND_COUNT];
        AUTO_BYTES message = random_message(&dice, kind);
        for (uint64_t left = 1 + dice_roll(&dice, 3); left > 0; left--)
            mutate(&dice, &message);
        if (keys_differ(kind, message.data, message.len)) {
            known++;
            continue;
        }
        struct keys_wanted wanted = keys_wanted_of(kind, message.data, message.len, 5);
        bool whole = dice_roll(&dice, 4) != 0;
        expect_decoded(kind, &wanted, 5,
                       whole ? message_whole(message.data, message.len)
                             : message_shattered(&dice, message.data, message.len));
        counts[wanted.result]++;
        keys_wanted_fini(&wanted);
    }
    print_message("%zu ok, %zu malformed, %zu too many, %zu of different lengths, %zu known differences\n",
                  counts[DECODE_OK], counts[DECODE_MALFORMED], counts[DECODE_TOO_MANY], counts[DECODE_LENGTHS], known);
    EXPECT(counts[DECODE_OK] > 10000 && counts[DECODE_MALFORMED] > 10000, "the dice are loaded");
}

/* Each refused by both. */
static void groups_wrong_types_and_broken_runs_are_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        const char *what;
    } broken[] = {
        {"230a00", "a group of an unknown field"},
        {"24", "the end of a group"},
        {"0b0c", "a group where hashes or keys are due"},
        {"0e", "wire type 6"},
        {"0f", "wire type 7"},
        {"00", "field 0"},
        {"0800", "a varint where hashes or keys are due"},
        {"0d00000000", "32 bits where hashes or keys are due"},
        {"0a0801", "a length beyond the end"},
        {"0affffffff07", "a length of 2 GiB"},
        {"0affffffffffffffffff01", "a length of 2^64-1"},
        {"0a", "no length"},
        {"8080808080808080808001", "a tag of eleven bytes"},
        {"28ffffffffffffffffffff01", "a varint of eleven bytes"},
        {"08", "a tag and nothing else"},
        {"25000000", "32 bits cut short"},
        {"2100000000000000", "64 bits cut short"},
    };
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        AUTO_BYTES message = bytes_of_hex(broken[i].hex);
        for (size_t k = 0; k < KIND_COUNT; k++)
            EXPECT(compare(kinds[k], &message, 10, true) == DECODE_MALFORMED, "%s", broken[i].what);
    }
    AUTO_BYTES odd = bytes_of_hex("0a0700000000000000"); /* seven bytes of packed hashes, but a fine key */
    EXPECT(compare(&keys_by_hash, &odd, 10, true) == DECODE_MALFORMED, "seven bytes");
    EXPECT(compare(&keys_by_key, &odd, 10, true) == DECODE_OK, "a key");
}

static void where_protobuf_c_is_lax_decode_is_strict_and_the_reverse(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        bool good; /* to the decoder; the opposite to protobuf-c */
        const char *what;
    } cases[] = {
        {"800000", false, "field 0 in two bytes"},
        {"8a8080801000", false, "field 2^29+1, whose lower bits name field 1: a key of protobuf-c's"},
        {"8a80808080000161", true, "field 1 in six bytes"},
        {"0a81808080800061", true, "a length in six bytes"},
        {"1500000001", false, "omit_metadata in 32 bits"},
        {"120101", false, "omit_metadata in a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        AUTO_BYTES message = bytes_of_hex(cases[i].hex);
        struct keys_got got;
        struct keys_wanted wanted = keys_wanted_of(&keys_by_key, message.data, message.len, 10);
        grpc_byte_buffer *whole = message_whole(message.data, message.len);
        enum decode_result result = keys_decode(whole, &keys_by_key.fields, 10, &got);
        grpc_byte_buffer_destroy(whole);
        keys_got_fini(&got);
        EXPECT((result == DECODE_OK) == cases[i].good, "%s", cases[i].what);
        EXPECT((wanted.result == DECODE_OK) != cases[i].good, "protobuf-c: %s", cases[i].what);
        EXPECT(keys_differ(&keys_by_key, message.data, message.len), "known: %s", cases[i].what);
        keys_wanted_fini(&wanted);
    }
}

static void limits_hold_to_the_key_and_counts_are_told(void **state)
{
    (void)state;
    for (size_t count = 0; count < 12; count++) {
        struct dice dice = {5};
        AUTO_BYTES hashes = {0};
        AUTO_BYTES keys = {0};
        put_hashes(&dice, &hashes, count);
        for (size_t i = 0; i < count; i++)
            put_len(&keys, keys_by_key.fields.keys, NULL, 0);
        EXPECT(compare(&keys_by_hash, &hashes, 8, true) == (count > 8 ? DECODE_TOO_MANY : DECODE_OK), "%zu", count);
        EXPECT(compare(&keys_by_key, &keys, 8, true) == (count > 8 ? DECODE_TOO_MANY : DECODE_OK), "%zu", count);
        if (count > 0) {
            put_len(&hashes, keys_by_hash.fields.keys, "k", 1);
            enum decode_result wanted = count == 1 ? DECODE_OK : count > 8 ? DECODE_TOO_MANY : DECODE_LENGTHS;
            EXPECT(compare(&keys_by_hash, &hashes, 8, true) == wanted, "%zu hashes and a key", count);
        }
    }
    AUTO_BYTES lonely = {0};
    put_len(&lonely, keys_by_hash.fields.keys, "k", 1);
    EXPECT(compare(&keys_by_hash, &lonely, 8, true) == DECODE_LENGTHS, "a key without hashes");
}

/* The first allocation that fails, the second, until none does. */
static void without_memory_it_says_so_and_keeps_nothing(void **state)
{
    (void)state;
    struct dice dice = {6};
    AUTO_BYTES message = paired_message(&dice, 20);
    for (uint64_t count = 0;; count++) {
        struct keys_got got;
        grpc_byte_buffer *pieces = message_pieces(message.data, message.len, 3);
        memory_fail_after(count);
        enum decode_result result = keys_decode(pieces, &keys_by_hash.fields, 100, &got);
        bool failed = memory_has_failed();
        memory_fail_after(UINT64_MAX);
        grpc_byte_buffer_destroy(pieces);
        EXPECT(result == (failed ? DECODE_NOMEM : DECODE_OK), "after %llu: %d", (unsigned long long)count, (int)result);
        keys_got_fini(&got);
        if (!failed) {
            EXPECT(count > 0, "only %llu allocations", (unsigned long long)count);
            return;
        }
    }
}

static void too_many_empty_keys_take_no_memory(void **state)
{
    (void)state;
    AUTO_BYTES message = {0};
    struct keys_got got;
    for (size_t i = 0; i < 200000; i++)
        put_len(&message, keys_by_key.fields.keys, NULL, 0);
    grpc_byte_buffer *whole = message_whole(message.data, message.len);
    memory_fail_after(0);
    enum decode_result result = keys_decode(whole, &keys_by_key.fields, 199999, &got);
    bool failed = memory_has_failed();
    memory_fail_after(UINT64_MAX);
    grpc_byte_buffer_destroy(whole);
    EXPECT(result == DECODE_TOO_MANY && got.decoder.key_count == 200000, "%zu", got.decoder.key_count);
    keys_got_fini(&got);
    EXPECT(!failed, "it allocated");
}

/* More keys than a turn takes, in each of the three ways they may come. */
static void a_million_keys_take_turns_and_come_out_the_same(void **state)
{
    (void)state;
    enum { COUNT = 3 * DECODE_TURN + 7 };
    AUTO_BYTES packed = {0};
    AUTO_BYTES both = {0};
    AUTO_BYTES run = {0};
    for (uint64_t i = 0; i < COUNT; i++) {
        uint64_t hash = rd_hash((rd_span){.data = &i, .len = sizeof i});
        bytes_append(&run, &hash, sizeof hash);
        put_tag(&both, keys_by_hash.fields.key_hashes, WIRE_FIXED64);
        put_fixed(&both, hash, 8);
        put_len(&both, keys_by_hash.fields.keys, &i, sizeof i);
    }
    put_len(&packed, keys_by_hash.fields.key_hashes, run.data, run.len);
    const struct bytes *messages[] = {&packed, &both};
    for (size_t m = 0; m < 2; m++) {
        struct keys_got got;
        grpc_byte_buffer *pieces = message_pieces(messages[m]->data, messages[m]->len, 16383);
        enum decode_result result = keys_decode(pieces, &keys_by_hash.fields, COUNT, &got);
        grpc_byte_buffer_destroy(pieces);
        EXPECT(result == DECODE_OK && got.decoder.count == COUNT, "%d, %zu", (int)result, got.decoder.count);
        EXPECT(got.turns >= 3, "%zu turns", got.turns);
        for (uint64_t i = 0; i < COUNT; i++) {
            uint64_t hash = rd_hash((rd_span){.data = &i, .len = sizeof i});
            EXPECT(got.decoder.keys[i].hash == hash && got.decoder.keys[i].cookie == 0, "key %zu", (size_t)i);
        }
        keys_got_fini(&got);
    }
}

/* ---- One key ----------------------------------------------------------------------------------------------------- */

/* A key or a hash, sometimes twice or not at all, among unknown fields. */
static struct bytes random_request(struct dice *dice, bool by_hash)
{
    struct bytes message = {0};
    for (uint64_t left = dice_roll(dice, 4); left > 0; left--) {
        if (dice_roll(dice, 3) == 0) {
            put_unknown(dice, &message);
        } else if (by_hash) {
            put_tag(&message, 1, WIRE_FIXED64);
            put_fixed(&message, dice_number(dice), 8);
        } else {
            put_key(dice, &keys_by_key, &message);
        }
    }
    return message;
}

/* In memory of just its length, so that a step beyond it is found. Returns: whether decode_key takes it. */
static bool compare_key(const struct bytes *message, bool by_hash)
{
    bool good;
    uint8_t *exact = malloc(message->len > 0 ? message->len : 1);
    EXPECT(exact != NULL, "no memory");
    if (message->len > 0)
        memcpy(exact, message->data, message->len);
    const char *wrong = key_judge(exact, message->len, by_hash, &good);
    free(exact);
    if (wrong != NULL) {
        grpc_byte_buffer *whole = message_whole(message->data, message->len);
        EXPECT(wrong == NULL, "%s: %s", wrong, message_hex(whole));
    }
    return good;
}

static void one_key_is_to_the_decoder_what_it_is_to_protobuf_also_cut_short(void **state)
{
    (void)state;
    struct dice dice = {7};
    size_t refused = 0;
    for (size_t i = 0; i < 4000; i++) {
        bool by_hash = i % 2 == 0;
        AUTO_BYTES message = random_request(&dice, by_hash);
        EXPECT(compare_key(&message, by_hash), "a valid one is refused");
        for (struct bytes cut = message; cut.len > 0; cut.len--)
            refused += compare_key(&cut, by_hash) ? 0 : 1;
    }
    EXPECT(refused > 10000, "only %zu cut ones are malformed", refused);
}

static void one_key_mutated_is_judged_as_protobuf_does(void **state)
{
    (void)state;
    struct dice dice = {8};
    size_t counts[2] = {0};
    size_t known = 0;
    for (size_t i = 0; i < 300000; i++) {
        bool by_hash = i % 2 == 0;
        AUTO_BYTES message = random_request(&dice, by_hash);
        for (uint64_t left = 1 + dice_roll(&dice, 3); left > 0; left--)
            mutate(&dice, &message);
        if (wire_differs(message.data, message.len, 0, 0))
            known++;
        else
            counts[compare_key(&message, by_hash)]++;
    }
    print_message("%zu ok, %zu malformed, %zu known differences\n", counts[true], counts[false], known);
    EXPECT(counts[true] > 10000 && counts[false] > 10000, "the dice are loaded");
}

static void one_key_in_a_thousand_fields_is_taken_and_in_more_is_malformed(void **state)
{
    (void)state;
    static const char *const fields[] = {"0a00", "090000000000000000", "1a00", "2007"};
    for (size_t i = 0; i < 4; i++) {
        AUTO_BYTES field = bytes_of_hex(fields[i]);
        AUTO_BYTES message = {0};
        uint64_t hash = 0;
        bool by_hash = i == 1;
        bool good;
        for (size_t count = 0; count < DECODE_FIELDS_MAX; count++)
            bytes_append(&message, field.data, field.len);
        EXPECT(compare_key(&message, by_hash), "%s", fields[i]);
        bytes_append(&message, field.data, field.len);
        EXPECT(!decode_key(message.data, message.len, by_hash, &hash), "%s", fields[i]);
        EXPECT(key_judge(message.data, message.len, by_hash, &good) != NULL, "protobuf-c: %s", fields[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_messages_decode_as_protobuf_says_wherever_they_are_cut),
        cmocka_unit_test(a_hash_that_is_not_its_keys_is_to_be_skipped),
        cmocka_unit_test(a_message_cut_short_anywhere_is_judged_as_protobuf_does),
        cmocka_unit_test(mutated_messages_are_judged_as_protobuf_does),
        cmocka_unit_test(groups_wrong_types_and_broken_runs_are_malformed),
        cmocka_unit_test(where_protobuf_c_is_lax_decode_is_strict_and_the_reverse),
        cmocka_unit_test(limits_hold_to_the_key_and_counts_are_told),
        cmocka_unit_test(without_memory_it_says_so_and_keeps_nothing),
        cmocka_unit_test(too_many_empty_keys_take_no_memory),
        cmocka_unit_test(a_million_keys_take_turns_and_come_out_the_same),
        cmocka_unit_test(one_key_is_to_the_decoder_what_it_is_to_protobuf_also_cut_short),
        cmocka_unit_test(one_key_mutated_is_judged_as_protobuf_does),
        cmocka_unit_test(one_key_in_a_thousand_fields_is_taken_and_in_more_is_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
