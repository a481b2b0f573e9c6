#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- A temporary folder a test ---------------------------------------------------------------------------------- */

#define TEMP_PATHS_MAX 32

struct temp {
    char dir[64];
    char *paths[TEMP_PATHS_MAX];
};

int temp_setup(void **state)
{
    struct temp *temp = calloc(1, sizeof *temp);
    if (temp == NULL)
        return -1;
    strcpy(temp->dir, "/tmp/rdrive-unit-XXXXXX");
    if (mkdtemp(temp->dir) == NULL) {
        free(temp);
        return -1;
    }
    (void)sum_crc32("", 0);
    *state = temp;
    return 0;
}

static int temp_remove(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat;
    (void)type;
    (void)ftw;
    return remove(path);
}

int temp_teardown(void **state)
{
    struct temp *temp = *state;
    int failed = nftw(temp->dir, temp_remove, 16, FTW_DEPTH | FTW_PHYS);
    for (size_t i = 0; i < TEMP_PATHS_MAX; i++)
        free(temp->paths[i]);
    free(temp);
    return failed;
}

const char *temp_path(void **state, const char *name)
{
    struct temp *temp = *state;
    char *path = NULL;
    EXPECT(asprintf(&path, "%s/%s", temp->dir, name) > 0, "%s", name);
    for (size_t i = 0; i < TEMP_PATHS_MAX; i++) {
        if (temp->paths[i] != NULL && strcmp(temp->paths[i], path) == 0) {
            free(path);
            return temp->paths[i];
        }
        if (temp->paths[i] == NULL)
            return temp->paths[i] = path;
    }
    support_fail(__FILE__, __LINE__, "a free place", "a test names at most %d files", TEMP_PATHS_MAX);
}

size_t temp_count(void **state)
{
    struct temp *temp = *state;
    size_t count = 0;
    DIR *dir = opendir(temp->dir);
    EXPECT(dir != NULL, "%s: %s", temp->dir, strerror(errno));
    for (struct dirent *at = readdir(dir); at != NULL; at = readdir(dir))
        count += strcmp(at->d_name, ".") != 0 && strcmp(at->d_name, "..") != 0;
    closedir(dir);
    return count;
}

/* ---- Stores ----------------------------------------------------------------------------------------------------- */

const rd_open_options open_reading = {.verify = RD_VERIFY_FIRST};
const rd_open_options open_writing = {.writable = true, .sync = RD_SYNC_NONE};
const rd_open_options open_making = {.writable = true, .create = true, .sync = RD_SYNC_NONE};

rd_store *store_open_ok(const char *path, const rd_open_options *options)
{
    rd_fault fault = {0};
    rd_store *store = NULL;
    rd_err err = rd_store_open(path, options, &fault, &store);
    EXPECT(err == RD_OK, "open %s: %s (%s)", path, rd_err_text(err), fault.text);
    EXPECT(store != NULL, "open %s", path);
    return store;
}

void store_open_fails(const char *path, const rd_open_options *options, rd_err want)
{
    rd_fault fault = {0};
    rd_store *store = NULL;
    rd_err err = rd_store_open(path, options, &fault, &store);
    EXPECT(err == want, "open %s: %s instead of %s (%s)", path, rd_err_text(err), rd_err_text(want), fault.text);
    EXPECT(store == NULL, "open %s: outputs are written only on success", path);
    EXPECT(memchr(fault.text, '\0', sizeof fault.text) != NULL && fault.text[0] != '\0', "open %s: %s", path,
           rd_err_text(want));
    EXPECT(strchr(fault.text, '\n') == NULL, "open %s: one line, not: %s", path, fault.text);
}

rd_store *store_make(void **state, const char *name)
{
    return store_open_ok(temp_path(state, name), &open_making);
}

rd_store_info store_info(rd_store *store)
{
    rd_store_info info = {0};
    rd_err err = rd_store_info_get(store, &info);
    EXPECT(err == RD_OK, "info: %s", rd_err_text(err));
    return info;
}

rd_written store_put(rd_store *store, const char *key, const void *payload, size_t len)
{
    rd_written done = {0};
    rd_err err = rd_store_write(store, text_span(key), (rd_span){payload, len}, &done);
    EXPECT(err == RD_OK, "write %s: %s", key, rd_err_text(err));
    return done;
}

uint64_t fill_hash(uint64_t number)
{
    char key[32];
    snprintf(key, sizeof key, "key-%llu", (unsigned long long)number);
    return rd_hash(text_span(key));
}

void store_fill(rd_store *store, uint64_t first, uint64_t count)
{
    enum { BATCH = 1000 };
    uint64_t *values = calloc(BATCH, sizeof *values);
    rd_write_item *items = calloc(BATCH, sizeof *items);
    EXPECT(values != NULL && items != NULL, "no memory");
    for (uint64_t done = 0; done < count;) {
        size_t batch = 0;
        for (; batch < BATCH && done < count; batch++, done++) {
            values[batch] = htole64(first + done);
            items[batch] = (rd_write_item){fill_hash(first + done), {&values[batch], sizeof values[batch]}};
        }
        rd_written written;
        rd_err err = rd_store_batch_write(store, items, batch, &written);
        EXPECT(err == RD_OK, "fill at %llu: %s", (unsigned long long)(first + done), rd_err_text(err));
    }
    free(items);
    free(values);
}

void store_expect(rd_store *store, uint64_t key_hash, const void *payload, size_t len)
{
    rd_entry entry = {0};
    rd_err err = rd_store_read_hash(store, key_hash, &entry);
    EXPECT(err == RD_OK, "read %016llx: %s", (unsigned long long)key_hash, rd_err_text(err));
    EXPECT(span_equal(entry.payload, payload, len), "read %016llx: %zu bytes", (unsigned long long)key_hash,
           entry.payload.len);
    EXPECT(entry.meta.key_hash == key_hash && !entry.meta.tombstone, "read %016llx", (unsigned long long)key_hash);
    rd_entry_release(&entry);
    EXPECT(entry.pin == NULL && entry.payload.len == 0, "release empties the entry");
}

void store_expect_absent(rd_store *store, uint64_t key_hash)
{
    rd_entry entry = {0};
    rd_err err = rd_store_read_hash(store, key_hash, &entry);
    EXPECT(err == RD_ABSENT, "read %016llx: %s", (unsigned long long)key_hash, rd_err_text(err));
    EXPECT(rd_store_exists_hash(store, key_hash) == RD_ABSENT, "exists %016llx", (unsigned long long)key_hash);
}
