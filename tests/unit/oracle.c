#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t truth_end(const struct truth *truth)
{
    return truth->trailer_off + TRAILER_LEN;
}

struct oracle oracle_of(const struct bytes *file)
{
    struct oracle oracle = {.file = file->data, .truths = calloc(file->len / 21 + 1, sizeof(struct truth))};
    EXPECT(oracle.truths != NULL, "no memory");
    for (uint64_t end = file->len; end > 0;) {
        EXPECT(end > TRAILER_LEN, "the chain is broken at %llu", (unsigned long long)end);
        uint64_t trailer = end - TRAILER_LEN, prev = load_le64(file->data + trailer + 8);
        EXPECT(prev < trailer, "the link at %llu is broken", (unsigned long long)trailer);
        bool tombstone = trailer - prev == 1 && file->data[prev] == 0;   /* F-05 */
        uint64_t start = tombstone ? prev : (prev + 63) & ~UINT64_C(63); /* F-02 */
        oracle.truths[oracle.truth_count++] = (struct truth){
            load_le64(file->data + trailer), prev, start, trailer, tombstone, WHOLE,
        };
        end = prev;
    }
    for (size_t i = 0; i < oracle.truth_count / 2; i++) {
        struct truth swap = oracle.truths[i];
        oracle.truths[i] = oracle.truths[oracle.truth_count - 1 - i];
        oracle.truths[oracle.truth_count - 1 - i] = swap;
    }
    return oracle;
}

void oracle_fini(struct oracle *oracle)
{
    free(oracle->truths);
    free(oracle->answers);
    *oracle = (struct oracle){0};
}

struct truth *oracle_truth_at(const struct oracle *oracle, uint64_t offset)
{
    for (size_t i = 0; i < oracle->truth_count; i++)
        if (offset < truth_end(&oracle->truths[i]))
            return &oracle->truths[i];
    support_fail(__FILE__, __LINE__, "an entry", "none at %llu", (unsigned long long)offset);
}

void oracle_reset(struct oracle *oracle)
{
    for (size_t i = 0; i < oracle->truth_count; i++)
        oracle->truths[i].fate = WHOLE;
    oracle->answer_count = 0;
}

static bool differ(const struct oracle *oracle, const struct bytes *damaged, uint64_t from, uint64_t to)
{
    return memcmp(oracle->file + from, damaged->data + from, to - from) != 0;
}

void oracle_compare(struct oracle *oracle, const struct bytes *damaged)
{
    oracle_reset(oracle);
    for (size_t i = 0; i < oracle->truth_count; i++) {
        struct truth *truth = &oracle->truths[i];
        uint64_t trailer = truth->trailer_off;
        if (truth_end(truth) > damaged->len)
            truth->fate = CUT_OFF;
        else if (differ(oracle, damaged, trailer, trailer + 8))
            truth->fate = NAMELESS;
        else if (differ(oracle, damaged, truth->start_off, trailer) ||
                 differ(oracle, damaged, trailer + 16, trailer + 20))
            truth->fate = HIT;
        else if (differ(oracle, damaged, trailer + 8, trailer + 16))
            truth->fate = LINK_HIT;
    }
}

/* ---- What may be answered --------------------------------------------------------------------------------------- */

static struct answer *answer_find(const struct oracle *oracle, uint64_t key_hash)
{
    for (size_t i = 0; i < oracle->answer_count; i++)
        if (oracle->answers[i].key_hash == key_hash)
            return &oracle->answers[i];
    return NULL;
}

rd_span truth_value(const struct oracle *oracle, const struct truth *truth)
{
    return (rd_span){oracle->file + truth->start_off, truth->trailer_off - truth->start_off};
}

struct answer *oracle_allow(struct oracle *oracle, uint64_t key_hash, rd_span value, unsigned may)
{
    struct answer *answer = answer_find(oracle, key_hash);
    if (answer == NULL) {
        if (oracle->answer_count == oracle->answer_capacity) {
            oracle->answer_capacity = 2 * oracle->answer_capacity + 16;
            oracle->answers = realloc(oracle->answers, oracle->answer_capacity * sizeof *oracle->answers);
            EXPECT(oracle->answers != NULL, "no memory");
        }
        answer = &oracle->answers[oracle->answer_count++];
    }
    *answer = (struct answer){.key_hash = key_hash, .value = value, .may = may};
    return answer;
}

void oracle_answer(struct oracle *oracle)
{
    for (size_t i = oracle->truth_count; i-- > 0;) {
        const struct truth *truth = &oracle->truths[i];
        const struct answer *newer = answer_find(oracle, truth->key_hash);
        rd_span value = truth_value(oracle, truth);
        unsigned sound = truth->tombstone ? MAY_ABSENT : MAY_VALUE;
        if (newer != NULL && newer->may != 0)
            continue; /* */
        if (truth->fate == WHOLE)
            oracle_allow(oracle, truth->key_hash, value, sound);
        else if (truth->fate == LINK_HIT)
            oracle_allow(oracle, truth->key_hash, value, sound | MAY_DAMAGED)->later = sound;
        else if (truth->fate == HIT)
            oracle_allow(oracle, truth->key_hash, value, MAY_DAMAGED);
        else
            oracle_allow(oracle, truth->key_hash, value, 0); /* an older entry decides */
    }
    for (size_t i = 0; i < oracle->answer_count; i++)
        if (oracle->answers[i].may == 0)
            oracle->answers[i].may = MAY_ABSENT;
}

/* ---- What is answered ------------------------------------------------------------------------------------------- */

static bool is_value(const struct answer *answer, const rd_entry *entry)
{
    return entry->meta.key_hash == answer->key_hash && !entry->meta.tombstone &&
           span_equal(entry->payload, answer->value.data, answer->value.len);
}

void oracle_check_keys(struct oracle *oracle, rd_store *store)
{
    for (size_t i = 0; i < oracle->answer_count; i++) {
        struct answer *answer = &oracle->answers[i];
        rd_entry entry = {0};
        rd_err err = rd_store_read_hash(store, answer->key_hash, &entry);
        unsigned long long hash = answer->key_hash;
        answer->did = err == RD_OK ? MAY_VALUE : err == RD_ABSENT ? MAY_ABSENT : MAY_DAMAGED;
        EXPECT(err == RD_OK || err == RD_ABSENT || err == RD_E_DAMAGED, "%s: %016llx: %s", oracle->label, hash,
               rd_err_text(err));
        EXPECT(answer->did & answer->may, "%s: %016llx: %s, may %u", oracle->label, hash, rd_err_text(err),
               answer->may);
        EXPECT(err != RD_OK || is_value(answer, &entry), "%s: %016llx: another value of %zu bytes", oracle->label, hash,
               entry.payload.len);
        rd_entry_release(&entry);
        rd_err exists = rd_store_exists_hash(store, answer->key_hash);
        EXPECT(exists == err, "%s: %016llx exists: %s", oracle->label, hash, rd_err_text(exists));
        rd_metadata meta;
        rd_err told = rd_store_metadata_hash(store, answer->key_hash, &meta);
        EXPECT(told == err, "%s: %016llx metadata: %s", oracle->label, hash, rd_err_text(told));
    }
}

static void check_batch(struct oracle *oracle, rd_store *store)
{
    size_t count = oracle->answer_count;
    uint64_t *hashes = calloc(count + 1, sizeof *hashes);
    rd_batch_item *items = calloc(count + 1, sizeof *items);
    EXPECT(hashes != NULL && items != NULL, "no memory");
    for (size_t i = 0; i < count; i++)
        hashes[i] = oracle->answers[i].key_hash;
    EXPECT(rd_store_batch_read_hashed(store, hashes, NULL, count, items) == RD_OK, "%s", oracle->label);
    for (size_t i = 0; i < count; i++) {
        const struct answer *answer = &oracle->answers[i];
        rd_err want = answer->did == MAY_VALUE ? RD_OK : answer->did == MAY_ABSENT ? RD_ABSENT : RD_E_DAMAGED;
        EXPECT(items[i].err == want, "%s: in a batch: %s", oracle->label, rd_err_text(items[i].err));
        EXPECT(want != RD_OK || is_value(answer, &items[i].entry), "%s: in a batch", oracle->label);
        rd_entry_release(&items[i].entry);
    }
    free(items);
    free(hashes);
}

static void check_iteration(struct oracle *oracle, rd_store *store)
{
    rd_iter *iter = NULL;
    rd_entry entry = {0};
    uint64_t seen = 0, damaged = 0;
    const uint8_t *last = NULL;
    EXPECT(rd_iter_create(store, &iter) == RD_OK, "%s", oracle->label);
    for (rd_err err = rd_iter_next(iter, &entry); err != RD_ABSENT; err = rd_iter_next(iter, &entry)) {
        EXPECT(err == RD_OK || err == RD_E_DAMAGED, "%s: iteration: %s", oracle->label, rd_err_text(err));
        unsigned long long hash = entry.meta.key_hash;
        const struct answer *answer = answer_find(oracle, entry.meta.key_hash);
        EXPECT(answer != NULL, "%s: iteration shows %016llx: %s", oracle->label, hash, rd_err_text(err));
        if (err == RD_E_DAMAGED) {
            EXPECT(answer->did == MAY_DAMAGED, "%s: iteration calls %016llx damaged", oracle->label, hash);
            EXPECT(++damaged <= oracle->answer_count, "%s: iteration is endless", oracle->label);
            continue;
        }
        EXPECT(answer->did == MAY_VALUE && is_value(answer, &entry), "%s: iteration shows a false %016llx",
               oracle->label, hash);
        EXPECT(last == NULL || (const uint8_t *)entry.payload.data < last, "%s: not newest first", oracle->label);
        last = entry.payload.data;
        seen++;
    }
    rd_iter_destroy(iter);
    EXPECT(seen == oracle_count(oracle, MAY_VALUE), "%s: iteration shows %llu", oracle->label,
           (unsigned long long)seen);
}

static void check_numbers(struct oracle *oracle, rd_store *store)
{
    rd_store_info info = store_info(store);
    uint64_t live = oracle_count(oracle, MAY_VALUE), bytes = 0;
    for (size_t i = 0; i < oracle->answer_count; i++)
        if (oracle->answers[i].did == MAY_VALUE)
            bytes += oracle->answers[i].value.len;
    EXPECT(rd_store_len(store) == live && info.live_keys == live, "%s: %llu keys, not %llu", oracle->label,
           (unsigned long long)rd_store_len(store), (unsigned long long)live);
    EXPECT(rd_store_is_empty(store) == (live == 0), "%s", oracle->label);
    EXPECT(info.live_bytes == bytes, "%s: %llu live bytes", oracle->label, (unsigned long long)info.live_bytes);
    EXPECT(info.damaged_entries == oracle_count(oracle, MAY_DAMAGED), "%s: %llu damaged keys", oracle->label,
           (unsigned long long)info.damaged_entries);
    rd_range ranges[RD_DAMAGE_LISTED_MAX];
    size_t listed = rd_store_damage(store, ranges, RD_DAMAGE_LISTED_MAX);
    EXPECT(listed == (info.damaged_ranges < RD_DAMAGE_LISTED_MAX ? info.damaged_ranges : RD_DAMAGE_LISTED_MAX),
           "%s: %zu of %llu ranges", oracle->label, listed, (unsigned long long)info.damaged_ranges);
    for (size_t i = 0; i < listed; i++) {
        EXPECT(ranges[i].size > 0 && ranges[i].offset + ranges[i].size <= info.file_size, "%s: range %zu",
               oracle->label, i);
        EXPECT(i == 0 || ranges[i].offset + ranges[i].size <= ranges[i - 1].offset, "%s: ranges %zu and before",
               oracle->label, i);
        EXPECT(ranges[i].what == rd_damage_text(ranges[i].kind), "%s: range %zu", oracle->label, i);
    }
}

void oracle_check(struct oracle *oracle, rd_store *store)
{
    oracle_check_keys(oracle, store);
    check_batch(oracle, store);
    check_iteration(oracle, store);
    check_numbers(oracle, store);
}

void oracle_pin(struct oracle *oracle)
{
    for (size_t i = 0; i < oracle->answer_count; i++)
        oracle->answers[i].may = oracle->answers[i].did;
}

uint64_t oracle_count(const struct oracle *oracle, unsigned did)
{
    uint64_t count = 0;
    for (size_t i = 0; i < oracle->answer_count; i++)
        count += oracle->answers[i].did == did;
    return count;
}

/* ---- A damaged file, read and written --------------------------------------------------------------------------- */

struct outcome oracle_try_reading(void **state, struct oracle *oracle, const struct bytes *damaged)
{
    const char *path = temp_path(state, "read");
    struct outcome outcome = {0};
    file_save(path, damaged->data, damaged->len);
    size_t names = temp_count(state);
    rd_fault fault = {0};
    rd_store *store = NULL;
    rd_err err = rd_store_open(path, &open_reading, &fault, &store);
    EXPECT(err == RD_OK, "%s: %s (%s)", oracle->label, rd_err_text(err), fault.text);
    oracle_check(oracle, store);
    oracle_pin(oracle);
    outcome.info = store_info(store);
    outcome.range_count = rd_store_damage(store, outcome.ranges, RD_DAMAGE_LISTED_MAX);
    EXPECT(outcome.info.file_size == damaged->len, "%s", oracle->label);
    EXPECT(outcome.info.tail_off + outcome.info.unread_bytes == damaged->len, "%s: tail %llu", oracle->label,
           (unsigned long long)outcome.info.tail_off);
    rd_store_close(store);
    file_expect(path, damaged->data, damaged->len, oracle->label);
    EXPECT(temp_count(state) == names, "%s: reading made another file", oracle->label);
    return outcome;
}

/* The bytes behind `tail` were cut, and lie beside the store. */
static void expect_torn_saved(const struct oracle *oracle, const char *path, const struct bytes *damaged, uint64_t tail)
{
    char *saved = NULL;
    EXPECT(asprintf(&saved, "%s.torn-%llu", path, (unsigned long long)tail) > 0, "%s", path);
    if (tail < damaged->len) {
        file_expect(saved, damaged->data + tail, damaged->len - tail, oracle->label);
        unlink(saved);
    }
    EXPECT(access(saved, F_OK) != 0, "%s: %s is there", oracle->label, saved);
    file_expect(path, damaged->data, tail, oracle->label);
    free(saved);
}

static void heal(struct oracle *oracle, rd_store *store)
{
    for (size_t i = 0; i < oracle->answer_count; i++) {
        struct answer *answer = &oracle->answers[i];
        rd_written done = {0};
        if (answer->did != MAY_DAMAGED)
            continue;
        rd_err err = rd_store_batch_delete(store, &answer->key_hash, 1, &done);
        EXPECT(err == RD_OK && done.deleted_count == 1, "%s: healing: %s, %zu deleted", oracle->label, rd_err_text(err),
               done.deleted_count);
        answer->may = MAY_ABSENT;
    }
    oracle_check(oracle, store);
}

void oracle_try_writing(void **state, struct oracle *oracle, const struct bytes *damaged)
{
    const char *path = temp_path(state, "write"), *line = temp_path(state, "write.writer");
    static const char added[] = "one more";
    unlink(line); /* it would match: the inode stays */
    file_save(path, damaged->data, damaged->len);
    rd_store *store = store_open_ok(path, &open_writing);
    expect_torn_saved(oracle, path, damaged, store_info(store).tail_off);
    oracle_check(oracle, store);
    oracle_allow(oracle, rd_hash(text_span("added")), text_span(added), MAY_VALUE);
    store_put(store, "added", added, strlen(added));
    oracle_check(oracle, store);
    rd_store_close(store);

    for (size_t i = 0; i < oracle->answer_count; i++)
        oracle->answers[i].may |= oracle->answers[i].later;
    store = store_open_ok(path, &open_reading);
    oracle_check(oracle, store);
    EXPECT(store_info(store).unread_bytes == 0, "%s: reopened", oracle->label);
    rd_store_close(store);
    if (oracle_count(oracle, MAY_DAMAGED) == 0)
        return;

    store = store_open_ok(path, &open_writing);
    heal(oracle, store);
    rd_store_close(store);
    store = store_open_ok(path, &open_reading);
    oracle_check(oracle, store);
    rd_store_close(store);
}

struct outcome oracle_try(void **state, struct oracle *oracle, const struct bytes *damaged)
{
    struct outcome outcome = oracle_try_reading(state, oracle, damaged);
    oracle_try_writing(state, oracle, damaged);
    return outcome;
}

/* ---- Doing harm ------------------------------------------------------------------------------------------------- */

struct bytes bytes_copy(const struct bytes *from)
{
    struct bytes copy = {0};
    bytes_append(&copy, from->data, from->len);
    return copy;
}

void harm_zero(struct bytes *file, uint64_t from, uint64_t to)
{
    EXPECT(from <= to && to <= file->len, "[%llu, %llu)", (unsigned long long)from, (unsigned long long)to);
    memset(file->data + from, 0, to - from);
}

void harm_flip(struct bytes *file, uint64_t offset, int bit)
{
    EXPECT(offset < file->len, "%llu", (unsigned long long)offset);
    file->data[offset] = (uint8_t)(file->data[offset] ^ 1 << bit);
}

void harm_link(struct bytes *file, uint64_t end, uint64_t link)
{
    EXPECT(end >= TRAILER_LEN && end <= file->len, "%llu", (unsigned long long)end);
    for (size_t i = 0; i < 8; i++)
        file->data[end - 12 + i] = (uint8_t)(link >> (8 * i));
}
