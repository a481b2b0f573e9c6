/* Is an index file of this store (I-06 to I-09)? */
#include "base.h"
#include "guard.h"
#include "index_file_internal.h"
#include <sys/stat.h>

struct comparison {
    const struct loading *loading;
    bool same;
};

/* I-07 */
static void compare_leaf(void *argument)
{
    struct comparison *comparison = argument;
    const struct raw_index_head *head = comparison->loading->head;
    const uint8_t *base = comparison->loading->call->mapping->base;
    for (uint32_t i = 0; i < load_le32(head->mark_count); i++) {
        const struct raw_index_mark *mark = &head->marks[i];
        if (memcmp(mark->trailer, base + load_le64(mark->trailer_off), sizeof(mark->trailer)) != 0)
            return;
    }
    comparison->same = index_recent_sum(base, comparison->loading->tail_off) == load_le64(head->recent);
}

/* I-07: the very file, as long as it was then, has not been written to since. Cut and appended to, it may look alike.
 */
static bool is_untouched(const struct loading *loading)
{
    struct stat st;
    if (fstat(loading->call->file->fd, &st) != 0)
        return false;
    return load_le64(loading->head->made_of) != index_made_of(&st) ||
           load_le64(loading->head->modified_ns) == index_modified_ns(&st);
}

static bool is_remembered(const struct layout *layout, const struct damage *damage, const struct torn_ranges *torn)
{
    for (size_t i = 0; i < torn->count; i++) {
        const struct torn_range *range = &torn->ranges[i];
        if (damage->begin_off < range->begin_off || damage->end_off > range->end_off)
            continue;
        uint64_t bytes = 0;
        for (size_t d = 0; d < layout->damage_count; d++)
            if (layout->damage[d].kind != RD_DAMAGE_LINK && layout->damage[d].begin_off >= range->begin_off &&
                layout->damage[d].end_off <= range->end_off)
                bytes += layout->damage[d].end_off - layout->damage[d].begin_off;
        return bytes == range->torn_bytes;
    }
    return false;
}

/* I-08: what is torn and what is damaged goes by STORE.writer as it is now. Where that would have to be judged anew,
   everything is. */
static bool is_damage_agreed(const struct loading *loading)
{
    const struct layout *layout = loading->found.layout;
    const struct recover_options *options = loading->call->options;
    for (size_t i = 0; i < layout->damage_count; i++) {
        const struct damage *damage = &layout->damage[i];
        if (damage->kind == RD_DAMAGE_LINK)
            continue;
        if (options->synced_off != SYNCED_UNKNOWN && damage->begin_off >= options->synced_off)
            return false;
        if (is_remembered(layout, damage, &options->torn) != (damage->kind == DAMAGE_TORN))
            return false;
    }
    return true;
}

/* I-09: what lies above T was appended by a writer of ours, who says so in STORE.writer: he began after the file was
   made, or knows it all to be durable. */
static bool is_growth_ours(const struct loading *loading, uint64_t tail_off)
{
    struct stat st;
    struct writer_said said;
    if (fstat(loading->call->file->fd, &st) != 0)
        return false;
    uint64_t writer = index_file_writer(loading->call->store_path, (uint64_t)st.st_ino, &said);
    return writer != 0 && said.synced_off >= loading->tail_off &&
           (writer != load_le64(loading->head->writer) || said.synced_off >= tail_off);
}

/* R-01 checks the newest entry always, and so does this. */
static rd_err check_newest(struct loading *loading)
{
    const struct snapshot snapshot = {.mapping = &loading->below, .tail_off = loading->tail_off};
    struct entry entry;
    rd_err err = snapshot_entry(&snapshot, loading->tail_off - RD_TRAILER_SIZE, &entry);
    if (err == RD_OK)
        err = snapshot_check(&snapshot, &entry, loading->call->options->cancel);
    if (err == RD_E_CANCELLED)
        return err;
    return err == RD_OK ? RD_OK : refuse(loading, RD_INDEX_CHANGED);
}

rd_err loading_compare(struct loading *loading)
{
    struct comparison comparison = {.loading = loading};
    const struct index_file_call *call = loading->call;
    if (loading->tail_off > call->bytes)
        return refuse(loading, RD_INDEX_SHORTENED);
    if (!guard_run(call->mapping->base, (size_t)loading->tail_off, compare_leaf, &comparison) || !comparison.same)
        return refuse(loading, RD_INDEX_CHANGED);
    uint64_t bytes_now = call->bytes; /* a writer may be at work, and STORE.writer was read later */
    if (file_size(call->file, &bytes_now) != RD_OK)
        return refuse(loading, RD_INDEX_UNREADABLE);
    if (call->options->synced_off != SYNCED_UNKNOWN && call->options->synced_off > bytes_now)
        return refuse(loading, RD_INDEX_SHORTENED); /* more was durable once */
    if (!is_damage_agreed(loading))
        return refuse(loading, RD_INDEX_TORN);
    if (call->bytes > loading->tail_off)
        return RD_OK;
    return is_untouched(loading) ? check_newest(loading) : refuse(loading, RD_INDEX_CHANGED);
}

rd_err loading_recover_above(struct loading *loading, struct recovered *out_above)
{
    const struct index_file_call *call = loading->call;
    struct recover_options options = *call->options;
    uint64_t fault_off;
    options.floor_off = loading->tail_off;
    rd_err err = recover(call->mapping->base, call->bytes, &options, &fault_off, out_above);
    if (err == RD_E_CANCELLED)
        return err;
    if (err != RD_OK)
        return refuse(loading, err == RD_E_NOMEM ? RD_INDEX_UNREADABLE : RD_INDEX_BROKEN);
    if (is_growth_ours(loading, out_above->tail_off))
        return RD_OK;
    recovered_fini(out_above);
    *out_above = (struct recovered){.layout = NULL};
    return refuse(loading, RD_INDEX_APPENDED);
}
