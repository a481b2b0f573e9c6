#include "parsing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARGUMENTS_MAX 40

extern char **environ;

struct parsed parsed;

int parsing_setup(void **state)
{
    (void)state;
    clearenv();
    return 0;
}

int parsing_teardown(void **state)
{
    (void)state;
    free(parsed.out);
    free(parsed.err);
    parsed.out = parsed.err = NULL;
    return 0;
}

void parse(const char *line)
{
    static char words[4096];
    char *argv[ARGUMENTS_MAX + 1] = {(char *)(uintptr_t) "rdrived"};
    int argc = 1;
    size_t out_len;
    size_t err_len;
    parsing_teardown(NULL);
    snprintf(words, sizeof words, "%s", line);
    for (char *rest = words, *word; (word = strsep(&rest, " ")) != NULL && argc < ARGUMENTS_MAX;)
        argv[argc++] = word;
    FILE *out = open_memstream(&parsed.out, &out_len);
    FILE *err = open_memstream(&parsed.err, &err_len);
    char *none[] = {NULL}; /* clearenv leaves no list at all, which no process begins with */
    parsed.result = options_parse(argc, argv, environ != NULL ? environ : none, out, err, &parsed.config);
    fclose(out);
    fclose(err);
}

void expect_run(const char *line)
{
    parse(line);
    EXPECT(parsed.result == OPTIONS_RUN, "%s: %s", line, parsed.err);
    EXPECT(parsed.err[0] == '\0', "%s: %s", line, parsed.err);
}

void expect_wrong(const char *line, const char *says, const char *says_too)
{
    parse(line);
    EXPECT(parsed.result == OPTIONS_WRONG, "%s", line);
    EXPECT(strncmp(parsed.err, "rdrived: ", 9) == 0, "%s", parsed.err);
    EXPECT(strchr(parsed.err, '\n') == parsed.err + strlen(parsed.err) - 1, "more than a line: %s", parsed.err);
    EXPECT(strstr(parsed.err, says) != NULL, "%s: '%s' is missing in %s", line, says, parsed.err);
    EXPECT(strstr(parsed.err, says_too) != NULL, "%s: '%s' is missing in %s", line, says_too, parsed.err);
    EXPECT(parsed.out[0] == '\0', "%s", parsed.out);
}
