/* Our engine: writing. */
#include "child.h"
#include "ours.h"
#include "shape.h"

rd_store *ours_create(const char *path, rd_sync sync)
{
    rd_open_options options = {.writable = true, .create = true, .sync = sync, .index = "off"};
    return ours_open_store(path, &options);
}

void ours_write_batches(rd_store *store, uint64_t first, uint64_t last, uint64_t offset, ours_written *after, void *arg)
{
    char key[KEY_LEN_MAX];
    uint64_t values[BATCH];
    rd_write_item items[BATCH];
    rd_written written;
    for (uint64_t done = first; done < last;) {
        size_t here = last - done < BATCH ? (size_t)(last - done) : BATCH;
        for (size_t i = 0; i < here; i++) {
            rd_span span = {key, key_format(key, done + i)};
            values[i] = done + i + offset;
            items[i] = (rd_write_item){rd_hash(span), {&values[i], VALUE_LEN}};
        }
        CHECK(rd_store_batch_write(store, items, here, &written) == RD_OK);
        done += here;
        if (after != NULL)
            after(arg, done);
    }
}

void ours_make_store(const char *path, uint64_t keys)
{
    rd_store *store = ours_create(path, RD_SYNC_NONE);
    ours_write_batches(store, 0, keys, 0, NULL, NULL);
    rd_store_close(store);
}

void ours_make(const struct job *job)
{
    rd_store *store = ours_create(job->path, RD_SYNC_NONE);
    uint64_t began = now_ns(), busy = process_busy_ns();
    ours_write_batches(store, 0, job->keys, 0, NULL, NULL);
    print_figure("write_ns", (double)(now_ns() - began) / (double)job->keys);
    print_figure("write_busy_ns", (double)(process_busy_ns() - busy) / (double)job->keys);
    CHECK(rd_store_len(store) == job->keys);
    ours_read_one(store, job->keys - 1);
    rd_store_close(store);
}

struct writer {
    rd_store *store;
    uint64_t first, count;
    size_t value_len;
    bool durable;
};

static void *writer_run(void *arg)
{
    struct writer *writer = arg;
    char key[KEY_LEN_MAX];
    uint64_t value[LARGE_LEN / sizeof(uint64_t)] = {0};
    rd_written written;
    for (uint64_t i = writer->first; i < writer->first + writer->count; i++) {
        rd_span span = {key, key_format(key, i)}, payload = {value, writer->value_len};
        value[0] = i;
        CHECK(rd_store_write(writer->store, span, payload, &written) == RD_OK);
        CHECK(written.durable == writer->durable);
    }
    return NULL;
}

/* Returns: nanoseconds a write. */
static double write_with(rd_store *store, size_t threads, uint64_t first, uint64_t each, size_t value_len, bool durable)
{
    struct writer writers[WRITERS_SYNC];
    for (size_t i = 0; i < threads; i++)
        writers[i] = (struct writer){store, first + i * each, each, value_len, durable};
    struct took took = threads_run(threads, writer_run, writers, sizeof writers[0]);
    return (double)took.ns / (double)(threads * each);
}

/* `keys` by each of eight threads. */
void ours_singles(const struct job *job)
{
    rd_store *store = ours_create(job->path, RD_SYNC_NONE);
    print_figure("write_ns", write_with(store, WRITERS_LARGE, 0, job->keys, LARGE_LEN, false));
    CHECK(rd_store_len(store) == WRITERS_LARGE * job->keys);
    rd_store_close(store);
}

/* `keys` by one thread, then `count` by each of 64. */
void ours_durable(const struct job *job)
{
    rd_store *store = ours_create(job->path, RD_SYNC_ALWAYS);
    double one = write_with(store, 1, 0, job->keys, VALUE_LEN, true);
    double many = write_with(store, WRITERS_SYNC, job->keys, job->count, VALUE_LEN, true);
    CHECK(rd_store_len(store) == job->keys + WRITERS_SYNC * job->count);
    for (uint64_t i = 0; i < job->keys; i++)
        ours_read_one(store, i);
    print_figure("one_ns", one);
    print_figure("many_ns", many);
    print_figure("gain", one / many);
    rd_store_close(store);
}
