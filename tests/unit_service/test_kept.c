/* Values on their way out by reference, while their store is compacted under them: a real engine, and messages that
 * nobody takes yet. */
#include "asyncop.h"
#include "encode.h"
#include "message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAYLOAD_LEN ((size_t)1 << 20)
#define ROUNDS      3
#define SLICES_MAX  64

/* The payload of a message as the core has it while its peer takes nothing. */
struct travelling {
    grpc_slice slices[SLICES_MAX];
    size_t count;
    struct bytes payload; /* what they are to hold */
};

/* How many mappings the process has of files named `path` that were replaced since. */
static size_t replaced_mappings(const char *path)
{
    char line[4096];
    char wanted[4096];
    size_t count = 0;
    snprintf(wanted, sizeof(wanted), "%s (deleted)", path);
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) != NULL)
        count += strstr(line, wanted) != NULL;
    fclose(maps);
    return count;
}

static void write_value(rd_engine *engine, const struct bytes *payload)
{
    rd_write_item item = {.key_hash = rd_hash(text_span("key")), .payload = bytes_span(payload)};
    struct asyncop a;
    asyncop_write_init(&a, &item);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    asyncop_finish(engine, &a);
}

static void compact(rd_engine *engine)
{
    struct asyncop a;
    asyncop_init(&a, RD_OP_COMPACT);
    asyncop_run(engine, &a);
    while (a.op.err == RD_OK && a.op.more) {
        asyncop_next(engine, &a);
        asyncop_wait(&a);
    }
    EXPECT(a.op.err == RD_OK, "%s", rd_err_text(a.op.err));
    asyncop_finish(engine, &a);
}

/* Read and encode the value as a call does, and end the call: only the message is left. */
static void send_value(rd_engine *engine, struct travelling *out_travelling)
{
    rd_key key = {.hash = rd_hash(text_span("key"))};
    rd_value value;
    struct asyncop a;
    struct reply reply = {0};
    asyncop_init(&a, RD_OP_READ);
    a.op.keys = &key;
    a.op.key_count = 1;
    a.op.values = &value;
    a.op.value_max = 1;
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    encode_entry_message(&reply, &(struct encode_source){.engine = engine, .op = &a.op, .by_reference = true}, &value);
    EXPECT(reply.referred == PAYLOAD_LEN, "%zu by reference", reply.referred);
    asyncop_finish(engine, &a);
    grpc_byte_buffer *message = reply_take(&reply);
    grpc_slice_buffer *slices = &message->data.raw.slice_buffer;
    for (size_t i = 0; i < slices->count; i++)
        if (GRPC_SLICE_LENGTH(slices->slices[i]) >= ENCODE_REFER_MIN) /* else it is around the payload */
            out_travelling->slices[out_travelling->count++] = grpc_slice_ref(slices->slices[i]);
    EXPECT(out_travelling->count >= 1 && out_travelling->count <= SLICES_MAX, "%zu slices", out_travelling->count);
    grpc_byte_buffer_destroy(message);
    reply_fini(&reply);
}

static void expect_bytes(const struct travelling *travelling)
{
    AUTO_BYTES got = {0};
    for (size_t i = 0; i < travelling->count; i++)
        bytes_append(&got, GRPC_SLICE_START_PTR(travelling->slices[i]), GRPC_SLICE_LENGTH(travelling->slices[i]));
    EXPECT(span_equal(bytes_span(&got), travelling->payload.data, travelling->payload.len), "%zu bytes", got.len);
}

/* Let go of the slices one by one: the file's mapping lasts as long as the last of them. */
static void let_go(struct travelling *travelling, const char *path, size_t mappings)
{
    expect_bytes(travelling);
    for (size_t i = 0; i < travelling->count; i++) {
        EXPECT(replaced_mappings(path) == mappings, "%zu mappings, not %zu", replaced_mappings(path), mappings);
        grpc_slice_unref(travelling->slices[i]);
    }
    EXPECT(replaced_mappings(path) == mappings - 1, "%zu mappings left", replaced_mappings(path));
    bytes_free(&travelling->payload);
}

static void a_message_keeps_its_bytes_while_the_file_is_replaced_again_and_again(void **state)
{
    const char *path = temp_path(state, "s");
    rd_store_close(store_make(state, "s"));
    rd_engine *engine = asyncop_engine(state, &open_writing);
    struct travelling messages[ROUNDS] = {0};
    for (uint64_t i = 0; i < ROUNDS; i++) { /* each message lies in a file of its own by now */
        messages[i].payload = bytes_xorshift(i + 1, PAYLOAD_LEN);
        write_value(engine, &messages[i].payload);
        send_value(engine, &messages[i]);
        EXPECT(reply_references() == i + 1, "%zu references", reply_references());
        compact(engine);
        for (uint64_t before = 0; before <= i; before++)
            expect_bytes(&messages[before]);
        EXPECT(replaced_mappings(path) == i + 1, "%zu mappings of replaced files", replaced_mappings(path));
    }
    struct bytes newest = bytes_xorshift(77, PAYLOAD_LEN);
    write_value(engine, &newest);
    compact(engine);
    EXPECT(replaced_mappings(path) == ROUNDS, "%zu mappings", replaced_mappings(path)); /* nothing refers to the last */
    for (size_t i = 0; i < ROUNDS; i++)
        let_go(&messages[i], path, ROUNDS - i);
    EXPECT(reply_references() == 0, "%zu references", reply_references());
    assert_int_equal(asyncop_read(engine, rd_hash(text_span("key")), newest.data, newest.len), RD_OK);
    bytes_free(&newest);
    rd_engine_destroy(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(a_message_keeps_its_bytes_while_the_file_is_replaced_again_and_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
