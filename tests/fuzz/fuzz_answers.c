/*
 * What a server may send to the tool: answers of a batch, of one key, and a status's details. Any bytes are taken or
 * told, and nothing points outside of what came.
 */
#include "request.h"

#include "client/answers.h"
#include "client/outcome.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { COUNT_MAX = 8 };

static bool is_held(const struct answers *answers, rd_span payload)
{
    const uint8_t *begin = payload.data;
    for (const struct answers_piece *piece = answers->pieces; piece != NULL; piece = piece->next)
        if (begin >= piece->bytes && begin + payload.len <= piece->bytes + piece->len)
            return true;
    return payload.len == 0;
}

/* Messages, each behind its length in a byte; the last one has what is left. */
static void take_answers(struct feed *feed, size_t count, bool single)
{
    rd_batch_item items[COUNT_MAX];
    struct answers answers = {.items = items, .count = single ? 1 : count};
    const char *wrong = NULL;
    do {
        size_t len = single ? feed->left : feed_u8(feed);
        len = len < feed->left ? len : feed->left;
        const struct answers_piece *piece =
            answers_hold(&answers, request_message((rd_span){.data = feed->at, .len = len}, 7));
        REQUIRE(piece != NULL, "no memory for a small message");
        wrong = single ? answers_take_entry(&answers, piece) : answers_take(&answers, piece);
        feed->at += len;
        feed->left -= len;
    } while (wrong == NULL && feed->left > 0);
    REQUIRE(answers.next <= answers.count, "more answers than questions");
    for (size_t i = 0; i < answers.next; i++)
        REQUIRE(items[i].err != RD_OK || is_held(&answers, items[i].entry.payload), "item %zu points elsewhere", i);
    REQUIRE(wrong != NULL || answers_end(&answers) != NULL || answers.next == answers.count, "a whole with a gap");
    answers_fini(&answers);
}

static void take_outcome(const struct feed *feed)
{
    grpc_metadata metadata = {.key = grpc_slice_from_static_string("grpc-status-details-bin"),
                              .value = grpc_slice_from_copied_buffer((const char *)feed->at, feed->left)};
    const grpc_metadata_array trailing = {.count = 1, .capacity = 1, .metadata = &metadata};
    struct outcome outcome;
    char text[600];
    outcome_take(&outcome, GRPC_STATUS_DATA_LOSS, metadata.value, &trailing);
    outcome_text(&outcome, text, sizeof(text));
    REQUIRE(outcome_error(&outcome) != RD_OK, "a failure is none");
    REQUIRE(outcome.refused == (outcome.reason[0] != '\0'), "refused by '%s'", outcome.reason);
    grpc_slice_unref(metadata.value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    uint8_t how = feed_u8(&feed);
    if ((how & 3) == 0)
        take_outcome(&feed);
    else
        take_answers(&feed, (size_t)(how >> 2) % (COUNT_MAX + 1), (how & 3) == 1);
    return 0;
}
