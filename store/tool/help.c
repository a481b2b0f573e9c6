#include "cli.h"
#include "out.h"

#include <stdio.h>

static void print_number(struct out *out, const struct cli_number *row)
{
    char min[CLI_NUMBER_BYTES], max[CLI_NUMBER_BYTES], fallback[CLI_NUMBER_BYTES];
    if (row == NULL)
        return;
    out_print(out, " (%s to %s", cli_number_text(row, row->min, min), cli_number_text(row, row->max, max));
    if (row->fallback >= row->min)
        out_print(out, "; default %s", cli_number_text(row, row->fallback, fallback));
    out_text(out, ")");
}

static void print_options(struct out *out, unsigned options)
{
    out_text(out, "\noptions:\n");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct cli_option_row *row = &cli_options[i];
        char name[64];
        if (!(options & OPTION_BIT(i)))
            continue;
        (void)snprintf(name, sizeof(name), "%s%s%s", row->name, row->value != NULL ? " " : "",
                       row->value != NULL ? row->value : "");
        out_print(out, "  %-19s %s", name, row->help);
        print_number(out, row->number);
        out_text(out, "\n");
    }
}

static void print_verbs(struct out *out)
{
    out_text(out,
             "usage: rdrive VERB [OPTION...] [--] ARGUMENT...\n"
             "Look into and change simd-r-drive stores. STORE is the path of a store file, or, of one that rdrived\n"
             "serves, grpc://host:port, grpcs://host:port (TLS) or unix:/path.\n\nverbs:\n");
    for (const struct cli_verb *verb = cli_verbs; verb->name != NULL; verb++) {
        char usage[64];
        (void)snprintf(usage, sizeof(usage), "%s %s", verb->name, verb->args);
        out_print(out, "  %-26s %s\n", usage, verb->help);
    }
    print_options(out, OPTION_BIT(OPTION_HELP) | OPTION_BIT(OPTION_VERSION));
    out_text(out, "\n`rdrive VERB --help` tells more. Options may stand before or after arguments; -- ends them.\n"
                  "\nexit status: 0 done; 1 the key is absent; 2 damage, refused data or an I/O error; 64 the command "
                  "line.\n");
}

int help_print(const struct cli_verb *verb)
{
    struct out out;
    out_init_stdout(&out);
    if (verb == NULL) {
        print_verbs(&out);
        return out_finish(&out, STATUS_DONE);
    }
    out_print(&out, "usage: rdrive %s [OPTION...] [--] %s\n%s\n", verb->name, verb->args, verb->help);
    if (verb->notes != NULL) {
        out_text(&out, "\n");
        out_text(&out, verb->notes);
        out_text(&out, "\n");
    }
    print_options(&out, verb->options | OPTION_BIT(OPTION_HELP));
    return out_finish(&out, STATUS_DONE);
}

int help_version(void)
{
    struct out out;
    out_init_stdout(&out);
    out_text(&out, "rdrive " RDRIVE_VERSION "\n");
    return out_finish(&out, STATUS_DONE);
}
