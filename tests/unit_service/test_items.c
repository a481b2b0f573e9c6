/**
 * Requests to write, decoded by hand, against protobuf-c: valid ones, and what becomes of them when bytes change, are
 * lost or are added.
 */
#include "items_oracle.h"
#include "message.h"
#include "wire_oracle.h"

#include <string.h>

enum { ITEMS = 1, KEY = 1, PAYLOAD = 2, UPLOAD_HASH_FIELD = 2, UPLOAD_DATA = 3 };

#define COUNT_MAX   5
#define PAYLOAD_MAX 40

/* ---- Messages ---------------------------------------------------------------------------------------------------- */

static void put_noise(struct dice *dice, struct bytes *message, uint64_t field, size_t most)
{
    uint8_t noise[64];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)dice_roll(dice, 3);
    put_len(message, field, noise, (size_t)dice_roll(dice, most + 1));
}

/* A key or a hash, a payload that is legal more often than not, in any order, some of it twice or left out. */
static void put_item(struct dice *dice, struct bytes *message, bool by_hash)
{
    for (uint64_t left = 1 + dice_roll(dice, 3); left > 0; left--) {
        if (dice_roll(dice, 3) > 0) {
            put_noise(dice, message, PAYLOAD, dice_roll(dice, 20) == 0 ? 60 : PAYLOAD_MAX);
        } else if (by_hash) {
            put_tag(message, KEY, 1);
            put_fixed(message, dice_number(dice), 8);
        } else {
            put_noise(dice, message, KEY, 30);
        }
    }
    if (dice_roll(dice, 8) == 0) {
        put_tag(message, 9 + dice_roll(dice, 1000), 0);
        put_varint(message, dice_number(dice), 0);
    }
}

static struct bytes random_batch(struct dice *dice, bool by_hash)
{
    struct bytes message = {0};
    for (uint64_t left = dice_roll(dice, COUNT_MAX + 2); left > 0; left--) {
        AUTO_BYTES item = {0};
        put_item(dice, &item, by_hash);
        put_len(&message, ITEMS, item.data, item.len);
    }
    return message;
}

static struct bytes random_upload(struct dice *dice)
{
    struct bytes message = {0};
    for (uint64_t left = dice_roll(dice, 4); left > 0; left--) {
        uint64_t which = dice_roll(dice, 4);
        if (which == 0) {
            put_noise(dice, &message, KEY, 30);
        } else if (which == 1) {
            put_tag(&message, UPLOAD_HASH_FIELD, 1);
            put_fixed(&message, dice_number(dice), 8);
        } else {
            put_noise(dice, &message, UPLOAD_DATA, 60);
        }
    }
    return message;
}

static void mutate(struct dice *dice, struct bytes *message)
{
    uint8_t noise = (uint8_t)dice_number(dice);
    if (message->len == 0 || dice_roll(dice, 3) == 0)
        bytes_append(message, &noise, 1);
    size_t at = (size_t)dice_roll(dice, message->len);
    if (dice_roll(dice, 2) == 0) {
        message->data[at] ^= (uint8_t)(1 << dice_roll(dice, 8));
    } else { /* one is lost */
        memmove(message->data + at, message->data + at + 1, message->len - at - 1);
        message->len--;
    }
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void batches_are_to_the_decoder_what_they_are_to_protobuf(void **state)
{
    (void)state;
    size_t counts[DECODE_NOMEM + 1] = {0};
    struct dice dice = {31};
    for (size_t i = 0; i < 100000; i++) {
        enum decode_result result;
        bool by_hash = i % 2 == 0;
        AUTO_BYTES message = random_batch(&dice, by_hash);
        for (uint64_t left = i % 4 < 2 ? 0 : dice_roll(&dice, 4); left > 0; left--)
            mutate(&dice, &message);
        if (wire_differs(message.data, message.len, 0, ITEMS))
            continue;
        const char *wrong = items_judge(message.data, message.len, by_hash, COUNT_MAX, PAYLOAD_MAX, &result);
        EXPECT(wrong == NULL, "round %zu: %s", i, wrong);
        counts[result]++;
    }
    print_message("%zu ok, %zu malformed, %zu too many, %zu with an illegal payload\n", counts[DECODE_OK],
                  counts[DECODE_MALFORMED], counts[DECODE_TOO_MANY], counts[DECODE_PAYLOAD]);
    EXPECT(counts[DECODE_OK] > 10000 && counts[DECODE_MALFORMED] > 5000, "the dice are loaded");
    EXPECT(counts[DECODE_TOO_MANY] > 5000 && counts[DECODE_PAYLOAD] > 5000, "the dice are loaded");
}

static void an_item_alone_is_to_the_decoder_what_it_is_to_protobuf(void **state)
{
    (void)state;
    struct dice dice = {32};
    for (size_t i = 0; i < 100000; i++) {
        bool by_hash = i % 2 == 0;
        AUTO_BYTES message = {0};
        put_item(&dice, &message, by_hash);
        for (uint64_t left = i % 4 < 2 ? 0 : dice_roll(&dice, 4); left > 0; left--)
            mutate(&dice, &message);
        if (wire_differs(message.data, message.len, 0, 0))
            continue;
        const char *wrong = item_judge(message.data, message.len, by_hash);
        EXPECT(wrong == NULL, "round %zu: %s", i, wrong);
    }
}

static void a_streams_message_is_to_the_decoder_what_it_is_to_protobuf_wherever_it_is_cut(void **state)
{
    (void)state;
    size_t counts[DECODE_NOMEM + 1] = {0};
    struct dice dice = {33};
    for (size_t i = 0; i < 100000; i++) {
        enum decode_result result;
        AUTO_BYTES message = random_upload(&dice);
        for (uint64_t left = i % 2 == 0 ? 0 : dice_roll(&dice, 4); left > 0; left--)
            mutate(&dice, &message);
        if (wire_differs(message.data, message.len, 0, 0))
            continue;
        grpc_byte_buffer *pieces = message_shattered(&dice, message.data, message.len);
        const char *wrong = upload_judge(message.data, message.len, pieces, &result);
        EXPECT(wrong == NULL, "round %zu: %s: %s", i, wrong, message_hex(pieces));
        grpc_byte_buffer_destroy(pieces);
        counts[result]++;
    }
    EXPECT(counts[DECODE_OK] > 50000 && counts[DECODE_MALFORMED] > 5000, "%zu, %zu", counts[DECODE_OK],
           counts[DECODE_MALFORMED]);
}

/* A thread serves other calls meanwhile. */
static void more_items_than_a_turn_takes_come_out_whole_after_several(void **state)
{
    (void)state;
    enum { COUNT = 2 * DECODE_TURN + 3 };
    AUTO_BYTES message = {0};
    enum decode_result result = DECODE_MORE;
    struct item_decoder decoder;
    struct arena arena;
    unsigned turns = 0;
    for (uint64_t i = 0; i < COUNT; i++) {
        uint8_t item[19] = {KEY << 3 | 1};
        memcpy(item + 1, &i, sizeof i);
        item[9] = PAYLOAD << 3 | 2;
        item[10] = sizeof i;
        memcpy(item + 11, &i, sizeof i);
        put_len(&message, ITEMS, item, sizeof item);
    }
    arena_init(&arena, NULL);
    item_decoder_init(&decoder, message.data, message.len, true, COUNT, 1000, &arena);
    for (; result == DECODE_MORE; turns++)
        result = item_decoder_run(&decoder);
    EXPECT(result == DECODE_OK && decoder.count == COUNT && turns >= 3, "%d, %zu items in %u turns", (int)result,
           decoder.count, turns);
    for (uint64_t i = 0; i < COUNT; i++)
        EXPECT(decoder.items[i].key_hash == i && span_equal(decoder.items[i].payload, &i, sizeof i), "item %zu",
               (size_t)i);
    arena_fini(&arena);
}

static void without_memory_for_its_items_a_batch_says_so(void **state)
{
    (void)state;
    AUTO_BYTES message = {0};
    struct item_decoder decoder;
    struct arena arena;
    for (size_t i = 0; i < 200; i++)
        put_len(&message, ITEMS, "\x12\x01x", 3);
    arena_init(&arena, NULL);
    item_decoder_init(&decoder, message.data, message.len, false, 1000, 1000, &arena);
    memory_fail_after(0);
    enum decode_result result = item_decoder_run(&decoder);
    memory_fail_after(UINT64_MAX);
    EXPECT(result == DECODE_NOMEM, "%d", (int)result);
    arena_fini(&arena);
}

/* A field without content, as often as told. */
static void put_empty(struct bytes *message, uint64_t field, size_t count)
{
    for (; count > 0; count--)
        put_len(message, field, NULL, 0);
}

static enum decode_result decode_stream(const struct bytes *message, struct arena *arena)
{
    struct upload_message upload;
    grpc_byte_buffer *whole = message_whole(message->data, message->len);
    enum decode_result result = decode_upload(whole, arena, &upload);
    grpc_byte_buffer_destroy(whole);
    return result;
}

/* They are decoded in one go, which must not take long. */
static void an_item_or_a_streams_message_of_more_than_a_thousand_fields_is_malformed(void **state)
{
    (void)state;
    static const uint64_t fields[] = {KEY, UPLOAD_DATA, 9};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        AUTO_BYTES message = {0};
        struct arena arena;
        rd_write_item item;
        arena_init(&arena, NULL);
        put_empty(&message, fields[i], DECODE_FIELDS_MAX);
        EXPECT(decode_item(message.data, message.len, false, &item), "field %zu", (size_t)fields[i]);
        EXPECT(decode_stream(&message, &arena) == DECODE_OK, "field %zu", (size_t)fields[i]);
        put_empty(&message, fields[i], 1);
        EXPECT(!decode_item(message.data, message.len, false, &item), "field %zu", (size_t)fields[i]);
        EXPECT(decode_stream(&message, &arena) == DECODE_MALFORMED, "field %zu", (size_t)fields[i]);
        arena_fini(&arena);
    }
}

/* Decode a batch, of `wanted` items where it is good. Returns: its turns. */
static unsigned turns_of(const struct bytes *message, size_t wanted, enum decode_result *out_result)
{
    struct item_decoder decoder;
    struct arena arena;
    unsigned turns = 0;
    arena_init(&arena, NULL);
    item_decoder_init(&decoder, message->data, message->len, false, wanted, 1000, &arena);
    for (*out_result = DECODE_MORE; *out_result == DECODE_MORE; turns++)
        *out_result = item_decoder_run(&decoder);
    EXPECT(*out_result != DECODE_OK || decoder.count == wanted, "%zu items", decoder.count);
    arena_fini(&arena);
    return turns;
}

static void items_of_many_fields_take_more_turns_and_one_of_too_many_is_malformed(void **state)
{
    (void)state;
    enum { COUNT = 200, FIELDS = COUNT * DECODE_FIELDS_MAX };
    AUTO_BYTES item = {0};
    AUTO_BYTES message = {0};
    enum decode_result result;
    put_empty(&item, KEY, DECODE_FIELDS_MAX - 1);
    put_len(&item, PAYLOAD, "x", 1);
    for (size_t i = 0; i < COUNT; i++)
        put_len(&message, ITEMS, item.data, item.len);
    unsigned turns = turns_of(&message, COUNT, &result);
    EXPECT(result == DECODE_OK && turns >= FIELDS / (DECODE_TURN + DECODE_FIELDS_MAX), "%d in %u turns", (int)result,
           turns);
    put_empty(&item, KEY, 1);
    put_len(&message, ITEMS, item.data, item.len);
    turns_of(&message, COUNT + 1, &result);
    EXPECT(result == DECODE_MALFORMED, "%d", (int)result);
}

/* The key is cut, so it has to be gathered: where the calls have taken --max-memory, a client may try again. */
static void a_streams_key_that_no_memory_is_left_for_is_no_malformed_message(void **state)
{
    (void)state;
    AUTO_BYTES message = {0};
    uint8_t key[2 * ARENA_FIRST] = {0};
    struct budget budget = {.max = sizeof key - 1};
    struct upload_message upload;
    struct arena arena;
    put_len(&message, KEY, key, sizeof key);
    grpc_byte_buffer *cut = message_cut(message.data, message.len, message.len / 2);
    arena_init(&arena, &budget);
    enum decode_result result = decode_upload(cut, &arena, &upload);
    EXPECT(result == DECODE_NOMEM && arena.refused, "%d", (int)result);
    arena_fini(&arena);
    budget.max = 2 * ARENA_BLOCK;
    result = decode_upload(cut, &arena, &upload);
    EXPECT(result == DECODE_OK && upload.selector == UPLOAD_KEY, "%d", (int)result);
    arena_fini(&arena);
    grpc_byte_buffer_destroy(cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_to_the_decoder_what_they_are_to_protobuf),
        cmocka_unit_test(an_item_alone_is_to_the_decoder_what_it_is_to_protobuf),
        cmocka_unit_test(a_streams_message_is_to_the_decoder_what_it_is_to_protobuf_wherever_it_is_cut),
        cmocka_unit_test(more_items_than_a_turn_takes_come_out_whole_after_several),
        cmocka_unit_test(an_item_or_a_streams_message_of_more_than_a_thousand_fields_is_malformed),
        cmocka_unit_test(items_of_many_fields_take_more_turns_and_one_of_too_many_is_malformed),
        cmocka_unit_test(a_streams_key_that_no_memory_is_left_for_is_no_malformed_message),
        cmocka_unit_test(without_memory_for_its_items_a_batch_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
