/* One submit or next, from asking the inner engine to the completion. */
#include "internal.h"
#include <string.h>

void op_unref(struct chaos_op *op)
{
    if (atomic_fetch_sub(&op->refs, 1) == 1)
        free(op);
}

void op_drop_window(struct chaos_op *op)
{
    for (size_t i = 0; i < op->window_count; i++)
        buffer_unref(op->window[i]);
    free(op->window);
    free(op->pieces);
    op->window = NULL;
    op->pieces = NULL;
    op->window_count = 0;
}

static uint64_t sum_span(uint64_t sum, rd_span span)
{
    const uint8_t *bytes = span.data;
    for (size_t i = 0; i < span.len; i++)
        sum = sum * 31 + bytes[i];
    return sum * 31 + span.len;
}

uint64_t op_sum_sent(const rd_op *op)
{
    uint64_t sum = 0;
    if (op->kind == RD_OP_STREAM)
        for (size_t i = 0; i < op->piece_count; i++)
            sum = sum_span(sum, op->pieces[i]);
    if (op->kind == RD_OP_WRITE)
        for (size_t i = 0; i < op->item_count; i++)
            sum = sum_span(sum * 31 + op->items[i].key_hash, op->items[i].payload);
    return sum;
}

/* The user's pieces as the inner engine sees them: they end with their completion. */
static void copy_pieces(struct chaos_op *op)
{
    const rd_op *outer = op->outer;
    op->window = calloc(outer->piece_count + 1, sizeof(struct buffer *));
    op->pieces = calloc(outer->piece_count + 1, sizeof(rd_span));
    CHAOS_REQUIRE(op->window != NULL && op->pieces != NULL);
    for (size_t i = 0; i < outer->piece_count; i++) {
        if (outer->pieces[i].len == 0)
            continue;
        struct buffer *buffer = buffer_create(op->chaos, outer->pieces[i]);
        CHAOS_REQUIRE(buffer != NULL);
        op->window[op->window_count++] = buffer;
        op->pieces[i] = buffer_span(buffer);
    }
    op->inner.pieces = op->pieces;
    op->inner.piece_count = outer->piece_count;
    op->inner.last = outer->last;
}

/* One value, its payload in a buffer of ours. Returns: false when out of memory. */
static bool copy_value(struct chaos_op *op, const rd_value *from, rd_value *to)
{
    struct chaos *chaos = op->chaos;
    *to = *from;
    to->payload = (rd_span){0};
    if (from->err == RD_OK && plan_chance(chaos, chaos->config.damage_per_mille)) {
        *to = (rd_value){.err = RD_E_DAMAGED};
        count(chaos, CHAOS_DAMAGED, 1);
        return true;
    }
    if (from->payload.len == 0)
        return true;
    struct buffer *buffer = buffer_create(chaos, from->payload);
    if (buffer == NULL)
        return false;
    op->window[op->window_count++] = buffer;
    to->payload = buffer_span(buffer);
    return true;
}

static rd_err copy_window(struct chaos_op *op)
{
    const rd_op *inner = &op->inner;
    CHAOS_REQUIRE(inner->value_count <= op->plan.value_max && (inner->value_count > 0 || !inner->more));
    op->window = calloc(inner->value_count + 1, sizeof(struct buffer *));
    if (op->window == NULL)
        return RD_E_NOMEM;
    for (size_t i = 0; i < inner->value_count; i++)
        if (!copy_value(op, &op->values[i], &op->outer->values[i]))
            return RD_E_NOMEM;
    op->outer->first = inner->first;
    op->outer->value_count = inner->value_count;
    op->outer->more = inner->more;
    return RD_OK;
}

/* The inner engine's figures, with ranges that live only until finish. */
static rd_err copy_info(struct chaos_op *op)
{
    size_t range_count = (size_t)op->chaos->config.range_count;
    op->outer->info = op->inner.info;
    op->outer->info.engine = "chaos";
    if (range_count == 0)
        return RD_OK;
    op->ranges = calloc(range_count, sizeof(*op->ranges));
    if (op->ranges == NULL)
        return RD_E_NOMEM;
    for (size_t i = 0; i < range_count; i++)
        op->ranges[i] = (rd_range){.offset = 1000 * i, .size = i + 1, .what = strdup("invented")};
    op->outer->info.damaged_ranges = op->ranges;
    op->outer->info.damaged_range_count = range_count;
    return RD_OK;
}

static rd_err copy_results(struct chaos_op *op)
{
    switch (op->outer->kind) {
    case RD_OP_READ:
    case RD_OP_LAST: return copy_window(op);
    case RD_OP_INFO: return copy_info(op);
    case RD_OP_WRITE:
    case RD_OP_DELETE:
    case RD_OP_RENAME: op->outer->written = op->inner.written; return RD_OK;
    case RD_OP_STREAM:
        CHAOS_REQUIRE(op->inner.more == !op->inner.last);
        op->outer->more = op->inner.more;
        op->outer->written = op->inner.written;
        op->outer->streamed = op->inner.streamed;
        return RD_OK;
    case RD_OP_COMPACT:
        op->outer->more = op->inner.more;
        op->outer->compacted = op->inner.compacted;
        return RD_OK;
    }
    return RD_E_UNSUPPORTED;
}

void op_answer(struct chaos_op *op)
{
    struct chaos *chaos = op->chaos;
    rd_op *outer = op->outer;
    rd_err err = op->plan.err != RD_OK ? op->plan.err : op->inner.err;
    CHAOS_REQUIRE(op_sum_sent(outer) == op->sent_sum);
    if (outer->kind == RD_OP_STREAM)
        op_drop_window(op);
    outer->first = 0;
    outer->value_count = 0;
    outer->more = false;
    if (err == RD_OK)
        err = copy_results(op);
    if (err != RD_OK) {
        outer->value_count = 0;
        outer->more = false;
    }
    outer->err = err;
    op->can_next = err == RD_OK && outer->more;
    pthread_mutex_lock(&chaos->lock);
    sem_t *answered = op->answered;
    op->answered = NULL;
    op->phase = IDLE;
    count_locked(chaos, CHAOS_PENDING, -1);
    count_locked(chaos, CHAOS_COMPLETIONS, 1);
    count_locked(chaos, CHAOS_ELSEWHERE, !pthread_equal(op->asker, pthread_self()));
    pthread_mutex_unlock(&chaos->lock);
    outer->done(outer);
    if (answered != NULL)
        sem_post(answered);
}

/* The results are there, or the plan is to fail. */
static void answer_later(struct chaos_op *op)
{
    struct chaos *chaos = op->chaos;
    pthread_mutex_lock(&chaos->lock);
    bool at_once = op->answered != NULL || (!chaos->gate_closed && (op->plan.delay_ns == 0 || op->plan.asks_late));
    if (at_once)
        op->phase = ANSWERING;
    else
        queue_put_locked(op, TO_ANSWER, op->plan.delay_ns);
    pthread_mutex_unlock(&chaos->lock);
    if (at_once)
        op_answer(op);
}

void op_inner_done(rd_op *inner)
{
    answer_later((struct chaos_op *)((char *)inner - offsetof(struct chaos_op, inner)));
}

void op_ask(struct chaos_op *op)
{
    struct chaos *chaos = op->chaos;
    unsigned serial = op->serial;
    if (op->plan.err != RD_OK) {
        count(chaos, CHAOS_FAILED, 1);
        answer_later(op);
        return;
    }
    atomic_fetch_add(&op->refs, 1);
    op->inner.value_max = op->plan.value_max;
    if (op->outer->kind == RD_OP_STREAM)
        copy_pieces(op);
    if (op->inner_open) {
        rd_engine_next(chaos->inner, &op->inner);
    } else {
        op->inner_open = true;
        rd_engine_submit(chaos->inner, &op->inner);
    }
    /* only now may it be cancelled; it may have completed, and even another one begun */
    pthread_mutex_lock(&chaos->lock);
    if (op->serial == serial && op->phase == ASKING)
        op->phase = INNER;
    pthread_mutex_unlock(&chaos->lock);
    op_unref(op);
}
