#include "hostile.h"

#include <stdlib.h>
#include <string.h>

#define STEP ((uint64_t)64) /* from one payload to the next: 8 bytes, a trailer and a pad */

const char *hostile_text(enum hostile kind)
{
#define HOSTILE_TEXT(name, text) [name] = text,
    static const char *const texts[] = {HOSTILES(HOSTILE_TEXT)};
#undef HOSTILE_TEXT
    return texts[kind];
}

static struct bytes build(uint64_t count)
{
    struct bytes file = {0};
    for (uint64_t i = 0; i < count; i++) {
        uint8_t value[8];
        for (size_t b = 0; b < sizeof value; b++)
            value[b] = (uint8_t)(i >> (8 * b));
        build_entry(&file, fill_hash(i), (rd_span){value, sizeof value}, STEP);
    }
    return file;
}

/* The trailer of entry i lies behind its 8 bytes; its link behind the hash. */
static uint8_t *link_of(struct bytes *file, uint64_t i)
{
    return file->data + i * STEP + 16;
}

static void append_fakes(struct bytes *file)
{
    uint64_t begin = file->len;
    for (uint64_t i = 0; i < begin / 8; i++) {
        uint64_t at = begin + 8 * i;
        const uint64_t links[] = {28, at / 2, at - 61, at & ~UINT64_C(63)};
        bytes_append_le64(file, links[i % 4]);
    }
}

static void append_as_much(struct bytes *file, bool noise)
{
    struct bytes more = bytes_xorshift(11, file->len);
    if (!noise)
        memset(more.data, 0, more.len);
    bytes_append(file, more.data, more.len);
    bytes_free(&more);
}

struct bytes hostile_build(enum hostile kind, uint64_t count)
{
    struct bytes file = build(count);
    switch (kind) {
    case HOSTILE_LINK_OLDEST: link_of(&file, 0)[7] ^= 0x80; break;
    case HOSTILE_LINK_MIDDLE: link_of(&file, count / 2)[7] ^= 0x80; break;
    case HOSTILE_LINK_NEWEST: link_of(&file, count - 1)[7] ^= 0x80; break;
    case HOSTILE_TORN: file.len -= 15; break;
    case HOSTILE_ZEROS: append_as_much(&file, false); break;
    case HOSTILE_NOISE: append_as_much(&file, true); break;
    case HOSTILE_PAYLOADS:
        for (uint64_t i = 1; i < count; i += 2)
            file.data[i * STEP] ^= 1;
        break;
    case HOSTILE_LINKS:
        for (uint64_t i = 1; i < count; i += 2)
            memset(link_of(&file, i), 0, 8);
        break;
    case HOSTILE_FAKES: append_fakes(&file); break;
    case HOSTILE_NONE:
    case HOSTILE_KINDS: break;
    }
    return file;
}

uint64_t hostile_whole(enum hostile kind, uint64_t count)
{
    switch (kind) {
    case HOSTILE_LINK_NEWEST:
    case HOSTILE_TORN: return count - 1;
    case HOSTILE_PAYLOADS: return count - count / 2;
    case HOSTILE_LINKS: return count - 1 + count % 2; /* a last entry without its link is damaged (R-04a) */
    case HOSTILE_NONE:
    case HOSTILE_LINK_OLDEST:
    case HOSTILE_LINK_MIDDLE:
    case HOSTILE_ZEROS:
    case HOSTILE_NOISE:
    case HOSTILE_FAKES:
    case HOSTILE_KINDS: break;
    }
    return count;
}
