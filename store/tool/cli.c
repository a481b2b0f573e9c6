#include "cli.h"

#include "text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** A list for a message, "a, b, c", cut off where its room ends. */
struct names {
    char text[512];
    size_t len;
};

static void names_add(struct names *names, const char *name, const char *value)
{
    int len = snprintf(names->text + names->len, sizeof(names->text) - names->len, "%s%s%s%s",
                       names->len > 0 ? ", " : "", name, value != NULL ? " " : "", value != NULL ? value : "");
    names->len += len > 0 ? (size_t)len : 0;
    if (names->len >= sizeof(names->text))
        names->len = sizeof(names->text) - 1;
}

static const struct cli_verb *find_verb(const char *name)
{
    for (const struct cli_verb *verb = cli_verbs; verb->name != NULL; verb++)
        if (strcmp(verb->name, name) == 0)
            return verb;
    return NULL;
}

static int unknown_option(rd_span name)
{
    struct names names = {0};
    for (size_t i = 0; i < OPTION_COUNT; i++)
        names_add(&names, cli_options[i].name, cli_options[i].value);
    return report(STATUS_USAGE, "unknown option %s; allowed: %s (-- goes before an argument that begins with -)",
                  QUOTED(name), names.text);
}

/** Check a value against its row's choices and note which one it is. */
static int choose(struct cli_call *call, size_t option)
{
    const struct cli_option_row *row = &cli_options[option];
    struct names names = {0};
    for (size_t i = 0; row->choices[i] != NULL; i++) {
        if (strcmp(row->choices[i], call->value[option]) == 0) {
            call->choice[option] = i;
            return STATUS_DONE;
        }
        names_add(&names, row->choices[i], NULL);
    }
    if (names.len == 0)
        return STATUS_DONE; /* any value is allowed */
    return report(STATUS_USAGE, "%s: %s came; allowed: %s", row->name, QUOTED(text_span(call->value[option])),
                  names.text);
}

const char *cli_number_text(const struct cli_number *row, double number, char text[CLI_NUMBER_BYTES])
{
    (void)snprintf(text, CLI_NUMBER_BYTES, row->whole ? "%.0f" : "%g", number);
    return text;
}

/** Read a value that its row wants to be a number. */
static int take_number(struct cli_call *call, size_t option)
{
    const struct cli_number *row = cli_options[option].number;
    const char *value = call->value[option];
    char *end = NULL;
    char min[CLI_NUMBER_BYTES], max[CLI_NUMBER_BYTES];
    /* strtod takes more than people mean: signs, spaces, exponents, hex, "inf" */
    bool plain = value[strspn(value, row->whole ? "0123456789" : "0123456789.")] == '\0';
    double number = plain ? strtod(value, &end) : 0;
    if (!plain || end == value || *end != '\0' || !(number >= row->min && number <= row->max))
        return report(STATUS_USAGE, "%s: %s came; allowed: a %snumber from %s to %s", cli_options[option].name,
                      QUOTED(text_span(value)), row->whole ? "whole " : "", cli_number_text(row, row->min, min),
                      cli_number_text(row, row->max, max));
    call->number[option] = number;
    return STATUS_DONE;
}

/** Take the option at argv[*i], and its value, which may be the next argument. */
static int take_option(struct cli_call *call, int argc, char **argv, int *i)
{
    const char *word = strcmp(argv[*i], "-h") == 0 ? "--help" : argv[*i];
    const char *equals = strchr(word, '=');
    rd_span name = equals != NULL ? (rd_span){word, (size_t)(equals - word)} : text_span(word);
    size_t option = 0;
    while (option < OPTION_COUNT &&
           (strlen(cli_options[option].name) != name.len || memcmp(cli_options[option].name, name.data, name.len) != 0))
        option++;
    if (option == OPTION_COUNT)
        return unknown_option(name);
    const struct cli_option_row *row = &cli_options[option];
    if (row->value == NULL && equals != NULL)
        return report(STATUS_USAGE, "%s takes no value, but %s came", row->name, QUOTED(text_span(equals + 1)));
    if (row->value != NULL && call->given[option])
        return report(STATUS_USAGE, "%s is given twice; allowed: once", row->name);
    call->given[option] = true;
    if (row->value == NULL)
        return STATUS_DONE;
    if (equals == NULL && *i + 1 == argc)
        return report(STATUS_USAGE, "%s: its value %s is missing", row->name, row->value);
    call->value[option] = equals != NULL ? equals + 1 : argv[++*i];
    return row->number != NULL ? take_number(call, option) : choose(call, option);
}

/** Whether the verb takes what was given. */
static int check_options(const struct cli_call *call)
{
    struct names names = {0};
    unsigned taken = call->verb->options | OPTION_BIT(OPTION_HELP);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (taken & OPTION_BIT(i))
            names_add(&names, cli_options[i].name, cli_options[i].value);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (call->given[i] && !(taken & OPTION_BIT(i)))
            return report(STATUS_USAGE, "%s: option %s is not allowed here; allowed: %s", call->verb->name,
                          cli_options[i].name, names.text);
    return STATUS_DONE;
}

static int check_args(const struct cli_call *call)
{
    const struct cli_verb *verb = call->verb;
    if (call->arg_count < verb->arg_min)
        return report(STATUS_USAGE, "%s: %zu argument%s came; usage: rdrive %s [OPTION...] %s", verb->name,
                      call->arg_count, call->arg_count == 1 ? "" : "s", verb->name, verb->args);
    if (call->arg_count > verb->arg_max)
        return report(STATUS_USAGE, "%s: %s is one argument too many; usage: rdrive %s [OPTION...] %s", verb->name,
                      QUOTED(text_span(call->args[verb->arg_max])), verb->name, verb->args);
    return STATUS_DONE;
}

/** Sort argv into options and positionals; the latter are moved to its front. */
static int sort_words(int argc, char **argv, struct cli_call *call)
{
    bool options_end = false;
    call->args = argv + 1;
    for (int i = 1; i < argc; i++) {
        if (!options_end && strcmp(argv[i], "--") == 0) {
            options_end = true;
        } else if (!options_end && argv[i][0] == '-' && argv[i][1] != '\0') {
            int status = take_option(call, argc, argv, &i);
            if (status != STATUS_DONE)
                return status;
        } else {
            call->args[call->arg_count++] = argv[i]; /* never behind i: each word is moved forward or stays */
        }
    }
    return STATUS_DONE;
}

int cli_main(int argc, char **argv)
{
    struct cli_call call = {0};
    for (size_t i = 0; i < OPTION_COUNT; i++)
        call.number[i] = cli_options[i].number != NULL ? cli_options[i].number->fallback : 0;
    int status = sort_words(argc, argv, &call);
    if (status != STATUS_DONE)
        return status;
    if (call.arg_count == 0) {
        if (call.given[OPTION_HELP])
            return help_print(NULL);
        if (call.given[OPTION_VERSION])
            return help_version();
        return report(STATUS_USAGE, "the verb is missing; usage: rdrive VERB [OPTION...] STORE ...; `rdrive --help` "
                                    "lists the verbs");
    }
    call.verb = find_verb(call.args[0]);
    if (call.verb == NULL) {
        struct names names = {0};
        for (const struct cli_verb *verb = cli_verbs; verb->name != NULL; verb++)
            names_add(&names, verb->name, NULL);
        return report(STATUS_USAGE, "unknown verb %s; allowed: %s", QUOTED(text_span(call.args[0])), names.text);
    }
    call.args++;
    call.arg_count--;
    status = check_options(&call);
    if (status != STATUS_DONE)
        return status;
    if (call.given[OPTION_HELP])
        return help_print(call.verb);
    status = check_args(&call);
    return status != STATUS_DONE ? status : call.verb->run(&call);
}
