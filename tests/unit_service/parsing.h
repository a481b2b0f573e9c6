/* The daemon's options, parsed from a line of words and the environment as it is. */
#ifndef PARSING_H
#define PARSING_H

#include "message.h"
#include "options.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* The last parse; `config` is static since the environment's pieces live as long as it. */
struct parsed {
    struct config config;
    enum options_result result;
    char *out;
    char *err;
};
extern struct parsed parsed;

/* Before and after each test: an environment with nothing in it, and no parse. */
int parsing_setup(void **state);
int parsing_teardown(void **state);
#define OPTIONS_TEST(f) cmocka_unit_test_setup_teardown(f, parsing_setup, parsing_teardown)

/* Parse a command line, its words separated by blanks, after "rdrived". */
void parse(const char *line);

/* The same, and it is taken without a word. */
void expect_run(const char *line);

/* The same, and it is refused, in one line that holds `says` and `says_too`. */
void expect_wrong(const char *line, const char *says, const char *says_too);

#endif
