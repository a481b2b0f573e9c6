/*
 * Requests with keys: the decoders say what protobuf-c says of the same bytes; with repeated ones, however they are cut
 * into slices. Where the two are known to differ, it says the same of every cut.
 */
#include "request.h"

#include "../unit_service/keys_oracle.h"
#include "../unit_service/wire_oracle.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct keys_kind *const kinds[] = {&keys_by_key, &keys_by_stream, &keys_by_hash, &keys_to_delete,
                                                &hashes_to_delete};
enum { ONE_KEY = 0x40, ONE_HASH = 0x80 }; /* bits of the first byte */

static const uint64_t limits[] = {0, 1, 3, 1000000};

static void expect_same(const struct keys_kind *kind, uint64_t max, const grpc_byte_buffer *a,
                        const grpc_byte_buffer *b)
{
    struct keys_got one;
    struct keys_got other;
    enum decode_result result = keys_decode(a, &kind->fields, max, &one);
    REQUIRE(keys_decode(b, &kind->fields, max, &other) == result, "not %d when it is cut otherwise", (int)result);
    if (result == DECODE_OK) {
        const rd_key *x = one.decoder.keys;
        const rd_key *y = other.decoder.keys;
        REQUIRE(one.decoder.count == other.decoder.count, "%zu keys, %zu when it is cut otherwise", one.decoder.count,
                other.decoder.count);
        for (size_t i = 0; i < one.decoder.count; i++)
            REQUIRE(x[i].hash == y[i].hash && x[i].cookie == y[i].cookie, "key %zu is another when it is cut otherwise",
                    i);
    }
    keys_got_fini(&one);
    keys_got_fini(&other);
}

/* Where the two are known to differ, it is good enough that it comes to an end. */
static void expect_key(const struct feed *feed, bool by_hash)
{
    bool good;
    const char *wrong = key_judge(feed->at, feed->left, by_hash, &good);
    REQUIRE(wrong == NULL || wire_differs(feed->at, feed->left, 0, 0), "one key is not as to protobuf-c: %s", wrong);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    uint8_t how = feed_u8(&feed);
    if ((how & ONE_KEY) != 0) {
        expect_key(&feed, (how & ONE_HASH) != 0);
        return 0;
    }
    const struct keys_kind *kind = kinds[(how & 15) % (sizeof kinds / sizeof kinds[0])];
    uint64_t max = limits[how >> 4 & 3];
    size_t piece = 1 + feed_u8(&feed) % 16;
    rd_span bytes = {.data = feed.at, .len = feed.left};

    grpc_byte_buffer *whole = request_message(bytes, 0);
    grpc_byte_buffer *pieces = request_message(bytes, piece);
    expect_same(kind, max, whole, pieces);
    if (!keys_differ(kind, feed.at, feed.left)) {
        struct keys_wanted wanted = keys_wanted_of(kind, feed.at, feed.left, max);
        const char *wrong = keys_judge(kind, &wanted, max, whole);
        REQUIRE(wrong == NULL, "not as protobuf-c: %s", wrong);
        wrong = keys_judge(kind, &wanted, max, pieces);
        REQUIRE(wrong == NULL, "not as protobuf-c, in pieces of %zu: %s", piece, wrong);
        keys_wanted_fini(&wanted);
    }
    grpc_byte_buffer_destroy(whole);
    grpc_byte_buffer_destroy(pieces);
    return 0;
}
