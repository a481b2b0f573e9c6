/* put and delete. */
#include "in.h"
#include "key.h"
#include "session.h"
#include "text.h"

#include <string.h>

/** A value on its way from the input to a store that takes it as it comes. */
struct feed {
    struct in *in;
    uint8_t head[2]; /* its first bytes, by which it is known to be legal (F-09) */
    size_t head_len; /* of those, not yet handed out */
    rd_span rest;    /* of the piece that they came from */
    enum in_result result;
};

static enum tool_source_result feed_piece(void *arg, rd_span *out_piece)
{
    struct feed *feed = arg;
    if (feed->head_len > 0) {
        *out_piece = (rd_span){feed->head, feed->head_len};
        feed->head_len = 0;
        return TOOL_SOURCE_PIECE;
    }
    if (feed->rest.len > 0) {
        *out_piece = feed->rest;
        feed->rest.len = 0;
        return TOOL_SOURCE_PIECE;
    }
    if (feed->result == IN_OK)
        feed->result = in_piece(feed->in, out_piece);
    if (feed->result == IN_OK)
        return TOOL_SOURCE_PIECE;
    return feed->result == IN_END ? TOOL_SOURCE_END : TOOL_SOURCE_FAILED;
}

/** Read until two bytes are there, or the end. Returns: whether what comes is a legal value, as far as it came. */
static bool feed_begin(struct feed *feed)
{
    while (feed->head_len < sizeof(feed->head) && feed->result == IN_OK) {
        feed->result = in_piece(feed->in, &feed->rest);
        while (feed->result == IN_OK && feed->rest.len > 0 && feed->head_len < sizeof(feed->head)) {
            feed->head[feed->head_len++] = *(const uint8_t *)feed->rest.data;
            feed->rest = (rd_span){(const uint8_t *)feed->rest.data + 1, feed->rest.len - 1};
        }
    }
    return payload_is_legal((rd_span){feed->head, feed->head_len});
}

/** Write what standard input brings while it comes. */
static int put_stream(const struct cli_call *call, const struct key *key, struct in *in)
{
    char label[KEY_LABEL_BYTES];
    struct feed feed = {.in = in, .result = IN_OK};
    bool legal = feed_begin(&feed);
    if (feed.result != IN_OK && feed.result != IN_END)
        return report(STATUS_FAILED, "reading %s: %s", in->name, in_why(in, feed.result));
    if (!legal)
        return report(STATUS_FAILED, "put: %s: %s", key_label(key, label), rd_err_text(RD_E_PAYLOAD));
    AUTO_STORE *store = NULL;
    const struct tool_open_how how = {.writable = true};
    int status = session_open(call, &how, &store);
    if (status != STATUS_DONE)
        return status;
    rd_err err = store->ops->write_from(store, key->key.hash, &(struct tool_source){feed_piece, &feed});
    if (feed.result != IN_OK && feed.result != IN_END)
        return report(STATUS_FAILED, "reading %s: %s; nothing was written", in->name, in_why(in, feed.result));
    return err == RD_OK ? STATUS_DONE : session_report(store, key_label(key, label), err);
}

int verb_put(const struct cli_call *call)
{
    AUTO_KEY key = {0};
    AUTO_IN in = {.fd = -1};
    int status = key_parse(call, call->args[1], &key);
    if (status != STATUS_DONE)
        return status;

    /* The value comes first, whole: a slow or failing pipe shall neither hold the writer's lock nor leave a new store.
     * A server sees to that by itself. */
    rd_span value = call->arg_count > 2 ? text_span(call->args[2]) : text_span("-");
    if (call->arg_count < 3 || strcmp(call->args[2], "-") == 0) {
        bool open = in_open(&in, "-");
        if (open && session_streams(call->args[0]))
            return put_stream(call, &key, &in);
        enum in_result result = open ? in_all(&in, IN_VALUE_MAX, &value) : IN_ERROR;
        if (result != IN_OK)
            return report(STATUS_FAILED, "reading %s: %s", in.name, in_why(&in, result));
    }
    char label[KEY_LABEL_BYTES];
    if (!payload_is_legal(value))
        return report(STATUS_FAILED, "put: %s: %s", key_label(&key, label), rd_err_text(RD_E_PAYLOAD));

    AUTO_STORE *store = NULL;
    const struct tool_open_how how = {
        .writable = true, .create = call->given[OPTION_CREATE], .offer_create = true, .sync = session_sync(call)};
    status = session_open(call, &how, &store);
    if (status != STATUS_DONE)
        return status;
    rd_err err = store->ops->write(store, &(rd_write_item){key.key.hash, value}, 1);
    return err == RD_OK ? STATUS_DONE : session_report(store, key_label(&key, label), err);
}

int verb_delete(const struct cli_call *call)
{
    AUTO_BUF hashes = {0};
    size_t count = call->arg_count - 1;
    for (size_t i = 0; i < count; i++) {
        AUTO_KEY key = {0};
        int status = key_parse(call, call->args[i + 1], &key);
        if (status != STATUS_DONE)
            return status;
        if (!buf_add(&hashes, (rd_span){&key.key.hash, sizeof(key.key.hash)}))
            return report(STATUS_FAILED, "delete: %s", rd_err_text(RD_E_NOMEM));
    }
    AUTO_STORE *store = NULL;
    const struct tool_open_how how = {.writable = true, .sync = session_sync(call)};
    int status = session_open(call, &how, &store);
    if (status != STATUS_DONE)
        return status;
    size_t deleted = 0;
    rd_err err = store->ops->remove(store, (const uint64_t *)(const void *)hashes.data, count, &deleted);
    if (err != RD_OK)
        return session_report(store, "delete", err);
    if (deleted == 0)
        return report(STATUS_ABSENT, "%s: %s", store->target,
                      count == 1 ? "the key is not present" : "none of the keys is present");
    return STATUS_DONE;
}
