/**
 * The control socket: a test sends lines and gets one line back for each.
 *   get               every count, as "live=0 pending=0 ..."
 *   wait NAME VALUE   answered with "ok" once the count has that value
 *   hold, go          close or open the gate before answers
 *   open              let chaos_wrap return
 */
#include "internal.h"
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LINE_BYTES 256

struct control {
    struct chaos *chaos;
    pthread_t thread;
    int listener;
    int connection; /* under the engine's lock; -1: none */
};

const char *const chaos_count_names[CHAOS_COUNT_MAX] = {
#define COUNT_NAME(name, text) [CHAOS_##name] = (text),
    CHAOS_COUNTS(COUNT_NAME)
#undef COUNT_NAME
};

static void put_counts(struct chaos *chaos, FILE *out)
{
    pthread_mutex_lock(&chaos->lock);
    for (size_t i = 0; i < CHAOS_COUNT_MAX; i++)
        fprintf(out, "%s%s=%" PRIu64, i > 0 ? " " : "", chaos_count_names[i], chaos->counts[i]);
    pthread_mutex_unlock(&chaos->lock);
    fputs("\n", out);
}

static bool wait_for(struct chaos *chaos, const char *name, uint64_t value)
{
    size_t i = 0;
    while (i < CHAOS_COUNT_MAX && strcmp(chaos_count_names[i], name) != 0)
        i++;
    if (i == CHAOS_COUNT_MAX)
        return false;
    pthread_mutex_lock(&chaos->lock);
    while (chaos->counts[i] != value && !chaos->ending)
        pthread_cond_wait(&chaos->change, &chaos->lock);
    bool there = chaos->counts[i] == value;
    pthread_mutex_unlock(&chaos->lock);
    return there;
}

static void obey(struct chaos *chaos, const char *line, FILE *out)
{
    char name[32];
    uint64_t value;
    bool ok = true;
    if (strcmp(line, "get\n") == 0) {
        put_counts(chaos, out);
        return;
    }
    if (sscanf(line, "wait %31s %" SCNu64, name, &value) == 2)
        ok = wait_for(chaos, name, value);
    else if (strcmp(line, "hold\n") == 0)
        chaos_gate(&chaos->engine, true);
    else if (strcmp(line, "go\n") == 0)
        chaos_gate(&chaos->engine, false);
    else if (strcmp(line, "open\n") == 0)
        count(chaos, CHAOS_SHUT, -(int64_t)chaos_count(&chaos->engine, CHAOS_SHUT));
    else
        ok = false;
    fputs(ok ? "ok\n" : "no\n", out);
}

static void converse(struct chaos *chaos, int connection)
{
    char line[LINE_BYTES];
    FILE *in = fdopen(dup(connection), "r");
    FILE *out = fdopen(dup(connection), "w");
    while (in != NULL && out != NULL && fgets(line, sizeof(line), in) != NULL) {
        obey(chaos, line, out);
        fflush(out);
    }
    if (in != NULL)
        fclose(in);
    if (out != NULL)
        fclose(out);
}

static void *run(void *argument)
{
    struct control *control = argument;
    struct chaos *chaos = control->chaos;
    for (;;) {
        int connection = accept(control->listener, NULL, NULL);
        if (connection < 0)
            return NULL; /* shut down */
        pthread_mutex_lock(&chaos->lock);
        bool ending = chaos->ending;
        control->connection = connection;
        pthread_mutex_unlock(&chaos->lock);
        if (!ending)
            converse(chaos, connection);
        pthread_mutex_lock(&chaos->lock);
        control->connection = -1; /* before its number is anybody else's */
        pthread_mutex_unlock(&chaos->lock);
        close(connection);
    }
}

struct control *control_create(struct chaos *chaos, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct control *control = calloc(1, sizeof(*control));
    if (control == NULL || strlen(path) >= sizeof(address.sun_path)) {
        free(control);
        return NULL;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    control->chaos = chaos;
    control->connection = -1;
    control->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (control->listener < 0 || bind(control->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(control->listener, 1) != 0 || pthread_create(&control->thread, NULL, run, control) != 0) {
        perror("chaos: control socket");
        close(control->listener);
        free(control);
        return NULL;
    }
    return control;
}

void control_destroy(struct control *control)
{
    if (control == NULL)
        return;
    shutdown(control->listener, SHUT_RDWR);
    pthread_mutex_lock(&control->chaos->lock);
    if (control->connection >= 0)
        shutdown(control->connection, SHUT_RDWR);
    pthread_mutex_unlock(&control->chaos->lock);
    pthread_join(control->thread, NULL);
    close(control->listener);
    free(control);
}
