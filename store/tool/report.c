#include "report.h"

#include <stdarg.h>
#include <stdio.h>

int report(enum tool_status status, const char *format, ...)
{
    char line[4096];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    /* A path or a parser's message may hold anything; it must stay one line and must not drive the terminal. */
    for (char *c = line; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    /* Where stderr itself fails there is nobody left to tell; the exit status still says it. */
    (void)fprintf(stderr, "rdrive: %s\n", line);
    return (int)status;
}
