/**
 * What a client makes of the answers of a batch: those that a server packs come out as they went in, however they are
 * divided into messages; any other bytes are told, and nothing points outside of what came.
 */
#include "client/answers.h"
#include "message.h"

#include <rdrive/v1/reader.pb-c.h>
#include <string.h>

enum { COUNT_MAX = 6, VALUE_MAX = 50 };

/* An answer as it went in. */
struct wanted {
    rd_err err;
    uint8_t value[VALUE_MAX];
    size_t len;
    rd_metadata meta;
};

static struct wanted random_answer(struct dice *dice)
{
    static const rd_err errs[] = {RD_OK, RD_OK, RD_OK, RD_ABSENT, RD_E_DAMAGED, RD_E_TRUNCATED, RD_E_NO_SPACE};
    struct wanted wanted = {.err = errs[dice_roll(dice, sizeof errs / sizeof errs[0])]};
    if (wanted.err != RD_OK)
        return wanted;
    wanted.len = (size_t)(1 + dice_roll(dice, VALUE_MAX));
    for (size_t i = 0; i < wanted.len; i++)
        wanted.value[i] = (uint8_t)dice_number(dice);
    wanted.meta = (rd_metadata){.key_hash = dice_number(dice),
                                .prev_off = dice_number(dice) >> 16,
                                .checksum = (uint32_t)dice_number(dice),
                                .tombstone = dice_roll(dice, 2) == 0};
    return wanted;
}

/* ---- As a server packs them -------------------------------------------------------------------------------------- */

static void set_metadata(Rdrive__V1__EntryMetadata *message, const rd_metadata *meta)
{
    rdrive__v1__entry_metadata__init(message);
    message->key_hash = meta->key_hash;
    message->prev_offset = meta->prev_off;
    message->checksum = meta->checksum;
    message->tombstone = meta->tombstone;
}

/* Add one item to `out`, as an element of the message. */
static void put_item(struct bytes *out, const Rdrive__V1__BatchReadItem *item)
{
    uint8_t packed[512];
    EXPECT(rdrive__v1__batch_read_item__get_packed_size(item) <= sizeof packed, "room");
    put_len(out, 1, packed, rdrive__v1__batch_read_item__pack(item, packed));
}

static void put_fragment(struct bytes *out, uint32_t index, struct wanted *wanted, size_t at, size_t len)
{
    Rdrive__V1__EntryMetadata meta;
    Rdrive__V1__PayloadFragment fragment;
    Rdrive__V1__BatchReadItem item;
    set_metadata(&meta, &wanted->meta);
    rdrive__v1__payload_fragment__init(&fragment);
    rdrive__v1__batch_read_item__init(&item);
    fragment.data = (ProtobufCBinaryData){.len = len, .data = wanted->value + at};
    fragment.payload_offset = at;
    fragment.payload_size = wanted->len;
    fragment.metadata = at == 0 ? &meta : NULL;
    item.index = index;
    item.outcome_case = RDRIVE__V1__BATCH_READ_ITEM__OUTCOME_FRAGMENT;
    item.fragment = &fragment;
    put_item(out, &item);
}

static void put_whole(struct bytes *out, uint32_t index, struct wanted *wanted)
{
    Rdrive__V1__EntryMetadata meta;
    Rdrive__V1__Entry entry;
    Rdrive__V1__ItemError error;
    Rdrive__V1__Absent absent;
    Rdrive__V1__BatchReadItem item;
    set_metadata(&meta, &wanted->meta);
    rdrive__v1__entry__init(&entry);
    rdrive__v1__item_error__init(&error);
    rdrive__v1__absent__init(&absent);
    rdrive__v1__batch_read_item__init(&item);
    item.index = index;
    if (wanted->err == RD_OK) {
        entry.payload = (ProtobufCBinaryData){.len = wanted->len, .data = wanted->value};
        entry.metadata = &meta;
        item.outcome_case = RDRIVE__V1__BATCH_READ_ITEM__OUTCOME_ENTRY;
        item.entry = &entry;
    } else if (wanted->err == RD_ABSENT) {
        item.outcome_case = RDRIVE__V1__BATCH_READ_ITEM__OUTCOME_ABSENT;
        item.absent = &absent;
    } else {
        error.code = rd_err_status(wanted->err);
        error.message = (char *)(uintptr_t)rd_err_text(wanted->err);
        error.reason = (char *)(uintptr_t)rd_err_reason(wanted->err);
        item.outcome_case = RDRIVE__V1__BATCH_READ_ITEM__OUTCOME_ERROR;
        item.error = &error;
    }
    put_item(out, &item);
}

/* ---- Taking them ------------------------------------------------------------------------------------------------- */

static const char *take(struct answers *answers, const struct bytes *message)
{
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)message->data, message->len);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    const struct answers_piece *piece = answers_hold(answers, buffer);
    EXPECT(piece != NULL && piece->len == message->len, "held");
    return answers_take(answers, piece);
}

/* Send `count` answers as a server would, some in fragments, in messages that end anywhere; and after each, perhaps,
 * with a change to its bytes. Returns: NULL, or what the client says is wrong. */
static const char *travel(struct dice *dice, struct wanted *wanted, size_t count, struct answers *answers, bool harm)
{
    AUTO_BYTES message = {0};
    const char *wrong = NULL;
    for (size_t i = 0; i < count && wrong == NULL; i++) {
        size_t at = 0;
        bool cut = wanted[i].err == RD_OK && dice_roll(dice, 2) == 0;
        while (cut && at < wanted[i].len && wrong == NULL) {
            size_t len = (size_t)(1 + dice_roll(dice, wanted[i].len - at));
            put_fragment(&message, (uint32_t)i, &wanted[i], at, len);
            at += len;
            if (dice_roll(dice, 2) == 0) {
                wrong = take(answers, &message);
                message.len = 0;
            }
        }
        if (!cut)
            put_whole(&message, (uint32_t)i, &wanted[i]);
        if (harm && message.len > 0 && dice_roll(dice, 3) == 0)
            message.data[dice_roll(dice, message.len)] ^= (uint8_t)(1 << dice_roll(dice, 8));
    }
    if (wrong == NULL && message.len > 0)
        wrong = take(answers, &message);
    return wrong != NULL ? wrong : answers_end(answers);
}

static void expect_equal(const struct wanted *wanted, const rd_batch_item *item)
{
    EXPECT(item->err == wanted->err, "%s, not %s", rd_err_text(item->err), rd_err_text(wanted->err));
    if (wanted->err != RD_OK)
        return;
    EXPECT(span_equal(item->entry.payload, wanted->value, wanted->len), "another payload");
    const rd_metadata *a = &item->entry.meta, *b = &wanted->meta;
    EXPECT(a->key_hash == b->key_hash && a->prev_off == b->prev_off && a->checksum == b->checksum &&
               a->tombstone == b->tombstone,
           "other metadata");
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void answers_come_out_as_they_went_in_however_they_are_divided(void **state)
{
    (void)state;
    struct dice dice = {41};
    for (size_t round = 0; round < 20000; round++) {
        struct wanted wanted[COUNT_MAX];
        rd_batch_item items[COUNT_MAX];
        size_t count = (size_t)dice_roll(&dice, COUNT_MAX + 1);
        for (size_t i = 0; i < count; i++)
            wanted[i] = random_answer(&dice);
        struct answers answers = {.items = items, .count = count};
        const char *wrong = travel(&dice, wanted, count, &answers, false);
        EXPECT(wrong == NULL, "round %zu: %s", round, wrong);
        for (size_t i = 0; i < count; i++)
            expect_equal(&wanted[i], &items[i]);
        answers_fini(&answers);
    }
}

/* Whether a payload lies in what is held. */
static bool is_held(const struct answers *answers, rd_span payload)
{
    const uint8_t *begin = payload.data;
    for (const struct answers_piece *piece = answers->pieces; piece != NULL; piece = piece->next)
        if (begin >= piece->bytes && begin + payload.len <= piece->bytes + piece->len)
            return true;
    return payload.len == 0;
}

static void answers_whose_bytes_change_are_told_or_still_point_to_what_came(void **state)
{
    (void)state;
    struct dice dice = {42};
    size_t good = 0, told = 0;
    for (size_t round = 0; round < 50000; round++) {
        struct wanted wanted[COUNT_MAX];
        rd_batch_item items[COUNT_MAX];
        size_t count = (size_t)(1 + dice_roll(&dice, COUNT_MAX));
        for (size_t i = 0; i < count; i++)
            wanted[i] = random_answer(&dice);
        struct answers answers = {.items = items, .count = count};
        const char *wrong = travel(&dice, wanted, count, &answers, true);
        EXPECT(answers.next <= count, "round %zu: more answers than questions", round);
        for (size_t i = 0; i < answers.next; i++)
            EXPECT(items[i].err != RD_OK || is_held(&answers, items[i].entry.payload), "round %zu: item %zu", round, i);
        good += wrong == NULL;
        told += wrong != NULL;
        answers_fini(&answers);
    }
    EXPECT(good > 5000 && told > 5000, "the dice are loaded: %zu, %zu", good, told);
}

static void a_payload_of_a_size_that_nobody_has_takes_no_memory(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - 1, (UINT64_C(1) << 63) - 1, (UINT64_C(1) << 36) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct wanted wanted = {.err = RD_OK, .value = {1}, .len = (size_t)sizes[i]};
        AUTO_BYTES message = {0};
        rd_batch_item item;
        struct answers answers = {.items = &item, .count = 1};
        put_fragment(&message, 0, &wanted, 0, 1);
        const char *wrong = take(&answers, &message);
        EXPECT(wrong != NULL && strstr(wrong, "memory") != NULL, "%s", wrong != NULL ? wrong : "taken");
        answers_fini(&answers);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_out_as_they_went_in_however_they_are_divided),
        cmocka_unit_test(answers_whose_bytes_change_are_told_or_still_point_to_what_came),
        cmocka_unit_test(a_payload_of_a_size_that_nobody_has_takes_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
