/* rdrive: the verbs of store/tool, over a store at a path and over one that is served. */
#include "cli.h"
#include "remote.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OF_PATHS                                                                                                       \
    (OPTION_BIT(OPTION_CREATE) | OPTION_BIT(OPTION_SYNC) | OPTION_BIT(OPTION_INDEX) | OPTION_BIT(OPTION_VERIFY))
#define OF_SERVERS (OPTION_BIT(OPTION_TIMEOUT) | OPTION_BIT(OPTION_INFLIGHT))
#define OF_TLS     (OPTION_BIT(OPTION_CA) | OPTION_BIT(OPTION_CERT) | OPTION_BIT(OPTION_TLS_KEY))

const struct tool_scheme tool_schemes[] = {
    {"grpc://", &tool_remote_ops, true, OF_SERVERS},
    {"grpcs://", &tool_remote_ops, true, OF_SERVERS | OF_TLS},
    {"unix:", &tool_remote_ops, true, OF_SERVERS},
    {"", &tool_path_ops, false, OF_PATHS},
};

/**
 * A descriptor that came closed would be the next that open() hands out: the store would be standard output, and what
 * we print would land in it. So each of the three is taken, by something that fails as the closed one would. Before the
 * libraries begin, since gRPC opens a descriptor as it is loaded; so before the sanitizers too, which hence keep out.
 */
__attribute__((no_sanitize("address"), no_sanitize("thread"), no_sanitize("undefined"))) static void keep_std_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (syscall(SYS_fcntl, fd, F_GETFD) < 0 &&
            syscall(SYS_openat, AT_FDCWD, "/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(STATUS_FAILED); /* it can't be told: there is nowhere to print */
}
__attribute__((used, section(".preinit_array"))) static void (*const before_libraries)(void) = keep_std_fds;

int main(int argc, char **argv)
{
    /* A write beyond the file-size limit shall be an error with a message, as a full disk is, not a death. */
    (void)signal(SIGXFSZ, SIG_IGN);
    if (rd_sigbus_install() != RD_OK)
        return report(STATUS_FAILED, "handling SIGBUS: %s", rd_err_text(RD_E_IO));
    return cli_main(argc, argv);
}
