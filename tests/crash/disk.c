/* The model of the disk: what each file and the folder hold, what of it is durable, and what may be left. */
#include "disk_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR      ((uint64_t)512)
#define NAMES_MAX   64
#define HANDLES_MAX 1024
#define CALLS_MAX   4096
#define RECENT_MAX  256

struct name {
    char text[DISK_NAME_MAX];
    struct inode *inode;
};

struct names {
    struct name at[NAMES_MAX];
    size_t count;
};

static struct {
    pthread_mutex_t lock;
    char folder[PATH_MAX]; /* "": there is no disk */
    struct inode **inodes;
    size_t inode_count, inode_capacity;
    struct names live, durable;
    struct renaming *renamings;
    size_t renaming_count, renaming_capacity;
    struct handle handles[HANDLES_MAX];
    bool off;
    struct rng rng;

    struct {
        struct inode *inode;
        uint64_t offset;
        struct buffer bytes;
    } cut;

    bool armed;
    struct fault fault;
    uint64_t call_count;
    enum disk_call calls[CALLS_MAX];
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Real inode numbers and ours, of the files made last. The disk's own are in their inodes too. */
static struct {
    ino_t real;
    uint64_t number;
} recent[RECENT_MAX];
static size_t recent_count;
static uint64_t number_next = 1;

void disk_lock(void)
{
    pthread_mutex_lock(&disk.lock);
}

void disk_unlock(void)
{
    pthread_mutex_unlock(&disk.lock);
}

/* ---- Numbers of files ---- */

static void number_set(ino_t real, uint64_t number)
{
    recent[recent_count % RECENT_MAX].real = real;
    recent[recent_count % RECENT_MAX].number = number;
    recent_count++;
}

void disk_forget(void)
{
    recent_count = 0;
}

uint64_t disk_number(ino_t real)
{
    for (size_t i = recent_count; i > 0 && i + RECENT_MAX > recent_count; i--)
        if (recent[(i - 1) % RECENT_MAX].real == real)
            return recent[(i - 1) % RECENT_MAX].number;
    for (size_t i = disk.inode_count; i > 0; i--)
        if (disk.inodes[i - 1]->real == real)
            return disk.inodes[i - 1]->number;
    return ((uint64_t)1 << 40) + real; /* made outside of a disk */
}

/* ---- Names ---- */

static struct name *names_find(struct names *names, const char *text)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->at[i].text, text) == 0)
            return &names->at[i];
    return NULL;
}

static void names_apply(struct names *names, const struct renaming *renaming)
{
    struct name *from = renaming->from[0] != '\0' ? names_find(names, renaming->from) : NULL;
    if (from != NULL)
        *from = names->at[--names->count];
    if (renaming->to[0] == '\0')
        return;
    struct name *to = names_find(names, renaming->to);
    if (to == NULL) {
        if (names->count == NAMES_MAX)
            fail("more names than the model has places for");
        to = &names->at[names->count++];
        memcpy(to->text, renaming->to, sizeof(to->text));
    }
    to->inode = renaming->inode;
}

struct inode *disk_lookup(const char *text)
{
    struct name *name = names_find(&disk.live, text);
    return name != NULL ? name->inode : NULL;
}

void disk_rename(const char *from, const char *to, struct inode *inode)
{
    struct renaming renaming = {.inode = inode};
    snprintf(renaming.from, sizeof(renaming.from), "%s", from);
    snprintf(renaming.to, sizeof(renaming.to), "%s", to);
    if (disk.renaming_count == disk.renaming_capacity) {
        disk.renaming_capacity = 2 * disk.renaming_capacity + 16;
        disk.renamings = realloc(disk.renamings, disk.renaming_capacity * sizeof(*disk.renamings));
        if (disk.renamings == NULL)
            fail("out of memory");
    }
    disk.renamings[disk.renaming_count++] = renaming;
    names_apply(&disk.live, &renaming);
}

void disk_sync_folder(void)
{
    disk.durable = disk.live;
    disk.renaming_count = 0;
}

const char *disk_name(const char *path)
{
    size_t len = strlen(disk.folder);
    if (len == 0 || strncmp(path, disk.folder, len) != 0)
        return NULL;
    if (path[len] == '\0')
        return "";
    return path[len] == '/' && strchr(path + len + 1, '/') == NULL ? path + len + 1 : NULL;
}

struct handle *disk_handle(int fd)
{
    static struct handle none;
    none = (struct handle){0};
    return fd >= 0 && fd < HANDLES_MAX ? &disk.handles[fd] : &none;
}

/* ---- Bytes ---- */

static struct inode *inode_add(ino_t real, uint64_t number)
{
    if (disk.inode_count == disk.inode_capacity) {
        disk.inode_capacity = 2 * disk.inode_capacity + 16;
        disk.inodes = realloc(disk.inodes, disk.inode_capacity * sizeof(*disk.inodes));
        if (disk.inodes == NULL)
            fail("out of memory");
    }
    struct inode *inode = must_alloc(sizeof(*inode));
    inode->real = real;
    inode->number = number;
    disk.inodes[disk.inode_count++] = inode;
    return inode;
}

struct inode *disk_create(const char *name, ino_t real)
{
    struct inode *inode = inode_add(real, number_next++);
    number_set(real, inode->number);
    if (name[0] != '\0')
        disk_rename("", name, inode);
    return inode;
}

bool disk_has_dropped(const char *name)
{
    const struct inode *inode = disk_lookup(name);
    return inode != NULL && inode->has_dropped;
}

static void change_add(struct inode *inode, bool resize, uint64_t offset, const void *bytes, size_t len)
{
    if (inode->change_count == inode->change_capacity) {
        inode->change_capacity = 2 * inode->change_capacity + 16;
        inode->changes = realloc(inode->changes, inode->change_capacity * sizeof(*inode->changes));
        if (inode->changes == NULL)
            fail("out of memory");
    }
    struct change *change = &inode->changes[inode->change_count++];
    *change = (struct change){.resize = resize, .offset = offset};
    buffer_put(&change->bytes, 0, bytes, len);
}

static void changes_drop(struct inode *inode)
{
    for (size_t i = 0; i < inode->change_count; i++)
        buffer_free(&inode->changes[i].bytes);
    inode->change_count = 0;
}

void disk_write(struct inode *inode, uint64_t offset, const void *bytes, size_t len)
{
    if (len == 0)
        return;
    change_add(inode, false, offset, bytes, len);
    buffer_put(&inode->live, offset, bytes, len);
}

void disk_keep_cut(struct inode *inode, uint64_t offset, const void *bytes, size_t len)
{
    disk.cut.inode = inode;
    disk.cut.offset = offset;
    buffer_resize(&disk.cut.bytes, 0);
    buffer_put(&disk.cut.bytes, 0, bytes, len);
}

size_t disk_cut_write(const char **out_name)
{
    *out_name = "";
    for (size_t i = 0; i < disk.live.count; i++)
        if (disk.live.at[i].inode == disk.cut.inode)
            *out_name = disk.live.at[i].text;
    return disk.cut.bytes.len;
}

void disk_resize(struct inode *inode, uint64_t size)
{
    change_add(inode, true, size, NULL, 0);
    buffer_resize(&inode->live, size);
}

void disk_sync_file(struct inode *inode)
{
    for (size_t i = 0; i < inode->change_count; i++) {
        const struct change *change = &inode->changes[i];
        if (change->resize)
            buffer_resize(&inode->durable, change->offset);
        else
            buffer_put(&inode->durable, change->offset, change->bytes.data, change->bytes.len);
    }
    changes_drop(inode);
}

/* How many of a file's changes a sector has seen: none, all, or some. */
static size_t sector_time(uint64_t seed, uint64_t sector, size_t change_count)
{
    struct rng rng = rng_of(mix(seed, sector));
    unsigned lost = (unsigned)(mix(seed, UINT64_MAX) % 4) * 30; /* 0, 30, 60, 90 of a hundred: goes with the seed */
    if (rng_chance(&rng, lost))
        return 0;
    return rng_chance(&rng, 80) ? change_count : (size_t)rng_below(&rng, change_count + 1);
}

static void apply_sectors(const struct change *change, size_t number, size_t change_count, uint64_t seed,
                          struct buffer *out)
{
    uint64_t end = change->offset + change->bytes.len;
    for (uint64_t at = change->offset; at < end;) {
        uint64_t next = (at / SECTOR + 1) * SECTOR < end ? (at / SECTOR + 1) * SECTOR : end;
        if (number < sector_time(seed, at / SECTOR, change_count))
            buffer_put(out, at, change->bytes.data + (at - change->offset), (size_t)(next - at));
        at = next;
    }
}

/* What is left of a file: in half of the cases what was done up to some point, in the others any sectors. */
static void leave_some(const struct inode *inode, uint64_t seed, struct buffer *out)
{
    struct rng rng = rng_of(seed);
    bool in_order = rng_chance(&rng, 30);
    size_t done = (size_t)rng_below(&rng, inode->change_count + 1);
    buffer_put(out, 0, inode->durable.data, inode->durable.len);
    for (size_t i = 0; i < inode->change_count; i++) {
        const struct change *change = &inode->changes[i];
        bool kept = in_order ? i < done : rng_chance(&rng, 50);
        uint64_t end = change->offset + change->bytes.len;
        if (change->resize) {
            if (kept)
                buffer_resize(out, change->offset);
        } else if (in_order && kept) {
            buffer_put(out, change->offset, change->bytes.data, change->bytes.len);
        } else if (in_order && i == done) {
            uint64_t len = rng_below(&rng, change->bytes.len / SECTOR + 1) * SECTOR; /* the last one in part */
            buffer_put(out, change->offset, change->bytes.data, (size_t)len);
        } else if (!in_order) {
            apply_sectors(change, i, inode->change_count, seed, out);
            if (kept && end > out->len)
                buffer_resize(out, end); /* the size arrived, the bytes did not */
        }
    }
}

void disk_sync_failed(struct inode *inode)
{
    struct buffer left = {0};
    inode->has_dropped = inode->has_dropped || inode->change_count > 0;
    leave_some(inode, rng_next(&disk.rng), &left);
    buffer_free(&inode->durable);
    inode->durable = left;
    changes_drop(inode);
}

/* ---- Calls are counted, and one of them goes wrong ---- */

static const char *const call_texts[] = {
#define DISK_CALL_ROW(name, text) [name] = (text),
    DISK_CALLS(DISK_CALL_ROW)
#undef DISK_CALL_ROW
};

const char *disk_call_text(enum disk_call call)
{
    return call_texts[call];
}

static bool changes_something(enum disk_call call)
{
    return call == CALL_WRITE || call == CALL_RESIZE || call == CALL_SYNC || call == CALL_RENAME || call == CALL_UNLINK;
}

/* Whether a fault that goes on hits this call too. */
static bool comes_later(enum disk_call call)
{
    return (disk.fault.kind == FAULT_ERRORS && disk.calls[disk.fault.at] == call) ||
           (disk.fault.kind == FAULT_DEAD && changes_something(call)) ||
           (disk.fault.kind == FAULT_FULL && call == CALL_WRITE);
}

struct fault disk_count(enum disk_call call)
{
    const struct fault off = {.kind = FAULT_ERROR, .error = EIO};
    uint64_t number = disk.call_count++;
    if (number < CALLS_MAX)
        disk.calls[number] = call;
    if (disk.armed && number == disk.fault.at && (disk.fault.kind == FAULT_POWER_OFF || disk.fault.kind == FAULT_CUT)) {
        disk.off = true;
        if (disk.fault.kind == FAULT_CUT)
            return disk.fault;
    }
    if (disk.off)
        return changes_something(call) ? off : (struct fault){.kind = FAULT_NONE};
    if (!disk.armed)
        return (struct fault){.kind = FAULT_NONE};
    if (number == disk.fault.at)
        return disk.fault;
    if (number > disk.fault.at && comes_later(call))
        return (struct fault){.kind = FAULT_ERROR, .error = disk.fault.error};
    return (struct fault){.kind = FAULT_NONE};
}

void disk_arm(const struct fault *fault)
{
    disk_lock();
    disk.fault = *fault;
    disk.call_count = 0;
    disk.armed = true;
    disk_unlock();
}

uint64_t disk_disarm(void)
{
    disk_lock();
    disk.armed = false;
    uint64_t count = disk.call_count < CALLS_MAX ? disk.call_count : CALLS_MAX;
    disk_unlock();
    return count;
}

enum disk_call disk_nth_call(uint64_t n)
{
    return disk.calls[n];
}

void disk_power_off(void)
{
    disk_lock();
    disk.off = true;
    disk_unlock();
}

bool disk_is_off_locked(void)
{
    return disk.off;
}

bool disk_is_dead(void)
{
    disk_lock();
    bool dead = disk.armed && disk.fault.kind == FAULT_DEAD && disk.call_count > disk.fault.at;
    disk_unlock();
    return dead;
}

bool disk_is_off(void)
{
    disk_lock();
    bool off = disk.off;
    disk_unlock();
    return off;
}

/* ---- The disk begins, and what is left of it ---- */

static void load_file(const char *path, const char *name)
{
    uint8_t piece[65536];
    struct stat st;
    int fd = __real_open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || __real_fstat(fd, &st) != 0)
        fail("%s: %s", path, strerror(errno));
    struct renaming renaming = {.inode = inode_add(st.st_ino, disk_number(st.st_ino))};
    for (ssize_t got = read(fd, piece, sizeof(piece)); got > 0; got = read(fd, piece, sizeof(piece)))
        buffer_put(&renaming.inode->live, renaming.inode->live.len, piece, (size_t)got);
    __real_close(fd);
    buffer_put(&renaming.inode->durable, 0, renaming.inode->live.data, renaming.inode->live.len);
    snprintf(renaming.to, sizeof(renaming.to), "%s", name);
    names_apply(&disk.live, &renaming);
}

void disk_begin(const char *folder)
{
    DIR *dir = opendir(folder);
    char path[PATH_MAX];
    if (dir == NULL)
        fail("%s: %s", folder, strerror(errno));
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (entry->d_type != DT_REG)
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        load_file(path, entry->d_name);
    }
    closedir(dir);
    disk.durable = disk.live;
    disk.rng = rng_of(number_next);
    snprintf(disk.folder, sizeof(disk.folder), "%s", folder);
}

void disk_end(void)
{
    for (size_t i = 0; i < disk.inode_count; i++) {
        changes_drop(disk.inodes[i]);
        free(disk.inodes[i]->changes);
        buffer_free(&disk.inodes[i]->live);
        buffer_free(&disk.inodes[i]->durable);
        free(disk.inodes[i]);
    }
    free(disk.inodes);
    free(disk.renamings);
    buffer_free(&disk.cut.bytes);
    disk.cut.inode = NULL;
    disk.inodes = NULL;
    disk.renamings = NULL;
    disk.inode_count = disk.inode_capacity = disk.renaming_count = disk.renaming_capacity = 0;
    disk.live.count = disk.durable.count = 0;
    memset(disk.handles, 0, sizeof(disk.handles)); /* what is still open is not the next disk's */
    disk.folder[0] = '\0';
    disk.off = disk.armed = false;
}

static void save_file(const char *folder, const struct name *name, const struct buffer *bytes)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", folder, name->text);
    int fd = __real_open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || __real_pwrite(fd, bytes->data, bytes->len, 0) != (ssize_t)bytes->len || __real_fstat(fd, &st) != 0)
        fail("%s: %s", path, strerror(errno));
    __real_close(fd);
    number_set(st.st_ino, name->inode->number);
}

void disk_leave(enum leftover leftover, uint64_t seed, const char *folder)
{
    struct rng rng = rng_of(mix(seed, 77));
    folder_make(folder);
    disk_lock();
    bool by_kernel = leftover == LEFT_BY_KERNEL || leftover == LEFT_BY_CUT;
    struct names names = by_kernel ? disk.live : disk.durable;
    for (size_t i = 0; leftover == LEFT_SECTORS && i < disk.renaming_count; i++)
        if (rng_chance(&rng, 50))
            names_apply(&names, &disk.renamings[i]);
    for (size_t i = 0; i < names.count; i++) {
        const struct inode *inode = names.at[i].inode;
        struct buffer some = {0};
        if (leftover == LEFT_SECTORS)
            leave_some(inode, mix(seed, i), &some);
        if (leftover == LEFT_BY_CUT && inode == disk.cut.inode) {
            buffer_put(&some, 0, inode->live.data, inode->live.len);
            buffer_put(&some, disk.cut.offset, disk.cut.bytes.data, (size_t)seed);
        }
        const struct buffer *whole = by_kernel ? &inode->live : &inode->durable;
        save_file(folder, &names.at[i], some.data != NULL ? &some : whole);
        buffer_free(&some);
    }
    disk_unlock();
}
