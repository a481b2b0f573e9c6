/* STORE.writer: who writes to the store, and up to where it is known to be durable. One sector, so that a power cut
   leaves the old line or the new one; a line is believed only if it is, byte for byte, what we would write. */
#include "base.h"
#include "store_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_LEN        ((size_t)512)
#define LINE_SUFFIX     ".writer"
#define LINE_OWNER_MODE 0600 /* to begin with; then whoever reads the store reads the line */
#define LINE_ACCESS     (O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
#define REWRITE_PAUSE_S 1

struct writer_line {
    char *path;
    int fd;                  /* -1 until the first append */
    struct writer_said said; /* `inode` 0: nothing is written yet */
    time_t rewritten_s;      /* by the monotonic clock */
    uint64_t written_off;    /* what the file says; `said.synced_off` may know more */
};

/* The line for `said`: its fields, their CRC, blanks, a newline. All ranges of any store fit. Returns: false where a
   field doesn't. */
static bool render(const struct writer_said *said, char out_line[LINE_LEN + 1])
{
    int used = snprintf(out_line, LINE_LEN,
                        "rdrive-writer pid=%" PRIu64 " host=%s start=%" PRIu64 " inode=%" PRIu64 " synced=%" PRIu64,
                        said->pid, said->host, said->start, said->inode, said->synced_off);
    if (said->torn.count > 0 && used > 0 && (size_t)used < LINE_LEN)
        used += snprintf(out_line + used, LINE_LEN - (size_t)used, " torn=%" PRIu64, said->torn_inode);
    for (size_t i = 0; i < said->torn.count && used > 0 && (size_t)used < LINE_LEN; i++)
        used +=
            snprintf(out_line + used, LINE_LEN - (size_t)used, "%s%" PRIu64 "-%" PRIu64 "/%" PRIu64, i == 0 ? ":" : ",",
                     said->torn.ranges[i].begin_off, said->torn.ranges[i].end_off, said->torn.ranges[i].torn_bytes);
    if (used < 0 || (size_t)used + sizeof(" checksum=12345678\n") > LINE_LEN)
        return false;
    uint32_t crc = crc_of(out_line, (size_t)used);
    used += snprintf(out_line + used, LINE_LEN - (size_t)used, " checksum=%08" PRIx32, crc);
    memset(out_line + used, ' ', LINE_LEN - 1 - (size_t)used);
    memcpy(out_line + LINE_LEN - 1, "\n", sizeof("\n"));
    return true;
}

/* A host's name as one word of plain letters, so that it may be quoted. */
static bool is_plain(const char *host)
{
    for (; *host != '\0'; host++)
        if (*host <= ' ' || *host > '~')
            return false;
    return true;
}

/* The torn ranges at `text`, if that is what stands there. */
static bool parse_torn(const char *text, struct writer_said *said)
{
    struct torn_ranges *torn = &said->torn;
    int inode_len = 0;
    if (sscanf(text, " torn=%" SCNu64 "%n", &said->torn_inode, &inode_len) != 1) /* NOLINT(cert-err34-c): as below */
        return true;
    text += inode_len;
    for (char lead = ':'; *text == lead; lead = ',') {
        if (torn->count == TORN_RANGES_MAX)
            return false;
        struct torn_range *range = &torn->ranges[torn->count++];
        int used = 0;
        text++;
        if (sscanf(text, "%" SCNu64 "-%" SCNu64 "/%" SCNu64 "%n", /* NOLINT(cert-err34-c): as below */
                   &range->begin_off, &range->end_off, &range->torn_bytes, &used) != 3)
            return false;
        text += used;
    }
    return true;
}

static bool parse(const char *line, struct writer_said *out_said)
{
    struct writer_said said = {0};
    char again[LINE_LEN + 1];
    int used = 0;
    if (sscanf(line, /* NOLINT(cert-err34-c): numbers that overflow don't come out again as they went in */
               "rdrive-writer pid=%" SCNu64 " host=%64s start=%" SCNu64 " inode=%" SCNu64 " synced=%" SCNu64 "%n",
               &said.pid, said.host, &said.start, &said.inode, &said.synced_off, &used) != 5)
        return false;
    if (!is_plain(said.host) || !parse_torn(line + used, &said))
        return false;
    if (!render(&said, again) || memcmp(again, line, LINE_LEN) != 0)
        return false;
    *out_said = said;
    return true;
}

/* What a path says when there is no line under it, or none for us. */
static bool is_no_line(int error)
{
    return error == ENOENT || error == ELOOP || error == ENXIO || error == EACCES || error == EISDIR ||
           error == ESPIPE || error == ENAMETOOLONG;
}

/* As much as there is, up to `len` bytes. Returns: how many, or -1. */
static ssize_t read_up_to(int fd, char *into, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t got = pread(fd, into + done, len - done, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

bool writer_line_read(const char *store_path, struct writer_said *out_said)
{
    char line[LINE_LEN + 2];
    ssize_t got = -1;
    char *path = file_beside(store_path, LINE_SUFFIX);
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY) : -1;
    if (fd >= 0)
        got = read_up_to(fd, line, LINE_LEN + 1); /* one byte more would be seen */
    int error = got >= 0 || is_no_line(errno) ? 0 : errno;
    if (fd >= 0)
        close(fd);
    free(path);
    line[LINE_LEN] = '\0';
    bool is_true = got == (ssize_t)LINE_LEN && parse(line, out_said);
    errno = error; /* not what parsing left there */
    return is_true;
}

static void host_name(char out_host[65])
{
    char name[65] = {0};
    if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0')
        memcpy(name, "unknown", sizeof("unknown"));
    for (char *at = name; *at != '\0'; at++)
        if (*at <= ' ' || *at > '~')
            *at = '?';
    memcpy(out_host, name, sizeof(name));
}

rd_err writer_line_create(const char *store_path, struct writer_line **out_line)
{
    struct writer_line *line = calloc(1, sizeof(*line));
    if (line == NULL)
        return RD_E_NOMEM;
    line->fd = -1;
    line->path = file_beside(store_path, LINE_SUFFIX);
    if (line->path == NULL) {
        free(line);
        return RD_E_NOMEM;
    }
    *out_line = line;
    return RD_OK;
}

void writer_line_destroy(struct writer_line *line)
{
    if (line == NULL)
        return;
    if (line->fd >= 0)
        close(line->fd);
    free(line->path);
    free(line);
}

static time_t monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* In place, in one write. */
static rd_err put_line(const struct writer_line *line, const struct writer_said *said)
{
    char text[LINE_LEN + 1];
    if (!render(said, text))
        return RD_E_IO;
    struct iovec part = {.iov_base = text, .iov_len = LINE_LEN};
    return file_write_at(&(struct file){.fd = line->fd}, &part, 1, 0);
}

/* Whether what `fd` has open may be written over: a line, whole or torn. Not so what is longer, such as another store
   of that name, or has a second name somewhere without being a line. Else errno is set. */
static bool is_for_lines(int fd)
{
    struct stat st;
    char text[LINE_LEN + 2];
    struct writer_said said;
    if (fstat(fd, &st) != 0)
        return false;
    ssize_t got = S_ISREG(st.st_mode) && st.st_size <= (off_t)LINE_LEN ? read_up_to(fd, text, LINE_LEN + 1) : 0;
    if (got < 0)
        return false;
    text[got] = '\0';
    errno = EEXIST;
    return S_ISREG(st.st_mode) && st.st_size <= (off_t)LINE_LEN &&
           (st.st_nlink <= 1 || (got == (ssize_t)LINE_LEN && parse(text, &said)));
}

static rd_err open_line(struct writer_line *line)
{
    struct stat st;
    if (line->fd >= 0 && (fstat(line->fd, &st) != 0 || st.st_nlink == 0)) {
        close(line->fd); /* somebody removed it */
        line->fd = -1;
    }
    if (line->fd >= 0)
        return RD_OK;
    int fd = open(line->path, LINE_ACCESS | O_CREAT, LINE_OWNER_MODE);
    if (fd < 0)
        return file_error();
    if (is_for_lines(fd)) {
        line->fd = fd;
        return RD_OK;
    }
    int saved = errno;
    close(fd);
    errno = saved;
    return RD_E_IO;
}

/* Whether a file may be made beside the store. Else errno is set. */
static bool can_be_made(const char *path)
{
    char *copy = strdup(path);
    bool can = copy != NULL && faccessat(AT_FDCWD, dirname(copy), W_OK | X_OK, AT_EACCESS) == 0;
    int saved = errno;
    free(copy);
    errno = saved;
    return can;
}

rd_err writer_line_check(const char *store_path)
{
    char *path = file_beside(store_path, LINE_SUFFIX);
    if (path == NULL)
        return RD_E_NOMEM;
    int fd = open(path, LINE_ACCESS);
    bool can = fd >= 0 ? is_for_lines(fd) : errno == ENOENT && can_be_made(path);
    int saved = errno;
    if (fd >= 0)
        close(fd);
    free(path);
    errno = saved;
    return can ? RD_OK : RD_E_IO;
}

/* Write the line, of which the caller has filled in what it says of files, and make sure that it stays. */
static rd_err write_synced(struct writer_line *line, struct writer_said said)
{
    said.pid = (uint64_t)getpid();
    said.start = line->said.start;
    if (said.start == 0)
        said.start = (uint64_t)time(NULL);
    host_name(said.host);
    line->said.inode = 0; /* until it is durable it counts for nothing */
    RD_TRY(open_line(line));
    RD_TRY(put_line(line, &said));
    if (file_cut(&(struct file){.fd = line->fd}, LINE_LEN) != RD_OK || fsync(line->fd) != 0)
        return file_error();
    if (file_sync_directory(line->path) != RD_OK)
        return RD_E_IO; /* nothing of the store is in doubt */
    line->said = said;
    line->written_off = said.synced_off;
    line->rewritten_s = monotonic_s();
    return RD_OK;
}

rd_err writer_line_move(struct writer_line *line, const struct file *store_file, const struct layout *layout,
                        const struct file *file, uint64_t synced_off)
{
    struct stat st;
    struct stat torn_st;
    line->said.inode = 0;
    if (fstat(file->fd, &st) != 0 || fstat(store_file->fd, &torn_st) != 0)
        return RD_E_IO;
    struct writer_said said = {
        .inode = (uint64_t)st.st_ino, .synced_off = synced_off, .torn_inode = (uint64_t)torn_st.st_ino};
    layout_torn(layout, &said.torn);
    RD_TRY(write_synced(line, said));
    /* whoever may read the store needs the line to tell torn from damaged; not ours to change, it stays as it is */
    int unchanged = fchown(line->fd, (uid_t)-1, st.st_gid) | fchmod(line->fd, (st.st_mode & 0444) | LINE_OWNER_MODE);
    (void)unchanged;
    return RD_OK;
}

rd_err writer_line_begin(struct writer_line *line, const struct file *file, const struct layout *layout,
                         uint64_t tail_off)
{
    if (line->said.inode != 0)
        return RD_OK; /* of this file: another takes its place only with writer_line_move */
    if (tail_off > 0)
        RD_TRY(file_sync(file)); /* what it held when it was opened may still be on its way */
    return writer_line_move(line, file, layout, file, tail_off);
}

void writer_line_synced(struct writer_line *line, uint64_t synced_off, bool closing)
{
    if (line == NULL || line->said.inode == 0)
        return;
    if (synced_off > line->said.synced_off)
        line->said.synced_off = synced_off;
    if (line->written_off == line->said.synced_off)
        return;
    time_t now_s = monotonic_s();
    if (!closing && now_s - line->rewritten_s < REWRITE_PAUSE_S)
        return;
    line->rewritten_s = now_s;
    if (put_line(line, &line->said) == RD_OK)
        line->written_off = line->said.synced_off;
}
