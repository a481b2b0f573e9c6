/* rdrived with a chaos engine between the service and the store. */
#include "chaos.h"
#include "daemon.h"

int main(int argc, char **argv)
{
    return daemon_main(argc, argv, chaos_wrap);
}
