#include "health.h"
#include "method.h"
#include "server.h"
#include <grpc/health/v1/health.pb-c.h>
#include <string.h>

/* A service's full name, and whether it is offered only where the store is open for writing. */
static const struct {
    const char *name;
    bool writes;
} services[] = {
    {"", false},
    {"rdrive.v1.DataStoreReaderService", false},
    {"rdrive.v1.DataStoreWriterService", true},
    {"grpc.health.v1.Health", false},
    {"grpc.reflection.v1.ServerReflection", false},
    {"grpc.reflection.v1alpha.ServerReflection", false},
};
#define SERVICE_COUNT (sizeof(services) / sizeof(services[0]))

typedef Grpc__Health__V1__HealthCheckResponse check_response;

static struct health *health_of(struct call *call)
{
    return &call->queue->server->health;
}

void health_init(struct health *health)
{
    *health = (struct health){0};
    pthread_mutex_init(&health->lock, NULL);
}

void health_fini(struct health *health)
{
    pthread_mutex_destroy(&health->lock);
}

/* Requires: the lock. */
static void wake_all(struct health *health)
{
    for (struct call *call = health->watches; call != NULL; call = call->u.watch.next) {
        if (call->u.watch.wake_posted)
            continue;
        call->u.watch.wake_posted = true;
        call_wake(call);
    }
}

void health_set(struct health *health, bool serving, bool writing)
{
    pthread_mutex_lock(&health->lock);
    health->serving = serving;
    health->writing = serving && writing;
    wake_all(health);
    pthread_mutex_unlock(&health->lock);
}

void health_end(struct health *health)
{
    pthread_mutex_lock(&health->lock);
    health->ending = true;
    wake_all(health);
    pthread_mutex_unlock(&health->lock);
}

void health_woken(struct call *call)
{
    struct health *health = health_of(call);
    pthread_mutex_lock(&health->lock);
    call->u.watch.wake_posted = false;
    pthread_mutex_unlock(&health->lock);
}

bool health_detach(struct call *call)
{
    struct health *health = health_of(call);
    struct watch *watch = &call->u.watch;
    pthread_mutex_lock(&health->lock);
    if (watch->link != NULL) {
        *watch->link = watch->next;
        if (watch->next != NULL)
            watch->next->u.watch.link = watch->link;
        watch->link = NULL;
    }
    bool pending = watch->wake_posted;
    pthread_mutex_unlock(&health->lock);
    return pending;
}

static void attach(struct call *call)
{
    struct health *health = health_of(call);
    struct watch *watch = &call->u.watch;
    pthread_mutex_lock(&health->lock);
    watch->next = health->watches;
    watch->link = &health->watches;
    if (watch->next != NULL)
        watch->next->u.watch.link = &watch->next;
    health->watches = call;
    pthread_mutex_unlock(&health->lock);
}

static int service_named(const char *name)
{
    for (int i = 0; i < (int)SERVICE_COUNT; i++)
        if (strcmp(services[i].name, name) == 0)
            return i;
    return -1;
}

/* What is told now, of one instant. */
struct told {
    bool serving;
    bool writing;
    bool ending;
};

static struct told told_now(struct call *call)
{
    struct health *health = health_of(call);
    pthread_mutex_lock(&health->lock);
    struct told told = {.serving = health->serving, .writing = health->writing, .ending = health->ending};
    pthread_mutex_unlock(&health->lock);
    return told;
}

static Grpc__Health__V1__HealthCheckResponse__ServingStatus status_of(const struct told *told, int service)
{
    if (service < 0)
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    return (services[service].writes ? told->writing : told->serving)
               ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
               : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

enum step health_check_begin(struct call *call)
{
    Grpc__Health__V1__HealthCheckRequest *request =
        call_decode(call, &grpc__health__v1__health_check_request__descriptor);
    if (request == NULL)
        return STEP_FAIL;
    struct told told = told_now(call);
    int service = service_named(request->service);
    if (service < 0)
        return call_refuse(call, REFUSE_SERVICE, "no service '%.100s' here; List names those there are",
                           request->service);
    check_response response;
    grpc__health__v1__health_check_response__init(&response);
    response.status = status_of(&told, service);
    call_pack(call, &response.base);
    return STEP_END;
}

enum step health_list_begin(struct call *call)
{
    if (call_decode(call, &grpc__health__v1__health_list_request__descriptor) == NULL)
        return STEP_FAIL;
    check_response statuses[SERVICE_COUNT];
    Grpc__Health__V1__HealthListResponse__StatusesEntry entries[SERVICE_COUNT];
    Grpc__Health__V1__HealthListResponse__StatusesEntry *pointers[SERVICE_COUNT];
    Grpc__Health__V1__HealthListResponse response;
    struct told told = told_now(call);
    for (size_t i = 0; i < SERVICE_COUNT; i++) {
        grpc__health__v1__health_check_response__init(&statuses[i]);
        statuses[i].status = status_of(&told, (int)i);
        grpc__health__v1__health_list_response__statuses_entry__init(&entries[i]);
        entries[i].key = (char *)(uintptr_t)services[i].name;
        entries[i].value = &statuses[i];
        pointers[i] = &entries[i];
    }
    grpc__health__v1__health_list_response__init(&response);
    response.n_statuses = SERVICE_COUNT;
    response.statuses = pointers;
    call_pack(call, &response.base);
    return STEP_END;
}

enum step health_watch_begin(struct call *call)
{
    Grpc__Health__V1__HealthCheckRequest *request =
        call_decode(call, &grpc__health__v1__health_check_request__descriptor);
    if (request == NULL)
        return STEP_FAIL;
    call->u.watch.service = service_named(request->service);
    call->u.watch.told = -1;
    attach(call);
    return health_watch_resume(call);
}

enum step health_watch_resume(struct call *call)
{
    struct watch *watch = &call->u.watch;
    struct told told = told_now(call);
    int status = (int)status_of(&told, watch->service);
    if (status == watch->told && !told.ending)
        return STEP_WATCH; /* a change from now on posts a wake, which this queue handles after this */
    if (status == watch->told)
        return call_refuse(call, REFUSE_DRAINING, "the server is shutting down; watch another one");
    check_response response;
    grpc__health__v1__health_check_response__init(&response);
    response.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status;
    call_pack(call, &response.base);
    watch->told = status;
    return STEP_SEND;
}
