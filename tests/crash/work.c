#include "work.h"
#include <string.h>

#define BATCH_MAX 6

enum work_kind {
#define WORK_NAME(name, weight, text) name,
    WORKS(WORK_NAME)
#undef WORK_NAME
        WORK_KINDS
};

static const struct {
    unsigned weight;
    const char *text;
} works[] = {
#define WORK_ROW(name, weight, text) [name] = {weight, text},
    WORKS(WORK_ROW)
#undef WORK_ROW
};

/* Keys of one operation, each once, and the versions it gives them. */
struct many {
    size_t count;
    uint32_t keys[BATCH_MAX];
    uint32_t indexes[BATCH_MAX];
    uint64_t versions[BATCH_MAX];
};

static bool is_dead(const struct worker *worker)
{
    return worker->is_dead != NULL && worker->is_dead();
}

static uint32_t any_key(struct worker *worker)
{
    uint32_t count = (ORACLE_KEYS - worker->first + worker->stride - 1) / worker->stride;
    return worker->first + worker->stride * (uint32_t)rng_below(&worker->rng, count);
}

/* A file doesn't begin with a store as its value: if that is torn, the format can't tell that it isn't the file's own.
 */
static uint64_t any_version(struct worker *worker)
{
    uint64_t bytes;
    bool begins = rd_store_file_size(worker->store, &bytes) == RD_OK && bytes == 0;
    return version_of(begins ? SIZES_SMALL : worker->sizes, (++worker->number << 4) | worker->first);
}

static struct many any_keys(struct worker *worker, size_t max)
{
    struct many many = {0};
    size_t want = 1 + (size_t)rng_below(&worker->rng, max);
    for (size_t tries = 0; tries < 4 * max && many.count < want; tries++) {
        uint32_t key = any_key(worker);
        bool is_new = true;
        for (size_t i = 0; i < many.count; i++)
            is_new = is_new && many.keys[i] != key;
        if (is_new)
            many.keys[many.count++] = key;
    }
    return many;
}

static void begin(struct worker *worker, struct many *many)
{
    for (size_t i = 0; i < many->count; i++)
        many->indexes[i] = oracle_begin(worker->oracle, many->keys[i], many->versions[i]);
}

/* Returns: whether to go on. `allowed`: an error that is an answer, not a failure. */
static bool end(struct worker *worker, const struct many *many, rd_err err, rd_err allowed, bool durable,
                enum work_kind kind)
{
    if (is_dead(worker)) /* what was acknowledged before is; nobody heard this one */
        return false;
    if (err != RD_OK && err != allowed)
        fail("%s: %s: %s", works[kind].text, rd_err_reason(err), rd_err_text(err));
    for (size_t i = 0; i < many->count; i++)
        oracle_end(worker->oracle, many->keys[i], many->indexes[i], err, durable);
    return true;
}

static bool do_write(struct worker *worker, enum work_kind kind, size_t max)
{
    struct many many = any_keys(worker, max);
    struct buffer bytes[BATCH_MAX] = {0};
    rd_write_item items[BATCH_MAX];
    rd_written written = {0};
    for (size_t i = 0; i < many.count; i++) {
        many.versions[i] = any_version(worker);
        version_bytes(many.versions[i], &bytes[i]);
        items[i] = (rd_write_item){.key_hash = oracle_key(many.keys[i]),
                                   .payload = {.data = bytes[i].data, .len = bytes[i].len}};
    }
    begin(worker, &many);
    rd_err err = kind == WORK_WRITE ? rd_store_write_hash(worker->store, items[0].key_hash, items[0].payload, &written)
                                    : rd_store_batch_write(worker->store, items, many.count, &written);
    for (size_t i = 0; i < many.count; i++)
        buffer_free(&bytes[i]);
    return end(worker, &many, err, RD_OK, written.durable, kind);
}

static bool do_delete(struct worker *worker, enum work_kind kind, size_t max)
{
    struct many many = any_keys(worker, max);
    uint64_t hashes[BATCH_MAX] = {0};
    rd_written written = {0};
    for (size_t i = 0; i < many.count; i++)
        hashes[i] = oracle_key(many.keys[i]);
    begin(worker, &many);
    rd_err err = rd_store_batch_delete(worker->store, hashes, many.count, &written);
    return end(worker, &many, err, RD_OK, written.durable, kind);
}

static bool do_rename(struct worker *worker)
{
    struct many many = any_keys(worker, 2);
    rd_written written = {0};
    if (many.count < 2)
        return true;
    uint64_t value = oracle_now(worker->oracle, many.keys[0]);
    many.versions[1] = value;
    rd_err want = value == VERSION_NONE ? RD_ABSENT : RD_OK;
    begin(worker, &many);
    rd_err err = rd_store_rename_hash(worker->store, oracle_key(many.keys[0]), oracle_key(many.keys[1]), &written);
    if (err != want && !is_dead(worker))
        fail("rename: %s", rd_err_reason(err));
    return end(worker, &many, err, RD_ABSENT, written.durable, WORK_RENAME);
}

static bool do_stream(struct worker *worker)
{
    struct many many = {.count = 1, .keys = {any_key(worker)}, .versions = {any_version(worker)}};
    struct buffer bytes = {0};
    rd_stream *stream = NULL;
    rd_written written = {0};
    bool aborts = rng_chance(&worker->rng, 15);
    version_bytes(many.versions[0], &bytes);
    begin(worker, &many);
    rd_err err = rd_stream_begin(worker->store, oracle_key(many.keys[0]), &stream);
    for (size_t at = 0; err == RD_OK && at < bytes.len;) {
        size_t piece = 1 + (size_t)rng_below(&worker->rng, 150000);
        piece = piece < bytes.len - at ? piece : bytes.len - at;
        err = rd_stream_append(stream, (rd_span){.data = bytes.data + at, .len = piece});
        at += piece;
    }
    buffer_free(&bytes);
    if (err == RD_OK && !aborts)
        err = rd_stream_commit(stream, &written, NULL, NULL);
    else
        rd_stream_abort(stream);
    if (err == RD_OK && aborts)
        err = RD_E_CANCELLED;
    return end(worker, &many, err, RD_E_CANCELLED, written.durable, WORK_STREAM);
}

static bool do_sync(struct worker *worker)
{
    rd_err err = rd_store_sync(worker->store);
    if (is_dead(worker))
        return false;
    if (err != RD_OK)
        fail("sync: %s", rd_err_reason(err));
    for (uint32_t key = worker->first; key < ORACLE_KEYS; key += worker->stride)
        oracle_synced(worker->oracle, key);
    return true;
}

/* What was acknowledged is seen at once, and nothing else: nobody but this worker writes the key. */
static bool do_read(struct worker *worker)
{
    uint32_t key = any_key(worker);
    uint64_t version = oracle_now(worker->oracle, key);
    struct buffer want = {0};
    rd_entry entry = {0};
    rd_err err = rd_store_read_hash(worker->store, oracle_key(key), &entry);
    if (version != VERSION_NONE)
        version_bytes(version, &want);
    if (err != (version != VERSION_NONE ? RD_OK : RD_ABSENT) || entry.payload.len != want.len ||
        (want.len > 0 && memcmp(entry.payload.data, want.data, want.len) != 0))
        fail("key %u is read as %s, %zu bytes, and was acknowledged as %zu bytes", key, rd_err_reason(err),
             entry.payload.len, want.len);
    buffer_free(&want);
    rd_entry_release(&entry);
    return true;
}

static bool do_compact(struct worker *worker)
{
    rd_compacted compacted;
    rd_fault fault = {0};
    if (!worker->compacts)
        return true;
    rd_err err = rd_store_compact(worker->store, NULL, &fault, &compacted);
    if (is_dead(worker))
        return false;
    if (err == RD_OK) { /* all of it was synced on the way */
        for (uint32_t key = worker->first; key < ORACLE_KEYS; key += worker->stride)
            oracle_synced(worker->oracle, key);
        return true;
    }
    if (err != RD_E_BUSY && err != RD_E_DAMAGED)
        fail("compaction: %s: %s", rd_err_reason(err), fault.text);
    return true;
}

static enum work_kind any_kind(struct worker *worker)
{
    unsigned sum = 0;
    for (size_t i = 0; i < WORK_KINDS; i++)
        sum += works[i].weight;
    unsigned dice = (unsigned)rng_below(&worker->rng, sum);
    size_t kind = 0;
    for (; dice >= works[kind].weight; kind++)
        dice -= works[kind].weight;
    return (enum work_kind)kind;
}

bool work(struct worker *worker)
{
    for (uint32_t key = worker->first; key < ORACLE_KEYS; key += worker->stride)
        if (!oracle_has_room(worker->oracle, key))
            return false;
    enum work_kind kind = any_kind(worker);
    switch (kind) {
    case WORK_WRITE: return do_write(worker, kind, 1);
    case WORK_BATCH: return do_write(worker, kind, BATCH_MAX);
    case WORK_DELETE: return do_delete(worker, kind, 1);
    case WORK_BATCH_DELETE: return do_delete(worker, kind, BATCH_MAX);
    case WORK_RENAME: return do_rename(worker);
    case WORK_STREAM: return do_stream(worker);
    case WORK_SYNC: return do_sync(worker);
    case WORK_READ: return do_read(worker);
    case WORK_COMPACT: return do_compact(worker);
    case WORK_KINDS: break;
    }
    return true;
}
