/* Replaying a manifest's ops gives the very bytes the crate wrote. */
#include "manifest.h"

#include <stdlib.h>
#include <string.h>

/* Every manifest by name: a fixture that is missing here fails the test, so none is passed over in silence. */
static const struct {
    const char *name;
    uint64_t ends_at; /* 0: at the fixture's own size */
    bool compacted;   /* with the same entries, but in their order: the crate's compaction turns it round */
} replays[] = {
    {.name = "01_empty.srd"},
    {.name = "02_single.srd"},
    {.name = "03_bench1000.srd"},
    {.name = "04_overwrites.srd"},
    {.name = "05_deletes.srd"},
    {.name = "06_deletes_reopen.srd", .ends_at = 106}, /* E-07: deleting it again writes nothing */
    {.name = "07_all_deleted.srd"},
    {.name = "08_binary_keys.srd"},
    {.name = "10_payload_sizes.srd"},
    {.name = "11_zero_payloads.srd"},
    {.name = "12_stream.srd"},
    {.name = "14_namespaced.srd"},
    {.name = "15_before_compaction.srd"},
    {.name = "15_compacted.srd", .compacted = true},
    {.name = "17_nested.srd"},
    {.name = "20_single_01.srd"},
    {.name = "21_trailer_lookalike.srd"},
    {.name = "23_rename.srd"},
    {.name = "25_copy_source.srd"},
    {.name = "26_copy_target.srd"},
};
#define REPLAY_COUNT (sizeof replays / sizeof *replays)

static size_t replay_find(const char *name)
{
    for (size_t i = 0; i < REPLAY_COUNT; i++)
        if (strcmp(replays[i].name, name) == 0)
            return i;
    support_fail(__FILE__, __LINE__, "a row in replays[]", "%s", name);
}

struct player {
    void **state;
    const char *path;
    const rd_open_options *options;
    rd_store *store;
    const char *name;
    size_t op_idx;
    rd_written done;
    size_t played;
};

static rd_err play_write(struct player *player, const json_t *op)
{
    AUTO_BYTES key = bytes_of_hex(field_text(op, "key"));
    AUTO_BYTES payload = payload_make(field(op, "payload"));
    return rd_store_write(player->store, bytes_span(&key), bytes_span(&payload), &player->done);
}

static rd_err play_stream(struct player *player, const json_t *op)
{
    AUTO_BYTES key = bytes_of_hex(field_text(op, "key"));
    AUTO_BYTES payload = payload_make(field(op, "payload"));
    size_t step = field_u64(op, "reader_step");
    rd_stream *stream = NULL;
    uint64_t size = 0;
    uint32_t crc = 0;
    EXPECT(rd_stream_begin(player->store, rd_hash(bytes_span(&key)), &stream) == RD_OK, "%s", player->name);
    for (size_t at = 0; at < payload.len; at += step) {
        size_t left = payload.len - at;
        rd_err err = rd_stream_append(stream, (rd_span){payload.data + at, left < step ? left : step});
        EXPECT(err == RD_OK, "%s: op %zu at %zu: %s", player->name, player->op_idx, at, rd_err_text(err));
    }
    rd_err err = rd_stream_commit(stream, &player->done, &size, &crc);
    EXPECT(err != RD_OK || (size == payload.len && crc == sum_crc32(payload.data, payload.len)), "%s: op %zu",
           player->name, player->op_idx);
    return err;
}

static rd_err play_rename(struct player *player, const json_t *op)
{
    AUTO_BYTES old_key = bytes_of_hex(field_text(op, "old"));
    AUTO_BYTES new_key = bytes_of_hex(field_text(op, "new"));
    return rd_store_rename(player->store, bytes_span(&old_key), bytes_span(&new_key), &player->done);
}

static rd_err play_copy_from(struct player *player, const json_t *op)
{
    AUTO_BYTES key = bytes_of_hex(field_text(op, "key"));
    AUTO_BYTES payload = payload_make(field(op, "payload"));
    rd_store *source = store_make(player->state, "source");
    rd_written done;
    EXPECT(rd_store_write(source, bytes_span(&key), bytes_span(&payload), &done) == RD_OK, "%s", player->name);
    rd_err err = rd_store_copy_hash(source, rd_hash(bytes_span(&key)), player->store, &player->done);
    rd_store_close(source);
    return err;
}

static rd_err play_transfer_out(struct player *player, const json_t *op)
{
    AUTO_BYTES key = bytes_of_hex(field_text(op, "key"));
    uint64_t hash = rd_hash(bytes_span(&key));
    rd_store *target = store_make(player->state, "target");
    rd_written done;
    rd_err err = rd_store_move_hash(player->store, hash, target, &done);
    EXPECT(rd_store_exists_hash(target, hash) == RD_OK && done.durable, "%s: op %zu", player->name, player->op_idx);
    rd_store_close(target);
    player->done.tail_off = store_info(player->store).tail_off;
    return err;
}

static rd_err play_batch_write(struct player *player, const json_t *op)
{
    json_t *entries = field(op, "entries");
    size_t count = json_array_size(entries);
    rd_write_item *items = calloc(count, sizeof *items);
    struct bytes *payloads = calloc(count, sizeof *payloads);
    EXPECT(items != NULL && payloads != NULL, "%s", player->name);
    for (size_t i = 0; i < count; i++) {
        AUTO_BYTES key = bytes_of_hex(field_text(json_array_get(entries, i), "key"));
        payloads[i] = payload_make(field(json_array_get(entries, i), "payload"));
        items[i] = (rd_write_item){rd_hash(bytes_span(&key)), bytes_span(&payloads[i])};
    }
    rd_err err = rd_store_batch_write(player->store, items, count, &player->done);
    for (size_t i = 0; i < count; i++)
        bytes_free(&payloads[i]);
    free(payloads);
    free(items);
    return err;
}

static rd_err play_delete(struct player *player, const json_t *op)
{
    AUTO_BYTES key = bytes_of_hex(field_text(op, "key"));
    return rd_store_delete(player->store, bytes_span(&key), &player->done);
}

static rd_err play_batch_delete(struct player *player, const json_t *keys, bool hashed)
{
    enum { KEYS_MAX = 16 };
    uint64_t hashes[KEYS_MAX];
    size_t count = json_array_size(keys);
    EXPECT(count <= KEYS_MAX, "%s: op %zu", player->name, player->op_idx);
    for (size_t i = 0; i < count; i++) {
        const char *hex = json_string_value(json_array_get(keys, i));
        AUTO_BYTES key = bytes_of_hex(hex);
        hashes[i] = hashed ? hash_of_hex(hex) : rd_hash(bytes_span(&key));
    }
    return rd_store_batch_delete(player->store, hashes, count, &player->done);
}

static rd_err play_reopen(struct player *player, const json_t *op)
{
    (void)op;
    rd_store_close(player->store);
    player->store = store_open_ok(player->path, player->options);
    player->done.tail_off = store_info(player->store).tail_off;
    return RD_OK;
}

static rd_err play_compact(struct player *player, const json_t *op)
{
    (void)op;
    const rd_compact_options options = {0};
    rd_fault fault;
    rd_compacted compacted = {0};
    rd_err err = rd_store_compact(player->store, &options, &fault, &compacted);
    player->done.tail_off = compacted.bytes_written;
    return err;
}

static rd_err play_op(struct player *player, const json_t *op)
{
    static const struct {
        const char *kind;
        rd_err (*play)(struct player *player, const json_t *op);
    } plays[] = {
        {"write", play_write},
        {"write_stream", play_stream},
        {"batch_write", play_batch_write},
        {"delete", play_delete},
        {"rename", play_rename},
        {"copy_from", play_copy_from},
        {"reopen", play_reopen},
        {"transfer_out", play_transfer_out},
        {"compact", play_compact},
    };
    const char *kind = field_text(op, "op");
    for (size_t i = 0; i < sizeof plays / sizeof *plays; i++)
        if (strcmp(kind, plays[i].kind) == 0)
            return plays[i].play(player, op);
    if (strcmp(kind, "batch_delete") == 0)
        return play_batch_delete(player, field(op, "keys"), false);
    if (strcmp(kind, "batch_delete_key_hashes") == 0)
        return play_batch_delete(player, field(op, "key_hashes"), true);
    support_fail(__FILE__, __LINE__, "an op this stage knows", "%s: %s", player->name, kind);
}

/* What an op that the crate refused is refused with here. */
static rd_err refusal_of(const json_t *op)
{
    if (!field_is(op, "op", "rename"))
        return RD_E_PAYLOAD;
    return strstr(field_text(op, "error"), "not found") != NULL ? RD_ABSENT : RD_E_INVALID;
}

static void play_and_check(struct player *player, const json_t *op, uint64_t ends_at)
{
    uint64_t before = file_len(player->path);
    rd_err err = play_op(player, op);
    if (json_object_get(op, "error") != NULL) {
        EXPECT(err == refusal_of(op), "%s: op %zu: %s", player->name, player->op_idx, rd_err_text(err));
        EXPECT(file_len(player->path) == before, "%s: op %zu wrote", player->name, player->op_idx);
        return;
    }
    EXPECT(err == RD_OK, "%s: op %zu: %s", player->name, player->op_idx, rd_err_text(err));
    EXPECT(file_len(player->path) == player->done.tail_off, "%s: op %zu", player->name, player->op_idx);
    if (json_object_get(op, "returned_tail") == NULL)
        return;
    uint64_t tail = field_u64(op, "returned_tail");
    if (ends_at != 0 && tail > ends_at)
        tail = ends_at;
    EXPECT(player->done.tail_off == tail, "%s: op %zu: tail %llu", player->name, player->op_idx,
           (unsigned long long)player->done.tail_off);
}

/* The bytes that the ops are to end with. */
static struct bytes wanted(const struct fixture *fixture, size_t row)
{
    struct bytes want = {0};
    json_t *entries = field(fixture->manifest, "entries_in_file_order");
    if (!replays[row].compacted) {
        bytes_append(&want, fixture->file.data, replays[row].ends_at != 0 ? replays[row].ends_at : fixture->file.len);
        return want;
    }
    for (size_t i = json_array_size(entries); i-- > 0;) {
        json_t *entry = json_array_get(entries, i);
        uint64_t start = field_u64(entry, "start");
        rd_span payload = {fixture->file.data + start, field_u64(entry, "end") - start};
        build_entry(&want, field_hash(entry, "key_hash"), payload, 64);
    }
    return want;
}

static void play_fixture(const struct fixture *fixture, void *arg)
{
    struct player *player = arg;
    size_t row = replay_find(fixture->name);
    json_t *op;
    player->name = fixture->name;
    player->path = temp_path(player->state, "s");
    player->store = store_open_ok(player->path, player->options);
    json_array_foreach(field(fixture->manifest, "ops"), player->op_idx, op)
        play_and_check(player, op, replays[row].ends_at);
    rd_store_close(player->store);

    AUTO_BYTES want = wanted(fixture, row);
    file_expect(player->path, want.data, want.len, fixture->name);
    if (replays[row].ends_at == 0 && !replays[row].compacted) {
        char sum[65];
        sum_sha256(want.data, want.len, sum);
        EXPECT(field_is(fixture->manifest, "file_sha256", sum), "%s: %s", fixture->name, sum);
    }
    const char *used[] = {"s", "source", "target"};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        file_save(temp_path(player->state, used[i]), "", 0);
    player->played++;
}

static void replay_all(void **state, rd_sync sync)
{
    const rd_open_options options = {.writable = true, .create = true, .sync = sync};
    struct player player = {.state = state, .options = &options};
    fixture_each(play_fixture, &player);
    assert_int_equal(player.played, REPLAY_COUNT);
}

static void replayed_ops_give_the_same_bytes(void **state)
{
    replay_all(state, RD_SYNC_NONE);
}

static void replayed_ops_give_the_same_bytes_with_each_write_synced(void **state)
{
    replay_all(state, RD_SYNC_ALWAYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(replayed_ops_give_the_same_bytes),
        TEMP_TEST(replayed_ops_give_the_same_bytes_with_each_write_synced),
    };
    return cmocka_run_group_tests_name("replay", tests, NULL, NULL);
}
