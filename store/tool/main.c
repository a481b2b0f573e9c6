/* rdrive: the verbs over a store at a path. What serves other kinds of STORE gets a row here. */
#include "cli.h"
#include "ops.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

const struct tool_scheme tool_schemes[] = {
    {"grpc://", NULL},
    {"grpcs://", NULL},
    {"unix:", NULL},
    {"", &tool_path_ops},
};

/**
 * A descriptor that came closed would be the next that open() hands out: the store would be standard output, and what
 * we print would land in it. So each of the three is taken, by something that fails as the closed one would.
 */
static void keep_std_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(STATUS_FAILED); /* it can't be told: there is nowhere to print */
}

int main(int argc, char **argv)
{
    keep_std_fds();
    /* A write beyond the file-size limit shall be an error with a message, as a full disk is, not a death. */
    (void)signal(SIGXFSZ, SIG_IGN);
    if (rd_sigbus_install() != RD_OK)
        return report(STATUS_FAILED, "handling SIGBUS: %s", rd_err_text(RD_E_IO));
    return cli_main(argc, argv);
}
