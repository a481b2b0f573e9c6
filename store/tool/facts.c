#include "facts.h"

#include "text.h"
#include <inttypes.h>
#include <stdio.h>

#define NAME_COLUMN "%-19s "

static void print_fact(struct out *out, bool json, const struct tool_fact *fact)
{
    if (fact->text == NULL)
        out_print(out, "%" PRIu64, fact->number);
    else if (json)
        out_json_string(out, text_span(fact->text));
    else
        out_text(out, fact->text);
}

/** The range's key hash; where no key is known (a hash may be any number, 0 too) `unknown`. */
static const char *range_key(const struct tool_damage *damage, const rd_range *range, const char *quote,
                             const char *unknown, char text[24])
{
    if (damage->keys_untold || range->kind == RD_DAMAGE_UNIDENTIFIED)
        return unknown;
    (void)snprintf(text, 24, "%s%016" PRIx64 "%s", quote, range->key_hash, quote);
    return text;
}

static void print_lines(struct out *out, const struct tool_fact *facts, size_t count, const struct tool_damage *damage)
{
    char key[24];
    for (size_t i = 0; i < count; i++) {
        out_print(out, NAME_COLUMN, facts[i].name);
        print_fact(out, false, &facts[i]);
        out_text(out, "\n");
    }
    for (size_t i = 0; i < damage->listed_count; i++) {
        const rd_range *range = &damage->listed[i];
        out_print(out, NAME_COLUMN "%" PRIu64 " %" PRIu64 " %s %s\n", "damaged", range->offset, range->size,
                  range_key(damage, range, "", "-", key), range->what);
    }
    if (damage->damaged_ranges > damage->listed_count)
        out_print(out, NAME_COLUMN "%" PRIu64 "\n", "not_listed", damage->damaged_ranges - damage->listed_count);
}

static void print_json(struct out *out, const struct tool_fact *facts, size_t count, const struct tool_damage *damage)
{
    char key[24];
    out_text(out, "{");
    for (size_t i = 0; i < count; i++) {
        out_print(out, "\"%s\": ", facts[i].name);
        print_fact(out, true, &facts[i]);
        out_text(out, ", ");
    }
    out_text(out, "\"damaged\": [");
    for (size_t i = 0; i < damage->listed_count; i++) {
        const rd_range *range = &damage->listed[i];
        out_print(out,
                  "%s\n{\"offset\": %" PRIu64 ", \"size\": %" PRIu64
                  ", \"key_hash\": %s, \"unidentified\": %s, \"what\": ",
                  i == 0 ? "" : ",", range->offset, range->size, range_key(damage, range, "\"", "null", key),
                  rd_damage_hides(range->kind) ? "true" : "false");
        out_json_string(out, text_span(range->what));
        out_text(out, "}");
    }
    out_text(out, "]}\n");
}

void facts_print(struct out *out, bool json, const struct tool_fact *facts, size_t count,
                 const struct tool_damage *damage)
{
    if (json)
        print_json(out, facts, count, damage);
    else
        print_lines(out, facts, count, damage);
}
