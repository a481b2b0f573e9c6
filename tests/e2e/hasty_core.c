/*
 * What a test of the core can't wait for or may not do, preloaded into a daemon: all times that the core is told are
 * RDRIVE_HASTE times as short, and what is bound to every address of the machine is bound to loopback instead, with a
 * line on stderr for each.
 */
#include <dlfcn.h>
#include <grpc/grpc.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ARGS_MAX 64

static bool is_time(const grpc_arg *arg)
{
    size_t len = strlen(arg->key);
    return arg->type == GRPC_ARG_INTEGER && len > 3 && strcmp(arg->key + len - 3, "_ms") == 0;
}

grpc_server *grpc_server_create(const grpc_channel_args *args, void *reserved)
{
    grpc_server *(*real)(const grpc_channel_args *, void *);
    *(void **)&real = dlsym(RTLD_NEXT, "grpc_server_create");
    const char *haste = getenv("RDRIVE_HASTE");
    grpc_arg hasty[ARGS_MAX];
    if (haste == NULL || args->num_args > ARGS_MAX)
        abort();
    for (size_t i = 0; i < args->num_args; i++) {
        hasty[i] = args->args[i];
        if (is_time(&hasty[i]))
            hasty[i].value.integer /= atoi(haste);
    }
    return real(&(grpc_channel_args){.num_args = args->num_args, .args = hasty}, reserved);
}

int bind(int fd, const struct sockaddr *address, socklen_t len)
{
    int (*real)(int, const struct sockaddr *, socklen_t);
    *(void **)&real = dlsym(RTLD_NEXT, "bind");
    struct sockaddr_storage changed = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&changed;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&changed;
    if (len > sizeof(changed))
        abort();
    memcpy(&changed, address, len);
    if (changed.ss_family == AF_INET && v4->sin_addr.s_addr == htonl(INADDR_ANY)) {
        fputs("bound to 0.0.0.0\n", stderr);
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else if (changed.ss_family == AF_INET6 && memcmp(&v6->sin6_addr, &in6addr_any, sizeof(in6addr_any)) == 0) {
        fputs("bound to [::]\n", stderr);
        v6->sin6_addr = in6addr_loopback;
    }
    return real(fd, (struct sockaddr *)&changed, len);
}
