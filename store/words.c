#include "words.h"
#include "base.h"

rd_err numbers_add(struct numbers *numbers, uint64_t number)
{
    if (numbers->count == numbers->capacity) {
        size_t capacity = numbers->capacity == 0 ? 64 : 2 * numbers->capacity;
        uint64_t *at = realloc(numbers->at, capacity * sizeof(*at));
        if (at == NULL)
            return RD_E_NOMEM;
        numbers->at = at;
        numbers->capacity = capacity;
    }
    numbers->at[numbers->count++] = number;
    return RD_OK;
}

void numbers_fini(struct numbers *numbers)
{
    free(numbers->at);
    *numbers = (struct numbers){0};
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

void numbers_sort(struct numbers *numbers)
{
    if (numbers->count > 1)
        qsort(numbers->at, numbers->count, sizeof(*numbers->at), compare);
}

bool numbers_have(const struct numbers *numbers, uint64_t number)
{
    return numbers->count > 0 && bsearch(&number, numbers->at, numbers->count, sizeof(*numbers->at), compare) != NULL;
}

/* Where one is in the table while it is gone through, a block at a time. */
struct glance {
    struct index_cursor cursor;
    struct sighting seen[BLOCK_SLOTS];
    size_t count;
};

/* Returns: RD_OK, `glance->cursor.ended` at the end; RD_ABSENT forget what was seen; RD_E_UNAVAILABLE. */
static rd_err look(rd_store *store, uint64_t generation, struct glance *glance)
{
    rd_err err = RD_E_UNAVAILABLE;
    struct reading reading = reading_begin(store);
    if (reading.view->generation == generation)
        err = index_scan(&reading.view->index, &glance->cursor, glance->seen, &glance->count);
    reading_end(&reading);
    return err;
}

struct gathered {
    uint64_t below_off;
    struct numbers live;
    struct numbers damaged;
};

static rd_err sort_out(const struct glance *glance, struct gathered *gathered)
{
    for (size_t i = 0; i < glance->count; i++) {
        uint64_t word = glance->seen[i].word;
        if ((word & WORD_DAMAGED) != 0)
            RD_TRY(numbers_add(&gathered->damaged, glance->seen[i].hash));
        else if ((word & WORD_TOMBSTONE) == 0 && word_off(word) < gathered->below_off)
            RD_TRY(numbers_add(&gathered->live, word_off(word)));
    }
    return RD_OK;
}

static rd_err gather(rd_store *store, uint64_t generation, struct glance *glance, struct gathered *gathered)
{
    while (!glance->cursor.ended) {
        rd_err err = look(store, generation, glance);
        if (err == RD_ABSENT) {
            gathered->live.count = 0;
            gathered->damaged.count = 0;
            continue;
        }
        if (err == RD_OK)
            err = sort_out(glance, gathered);
        if (err != RD_OK)
            return err;
    }
    return RD_OK;
}

rd_err words_gather(rd_store *store, uint64_t generation, uint64_t below_off, struct numbers *out_live,
                    struct numbers *out_damaged)
{
    struct gathered gathered = {.below_off = below_off};
    struct glance *glance = calloc(1, sizeof(*glance));
    rd_err err = glance == NULL ? RD_E_NOMEM : gather(store, generation, glance, &gathered);
    free(glance);
    numbers_sort(&gathered.live);
    numbers_sort(&gathered.damaged);
    if (err == RD_OK && out_damaged != NULL)
        *out_damaged = gathered.damaged;
    else
        numbers_fini(&gathered.damaged);
    if (err == RD_OK)
        *out_live = gathered.live;
    else
        numbers_fini(&gathered.live);
    return err;
}
