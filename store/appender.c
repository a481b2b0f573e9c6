#include "appender.h"
#include "base.h"

/* pad, a copied payload and trailer always fit an empty buffer */
_Static_assert(APPENDER_COPY_MAX + RD_ALIGNMENT + sizeof(struct raw_trailer) <= APPENDER_BUFFER, "one small entry");

void appender_fini(struct appender *appender)
{
    free(appender->buffer);
    *appender = (struct appender){0};
}

rd_err appender_begin(struct appender *appender, uint64_t tail_off)
{
    if (appender->buffer == NULL && (appender->buffer = malloc(APPENDER_BUFFER)) == NULL)
        return RD_E_NOMEM;
    appender->used = 0;
    appender->buffer_off = tail_off;
    return RD_OK;
}

rd_err appender_flush(struct appender *appender, const struct file *file)
{
    struct iovec part = {.iov_base = appender->buffer, .iov_len = appender->used};
    RD_TRY(file_write_at(file, &part, 1, appender->buffer_off));
    appender->buffer_off += appender->used;
    appender->used = 0;
    return RD_OK;
}

static void put(struct appender *appender, const void *bytes, size_t len)
{
    memcpy(appender->buffer + appender->used, bytes, len);
    appender->used += len;
}

/* Write the gathered bytes and then `payload`, straight from the caller's memory. */
static rd_err put_large(struct appender *appender, const struct file *file, rd_span payload)
{
    struct iovec parts[] = {
        {.iov_base = appender->buffer, .iov_len = appender->used},
        {.iov_base = (void *)(uintptr_t)payload.data, .iov_len = payload.len},
    };
    RD_TRY(file_write_at(file, parts, 2, appender->buffer_off));
    appender->buffer_off += appender->used + payload.len;
    appender->used = 0;
    return RD_OK;
}

rd_err appender_add_summed(struct appender *appender, const struct file *file, uint64_t key_hash, rd_span payload,
                           uint32_t crc, struct entry *out_entry)
{
    static const uint8_t zeros[RD_ALIGNMENT];
    bool tombstone = payload.len == 0;
    rd_span bytes = tombstone ? (rd_span){.data = zeros, .len = 1} : payload;
    uint64_t prev_off = appender_tail(appender);
    size_t pad = tombstone ? 0 : (size_t)entry_pad(prev_off);
    struct entry entry = {.start_off = prev_off + pad, .prev_off = prev_off, .key_hash = key_hash};
    if (bytes.len > RD_OFFSET_MAX || entry.start_off + bytes.len >= RD_OFFSET_MAX)
        return RD_E_TOO_FAR;
    entry.trailer_off = entry.start_off + bytes.len;
    entry.tombstone = tombstone;
    entry.crc = tombstone ? RD_TOMBSTONE_CRC : crc;

    size_t copied = bytes.len <= APPENDER_COPY_MAX ? bytes.len : 0;
    if (appender->used + pad + copied + sizeof(struct raw_trailer) > APPENDER_BUFFER)
        RD_TRY(appender_flush(appender, file));
    put(appender, zeros, pad);
    if (copied > 0)
        put(appender, bytes.data, bytes.len);
    else
        RD_TRY(put_large(appender, file, bytes));
    struct raw_trailer raw;
    store_le64(raw.key_hash, key_hash);
    store_le64(raw.prev_tail, prev_off);
    store_le32(raw.crc32, entry.crc);
    put(appender, &raw, sizeof(raw));
    *out_entry = entry;
    return RD_OK;
}

rd_err appender_add(struct appender *appender, const struct file *file, uint64_t key_hash, rd_span payload,
                    struct entry *out_entry)
{
    return appender_add_summed(appender, file, key_hash, payload, crc_of(payload.data, payload.len), out_entry);
}
