/* A store that is served: reaching it, and what it says of itself. */
#include "remote.h"
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REACH_MS     10000 /* for the first answer */
#define TRIES_MAX    4u
#define AGAIN_MS     100 /* before the second try; then twice as long each time */
#define TIMEOUT_MIN  1
#define SCHEME_PLAIN "grpc://"
#define SCHEME_TLS   "grpcs://"
#define REQUEST_ROOM 64u /* of a request, for what is not payload */

/* ---- calls ---- */

void remote_free(void *answer)
{
    if (answer != NULL)
        protobuf_c_message_free_unpacked(answer, NULL);
}

bool remote_again(const struct remote_store *store, unsigned *tries, bool repeatable)
{
    if (store->outcome.status != GRPC_STATUS_UNAVAILABLE || (!repeatable && !store->outcome.refused) ||
        ++*tries >= TRIES_MAX)
        return false;
    long ms = AGAIN_MS << (*tries - 1);
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&wait, NULL);
    return true;
}

rd_err remote_note(struct remote_store *store)
{
    outcome_text(&store->outcome, store->why, sizeof(store->why));
    return outcome_error(&store->outcome);
}

rd_err remote_nonsense(struct remote_store *store, const char *what)
{
    outcome_set(&store->outcome, GRPC_STATUS_DATA_LOSS, "%s", what);
    (void)snprintf(store->why, sizeof(store->why), "the server's answer: %s", what);
    return RD_E_DAMAGED;
}

void *remote_ask(struct remote_store *store, const char *method, const ProtobufCMessage *request,
                 const ProtobufCMessageDescriptor *answer, bool repeatable, rd_err *out_err)
{
    unsigned tries = 0;
    for (;;) {
        ProtobufCMessage *message = channel_unary(&store->channel, method, request, answer, 0, &store->outcome);
        if (message != NULL)
            return message;
        if (remote_again(store, &tries, repeatable))
            continue;
        *out_err = remote_note(store);
        return NULL;
    }
}

/* ---- open and close ---- */

/* What the server says of its store, now. */
static rd_err ask_info(struct remote_store *store)
{
    Rdrive__V1__GetStoreInfoRequest request;
    rdrive__v1__get_store_info_request__init(&request);
    rd_err err = RD_OK;
    Rdrive__V1__GetStoreInfoResponse *info = remote_ask(store, READER("GetStoreInfo"), &request.base,
                                                        &rdrive__v1__get_store_info_response__descriptor, true, &err);
    if (info == NULL)
        return err;
    remote_free(store->info);
    store->info = info;
    (void)snprintf(store->version, sizeof(store->version), "%s", info->server_version);
    (void)snprintf(store->engine, sizeof(store->engine), "%s", info->engine);
    return info->limits != NULL ? RD_OK : remote_nonsense(store, "GetStoreInfo has no limits");
}

static void take_limits(struct remote_store *store)
{
    const Rdrive__V1__Limits *limits = store->info->limits;
    store->base.write_items_max = (size_t)limits->max_batch_keys;
    store->base.write_bytes_max =
        limits->max_request_bytes > 2 * REQUEST_ROOM ? (size_t)limits->max_request_bytes - REQUEST_ROOM : REQUEST_ROOM;
}

static void remote_close(struct tool_store *base)
{
    struct remote_store *store = remote_of(base);
    if (store->not_durable)
        (void)report(STATUS_DONE, "%s: written, but not yet durable: its server syncs later, as its --sync says",
                     base->target);
    channel_close(&store->channel);
    remote_free(store->info);
    free(store);
}

static int64_t timeout_ms(const struct tool_open_how *how)
{
    int64_t ms = (int64_t)(how->timeout * 1000);
    return how->timeout > 0 && ms < TIMEOUT_MIN ? TIMEOUT_MIN : ms;
}

/* Open the channel. Returns: RD_OK; RD_E_INVALID the target is none; RD_E_IO a file of ours. */
static rd_err connect_to(struct remote_store *store, const char *target, const struct tool_open_how *how,
                         rd_fault *out_fault)
{
    bool tls = strncmp(target, SCHEME_TLS, strlen(SCHEME_TLS)) == 0;
    const char *address = tls ? target + strlen(SCHEME_TLS) : target;
    if (strncmp(target, SCHEME_PLAIN, strlen(SCHEME_PLAIN)) == 0)
        address = target + strlen(SCHEME_PLAIN);
    if (!channel_address_is_valid(address)) {
        (void)snprintf(out_fault->text, sizeof(out_fault->text),
                       "no address; allowed: " SCHEME_PLAIN "host:port, " SCHEME_TLS "host:port, unix:/path");
        return RD_E_INVALID;
    }
    store->to = (struct channel_to){.address = address,
                                    .tls = tls,
                                    .ca = how->ca,
                                    .cert = how->cert,
                                    .key = how->key,
                                    .timeout_ms = timeout_ms(how)};
    return channel_open(&store->channel, &store->to, out_fault->text, sizeof(out_fault->text)) ? RD_OK : RD_E_IO;
}

/* What may be the matter where a connection can't be had, by the core's words; empty for what they tell well enough. */
static const char *hint(const struct channel_to *to, const char *why)
{
    bool hung_up = strstr(why, "Socket closed") != NULL || strstr(why, "Connection reset") != NULL;
    if (!to->tls)
        return hung_up && strncmp(to->address, "unix:", 5) != 0 ? "; the server may want TLS: " SCHEME_TLS
                                                                  ", --ca, and --cert and --key"
                                                                : "";
    if (hung_up && to->cert == NULL)
        return "; the server may ask for a certificate: --cert and --key";
    if (strstr(why, "certificate verify failed") != NULL)
        return to->ca == NULL ? "; --ca names the authority to believe, where it is none of the system's"
                              : "; what --ca names has not signed it";
    return strstr(why, "wrong version number") != NULL ? "; the server may not speak TLS: " SCHEME_PLAIN : "";
}

/* What is to be said where the first call failed. */
static void tell_unreached(const struct remote_store *store, rd_fault *fault)
{
    const struct outcome *outcome = &store->outcome;
    const char *target = store->base.target, *why = store->why;
    if (outcome->refused)
        (void)snprintf(fault->text, sizeof(fault->text), "%.200s: %.250s", target, why);
    else if (outcome->status == GRPC_STATUS_UNIMPLEMENTED)
        (void)snprintf(fault->text, sizeof(fault->text), "%.200s: no rdrived answers there: %.250s", target, why);
    else if (outcome->status == GRPC_STATUS_DEADLINE_EXCEEDED)
        (void)snprintf(fault->text, sizeof(fault->text), "cannot reach %.200s: no answer came in time", target);
    else
        (void)snprintf(fault->text, sizeof(fault->text), "cannot reach %.180s: %.220s%s", target, why,
                       hint(&store->to, why));
}

static rd_err remote_open(const char *target, const struct tool_open_how *how, rd_fault *out_fault,
                          struct tool_store **out_store)
{
    *out_fault = (rd_fault){0};
    struct remote_store *store = calloc(1, sizeof(*store));
    if (store == NULL)
        return RD_E_NOMEM;
    store->base = (struct tool_store){.ops = &tool_remote_ops, .target = target};
    rd_err err = connect_to(store, target, how, out_fault);
    if (err == RD_OK) {
        int64_t timeout = store->channel.timeout_ms;
        store->channel.timeout_ms = timeout != 0 && timeout < REACH_MS ? timeout : REACH_MS;
        err = ask_info(store);
        store->channel.timeout_ms = timeout;
        if (err != RD_OK) {
            tell_unreached(store, out_fault);
            err = RD_E_UNAVAILABLE;
        }
    }
    if (err != RD_OK) {
        remote_close(&store->base);
        return err;
    }
    take_limits(store);
    *out_store = &store->base;
    return RD_OK;
}

static const char *remote_why(struct tool_store *store, rd_err err)
{
    return err == RD_ABSENT || remote_of(store)->why[0] == '\0' ? rd_err_text(err) : remote_of(store)->why;
}

static bool remote_is_file(struct tool_store *store, int fd)
{
    (void)store;
    (void)fd;
    return false;
}

/* ---- figures ---- */

static rd_err remote_info(struct tool_store *base, struct tool_fact *facts, size_t *out_count)
{
    struct remote_store *store = remote_of(base);
    rd_err err = ask_info(store);
    if (err != RD_OK)
        return err;
    const Rdrive__V1__GetStoreInfoResponse *info = store->info;
    const Rdrive__V1__Limits *limits = info->limits;
    const struct tool_fact all[] = {
        {"address", base->target, 0},
        {"live_keys", NULL, info->live_keys},
        {"entries", NULL, info->entries},
        {"tail_offset", NULL, info->tail_offset},
        {"file_size", NULL, info->file_size},
        {"generation", NULL, info->generation},
        {"damaged_entries", NULL, info->damaged_entries},
        {"writable", info->writable ? "yes" : "no", 0},
        {"atomic_batches", info->atomic_batches ? "yes" : "no", 0},
        {"engine", store->engine, 0},
        {"server_version", store->version, 0},
        {"max_batch_keys", NULL, limits->max_batch_keys},
        {"max_request_bytes", NULL, limits->max_request_bytes},
        {"max_response_bytes", NULL, limits->max_response_bytes},
        {"chunk_bytes", NULL, limits->chunk_bytes},
    };
    _Static_assert(sizeof(all) / sizeof(all[0]) <= TOOL_FACTS_MAX, "facts have room");
    memcpy(facts, all, sizeof(all));
    *out_count = sizeof(all) / sizeof(all[0]);
    return RD_OK;
}

/* The kind whose text this is; its key did not come along. */
static rd_damage_kind kind_of(const char *what)
{
    for (int kind = 0; kind < RD_DAMAGE_KINDS; kind++)
        if (strcmp(what, rd_damage_text((rd_damage_kind)kind)) == 0)
            return (rd_damage_kind)kind;
    return RD_DAMAGE_UNIDENTIFIED;
}

static rd_err remote_damage(struct tool_store *base, struct tool_damage *out_damage)
{
    const Rdrive__V1__GetStoreInfoResponse *info = remote_of(base)->info;
    out_damage->damaged_entries = info->damaged_entries;
    out_damage->damaged_ranges = info->n_damaged_ranges;
    out_damage->keys_untold = true;
    out_damage->unread_bytes = info->file_size > info->tail_offset ? info->file_size - info->tail_offset : 0;
    for (size_t i = 0; i < info->n_damaged_ranges && i < RD_DAMAGE_LISTED_MAX; i++) {
        const Rdrive__V1__DamagedRange *range = info->damaged_ranges[i];
        out_damage->listed[out_damage->listed_count++] =
            (rd_range){.offset = range->offset, .size = range->size, .kind = kind_of(range->what), .what = range->what};
    }
    return RD_OK;
}

const struct tool_ops tool_remote_ops = {
    .open = remote_open,
    .close = remote_close,
    .info = remote_info,
    .read = remote_read,
    .lane_open = remote_lane_open,
    .lane_close = remote_lane_close,
    .lane_ask = remote_lane_ask,
    .lane_take = remote_lane_take,
    .lane_give = remote_lane_give,
    .exists = remote_exists,
    .metadata = remote_metadata,
    .last = remote_last,
    .write = remote_write,
    .write_from = remote_write_from,
    .remove = remote_remove,
    .sync = remote_sync,
    .rename = remote_rename,
    .damage = remote_damage,
    .compact = remote_compact,
    .why = remote_why,
    .is_file = remote_is_file,
};
