/* Opening a store for writing after a crash: a torn tail is saved and then cut, never the one without the other (E-03),
   and what a crash tore in the middle is superseded. */
#include "base.h"
#include "store_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE     ((size_t)256 << 10)
#define NAMES_MAX 1000 /* torn tails at one offset, each with other bytes */

/* The tail and its way to another file. */
struct torn {
    const struct file *store;
    uint64_t begin_off, end_off;
    mode_t mode;
    uint8_t *piece; /* 2 * PIECE bytes */
};

/* Read all of a piece. */
static rd_err read_piece(int fd, uint8_t *into, size_t len, uint64_t offset)
{
    for (size_t done = 0; done < len;) {
        ssize_t got = pread(fd, into + done, len - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return RD_E_IO;
        if (got == 0) {
            errno = EIO;
            return RD_E_TRUNCATED;
        }
        done += (size_t)got;
    }
    return RD_OK;
}

static size_t piece_len(const struct torn *torn, uint64_t at)
{
    uint64_t left = torn->end_off - at;
    return left < PIECE ? (size_t)left : PIECE;
}

static bool is_zero(const uint8_t *piece, size_t len)
{
    return piece[0] == 0 && memcmp(piece, piece + 1, len - 1) == 0;
}

/* Holes, such as a crash leaves where a file grew, stay holes: they may be larger than the room there is. */
static rd_err copy_tail(const struct torn *torn, const struct file *copy)
{
    for (uint64_t at = torn->begin_off; at < torn->end_off;) {
        struct iovec part = {.iov_base = torn->piece, .iov_len = piece_len(torn, at)};
        size_t len = part.iov_len;
        RD_TRY(read_piece(torn->store->fd, torn->piece, len, at));
        if (at + len == torn->end_off || !is_zero(torn->piece, len))
            RD_TRY(file_write_at(copy, &part, 1, at - torn->begin_off));
        at += len;
    }
    return RD_OK;
}

/* Whether a file holds the very bytes of the tail. */
static bool is_tail(const struct torn *torn, int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != torn->end_off - torn->begin_off)
        return false;
    for (uint64_t at = torn->begin_off; at < torn->end_off;) {
        size_t len = piece_len(torn, at);
        if (read_piece(torn->store->fd, torn->piece, len, at) != RD_OK ||
            read_piece(fd, torn->piece + PIECE, len, at - torn->begin_off) != RD_OK ||
            memcmp(torn->piece, torn->piece + PIECE, len) != 0)
            return false;
        at += len;
    }
    return true;
}

static rd_err sync_copy(const struct file *copy, const char *path)
{
    if (fsync(copy->fd) != 0)
        return errno == ENOSPC || errno == EDQUOT ? RD_E_NO_SPACE : RD_E_SYNC;
    return file_sync_directory(path);
}

/* Have the tail, whole and durable, in the file `path`. Returns: RD_ABSENT the name is taken by other bytes; else as
   opening. A copy that `*out_made` made is removed where it isn't whole. */
static rd_err save_as(const struct torn *torn, const char *path, bool *out_made)
{
    struct file copy = {.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, torn->mode)};
    bool made = copy.fd >= 0;
    if (!made && errno != EEXIST)
        return file_error();
    if (!made)
        copy.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    rd_err err = RD_OK;
    if (made)
        err = copy_tail(torn, &copy);
    else if (copy.fd < 0 || !is_tail(torn, copy.fd))
        err = RD_ABSENT;
    if (err == RD_OK)
        err = sync_copy(&copy, path);
    int saved = errno;
    file_close(&copy);
    if (err != RD_OK && made)
        unlink(path);
    errno = saved;
    *out_made = made;
    return err;
}

__attribute__((format(printf, 3, 4))) static void blame(rd_fault *fault, const struct torn *torn, const char *format,
                                                        ...)
{
    va_list arguments;
    fault->os_error = errno;
    fault->offset = torn->begin_off;
    va_start(arguments, format);
    vsnprintf(fault->text, sizeof(fault->text), format, arguments);
    va_end(arguments);
}

/* Cut what was saved in `saved`, which is removed again where nothing could be cut. */
static rd_err cut(rd_store *store, const struct torn *torn, const char *saved, bool made, rd_fault *fault)
{
    unsigned long long offset = torn->begin_off;
    rd_err err = file_cut(torn->store, torn->begin_off);
    if (err != RD_OK) {
        blame(fault, torn, "%s: cutting the torn tail at offset %llu: %s; nothing was cut: open it read-only",
              store->path, offset, strerror(errno));
        if (made)
            unlink(saved);
        return err;
    }
    err = file_sync(torn->store);
    if (err != RD_OK)
        blame(fault, torn, "%s: syncing after its torn tail at offset %llu was cut: %s; it is saved in %s", store->path,
              offset, strerror(errno), saved);
    return err;
}

/* The first name under which the tail can be, or is, saved; `out_saved` is to be freed. */
static rd_err save(rd_store *store, const struct torn *torn, rd_fault *fault, char **out_saved, bool *out_made)
{
    unsigned long long offset = torn->begin_off;
    for (unsigned number = 0; number < NAMES_MAX; number++) {
        char suffix[64];
        int used = snprintf(suffix, sizeof(suffix), ".torn-%llu", offset);
        if (number > 0)
            snprintf(suffix + used, sizeof(suffix) - (size_t)used, ".%u", number);
        char *path = file_beside(store->path, suffix);
        rd_err err = path != NULL ? save_as(torn, path, out_made) : RD_E_NOMEM;
        if (err == RD_OK) {
            *out_saved = path;
            return RD_OK;
        }
        if (err != RD_ABSENT)
            blame(fault, torn,
                  "%s: saving the torn tail, %llu bytes at offset %llu, beside it as *%s: %s; nothing was cut: make "
                  "room there, or open it read-only",
                  store->path, (unsigned long long)(torn->end_off - torn->begin_off), offset, suffix, strerror(errno));
        free(path);
        if (err != RD_ABSENT)
            return err;
    }
    errno = EEXIST;
    blame(fault, torn, "%s: %d files hold other torn tails of offset %llu; nothing was cut: move them away",
          store->path, NAMES_MAX, offset);
    return RD_E_IO;
}

rd_err torn_save_and_cut(rd_store *store, rd_fault *fault)
{
    struct stat st;
    struct torn torn = {.store = &store->file, .begin_off = store->view->tail_off};
    if (fstat(store->file.fd, &st) != 0) {
        blame(fault, &torn, "%s: %s", store->path, strerror(errno));
        return RD_E_IO;
    }
    torn.end_off = (uint64_t)st.st_size;
    torn.mode = st.st_mode & 0666;
    if (torn.end_off <= torn.begin_off)
        return RD_OK;
    torn.piece = calloc(2, PIECE);
    if (torn.piece == NULL) {
        blame(fault, &torn, "%s: %s", store->path, rd_err_text(RD_E_NOMEM));
        return RD_E_NOMEM;
    }
    char *saved = NULL;
    bool made = false;
    rd_err err = save(store, &torn, fault, &saved, &made);
    if (err == RD_OK)
        err = cut(store, &torn, saved, made, fault);
    free(saved);
    free(torn.piece);
    return err;
}

/* ---- What a crash tore in the middle ----------------------------------------------------------------------------- */

/* Gather the keys whose newest accepted version is older than a torn range that names them; each once. */
static rd_err outdated_keys(const rd_store *store, rd_key *keys, size_t *out_count)
{
    const struct layout *layout = store->view->mapping->layout;
    struct index seen = {.used = 0};
    size_t count = 0;
    RD_TRY(index_init(&seen));
    rd_err err = index_reserve(&seen, (size_t)layout->counts[DAMAGE_TORN]);
    for (size_t i = 0; err == RD_OK && i < layout->damage_count; i++) { /* the latest of a key's ranges comes first */
        const struct damage *damage = &layout->damage[i];
        if (damage->kind != DAMAGE_TORN || !damage->has_key || !index_set_if_new(&seen, damage->key_hash, 1))
            continue;
        uint64_t word = index_find(&store->view->index, damage->key_hash);
        if ((word & WORD_DAMAGED) == 0 && (word == WORD_NONE || word_off(word) < damage->begin_off))
            keys[count++] = (rd_key){.hash = damage->key_hash};
    }
    index_fini(&seen);
    *out_count = count;
    return err;
}

rd_err torn_supersede(rd_store *store)
{
    const struct layout *layout = store->view->mapping->layout;
    size_t count = 0;
    if (layout == NULL || layout->counts[DAMAGE_TORN] == 0)
        return RD_OK;
    rd_key *keys = calloc((size_t)layout->counts[DAMAGE_TORN], sizeof(*keys));
    if (keys == NULL)
        return RD_E_NOMEM;
    struct commit commit = {.keys = keys, .renew = true};
    struct commit *group = &commit;
    rd_err err = outdated_keys(store, keys, &count);
    if (err == RD_OK && count > 0) {
        commit.count = count;
        store_commit(store, &group, 1);
        err = commit.err;
    }
    free(keys);
    return err == RD_OK && count > 0 ? store_sync(store) : err;
}
