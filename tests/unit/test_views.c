/*
 * F-13 under load: a writer gives all keys of a group the same generation, or deletes them all, batch by batch; whoever
 * reads a group meets one generation, whatever else goes on: the index grows through many tables, compactions and late
 * recoveries put other views in place.
 */
#include "store_internal.h"

#include "asyncop.h"

#include <inttypes.h>
#include <stdlib.h>

enum { GROUPS_MAX = 4, READS_MIN = 20, FRESH_BATCH = 500, WINDOW = 3000 };

struct group {
    size_t key_count;
    uint64_t deleted_each; /* generations that this divides are deletions, as is 0, in which nothing was written */
    _Atomic uint64_t begun, done; /* generations */
};

struct scene {
    rd_store *store;
    rd_engine *engine; /* the same store */
    struct group groups[GROUPS_MAX];
    size_t group_count;
    uint64_t rounds; /* of the group writer */
    uint64_t fresh;  /* keys that the other writes */
    atomic_int writing;
    unsigned compactions, recoveries;
};

static uint64_t key_of(size_t group, uint64_t key)
{
    const uint64_t words[2] = {group, key};
    return rd_hash((rd_span){words, sizeof words});
}

/* ---- Writers ---------------------------------------------------------------------------------------------------- */

static rd_err write_generation(rd_store *store, size_t number, const struct group *group, uint64_t generation)
{
    rd_write_item *items = calloc(group->key_count, sizeof *items);
    uint64_t *hashes = calloc(group->key_count, sizeof *hashes);
    rd_written done;
    rd_err err = items == NULL || hashes == NULL ? RD_E_NOMEM : RD_OK;
    for (size_t i = 0; err == RD_OK && i < group->key_count; i++) {
        hashes[i] = key_of(number, i);
        items[i] = (rd_write_item){hashes[i], {&generation, sizeof generation}};
    }
    if (err == RD_OK && generation % group->deleted_each == 0)
        err = rd_store_batch_delete(store, hashes, group->key_count, &done);
    else if (err == RD_OK)
        err = rd_store_batch_write(store, items, group->key_count, &done);
    free(items);
    free(hashes);
    return err;
}

/* The first group at each round, the next at each fourth of these, and so on: they get larger. */
static void *write_groups(void *argument)
{
    struct scene *scene = argument;
    const char *wrong = NULL;
    for (uint64_t round = 1; round <= scene->rounds && wrong == NULL; round++) {
        size_t number = 0;
        while (number + 1 < scene->group_count && (round >> 2 * (number + 1)) << 2 * (number + 1) == round)
            number++;
        struct group *group = &scene->groups[number];
        uint64_t generation = atomic_load(&group->done) + 1;
        atomic_store(&group->begun, generation);
        if (write_generation(scene->store, number, group, generation) != RD_OK)
            wrong = "a batch can't be written";
        atomic_store(&group->done, generation);
    }
    atomic_fetch_sub(&scene->writing, 1);
    return (void *)(uintptr_t)wrong;
}

/* Keys that were never there, and one in ten of them deleted again. */
static void *write_fresh(void *argument)
{
    struct scene *scene = argument;
    const char *wrong = NULL;
    for (uint64_t from = 0, count; from < scene->fresh && wrong == NULL; from += count) {
        rd_write_item items[FRESH_BATCH];
        uint64_t hashes[FRESH_BATCH];
        rd_written done;
        count = 1 + from * 7 % FRESH_BATCH;
        for (uint64_t i = 0; i < count; i++) {
            hashes[i] = key_of(GROUPS_MAX, from + i);
            items[i] = (rd_write_item){hashes[i], {&hashes[i], sizeof *hashes}};
        }
        if (rd_store_batch_write(scene->store, items, count, &done) != RD_OK ||
            rd_store_batch_delete(scene->store, hashes, count / 10, &done) != RD_OK)
            wrong = "a fresh key can't be written or deleted";
    }
    atomic_fetch_sub(&scene->writing, 1);
    return (void *)(uintptr_t)wrong;
}

static void *keep_up(void *argument)
{
    struct scene *scene = argument;
    while (atomic_load(&scene->writing) > 0) {
        rd_compacted compacted;
        rd_fault fault;
        rd_err err = rd_store_compact(scene->store, NULL, &fault, &compacted);
        if (err != RD_OK)
            return "a compaction fails";
        scene->compactions++;
        if (store_recover_again(scene->store, NULL) != RD_OK)
            return "a recovery fails";
        scene->recoveries++;
    }
    return NULL;
}

/* ---- Readers ---------------------------------------------------------------------------------------------------- */

/* What one read of a group has met so far. */
struct met {
    const char *wrong;
    size_t present, absent;
    uint64_t generation;
};

static void meet(struct met *met, rd_err err, rd_span payload)
{
    met->present += err == RD_OK;
    met->absent += err == RD_ABSENT;
    if (err != RD_OK && err != RD_ABSENT)
        met->wrong = "a key can't be read";
    if (err != RD_OK)
        return;
    uint64_t generation = payload.len == sizeof generation ? *(const uint64_t *)payload.data : 0;
    if (met->present == 1)
        met->generation = generation;
    if (generation != met->generation)
        met->wrong = "two generations are seen at once";
}

/* One generation from `*least` up to `most`, or a deletion among them; `*least` becomes it: it never goes back. */
static const char *judge(const struct group *group, const struct met *met, uint64_t *least, uint64_t most)
{
    if (met->wrong != NULL)
        return met->wrong;
    if (met->present + met->absent != group->key_count || (met->present > 0 && met->absent > 0))
        return "half a batch is seen";
    uint64_t generation = met->generation;
    if (met->absent > 0) /* the earliest deletion that it can be */
        generation = (*least + group->deleted_each - 1) / group->deleted_each * group->deleted_each;
    if (generation < *least)
        return "an older generation is back";
    if (generation > most || (met->present > 0 && generation % group->deleted_each == 0))
        return "a generation is seen that isn't there";
    *least = generation;
    return NULL;
}

static void read_by_call(struct scene *scene, size_t number, struct met *met)
{
    size_t count = scene->groups[number].key_count;
    uint64_t *hashes = calloc(count, sizeof *hashes);
    rd_batch_item *items = calloc(count, sizeof *items);
    met->wrong = hashes == NULL || items == NULL ? "no memory" : NULL;
    for (size_t i = 0; met->wrong == NULL && i < count; i++)
        hashes[i] = key_of(number, i);
    if (met->wrong == NULL && rd_store_batch_read_hashed(scene->store, hashes, NULL, count, items) != RD_OK)
        met->wrong = "a batch can't be read";
    for (size_t i = 0; met->wrong == NULL && i < count; i++) {
        meet(met, items[i].err, items[i].entry.payload);
        rd_entry_release(&items[i].entry);
    }
    free(hashes);
    free(items);
}

/* In windows, between which anything may happen. */
static void read_by_engine(struct scene *scene, size_t number, struct met *met)
{
    size_t count = scene->groups[number].key_count;
    rd_key *keys = calloc(count, sizeof *keys);
    rd_value *values = calloc(WINDOW, sizeof *values);
    struct asyncop a;
    asyncop_init(&a, RD_OP_READ);
    for (size_t i = 0; keys != NULL && i < count; i++)
        keys[i].hash = key_of(number, i);
    a.op.keys = keys;
    a.op.key_count = count;
    a.op.values = values;
    a.op.value_max = WINDOW;
    a.op.window_bytes_max = SIZE_MAX;
    met->wrong = keys == NULL || values == NULL ? "no memory" : NULL;
    if (met->wrong == NULL) {
        asyncop_submit(scene->engine, &a);
        for (asyncop_wait(&a); a.op.err == RD_OK; asyncop_next(scene->engine, &a), asyncop_wait(&a)) {
            for (size_t i = 0; i < a.op.value_count; i++)
                meet(met, values[i].err, values[i].payload);
            if (!a.op.more)
                break;
        }
        if (a.op.err != RD_OK)
            met->wrong = "an operation fails";
        rd_engine_finish(scene->engine, &a.op);
    }
    asyncop_fini(&a);
    free(keys);
    free(values);
}

static const char *read_groups(struct scene *scene, void (*read)(struct scene *, size_t, struct met *))
{
    uint64_t least[GROUPS_MAX] = {0};
    for (size_t reads = 0; reads < READS_MIN || atomic_load(&scene->writing) > 0; reads++) {
        size_t number = reads % 16 < 2 ? scene->group_count - 1 : reads % scene->group_count;
        struct group *group = &scene->groups[number];
        struct met met = {0};
        uint64_t done = atomic_load(&group->done);
        least[number] = done > least[number] ? done : least[number];
        read(scene, number, &met);
        const char *wrong = judge(group, &met, &least[number], atomic_load(&group->begun));
        if (wrong != NULL)
            return wrong;
    }
    return NULL;
}

static void *read_calls(void *scene)
{
    return (void *)(uintptr_t)read_groups(scene, read_by_call);
}

static void *read_operations(void *scene)
{
    return (void *)(uintptr_t)read_groups(scene, read_by_engine);
}

/* ---- One run ---------------------------------------------------------------------------------------------------- */

static void run(void **state, struct scene *scene)
{
    void *(*const parts[])(void *) = {write_groups, write_fresh, keep_up, read_calls, read_calls, read_operations};
    enum { PARTS = sizeof parts / sizeof *parts };
    pthread_t threads[PARTS];
    uint64_t live = scene->fresh / 2;
    scene->store = store_make(state, "s");
    assert_int_equal(rd_engine_create_local(scene->store, 2, &scene->engine), RD_OK);
    scene->writing = 2;
    for (size_t i = 0; i < PARTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, parts[i], scene), 0);
    for (size_t i = 0; i < PARTS; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        EXPECT(wrong == NULL, "thread %zu: %s", i, (const char *)wrong);
    }
    rd_store_info info = store_info(scene->store);
    assert_true(info.live_keys > live && scene->compactions > 0 && scene->recoveries > 0);
    assert_int_equal(info.damaged_ranges + info.damaged_entries, 0);
    rd_engine_destroy(scene->engine);
    rd_store *store = store_open_ok(temp_path(state, "s"), &open_reading);
    assert_int_equal(store_info(store).live_keys, info.live_keys);
    assert_int_equal(store_info(store).live_bytes, info.live_bytes);
    rd_store_close(store);
}

static void a_batch_is_seen_whole_or_not_at_all_whatever_goes_on(void **state)
{
    static struct scene scene = {.group_count = 4,
                                 .groups = {{.key_count = 1, .deleted_each = 7},
                                            {.key_count = 40, .deleted_each = 5},
                                            {.key_count = 700, .deleted_each = 3},
                                            {.key_count = 5000, .deleted_each = 4}},
                                 .rounds = 700,
                                 .fresh = 50000};
    run(state, &scene);
}

static void so_is_one_of_a_hundred_thousand_keys(void **state)
{
    static struct scene scene = {
        .group_count = 1, .groups = {{.key_count = 100000, .deleted_each = 3}}, .rounds = 4, .fresh = 3000};
    run(state, &scene);
}

/* ---- A late recovery -------------------------------------------------------------------------------------------- */

static void put_number(rd_store *store, uint64_t key, uint64_t value)
{
    rd_written done;
    EXPECT(rd_store_write_hash(store, key_of(0, key), (rd_span){&value, sizeof value}, &done) == RD_OK, "%" PRIu64,
           key);
}

/* What is written and deleted between a recovery and its taking the store's place; by then the table has moved. */
static void a_late_recovery_brings_nothing_back_that_was_deleted_meanwhile(void **state)
{
    enum { KEYS = 300, MORE = 6000 };
    rd_store *store = store_make(state, "s");
    struct snapshot snapshot;
    struct recovered found;
    struct view *superseded = NULL;
    uint64_t fault_off;
    rd_written done;
    for (uint64_t key = 0; key < KEYS; key++)
        put_number(store, key, key + 1);
    store_snapshot(store, &snapshot);
    const struct recover_options options = {.check_all = true, .synced_off = SYNCED_UNKNOWN, .end_proven = true};
    assert_int_equal(recover(snapshot.mapping->base, snapshot.tail_off, &options, &fault_off, &found), RD_OK);
    for (uint64_t key = 0; key < KEYS; key++)
        put_number(store, key, key + 1000);
    for (uint64_t key = KEYS; key < MORE; key++)
        put_number(store, key, key);
    for (uint64_t key = 0; key < KEYS; key += 2)
        assert_int_equal(rd_store_batch_delete(store, &(uint64_t){key_of(0, key)}, 1, &done), RD_OK);
    rd_store_info before = store_info(store);
    pthread_mutex_lock(&store->write);
    assert_int_equal(store_adopt(store, &found, snapshot.tail_off, &superseded), RD_OK);
    pthread_mutex_unlock(&store->write);
    store_retire(superseded);
    recovered_fini(&found);
    snapshot_release(&snapshot);
    rd_store_info after = store_info(store);
    assert_int_equal(after.generation, before.generation + 1);
    for (uint64_t key = 0; key < MORE; key++) {
        uint64_t value = key < KEYS ? key + 1000 : key;
        if (key < KEYS && key % 2 == 0)
            store_expect_absent(store, key_of(0, key));
        else
            store_expect(store, key_of(0, key), &value, sizeof value);
    }
    assert_int_equal(after.live_keys, before.live_keys);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_int_equal(after.entries, before.entries);
    rd_store_close(store);
}

/* ---- Figures ---------------------------------------------------------------------------------------------------- */

enum { HEALINGS = 100000 };

/* One key, which a reader finds damaged again and again, and a writer heals. */
struct healed {
    struct view *view;
    atomic_bool ended;
};

static void *damage(void *argument)
{
    struct healed *healed = argument;
    const struct figures more = {.live_keys = (uint64_t)-1, .damaged_keys = 1};
    while (!atomic_load(&healed->ended)) {
        struct epoch_reader *reader = epoch_enter();
        uint64_t word = index_find(&healed->view->index, 1);
        if ((word & WORD_DAMAGED) == 0)
            (void)view_flag(healed->view, 1, word, WORD_DAMAGED, &more);
        epoch_leave(reader);
    }
    return NULL;
}

static void a_key_is_live_or_damaged_whoever_finds_and_heals_it(void **state)
{
    const char *path = temp_path(state, "s");
    const struct figures first = {.live_keys = 1};
    struct healed healed = {0};
    struct mapping *mapping = NULL;
    struct index index;
    struct file file;
    pthread_t thread;
    size_t met = 0;
    file_save(path, "bytes", 5);
    assert_int_equal(file_open(path, &open_reading, &file), RD_OK);
    assert_int_equal(mapping_create(&file, 5, 1, NULL, &mapping), RD_OK);
    assert_int_equal(index_init(&index), RD_OK);
    index_set(&index, 1, 1);
    assert_int_equal(view_create(mapping, &index, &file, 2, &first, RD_VERIFY_FIRST, &healed.view), RD_OK);
    assert_int_equal(pthread_create(&thread, NULL, damage, &healed), 0);
    for (uint64_t off = 2; off < HEALINGS || met < 10; off++) {
        struct figures more = {0}, now;
        uint64_t tail_off;
        if ((index_set(&healed.view->index, 1, off) & WORD_DAMAGED) != 0) {
            more = (struct figures){.live_keys = 1, .damaged_keys = (uint64_t)-1};
            met++;
        }
        view_count(healed.view, &more, off + 1);
        view_figures(healed.view, &now, &tail_off);
        EXPECT(now.damaged_keys <= 1 && now.live_keys + now.damaged_keys == 1 && tail_off == off + 1,
               "%" PRIu64 " live, %" PRIu64 " damaged", now.live_keys, now.damaged_keys);
    }
    atomic_store(&healed.ended, true);
    pthread_join(thread, NULL);
    view_destroy(healed.view);
    file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(a_batch_is_seen_whole_or_not_at_all_whatever_goes_on),
        TEMP_TEST(so_is_one_of_a_hundred_thousand_keys),
        TEMP_TEST(a_late_recovery_brings_nothing_back_that_was_deleted_meanwhile),
        TEMP_TEST(a_key_is_live_or_damaged_whoever_finds_and_heals_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
