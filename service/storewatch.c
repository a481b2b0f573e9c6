#include "storewatch.h"
#include "log.h"

static bool is_listed(const struct storewatch *watch, uint64_t offset)
{
    for (size_t i = 0; i < watch->listed_count; i++)
        if (watch->listed[i] == offset)
            return true;
    return false;
}

/* A line for each range that has none yet, up to RD_DAMAGE_LISTED_MAX of them in all, and one for the whole. */
static void tell_damage(struct storewatch *watch, const rd_store_info *info)
{
    rd_range ranges[RD_DAMAGE_LISTED_MAX];
    size_t count = rd_store_damage(watch->store, ranges, RD_DAMAGE_LISTED_MAX);
    for (size_t i = 0; i < count && watch->listed_count < RD_DAMAGE_LISTED_MAX; i++) {
        if (is_listed(watch, ranges[i].offset))
            continue;
        watch->listed[watch->listed_count++] = ranges[i].offset;
        LOG(LOG_WARN, "damaged range", LOG_NUMBER("offset", ranges[i].offset), LOG_NUMBER("bytes", ranges[i].size),
            LOG_TEXT("what", ranges[i].what));
    }
    LOG(LOG_WARN, "damage", LOG_NUMBER("damaged_keys", info->damaged_entries),
        LOG_NUMBER("ranges", info->damaged_ranges), LOG_NUMBER("unidentified", info->unidentified_ranges),
        LOG_NUMBER("generation", info->generation));
}

void storewatch_begin(struct storewatch *watch, rd_store *store, const rd_store_info *info)
{
    *watch = (struct storewatch){.store = store, .told = *info};
    if (info->damaged_ranges > 0 || info->damaged_entries > 0)
        tell_damage(watch, info);
}

static void tell_file(const rd_store_info *info)
{
    struct log_field size = LOG_NUMBER("file_bytes", info->file_size);
    struct log_field tail = LOG_NUMBER("tail_offset", info->tail_off);
    switch (info->file_state) {
    case RD_FILE_SAME: LOG(LOG_INFO, "file as before", size, tail); return;
    case RD_FILE_GREW:
        LOG(LOG_WARN, "file grew", size, tail, LOG_TEXT("what", "what was appended is not served before a restart"));
        return;
    case RD_FILE_REPLACED:
        LOG(LOG_WARN, "file replaced", size, tail,
            LOG_TEXT("what", "the path names another file or none; the one that was opened is served until a restart"));
        return;
    case RD_FILE_SHRUNK:
        LOG(LOG_ERROR, "file cut", size, tail,
            LOG_TEXT("what", "it ends before what is served; keys that lie behind its end answer DATA_LOSS"));
        return;
    }
}

static struct storewatch_state state_of(const rd_store_info *info)
{
    return (struct storewatch_state){.whole = info->file_state != RD_FILE_SHRUNK, .writing = info->writable};
}

struct storewatch_state storewatch_look(struct storewatch *watch)
{
    rd_store_info info;
    const rd_store_info *told = &watch->told;
    if (rd_store_info_get(watch->store, &info) != RD_OK)
        return state_of(told); /* nobody can tell */
    if (info.damaged_entries > told->damaged_entries || info.damaged_ranges > told->damaged_ranges)
        tell_damage(watch, &info);
    if (info.file_state != told->file_state)
        tell_file(&info);
    if (told->writable && !info.writable)
        LOG(LOG_ERROR, "writing ended", LOG_NUMBER("file_bytes", info.file_size),
            LOG_NUMBER("tail_offset", info.tail_off), LOG_TEXT("what", rd_err_text(RD_E_ENDED)));
    if (info.generation != told->generation && (info.entries < told->entries || info.file_size < told->file_size))
        LOG(LOG_INFO, "compacted", LOG_NUMBER("entries", info.entries), LOG_NUMBER("file_bytes", info.file_size),
            LOG_NUMBER("file_bytes_before", told->file_size), LOG_NUMBER("generation", info.generation));
    watch->told = info;
    return state_of(&info);
}
