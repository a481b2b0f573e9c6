#include "tls.h"
#include "log.h"
#include <string.h>
#include <sys/stat.h>

#define LOOK_S        1
#define SETTLED_NS    UINT64_C(2000000000)
#define NS_PER_SECOND UINT64_C(1000000000)

/* ---- what the log says ---- */

static void format_time(time_t time, char out[CERTIFICATE_TEXT_MAX])
{
    struct tm utc;
    if (gmtime_r(&time, &utc) == NULL || strftime(out, CERTIFICATE_TEXT_MAX, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        snprintf(out, CERTIFICATE_TEXT_MAX, "%lld", (long long)time);
}

enum validity { VALID, NOT_YET_VALID, EXPIRED };

/* Served all the same: its clients judge it, and so may their clocks. */
static void tell_validity(struct tls *tls)
{
    const struct certificate *current = &tls->current;
    time_t now = time(NULL);
    int validity = now < current->not_before ? NOT_YET_VALID : now > current->not_after ? EXPIRED : VALID;
    char date[CERTIFICATE_TEXT_MAX];
    if (validity == tls->told_validity)
        return;
    tls->told_validity = validity;
    format_time(validity == NOT_YET_VALID ? current->not_before : current->not_after, date);
    if (validity == NOT_YET_VALID)
        LOG(LOG_WARN, "tls certificate not valid yet", LOG_TEXT("serial", current->serial),
            LOG_TEXT("not_before", date));
    else if (validity == EXPIRED)
        LOG(LOG_WARN, "tls certificate expired", LOG_TEXT("serial", current->serial), LOG_TEXT("not_after", date));
}

static void tell_loaded(const struct certificate *certificate)
{
    char date[CERTIFICATE_TEXT_MAX];
    format_time(certificate->not_after, date);
    LOG(LOG_INFO, "tls certificate loaded", LOG_TEXT("serial", certificate->serial), LOG_TEXT("not_after", date),
        LOG_NUMBER("certificates", certificate->chain_count), LOG_NUMBER("client_cas", certificate->client_ca_count));
}

/* ---- the files ---- */

static struct tls_stamp stamp_of(const char *path)
{
    struct stat file;
    if (path == NULL || stat(path, &file) != 0)
        return (struct tls_stamp){0}; /* reading it will say why */
    return (struct tls_stamp){.device = (uint64_t)file.st_dev,
                              .inode = (uint64_t)file.st_ino,
                              .size = (uint64_t)file.st_size,
                              .changed_ns =
                                  (uint64_t)file.st_ctim.tv_sec * NS_PER_SECOND + (uint64_t)file.st_ctim.tv_nsec};
}

static void take_stamps(const struct tls *tls, struct tls_stamp out[CERTIFICATE_FILES])
{
    for (int i = 0; i < CERTIFICATE_FILES; i++)
        out[i] = stamp_of(tls->paths[i]);
}

/* Two writes within a tick of the file system's clock leave the same stamp. */
static bool are_unsettled(const struct tls_stamp stamps[CERTIFICATE_FILES])
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
    for (int i = 0; i < CERTIFICATE_FILES; i++)
        if (stamps[i].changed_ns + SETTLED_NS > now_ns)
            return true;
    return false;
}

static void take(struct tls *tls, struct certificate *found)
{
    struct certificate old;
    pthread_mutex_lock(&tls->lock);
    old = tls->current;
    tls->current = *found;
    tls->generation++;
    pthread_mutex_unlock(&tls->lock);
    certificate_fini(&old);
    atomic_store(&tls->not_after, (int_fast64_t)tls->current.not_after);
    tls->told_validity = VALID;
    tell_loaded(&tls->current);
    tell_validity(tls);
}

/* Read the files if they have changed. Of the watching thread, which alone changes `current`. */
static void look(struct tls *tls)
{
    struct tls_stamp before[CERTIFICATE_FILES];
    struct tls_stamp after[CERTIFICATE_FILES];
    struct certificate found = {.chain_count = 0};
    char why[CERTIFICATE_WHY_MAX] = "";
    take_stamps(tls, before);
    bool changed = memcmp(before, tls->seen, sizeof(before)) != 0;
    if (!changed && !tls->unsettled)
        return;
    bool unsettled = are_unsettled(before);
    bool good = certificate_load(tls->paths, &found, why);
    take_stamps(tls, after);
    if (memcmp(before, after, sizeof(before)) != 0) { /* they are being written: neither old nor new */
        certificate_fini(&found);
        return;
    }
    memcpy(tls->seen, before, sizeof(before));
    tls->unsettled = unsettled;
    bool told = !changed && strcmp(why, tls->told) == 0;
    memcpy(tls->told, why, sizeof(why));
    if (good && certificate_equal(&found, &tls->current)) {
        certificate_fini(&found);
    } else if (good) {
        atomic_fetch_add(&tls->reloads, 1);
        take(tls, &found);
    } else if (!told) {
        atomic_fetch_add(&tls->refusals, 1);
        LOG(LOG_WARN, "tls files refused", LOG_TEXT("why", why),
            LOG_TEXT("what", "connections go on being made with the certificate that was loaded last"));
    }
}

static bool wait_for_next_look(struct tls *tls)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LOOK_S;
    pthread_mutex_lock(&tls->lock);
    int waited = 0;
    while (!tls->stopping && waited == 0)
        waited = pthread_cond_timedwait(&tls->wake, &tls->lock, &until);
    bool stopping = tls->stopping;
    pthread_mutex_unlock(&tls->lock);
    return !stopping;
}

static void *watch(void *argument)
{
    struct tls *tls = argument;
    while (wait_for_next_look(tls)) {
        look(tls);
        tell_validity(tls);
    }
    return NULL;
}

/* ---- the core ---- */

/* The core asks while it accepts a connection, holding a lock of the listener's: so nothing is read or judged here. */
static grpc_ssl_certificate_config_reload_status hand_over(void *argument, grpc_ssl_server_certificate_config **out)
{
    struct tls_listener *listener = argument;
    struct tls *tls = listener->tls;
    grpc_ssl_certificate_config_reload_status status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    pthread_mutex_lock(&tls->lock);
    const struct certificate *current = &tls->current;
    if (current->pem[CERTIFICATE_CHAIN] != NULL && listener->generation != tls->generation) {
        grpc_ssl_pem_key_cert_pair pair = {.private_key = current->pem[CERTIFICATE_KEY],
                                           .cert_chain = current->pem[CERTIFICATE_CHAIN]};
        const char *roots = current->pem[CERTIFICATE_CLIENT_CA];
        if (roots == NULL)
            roots = pair.cert_chain; /* nobody is verified by it, but NULL would abort */
        *out = grpc_ssl_server_certificate_config_create(roots, &pair, 1);
        listener->generation = tls->generation;
        status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
    }
    pthread_mutex_unlock(&tls->lock);
    return status;
}

grpc_server_credentials *tls_credentials(struct tls *tls)
{
    if (tls->paths[CERTIFICATE_CHAIN] == NULL)
        return grpc_insecure_server_credentials_create();
    struct tls_listener *listener = &tls->listeners[tls->listener_count++];
    *listener = (struct tls_listener){.tls = tls};
    return grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            tls->paths[CERTIFICATE_CLIENT_CA] != NULL ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                      : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            hand_over, listener));
}

/* ---- life ---- */

static void init_lock(struct tls *tls)
{
    pthread_condattr_t by_monotonic;
    pthread_condattr_init(&by_monotonic);
    pthread_condattr_setclock(&by_monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&tls->wake, &by_monotonic);
    pthread_condattr_destroy(&by_monotonic);
    pthread_mutex_init(&tls->lock, NULL);
}

bool tls_start(struct tls *tls, const struct config *config)
{
    struct certificate found;
    char why[CERTIFICATE_WHY_MAX];
    if (config->tls_cert == NULL)
        return true;
    tls->paths[CERTIFICATE_CHAIN] = config->tls_cert;
    tls->paths[CERTIFICATE_KEY] = config->tls_key;
    tls->paths[CERTIFICATE_CLIENT_CA] = config->tls_client_ca;
    take_stamps(tls, tls->seen); /* before reading: what changes meanwhile is seen at the first look */
    tls->unsettled = are_unsettled(tls->seen);
    if (!certificate_load(tls->paths, &found, why)) {
        LOG(LOG_ERROR, "cannot use the tls files", LOG_TEXT("why", why));
        return false;
    }
    init_lock(tls);
    take(tls, &found);
    tls->running = pthread_create(&tls->thread, NULL, watch, tls) == 0;
    if (!tls->running)
        LOG(LOG_ERROR, "cannot start", LOG_TEXT("why", "the system refuses a thread"));
    return tls->running;
}

void tls_stop(struct tls *tls)
{
    if (!tls->running)
        return;
    pthread_mutex_lock(&tls->lock);
    tls->stopping = true;
    pthread_cond_signal(&tls->wake);
    pthread_mutex_unlock(&tls->lock);
    pthread_join(tls->thread, NULL);
    pthread_mutex_lock(&tls->lock); /* stays: a connection that came last may still ask */
    certificate_fini(&tls->current);
    pthread_mutex_unlock(&tls->lock);
    tls->running = false;
}
