/**
 * Requests with repeated keys: key_decoder against protobuf-c, on valid messages and on what becomes of them when bytes
 * change, are lost or are added, in slices of every cut.
 *
 * Known differences, where the comparison stops (`differs`): both are stricter than the other somewhere, and no
 * protobuf library writes such bytes.
 * - A tag or a length in more than five bytes: protobuf-c refuses it, the decoder takes up to ten.
 * - A tag that names field 0 in several bytes, or a field above 2^29-1: protobuf-c takes it, for whatever its lower
 *   bits say; the decoder refuses it.
 * - omit_metadata in ten bytes, of which only bits above the 64th are set: true to protobuf-c, false to the decoder.
 * - omit_metadata as anything but a varint: protobuf-c looks for bits in whatever came; the decoder refuses it.
 */
#include "decode.h"
#include "message.h"

#include <rdrive/v1/reader.pb-c.h>
#include <stdlib.h>
#include <string.h>

/* The two requests that are decoded by hand. */
struct kind {
    const ProtobufCMessageDescriptor *descriptor;
    struct key_fields fields;
};
static const struct kind by_key = {&rdrive__v1__batch_read_request__descriptor, {.keys = 1, .omit_metadata = 2}};
static const struct kind by_stream = {&rdrive__v1__batch_read_stream_request__descriptor,
                                      {.keys = 1, .omit_metadata = 2}};
static const struct kind by_hash = {&rdrive__v1__batch_read_hashed_keys_request__descriptor,
                                    {.key_hashes = 1, .keys = 2, .omit_metadata = 3}};
static const struct kind *const kinds[] = {&by_key, &by_stream, &by_hash};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])

/* ---- What the decoder says: all turns, its keys on the heap -------------------------------------------------------
 */

struct decoded_keys {
    rd_key *keys; /* with DECODE_OK only */
    size_t count;
    size_t hash_count;
    size_t key_count;
    bool omit_metadata;
    size_t turns;
};

static enum decode_result decode_keys(const grpc_byte_buffer *request, const struct key_fields *fields, uint64_t max,
                                      struct decoded_keys *out_got)
{
    struct arena arena;
    struct key_decoder decoder;
    enum decode_result result = DECODE_MORE;
    arena_init(&arena, NULL);
    key_decoder_init(&decoder, request, fields, max, &arena);
    *out_got = (struct decoded_keys){0};
    while (result == DECODE_MORE) {
        result = key_decoder_run(&decoder);
        out_got->turns++;
    }
    out_got->count = decoder.count;
    out_got->hash_count = decoder.hash_count;
    out_got->key_count = decoder.key_count;
    out_got->omit_metadata = decoder.omit_metadata;
    if (result == DECODE_OK) {
        size_t size = decoder.count * sizeof(rd_key);
        out_got->keys = test_malloc(size + 1);
        if (size > 0)
            memcpy(out_got->keys, decoder.keys, size);
    }
    arena_fini(&arena);
    return result;
}

/* ---- What protobuf-c says --------------------------------------------------------------------------------------- */

struct wanted {
    enum decode_result result;
    ProtobufCMessage *message;
    size_t hash_count;
    size_t key_count;
    const uint64_t *hashes;
    const ProtobufCBinaryData *keys;
    bool omit_metadata;
};

static struct wanted ask_protobuf(const struct kind *kind, const uint8_t *bytes, size_t len, uint64_t max)
{
    struct wanted wanted = {.result = DECODE_MALFORMED};
    wanted.message = protobuf_c_message_unpack(kind->descriptor, NULL, len, bytes);
    if (wanted.message == NULL)
        return wanted;
    if (kind == &by_hash) {
        const Rdrive__V1__BatchReadHashedKeysRequest *request = (void *)wanted.message;
        wanted.hash_count = request->n_key_hashes;
        wanted.hashes = request->key_hashes;
        wanted.key_count = request->n_keys;
        wanted.keys = request->keys;
        wanted.omit_metadata = request->omit_metadata;
    } else { /* both have the same fields */
        const Rdrive__V1__BatchReadRequest *request = (void *)wanted.message;
        wanted.key_count = request->n_keys;
        wanted.keys = request->keys;
        wanted.omit_metadata = request->omit_metadata;
    }
    if (wanted.hash_count > max || wanted.key_count > max)
        wanted.result = DECODE_TOO_MANY;
    else if (kind == &by_hash && wanted.key_count > 0 && wanted.key_count != wanted.hash_count)
        wanted.result = DECODE_LENGTHS;
    else
        wanted.result = DECODE_OK;
    return wanted;
}

static void expect_keys(const struct wanted *wanted, const struct decoded_keys *got)
{
    size_t count = wanted->hash_count > 0 ? wanted->hash_count : wanted->key_count;
    EXPECT(got->count == count, "%zu keys, not %zu", got->count, count);
    EXPECT(got->omit_metadata == wanted->omit_metadata, "omit_metadata is %d", got->omit_metadata);
    for (size_t i = 0; i < count; i++) {
        uint64_t of_key = 0;
        if (wanted->key_count > 0)
            of_key = rd_hash((rd_span){.data = wanted->keys[i].data, .len = wanted->keys[i].len});
        uint64_t hash = wanted->hash_count > 0 ? wanted->hashes[i] : of_key;
        bool mismatch = wanted->key_count > 0 && hash != of_key; /* F-15 */
        EXPECT(got->keys[i].hash == hash, "key %zu: %llx", i, (unsigned long long)got->keys[i].hash);
        EXPECT(got->keys[i].cookie == (mismatch ? RD_KEY_SKIP : 0), "key %zu", i);
    }
}

/* Decode `message`, which is destroyed. */
static void expect_decoded(const struct kind *kind, const struct wanted *wanted, uint64_t max,
                           grpc_byte_buffer *message)
{
    struct decoded_keys got;
    enum decode_result result = decode_keys(message, &kind->fields, max, &got);
    EXPECT(result == wanted->result, "result %d, not %d: %s", (int)result, (int)wanted->result, message_hex(message));
    grpc_byte_buffer_destroy(message);
    EXPECT((got.keys != NULL) == (result == DECODE_OK), "keys, or none");
    if (result != DECODE_MALFORMED) {
        EXPECT(got.hash_count == wanted->hash_count, "%zu hashes, not %zu", got.hash_count, wanted->hash_count);
        EXPECT(got.key_count == wanted->key_count, "%zu keys, not %zu", got.key_count, wanted->key_count);
    }
    if (result == DECODE_OK)
        expect_keys(wanted, &got);
    test_free(got.keys);
}

static void wanted_fini(struct wanted *wanted)
{
    if (wanted->message != NULL)
        protobuf_c_message_free_unpacked(wanted->message, NULL);
}

/* One message, whole and in slices of one byte, and cut in two at `cut` of its places. */
static enum decode_result compare(const struct kind *kind, const struct bytes *bytes, uint64_t max, bool every_cut)
{
    struct wanted wanted = ask_protobuf(kind, bytes->data, bytes->len, max);
    expect_decoded(kind, &wanted, max, message_whole(bytes->data, bytes->len));
    expect_decoded(kind, &wanted, max, message_pieces(bytes->data, bytes->len, 1));
    for (size_t at = 0; every_cut && at <= bytes->len; at++)
        expect_decoded(kind, &wanted, max, message_cut(bytes->data, bytes->len, at));
    enum decode_result result = wanted.result;
    wanted_fini(&wanted);
    return result;
}

/* ---- Where they are known to differ ------------------------------------------------------------------------------ */

/* A varint at `*at`, moved behind it. Returns: its bytes, or 0 where it does not end. */
static size_t scan_varint(const struct bytes *bytes, size_t *at, uint64_t *out_value)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 10 && *at < bytes->len; i++) {
        uint8_t byte = bytes->data[(*at)++];
        if (i < 9 || byte < 2)
            value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *out_value = value;
            return i + 1;
        }
    }
    return 0;
}

/* Whether the message meets one of the differences before anything in it is malformed to both. */
static bool differs(const struct kind *kind, const struct bytes *bytes)
{
    for (size_t at = 0; at < bytes->len;) {
        uint64_t tag;
        uint64_t value = 0;
        size_t len = scan_varint(bytes, &at, &tag);
        if (len == 0)
            return false;
        if (len > 5 || (len > 1 && tag >> 3 == 0) || tag >> 3 >= 1 << 29)
            return true;
        unsigned type = tag & 7;
        bool is_flag = tag >> 3 == kind->fields.omit_metadata;
        if (is_flag && type != 0)
            return true;
        if (type == 0) {
            size_t start = at;
            len = scan_varint(bytes, &at, &value);
            if (len == 10 && is_flag && bytes->data[start + 9] > 1)
                return true;
        } else if (type == 2) {
            len = scan_varint(bytes, &at, &value);
            if (len > 5)
                return true;
        } else if (type == 1 || type == 5) {
            value = type == 1 ? 8 : 4;
        } else {
            return false;
        }
        if (len == 0 || (type != 0 && value > bytes->len - at))
            return false;
        at += type == 0 ? 0 : (size_t)value;
    }
    return false;
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
    put_tag(message, by_hash.fields.key_hashes, 2);
    put_varint(message, 8 * count, (size_t)dice_roll(dice, 3));
    for (size_t i = 0; i < count; i++)
        put_fixed(message, dice_number(dice), 8);
}

static void put_key(struct dice *dice, const struct kind *kind, struct bytes *message)
{
    uint8_t key[30];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)dice_roll(dice, 256);
    put_len(message, kind->fields.keys, key, (size_t)dice_roll(dice, sizeof key));
}

/* A valid message: hashes packed and not, keys, flags and unknown fields in any order. */
static struct bytes random_message(struct dice *dice, const struct kind *kind)
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
        } else if (which <= 3 || kind != &by_hash) {
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
    put_tag(&message, by_hash.fields.key_hashes, 2);
    put_varint(&message, 8 * count, 0);
    for (size_t i = 0; i < count; i++) {
        uint8_t key[200];
        size_t len = (size_t)dice_roll(dice, sizeof key);
        memset(key, (int)i, sizeof key);
        uint64_t hash = rd_hash((rd_span){.data = key, .len = len});
        put_fixed(&message, dice_roll(dice, 8) == 0 ? hash ^ 1 : hash, 8);
        put_len(&keys, by_hash.fields.keys, key, len);
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
        const struct kind *kind = kinds[i % KIND_COUNT];
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
        EXPECT(compare(&by_hash, &message, 100, count < 6) == DECODE_OK, "%zu", count);
        for (size_t i = 0; i < 20; i++) {
            struct wanted wanted = ask_protobuf(&by_hash, message.data, message.len, 100);
            expect_decoded(&by_hash, &wanted, 100, message_shattered(&dice, message.data, message.len));
            wanted_fini(&wanted);
        }
    }
}

static void a_message_cut_short_anywhere_is_judged_as_protobuf_does(void **state)
{
    (void)state;
    struct dice dice = {3};
    for (size_t i = 0; i < 600; i++) {
        const struct kind *kind = kinds[i % KIND_COUNT];
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
        const struct kind *kind = kinds[i % KIND_COUNT];
        AUTO_BYTES message = random_message(&dice, kind);
        for (uint64_t left = 1 + dice_roll(&dice, 3); left > 0; left--)
            mutate(&dice, &message);
        if (differs(kind, &message)) {
            known++;
            continue;
        }
        struct wanted wanted = ask_protobuf(kind, message.data, message.len, 5);
        bool whole = dice_roll(&dice, 4) != 0;
        expect_decoded(kind, &wanted, 5,
                       whole ? message_whole(message.data, message.len)
                             : message_shattered(&dice, message.data, message.len));
        counts[wanted.result]++;
        wanted_fini(&wanted);
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
    EXPECT(compare(&by_hash, &odd, 10, true) == DECODE_MALFORMED, "seven bytes");
    EXPECT(compare(&by_key, &odd, 10, true) == DECODE_OK, "a key");
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
        struct decoded_keys got;
        struct wanted wanted = ask_protobuf(&by_key, message.data, message.len, 10);
        grpc_byte_buffer *whole = message_whole(message.data, message.len);
        enum decode_result result = decode_keys(whole, &by_key.fields, 10, &got);
        grpc_byte_buffer_destroy(whole);
        test_free(got.keys);
        EXPECT((result == DECODE_OK) == cases[i].good, "%s", cases[i].what);
        EXPECT((wanted.result == DECODE_OK) != cases[i].good, "protobuf-c: %s", cases[i].what);
        EXPECT(differs(&by_key, &message), "known: %s", cases[i].what);
        wanted_fini(&wanted);
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
            put_len(&keys, by_key.fields.keys, NULL, 0);
        EXPECT(compare(&by_hash, &hashes, 8, true) == (count > 8 ? DECODE_TOO_MANY : DECODE_OK), "%zu", count);
        EXPECT(compare(&by_key, &keys, 8, true) == (count > 8 ? DECODE_TOO_MANY : DECODE_OK), "%zu", count);
        if (count > 0) {
            put_len(&hashes, by_hash.fields.keys, "k", 1);
            enum decode_result wanted = count == 1 ? DECODE_OK : count > 8 ? DECODE_TOO_MANY : DECODE_LENGTHS;
            EXPECT(compare(&by_hash, &hashes, 8, true) == wanted, "%zu hashes and a key", count);
        }
    }
    AUTO_BYTES lonely = {0};
    put_len(&lonely, by_hash.fields.keys, "k", 1);
    EXPECT(compare(&by_hash, &lonely, 8, true) == DECODE_LENGTHS, "a key without hashes");
}

/* The first allocation that fails, the second, until none does. */
static void without_memory_it_says_so_and_keeps_nothing(void **state)
{
    (void)state;
    struct dice dice = {6};
    AUTO_BYTES message = paired_message(&dice, 20);
    for (uint64_t count = 0;; count++) {
        struct decoded_keys got;
        grpc_byte_buffer *pieces = message_pieces(message.data, message.len, 3);
        memory_fail_after(count);
        enum decode_result result = decode_keys(pieces, &by_hash.fields, 100, &got);
        bool failed = memory_has_failed();
        memory_fail_after(UINT64_MAX);
        grpc_byte_buffer_destroy(pieces);
        EXPECT(result == (failed ? DECODE_NOMEM : DECODE_OK), "after %llu: %d", (unsigned long long)count, (int)result);
        EXPECT((got.keys == NULL) == failed, "after %llu", (unsigned long long)count);
        test_free(got.keys);
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
    struct decoded_keys got;
    for (size_t i = 0; i < 200000; i++)
        put_len(&message, by_key.fields.keys, NULL, 0);
    grpc_byte_buffer *whole = message_whole(message.data, message.len);
    memory_fail_after(0);
    enum decode_result result = decode_keys(whole, &by_key.fields, 199999, &got);
    bool failed = memory_has_failed();
    memory_fail_after(UINT64_MAX);
    grpc_byte_buffer_destroy(whole);
    EXPECT(result == DECODE_TOO_MANY && got.key_count == 200000, "%zu", got.key_count);
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
        put_tag(&both, by_hash.fields.key_hashes, WIRE_FIXED64);
        put_fixed(&both, hash, 8);
        put_len(&both, by_hash.fields.keys, &i, sizeof i);
    }
    put_len(&packed, by_hash.fields.key_hashes, run.data, run.len);
    const struct bytes *messages[] = {&packed, &both};
    for (size_t m = 0; m < 2; m++) {
        struct decoded_keys got;
        grpc_byte_buffer *pieces = message_pieces(messages[m]->data, messages[m]->len, 16383);
        enum decode_result result = decode_keys(pieces, &by_hash.fields, COUNT, &got);
        grpc_byte_buffer_destroy(pieces);
        EXPECT(result == DECODE_OK && got.count == COUNT, "%d, %zu", (int)result, got.count);
        EXPECT(got.turns >= 3, "%zu turns", got.turns);
        for (uint64_t i = 0; i < COUNT; i++) {
            uint64_t hash = rd_hash((rd_span){.data = &i, .len = sizeof i});
            EXPECT(got.keys[i].hash == hash && got.keys[i].cookie == 0, "key %zu", (size_t)i);
        }
        test_free(got.keys);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
