/* The answers with payloads: packed by hand, byte for byte as protobuf-c packs them; and what they hold is let go. */
#include "encode.h"
#include "message.h"

#include <rdrive/v1/reader.pb-c.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAYLOAD_MAX ((size_t)1 << 20)

static const size_t lengths[] = {
    0, 1, 2, 126, 127, 128, 129, 4000, 16382, 16383, 16384, 16385, 65536, PAYLOAD_MAX - 1, PAYLOAD_MAX};
#define LENGTHS (sizeof lengths / sizeof lengths[0])

static const rd_metadata metas[] = {
    {.key_hash = UINT64_C(0x9555e8555c62dcfd), .prev_off = 1234, .checksum = 0xcbf43926},
    {.key_hash = 0, .prev_off = 0, .checksum = 0, .tombstone = false},
    {.key_hash = 0, .prev_off = 0, .checksum = 0, .tombstone = true},
    {.key_hash = 1, .prev_off = UINT64_MAX, .checksum = UINT32_MAX, .tombstone = true},
    {.key_hash = UINT64_MAX, .prev_off = 127, .checksum = 1},
    {.key_hash = UINT64_C(1) << 63, .prev_off = 128, .checksum = UINT32_C(1) << 31},
};
#define METAS (sizeof metas / sizeof metas[0])

static const uint32_t indices[] = {0, 1, 127, 128, 16383, 16384, 999999, UINT32_MAX};
#define INDICES (sizeof indices / sizeof indices[0])

static uint8_t *payload; /* PAYLOAD_MAX bytes */

static int make_payload(void **state)
{
    (void)state;
    payload = bytes_xorshift(1, PAYLOAD_MAX).data;
    return payload == NULL;
}

static int free_payload(void **state)
{
    (void)state;
    free(payload);
    return 0;
}

static rd_value value_of(size_t len, const rd_metadata *meta)
{
    return (rd_value){.payload = {.data = len > 0 ? payload : NULL, .len = len}, .meta = *meta};
}

/* ---- What protobuf-c packs --------------------------------------------------------------------------------------- */

static struct bytes pack(const ProtobufCMessage *message)
{
    struct bytes bytes = {.len = protobuf_c_message_get_packed_size(message)};
    bytes.data = malloc(bytes.len + 1);
    protobuf_c_message_pack(message, bytes.data);
    return bytes;
}

static Rdrive__V1__EntryMetadata metadata_of(const rd_metadata *meta)
{
    Rdrive__V1__EntryMetadata metadata;
    rdrive__v1__entry_metadata__init(&metadata);
    metadata.key_hash = meta->key_hash;
    metadata.prev_offset = meta->prev_off;
    metadata.checksum = meta->checksum;
    metadata.tombstone = meta->tombstone;
    return metadata;
}

static ProtobufCBinaryData binary_of(const void *data, size_t len)
{
    return (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)data, .len = len};
}

/* An item with all that it points to. */
struct item {
    Rdrive__V1__BatchReadItem item;
    Rdrive__V1__EntryMetadata metadata;
    Rdrive__V1__Entry entry;
    Rdrive__V1__PayloadFragment fragment;
    Rdrive__V1__ItemError error;
    Rdrive__V1__Absent absent;
};

static void item_of_value(struct item *item, uint32_t index, const rd_value *value, bool omit_metadata)
{
    rdrive__v1__batch_read_item__init(&item->item);
    item->item.index = index;
    item->metadata = metadata_of(&value->meta);
    if (value->err == RD_OK) {
        rdrive__v1__entry__init(&item->entry);
        item->entry.payload = binary_of(value->payload.data, value->payload.len);
        item->entry.metadata = omit_metadata ? NULL : &item->metadata;
        item->item.outcome_case = RDRIVE__V1__BATCH_READ_ITEM__OUTCOME_ENTRY;
        item->item.entry = &item->entry;
    } else if (value->err == RD_ABSENT) {
        rdrive__v1__absent__init(&item->absent);
        item->item.outcome_case = RDRIVE__V1__BATCH_READ_ITEM__OUTCOME_ABSENT;
        item->item.absent = &item->absent;
    } else {
        rdrive__v1__item_error__init(&item->error);
        item->error.code = rd_err_status(value->err);
        item->error.message = (char *)(uintptr_t)rd_err_text(value->err);
        item->error.reason = (char *)(uintptr_t)rd_err_reason(value->err);
        item->item.outcome_case = RDRIVE__V1__BATCH_READ_ITEM__OUTCOME_ERROR;
        item->item.error = &item->error;
    }
}

static void item_of_run(struct item *item, uint32_t index, const rd_value *value, const struct encode_run *run)
{
    rdrive__v1__batch_read_item__init(&item->item);
    rdrive__v1__payload_fragment__init(&item->fragment);
    item->metadata = metadata_of(&value->meta);
    item->item.index = index;
    item->item.outcome_case = RDRIVE__V1__BATCH_READ_ITEM__OUTCOME_FRAGMENT;
    item->item.fragment = &item->fragment;
    item->fragment.data = binary_of((const uint8_t *)value->payload.data + run->offset, run->len);
    item->fragment.payload_offset = run->offset;
    item->fragment.payload_size = value->payload.len;
    item->fragment.metadata = run->with_metadata ? &item->metadata : NULL;
}

/* `message { repeated BatchReadItem items = 1; }`: three answers have that form. */
static struct bytes pack_items(struct item *items, size_t count)
{
    Rdrive__V1__BatchReadResponse response;
    rdrive__v1__batch_read_response__init(&response);
    Rdrive__V1__BatchReadItem **pointers = calloc(count + 1, sizeof(*pointers));
    for (size_t i = 0; i < count; i++)
        pointers[i] = &items[i].item;
    response.n_items = count;
    response.items = pointers;
    struct bytes bytes = pack(&response.base);
    free(pointers);
    return bytes;
}

/* ---- Judging ------------------------------------------------------------------------------------------------------
 */

/* How often a message goes by reference: a long reference travels in several slices, one behind the other. */
static unsigned count_references(const grpc_byte_buffer *message)
{
    unsigned count = 0;
    const uint8_t *end = NULL;
    const grpc_slice_buffer *slices = &message->data.raw.slice_buffer;
    for (size_t i = 0; i < slices->count; i++) {
        const uint8_t *start = GRPC_SLICE_START_PTR(slices->slices[i]);
        bool inside = start >= payload && start < payload + PAYLOAD_MAX;
        count += inside && start != end;
        end = inside ? GRPC_SLICE_END_PTR(slices->slices[i]) : NULL;
    }
    return count;
}

/* Take what was encoded: `wanted` (given back here), by reference where it held, and all holds released. */
static void expect_message(struct reply *reply, struct holder *holder, struct bytes wanted, const char *what)
{
    EXPECT(reply->total == wanted.len, "%s: %zu bytes, not %zu", what, reply->total, wanted.len);
    grpc_byte_buffer *message = reply_take(reply);
    EXPECT(message != NULL && grpc_byte_buffer_length(message) == wanted.len, "%s", what);
    EXPECT(count_references(message) == holder->held, "%s: %u by reference, %u held", what, count_references(message),
           holder->held);
    EXPECT(holder->released == 0, "%s: released while it travels", what);
    struct bytes got = message_eat(message);
    EXPECT(got.len == wanted.len, "%s", what);
    for (size_t i = 0; i < got.len; i++)
        EXPECT(got.data[i] == wanted.data[i], "%s: byte %zu is %02x, not %02x", what, i, got.data[i], wanted.data[i]);
    EXPECT(holder->released == holder->held, "%s: %u of %u released", what, holder->released, holder->held);
    bytes_free(&got);
    bytes_free(&wanted);
    reply_fini(reply);
}

/* What each of the tests below does for each value: with an engine that holds, and with one that doesn't. */
typedef void encode_case(struct reply *reply, const struct encode_source *source, const rd_value *value, size_t number,
                         struct bytes *out_wanted);

static void each_value(encode_case *run, const char *what)
{
    for (size_t i = 0; i < LENGTHS * METAS * 2; i++) {
        size_t len = lengths[i / 2 / METAS];
        rd_value value = value_of(len, &metas[i / 2 % METAS]);
        struct holder holder = holder_make(i % 2 == 1);
        struct encode_source source = {.engine = &holder.engine, .by_reference = true};
        struct reply reply = {0};
        struct bytes wanted = {0};
        char where[100];
        snprintf(where, sizeof where, "%s, %zu bytes, metadata %zu", what, len, i / 2 % METAS);
        run(&reply, &source, &value, i / 2, &wanted);
        EXPECT(holder.held == (!holder.refuses && len >= ENCODE_REFER_MIN), "%s: %u held", where, holder.held);
        expect_message(&reply, &holder, wanted, where);
    }
}

static void run_entry(struct reply *reply, const struct encode_source *source, const rd_value *value, size_t number,
                      struct bytes *out_wanted)
{
    (void)number;
    struct item item;
    item_of_value(&item, 0, value, false);
    Rdrive__V1__ReadResponse response;
    rdrive__v1__read_response__init(&response);
    response.entry = &item.entry;
    *out_wanted = pack(&response.base);
    EXPECT(encode_entry_message_size(value) == out_wanted->len, "%zu bytes", value->payload.len);
    encode_entry_message(reply, source, value);
}

static void an_entry_is_packed_as_protobuf_does(void **state)
{
    (void)state;
    each_value(run_entry, "entry");
}

static void run_item(struct reply *reply, const struct encode_source *source, const rd_value *value, size_t number,
                     struct bytes *out_wanted)
{
    struct item item;
    bool omit_metadata = number % 3 == 0;
    uint32_t index = indices[number % INDICES];
    item_of_value(&item, index, value, omit_metadata);
    *out_wanted = pack_items(&item, 1);
    EXPECT(encode_item_size(index, value, omit_metadata) == out_wanted->len, "index %u", index);
    encode_item(reply, source, index, value, omit_metadata);
}

static void an_item_is_packed_as_protobuf_does(void **state)
{
    (void)state;
    each_value(run_item, "item");
}

static void every_outcome_under_every_index_is_packed_as_protobuf_does(void **state)
{
    (void)state;
    for (int err = 0; err < RD_ERR_COUNT; err++) {
        for (size_t i = 0; i < INDICES * 2; i++) {
            struct holder holder = holder_make(false);
            struct encode_source source = {.engine = &holder.engine, .by_reference = true};
            struct reply reply = {0};
            struct item item;
            rd_value value = {.err = (rd_err)err, .payload = {payload, err == RD_OK ? 100 : 0}, .meta = metas[0]};
            item_of_value(&item, indices[i / 2], &value, i % 2 == 0);
            struct bytes wanted = pack_items(&item, 1);
            EXPECT(encode_item_size(indices[i / 2], &value, i % 2 == 0) == wanted.len, "error %d", err);
            encode_item(&reply, &source, indices[i / 2], &value, i % 2 == 0);
            expect_message(&reply, &holder, wanted, rd_err_reason((rd_err)err));
        }
    }
}

/* A run of a value, its place and size chosen by `number`. */
static struct encode_run run_of(const rd_value *value, size_t number)
{
    struct dice dice = {number + 1};
    uint64_t offset = number % 4 == 0 ? 0 : dice_roll(&dice, value->payload.len + 1);
    uint64_t left = value->payload.len - offset;
    return (struct encode_run){.offset = offset,
                               .len = (size_t)(number % 3 == 0 ? left : dice_roll(&dice, left + 1)),
                               .with_metadata = number % 2 == 0};
}

/* Compare both forms of a fragment; the overhead that the stream reckons with must be enough for either. */
static void compare_run(const rd_value *value, uint32_t index, const struct encode_run *run, bool refuses)
{
    struct item item;
    item_of_run(&item, index, value, run);
    Rdrive__V1__ReadStreamResponse response;
    rdrive__v1__read_stream_response__init(&response);
    response.fragment = &item.fragment;
    for (int form = 0; form < 2; form++) {
        struct holder holder = holder_make(refuses);
        struct encode_source source = {.engine = &holder.engine, .by_reference = true};
        struct reply reply = {0};
        struct bytes wanted = form == 0 ? pack_items(&item, 1) : pack(&response.base);
        EXPECT(wanted.len <= run->len + ENCODE_FRAGMENT_OVERHEAD, "%zu bytes for %zu", wanted.len, run->len);
        if (form == 0)
            encode_fragment_item(&reply, &source, index, value, run);
        else
            encode_fragment_message(&reply, &source, value, run);
        EXPECT(holder.held == (!refuses && run->len >= ENCODE_REFER_MIN), "%u held", holder.held);
        expect_message(&reply, &holder, wanted, form == 0 ? "fragment in a batch" : "fragment");
    }
}

static void fragments_at_any_offset_are_packed_as_protobuf_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS * METAS; i++) {
        rd_value value = value_of(lengths[i / METAS], &metas[i % METAS]);
        if (value.payload.len == 0)
            continue; /* never sent in fragments */
        struct encode_run run = run_of(&value, i);
        compare_run(&value, indices[i % INDICES], &run, i % 5 == 0);
    }
    struct encode_run largest = {.offset = PAYLOAD_MAX - 16384, .len = 16384, .with_metadata = true};
    rd_value value = value_of(PAYLOAD_MAX, &metas[3]);
    compare_run(&value, UINT32_MAX, &largest, false);
}

/* No payload is that large here, but the numbers around it must fit what is reserved for them. */
static void the_largest_numbers_a_fragment_can_have_fit(void **state)
{
    (void)state;
    struct holder holder = holder_make(true);
    struct encode_source source = {.engine = &holder.engine, .by_reference = true};
    struct reply reply = {0};
    struct item item;
    rd_value value = {.payload = {payload, SIZE_MAX}, .meta = metas[3]};
    struct encode_run run = {.offset = 3, .len = 200, .with_metadata = true};
    item_of_run(&item, UINT32_MAX, &value, &run);
    struct bytes wanted = pack_items(&item, 1);
    EXPECT(wanted.len + 9 <= run.len + ENCODE_FRAGMENT_OVERHEAD, "an offset of ten bytes more"); /* it has one here */
    encode_fragment_item(&reply, &source, UINT32_MAX, &value, &run);
    expect_message(&reply, &holder, wanted, "fragment of SIZE_MAX");
}

static void metadata_alone_is_packed_as_protobuf_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < METAS; i++) {
        struct holder holder = holder_make(true);
        struct reply reply = {0};
        Rdrive__V1__EntryMetadata metadata = metadata_of(&metas[i]);
        Rdrive__V1__ReadMetadataResponse response;
        rdrive__v1__read_metadata_response__init(&response);
        response.metadata = &metadata;
        encode_metadata_message(&reply, &metas[i]);
        expect_message(&reply, &holder, pack(&response.base), "metadata");
    }
}

#define MIXED_MAX 60

static void any_sequence_of_items_is_packed_as_protobuf_does(void **state)
{
    (void)state;
    struct dice dice = {9};
    for (size_t round = 0; round < 500; round++) {
        static struct item items[MIXED_MAX];
        struct holder holder = holder_make(round % 4 == 0);
        struct encode_source source = {.engine = &holder.engine, .by_reference = true};
        struct reply reply = {0};
        size_t size = 0;
        size_t count = 1 + (size_t)dice_roll(&dice, MIXED_MAX);
        for (size_t i = 0; i < count; i++) {
            rd_value value = value_of((size_t)dice_roll(&dice, dice_roll(&dice, 8) == 0 ? 40000 : 300),
                                      &metas[dice_roll(&dice, METAS)]);
            if (value.payload.len > 2 && dice_roll(&dice, 4) == 0) {
                struct encode_run run = run_of(&value, (size_t)dice_roll(&dice, 1000));
                item_of_run(&items[i], (uint32_t)i, &value, &run);
                encode_fragment_item(&reply, &source, (uint32_t)i, &value, &run);
                size = reply.total;
                continue;
            }
            value.err = dice_roll(&dice, 5) == 0 ? RD_ABSENT : dice_roll(&dice, 9) == 0 ? RD_E_DAMAGED : RD_OK;
            if (value.err != RD_OK)
                value.payload = (rd_span){0};
            item_of_value(&items[i], (uint32_t)i, &value, round % 2 == 0);
            size += encode_item_size((uint32_t)i, &value, round % 2 == 0);
            encode_item(&reply, &source, (uint32_t)i, &value, round % 2 == 0);
            EXPECT(reply.total == size, "item %zu: %zu bytes, not %zu", i, reply.total, size);
        }
        expect_message(&reply, &holder, pack_items(items, count), "sequence");
    }
}

static void a_reply_thrown_away_releases_what_it_holds(void **state)
{
    (void)state;
    struct holder holder = holder_make(false);
    struct encode_source source = {.engine = &holder.engine, .by_reference = true};
    struct reply reply = {0};
    rd_value value = value_of(PAYLOAD_MAX, &metas[0]);
    for (uint32_t i = 0; i < 100; i++)
        encode_item(&reply, &source, i, &value, false);
    EXPECT(holder.held == 100 && holder.released == 0, "%u, %u", holder.held, holder.released);
    reply_fini(&reply);
    EXPECT(holder.released == 100, "%u released", holder.released);
}

static void where_references_are_not_allowed_all_is_copied(void **state)
{
    (void)state;
    struct holder holder = holder_make(false);
    struct encode_source source = {.engine = &holder.engine};
    struct reply reply = {0};
    rd_value value = value_of(PAYLOAD_MAX, &metas[0]);
    encode_entry_message(&reply, &source, &value);
    EXPECT(holder.held == 0 && reply.referred == 0 && reply.total > PAYLOAD_MAX, "%u held", holder.held);
    reply_fini(&reply);
}

/* protobuf-c's packing takes the same way, and what is not in the payload is copied, however long. */
static void what_lies_in_the_payload_is_known_by_its_address(void **state)
{
    (void)state;
    static uint8_t elsewhere[PAYLOAD_MAX];
    for (int outside = 0; outside < 2; outside++) {
        struct holder holder = holder_make(false);
        struct encode_source source = {.engine = &holder.engine, .by_reference = true};
        struct reply reply = {0};
        rd_value value = value_of(PAYLOAD_MAX, &metas[1]);
        Rdrive__V1__EntryMetadata metadata = metadata_of(&value.meta);
        Rdrive__V1__Entry entry;
        Rdrive__V1__ReadResponse response;
        rdrive__v1__entry__init(&entry);
        rdrive__v1__read_response__init(&response);
        entry.payload = binary_of(outside ? elsewhere : payload, PAYLOAD_MAX);
        entry.metadata = &metadata;
        response.entry = &entry;
        encode_value_message(&reply, &source, &value, &response.base);
        EXPECT(holder.held == !outside, "%u held", holder.held);
        EXPECT(reply.referred == (outside ? 0 : PAYLOAD_MAX), "%zu by reference", reply.referred);
        expect_message(&reply, &holder, pack(&response.base), "by protobuf-c");
    }
}

/* ---- Payloads that vanish while they are copied -------------------------------------------------------------------
 */

/* A value whose file was cut to nothing. cmocka has a handler of its own in each test; the engine's goes before it. */
static rd_value vanished_value(size_t len)
{
    static struct sigaction engines_own;
    if (engines_own.sa_sigaction == NULL) {
        EXPECT(rd_sigbus_install() == RD_OK, "no handler");
        EXPECT(sigaction(SIGBUS, NULL, &engines_own) == 0, "no handler");
    }
    EXPECT(sigaction(SIGBUS, &engines_own, NULL) == 0, "no handler");
    int fd = memfd_create("vanished", MFD_CLOEXEC);
    EXPECT(fd >= 0 && ftruncate(fd, (off_t)len) == 0, "no file");
    void *bytes = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    EXPECT(bytes != MAP_FAILED && ftruncate(fd, 0) == 0, "no mapping");
    close(fd);
    return (rd_value){.payload = {.data = bytes, .len = len}, .meta = metas[0]};
}

static void an_item_whose_payload_vanishes_is_an_error_between_good_ones(void **state)
{
    (void)state;
    struct holder holder = holder_make(false);
    struct encode_source source = {.engine = &holder.engine, .by_reference = true};
    struct reply reply = {0};
    rd_value gone = vanished_value(1000);
    rd_value good = value_of(50, &metas[1]);
    rd_value error = {.err = RD_E_TRUNCATED};
    struct item items[3];
    item_of_value(&items[0], 7, &good, false);
    item_of_value(&items[1], 8, &error, false);
    item_of_value(&items[2], 9, &good, false);
    encode_item(&reply, &source, 7, &good, false);
    encode_item(&reply, &source, 8, &gone, false);
    encode_item(&reply, &source, 9, &good, false);
    expect_message(&reply, &holder, pack_items(items, 3), "good, gone, good");
    munmap((void *)(uintptr_t)gone.payload.data, gone.payload.len);
}

static void a_message_whose_only_payload_vanishes_fails(void **state)
{
    (void)state;
    rd_value gone = vanished_value(ENCODE_REFER_MIN);
    const struct encode_run run = {.offset = 10, .len = 200, .with_metadata = true};
    for (int form = 0; form < 5; form++) {
        struct holder holder = holder_make(true);
        struct encode_source source = {.engine = &holder.engine, .by_reference = true};
        struct reply reply = {0};
        rd_value small = gone;
        small.payload.len = form == 0 ? 100 : gone.payload.len;
        switch (form) {
        case 0:
        case 1: encode_entry_message(&reply, &source, &small); break; /* 1: large, and the engine can't hold it */
        case 2: encode_item(&reply, &source, 3, &gone, false); break;
        case 3: encode_fragment_item(&reply, &source, 3, &gone, &run); break;
        case 4: encode_fragment_message(&reply, &source, &gone, &run); break;
        }
        EXPECT(reply.err == RD_E_TRUNCATED, "form %d: %s", form, rd_err_reason(reply.err));
        EXPECT(reply_take(&reply) == NULL, "form %d", form);
        EXPECT(reply.err == RD_OK && !reply.any, "form %d: it can be used again", form);
    }
    munmap((void *)(uintptr_t)gone.payload.data, gone.payload.len);
}

/* Whichever allocation fails: the message is not sent, and every hold is released once. */
static void without_memory_nothing_is_sent_and_nothing_kept(void **state)
{
    (void)state;
    for (uint64_t count = 0;; count++) {
        struct holder holder = holder_make(false);
        struct encode_source source = {.engine = &holder.engine, .by_reference = true};
        struct reply reply = {0};
        rd_value value = value_of(20000, &metas[0]);
        memory_fail_after(count);
        for (uint32_t i = 0; i < 20; i++)
            encode_item(&reply, &source, i, &value, false);
        grpc_byte_buffer *message = reply_take(&reply);
        bool failed = memory_has_failed();
        memory_fail_after(UINT64_MAX);
        EXPECT((message == NULL) == failed, "after %llu", (unsigned long long)count);
        if (message != NULL)
            grpc_byte_buffer_destroy(message);
        EXPECT(holder.released == holder.held, "after %llu: %u of %u released", (unsigned long long)count,
               holder.released, holder.held);
        if (!failed)
            return;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_is_packed_as_protobuf_does),
        cmocka_unit_test(an_item_is_packed_as_protobuf_does),
        cmocka_unit_test(every_outcome_under_every_index_is_packed_as_protobuf_does),
        cmocka_unit_test(fragments_at_any_offset_are_packed_as_protobuf_does),
        cmocka_unit_test(the_largest_numbers_a_fragment_can_have_fit),
        cmocka_unit_test(metadata_alone_is_packed_as_protobuf_does),
        cmocka_unit_test(any_sequence_of_items_is_packed_as_protobuf_does),
        cmocka_unit_test(a_reply_thrown_away_releases_what_it_holds),
        cmocka_unit_test(where_references_are_not_allowed_all_is_copied),
        cmocka_unit_test(what_lies_in_the_payload_is_known_by_its_address),
        cmocka_unit_test(an_item_whose_payload_vanishes_is_an_error_between_good_ones),
        cmocka_unit_test(a_message_whose_only_payload_vanishes_fails),
        cmocka_unit_test(without_memory_nothing_is_sent_and_nothing_kept),
    };
    return cmocka_run_group_tests(tests, make_payload, free_payload);
}
