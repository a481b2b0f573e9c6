#include "probe.h"
#include "client/channel.h"
#include <grpc/health/v1/health.pb-c.h>
#include <stdio.h>
#include <string.h>

#define HOST_PORT_MAX 300u

/* What a server listens on, as an address to reach it at. */
static void reachable(const char *address, char out[HOST_PORT_MAX])
{
    static const struct {
        const char *wildcard, *loopback;
    } hosts[] = {{"0.0.0.0:", "127.0.0.1:"}, {"[::]:", "[::1]:"}};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        size_t len = strlen(hosts[i].wildcard);
        if (strncmp(address, hosts[i].wildcard, len) == 0) {
            (void)snprintf(out, HOST_PORT_MAX, "%s%s", hosts[i].loopback, address + len);
            return;
        }
    }
    (void)snprintf(out, HOST_PORT_MAX, "%s", address);
}

static const char *name_of(Grpc__Health__V1__HealthCheckResponse__ServingStatus status)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(
        &grpc__health__v1__health_check_response__serving_status__descriptor, (int)status);
    return value != NULL ? value->name : "an unknown status";
}

bool probe_health(const char *address, int timeout_ms, char *out_why, size_t why_size)
{
    char to[HOST_PORT_MAX];
    reachable(address, to);
    if (!channel_address_is_valid(to)) {
        (void)snprintf(out_why, why_size, "\"%s\" is no address; allowed: host:port, unix:/path", address);
        return false;
    }
    struct channel channel;
    if (!channel_open(&channel, &(struct channel_to){.address = to}, out_why, why_size))
        return false;
    Grpc__Health__V1__HealthCheckRequest request;
    grpc__health__v1__health_check_request__init(&request);
    struct outcome outcome;
    Grpc__Health__V1__HealthCheckResponse *answer =
        (void *)channel_unary(&channel, "/grpc.health.v1.Health/Check", &request.base,
                              &grpc__health__v1__health_check_response__descriptor, timeout_ms, &outcome);
    bool serving = answer != NULL && answer->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    if (answer == NULL) {
        char text[sizeof(outcome.text) + 64];
        outcome_text(&outcome, text, sizeof(text));
        (void)snprintf(out_why, why_size, "%s: %s", to, text);
    } else if (!serving) {
        (void)snprintf(out_why, why_size, "%s: %s", to, name_of(answer->status));
    }
    if (answer != NULL)
        protobuf_c_message_free_unpacked(&answer->base, NULL);
    channel_close(&channel);
    return serving;
}
