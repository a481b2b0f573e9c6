/* put and delete. */
#include "in.h"
#include "key.h"
#include "session.h"
#include "text.h"

#include <string.h>

int verb_put(const struct cli_call *call)
{
    AUTO_KEY key = {0};
    AUTO_IN in = {.fd = -1};
    int status = key_parse(call, call->args[1], &key);
    if (status != STATUS_DONE)
        return status;

    /* The value comes first, whole: a slow or failing pipe shall neither hold the writer's lock nor leave a new store.
     */
    rd_span value = call->arg_count > 2 ? text_span(call->args[2]) : text_span("-");
    if (call->arg_count < 3 || strcmp(call->args[2], "-") == 0) {
        enum in_result result = in_open(&in, "-") ? in_all(&in, IN_VALUE_MAX, &value) : IN_ERROR;
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
