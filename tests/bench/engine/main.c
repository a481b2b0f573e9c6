/* The engine beside the Rust crate and beside bare loops: see usage, and ../README.md. */
#include "child.h"
#include "driver.h"
#include "series.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS_DEFAULT 5u

static const char usage[] =
    "usage: bench_engine [--peer PROGRAM | --no-peer WHY] [--rounds N] [--rows LIST] [--full] [--smoke] [--folder "
    "DIR]\n"
    "\n"
    "  --peer PROGRAM   the crate's side (tests/bench/reference); without it only ours is shown\n"
    "  --no-peer WHY    what the table says instead\n"
    "  --rounds N       5 to 101; 5\n"
    "  --rows LIST      of reads,writes,open,live,memory,curve; all\n"
    "  --full           50 M keys too\n"
    "  --smoke          a five-hundredth of everything, one round, no verdicts: only whether answers are right\n"
    "  --folder DIR     where a temporary folder for the files is made; $TMPDIR or /tmp\n"
    "\n"
    "Exit status 1 if a target is missed, 2 if a measurement fails.\n";

/* ---- One measurement: --child SIDE VERB PATH KEYS COUNT --------------------------------------------------------- */

static const struct verb {
    const char *name;
    job_run *ours, *bare;
} verbs[] = {
    {"reads", ours_reads, bare_reads},
    {"threads", ours_threads, bare_threads},
    {"open", ours_open, bare_open},
    {"make", ours_make, bare_make},
    {"singles", ours_singles, bare_singles},
    {"grow", ours_grow, bare_grow},
    {"durable", ours_durable, bare_durable},
    {"compact", ours_compact, NULL},
    {"compact-written", ours_compact_written, NULL},
    {"snapshot", ours_snapshot, bare_snapshot},
    {"save-index", ours_save_index, NULL},
};

static const struct {
    const char *name;
    rd_verify verify;
} modes[] = {{"first", RD_VERIFY_FIRST}, {"always", RD_VERIFY_ALWAYS}, {"off", RD_VERIFY_OFF}};

static int run_child(char **words)
{
    struct job job = {.path = words[2], .keys = strtoull(words[3], NULL, 10), .count = strtoull(words[4], NULL, 10)};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(words[0], modes[i].name) == 0)
            job.verify = modes[i].verify;
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(words[1], verbs[i].name) != 0)
            continue;
        job_run *run = strcmp(words[0], "bare") == 0 ? verbs[i].bare : verbs[i].ours;
        CHECK(run != NULL);
        run(&job);
        return 0;
    }
    die("there is no %s", words[1]);
}

/* ---- All of them ------------------------------------------------------------------------------------------------ */

static int misused(void)
{
    fputs(usage, stderr);
    return 64;
}

/* Returns: whether the words are understood. */
static bool parse(int count, char **words, struct bench_options *options)
{
    for (int i = 1; i < count; i++) {
        const struct {
            const char *name;
            const char **to;
        } texts[] = {{"--peer", &options->peer},
                     {"--no-peer", &options->no_peer},
                     {"--rows", &options->rows},
                     {"--folder", &options->folder}};
        bool known = true;
        if (strcmp(words[i], "--full") == 0)
            options->full = true;
        else if (strcmp(words[i], "--smoke") == 0)
            options->smoke = true;
        else
            known = false;
        for (size_t text = 0; !known && text < sizeof texts / sizeof texts[0]; text++) {
            if (strcmp(words[i], texts[text].name) == 0 && i + 1 < count) {
                *texts[text].to = words[++i];
                known = true;
            }
        }
        if (!known && strcmp(words[i], "--rounds") == 0 && i + 1 < count) {
            options->rounds = strtoul(words[++i], NULL, 10);
            known = options->rounds >= ROUNDS_DEFAULT && options->rounds <= ROUNDS_MAX;
        }
        if (!known)
            return false;
    }
    return true;
}

int main(int count, char **words)
{
    if (count == 7 && strcmp(words[1], "--child") == 0)
        return run_child(words + 2);
    if (count == 2 && strcmp(words[1], "--help") == 0)
        return fputs(usage, stdout) < 0;
    const char *folder = getenv("TMPDIR");
    struct bench_options options = {
        .no_peer = "not given (--peer)",
        .folder = folder != NULL && folder[0] != '\0' ? folder : "/tmp",
        .rounds = ROUNDS_DEFAULT,
    };
    if (!parse(count, words, &options) || (options.rows != NULL && !bench_rows_known(options.rows)))
        return misused();
    if (options.smoke)
        options.rounds = 1;
    return bench_run(&options);
}
