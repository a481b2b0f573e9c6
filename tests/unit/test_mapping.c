/* A mapping stays as long as anybody holds a pin of it, of whatever share and on whatever thread; then it goes. */
#include "store_internal.h"

#include "compacting.h"
#include "parked.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How often a file is mapped: also one that a compaction has replaced, of which the system says that it is deleted. */
static size_t mapped_count(void **state)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    const char *folder = temp_path(state, "");
    char *line = NULL;
    size_t capacity = 0, count = 0;
    EXPECT(maps != NULL, "no /proc/self/maps");
    while (getline(&line, &capacity, maps) > 0)
        count += strstr(line, folder) != NULL;
    free(line);
    fclose(maps);
    return count;
}

/* ---- By itself -------------------------------------------------------------------------------------------------- */

static struct mapping *mapping_of_file(void **state)
{
    struct mapping *mapping = NULL;
    const char *path = temp_path(state, "s");
    file_save(path, "bytes", 5);
    const rd_open_options options = {0};
    struct file file;
    EXPECT(file_open(path, &options, &file) == RD_OK, "%s", path);
    EXPECT(mapping_create(&file, 5, 1, NULL, &mapping) == RD_OK, "%s", path);
    file_close(&file);
    return mapping;
}

static void a_mapping_goes_with_the_last_pin_of_any_share(void **state)
{
    for (unsigned last = 0; last < PIN_SHARES; last += 5) {
        struct mapping *mapping = mapping_of_file(state);
        struct pin *pins[3 * PIN_SHARES];
        for (unsigned i = 0; i < 3 * PIN_SHARES; i++)
            pins[i] = mapping_pin(mapping, i); /* numbers beyond the shares take part in these */
        assert_ptr_equal(pins[last], pins[last + 2 * PIN_SHARES]);
        mapping_release(mapping);
        for (unsigned i = 0; i < 3 * PIN_SHARES; i++)
            if (i != last)
                pin_return(pins[i], 1);
        assert_int_equal(mapped_count(state), 1);
        assert_memory_equal(mapping->base, "bytes", 5);
        pin_more(pins[last], 4);
        pin_return(pins[last], 3);
        assert_int_equal(mapped_count(state), 1);
        pin_return(pins[last], 2);
        assert_int_equal(mapped_count(state), 0);
    }
}

static void a_mapping_without_pins_goes_as_it_is_released(void **state)
{
    struct mapping *mapping = mapping_of_file(state);
    pin_return(mapping_pin(mapping, 7), 1);
    assert_int_equal(mapped_count(state), 1);
    mapping_release(mapping);
    assert_int_equal(mapped_count(state), 0);
    mapping_release(NULL);
    pin_return(NULL, 1);
}

/* ---- Of a store ------------------------------------------------------------------------------------------------- */

static void a_superseded_file_stays_mapped_up_to_its_last_entry(void **state)
{
    rd_store *store = store_make(state, "s");
    rd_entry entries[3] = {0};
    rd_iter *iter = NULL;
    for (size_t i = 0; i < 3; i++) {
        store_put(store, "key", &i, sizeof i);
        assert_int_equal(rd_store_read(store, text_span("key"), &entries[i]), RD_OK);
        compact_ok(store);
        assert_int_equal(mapped_count(state), i + 2);
    }
    assert_int_equal(rd_iter_create(store, &iter), RD_OK);
    compact_ok(store);
    assert_int_equal(mapped_count(state), 5); /* the iterator's, too */
    for (size_t i = 0; i < 3; i++)
        assert_true(span_equal(entries[i].payload, &i, sizeof i));
    rd_entry_release(&entries[1]);
    assert_int_equal(mapped_count(state), 4);
    rd_iter_destroy(iter);
    rd_entry_release(&entries[0]);
    assert_int_equal(mapped_count(state), 2);
    size_t last = 2;
    assert_true(span_equal(entries[2].payload, &last, sizeof last));
    rd_entry_release(&entries[2]);
    assert_int_equal(mapped_count(state), 1);
    rd_store_close(store);
    assert_int_equal(mapped_count(state), 0);
}

/* Each reads on a thread of its own; all of them are there at once. */
enum { THREADS = PIN_SHARES + 9, KEYS = 20 };

struct taker {
    rd_store *store;
    pthread_barrier_t *together;
    pthread_t thread;
    rd_batch_item items[KEYS];
    struct taker *other; /* gives back half of what this took, where not NULL */
    bool failed;
};

static void *take_entries(void *argument)
{
    struct taker *taker = argument;
    uint64_t hashes[KEYS];
    for (uint64_t i = 0; i < KEYS; i++)
        hashes[i] = fill_hash(i);
    taker->failed = rd_store_batch_read_hashed(taker->store, hashes, NULL, KEYS, taker->items) != RD_OK;
    pthread_barrier_wait(taker->together);
    for (size_t i = 0; i < KEYS; i += 2)
        rd_entry_release(&taker->other->items[i].entry);
    return NULL;
}

static void entries_of_more_threads_than_shares_keep_their_file_and_give_it_back(void **state)
{
    rd_store *store = store_make(state, "s");
    static struct taker takers[THREADS];
    pthread_barrier_t together;
    store_fill(store, 0, 100);
    assert_int_equal(pthread_barrier_init(&together, NULL, THREADS), 0);
    for (size_t i = 0; i < THREADS; i++) {
        takers[i] = (struct taker){.store = store, .together = &together, .other = &takers[(i + 1) % THREADS]};
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take_entries, &takers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(takers[i].thread, NULL);
        assert_false(takers[i].failed);
    }
    compact_ok(store);
    for (size_t i = 0; i < THREADS; i++) {
        for (uint64_t k = 1; k < KEYS; k += 2) {
            uint64_t value = htole64(k);
            assert_int_equal(mapped_count(state), 2);
            assert_true(span_equal(takers[i].items[k].entry.payload, &value, sizeof value));
            rd_entry_release(&takers[i].items[k].entry);
        }
    }
    assert_int_equal(mapped_count(state), 1);
    pthread_barrier_destroy(&together);
    rd_store_close(store);
    assert_int_equal(mapped_count(state), 0);
}

/* ---- A view that is superseded ---------------------------------------------------------------------------------- */

/* Who waits for readers sleeps in between. The first time, the reader is looked after, and leaves. */
static struct {
    void **state;
    struct parked parked;
    const struct view *view;
    bool waiting, intact;
} watch;
int __real_nanosleep(const struct timespec *duration, struct timespec *rest);
int __wrap_nanosleep(const struct timespec *duration, struct timespec *rest);

int __wrap_nanosleep(const struct timespec *duration, struct timespec *rest)
{
    if (watch.waiting) {
        watch.waiting = false;
        watch.intact = mapped_count(watch.state) == 2 && index_find(&watch.view->index, fill_hash(7)) != WORD_NONE;
        parked_leave(&watch.parked);
    }
    return __real_nanosleep(duration, rest);
}

static void a_superseded_view_stays_until_nobody_reads_there(void **state)
{
    rd_store *store = store_make(state, "s");
    store_fill(store, 0, 100);
    for (int way = 0; way < 2; way++) {
        watch.state = state;
        parked_enter(&watch.parked);
        watch.view = atomic_load(&store->view);
        watch.intact = false;
        watch.waiting = true;
        if (way == 0)
            compact_ok(store);
        else
            assert_int_equal(store_recover_again(store, NULL), RD_OK);
        assert_false(watch.waiting);
        assert_true(watch.intact);
        assert_ptr_not_equal(watch.view, atomic_load(&store->view));
        assert_int_equal(mapped_count(state), 1);
    }
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(a_mapping_goes_with_the_last_pin_of_any_share),
        TEMP_TEST(a_mapping_without_pins_goes_as_it_is_released),
        TEMP_TEST(a_superseded_file_stays_mapped_up_to_its_last_entry),
        TEMP_TEST(a_superseded_view_stays_until_nobody_reads_there),
        TEMP_TEST(entries_of_more_threads_than_shares_keep_their_file_and_give_it_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
