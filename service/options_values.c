/* The values that options take: read, checked, described. */
#include "options_internal.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* "65536", "64K": what people write for sizes. Returns false where it isn't one. */
static bool parse_number(const char *text, int base, bool with_unit, uint64_t *out_number)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, base);
    if (errno != 0)
        return false;
    uint64_t unit = 1;
    if (with_unit && *end != '\0') {
        static const char letters[] = "KMG";
        const char *letter = strchr(letters, toupper((unsigned char)*end));
        if (letter == NULL)
            return false;
        unit = UINT64_C(1) << (10 * (letter - letters + 1));
        end++;
    }
    if (*end != '\0' || number > UINT64_MAX / unit)
        return false;
    *out_number = number * unit;
    return true;
}

static void format_bytes(uint64_t bytes, char out[24])
{
    static const struct {
        uint64_t unit;
        char letter;
    } units[] = {{GIB, 'G'}, {MIB, 'M'}, {KIB, 'K'}};
    for (size_t i = 0; i < 3; i++) {
        if (bytes >= units[i].unit && bytes % units[i].unit == 0) {
            snprintf(out, 24, "%llu%c", (unsigned long long)(bytes / units[i].unit), units[i].letter);
            return;
        }
    }
    snprintf(out, 24, "%llu", (unsigned long long)bytes);
}

void option_describe(const struct option_row *row, char out[ALLOWED_MAX])
{
    char low[24];
    char high[24];
    size_t used = 0;
    out[0] = '\0';
    switch (row->kind) {
    case KIND_ADDRESSES: snprintf(out, ALLOWED_MAX, "host:port or unix:/path, at most %d of them", TEXTS_MAX); return;
    case KIND_NAMES:
        snprintf(out, ALLOWED_MAX, "a certificate's DNS or URI name, or cn:NAME; at most %d of them", TEXTS_MAX);
        return;
    case KIND_FLAG: snprintf(out, ALLOWED_MAX, "nothing, true or false"); return;
    case KIND_COUNT:
        snprintf(out, ALLOWED_MAX, "%llu to %llu", (unsigned long long)row->min, (unsigned long long)row->max);
        return;
    case KIND_BYTES:
        format_bytes(row->min, low);
        format_bytes(row->max, high);
        snprintf(out, ALLOWED_MAX, "%s to %s, with K, M or G", low, high);
        return;
    case KIND_OCTAL: snprintf(out, ALLOWED_MAX, "0 to 0777, octal"); return;
    case KIND_INDEX: snprintf(out, ALLOWED_MAX, "auto, off, or a path"); return;
    case KIND_PATH: snprintf(out, ALLOWED_MAX, "a file's path"); return;
    case KIND_SYNC:
        snprintf(out, ALLOWED_MAX, "always, none, or interval:<ms> with 1 to %llu", (unsigned long long)row->max);
        return;
    case KIND_CHOICE:
        for (const char *const *choice = row->choices; *choice != NULL; choice++)
            used += (size_t)snprintf(out + used, ALLOWED_MAX - used, "%s%s", used > 0 ? ", " : "", *choice);
        return;
    case KIND_PROBE: snprintf(out, ALLOWED_MAX, "nothing, host:port or unix:/path"); return;
    case KIND_VERSION:
    case KIND_HELP: return;
    }
}

/* The core decodes %XX in paths, and would listen elsewhere than our lock and mode are. */
static bool is_unix_path(const char *path)
{
    return *path != '\0' && strchr(path, '%') == NULL;
}

/* A name or an IPv4 address, or [an IPv6 address], and a port. Other schemes that the core knows are not offered. */
static bool is_host_and_port(const char *value)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    const char *colon = strrchr(value, ':');
    uint64_t port;
    if (colon == NULL || !parse_number(colon + 1, 10, false, &port) || port > 65535)
        return false;
    size_t len = (size_t)(colon - value);
    bool bracketed = len > 2 && value[0] == '[' && colon[-1] == ']';
    return bracketed ? strcspn(value, "%/]") == len - 1 : len > 0 && strspn(value, name) == len;
}

static bool is_address(const char *value)
{
    return strncmp(value, "unix:", 5) == 0 ? is_unix_path(value + 5) : is_host_and_port(value);
}

bool option_is_local(const char *address)
{
    char host[64];
    struct in_addr v4;
    size_t len = (size_t)(strrchr(address, ':') - address);
    if (strncmp(address, "unix:", 5) == 0)
        return true;
    if (len >= sizeof(host))
        return false;
    memcpy(host, address, len);
    host[len] = '\0';
    return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET);
}

static bool add_text(struct texts *texts, const char *value)
{
    if (texts->count == TEXTS_MAX)
        return false;
    texts->at[texts->count++] = value;
    return true;
}

/* As YAML, shells and people write it. */
static bool parse_flag(const char *value, bool *out_flag)
{
    static const char *const words[][2] = {{"false", "true"}, {"0", "1"}, {"no", "yes"}, {"off", "on"}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        for (int k = 0; k < 2; k++) {
            if (strcasecmp(value, words[i][k]) != 0)
                continue;
            *out_flag = k == 1;
            return true;
        }
    }
    return false;
}

static bool parse_sync(const char *value, uint64_t max_ms, struct sync_mode *out_sync)
{
    uint64_t ms = 0;
    bool interval = strncmp(value, "interval:", 9) == 0;
    if (interval && (!parse_number(value + 9, 10, false, &ms) || ms < 1 || ms > max_ms))
        return false;
    if (!interval && strcmp(value, "always") != 0 && strcmp(value, "none") != 0)
        return false;
    out_sync->mode = interval ? RD_SYNC_INTERVAL : value[0] == 'a' ? RD_SYNC_ALWAYS : RD_SYNC_NONE;
    out_sync->interval_ms = (uint32_t)ms;
    return true;
}

bool option_set(const struct option_row *row, const char *value, struct config *config)
{
    void *field = (char *)config + row->field;
    uint64_t number;
    int choice = 0;
    switch (row->kind) {
    case KIND_ADDRESSES: return is_address(value) && add_text(field, value);
    case KIND_NAMES: return *value != '\0' && strcmp(value, "cn:") != 0 && add_text(field, value);
    case KIND_FLAG: return parse_flag(value, field);
    case KIND_COUNT:
    case KIND_BYTES:
    case KIND_OCTAL:
        if (!parse_number(value, row->kind == KIND_OCTAL ? 8 : 10, row->kind == KIND_BYTES, &number) ||
            number < row->min || number > row->max)
            return false;
        *(uint64_t *)field = number;
        return true;
    case KIND_INDEX:
    case KIND_PATH:
        if (*value == '\0')
            return false;
        *(const char **)field = value;
        return true;
    case KIND_SYNC: return parse_sync(value, row->max, field);
    case KIND_CHOICE:
        while (row->choices[choice] != NULL && strcmp(row->choices[choice], value) != 0)
            choice++;
        if (row->choices[choice] == NULL)
            return false;
        *(int *)field = choice;
        return true;
    case KIND_PROBE:
        if (!is_address(value))
            return false;
        config->probe_address = value;
        return true;
    case KIND_VERSION:
    case KIND_HELP: return true;
    }
    return false;
}
