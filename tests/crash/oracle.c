#include "oracle.h"
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

/* ---- Versions and their bytes ---- */

uint64_t version_of(enum sizes sizes, uint64_t number)
{
    return ((uint64_t)sizes << 56) | (number & (((uint64_t)1 << 56) - 1));
}

size_t version_len(uint64_t version)
{
    struct rng rng = rng_of(version);
    enum sizes sizes = (enum sizes)(version >> 56);
    uint64_t dice = rng_below(&rng, 1000);
    if (sizes == SIZES_SMALL)
        return 1 + (size_t)rng_below(&rng, 90);
    if (sizes == SIZES_LARGE && dice < 4)
        return ((size_t)1 << 20) + (size_t)rng_below(&rng, 300000);
    if (dice < 20)
        return 65537 + (size_t)rng_below(&rng, 60000);
    if (dice < 100)
        return 4096 + (size_t)rng_below(&rng, 16000);
    return 1 + (size_t)rng_below(&rng, dice < 500 ? 200 : 3000);
}

static void put_le(uint8_t *to, uint64_t number, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(number >> (8 * i));
}

/* Fill with entries that hold (F-02, F-03, F-06) and name our keys: what is stored as a value is no entry. */
static void fill_with_store(struct rng *rng, uint8_t *bytes, size_t len)
{
    size_t tail = 0;
    for (;;) {
        size_t start = (tail + 63) / 64 * 64;
        size_t payload = 1 + (size_t)rng_below(rng, 120);
        if (start + payload + 20 > len)
            return;
        for (size_t i = 0; i < payload; i++)
            bytes[start + i] = (uint8_t)(rng_next(rng) | 1);
        memset(bytes + tail, 0, start - tail);
        uint8_t *trailer = bytes + start + payload;
        put_le(trailer, oracle_key((uint32_t)rng_below(rng, ORACLE_KEYS)), 8);
        put_le(trailer + 8, tail, 8);
        put_le(trailer + 16, libdeflate_crc32(0, bytes + start, payload), 4);
        tail = start + payload + 20;
    }
}

void version_bytes(uint64_t version, struct buffer *out)
{
    struct rng rng = rng_of(mix(version, 3));
    size_t len = version_len(version);
    unsigned fill = (unsigned)rng_below(&rng, 100);
    buffer_resize(out, 0);
    buffer_resize(out, len);
    for (size_t i = 0; fill < 90 && i < len; i += 8) {
        uint64_t word = rng_next(&rng);
        memcpy(out->data + i, &word, len - i < 8 ? len - i : 8);
    }
    if (fill >= 80 && fill < 90 && version >> 56 != SIZES_SMALL)
        fill_with_store(&rng, out->data, len);
    /* F-09. And a hash has no checksum: behind a payload that ends in zeros, half a hash may be lost with its sector
       and the entry still hold, under a hash that nobody wrote. */
    if (out->data[len - 1] == 0)
        out->data[len - 1] = 1;
}

/* ---- Histories ---- */

uint64_t oracle_key(uint32_t key)
{
    return mix(key, 12345);
}

void oracle_init(struct oracle *oracle)
{
    *oracle = (struct oracle){0};
    for (uint32_t key = 0; key < ORACLE_KEYS; key++) {
        oracle->of[key].at[0].progress = DURABLE;
        oracle->of[key].count = 1;
    }
}

bool oracle_has_room(const struct oracle *oracle, uint32_t key)
{
    return oracle->of[key].count + 4 <= ORACLE_VERSIONS;
}

uint32_t oracle_begin(struct oracle *oracle, uint32_t key, uint64_t version)
{
    uint32_t index = oracle->of[key].count;
    if (index == ORACLE_VERSIONS)
        fail("more versions of a key than the oracle has places for");
    oracle->of[key].at[index].version = version;
    oracle->of[key].at[index].progress = BEGUN;
    __atomic_store_n(&oracle->of[key].count, index + 1, __ATOMIC_RELEASE);
    return index;
}

void oracle_end(struct oracle *oracle, uint32_t key, uint32_t index, rd_err err, bool durable)
{
    enum progress progress = REFUSED;
    if (err == RD_OK)
        progress = durable ? DURABLE : VISIBLE;
    else if (err == RD_E_SYNC)
        progress = BEGUN; /* unknown until reopened */
    __atomic_store_n(&oracle->of[key].at[index].progress, progress, __ATOMIC_RELEASE);
}

void oracle_synced(struct oracle *oracle, uint32_t key)
{
    for (uint32_t i = 0; i < oracle->of[key].count; i++)
        if (oracle->of[key].at[i].progress == VISIBLE)
            oracle->of[key].at[i].progress = DURABLE;
}

static uint32_t index_now(const struct oracle *oracle, uint32_t key)
{
    uint32_t i = oracle->of[key].count;
    while (--i > 0)
        if (oracle->of[key].at[i].progress >= VISIBLE)
            break;
    return i;
}

uint64_t oracle_now(const struct oracle *oracle, uint32_t key)
{
    return oracle->of[key].at[index_now(oracle, key)].version;
}

/* ---- Checks ---- */

static bool shows(rd_span payload, uint64_t version)
{
    if (version == VERSION_NONE || version_len(version) != payload.len)
        return false;
    struct buffer bytes = {0};
    version_bytes(version, &bytes);
    bool same = memcmp(bytes.data, payload.data, payload.len) == 0;
    buffer_free(&bytes);
    return same;
}

static const char *progress_text(enum progress progress)
{
    static const char *const texts[] = {"begun", "refused", "visible", "durable"};
    return texts[progress];
}

static uint32_t newest_durable(const struct oracle *oracle, uint32_t key)
{
    uint32_t i = oracle->of[key].count;
    while (--i > 0 && oracle->of[key].at[i].progress != DURABLE)
        ;
    return i;
}

/* Which version a read of a key shows. */
static uint32_t find_version(const struct oracle *oracle, uint32_t key, rd_err err, rd_span payload, const char *what)
{
    uint32_t lowest = newest_durable(oracle, key);
    for (uint32_t i = oracle->of[key].count; i-- > lowest;) {
        uint64_t version = oracle->of[key].at[i].version;
        bool matches = err == RD_OK ? shows(payload, version) : err == RD_ABSENT && version == VERSION_NONE;
        if (matches && oracle->of[key].at[i].progress != REFUSED)
            return i;
    }
    for (uint32_t i = oracle->of[key].count; i-- > 0;)
        if (err == RD_OK ? shows(payload, oracle->of[key].at[i].version)
                         : err == RD_ABSENT && oracle->of[key].at[i].version == VERSION_NONE)
            fail("%s: key %u (hash %016llx) shows version %u of %u, which was %s; number %u of %zu bytes is durable",
                 what, key, (unsigned long long)oracle_key(key), i, oracle->of[key].count,
                 progress_text(oracle->of[key].at[i].progress), lowest,
                 oracle->of[key].at[lowest].version != 0 ? version_len(oracle->of[key].at[lowest].version) : 0);
    fail("%s: key %u (hash %016llx) shows %s, %zu bytes, which it never was; version %u of %u is durable (%zu bytes)",
         what, key, (unsigned long long)oracle_key(key), rd_err_reason(err), payload.len, lowest, oracle->of[key].count,
         oracle->of[key].at[lowest].version != 0 ? version_len(oracle->of[key].at[lowest].version) : 0);
}

/* The iteration gives exactly the keys that reads give. */
static void check_iteration(const struct oracle *oracle, rd_store *store, const struct view *view, uint64_t live,
                            const char *what)
{
    rd_iter *iter;
    rd_entry entry;
    uint64_t count = 0;
    if (rd_iter_create(store, &iter) != RD_OK)
        fail("%s: no iterator", what);
    rd_err err = rd_iter_next(iter, &entry);
    for (; err == RD_OK; err = rd_iter_next(iter, &entry), count++) {
        uint32_t key = 0;
        while (key < ORACLE_KEYS && oracle_key(key) != entry.meta.key_hash)
            key++;
        if (key == ORACLE_KEYS || !shows(entry.payload, oracle->of[key].at[view->at[key]].version))
            fail("%s: iteration gives hash %016llx what a read does not", what,
                 (unsigned long long)entry.meta.key_hash);
    }
    rd_iter_destroy(iter);
    if (err != RD_ABSENT)
        fail("%s: iteration ends with %s", what, rd_err_reason(err));
    if (count != live || rd_store_len(store) != live)
        fail("%s: reads find %llu keys, iteration %llu, the count says %llu", what, (unsigned long long)live,
             (unsigned long long)count, (unsigned long long)rd_store_len(store));
}

void oracle_check(const struct oracle *oracle, rd_store *store, const char *what, struct view *out_view)
{
    uint64_t live = 0;
    for (uint32_t key = 0; key < ORACLE_KEYS; key++) {
        rd_entry entry = {0};
        rd_err err = rd_store_read_hash(store, oracle_key(key), &entry);
        out_view->at[key] = find_version(oracle, key, err, entry.payload, what);
        if (err == RD_OK)
            live++;
        rd_entry_release(&entry);
    }
    rd_store_info info;
    if (rd_store_info_get(store, &info) != RD_OK || info.damaged_entries != 0)
        fail("%s: there are damaged entries", what);
    check_iteration(oracle, store, out_view, live, what);
}

static uint64_t seen(const struct oracle *oracle, const struct view *view, uint32_t key)
{
    return oracle->of[key].at[view->at[key]].version;
}

static bool same_value(uint64_t one, uint64_t other)
{
    if (one == other || one == VERSION_NONE || other == VERSION_NONE)
        return one == other;
    struct buffer bytes = {0};
    version_bytes(one, &bytes);
    bool same = shows((rd_span){.data = bytes.data, .len = bytes.len}, other);
    buffer_free(&bytes);
    return same;
}

void oracle_check_now(const struct oracle *oracle, rd_store *store, const char *what)
{
    struct view view;
    oracle_check(oracle, store, what, &view);
    for (uint32_t key = 0; key < ORACLE_KEYS; key++)
        if (!same_value(seen(oracle, &view, key), oracle_now(oracle, key)))
            fail("%s: key %u shows version %u of %u, not the newest acknowledged, %u", what, key, view.at[key],
                 oracle->of[key].count, index_now(oracle, key));
}

void oracle_settle(struct oracle *oracle, const struct view *view)
{
    for (uint32_t key = 0; key < ORACLE_KEYS; key++) {
        oracle->of[key].at[0].version = seen(oracle, view, key);
        oracle->of[key].at[0].progress = DURABLE;
        oracle->of[key].count = 1;
    }
}

void oracle_same(const struct oracle *oracle, const struct view *one, const struct view *other, const char *what)
{
    for (uint32_t key = 0; key < ORACLE_KEYS; key++)
        if (!same_value(seen(oracle, one, key), seen(oracle, other, key)))
            fail("%s: key %u shows version %u, and before it was %u", what, key, other->at[key], one->at[key]);
}
