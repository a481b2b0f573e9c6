/*
 * The exceptions, by the letters that the code below names:
 *
 * - A: a hash has no checksum. An entry whose trailer's hash was changed hides its key, which then reads as its older
 *   version or as nothing, and may be served, or be the damaged entry, of the key that the changed hash names.
 *
 * - B: where a whole trailer is lost nobody knows its key: that key too reads as older or absent. So does the key of
 *   any entry inside a range that is reported as hiding keys (R-04e, and what has no trailer), or whose end is no
 *   trailer as it was, and of any entry behind the tail or cut off.
 *
 * - C: a range is named by the trailer that stands at its end. If a trailer's bytes were moved there, the key it names
 *   is answered as damaged, or, if the payload fits, with that (R-04a).
 *
 * - D: R-04 b to d believe a link. Where the link of a later trailer was changed into an offset at which an entry holds
 *   or ended, or into 0, all that lies between is taken for the payload of one damaged entry.
 *
 * - E: an entry may hold inside another's value: a store that was stored as a value. It may be served where the outer
 *   entry is not intact and can't be told from a neighbour: its trailer is lost or cut off; or it is the first and has
 *   a zero byte beside its link; or its own successor is gone so that nothing proves it; or the links of what it stores
 *   lead down to its own. Or a change made something hold; it may then cover what lies between its link and its end.
 */
#include "oracle.h"

#include "holds.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What became of an entry. */
struct fate {
    bool whole;                    /* its place is not cut off */
    bool payload, hash, link, crc; /* unchanged */
    bool intact;
    uint64_t now_hash, now_link;
};

struct answer {
    rd_err err;
    rd_span payload;
};

struct judge {
    const struct image *image;
    rd_span bytes;
    rd_store *store;
    struct fate *fates;
    rd_store_info info;
    rd_range ranges[RD_DAMAGE_LISTED_MAX];
    size_t range_count;
    bool searched;
    struct holds holds;  /* in the damaged bytes; made when an exception must be looked for */
    struct holds before; /* in the image */
};

static _Thread_local char verdict[512];

__attribute__((format(printf, 1, 2))) static const char *wrong(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(verdict, sizeof(verdict), format, args);
    va_end(args);
    return verdict;
}

static void judge_fates(struct judge *judge)
{
    const uint8_t *was = judge->image->data, *now = judge->bytes.data;
    for (size_t i = 0; i < judge->image->count; i++) {
        const struct image_entry *entry = &judge->image->entries[i];
        struct fate *fate = &judge->fates[i];
        size_t trailer_off = entry->trailer_off;
        *fate = (struct fate){.whole = image_entry_end(entry) <= judge->bytes.len};
        if (!fate->whole)
            continue;
        fate->payload = memcmp(was + entry->start_off, now + entry->start_off, trailer_off - entry->start_off) == 0;
        fate->hash = memcmp(was + trailer_off, now + trailer_off, 8) == 0;
        fate->link = memcmp(was + trailer_off + 8, now + trailer_off + 8, 8) == 0;
        fate->crc = memcmp(was + trailer_off + 16, now + trailer_off + 16, 4) == 0;
        fate->intact = fate->payload && fate->hash && fate->link && fate->crc;
        fate->now_hash = image_le64(now + trailer_off);
        fate->now_link = image_le64(now + trailer_off + 8);
    }
}

static void search(struct judge *judge)
{
    if (judge->searched)
        return;
    judge->searched = true;
    holds_find(judge->bytes, 64, &judge->holds);
    holds_find((rd_span){judge->image->data, judge->image->len}, 64, &judge->before);
}

static void judge_fini(struct judge *judge)
{
    free(judge->fates);
    holds_fini(&judge->holds);
    holds_fini(&judge->before);
}

/* ---- What stands beside an entry -------------------------------------------------------------------------------- */

/* Whether the entry in front of entry `i` is intact and touches it; the first has the file's beginning there. */
static bool intact_before(const struct judge *judge, size_t i)
{
    if (i == 0)
        return judge->image->entries[0].prev_off == 0;
    return judge->fates[i - 1].intact &&
           image_entry_end(&judge->image->entries[i - 1]) == judge->image->entries[i].prev_off;
}

/* Whether the entry behind entry `i` is intact and proves where it ends. */
static bool intact_behind(const struct judge *judge, size_t i)
{
    return i + 1 < judge->image->count && judge->fates[i + 1].intact &&
           judge->image->entries[i + 1].prev_off == image_entry_end(&judge->image->entries[i]);
}

static bool ends_file(const struct judge *judge, size_t i)
{
    return i > 0 && i + 1 == judge->image->count && image_entry_end(&judge->image->entries[i]) == judge->bytes.len;
}

/* ---- Exceptions ------------------------------------------------------------------------------------------------- */

/* Whether the trailer at a range's end is the one that was there; of an entry that is served, its payload too. */
static bool is_named_truly(const struct judge *judge, const rd_range *range)
{
    for (size_t i = 0; i < judge->image->count; i++) {
        const struct fate *fate = &judge->fates[i];
        if (image_entry_end(&judge->image->entries[i]) == range->offset + range->size)
            return fate->hash && (range->kind != RD_DAMAGE_LINK || (fate->payload && fate->crc));
    }
    return false;
}

static bool exception_b(const struct judge *judge, size_t i)
{
    const struct image_entry *entry = &judge->image->entries[i];
    if (!judge->fates[i].whole || image_entry_end(entry) > judge->info.tail_off)
        return true;
    for (size_t k = 0; k < judge->range_count; k++) {
        const rd_range *range = &judge->ranges[k];
        bool hides =
            range->kind == RD_DAMAGE_RANGE || range->kind == RD_DAMAGE_UNIDENTIFIED || !is_named_truly(judge, range);
        if (hides && range->offset < image_entry_end(entry) && range->offset + range->size > entry->start_off)
            return true;
    }
    return judge->info.damaged_ranges > judge->range_count; /* it may be among those that are only counted */
}

/* Whether an answer is what stands in a range whose link alone is said to be damaged. */
static bool answers_from(const struct judge *judge, const struct answer *answer, const rd_range *range)
{
    const uint8_t *data = judge->bytes.data;
    size_t start_off = (size_t)range->offset, trailer_off = (size_t)(range->offset + range->size) - IMAGE_TRAILER;
    if (trailer_off - start_off != 1 || data[start_off] != 0)
        start_off += -start_off % 64;
    if (trailer_off - start_off == 1 && data[start_off] == 0)
        return answer->err == RD_ABSENT;
    return answer->err == RD_OK && answer->payload.len == trailer_off - start_off &&
           memcmp(answer->payload.data, data + start_off, answer->payload.len) == 0;
}

static bool exception_c(const struct judge *judge, uint64_t hash, size_t from_off, const struct answer *answer)
{
    for (size_t k = 0; k < judge->range_count; k++) {
        const rd_range *range = &judge->ranges[k];
        if (range->key_hash != hash || range->offset + range->size <= from_off || is_named_truly(judge, range))
            continue;
        if (range->kind == RD_DAMAGE_LINK ? answers_from(judge, answer, range) : answer->err == RD_E_DAMAGED)
            return true;
    }
    return judge->info.damaged_ranges > judge->range_count;
}

static bool ends_at(const struct judge *judge, uint64_t end_off)
{
    for (size_t i = 0; i < judge->image->count; i++)
        if (image_entry_end(&judge->image->entries[i]) == end_off)
            return true;
    return holds_at(&judge->holds, end_off) != NULL;
}

static bool exception_d(struct judge *judge, size_t i)
{
    search(judge);
    for (size_t k = i + 1; k < judge->image->count; k++) {
        const struct fate *fate = &judge->fates[k];
        if (fate->whole && !fate->link && fate->now_link <= judge->image->entries[i].trailer_off &&
            (fate->now_link == 0 || ends_at(judge, fate->now_link)))
            return true;
    }
    return false;
}

/* Whether entry `i`, which is not intact, may be passed over for what holds inside it at `hold`. */
static bool outer_gives_way(const struct judge *judge, size_t i, const struct hold *hold)
{
    const struct image_entry *entry = &judge->image->entries[i];
    const struct fate *fate = &judge->fates[i];
    if (fate->intact)
        return false;
    if (!fate->whole || !fate->hash || !fate->link || !fate->crc || !intact_behind(judge, i))
        return true;
    const uint8_t *trailer = (const uint8_t *)judge->bytes.data + entry->trailer_off;
    if (i == 0 && (trailer[7] == 0 || trailer[16] == 0))
        return true;
    return holds_at(&judge->before, hold->end_off) == NULL ||
           (entry->prev_off > 0 && holds_reach(&judge->holds, hold->end_off, entry->prev_off));
}

static bool exception_e_at(struct judge *judge, const struct hold *hold)
{
    for (size_t i = 0; i < judge->image->count; i++) {
        const struct image_entry *entry = &judge->image->entries[i];
        if (image_entry_end(entry) == hold->end_off)
            return !judge->fates[i].intact;
        if (hold->end_off > entry->start_off && hold->end_off < image_entry_end(entry))
            return outer_gives_way(judge, i, hold);
    }
    return true; /* in bytes that were appended */
}

/* Whether something false may stand for `hash` behind `from_off`. With `payload` it must be that. */
static bool exception_e(struct judge *judge, uint64_t hash, size_t from_off, const rd_span *payload)
{
    search(judge);
    for (size_t k = 0; k < judge->holds.count; k++) {
        const struct hold *hold = &judge->holds.list[k];
        if (hold->hash != hash || hold->end_off <= from_off)
            continue;
        size_t len = hold->end_off - IMAGE_TRAILER - hold->start_off;
        if (payload != NULL && (len != payload->len ||
                                memcmp((const uint8_t *)judge->bytes.data + hold->start_off, payload->data, len) != 0))
            continue;
        if (exception_e_at(judge, hold))
            return true;
    }
    return false;
}

/* Whether something that holds inside entry `i`, or around it, may hide that it is damaged. */
static bool exception_e_inside(struct judge *judge, size_t i)
{
    search(judge);
    const struct image_entry *entry = &judge->image->entries[i];
    size_t end_off = image_entry_end(entry);
    for (size_t k = 0; k < judge->holds.count; k++) {
        const struct hold *hold = &judge->holds.list[k];
        bool inside = hold->end_off > entry->start_off && hold->end_off < end_off;
        if (inside && outer_gives_way(judge, i, hold))
            return true;
        if (hold->end_off >= end_off && hold->link < end_off && exception_e_at(judge, hold))
            return true;
    }
    return false;
}

/* ---- One key ---------------------------------------------------------------------------------------------------- */

static bool answers_with(const struct judge *judge, const struct answer *answer, size_t i)
{
    const struct image_entry *entry = &judge->image->entries[i];
    rd_span payload = image_payload(judge->image, entry);
    if (entry->tombstone)
        return answer->err == RD_ABSENT;
    return answer->err == RD_OK && answer->payload.len == payload.len &&
           memcmp(answer->payload.data, payload.data, payload.len) == 0;
}

/* twenty equal bytes say nothing. */
static bool is_uniform(const struct judge *judge, size_t i)
{
    const uint8_t *trailer = (const uint8_t *)judge->bytes.data + judge->image->entries[i].trailer_off;
    return memcmp(trailer, trailer + 1, IMAGE_TRAILER - 1) == 0;
}

/* Entry `i`, damaged, is the newest of its key: must the answer be that it is damaged, or the entry itself? */
static bool must_be_named(const struct judge *judge, size_t i)
{
    const struct fate *fate = &judge->fates[i];
    return fate->whole && fate->hash && fate->link && !is_uniform(judge, i) && intact_before(judge, i) &&
           (intact_behind(judge, i) || ends_file(judge, i));
}

/* Nothing but its link is damaged, and both neighbours say where it lies: it is served (R-02, R-04a). */
static bool must_be_served(const struct judge *judge, size_t i)
{
    const struct fate *fate = &judge->fates[i];
    return fate->whole && fate->payload && fate->hash && fate->crc && intact_before(judge, i) &&
           intact_behind(judge, i);
}

static const char *judge_damaged_entry(struct judge *judge, uint64_t hash, const struct answer *answer, size_t i,
                                       bool *out_done)
{
    const struct image_entry *entry = &judge->image->entries[i];
    const struct fate *fate = &judge->fates[i];
    *out_done = true;
    if (fate->whole && fate->now_hash == hash) {
        if (fate->payload && fate->crc && answers_with(judge, answer, i))
            return NULL;
        bool named_again = exception_c(judge, hash, image_entry_end(entry), answer);
        if (must_be_served(judge, i) && fate->now_hash == entry->hash && !named_again && !exception_d(judge, i) &&
            !exception_e(judge, hash, entry->start_off, NULL))
            return wrong("entry %zu of %016llx has a damaged link alone and is not served: %s", i,
                         (unsigned long long)hash, rd_err_text(answer->err));
        if (answer->err == RD_E_DAMAGED)
            return NULL;
    }
    *out_done = false;
    if (entry->hash != hash || !fate->hash)
        return NULL; /* A */
    if (exception_c(judge, hash, image_entry_end(entry), answer))
        return NULL;
    const rd_span *payload = answer->err == RD_OK ? &answer->payload : NULL;
    if ((must_be_named(judge, i) || !exception_b(judge, i)) && exception_e(judge, hash, entry->start_off, payload))
        return NULL;
    if (must_be_named(judge, i) && !exception_d(judge, i) && !exception_e_inside(judge, i))
        return wrong("entry %zu of %016llx is damaged and its trailer names it, but the answer is: %s", i,
                     (unsigned long long)hash, rd_err_text(answer->err));
    if (!exception_b(judge, i) && !exception_d(judge, i) && !exception_e_inside(judge, i))
        return wrong("entry %zu of %016llx is damaged, in no range that hides keys, but the answer is: %s", i,
                     (unsigned long long)hash, rd_err_text(answer->err));
    return NULL;
}

static const char *judge_key(struct judge *judge, uint64_t hash, const struct answer *answer)
{
    size_t i = judge->image->count;
    while (i-- > 0) {
        const struct image_entry *entry = &judge->image->entries[i];
        const struct fate *fate = &judge->fates[i];
        if (entry->hash != hash && (!fate->whole || fate->now_hash != hash))
            continue;
        if (fate->intact)
            break;
        bool done;
        const char *fault = judge_damaged_entry(judge, hash, answer, i, &done);
        if (fault != NULL || done)
            return fault;
    }
    bool found = i != SIZE_MAX;
    size_t from_off = found ? image_entry_end(&judge->image->entries[i]) : 0;
    if (found ? answers_with(judge, answer, i) : answer->err == RD_ABSENT)
        return NULL;
    if (exception_c(judge, hash, from_off, answer) ||
        exception_e(judge, hash, from_off, answer->err == RD_OK ? &answer->payload : NULL))
        return NULL;
    if (answer->err == RD_OK && (!found || !exception_d(judge, i)))
        return wrong("%016llx is answered with %zu bytes that are not its newest value (entry %zd holds)",
                     (unsigned long long)hash, answer->payload.len, (ssize_t)i);
    if (found && exception_d(judge, i))
        return NULL;
    return found ? wrong("entry %zu of %016llx is intact, but the answer is: %s", i, (unsigned long long)hash,
                         rd_err_text(answer->err))
                 : wrong("%016llx has no value, but the answer is: %s", (unsigned long long)hash,
                         rd_err_text(answer->err));
}

/* ---- All of it -------------------------------------------------------------------------------------------------- */

static const char *judge_hash(struct judge *judge, uint64_t hash)
{
    rd_entry entry = {0};
    rd_metadata meta;
    rd_err err = rd_store_read_hash(judge->store, hash, &entry);
    rd_err exists = rd_store_exists_hash(judge->store, hash), known = rd_store_metadata_hash(judge->store, hash, &meta);
    struct answer answer = {err, entry.payload};
    const char *fault = NULL;
    if (exists != err || known != err)
        fault = wrong("%016llx: read says '%s', exists '%s', metadata '%s'", (unsigned long long)hash, rd_err_text(err),
                      rd_err_text(exists), rd_err_text(known));
    else if (err == RD_OK && image_crc(entry.payload.data, entry.payload.len) != meta.checksum)
        fault = wrong("%016llx is served with bytes that fail their checksum", (unsigned long long)hash);
    else
        fault = judge_key(judge, hash, &answer);
    rd_entry_release(&entry);
    return fault;
}

static int by_number(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* What iteration gives is what single reads give, each key once, and as many as the store counts. */
static const char *judge_iteration(struct judge *judge)
{
    rd_iter *iter = NULL;
    rd_entry got = {0};
    size_t max = judge->bytes.len / (IMAGE_TRAILER + 1) + 1, count = 0, live = 0, damaged = 0;
    uint64_t *hashes = malloc(max * sizeof(*hashes));
    const char *fault = NULL;
    if (hashes == NULL || rd_iter_create(judge->store, &iter) != RD_OK)
        abort();
    for (rd_err err = rd_iter_next(iter, &got); err != RD_ABSENT && fault == NULL; err = rd_iter_next(iter, &got)) {
        uint64_t hash = got.meta.key_hash;
        rd_entry read = {0};
        rd_err single = rd_store_read_hash(judge->store, hash, &read);
        if (single != err)
            fault = wrong("%016llx is iterated as '%s' and read as '%s'", (unsigned long long)hash, rd_err_text(err),
                          rd_err_text(single));
        else if (err == RD_OK && (read.payload.len != got.payload.len ||
                                  memcmp(read.payload.data, got.payload.data, got.payload.len) != 0))
            fault = wrong("%016llx is iterated and read with different values", (unsigned long long)hash);
        else if (count == max)
            fault = wrong("iteration does not end");
        else
            fault = judge_hash(judge, hash);
        rd_entry_release(&read);
        live += err == RD_OK;
        damaged += err == RD_E_DAMAGED;
        if (fault == NULL)
            hashes[count++] = hash;
    }
    rd_iter_destroy(iter);
    qsort(hashes, count, sizeof(*hashes), by_number);
    for (size_t i = 1; i < count && fault == NULL; i++)
        if (hashes[i] == hashes[i - 1])
            fault = wrong("%016llx is iterated twice", (unsigned long long)hashes[i]);
    free(hashes);
    if (fault == NULL && (live != judge->info.live_keys || damaged != judge->info.damaged_entries))
        fault = wrong("%zu keys and %zu damaged ones are iterated, %llu and %llu counted", live, damaged,
                      (unsigned long long)judge->info.live_keys, (unsigned long long)judge->info.damaged_entries);
    return fault;
}

const char *oracle_judge(const struct image *image, rd_span damaged, rd_store *store)
{
    struct judge judge = {.image = image, .bytes = damaged, .store = store};
    judge.fates = malloc((image->count + 1) * sizeof(*judge.fates));
    if (judge.fates == NULL || rd_store_info_get(store, &judge.info) != RD_OK)
        abort();
    judge.range_count = rd_store_damage(store, judge.ranges, RD_DAMAGE_LISTED_MAX);
    judge_fates(&judge);
    const char *fault = NULL;
    for (size_t i = 0; i < image->count && fault == NULL; i++) {
        fault = judge_hash(&judge, image->entries[i].hash);
        if (fault == NULL && judge.fates[i].whole && !judge.fates[i].hash)
            fault = judge_hash(&judge, judge.fates[i].now_hash);
    }
    if (fault == NULL)
        fault = judge_iteration(&judge);
    judge_fini(&judge);
    return fault;
}

const char *oracle_judge_refusal(const struct image *image, rd_span damaged, rd_err err)
{
    struct judge judge = {.image = image, .bytes = damaged};
    size_t intact = 0;
    struct holds old[2] = {0};
    judge.fates = malloc((image->count + 1) * sizeof(*judge.fates));
    if (judge.fates == NULL)
        abort();
    judge_fates(&judge);
    for (size_t i = 0; i < image->count; i++)
        intact += judge.fates[i].intact;
    holds_find(damaged, 16, &old[0]);
    holds_find(damaged, 1, &old[1]);
    bool aligned_otherwise = err == RD_E_ALIGNMENT && old[0].count + old[1].count > 0; /* E-13 */
    bool nothing_held = err == RD_E_NOT_STORE && intact == 0 && damaged.len > 0;       /* */
    for (size_t i = 0; i < 2; i++)
        holds_fini(&old[i]);
    judge_fini(&judge);
    return aligned_otherwise || nothing_held ? NULL
                                             : wrong("refused, with %zu entries intact: %s", intact, rd_err_text(err));
}
