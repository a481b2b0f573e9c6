/** What `info` and `verify` print: facts, and the damaged ranges behind them. */
#ifndef RDRIVE_TOOL_FACTS_H
#define RDRIVE_TOOL_FACTS_H

#include "ops.h"
#include "out.h"

/** A line a fact and a line a range, or one JSON object in which the ranges are the array "damaged". */
void facts_print(struct out *out, bool json, const struct tool_fact *facts, size_t count,
                 const struct tool_damage *damage);

#endif
