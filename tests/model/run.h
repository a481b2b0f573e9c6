/**
 * The model test's parts: two stores, what the model says of each, and a seed that decides all else.
 *
 * Caveat first: a check that fails prints the seed and the operation's number and ends the process.
 */
#ifndef RDRIVE_TESTS_RUN_H
#define RDRIVE_TESTS_RUN_H

#include "folder.h"
#include "image.h"

#define KEY_COUNT 400
#define HELD_MAX  12

struct key {
    uint64_t hash;
    char bytes[24];
    size_t len;
    bool hash_only; /* its hash stands for no key: calls that take keys leave it out */
};

/* An entry that is kept while the store changes under it. */
struct held {
    rd_entry entry;
    uint8_t *copy;
};

/* One store, and what it must say. */
struct side {
    char path[FOLDER_MAX + 8];
    rd_store *store;
    rd_open_options options;
    struct image image;          /* the file's bytes */
    ptrdiff_t newest[KEY_COUNT]; /* which entry of the image; -1: none */
    uint64_t generation;
    struct held held[HELD_MAX];
};

struct run {
    uint64_t seed, random;
    uint64_t op_idx, op_count;
    const char *op_name;
    char folder[FOLDER_MAX];
    struct key keys[KEY_COUNT];
    uint64_t sorted[KEY_COUNT]; /* the keys' hashes, to find one by its hash */
    size_t sorted_key[KEY_COUNT];
    struct side sides[2];
    uint8_t *pool; /* POOL_LEN random bytes, from which payloads are cut */
    uint64_t damaged_phases, compactions, reopens;
};

#define POOL_LEN ((size_t)4 << 20)

extern struct run run;

__attribute__((noreturn, format(printf, 3, 4))) void run_fail(const char *file, int line, const char *format, ...);

#define CHECK(cond, ...)                                                                                               \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            run_fail(__FILE__, __LINE__, __VA_ARGS__);                                                                 \
    } while (0)
#define CHECK_OK(call)                                                                                                 \
    do {                                                                                                               \
        rd_err check_err = (call);                                                                                     \
        CHECK(check_err == RD_OK, "%s: %s", #call, rd_err_text(check_err));                                            \
    } while (0)

/* ---- run.c ---- */
void run_init(uint64_t seed);
void run_fini(void);
uint64_t run_random(void);
size_t run_below(size_t bound);
static inline bool run_chance(size_t one_in)
{
    return run_below(one_in) == 0;
}

rd_span run_file(const char *path); /* to be freed */
void run_save(const char *path, rd_span bytes);
static inline rd_span run_key(size_t key)
{
    return (rd_span){run.keys[key].bytes, run.keys[key].len};
}
ptrdiff_t run_key_of(uint64_t hash); /* -1: none of ours */

/* ---- side.c: the model's half of each operation ---- */
void side_open(struct side *side, const rd_open_options *options);
/* Sync where asked to, close, and check that the file is the image. */
void side_close(struct side *side, bool sync);
void side_adopt(struct side *side); /* the image was replaced: find each key's newest entry */
bool side_is_live(const struct side *side, size_t key);
rd_span side_value(const struct side *side, size_t key);
void side_wrote(struct side *side, size_t key, rd_span payload);
void side_deleted(struct side *side, size_t key);
void side_check_written(const struct side *side, const rd_written *written);
/* That `entry` is the key's newest value. */
void side_check_entry(const struct side *side, size_t key, rd_err err, const rd_entry *entry);
void side_check_file(const struct side *side);
void side_check_info(struct side *side);
void side_check_iteration(struct side *side);
void side_hold(struct side *side, rd_entry *entry);
void side_release_all(struct side *side);

/* ---- operations ---- */
typedef void operation(struct side *side);
operation op_write, op_write_hash, op_write_batch, op_delete, op_delete_batch, op_rename, op_copy, op_move, op_stream;
operation op_read, op_read_hash, op_read_batch, op_read_hashed, op_read_last, op_iterate, op_info, op_sync, op_hold;
operation op_reopen, op_read_only, op_verify, op_compact, op_shrink, op_damage;

#endif
