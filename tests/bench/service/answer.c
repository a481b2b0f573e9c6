/* The contract's answers, taken apart and compared with what was asked. */
#include "work.h"
#include <string.h>

/* Field numbers of proto/rdrive/v1/entry.proto. */
enum { OUTER = 1, ENTRY_PAYLOAD = 1, ENTRY_METADATA = 2, METADATA_KEY_HASH = 1 };
enum { FRAGMENT_DATA = 1, FRAGMENT_OFFSET = 2, FRAGMENT_SIZE = 3, FRAGMENT_METADATA = 4 };
enum { ITEM_INDEX = 1, ITEM_ENTRY = 2, ITEM_FRAGMENT = 3 };

struct span {
    const uint8_t *at, *end;
};

struct field {
    unsigned number;
    uint64_t value; /* of numbers; the length of bytes */
    struct span bytes;
};

static uint64_t take_varint(struct span *span)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        CHECK(span->at < span->end);
        uint8_t byte = *span->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    die("an answer is no protobuf message");
}

static bool next_field(struct span *span, struct field *out_field)
{
    static const size_t fixed[8] = {[1] = 8, [5] = 4};
    if (span->at == span->end)
        return false;
    uint64_t tag = take_varint(span);
    unsigned type = tag & 7;
    *out_field = (struct field){.number = (unsigned)(tag >> 3)};
    if (type == 0 || type == 2)
        out_field->value = take_varint(span);
    size_t len = type == 2 ? out_field->value : fixed[type];
    CHECK(type == 0 || len > 0 || type == 2);
    CHECK(len <= (size_t)(span->end - span->at));
    if (type == 1 || type == 5)
        memcpy(&out_field->value, span->at, len);
    out_field->bytes = (struct span){span->at, span->at + len};
    span->at += len;
    return true;
}

void answer_begin(struct answer *answer, const struct work *work, const uint64_t *picks)
{
    *answer = (struct answer){.work = work, .picks = picks};
}

static void check_metadata(const struct answer *answer, struct span metadata)
{
    struct field field;
    uint64_t hash = 0;
    while (next_field(&metadata, &field))
        if (field.number == METADATA_KEY_HASH)
            hash = field.value;
    CHECK(hash == work_hash(answer->picks[answer->next]));
}

static void take_payload(struct answer *answer, uint64_t off, struct span payload)
{
    size_t len = (size_t)(payload.end - payload.at);
    CHECK(answer->next < answer->work->batch && off == answer->off);
    if (!work_is_value(answer->work, answer->picks[answer->next], off, payload.at, len))
        die("the value of key %llu is wrong", (unsigned long long)answer->picks[answer->next]);
    answer->off += len;
}

static void item_done(struct answer *answer)
{
    CHECK(answer->off == answer->work->value_len);
    answer->off = 0;
    answer->next++;
}

static void take_entry(struct answer *answer, struct span entry)
{
    struct field field;
    bool metadata = false;
    CHECK(answer->next < answer->work->batch);
    while (next_field(&entry, &field)) {
        if (field.number == ENTRY_PAYLOAD) {
            take_payload(answer, 0, field.bytes);
        } else if (field.number == ENTRY_METADATA) {
            check_metadata(answer, field.bytes);
            metadata = true;
        }
    }
    CHECK(metadata != answer->work->omit_metadata);
    item_done(answer);
}

static void take_fragment(struct answer *answer, struct span fragment)
{
    struct field field;
    struct span data = {0};
    uint64_t off = 0;
    CHECK(answer->next < answer->work->batch);
    while (next_field(&fragment, &field)) {
        if (field.number == FRAGMENT_DATA)
            data = field.bytes;
        else if (field.number == FRAGMENT_OFFSET)
            off = field.value;
        else if (field.number == FRAGMENT_SIZE)
            CHECK(field.value == answer->work->value_len);
        else if (field.number == FRAGMENT_METADATA)
            check_metadata(answer, field.bytes);
    }
    take_payload(answer, off, data);
    if (answer->off == answer->work->value_len)
        item_done(answer);
}

static void take_item(struct answer *answer, struct span item)
{
    struct field field;
    uint64_t index = 0;
    bool any = false;
    while (next_field(&item, &field)) {
        if (field.number == ITEM_INDEX) {
            index = field.value;
            continue;
        }
        CHECK(index == answer->next && (field.number == ITEM_ENTRY || field.number == ITEM_FRAGMENT));
        if (field.number == ITEM_ENTRY)
            take_entry(answer, field.bytes);
        else
            take_fragment(answer, field.bytes);
        any = true;
    }
    CHECK(any);
}

void answer_message(struct answer *answer, const uint8_t *message, size_t len)
{
    struct span rest = {message, message + len};
    struct field field;
    answer->bytes += len;
    if (answer->work->expect_bytes > 0)
        return;
    while (next_field(&rest, &field)) {
        CHECK(field.number == OUTER);
        switch (answer->work->kind) {
        case WORK_READ: take_entry(answer, field.bytes); break;
        case WORK_READ_STREAM: take_fragment(answer, field.bytes); break;
        case WORK_BATCH_READ:
        case WORK_BATCH_HASHED:
        case WORK_BATCH_STREAM: take_item(answer, field.bytes); break;
        case WORK_COUNT: break;
        }
    }
}

void answer_end(const struct answer *answer)
{
    if (answer->work->expect_bytes > 0)
        CHECK(answer->bytes == answer->work->expect_bytes);
    else
        CHECK(answer->next == answer->work->batch && answer->off == 0);
}
