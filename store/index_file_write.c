/* Making STORE.idx (I-10, I-11): beside it under another name, whole and synced, then renamed. */
#include "base.h"
#include "guard.h"
#include "index_file.h"
#include "index_file_format.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEW_SUFFIX      ".new"
#define LOOK_FLAGS      (O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
#define OWNER_MODE      0600
#define CLOSING_MIN     UINT64_C(100000) /* I-11: entries that came since the last */
#define CLOSING_SHARE   8u               /* and what share of all */
#define SPREAD_MAX      (INDEX_MARKS_MAX - 2)
#define PIECE_SLOTS_MAX (PIECE_BLOCKS * BLOCK_SLOTS)

struct writing {
    rd_store *store;
    struct view *view; /* nobody puts another in its place meanwhile */
    struct mapping *mapping;
    struct figures figures;
    const char *path;
    char *new_path;
    struct file file; /* under `new_path` */
    uint64_t tail_off;
    const struct layout *layout;
    const struct slot *slots;
    uint8_t *front;
    struct raw_index_head *head;
    struct index_places places;
    struct raw_index_slot *piece;
    uint64_t least_off;          /* trailers: the first that any slot names */
    uint64_t spread[SPREAD_MAX]; /* some of those that slots name: the last in each part of [0, T) */
    size_t few;                  /* how many slots were met, as long as all of them are in `spread` */
    const char *doing;
};

static void writing_fini(struct writing *writing)
{
    file_close(&writing->file);
    free(writing->new_path);
    free(writing->front);
    free(writing->piece);
}

/* ---- what is under a name ---------------------------------------------------------------------------------------- */

/* Whether it is a file that this module has made. `begun`: or had only just begun, so that it is empty. */
static bool is_ours(int fd, bool begun)
{
    struct stat st;
    uint8_t magic[sizeof(INDEX_FILE_MAGIC) - 1];
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    return (begun && st.st_size == 0) || (pread(fd, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) &&
                                          memcmp(magic, INDEX_FILE_MAGIC, sizeof(magic)) == 0);
}

static rd_err check(const char *path, bool begun)
{
    int fd = open(path, LOOK_FLAGS);
    if (fd < 0)
        return errno == ENOENT ? RD_OK : RD_E_IO;
    bool ours = is_ours(fd, begun);
    close(fd);
    errno = EEXIST;
    return ours ? RD_OK : RD_E_IO;
}

rd_err index_file_check(const char *path)
{
    return check(path, false);
}

static rd_err checked_remove(const char *path, bool begun)
{
    RD_TRY(check(path, begun));
    return unlink(path) == 0 || errno == ENOENT ? RD_OK : RD_E_IO;
}

rd_err index_file_remove(const char *path)
{
    return checked_remove(path, false);
}

/* One that was being made when its maker died, unless he lives. */
static rd_err remove_left_over(const struct writing *writing)
{
    int fd = open(writing->new_path, LOOK_FLAGS);
    bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    return locked ? RD_E_LOCKED : checked_remove(writing->new_path, true);
}

static bool is_same_file(const char *path, int fd)
{
    struct stat named;
    struct stat opened;
    return stat(path, &named) == 0 && fstat(fd, &opened) == 0 && named.st_ino == opened.st_ino &&
           named.st_dev == opened.st_dev;
}

static rd_err make_file(struct writing *writing)
{
    writing->doing = "making the file";
    RD_TRY(index_file_check(writing->path));
    if (asprintf(&writing->new_path, "%s" NEW_SUFFIX, writing->path) < 0) {
        writing->new_path = NULL;
        return RD_E_NOMEM;
    }
    int fd = writing->store->file.fd;
    if (is_same_file(writing->path, fd) || is_same_file(writing->new_path, fd)) { /* it may begin with the magic */
        errno = EEXIST;
        return RD_E_IO;
    }
    RD_TRY(remove_left_over(writing));
    writing->file.fd = open(writing->new_path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, OWNER_MODE);
    if (writing->file.fd < 0)
        return file_error();
    if (flock(writing->file.fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? RD_E_LOCKED : RD_E_IO;
    struct stat st; /* who reads the store is to read this, whoever makes it */
    int unchanged = fstat(writing->store->file.fd, &st) == 0 ? fchown(writing->file.fd, st.st_uid, st.st_gid) : -1;
    (void)unchanged;
    struct iovec magic = {.iov_base = INDEX_FILE_MAGIC, .iov_len = sizeof(INDEX_FILE_MAGIC) - 1};
    return file_write_at(&writing->file, &magic, 1, 0); /* so that it is known for what it is from the beginning */
}

/* ---- what is in it ----------------------------------------------------------------------------------------------- */

/* I-05: the last thing below T is an entry; and each key that is damaged has its range, or the damage is news, and
   recovery on its way. */
static bool is_damage_known(const struct writing *writing, uint64_t word)
{
    return (word & WORD_DAMAGED) == 0 || layout_find(writing->layout, word_off(word) + RD_TRAILER_SIZE) != NULL;
}

/* Keep in mind which trailers might be marks. */
static void note_mark(struct writing *writing, uint64_t trailer_off)
{
    if (writing->least_off == 0 || trailer_off < writing->least_off)
        writing->least_off = trailer_off;
    if (writing->few < SPREAD_MAX) {
        writing->spread[writing->few++] = trailer_off;
        return;
    }
    uint64_t part = trailer_off / (writing->tail_off / SPREAD_MAX + 1);
    if (writing->few == SPREAD_MAX) { /* they are not few: begin to choose */
        uint64_t all[SPREAD_MAX];
        memcpy(all, writing->spread, sizeof(all));
        memset(writing->spread, 0, sizeof(writing->spread));
        writing->few = SPREAD_MAX + 1;
        for (size_t i = 0; i < SPREAD_MAX; i++)
            note_mark(writing, all[i]);
    }
    if (trailer_off > writing->spread[part])
        writing->spread[part] = trailer_off;
}

/* One piece of the slots, with nothing in it that is of this opening. */
static rd_err write_piece(struct writing *writing, uint64_t n)
{
    uint64_t len;
    uint64_t offset = index_piece(writing->head, &writing->places, n, &len);
    const struct slot *slots = writing->slots + offset / sizeof(struct slot);
    for (size_t i = 0; i < len / sizeof(struct slot); i++) {
        uint64_t word = atomic_load_explicit(&slots[i].word, memory_order_relaxed) &
                        (WORD_OFFSET_MASK | WORD_TOMBSTONE | WORD_DAMAGED);
        uint64_t hash = word == WORD_NONE ? 0 : atomic_load_explicit(&slots[i].hash, memory_order_relaxed);
        if (!is_damage_known(writing, word))
            return RD_E_DAMAGED;
        if (word != WORD_NONE)
            note_mark(writing, word_off(word));
        store_le64(writing->piece[i].hash, hash);
        store_le64(writing->piece[i].word, word);
    }
    store_le64(writing->front + writing->places.sums_off + n * sizeof(uint64_t), index_sum(writing->piece, len));
    struct iovec part = {.iov_base = writing->piece, .iov_len = (size_t)len};
    return file_write_at(&writing->file, &part, 1, writing->places.slots_off + offset);
}

/* The trailer of the store's first entry: where a chain from one of the first leads. */
static rd_err first_trailer(const struct writing *writing, uint64_t *out_off)
{
    const struct snapshot snapshot = {.mapping = writing->mapping, .tail_off = writing->tail_off};
    uint64_t first_off = writing->store->index_file.first_off;
    uint64_t end_off = writing->least_off + RD_TRAILER_SIZE;
    if (first_off != 0) {
        *out_off = first_off;
        return RD_OK;
    }
    for (;;) {
        struct entry entry;
        const struct damage *damage;
        rd_err err = snapshot_walk(&snapshot, &end_off, &entry, &damage);
        if (err == RD_ABSENT)
            break;
        RD_TRY(err);
        if (damage == NULL)
            first_off = entry.trailer_off;
    }
    *out_off = first_off;
    return first_off != 0 ? RD_OK : RD_E_DAMAGED;
}

static int by_number(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* I-07 */
static rd_err put_marks(struct writing *writing)
{
    uint64_t offs[INDEX_MARKS_MAX] = {0};
    uint32_t count = 0;
    uint64_t before = 0;
    const uint8_t *base = writing->mapping->base;
    memcpy(offs, writing->spread, sizeof(writing->spread));
    offs[SPREAD_MAX] = writing->tail_off - RD_TRAILER_SIZE;
    RD_TRY(first_trailer(writing, &offs[SPREAD_MAX + 1]));
    qsort(offs, INDEX_MARKS_MAX, sizeof(*offs), by_number);
    for (size_t i = 0; i < INDEX_MARKS_MAX; i++) {
        struct raw_index_mark *mark = &writing->head->marks[count];
        if (offs[i] == before)
            continue;
        before = offs[i];
        store_le64(mark->trailer_off, offs[i]);
        if (!rd_copy(mark->trailer, (rd_span){base + offs[i], sizeof(mark->trailer)}))
            return RD_E_TRUNCATED;
        count++;
    }
    store_le32(writing->head->mark_count, count);
    return RD_OK;
}

struct recent {
    const uint8_t *base;
    uint64_t tail_off;
    uint64_t sum;
};

static void recent_leaf(void *argument)
{
    struct recent *recent = argument;
    recent->sum = index_recent_sum(recent->base, recent->tail_off);
}

static rd_err put_recent(struct writing *writing)
{
    struct recent recent = {.base = writing->mapping->base, .tail_off = writing->tail_off};
    if (!guard_run(recent.base, (size_t)recent.tail_off, recent_leaf, &recent))
        return RD_E_TRUNCATED;
    store_le64(writing->head->recent, recent.sum);
    return RD_OK;
}

static void put_layout(struct writing *writing)
{
    const struct layout *layout = writing->layout;
    struct raw_index_damage *raw = (void *)(writing->front + writing->places.damage_off);
    uint8_t *provisional = writing->front + writing->places.provisional_off;
    for (size_t i = 0; layout != NULL && i < layout->damage_count; i++) {
        const struct damage *damage = &layout->damage[i];
        store_le64(raw[i].begin_off, damage->begin_off);
        store_le64(raw[i].end_off, damage->end_off);
        store_le64(raw[i].key_hash, damage->has_key ? damage->key_hash : 0);
        raw[i].kind = damage->kind;
        raw[i].has_key = damage->has_key;
    }
    for (size_t i = 0; layout != NULL && i < layout->provisional_count; i++)
        store_le64(provisional + i * sizeof(uint64_t), layout->provisional[i]);
}

/* All of the front but marks and sums, which come with the slots. */
static rd_err make_front(struct writing *writing)
{
    rd_store *store = writing->store;
    struct raw_index_head head = {.magic = INDEX_FILE_MAGIC};
    struct index_image image;
    struct stat st;
    struct writer_said said;
    rd_err fitted = index_fit(&writing->view->index);
    (void)fitted; /* it saves space */
    writing->slots = index_image(&writing->view->index, &image);
    if (fstat(store->file.fd, &st) != 0)
        return RD_E_IO;
    store_le32(head.version, INDEX_FILE_VERSION);
    store_le64(head.tail_off, writing->tail_off);
    store_le64(head.secret, image.secret);
    store_le64(head.used, image.used);
    store_le32(head.blocks_log2, image.blocks_log2);
    store_le32(head.block_slots, image.block_slots);
    store_le64(head.entries, writing->figures.entries);
    store_le64(head.live_keys, writing->figures.live_keys);
    store_le64(head.live_bytes, writing->figures.live_bytes);
    store_le64(head.live_stored, writing->figures.live_stored);
    store_le64(head.damaged_keys, writing->figures.damaged_keys);
    store_le64(head.damage_count, writing->layout != NULL ? writing->layout->damage_count : 0);
    store_le64(head.provisional_count, writing->layout != NULL ? writing->layout->provisional_count : 0);
    store_le64(head.writer, index_file_writer(store->path, (uint64_t)st.st_ino, &said));
    store_le64(head.made_of, index_made_of(&st));
    store_le64(head.modified_ns, index_modified_ns(&st));
    RD_REQUIRE(index_places_of(&head, &writing->places));
    store_le64(head.file_len, writing->places.file_len);
    writing->front = calloc(1, (size_t)writing->places.slots_off);
    writing->piece = malloc(PIECE_SLOTS_MAX * sizeof(*writing->piece));
    if (writing->front == NULL || writing->piece == NULL)
        return RD_E_NOMEM;
    writing->head = (struct raw_index_head *)writing->front;
    *writing->head = head;
    put_layout(writing);
    return put_recent(writing);
}

static rd_err write_all(struct writing *writing)
{
    writing->doing = "writing the file";
    RD_TRY(make_front(writing));
    for (uint64_t n = 0; n < writing->places.pieces; n++)
        RD_TRY(write_piece(writing, n));
    RD_TRY(put_marks(writing));
    store_le64(writing->head->checksum, index_front_sum(writing->front, &writing->places));
    struct iovec part = {.iov_base = writing->front, .iov_len = (size_t)writing->places.slots_off};
    return file_write_at(&writing->file, &part, 1, 0);
}

/* ---- one after the other ----------------------------------------------------------------------------------------- */

static rd_err put_in_place(struct writing *writing)
{
    writing->doing = "syncing the file";
    if (fsync(writing->file.fd) != 0)
        return file_error();
    writing->doing = "putting the file in place";
    if (!is_same_file(writing->new_path, writing->file.fd))
        return RD_E_LOCKED; /* another took the name */
    if (rename(writing->new_path, writing->path) != 0)
        return file_error();
    writing->doing = "syncing the directory, after the file was put in place";
    return file_sync_directory(writing->path);
}

/* I-10: the store must be durable up to T, and be the file that its path names. */
static rd_err check_store(struct writing *writing)
{
    const rd_store *store = writing->store;
    writing->doing = "looking at the store";
    if (writing->figures.entries == 0)
        return RD_ABSENT;
    if (layout_find(writing->layout, writing->tail_off) != NULL)
        return RD_E_DAMAGED;
    if (!is_same_file(store->path, store->file.fd)) {
        errno = ESTALE;
        return RD_E_IO;
    }
    writing->doing = "syncing the store";
    return file_sync(&store->file);
}

rd_err index_file_write(rd_store *store, const char *path, const char **out_doing, rd_indexed *out_done)
{
    struct writing writing = {.store = store, .path = path, .view = store->view, .file = {.fd = -1}};
    writing.mapping = writing.view->mapping;
    writing.layout = writing.mapping->layout;
    view_figures(writing.view, &writing.figures, &writing.tail_off);
    rd_err err = check_store(&writing);
    if (err == RD_OK)
        err = make_file(&writing);
    if (err == RD_OK)
        err = write_all(&writing);
    if (err == RD_OK)
        err = put_in_place(&writing);
    int saved = errno;
    if (err != RD_OK && writing.new_path != NULL && writing.file.fd >= 0 &&
        is_same_file(writing.new_path, writing.file.fd))
        unlink(writing.new_path);
    if (err == RD_OK)
        *out_done = (rd_indexed){
            .keys = load_le64(writing.head->used), .bytes = writing.places.file_len, .covered_bytes = writing.tail_off};
    *out_doing = writing.doing;
    writing_fini(&writing);
    errno = saved;
    return err;
}

void index_file_closing(rd_store *store)
{
    const struct index_file *file = &store->index_file;
    struct figures figures;
    uint64_t tail_off;
    view_figures(store->view, &figures, &tail_off);
    uint64_t since = figures.entries > file->entries ? figures.entries - file->entries : 0;
    uint64_t least = store->options.index_after;
    const char *doing;
    rd_indexed done;
    if (least == 0)
        least = figures.entries / CLOSING_SHARE > CLOSING_MIN ? figures.entries / CLOSING_SHARE : CLOSING_MIN;
    if (file->path == NULL || since < least || (store->unsynced && store_sync(store) != RD_OK))
        return;
    rd_err err = index_file_write(store, file->path, &doing, &done);
    (void)err; /* the next opening reads the store instead */
}
