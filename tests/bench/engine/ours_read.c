/* Our engine: reading. */
#include "child.h"
#include "ours.h"
#include "shape.h"

#include <stdlib.h>

rd_store *ours_open_store(const char *path, const rd_open_options *options)
{
    rd_store *store;
    rd_fault fault;
    if (rd_store_open(path, options, &fault, &store) != RD_OK)
        die("%s", fault.text);
    return store;
}

static rd_store *open_reading(const struct job *job, const char *index)
{
    rd_open_options options = {.verify = job->verify, .index = index};
    rd_store *store = ours_open_store(job->path, &options);
    CHECK(rd_store_len(store) == job->keys);
    return store;
}

uint64_t ours_read_one(rd_store *store, uint64_t i)
{
    char key[KEY_LEN_MAX];
    rd_entry entry;
    rd_span span = {key, key_format(key, i)};
    rd_err err = rd_store_read(store, span, &entry);
    if (err != RD_OK)
        die("key %llu: %s", (unsigned long long)i, rd_err_text(err));
    CHECK(entry.payload.len == VALUE_LEN);
    uint64_t value = hidden(value_load(entry.payload.data));
    CHECK(value == i);
    rd_entry_release(&entry);
    return hidden(value);
}

static uint64_t random_reads(rd_store *store, uint64_t keys, uint64_t count, uint64_t seed)
{
    uint64_t state = seed, began = busy_ns();
    for (uint64_t i = 0; i < count; i++)
        ours_read_one(store, pick_below(&state, keys));
    return busy_ns() - began;
}

/* Each pick waits for the value before it, so that no processor looks up two keys at once. */
static uint64_t chained_reads(rd_store *store, uint64_t keys, uint64_t count)
{
    uint64_t state = PICK_SEED, began = busy_ns();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t pick = pick_below(&state, keys);
        state += ours_read_one(store, pick) - pick;
    }
    return busy_ns() - began;
}

static void read_batch(rd_store *store, uint64_t first, size_t count)
{
    char keys[BATCH][KEY_LEN_MAX];
    rd_span spans[BATCH];
    rd_batch_item items[BATCH];
    CHECK(count > 0 && count <= BATCH);
    for (size_t i = 0; i < count; i++)
        spans[i] = (rd_span){keys[i], key_format(keys[i], first + i)};
    CHECK(rd_store_batch_read(store, spans, count, items) == RD_OK);
    for (size_t i = 0; i < count; i++) {
        CHECK(items[i].err == RD_OK && items[i].entry.payload.len == VALUE_LEN);
        CHECK(value_load(items[i].entry.payload.data) == first + i);
    }
    rd_batch_release(items, count);
}

/* Ascending keys, from 0 again at the end, as the crate's benchmark has it. */
static uint64_t batch_reads(rd_store *store, uint64_t keys, uint64_t count)
{
    uint64_t began = busy_ns(), first = 0;
    for (uint64_t done = 0; done < count;) {
        uint64_t left = keys - first < count - done ? keys - first : count - done;
        size_t here = left < BATCH ? (size_t)left : BATCH;
        read_batch(store, first, here);
        done += here;
        first = (first + here) % keys;
    }
    return busy_ns() - began;
}

static uint64_t iterate(rd_store *store, uint64_t keys)
{
    uint64_t began = busy_ns(), left = keys;
    rd_iter *iter;
    rd_entry entry;
    CHECK(rd_iter_create(store, &iter) == RD_OK);
    while (rd_iter_next(iter, &entry) == RD_OK) {
        CHECK(entry.payload.len == VALUE_LEN);
        CHECK(value_load(entry.payload.data) == --left);
    }
    CHECK(left == 0);
    rd_iter_destroy(iter);
    return busy_ns() - began;
}

void ours_reads(const struct job *job)
{
    rd_store *store = open_reading(job, "off");
    print_figure("random_ns", (double)random_reads(store, job->keys, job->count, PICK_SEED) / (double)job->count);
    print_figure("chained_ns", (double)chained_reads(store, job->keys, job->count) / (double)job->count);
    print_figure("batch_ns", (double)batch_reads(store, job->keys, job->count) / (double)job->count);
    print_figure("iterate_ns", (double)iterate(store, job->keys) / (double)job->keys);
    rd_store_close(store);
}

struct reader {
    rd_store *store;
    const struct job *job;
    uint64_t seed;
};

static void *reader_run(void *arg)
{
    struct reader *reader = arg;
    random_reads(reader->store, reader->job->keys, reader->job->count, reader->seed);
    return NULL;
}

void ours_threads(const struct job *job)
{
    rd_store *store = open_reading(job, "off");
    struct reader readers[2] = {{store, job, PICK_SEED}, {store, job, PICK_SEED + 1}};
    print_scaling(reader_run, readers, sizeof readers[0]);
    rd_store_close(store);
}

static void time_open(const struct job *job, const char *index, rd_index_source source)
{
    double before = memory_anonymous();
    uint64_t began = now_ns(), busy = process_busy_ns();
    rd_store *store = open_reading(job, index);
    print_figure("open_ns", (double)(now_ns() - began));
    print_figure("open_busy_ns", (double)(process_busy_ns() - busy));
    rd_store_info info;
    CHECK(rd_store_info_get(store, &info) == RD_OK);
    if (info.index_source != source)
        die("%s: %s", job->path, rd_index_text(info.index_source));
    print_figure("index_bytes", (double)info.index_bytes / (double)job->keys);
    print_figure("memory_bytes", (memory_anonymous() - before) / (double)job->keys);
    ours_read_one(store, job->keys / 2);
    rd_store_close(store);
}

void ours_open(const struct job *job)
{
    time_open(job, "off", RD_INDEX_OFF);
}

void ours_snapshot(const struct job *job)
{
    time_open(job, "auto", RD_INDEX_SNAPSHOT);
}

/* Not a measurement: makes what the one above reads. */
void ours_save_index(const struct job *job)
{
    rd_store *store = open_reading(job, "off");
    char path[4096 + 8];
    rd_fault fault;
    rd_indexed indexed;
    CHECK(snprintf(path, sizeof path, "%s" INDEX_SUFFIX, job->path) < (int)sizeof path);
    if (rd_store_save_index(store, path, &fault, &indexed) != RD_OK)
        die("%s", fault.text);
    rd_store_close(store);
}
