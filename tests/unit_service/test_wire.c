/* Protobuf's wire format: what is put can be read, however it is cut, and what is malformed is refused. */
#include "message.h"
#include "wire.h"

#include <stdlib.h>

/* Numbers around every length of a varint. */
static uint64_t edge_number(size_t i)
{
    return i == 0 ? 0 : (UINT64_C(1) << ((i - 1) / 3 % 64)) + (uint64_t)(i % 3) - 1;
}
#define EDGES 193

static struct wire_cursor cursor_of(const grpc_byte_buffer *message)
{
    struct wire_cursor cursor;
    wire_cursor_init(&cursor, message);
    return cursor;
}

static void a_varint_takes_as_many_bytes_as_said_and_reads_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < EDGES; i++) {
        uint8_t bytes[10];
        uint64_t number = edge_number(i);
        uint64_t back = ~number;
        size_t len = (size_t)(wire_put_varint(bytes, number) - bytes);
        EXPECT(len == wire_varint_size(number), "%llx: %zu bytes", (unsigned long long)number, len);
        for (size_t piece = 1; piece <= len; piece++) {
            grpc_byte_buffer *message = message_pieces(bytes, len, piece);
            struct wire_cursor cursor = cursor_of(message);
            EXPECT(wire_read_varint(&cursor, &back) && back == number, "%llx", (unsigned long long)number);
            EXPECT(cursor.left == 0, "%llu left", (unsigned long long)cursor.left);
            grpc_byte_buffer_destroy(message);
        }
        for (size_t cut = 0; cut < len; cut++) {
            grpc_byte_buffer *message = message_whole(bytes, cut);
            struct wire_cursor cursor = cursor_of(message);
            EXPECT(!wire_read_varint(&cursor, &back), "%llx cut to %zu", (unsigned long long)number, cut);
            grpc_byte_buffer_destroy(message);
        }
    }
}

static void a_varint_of_eleven_bytes_is_malformed(void **state)
{
    (void)state;
    for (size_t pad = 0; pad <= 12; pad++) {
        AUTO_BYTES bytes = {0};
        uint64_t back = 0;
        put_varint(&bytes, 5, pad);
        EXPECT(bytes.len == pad + 1, "%zu", bytes.len);
        grpc_byte_buffer *message = message_whole(bytes.data, bytes.len);
        struct wire_cursor cursor = cursor_of(message);
        EXPECT(wire_read_varint(&cursor, &back) == (pad < 10), "%zu bytes", bytes.len);
        EXPECT(pad >= 10 || back == 5, "%llu", (unsigned long long)back);
        grpc_byte_buffer_destroy(message);
    }
}

static void fields_take_as_many_bytes_as_said_and_zeros_none(void **state)
{
    (void)state;
    for (size_t i = 0; i < EDGES; i++) {
        uint8_t bytes[16];
        uint64_t number = edge_number(i);
        EXPECT((size_t)(wire_put_varint_field(bytes, 3, number) - bytes) == wire_varint_field_size(number), "varint");
        EXPECT((size_t)(wire_put_fixed64_field(bytes, 3, number) - bytes) == (number == 0 ? 0 : 9), "fixed64");
        EXPECT((size_t)(wire_put_fixed32_field(bytes, 3, (uint32_t)number) - bytes) == ((uint32_t)number == 0 ? 0 : 5),
               "fixed32");
        size_t len = (size_t)(number % SIZE_MAX);
        EXPECT((size_t)(wire_put_len(bytes, 3, len) - bytes) + len == wire_len_size(len), "length");
    }
}

static void only_four_wire_types_and_the_legal_numbers_are_tags(void **state)
{
    (void)state;
    static const uint64_t numbers[] = {0, 1, 15, 16, 2047, 2048, (1 << 29) - 1, 1 << 29, UINT64_C(1) << 32};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        for (unsigned type = 0; type < 8; type++) {
            AUTO_BYTES bytes = {0};
            uint32_t field = 0;
            enum wire_type read_type = WIRE_VARINT;
            bool legal = numbers[i] >= 1 && numbers[i] < (1 << 29) && (type <= 2 || type == 5);
            put_tag(&bytes, numbers[i], type);
            grpc_byte_buffer *message = message_pieces(bytes.data, bytes.len, 1);
            struct wire_cursor cursor = cursor_of(message);
            EXPECT(wire_read_tag(&cursor, &field, &read_type) == legal, "field %llu type %u",
                   (unsigned long long)numbers[i], type);
            EXPECT(!legal || (field == numbers[i] && (unsigned)read_type == type), "field %u", field);
            grpc_byte_buffer_destroy(message);
        }
    }
}

static void a_field_is_skipped_whole_or_refused(void **state)
{
    (void)state;
    AUTO_BYTES bytes = {0};
    put_varint(&bytes, UINT64_MAX, 0);
    put_fixed(&bytes, 7, 8);
    put_varint(&bytes, 5, 0);
    put_fixed(&bytes, 0, 5);
    put_fixed(&bytes, 7, 4);
    static const struct {
        enum wire_type type;
        size_t end;
    } fields[] = {{WIRE_VARINT, 10}, {WIRE_FIXED64, 18}, {WIRE_LEN, 24}, {WIRE_FIXED32, 28}};
    for (size_t len = 0; len <= bytes.len; len++) {
        grpc_byte_buffer *message = message_pieces(bytes.data, len, 1 + len % 4);
        struct wire_cursor cursor = cursor_of(message);
        bool good = true;
        for (size_t i = 0; good && i < 4; i++) {
            good = wire_skip_field(&cursor, fields[i].type);
            EXPECT(good == (len >= fields[i].end), "field %zu of %zu bytes", i, len);
            EXPECT(!good || cursor.left == len - fields[i].end, "%llu left", (unsigned long long)cursor.left);
        }
        grpc_byte_buffer_destroy(message);
    }
}

static void bytes_come_in_order_however_they_are_cut(void **state)
{
    (void)state;
    AUTO_BYTES bytes = bytes_xorshift(3, 200);
    struct dice dice = {11};
    for (size_t i = 0; i < 2000; i++) {
        uint8_t got[200];
        size_t at = 0;
        grpc_byte_buffer *message = message_shattered(&dice, bytes.data, bytes.len);
        struct wire_cursor cursor = cursor_of(message);
        while (at < bytes.len) {
            const uint8_t *piece = NULL;
            size_t want = (size_t)dice_roll(&dice, bytes.len - at + 1);
            if (dice_roll(&dice, 2) == 0) {
                EXPECT(wire_read_bytes(&cursor, got + at, want), "%zu", want);
                at += want;
            } else {
                size_t len = wire_read_piece(&cursor, want, &piece);
                EXPECT((len > 0) == (want > 0) && len <= want, "%zu of %zu", len, want);
                if (len > 0)
                    memcpy(got + at, piece, len);
                at += len;
            }
            EXPECT(cursor.left == bytes.len - at, "%llu left", (unsigned long long)cursor.left);
        }
        assert_memory_equal(got, bytes.data, bytes.len);
        EXPECT(!wire_read_bytes(&cursor, got, 1) && !wire_skip(&cursor, 1) && wire_skip(&cursor, 0), "beyond the end");
        grpc_byte_buffer_destroy(message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_varint_takes_as_many_bytes_as_said_and_reads_back),
        cmocka_unit_test(a_varint_of_eleven_bytes_is_malformed),
        cmocka_unit_test(fields_take_as_many_bytes_as_said_and_zeros_none),
        cmocka_unit_test(only_four_wire_types_and_the_legal_numbers_are_tags),
        cmocka_unit_test(a_field_is_skipped_whole_or_refused),
        cmocka_unit_test(bytes_come_in_order_however_they_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
