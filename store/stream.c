/* A value that arrives in pieces: nothing of it touches the store before it is whole (E-05, E-06). */
#include "base.h"
#include "store_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sys/mman.h>
#include <unistd.h>

#define STREAM_MEMORY_MIN  ((size_t)16 << 10)
#define STREAM_VALUE_MAX   (UINT64_C(1) << 30) /* unless the store's options say otherwise */
#define STREAM_FILE_SUFFIX ".stream-XXXXXX"

struct rd_stream {
    rd_store *store;
    uint64_t key_hash;
    uint64_t value_max;
    uint8_t *memory; /* what came last, or all */
    size_t used, capacity;
    struct file file; /* what came before it; fd -1: nothing */
    uint64_t file_len;
    void *mapped;       /* all of the file, once it is sealed; NULL: not */
    rd_write_item item; /* the same */
    uint32_t crc;
    rd_err failed; /* then the value is not whole and never committed (E-06) */
};

rd_err rd_stream_begin(rd_store *store, uint64_t key_hash, rd_stream **out_stream)
{
    if (!store->options.writable)
        return RD_E_READ_ONLY;
    rd_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        return RD_E_NOMEM;
    uint64_t value_max = store->options.max_value_bytes;
    stream->store = store;
    stream->key_hash = key_hash;
    stream->value_max = value_max != 0 ? value_max : STREAM_VALUE_MAX;
    stream->file.fd = -1;
    *out_stream = stream;
    return RD_OK;
}

void rd_stream_abort(rd_stream *stream)
{
    if (stream == NULL)
        return;
    if (stream->mapped != NULL)
        munmap(stream->mapped, (size_t)stream->file_len);
    file_close(&stream->file);
    free(stream->memory);
    free(stream);
}

static void stream_end(rd_stream **stream)
{
    rd_stream_abort(*stream);
}

/* Make a file without a name where the store lies: there is the room that the value needs. */
static rd_err file_unnamed(const char *store_path, struct file *out_file)
{
    char *path = file_beside(store_path, STREAM_FILE_SUFFIX);
    char *folder = path != NULL ? strdup(path) : NULL;
    if (folder == NULL) {
        free(path);
        return RD_E_NOMEM;
    }
    int fd = open(dirname(folder), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) { /* not every file system has them */
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0)
            unlink(path);
    }
    rd_err err = fd >= 0 ? RD_OK : file_error();
    free(folder);
    free(path);
    if (err == RD_OK)
        *out_file = (struct file){.fd = fd};
    return err;
}

/* Move what is in memory, and `piece` behind it, to the file. */
static rd_err spill(rd_stream *stream, rd_span piece)
{
    struct iovec parts[] = {
        {.iov_base = stream->memory, .iov_len = stream->used},
        {.iov_base = (void *)(uintptr_t)piece.data, .iov_len = piece.len},
    };
    if (stream->file.fd < 0)
        RD_TRY(file_unnamed(stream->store->path, &stream->file));
    RD_TRY(file_write_at(&stream->file, parts, 2, stream->file_len));
    stream->file_len += stream->used + piece.len;
    stream->used = 0;
    return RD_OK;
}

static rd_err keep(rd_stream *stream, rd_span piece)
{
    size_t need = stream->used + piece.len;
    if (need > stream->capacity) {
        size_t capacity = stream->capacity > 0 ? stream->capacity : STREAM_MEMORY_MIN;
        while (capacity < need)
            capacity *= 2;
        uint8_t *memory = realloc(stream->memory, capacity);
        if (memory == NULL)
            return RD_E_NOMEM;
        stream->memory = memory;
        stream->capacity = capacity;
    }
    memcpy(stream->memory + stream->used, piece.data, piece.len);
    stream->used += piece.len;
    return RD_OK;
}

rd_err rd_stream_append(rd_stream *stream, rd_span piece)
{
    if (stream->failed != RD_OK || piece.len == 0)
        return stream->failed;
    if (piece.len > stream->value_max - (stream->file_len + stream->used))
        stream->failed = RD_E_TOO_LARGE;
    else if (piece.len > RD_STREAM_MEMORY - stream->used)
        stream->failed = spill(stream, piece);
    else
        stream->failed = keep(stream, piece);
    if (stream->failed == RD_OK)
        stream->crc = crc_extend(stream->crc, piece.data, piece.len);
    return stream->failed;
}

bool stream_stays_in_memory(const rd_stream *stream, uint64_t more_len)
{
    return more_len <= RD_STREAM_MEMORY - stream->used;
}

bool stream_has_file(const rd_stream *stream)
{
    return stream->file.fd >= 0;
}

void stream_measure(const rd_stream *stream, uint64_t *out_size, uint32_t *out_crc)
{
    *out_size = stream->file_len + stream->used;
    *out_crc = stream->crc;
}

/* Have all of a value that is partly in a file in one piece. */
static rd_err map_file(rd_stream *stream)
{
    if (stream->used > 0)
        RD_TRY(spill(stream, (rd_span){0}));
    void *mapped = mmap(NULL, (size_t)stream->file_len, PROT_READ, MAP_SHARED, stream->file.fd, 0);
    if (mapped == MAP_FAILED)
        return errno == ENOMEM ? RD_E_NOMEM : RD_E_IO;
    stream->mapped = mapped;
    return RD_OK;
}

rd_err stream_seal(rd_stream *stream, struct commit *out_commit)
{
    RD_TRY(stream->failed);
    if (stream->file.fd >= 0)
        RD_TRY(map_file(stream));
    stream->item.key_hash = stream->key_hash;
    stream->item.payload = stream->mapped != NULL ? (rd_span){.data = stream->mapped, .len = (size_t)stream->file_len}
                                                  : (rd_span){.data = stream->memory, .len = stream->used};
    *out_commit = (struct commit){.items = &stream->item, .crcs = &stream->crc, .count = 1};
    return RD_OK;
}

rd_err rd_stream_commit(rd_stream *stream, rd_written *out_done, uint64_t *out_size, uint32_t *out_crc)
{
    RD_CLEANUP(stream_end) rd_stream *ended = stream;
    struct commit commit;
    uint64_t size;
    uint32_t crc;
    RD_TRY(stream_seal(ended, &commit));
    RD_TRY(store_submit(ended->store, &commit, out_done));
    stream_measure(ended, &size, &crc);
    if (out_size != NULL)
        *out_size = size;
    if (out_crc != NULL)
        *out_crc = crc;
    return RD_OK;
}
