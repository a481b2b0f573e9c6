#include "key.h"

#include "out.h"
#include "text.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int out_of_memory(const struct cli_call *call)
{
    return report(STATUS_FAILED, "%s: %s", call->verb->name, rd_err_text(RD_E_NOMEM));
}

static int parse_hash(const struct cli_call *call, struct key *key)
{
    if (call->given[OPTION_HEX_KEY] || call->given[OPTION_NAMESPACE])
        return report(STATUS_USAGE,
                      "%s: --hash came with %s; a hash stands for the whole key, so allowed is --hash alone",
                      call->verb->name, call->given[OPTION_HEX_KEY] ? "--hex-key" : "--namespace");
    key->key.hash_only = true;
    if (!text_parse_hash(text_span(key->word), &key->key.hash))
        return report(STATUS_USAGE, "%s: --hash: KEY %s came; allowed: 16 hex digits", call->verb->name,
                      QUOTED(text_span(key->word)));
    return STATUS_DONE;
}

static int parse_hex(const struct cli_call *call, struct key *key)
{
    rd_span word = text_span(key->word);
    if (!buf_reserve(&key->owned, word.len / 2 + 1))
        return out_of_memory(call);
    if (!text_parse_hex(word, key->owned.data))
        return report(STATUS_USAGE, "%s: --hex-key: KEY %s came; allowed: hex digits, two for each byte",
                      call->verb->name, QUOTED(word));
    key->owned.len = word.len / 2;
    key->key.bytes = (rd_span){key->owned.data, key->owned.len};
    return STATUS_DONE;
}

int key_parse(const struct cli_call *call, const char *word, struct key *key)
{
    *key = (struct key){.word = word, .key.bytes = text_span(word)};
    if (call->given[OPTION_HASH])
        return parse_hash(call, key);
    if (call->given[OPTION_HEX_KEY]) {
        int status = parse_hex(call, key);
        if (status != STATUS_DONE)
            return status;
    }
    if (call->given[OPTION_NAMESPACE]) {
        uint8_t whole[16];
        rd_namespace_key(text_span(call->value[OPTION_NAMESPACE]), key->key.bytes, whole);
        key->owned.len = 0;
        if (!buf_add(&key->owned, (rd_span){whole, sizeof(whole)}))
            return out_of_memory(call);
        key->key.bytes = (rd_span){key->owned.data, key->owned.len};
    }
    key->key.hash = rd_hash(key->key.bytes);
    return STATUS_DONE;
}

void key_fini(struct key *key)
{
    buf_fini(&key->owned);
}

const char *key_label(const struct key *key, char label[KEY_LABEL_BYTES])
{
    (void)snprintf(label, KEY_LABEL_BYTES, "key %s", QUOTED(text_span(key->word)));
    return label;
}

int verb_hash(const struct cli_call *call)
{
    struct out out;
    out_init_stdout(&out);
    for (size_t i = 0; i < call->arg_count; i++) {
        AUTO_KEY key = {0};
        int status = key_parse(call, call->args[i], &key);
        if (status != STATUS_DONE)
            return out_finish(&out, status);
        out_print(&out, "%016" PRIx64 "\n", key.key.hash);
    }
    return out_finish(&out, STATUS_DONE);
}
