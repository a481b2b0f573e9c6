/* What goes on in the background of an open store: the scrub, late recovery, the look at the file, interval syncs. */
#include "support.h"

#define load_le64 store_load_le64 /* the support has its own */
#include "store_internal.h"
#undef load_le64

#include <rdrive/upkeep.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LARGE     ((size_t)300 << 10) /* opening leaves such payloads unchecked */
#define WAIT_S    60
#define FAST_RATE ((uint64_t)1 << 40)

static const rd_open_options open_scrubbing = {.verify = RD_VERIFY_FIRST, .scrub_rate = FAST_RATE};
static const rd_open_options open_watching = {.verify = RD_VERIFY_FIRST, .watch = true};

/* Wait until `cond` of the store's figures is true. */
#define WAIT_FOR(store, cond)                                                                                          \
    do {                                                                                                               \
        time_t until = time(NULL) + WAIT_S;                                                                            \
        rd_store_info info = store_info(store);                                                                        \
        while (!(cond)) {                                                                                              \
            EXPECT(time(NULL) < until, "never came true");                                                             \
            sched_yield();                                                                                             \
            info = store_info(store);                                                                                  \
        }                                                                                                              \
    } while (0)

static struct sigaction engines_own;

/* cmocka puts a handler of its own in for each test. */
static void handle_sigbus(void)
{
    assert_int_equal(sigaction(SIGBUS, &engines_own, NULL), 0);
}

/* A store with large values, by hand: small "a", small "hidden", large "big", small "last". */
struct sample {
    struct bytes file, big;
    uint64_t a_end, hidden_end, big_start, big_end;
};

static uint64_t hash_of(const char *key)
{
    return rd_hash(text_span(key));
}

static struct sample sample_make(void)
{
    struct sample sample = {.big = bytes_xorshift(7, LARGE)};
    build_entry(&sample.file, hash_of("a"), text_span("value of a"), 64);
    sample.a_end = sample.file.len;
    build_entry(&sample.file, hash_of("hidden"), text_span("value of hidden"), 64);
    sample.hidden_end = sample.file.len;
    sample.big_start = (sample.file.len + 63) / 64 * 64;
    build_entry(&sample.file, hash_of("big"), bytes_span(&sample.big), 64);
    sample.big_end = sample.file.len;
    build_entry(&sample.file, hash_of("last"), text_span("value of last"), 64);
    return sample;
}

static void sample_free(struct sample *sample)
{
    bytes_free(&sample->file);
    bytes_free(&sample->big);
}

/* Aim the link of "big" at the end of "a": then nothing leads to "hidden", and opening can't tell. */
static void sample_hide(struct sample *sample)
{
    AUTO_BYTES link = {0};
    bytes_append_le64(&link, sample->a_end);
    memcpy(sample->file.data + sample->big_end - 12, link.data, link.len);
}

static const char *sample_save(void **state, const struct sample *sample)
{
    const char *path = temp_path(state, "store");
    file_save(path, sample->file.data, sample->file.len);
    return path;
}

static void expect_text(rd_store *store, const char *key, const char *value)
{
    store_expect(store, hash_of(key), value, strlen(value));
}

static void expect_error(rd_store *store, const char *key, rd_err want)
{
    rd_entry entry = {0};
    rd_err err = rd_store_read(store, text_span(key), &entry);
    EXPECT(err == want, "%s: %s instead of %s", key, rd_err_text(err), rd_err_text(want));
    EXPECT(entry.pin == NULL, "%s", key);
}

/* ---- The scrub and late recovery -------------------------------------------------------------------------------- */

static void the_scrub_finds_a_flipped_bit_in_a_large_payload(void **state)
{
    struct sample sample = sample_make();
    sample.file.data[sample.big_start + LARGE / 2] ^= 1;
    rd_store *store = store_open_ok(sample_save(state, &sample), &open_scrubbing);
    WAIT_FOR(store, info.generation == 2);
    rd_store_info info = store_info(store);
    assert_int_equal(info.damaged_entries, 1);
    assert_int_equal(info.damaged_ranges, 1);
    assert_int_equal(info.live_keys, 3);
    rd_range range;
    assert_int_equal(rd_store_damage(store, &range, 1), 1);
    assert_int_equal(range.offset, sample.hidden_end);
    assert_int_equal(range.size, sample.big_end - sample.hidden_end);
    assert_int_equal(range.key_hash, hash_of("big"));
    expect_error(store, "big", RD_E_DAMAGED);
    expect_text(store, "a", "value of a");
    expect_text(store, "hidden", "value of hidden");
    expect_text(store, "last", "value of last");
    rd_store_close(store);
    file_expect(temp_path(state, "store"), sample.file.data, sample.file.len, "read-only");
    sample_free(&sample);
}

static void the_scrub_of_an_intact_store_verifies_all_and_changes_nothing(void **state)
{
    struct sample sample = sample_make();
    rd_store *store = store_open_ok(sample_save(state, &sample), &open_scrubbing);
    uint64_t done = 0;
    uint64_t total = 0;
    WAIT_FOR(store,
             (upkeep_scrubbed(store->upkeep, &done, &total), info.generation == 1 && total > 0 && done == total));
    assert_int_equal(total, LARGE);
    WAIT_FOR(store, info.generation == 1 && (index_find(&store->view->index, hash_of("big")) & WORD_VERIFIED) != 0);
    store_expect(store, hash_of("big"), sample.big.data, LARGE);
    rd_store_close(store);
    sample_free(&sample);
}

static void what_a_large_entrys_damaged_link_hid_appears_after_the_scrub(void **state)
{
    struct sample sample = sample_make();
    sample_hide(&sample);
    rd_store *store = store_open_ok(sample_save(state, &sample), &open_reading);
    store_expect_absent(store, hash_of("hidden")); /* until then */
    rd_store_close(store);

    store = store_open_ok(temp_path(state, "store"), &open_scrubbing);
    WAIT_FOR(store, info.generation == 2);
    expect_text(store, "hidden", "value of hidden");
    store_expect(store, hash_of("big"), sample.big.data, LARGE);
    rd_range range;
    assert_int_equal(rd_store_damage(store, &range, 1), 1);
    assert_int_equal(range.kind, RD_DAMAGE_LINK);
    assert_int_equal(store_info(store).damaged_entries, 0);
    rd_store_close(store);
    sample_free(&sample);
}

static void a_superseded_entrys_damaged_link_is_found_too(void **state)
{
    struct sample sample = sample_make();
    sample_hide(&sample);
    build_entry(&sample.file, hash_of("big"), text_span("a newer big"), 64);
    rd_store *store = store_open_ok(sample_save(state, &sample), &open_scrubbing);
    WAIT_FOR(store, info.generation == 2);
    expect_text(store, "hidden", "value of hidden");
    expect_text(store, "big", "a newer big");
    rd_store_close(store);
    sample_free(&sample);
}

static void a_read_that_fails_recovers_in_the_background(void **state)
{
    struct sample sample = sample_make();
    sample_hide(&sample);
    rd_store *store = store_open_ok(sample_save(state, &sample), &open_reading);
    expect_error(store, "big", RD_E_DAMAGED);
    assert_int_equal(rd_store_exists(store, text_span("last")), RD_OK);
    WAIT_FOR(store, info.generation == 2);
    expect_text(store, "hidden", "value of hidden");
    store_expect(store, hash_of("big"), sample.big.data, LARGE); /* only its link is damaged */
    assert_int_equal(store_info(store).damaged_entries, 0);
    rd_store_close(store);
    sample_free(&sample);
}

static void entries_taken_before_a_late_recovery_stay_valid(void **state)
{
    struct sample sample = sample_make();
    rd_store *store = store_open_ok(sample_save(state, &sample), &open_reading);
    rd_entry entry = {0};
    assert_int_equal(rd_store_read(store, text_span("big"), &entry), RD_OK);
    assert_int_equal(store_recover_again(store, NULL), RD_OK);
    assert_int_equal(store_info(store).generation, 2);
    assert_true(span_equal(entry.payload, sample.big.data, LARGE));
    rd_entry_release(&entry);
    rd_store_close(store);
    sample_free(&sample);
}

static void a_cancelled_recovery_changes_nothing(void **state)
{
    struct sample sample = sample_make();
    rd_store *store = store_open_ok(sample_save(state, &sample), &open_reading);
    atomic_bool cancel = true;
    assert_int_equal(store_recover_again(store, &cancel), RD_E_CANCELLED);
    assert_int_equal(store_info(store).generation, 1);
    store_expect(store, hash_of("big"), sample.big.data, LARGE);
    rd_store_close(store);
    sample_free(&sample);
}

static void closing_waits_for_no_pace(void **state)
{
    struct sample sample = sample_make();
    rd_open_options slow = open_scrubbing;
    slow.scrub_rate = 1; /* a slice then takes more than an hour; the test's time limit is two minutes */
    rd_store *store = store_open_ok(sample_save(state, &sample), &slow);
    uint64_t done = 0;
    uint64_t total = 0;
    WAIT_FOR(store, (upkeep_scrubbed(store->upkeep, &done, &total), info.generation == 1 && done > 0));
    assert_true(done < total);
    rd_store_close(store);
    sample_free(&sample);
}

struct recoverer {
    pthread_t thread;
    rd_store *store;
    atomic_bool stop;
    bool failed;
    unsigned count;
};

static void *recover_repeatedly(void *argument)
{
    struct recoverer *recoverer = argument;
    do {
        recoverer->failed |= store_recover_again(recoverer->store, NULL) != RD_OK;
        recoverer->count++;
    } while (!atomic_load(&recoverer->stop));
    return NULL;
}

static void what_is_written_during_recoveries_is_kept(void **state)
{
    struct sample sample = sample_make();
    sample.file.data[sample.big_start + 5] ^= 1;
    rd_store *store = store_open_ok(sample_save(state, &sample), &open_writing);
    struct recoverer recoverers[2] = {{.store = store}, {.store = store}};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&recoverers[i].thread, NULL, recover_repeatedly, &recoverers[i]), 0);
    for (uint64_t i = 0; i < 300; i++) {
        store_fill(store, i, 1);
        rd_written done;
        if (i % 3 == 0)
            assert_int_equal(rd_store_batch_delete(store, (const uint64_t[]){fill_hash(i)}, 1, &done), RD_OK);
        uint64_t value = htole64(i);
        if (i % 3 != 0)
            store_expect(store, fill_hash(i), &value, sizeof(value));
        else
            store_expect_absent(store, fill_hash(i));
    }
    for (size_t i = 0; i < 2; i++) {
        atomic_store(&recoverers[i].stop, true);
        assert_int_equal(pthread_join(recoverers[i].thread, NULL), 0);
        assert_false(recoverers[i].failed);
        EXPECT(recoverers[i].count > 0, "thread %zu", i);
    }
    assert_int_equal(store_recover_again(store, NULL), RD_OK);
    rd_store_info info = store_info(store);
    assert_int_equal(info.live_keys, 3 + 200);
    assert_int_equal(info.damaged_entries, 1);
    assert_int_equal(info.entries, 3 + 300 + 100);
    for (uint64_t i = 0; i < 300; i++) {
        uint64_t value = htole64(i);
        if (i % 3 != 0)
            store_expect(store, fill_hash(i), &value, sizeof(value));
        else
            store_expect_absent(store, fill_hash(i));
    }
    rd_store_close(store);
    sample_free(&sample);
}

/* ---- The look at the file --------------------------------------------------------------------------------------- */

static void a_file_that_grows_or_shrinks_is_told(void **state)
{
    struct sample sample = sample_make();
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_reading);
    assert_int_equal(store_look(store), RD_FILE_SAME);
    assert_int_equal(truncate(path, (off_t)sample.file.len + 1), 0);
    assert_int_equal(store_look(store), RD_FILE_GREW);
    assert_int_equal(store_info(store).file_state, RD_FILE_GREW);
    assert_int_equal(truncate(path, (off_t)sample.file.len - 1), 0);
    assert_int_equal(store_look(store), RD_FILE_SHRUNK);
    assert_int_equal(truncate(path, (off_t)sample.file.len), 0);
    assert_int_equal(store_look(store), RD_FILE_SAME);
    rd_store_close(store);
    sample_free(&sample);
}

static void an_unfinished_tail_is_no_growth(void **state)
{
    struct sample sample = sample_make();
    bytes_append(&sample.file, "\0\0\0torn", 7);
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_reading);
    assert_int_equal(store_info(store).unread_bytes, 7);
    assert_int_equal(store_look(store), RD_FILE_SAME);
    assert_int_equal(truncate(path, (off_t)sample.file.len - 7), 0); /* no entry is lost with it */
    assert_int_equal(store_look(store), RD_FILE_SAME);
    assert_int_equal(truncate(path, (off_t)sample.file.len + 1), 0);
    assert_int_equal(store_look(store), RD_FILE_GREW);
    rd_store_close(store);
    sample_free(&sample);
}

static void our_own_writes_are_no_growth(void **state)
{
    rd_store *store = store_make(state, "store");
    store_fill(store, 0, 10);
    assert_int_equal(store_look(store), RD_FILE_SAME);
    rd_store_close(store);
}

static void a_path_that_names_another_file_is_told(void **state)
{
    struct sample sample = sample_make();
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_reading);
    const char *away = temp_path(state, "away");
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(store_look(store), RD_FILE_REPLACED);
    file_save(path, sample.file.data, sample.file.len);
    assert_int_equal(store_look(store), RD_FILE_REPLACED);
    expect_text(store, "a", "value of a"); /* the old one is served on */
    /* cut below the tail is worse */
    assert_int_equal(truncate(away, 0), 0);
    assert_int_equal(store_look(store), RD_FILE_SHRUNK);
    file_save(away, sample.file.data, sample.file.len);
    assert_int_equal(rename(away, path), 0);
    assert_int_equal(store_look(store), RD_FILE_SAME);
    rd_store_close(store);
    sample_free(&sample);
}

static void a_compaction_of_our_own_is_not_taken_for_a_replacement(void **state)
{
    struct sample sample = sample_make();
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_reading);
    atomic_store(&store->compacting, true); /* as between its rename and its swap */
    file_save(temp_path(state, "compacted"), sample.file.data, sample.file.len);
    assert_int_equal(rename(temp_path(state, "compacted"), path), 0);
    assert_int_equal(store_look(store), RD_FILE_SAME);
    atomic_store(&store->compacting, false);
    assert_int_equal(store_look(store), RD_FILE_REPLACED);
    rd_store_close(store);
    sample_free(&sample);
}

static void bytes_that_come_back_after_a_cut_are_checked_again(void **state)
{
    handle_sigbus();
    struct sample sample = sample_make();
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_reading);
    store_expect(store, hash_of("big"), sample.big.data, LARGE);
    expect_text(store, "last", "value of last");
    assert_int_equal(truncate(path, (off_t)sample.a_end + 40), 0);
    expect_error(store, "big", RD_E_TRUNCATED);
    expect_error(store, "last", RD_E_TRUNCATED);
    expect_text(store, "a", "value of a"); /* its page is there */
    assert_int_equal(store_look(store), RD_FILE_SHRUNK);
    expect_error(store, "hidden", RD_E_TRUNCATED); /* cut inside a page: nothing faults */
    sample.file.data[sample.big_start + 1] ^= 1;
    file_save(path, sample.file.data, sample.file.len);
    assert_int_equal(store_look(store), RD_FILE_SAME);
    expect_error(store, "big", RD_E_DAMAGED);
    expect_text(store, "hidden", "value of hidden");
    expect_text(store, "last", "value of last");
    rd_store_close(store);
    sample_free(&sample);
}

/* Nothing faults, and what is left of the trailer says that all of the file is one value. */
static void the_newest_entry_of_a_file_cut_inside_its_last_page_is_not_served(void **state)
{
    struct sample sample = sample_make();
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_reading);
    rd_entry entry = {0};
    assert_int_equal(rd_store_read_last(store, &entry), RD_OK);
    rd_entry_release(&entry);
    for (uint64_t lost = 1; lost <= 24; lost++) {
        assert_int_equal(truncate(path, (off_t)(sample.file.len - lost)), 0);
        EXPECT(rd_store_read_last(store, &entry) == RD_E_TRUNCATED, "%d bytes lost", (int)lost);
    }
    rd_store_close(store);
    sample_free(&sample);
}

/* What is left of its trailer may have its hash, but not its link. */
static void a_cut_inside_a_page_makes_no_other_value_of_a_checked_one(void **state)
{
    struct sample sample = sample_make();
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_reading);
    expect_text(store, "last", "value of last");
    for (uint64_t lost = 1; lost <= 24; lost++) {
        rd_entry entry = {0};
        assert_int_equal(truncate(path, (off_t)(sample.file.len - lost)), 0);
        rd_err err = rd_store_read(store, text_span("last"), &entry);
        EXPECT(err == RD_E_TRUNCATED || (err == RD_OK && span_equal(entry.payload, "value of last", 13)),
               "%d bytes lost: %s, %zu bytes", (int)lost, rd_err_text(err), entry.payload.len);
        rd_entry_release(&entry);
    }
    rd_store_close(store);
    sample_free(&sample);
}

/* What came back in its place is checked. */
static void the_newest_entry_is_checked_again_after_a_cut(void **state)
{
    struct sample sample = sample_make();
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_reading);
    rd_entry entry = {0};
    assert_int_equal(truncate(path, (off_t)(sample.file.len - 30)), 0);
    assert_int_equal(store_look(store), RD_FILE_SHRUNK);
    sample.file.data[sample.file.len - 21] ^= 1; /* its payload's last byte */
    file_save(path, sample.file.data, sample.file.len);
    assert_int_equal(rd_store_read_last(store, &entry), RD_E_DAMAGED);
    rd_store_close(store);
    sample_free(&sample);
}

static void a_recovery_of_a_cut_file_says_so(void **state)
{
    handle_sigbus();
    struct sample sample = sample_make();
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_reading);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(store_recover_again(store, NULL), RD_E_TRUNCATED);
    assert_int_equal(store_info(store).generation, 1);
    expect_text(store, "a", "value of a");
    rd_store_close(store);
    sample_free(&sample);
}

static void a_watched_file_is_looked_at_unasked(void **state)
{
    struct sample sample = sample_make();
    const char *path = sample_save(state, &sample);
    rd_store *store = store_open_ok(path, &open_watching);
    assert_int_equal(truncate(path, 100), 0);
    WAIT_FOR(store, info.file_state == RD_FILE_SHRUNK);
    rd_store_close(store);
    sample_free(&sample);
}

/* ---- Interval syncs --------------------------------------------------------------------------------------------- */

static bool is_unsynced(rd_store *store)
{
    pthread_mutex_lock(&store->write);
    bool unsynced = store->unsynced;
    pthread_mutex_unlock(&store->write);
    return unsynced;
}

static void an_interval_sync_follows_a_write(void **state)
{
    rd_open_options options = open_making;
    options.sync = RD_SYNC_INTERVAL;
    options.sync_interval_ms = 50;
    rd_store *store = store_open_ok(temp_path(state, "store"), &options);
    for (int i = 0; i < 3; i++) {
        rd_written done = store_put(store, "key", "value", 5);
        assert_false(done.durable);
        WAIT_FOR(store, info.writable && !is_unsynced(store));
    }
    rd_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(the_scrub_finds_a_flipped_bit_in_a_large_payload),
        TEMP_TEST(the_scrub_of_an_intact_store_verifies_all_and_changes_nothing),
        TEMP_TEST(what_a_large_entrys_damaged_link_hid_appears_after_the_scrub),
        TEMP_TEST(a_superseded_entrys_damaged_link_is_found_too),
        TEMP_TEST(a_read_that_fails_recovers_in_the_background),
        TEMP_TEST(entries_taken_before_a_late_recovery_stay_valid),
        TEMP_TEST(a_cancelled_recovery_changes_nothing),
        TEMP_TEST(closing_waits_for_no_pace),
        TEMP_TEST(what_is_written_during_recoveries_is_kept),
        TEMP_TEST(a_file_that_grows_or_shrinks_is_told),
        TEMP_TEST(an_unfinished_tail_is_no_growth),
        TEMP_TEST(our_own_writes_are_no_growth),
        TEMP_TEST(a_path_that_names_another_file_is_told),
        TEMP_TEST(a_compaction_of_our_own_is_not_taken_for_a_replacement),
        TEMP_TEST(bytes_that_come_back_after_a_cut_are_checked_again),
        TEMP_TEST(the_newest_entry_of_a_file_cut_inside_its_last_page_is_not_served),
        TEMP_TEST(a_cut_inside_a_page_makes_no_other_value_of_a_checked_one),
        TEMP_TEST(the_newest_entry_is_checked_again_after_a_cut),
        TEMP_TEST(a_recovery_of_a_cut_file_says_so),
        TEMP_TEST(a_watched_file_is_looked_at_unasked),
        TEMP_TEST(an_interval_sync_follows_a_write),
    };
    if (rd_sigbus_install() != RD_OK || sigaction(SIGBUS, NULL, &engines_own) != 0)
        return 1;
    return cmocka_run_group_tests_name("upkeep", tests, NULL, NULL);
}
