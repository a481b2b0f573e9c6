/**
 * What a store that was opened on a damaged file must, may and must not say: design's oracle.
 *
 *   Every entry whose bytes are intact is served under its hash, unless a later one supersedes it. Nothing is served
 *   but true (payload, hash) pairs. A damaged newest entry is answered as damaged where its trailer names it, and
 *   never by an older version.
 *
 * The exceptions that the format can't help (after E-14 in its text, "what this can't promise") are in oracle.c, each
 * with its precise condition; whatever fits none of them is a fault of the engine.
 */
#ifndef RDRIVE_TESTS_ORACLE_H
#define RDRIVE_TESTS_ORACLE_H

#include "image.h"

/**
 * Judge `store`, which serves `damaged`: `image`, with bytes changed, cut off or appended. Payloads above 64 KiB must
 * have been checked (rd_store_verify). Returns: NULL, or what is wrong; valid until the next call in this thread.
 */
const char *oracle_judge(const struct image *image, rd_span damaged, rd_store *store);

/* Judge that opening `damaged` was refused with `err`. Returns: as oracle_judge. */
const char *oracle_judge_refusal(const struct image *image, rd_span damaged, rd_err err);

#endif
