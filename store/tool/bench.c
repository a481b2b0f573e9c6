/*
 * bench: how fast a store answers, by asking for the keys that it has. It only reads: what it wrote would stay in the
 * file, among keys that nobody can tell from its own, until a compaction.
 */
#include "bench.h"
#include "session.h"
#include "text.h"

#include <inttypes.h>
#include <signal.h>

static uint64_t ns_of(double number_of_seconds)
{
    return (uint64_t)(number_of_seconds * 1e9 + 0.5);
}

/** Understand the options. Returns: STATUS_DONE, or the exit status after a line on stderr. */
static int take_config(const struct cli_call *call, struct bench_config *config)
{
    static const char *const verify_names[] = {"first", "always", "off"}; /* as the option's row has its choices */
    bool zipf = call->choice[OPTION_DISTRIBUTION] == 1;
    if (call->given[OPTION_ZIPF_EXPONENT] && !zipf)
        return report(STATUS_USAGE, "bench: --zipf-exponent came without --distribution zipf; allowed: with it only");
    if (call->given[OPTION_HISTOGRAM] && call->given[OPTION_JSON])
        return report(STATUS_USAGE, "bench: --histogram came with --json, which has it anyway; allowed: one of them");
    if (session_is_served(call->args[0]) && !call->given[OPTION_KEY_LIST])
        return report(STATUS_USAGE,
                      "bench: STORE %s came without --key-list: the contract has no iteration, so a server "
                      "can't say which keys it has",
                      QUOTED(text_span(call->args[0])));
    unsigned key_options = OPTION_BIT(OPTION_HASH) | OPTION_BIT(OPTION_HEX_KEY) | OPTION_BIT(OPTION_NAMESPACE);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if ((key_options & OPTION_BIT(i)) != 0 && call->given[i] && !call->given[OPTION_KEY_LIST])
            return report(STATUS_USAGE, "bench: %s came without --key-list; allowed: with it only",
                          cli_options[i].name);
    bool by_count = call->given[OPTION_OPERATIONS];
    bool by_time = call->given[OPTION_DURATION] || !by_count;
    *config = (struct bench_config){
        .threads = (size_t)call->number[OPTION_THREADS],
        .inflight = (size_t)call->number[OPTION_INFLIGHT],
        .batch = (size_t)call->number[OPTION_BATCH],
        .operations = by_count ? (uint64_t)call->number[OPTION_OPERATIONS] : BENCH_NO_LIMIT,
        .duration_ns = by_time ? ns_of(call->number[OPTION_DURATION]) : BENCH_NO_LIMIT,
        .warmup_ns = ns_of(call->number[OPTION_WARMUP]),
        .zipf = zipf,
        .exponent = call->number[OPTION_ZIPF_EXPONENT],
        .misses = call->number[OPTION_MISSES] / 100.0,
        .seed = (uint64_t)call->number[OPTION_SEED],
        .check = call->choice[OPTION_CHECK] == 0,
        .keys_max = (uint64_t)call->number[OPTION_KEYS],
        .verify = session_is_served(call->args[0]) ? "by the server" : verify_names[call->choice[OPTION_VERIFY]],
    };
    return STATUS_DONE;
}

static rd_verify verify_of(const struct cli_call *call)
{
    static const rd_verify modes[] = {RD_VERIFY_FIRST, RD_VERIFY_ALWAYS, RD_VERIFY_OFF};
    return modes[call->choice[OPTION_VERIFY]];
}

/** Say on stderr what was wrong. Returns: the exit status. */
static int tell_failures(struct tool_store *store, const struct bench_keys *keys, const struct bench_result *result)
{
    int status = STATUS_DONE;
    for (size_t i = 0; i < result->listed; i++)
        status = report(STATUS_FAILED, "%s: key hash %016" PRIx64 ": %s", store->target, result->failures[i].key_hash,
                        result->failures[i].what);
    if (result->failed > 0)
        status = report(STATUS_FAILED, "%s: %" PRIu64 " wrong answer%s", store->target, result->failed,
                        result->failed == 1 ? "" : "s");
    if (keys->damaged > 0)
        status = report(STATUS_FAILED, "%s: %" PRIu64 " damaged key%s left out", store->target, keys->damaged,
                        keys->damaged == 1 ? " was" : "s were");
    if (keys->damaged > 0)
        session_tell_index(store);
    return status;
}

static int bench(const struct cli_call *call, struct bench_result *result)
{
    struct bench_config config = {0};
    struct bench_keys keys __attribute__((cleanup(bench_keys_fini))) = {0};
    int status = take_config(call, &config);
    if (status != STATUS_DONE)
        return status;
    const struct tool_open_how how = {.verify = verify_of(call)};
    AUTO_STORE *store = NULL;
    status = session_open(call, &how, &store);
    if (status == STATUS_DONE)
        status = call->given[OPTION_KEY_LIST] ? bench_gather_listed(call, store, &config, &keys)
                                              : bench_gather(store, &config, &keys);
    if (status != STATUS_DONE)
        return status;
    rd_err err = bench_run(store, &config, &keys, result);
    if (err == RD_E_NOMEM)
        return report(STATUS_FAILED, "%s: bench: %zu threads of %zu keys a call: %s", store->target, config.threads,
                      config.batch, rd_err_text(err));
    if (err != RD_OK)
        return session_report(store, "bench", err);
    struct out out;
    out_init_stdout(&out);
    if (call->given[OPTION_JSON])
        bench_print_json(&out, store->target, &config, &keys, result);
    else
        bench_print(&out, &config, &keys, result, call->given[OPTION_HISTOGRAM]);
    return out_finish(&out, tell_failures(store, &keys, result));
}

int verb_bench(const struct cli_call *call)
{
    struct bench_result result = {0};
    int status = bench(call, &result);
    if (result.interrupted) { /* end as everything else does that SIGINT ends, so that a script around us stops too */
        (void)signal(SIGINT, SIG_DFL);
        (void)raise(SIGINT);
    }
    return status;
}
