/*
 * Requests to write: batches of items, items alone and messages of a stream are to the decoders by hand what they are
 * to protobuf-c.
 */
#include "request.h"

#include "../unit_service/items_oracle.h"
#include "../unit_service/wire_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint64_t counts[] = {0, 1, 4, 1000000};
static const uint64_t lengths[] = {1, 5, 60, 1 << 30};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    uint8_t how = feed_u8(&feed);
    bool by_hash = (how & 1) != 0;
    enum decode_result result;
    if ((how & 6) == 0) {
        uint64_t max = counts[how >> 3 & 3];
        uint64_t payload_max = lengths[how >> 5 & 3];
        if (wire_differs(feed.at, feed.left, 0, 1))
            return 0;
        const char *wrong = items_judge(feed.at, feed.left, by_hash, max, payload_max, &result);
        REQUIRE(wrong == NULL, "a batch is not as to protobuf-c: %s", wrong);
        return 0;
    }
    if (wire_differs(feed.at, feed.left, 0, 0))
        return 0;
    if ((how & 6) == 2) {
        const char *wrong = item_judge(feed.at, feed.left, by_hash);
        REQUIRE(wrong == NULL, "an item is not as to protobuf-c: %s", wrong);
        return 0;
    }
    size_t piece = how >> 3;
    grpc_byte_buffer *message = request_message((rd_span){.data = feed.at, .len = feed.left}, piece);
    const char *wrong = upload_judge(feed.at, feed.left, message, &result);
    REQUIRE(wrong == NULL, "a message in pieces of %zu is not as to protobuf-c: %s", piece, wrong);
    grpc_byte_buffer_destroy(message);
    return 0;
}
