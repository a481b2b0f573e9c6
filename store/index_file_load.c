/* Opening by STORE.idx: is it whole (I-02 to I-05), is it of this store (index_file_trust.c), then the table, in pieces
   on all cores, and what was appended since. */
#include "base.h"
#include "index_file_internal.h"
#include "thread.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#define OPEN_FLAGS       (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
#define OTHERS_WRITE     022u
#define THREADS_MAX      16u
#define THREAD_BYTES_MIN ((uint64_t)2 << 20) /* of slots: a thread costs as much as reading a tenth of that */

static void loading_fini(struct loading *loading)
{
    if (loading->fd >= 0)
        close(loading->fd);
    free(loading->front);
    recovered_fini(&loading->found);
}

static bool is_cancelled(const struct loading *loading)
{
    const atomic_bool *cancel = loading->call->options->cancel;
    return cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed);
}

/* All of [offset, offset + len). Returns: false where it isn't there, with errno 0, or can't be read. */
static bool read_all(int fd, void *into, uint64_t len, uint64_t offset)
{
    for (uint64_t done = 0; done < len;) {
        ssize_t got = pread(fd, (uint8_t *)into + done, (size_t)(len - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = 0;
        if (got <= 0)
            return false;
        done += (uint64_t)got;
    }
    return true;
}

/* ---- is it whole? ------------------------------------------------------------------------------------------------ */

/* I-06: whoever could write it must be one who could write the store. */
static bool is_safe(const struct stat *file, const struct stat *store)
{
    bool owned = file->st_uid == store->st_uid || file->st_uid == 0 || file->st_uid == geteuid();
    mode_t allowed = file->st_gid == store->st_gid ? store->st_mode : store->st_mode & (mode_t)~S_IWGRP;
    return owned && (file->st_mode & ~allowed & OTHERS_WRITE) == 0;
}

/* I-12: a store whose own name the options give has no index, neither now nor at its close. */
static rd_err forget_path(struct loading *loading, struct index_file *file)
{
    free(file->path);
    file->path = NULL;
    return refuse(loading, RD_INDEX_OTHER);
}

static rd_err open_index(struct loading *loading, struct index_file *index)
{
    struct stat file;
    struct stat store;
    loading->fd = open(index->path, OPEN_FLAGS | (index->beside ? O_NOFOLLOW : 0));
    if (loading->fd < 0)
        return refuse(loading, errno == ENOENT ? RD_INDEX_NONE : errno == ELOOP ? RD_INDEX_OTHER : RD_INDEX_UNREADABLE);
    if (fstat(loading->fd, &file) != 0 || fstat(loading->call->file->fd, &store) != 0)
        return refuse(loading, RD_INDEX_UNREADABLE);
    if (file.st_ino == store.st_ino && file.st_dev == store.st_dev)
        return forget_path(loading, index);
    if (!S_ISREG(file.st_mode))
        return refuse(loading, RD_INDEX_OTHER);
    if (!is_safe(&file, &store))
        return refuse(loading, RD_INDEX_UNSAFE);
    loading->file_len = (uint64_t)file.st_size;
    return RD_OK;
}

/* The front, whole. I-04: its checksum is looked at before anything in it is believed; the counts only say how much
   there is to sum, and that is no more than the file has. */
static rd_err read_front(struct loading *loading)
{
    struct raw_index_head head;
    if (!read_all(loading->fd, &head, sizeof(head), 0))
        return refuse(loading, errno != 0 ? RD_INDEX_UNREADABLE : RD_INDEX_OTHER);
    if (memcmp(head.magic, INDEX_FILE_MAGIC, sizeof(head.magic)) != 0)
        return refuse(loading, RD_INDEX_OTHER);
    if (load_le32(head.version) != INDEX_FILE_VERSION)
        return refuse(loading, RD_INDEX_VERSION);
    if (load_le64(head.file_len) != loading->file_len || !index_places_of(&head, &loading->places) ||
        loading->places.file_len != loading->file_len)
        return refuse(loading, RD_INDEX_HARMED);
    loading->front = malloc((size_t)loading->places.slots_off);
    if (loading->front == NULL)
        return refuse(loading, RD_INDEX_UNREADABLE);
    if (!read_all(loading->fd, loading->front, loading->places.slots_off, 0))
        return refuse(loading, errno != 0 ? RD_INDEX_UNREADABLE : RD_INDEX_HARMED);
    loading->head = (const struct raw_index_head *)loading->front;
    if (memcmp(&head, loading->head, sizeof(head)) != 0 ||
        index_front_sum(loading->front, &loading->places) != load_le64(head.checksum))
        return refuse(loading, RD_INDEX_HARMED);
    return RD_OK;
}

/* I-03: the figures go together. A sum says only that nobody changed them by accident. */
static bool are_figures_possible(const struct recovered *found, uint64_t used, uint64_t damage_count)
{
    uint64_t tail_off = found->tail_off;
    return tail_off >= RD_ENTRY_MIN && tail_off <= RD_OFFSET_MAX && found->entries > 0 &&
           found->entries <= tail_off / RD_ENTRY_MIN && found->live_keys <= found->entries &&
           found->damaged_keys <= damage_count && found->live_keys + found->damaged_keys <= used &&
           used <= found->entries + damage_count && found->live_bytes <= tail_off &&
           found->live_stored <= tail_off + RD_ALIGNMENT * found->live_keys;
}

/* I-03: marks ascend, from the first trailer to the last. */
static bool are_marks_possible(const struct raw_index_head *head, uint64_t tail_off)
{
    uint32_t count = load_le32(head->mark_count);
    uint64_t before = 0;
    if (count == 0 || count > INDEX_MARKS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t off = load_le64(head->marks[i].trailer_off);
        if (off <= before || off > tail_off - RD_TRAILER_SIZE)
            return false;
        before = off;
    }
    return before == tail_off - RD_TRAILER_SIZE;
}

/* I-05: ranges that don't overlap, from the end down, and none ends at T: what is right there has no end. */
static rd_err take_damage(struct loading *loading)
{
    struct layout *layout = loading->found.layout;
    const struct raw_index_damage *raw = (const void *)(loading->front + loading->places.damage_off);
    uint64_t below = loading->tail_off;
    for (uint64_t i = 0; i < load_le64(loading->head->damage_count); i++) {
        struct damage damage = {.begin_off = load_le64(raw[i].begin_off),
                                .end_off = load_le64(raw[i].end_off),
                                .key_hash = load_le64(raw[i].key_hash),
                                .kind = raw[i].kind,
                                .has_key = raw[i].has_key == 1};
        bool is_link = damage.kind == RD_DAMAGE_LINK;
        uint64_t least = is_link ? RD_ENTRY_MIN : damage.has_key ? RD_TRAILER_SIZE : 1;
        if (damage.kind > DAMAGE_TORN || damage.end_off > below || damage.end_off == loading->tail_off ||
            damage.begin_off > damage.end_off || damage.end_off - damage.begin_off < least)
            return refuse(loading, RD_INDEX_HARMED);
        rd_err err = layout_add(layout, &damage);
        if (err != RD_OK)
            return refuse_for(loading, err);
        below = damage.begin_off;
    }
    return RD_OK;
}

/* I-05: the ends of entries whose payloads nobody has checked, from the end down; behind those that were appended
   since, which `found.layout` has already. */
static rd_err take_provisional(struct loading *loading)
{
    uint64_t below = loading->tail_off + 1;
    for (uint64_t i = 0; i < load_le64(loading->head->provisional_count); i++) {
        uint64_t end_off = load_le64(loading->front + loading->places.provisional_off + i * sizeof(uint64_t));
        if (end_off < RD_ENTRY_MIN || end_off >= below)
            return refuse(loading, RD_INDEX_HARMED);
        rd_err err = layout_add_provisional(loading->found.layout, end_off);
        if (err != RD_OK)
            return refuse_for(loading, err);
        below = end_off;
    }
    return RD_OK;
}

static rd_err take_front(struct loading *loading)
{
    const struct raw_index_head *head = loading->head;
    struct recovered *found = &loading->found;
    found->tail_off = loading->tail_off = load_le64(head->tail_off);
    found->entries = load_le64(head->entries);
    found->live_keys = load_le64(head->live_keys);
    found->live_bytes = load_le64(head->live_bytes);
    found->live_stored = load_le64(head->live_stored);
    found->damaged_keys = load_le64(head->damaged_keys);
    if (!are_figures_possible(found, load_le64(head->used), load_le64(head->damage_count)) ||
        !are_marks_possible(head, loading->tail_off))
        return refuse(loading, RD_INDEX_HARMED);
    rd_err err = layout_create(&found->layout);
    loading->below.base = loading->call->mapping->base;
    loading->below.layout = found->layout;
    return err == RD_OK ? take_damage(loading) : refuse_for(loading, err);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

struct pieces {
    struct loading *loading;
    struct slot *slots;
    uint64_t flags; /* that words may have */
    atomic_uint_least64_t next;
    atomic_uint_least64_t used, deleted, damaged;
    _Atomic int failed; /* an rd_index_source, or RD_INDEX_SNAPSHOT */
};

/* How many of the words say that a key is deleted, and damaged. Nobody else looks yet: plain loads. */
static void count_flags(struct pieces *pieces, const struct raw_index_slot *slots, size_t count)
{
    uint64_t deleted = 0;
    uint64_t damaged = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t word = load_le64(slots[i].word);
        deleted += (word & WORD_TOMBSTONE) != 0;
        damaged += (word & WORD_DAMAGED) != 0;
    }
    atomic_fetch_add_explicit(&pieces->deleted, deleted, memory_order_relaxed);
    atomic_fetch_add_explicit(&pieces->damaged, damaged, memory_order_relaxed);
}

/* One piece: read, summed and looked through while it is in the core's cache. */
static rd_index_source load_piece(struct pieces *pieces, uint64_t n)
{
    const struct loading *loading = pieces->loading;
    uint64_t len;
    uint64_t offset = index_piece(loading->head, &loading->places, n, &len);
    uint8_t *into = (uint8_t *)pieces->slots + offset;
    if (!read_all(loading->fd, into, len, loading->places.slots_off + offset))
        return errno != 0 ? RD_INDEX_UNREADABLE : RD_INDEX_HARMED;
    uint64_t sum = load_le64(loading->front + loading->places.sums_off + n * sizeof(uint64_t));
    if (index_sum(into, len) != sum)
        return RD_INDEX_HARMED;
    const struct raw_index_slot *first = (const struct raw_index_slot *)into;
    size_t slots = (size_t)(len / sizeof(*first));
    size_t blocks = slots / load_le32(loading->head->block_slots);
    uint64_t end_off = loading->tail_off - RD_TRAILER_SIZE + 1;
    size_t used = index_check_blocks(&loading->found.index, (size_t)n * PIECE_BLOCKS, blocks, end_off, pieces->flags);
    if (used == SIZE_MAX)
        return RD_INDEX_HARMED;
    atomic_fetch_add_explicit(&pieces->used, used, memory_order_relaxed);
    count_flags(pieces, first, slots);
    return RD_INDEX_SNAPSHOT;
}

static void *load_pieces(void *argument)
{
    struct pieces *pieces = argument;
    rd_index_source source = RD_INDEX_SNAPSHOT;
    while (source == RD_INDEX_SNAPSHOT && atomic_load(&pieces->failed) == RD_INDEX_SNAPSHOT &&
           !is_cancelled(pieces->loading)) {
        uint64_t n = atomic_fetch_add(&pieces->next, 1);
        if (n >= pieces->loading->places.pieces)
            break;
        source = load_piece(pieces, n);
    }
    if (source != RD_INDEX_SNAPSHOT)
        atomic_store(&pieces->failed, (int)source);
    return NULL;
}

/* As many as have something to do, this one included. */
static size_t thread_count(uint64_t slot_bytes)
{
    cpu_set_t cores;
    uint64_t count = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? (uint64_t)CPU_COUNT(&cores) : 1;
    uint64_t most = slot_bytes / THREAD_BYTES_MIN;
    count = count < most ? count : most;
    return count < 1 ? 1 : count > THREADS_MAX ? THREADS_MAX : (size_t)count;
}

static rd_err load_table(struct loading *loading)
{
    const struct raw_index_head *head = loading->head;
    struct recovered *found = &loading->found;
    const struct index_image image = {.secret = load_le64(head->secret),
                                      .used = load_le64(head->used),
                                      .blocks_log2 = load_le32(head->blocks_log2),
                                      .block_slots = load_le32(head->block_slots)};
    struct pieces pieces = {.loading = loading,
                            .flags = WORD_TOMBSTONE | (found->damaged_keys > 0 ? WORD_DAMAGED : 0),
                            .failed = RD_INDEX_SNAPSHOT};
    rd_err err = index_init_image(&found->index, &image, &pieces.slots);
    if (err != RD_OK)
        return refuse(loading, err == RD_E_NOMEM ? RD_INDEX_UNREADABLE : RD_INDEX_HARMED);
    pthread_t threads[THREADS_MAX];
    size_t started = 0;
    size_t wanted = thread_count(loading->places.slot_bytes) - 1;
    while (started < wanted && thread_start(load_pieces, &pieces, &threads[started]) == RD_OK)
        started++; /* without one, this thread does more */
    load_pieces(&pieces);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (is_cancelled(loading))
        return RD_E_CANCELLED;
    if (atomic_load(&pieces.failed) != RD_INDEX_SNAPSHOT)
        return refuse(loading, (rd_index_source)atomic_load(&pieces.failed));
    const struct index_tally deleted = {.tombstones = (size_t)atomic_load(&pieces.deleted)};
    if (atomic_load(&pieces.used) != image.used || atomic_load(&pieces.damaged) != found->damaged_keys ||
        found->live_keys + found->damaged_keys + deleted.tombstones != image.used)
        return refuse(loading, RD_INDEX_HARMED);
    index_added(&found->index, &deleted);
    return RD_OK;
}

/* ---- what was appended since ------------------------------------------------------------------------------------- */

/* Take what a superseded word stood for off the figures. Returns: false where it can't have been in them. */
static bool forget(struct loading *loading, uint64_t word)
{
    struct recovered *found = &loading->found;
    const struct snapshot snapshot = {.mapping = &loading->below, .tail_off = loading->tail_off};
    struct entry entry;
    if (word == WORD_NONE || (word & WORD_TOMBSTONE) != 0)
        return true;
    if ((word & WORD_DAMAGED) != 0)
        return found->damaged_keys-- > 0;
    if (snapshot_entry(&snapshot, word_off(word), &entry) != RD_OK)
        return false;
    uint64_t payload_len = entry_payload_len(&entry);
    uint64_t stored_len = entry_stored_len(&entry);
    if (found->live_keys == 0 || found->live_bytes < payload_len || found->live_stored < stored_len)
        return false;
    found->live_keys--;
    found->live_bytes -= payload_len;
    found->live_stored -= stored_len;
    return true;
}

/* Returns: RD_OK; RD_ABSENT, refused. */
static rd_err merge_words(struct loading *loading, const struct recovered *above, struct sighting *sightings)
{
    struct index *index = &loading->found.index;
    struct index_cursor cursor = {0};
    rd_err err = index_reserve(index, index_used(&above->index));
    while (err == RD_OK && !cursor.ended) {
        size_t count;
        err = index_scan(&above->index, &cursor, sightings, &count);
        for (size_t i = 0; err == RD_OK && i < count; i++)
            if (!forget(loading, index_set(index, sightings[i].hash, sightings[i].word)))
                return refuse(loading, RD_INDEX_CHANGED);
    }
    return err == RD_OK ? RD_OK : refuse_for(loading, err);
}

/* F-08: what lies above T is newer. Its provisional ends come first: the layout has them from the end down. */
static rd_err merge_above(struct loading *loading, const struct recovered *above)
{
    struct recovered *found = &loading->found;
    struct sighting *sightings = malloc(BLOCK_SLOTS * sizeof(*sightings));
    if (sightings == NULL)
        return refuse(loading, RD_INDEX_UNREADABLE);
    rd_err err = merge_words(loading, above, sightings);
    free(sightings);
    RD_TRY(err);
    for (size_t i = 0; i < above->layout->provisional_count; i++) {
        err = layout_add_provisional(found->layout, above->layout->provisional[i]);
        if (err != RD_OK)
            return refuse_for(loading, err);
    }
    found->tail_off = above->tail_off;
    found->entries += above->entries;
    found->live_keys += above->live_keys;
    found->live_bytes += above->live_bytes;
    found->live_stored += above->live_stored;
    return RD_OK;
}

static rd_err load(struct loading *loading)
{
    struct recovered above = {.layout = NULL};
    RD_TRY(read_front(loading));
    RD_TRY(take_front(loading));
    RD_TRY(loading_compare(loading));
    bool grew = loading->call->bytes > loading->tail_off;
    if (grew)
        RD_TRY(loading_recover_above(loading, &above));
    rd_err err = load_table(loading);
    if (err == RD_OK && grew)
        err = merge_above(loading, &above);
    if (err == RD_OK)
        err = take_provisional(loading);
    recovered_fini(&above);
    return err;
}

rd_err index_file_load(struct index_file *file, const struct index_file_call *call, struct recovered *out_found)
{
    struct loading loading = {.call = call, .fd = -1};
    rd_err err = RD_ABSENT;
    file->source = RD_INDEX_OFF;
    if (file->path != NULL) {
        err = open_index(&loading, file);
        if (err == RD_OK)
            err = load(&loading);
        file->source = err == RD_OK ? RD_INDEX_SNAPSHOT : loading.source;
    }
    if (err == RD_OK) {
        file->entries = load_le64(loading.head->entries);
        file->first_off = load_le64(loading.head->marks[0].trailer_off);
        *out_found = loading.found;
        loading.found = (struct recovered){.layout = NULL};
    }
    loading_fini(&loading);
    return err;
}
