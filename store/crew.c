#include "crew.h"
#include "base.h"
#include "readahead.h"
#include "stretch.h"
#include "team.h"
#include <sys/mman.h>
#include <unistd.h>

#define PROBE_ENTRIES  256u
#define ENTRY_LEN_MAX  UINT64_C(49152) /* on average: of larger ones most bytes are not read at all */
#define ENTRIES_WANTED 512u            /* a stretch */
#define STRETCHES_EACH 4u              /* a thread, a step */
#define FETCH_AHEAD    32u             /* entries between fetching a slot and filling it */
#define AHEAD_LEN      UINT64_C(0x4000000)
#define TABLE_PIECE    ((size_t)2 << 20)
#define HOLD_OFF_MAX   64u /* steps that are left out where they were in vain */
#define LOOKS          16u
#define LOOK_LEN       UINT64_C(8192)
#define GUESS_MIN      1024u             /* entries, before keys are guessed from them */
#define GUESS_MAX      ((size_t)8 << 20) /* keys that room is made for because there may be as many */
#define GUESS_GROWTH   2u                /* or so many times what there is */

/* What the thread that fills a part of the index found, and how far it came: in a crowded block it stops. */
struct tally {
    _Alignas(64) struct index_tally index;
    uint64_t live_keys, live_bytes, live_stored;
    size_t stretch, at; /* at: in that stretch's passed, if it has begun that one */
    bool begun;
};

struct crew {
    struct tally tallies[STRETCH_PARTS_MAX];
    struct recovery *recovery;
    struct team *team;
    uint64_t stretch_len;
    size_t width;              /* stretches a step, at most */
    struct stretch *stretches; /* 2 * width: one half is walked while what the other found goes into the index */
    size_t walk_begin, walk_end;
    size_t fill_begin, fill_end;
    struct passed *passed;           /* of each stretch */
    struct passed *looked;           /* behind these: of a look at what is left */
    struct stretch_scratch *scratch; /* of each thread */
    uint64_t secret;                 /* of the table: what is in which part follows from it */
    unsigned parts_log2;
    bool crowded;                /* parts no longer mean anything: the index is filled by one thread */
    size_t room_until;           /* so many keys fit */
    struct readahead *readahead; /* NULL as long as everything is in memory */
    uint64_t looked_off;         /* whether what lies above is */
    unsigned hold_off;
};

void crew_destroy(struct crew *crew)
{
    if (crew == NULL)
        return;
    readahead_stop(crew->readahead);
    team_destroy(crew->team);
    free(crew->stretches);
    free(crew->passed);
    free(crew->scratch);
    free(crew);
}

/* The least power of two that is at least `value`, as a power. */
static unsigned log2_of(size_t value)
{
    unsigned log2 = 0;
    while (((size_t)1 << log2) < value)
        log2++;
    return log2;
}

static rd_err crew_create(struct recovery *recovery, uint64_t stretch_len)
{
    struct crew *crew = aligned_alloc(_Alignof(struct crew), sizeof(*crew));
    if (crew == NULL)
        return RD_E_NOMEM;
    *crew = (struct crew){.recovery = recovery, .stretch_len = stretch_len, .hold_off = 1};
    recovery->crew = crew;
    unsigned threads = recovery->options->threads;
    RD_TRY(team_create(threads == 0 ? team_cores() : threads, &crew->team));
    size_t members = team_size(crew->team);
    crew->width = members * STRETCHES_EACH;
    crew->stretches = calloc(2 * crew->width, sizeof(*crew->stretches));
    crew->passed = malloc((2 * crew->width + 1) * STRETCH_ENTRIES_MAX * sizeof(*crew->passed));
    crew->scratch = malloc(members * sizeof(*crew->scratch));
    if (crew->stretches == NULL || crew->passed == NULL || crew->scratch == NULL)
        return RD_E_NOMEM;
    crew->looked = crew->passed + 2 * crew->width * STRETCH_ENTRIES_MAX;
    for (size_t i = 0; i < 2 * crew->width; i++)
        crew->stretches[i].passed = crew->passed + i * STRETCH_ENTRIES_MAX;
    crew->looked_off = UINT64_MAX;
    crew->parts_log2 = log2_of(members == 1 ? 1 : members * STRETCHES_EACH);
    return RD_OK;
}

/* ---- filling the index ------------------------------------------------------------------------------------------ */

static void count_live(struct tally *tally, const struct passed *passed)
{
    if ((passed->word & WORD_TOMBSTONE) != 0)
        return;
    const struct entry payload = {.trailer_off = passed->payload_len};
    tally->live_keys++;
    tally->live_bytes += passed->payload_len;
    tally->live_stored += entry_stored_len(&payload);
}

/* The entries of a stretch that are in a part. */
static size_t part_begin(const struct stretch *stretch, size_t part)
{
    return part == 0 ? 0 : stretch->part_ends[part - 1];
}

/* Put what was found into a part of the index, from newest to oldest, as far as that goes without another thread. */
static void fill_part(struct crew *crew, size_t part)
{
    const struct index *index = &crew->recovery->found.index;
    struct tally *tally = &crew->tallies[part];
    for (; tally->stretch < crew->fill_end; tally->stretch++) {
        const struct stretch *stretch = &crew->stretches[tally->stretch];
        if (stretch->count == 0)
            continue;
        size_t end = stretch->part_ends[part];
        size_t fetched = part_begin(stretch, part);
        struct index_place places[FETCH_AHEAD];
        for (tally->at = fetched; tally->at < end; tally->at++) {
            for (; fetched < end && fetched < tally->at + FETCH_AHEAD; fetched++)
                places[fetched % FETCH_AHEAD] = index_locate(index, stretch->passed[fetched].key_hash);
            const struct passed *passed = &stretch->passed[tally->at];
            rd_err err = index_add_at(&places[tally->at % FETCH_AHEAD], passed->key_hash, passed->word, &tally->index);
            if (err == RD_E_UNAVAILABLE) {
                tally->begun = true;
                return;
            }
            if (err == RD_OK)
                count_live(tally, passed);
        }
    }
}

/* What fill_part left. */
static void fill_rest(struct crew *crew, size_t part)
{
    struct index *index = &crew->recovery->found.index;
    struct tally *tally = &crew->tallies[part];
    bool begun = tally->begun;
    for (; tally->stretch < crew->fill_end; tally->stretch++, begun = false) {
        const struct stretch *stretch = &crew->stretches[tally->stretch];
        if (stretch->count == 0)
            continue;
        if (!begun)
            tally->at = part_begin(stretch, part);
        for (; tally->at < stretch->part_ends[part]; tally->at++) {
            const struct passed *passed = &stretch->passed[tally->at];
            crew->crowded = true;
            if (index_set_if_new(index, passed->key_hash, passed->word))
                count_live(tally, passed);
        }
    }
}

static void settle(struct crew *crew)
{
    struct recovered *found = &crew->recovery->found;
    for (size_t part = 0; part < (size_t)1 << crew->parts_log2; part++)
        index_added(&found->index, &crew->tallies[part].index);
    for (size_t part = 0; part < (size_t)1 << crew->parts_log2; part++) {
        struct tally *tally = &crew->tallies[part];
        fill_rest(crew, part);
        found->live_keys += tally->live_keys;
        found->live_bytes += tally->live_bytes;
        found->live_stored += tally->live_stored;
    }
    crew->fill_begin = crew->fill_end;
}

static size_t entries_to_fill(const struct crew *crew)
{
    size_t entries = 0;
    for (size_t i = crew->fill_begin; i < crew->fill_end; i++)
        entries += crew->stretches[i].count;
    return entries;
}

/* So many entries a byte as there seem to be in what is left, which may be unlike what was walked: a look in some
   places. Where a look finds no entry soon, they are large, and few. */
static double dense_below(const struct crew *crew)
{
    const struct recovery *recovery = crew->recovery;
    uint64_t floor_off = recovery->options->floor_off;
    uint64_t step = (recovery->end_off - floor_off) / LOOKS;
    struct stretch look = {.passed = crew->looked};
    double dense = 0;
    for (unsigned i = 0; i < LOOKS; i++) {
        look.top_off = recovery->end_off - i * step - step / 2;
        look.bottom_off = look.top_off - floor_off > LOOK_LEN ? look.top_off - LOOK_LEN : floor_off;
        stretch_walk(recovery, crew->parts_log2, &look, crew->scratch);
        if (look.count > 0)
            dense += (double)look.count / (double)(look.top_off - look.end_off);
    }
    return dense / LOOKS;
}

/* How many keys are still to come, if there are as many versions of each as there were. */
static size_t guess_keys(const struct crew *crew, size_t entries)
{
    const struct recovery *recovery = crew->recovery;
    size_t used = index_used(&recovery->found.index);
    uint64_t filled = recovery->found.entries - entries;
    if (filled < GUESS_MIN)
        return entries;
    double left = (double)(recovery->end_off - recovery->options->floor_off);
    double guess = ((double)entries + left * dense_below(crew)) * (double)used / (double)filled * 1.02;
    size_t most = used * GUESS_GROWTH;
    if (used + filled / 16 > filled && most < GUESS_MAX)
        most = GUESS_MAX; /* hardly any key was written twice */
    size_t keys = guess < (double)most ? (size_t)guess : most;
    return keys > entries ? keys : entries;
}

/* A piece of a table: its memory at once and to be written, since all of it will be. Fault by fault, each page would be
   looked at first and written then, which stops every thread twice. */
static void populate_table(void *context, size_t number, unsigned member)
{
    (void)member;
#ifdef MADV_POPULATE_WRITE
    const struct table *table = context;
    uintptr_t page_mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    uintptr_t begin = (uintptr_t)table->slots + number * TABLE_PIECE;
    uintptr_t end = begin + TABLE_PIECE;
    uintptr_t table_end = (uintptr_t)table->slots + table->bytes;
    end = end < table_end ? end : table_end;
    (void)madvise((void *)(begin & ~page_mask), end - (begin & ~page_mask), MADV_POPULATE_WRITE);
#else
    (void)context, (void)number;
#endif
}

/* Room for as many keys as there may be to come, `guess`, or at least for `entries`. */
static rd_err reserve(struct crew *crew, size_t guess, size_t entries)
{
    struct index *index = &crew->recovery->found.index;
    rd_err err = index_reserve(index, guess);
    if (err == RD_E_NOMEM && guess > entries) {
        guess = entries;
        err = index_reserve(index, guess);
    }
    RD_TRY(err);
    crew->room_until = index_used(index) + guess;
    struct table *table = atomic_load_explicit(&index->table, memory_order_acquire);
    struct table *next = atomic_load_explicit(&table->next, memory_order_acquire);
    table = next != NULL ? next : table;
    team_run(crew->team, (table->bytes + TABLE_PIECE - 1) / TABLE_PIECE, populate_table, table);
    return RD_OK;
}

static uint64_t secret_of(const struct index *index)
{
    return atomic_load_explicit(&index->table, memory_order_acquire)->secret;
}

/* Whatever became of the index since, it has room for what is to be put into it, and its parts are told. */
static rd_err make_room(struct crew *crew, size_t entries)
{
    struct index *index = &crew->recovery->found.index;
    if (index_used(index) + entries > crew->room_until)
        RD_TRY(reserve(crew, guess_keys(crew, entries), entries));
    if (index_parts_log2(index) < crew->parts_log2 || secret_of(index) != crew->secret)
        crew->crowded = true;
    return RD_OK;
}

/* ---- a step ----------------------------------------------------------------------------------------------------- */

static void work(void *context, size_t number, unsigned member)
{
    struct crew *crew = context;
    size_t stretches = crew->walk_end - crew->walk_begin;
    if (number < stretches) {
        struct stretch *stretch = &crew->stretches[crew->walk_begin + number];
        populate_range(crew->recovery->base, stretch->bottom_off, stretch->top_off);
        stretch_walk(crew->recovery, crew->parts_log2, stretch, &crew->scratch[member]);
    } else {
        fill_part(crew, number - stretches);
    }
}

/* Walk the planned stretches, and put into the index what the last ones found. */
static rd_err run(struct crew *crew)
{
    size_t entries = entries_to_fill(crew);
    size_t parts = (size_t)1 << crew->parts_log2;
    RD_TRY(make_room(crew, entries));
    for (size_t part = 0; part < parts; part++)
        crew->tallies[part] = (struct tally){.stretch = crew->fill_begin};
    size_t stretches = crew->walk_end - crew->walk_begin;
    bool fill = entries > 0 && !crew->crowded;
    team_run(crew->team, stretches + (fill ? parts : 0), work, crew);
    settle(crew);
    for (size_t i = crew->walk_begin; i < crew->walk_end; i++)
        RD_TRY(crew->stretches[i].err);
    return RD_OK;
}

/* Have everything in the index that was found. */
static rd_err flush(struct crew *crew)
{
    size_t walk_end = crew->walk_end;
    if (entries_to_fill(crew) == 0) {
        crew->fill_begin = crew->fill_end;
        return RD_OK;
    }
    crew->walk_end = crew->walk_begin;
    rd_err err = run(crew);
    crew->walk_end = walk_end;
    return err;
}

/* The next stretches, from `end_off` down. */
static void plan(struct crew *crew)
{
    const struct recovery *recovery = crew->recovery;
    uint64_t floor_off = recovery->options->floor_off;
    uint64_t top_off = recovery->end_off;
    crew->walk_begin = crew->walk_begin == 0 ? crew->width : 0;
    crew->walk_end = crew->walk_begin;
    while (crew->walk_end - crew->walk_begin < crew->width && top_off > floor_off) {
        struct stretch *stretch = &crew->stretches[crew->walk_end++];
        uint64_t bottom_off = (top_off - 1) / crew->stretch_len * crew->stretch_len;
        stretch->known = top_off == recovery->end_off;
        stretch->top_off = top_off;
        stretch->bottom_off = bottom_off > floor_off ? bottom_off : floor_off;
        top_off = stretch->bottom_off;
    }
}

/* Have what will be walked soon read meanwhile, where it isn't in memory. */
static void look_ahead(struct crew *crew)
{
    const struct recovery *recovery = crew->recovery;
    uint64_t floor_off = recovery->options->floor_off;
    uint64_t bottom_off = crew->stretches[crew->walk_end - 1].bottom_off;
    uint64_t begin_off = bottom_off - floor_off > AHEAD_LEN ? bottom_off - AHEAD_LEN : floor_off;
    uint64_t end_off = crew->looked_off < recovery->end_off ? crew->looked_off : recovery->end_off;
    if (begin_off >= end_off)
        return;
    crew->looked_off = begin_off;
    if (crew->readahead == NULL && !is_resident(recovery->base, begin_off, end_off) &&
        readahead_start(recovery->base, floor_off, end_off, &crew->readahead) != RD_OK)
        crew->readahead = NULL; /* it goes without */
    if (crew->readahead != NULL)
        readahead_want(crew->readahead, begin_off);
}

/* ---- joining them ----------------------------------------------------------------------------------------------- */

static rd_err accept(struct recovery *recovery, const struct stretch *stretch)
{
    for (size_t i = 0; i < stretch->provisional_count; i++)
        RD_TRY(layout_add_provisional(recovery->found.layout, stretch->provisional[i]));
    recovery->found.entries += stretch->count;
    if (stretch->synced_matches)
        recovery->synced_matches = true;
    if (stretch->count > 0)
        recovery->has_above = entry_before(recovery, stretch->oldest_off, RD_ALIGNMENT, &recovery->above);
    recovery->end_off = stretch->end_off;
    return RD_OK;
}

/* One after the other, with what was found above in the index first (F-08). */
static rd_err walk_alone(struct crew *crew, uint64_t until_off, uint64_t meet_off)
{
    RD_TRY(flush(crew));
    return recovery_walk(crew->recovery, until_off, meet_off, ALL_ENTRIES);
}

/* Whether what a stretch found is what would be found now: from the first failure on nothing is provisional. */
static bool is_current(const struct recovery *recovery, const struct stretch *stretch)
{
    return stretch->begin_off != 0 && (stretch->provisional_count == 0 || recovery->prefixes.at == NULL);
}

/* Go down to where a stretch ends: by what it found if the chain of links arrives where it began. */
static rd_err join(struct crew *crew, struct stretch *stretch, uint64_t *out_joined)
{
    struct recovery *recovery = crew->recovery;
    uint64_t bottom_off = stretch->bottom_off;
    uint64_t begin_off = is_current(recovery, stretch) ? stretch->begin_off : bottom_off;
    if (recovery->end_off > bottom_off && recovery->end_off != begin_off)
        RD_TRY(walk_alone(crew, bottom_off, begin_off));
    bool joined = recovery->end_off > bottom_off && recovery->end_off == begin_off && is_current(recovery, stretch);
    if (joined) {
        RD_TRY(accept(recovery, stretch));
        *out_joined += begin_off - stretch->end_off;
    } else {
        stretch->count = 0;
    }
    crew->fill_end++;
    return recovery->end_off > bottom_off ? walk_alone(crew, bottom_off, bottom_off) : RD_OK;
}

/* Steps, as long as they pay. */
static rd_err walk_together(struct crew *crew)
{
    struct recovery *recovery = crew->recovery;
    uint64_t floor_off = recovery->options->floor_off;
    bool pays = true;
    while (pays && recovery->end_off > floor_off) {
        uint64_t begin_off = recovery->end_off;
        uint64_t entries = recovery->found.entries;
        uint64_t joined = 0;
        plan(crew);
        look_ahead(crew);
        RD_TRY(run(crew));
        crew->fill_begin = crew->fill_end = crew->walk_begin;
        for (size_t i = crew->walk_begin; i < crew->walk_end; i++)
            RD_TRY(join(crew, &crew->stretches[i], &joined));
        recovery_tell(recovery);
        uint64_t walked = begin_off - recovery->end_off;
        pays = joined >= walked / 2 && walked <= (recovery->found.entries - entries) * ENTRY_LEN_MAX;
    }
    RD_TRY(flush(crew));
    if (pays)
        return RD_OK;
    uint64_t skip = crew->hold_off * crew->width * crew->stretch_len;
    uint64_t until_off = recovery->end_off - floor_off > skip ? recovery->end_off - skip : floor_off;
    crew->hold_off = crew->hold_off < HOLD_OFF_MAX ? 2 * crew->hold_off : HOLD_OFF_MAX;
    return recovery_walk(recovery, until_off, until_off, ALL_ENTRIES);
}

/* A stretch is long enough to be worth it, and not for less than the table has parts for. */
static rd_err begin(struct recovery *recovery, uint64_t entry_len)
{
    uint64_t stretch_len = STRETCH_LEN;
    while (stretch_len < STRETCH_LEN_MAX && stretch_len < entry_len * ENTRIES_WANTED)
        stretch_len *= 2;
    if (recovery->options->stretch_len != 0)
        stretch_len = recovery->options->stretch_len;
    if (recovery->crew == NULL)
        RD_TRY(crew_create(recovery, stretch_len));
    struct crew *crew = recovery->crew;
    crew->stretch_len = stretch_len;
    uint64_t left = recovery->end_off - recovery->options->floor_off;
    uint64_t first = left < crew->width * stretch_len ? left : crew->width * stretch_len;
    size_t entries = (size_t)(first / entry_len);
    RD_TRY(reserve(crew, entries + entries / 32, 0));
    unsigned parts_log2 = index_parts_log2(&recovery->found.index);
    if (crew->parts_log2 > parts_log2)
        crew->parts_log2 = parts_log2;
    crew->secret = secret_of(&recovery->found.index);
    return RD_OK;
}

rd_err crew_walk(struct recovery *recovery)
{
    uint64_t floor_off = recovery->options->floor_off;
    uint64_t stretch_len = recovery->options->stretch_len != 0 ? recovery->options->stretch_len : STRETCH_LEN;
    uint64_t probe = stretch_len < STRETCH_LEN ? 1 : PROBE_ENTRIES;
    while (recovery->end_off - floor_off > 2 * stretch_len) {
        RD_TRY(recovery_walk(recovery, floor_off, floor_off, 1)); /* a tail that is torn says nothing about entries */
        uint64_t begin_off = recovery->end_off;
        uint64_t entries = recovery->found.entries;
        RD_TRY(recovery_walk(recovery, floor_off, floor_off, probe));
        entries = recovery->found.entries - entries;
        uint64_t walked = begin_off - recovery->end_off;
        if (!recovery->proven || entries == 0 || walked > entries * ENTRY_LEN_MAX)
            continue;
        rd_err err = begin(recovery, walked / entries);
        if (err == RD_E_NOMEM)
            return RD_OK; /* it goes without */
        RD_TRY(err);
        RD_TRY(walk_together(recovery->crew));
    }
    return RD_OK;
}
