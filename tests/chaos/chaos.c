#include "internal.h"
#include <string.h>

static struct chaos_op *op_of(rd_op *outer)
{
    struct chaos_op *op = outer->priv[0];
    CHAOS_REQUIRE(op != NULL && op->outer == outer);
    return op;
}

/* ---- the interface ---- */

static void start(struct chaos_op *op)
{
    struct chaos *chaos = op->chaos;
    sem_t answered;
    op->plan = plan_make(chaos, op->outer);
    op->sent_sum = op_sum_sent(op->outer);
    pthread_mutex_lock(&chaos->lock);
    op->serial++;
    op->asker = pthread_self();
    CHAOS_REQUIRE(op->phase == IDLE);
    count_locked(chaos, CHAOS_PENDING, 1);
    bool meanwhile = op->plan.meanwhile && !chaos->gate_closed;
    bool late = op->plan.asks_late && op->plan.delay_ns > 0;
    if (meanwhile) {
        sem_init(&answered, 0, 0);
        op->answered = &answered;
        queue_put_locked(op, TO_ASK, 0);
    } else if (late) {
        queue_put_locked(op, TO_ASK, op->plan.delay_ns);
    } else {
        op->phase = ASKING;
    }
    pthread_mutex_unlock(&chaos->lock);
    if (meanwhile) {
        while (sem_wait(&answered) != 0)
            ;
        sem_destroy(&answered);
    } else if (!late) {
        op_ask(op);
    }
}

/* Reads all keys, so that a caller who has let them go is found out. */
static uint64_t sum_keys(const rd_op *op)
{
    uint64_t sum = 0;
    bool has_keys =
        op->kind == RD_OP_READ || op->kind == RD_OP_DELETE || op->kind == RD_OP_RENAME || op->kind == RD_OP_STREAM;
    for (size_t i = 0; has_keys && i < op->key_count; i++)
        sum = sum * 31 + op->keys[i].hash;
    return sum;
}

static void chaos_submit(rd_engine *engine, rd_op *outer)
{
    struct chaos *chaos = chaos_of(engine);
    size_t value_max = outer->kind == RD_OP_READ || outer->kind == RD_OP_LAST ? outer->value_max : 0;
    struct chaos_op *op = calloc(1, sizeof(*op) + value_max * sizeof(rd_value));
    CHAOS_REQUIRE(op != NULL && outer->done != NULL);
    CHAOS_REQUIRE(value_max > 0 || (outer->kind != RD_OP_READ && outer->kind != RD_OP_LAST));
    CHAOS_REQUIRE(outer->kind != RD_OP_RENAME || outer->key_count == 2);
    CHAOS_REQUIRE(outer->kind != RD_OP_STREAM || outer->key_count == 1);
    op->chaos = chaos;
    op->outer = outer;
    atomic_init(&op->refs, 1);
    op->keys_sum = sum_keys(outer);
    op->inner = *outer;
    op->inner.done = op_inner_done;
    op->inner.values = op->values;
    memset(outer->priv, 0, sizeof(outer->priv));
    outer->priv[0] = op;
    outer->err = RD_E_UNSUPPORTED; /* nothing to be read before it completes */
    count(chaos, CHAOS_LIVE, 1);
    count(chaos, CHAOS_SUBMITS, 1);
    start(op);
}

static void chaos_next(rd_engine *engine, rd_op *outer)
{
    struct chaos_op *op = op_of(outer);
    CHAOS_REQUIRE(op->can_next);
    op->can_next = false;
    op_drop_window(op);
    if (outer->kind == RD_OP_READ)
        memset(outer->values, 0xdb, outer->value_max * sizeof(rd_value)); /* ours again, and nothing in it */
    count(chaos_of(engine), CHAOS_NEXTS, 1);
    start(op);
}

static void chaos_cancel(rd_engine *engine, rd_op *outer)
{
    struct chaos *chaos = chaos_of(engine);
    struct chaos_op *op = op_of(outer);
    bool heed = plan_chance(chaos, chaos->config.heed_per_mille);
    bool inline_answer = plan_chance(chaos, 500);
    bool answer_now = false;
    bool pass_on = false;
    pthread_mutex_lock(&chaos->lock);
    count_locked(chaos, CHAOS_CANCELS, 1);
    if (heed && (op->phase == TO_ASK || op->phase == TO_ANSWER) && op->answered == NULL) {
        count_locked(chaos, CHAOS_CANCELLED, 1);
        queue_remove_locked(op);
        op->plan.err = RD_E_CANCELLED;
        answer_now = inline_answer || chaos->gate_closed; /* the gate does not hold it back */
        if (answer_now)
            op->phase = ANSWERING;
        else
            queue_put_locked(op, TO_ANSWER, 0);
    } else {
        pass_on = heed && op->phase == INNER;
    }
    pthread_mutex_unlock(&chaos->lock);
    if (answer_now)
        op_answer(op);
    else if (pass_on)
        rd_engine_cancel(chaos->inner, &op->inner);
}

static rd_err chaos_hold(rd_engine *engine, rd_op *outer, const rd_value *value, rd_hold *out_hold)
{
    struct chaos *chaos = chaos_of(engine);
    struct chaos_op *op = op_of(outer);
    CHAOS_REQUIRE(value >= outer->values && value < outer->values + outer->value_count);
    CHAOS_REQUIRE(value->err == RD_OK && value->payload.len > 0);
    if (plan_chance(chaos, chaos->config.deny_per_mille)) {
        count(chaos, CHAOS_HOLDS_DENIED, 1);
        return RD_E_NOMEM;
    }
    size_t i = 0;
    while (i < op->window_count && buffer_span(op->window[i]).data != value->payload.data)
        i++;
    CHAOS_REQUIRE(i < op->window_count);
    *out_hold = buffer_hold(op->window[i]);
    return RD_OK;
}

static void chaos_finish(rd_engine *engine, rd_op *outer)
{
    struct chaos *chaos = chaos_of(engine);
    struct chaos_op *op = op_of(outer);
    pthread_mutex_lock(&chaos->lock);
    CHAOS_REQUIRE(op->phase == IDLE);
    count_locked(chaos, CHAOS_LIVE, -1);
    pthread_mutex_unlock(&chaos->lock);
    CHAOS_REQUIRE(sum_keys(outer) == op->keys_sum);
    op_drop_window(op);
    if (op->inner_open)
        rd_engine_finish(chaos->inner, &op->inner);
    for (size_t i = 0; op->ranges != NULL && i < chaos->config.range_count; i++)
        free((void *)(uintptr_t)op->ranges[i].what);
    free(op->ranges);
    outer->priv[0] = NULL; /* a second finish is found out */
    op_unref(op);
}

/* ---- life ---- */

static void stop(struct chaos *chaos)
{
    pthread_mutex_lock(&chaos->lock);
    chaos->ending = true;
    pthread_cond_broadcast(&chaos->work);
    pthread_cond_broadcast(&chaos->change);
    pthread_mutex_unlock(&chaos->lock);
    control_destroy(chaos->control);
    for (size_t i = 0; i < chaos->thread_count; i++)
        pthread_join(chaos->threads[i], NULL);
    pthread_cond_destroy(&chaos->work);
    pthread_cond_destroy(&chaos->change);
    pthread_mutex_destroy(&chaos->lock);
}

static void chaos_destroy(rd_engine *engine)
{
    struct chaos *chaos = chaos_of(engine);
    bool zero = true;
    fprintf(stderr, "chaos: end seed=%llu", (unsigned long long)chaos->config.seed);
    for (size_t i = 0; i < CHAOS_COUNT_MAX; i++) {
        uint64_t value = chaos_count(engine, (enum chaos_count)i);
        zero = zero && (i >= CHAOS_ZERO_AT_END || value == 0);
        fprintf(stderr, " %s=%llu", chaos_count_names[i], (unsigned long long)value);
    }
    fputs("\n", stderr);
    CHAOS_REQUIRE(zero);
    stop(chaos);
    rd_engine_destroy(chaos->inner);
    free(chaos);
}

rd_engine *chaos_create(rd_engine *inner, const struct chaos_config *config)
{
    static const rd_engine_vtable vtable = {
        .submit = chaos_submit,
        .next = chaos_next,
        .cancel = chaos_cancel,
        .hold = chaos_hold,
        .finish = chaos_finish,
        .destroy = chaos_destroy,
    };
    struct chaos *chaos = calloc(1, sizeof(*chaos));
    if (chaos == NULL)
        return NULL;
    chaos->engine.vtable = &vtable;
    chaos->inner = inner;
    chaos->config = *config;
    chaos->gate_closed = config->hold;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&chaos->work, &monotonic);
    pthread_cond_init(&chaos->change, NULL);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&chaos->lock, NULL);
    size_t threads = config->threads < 1                   ? 1
                     : config->threads < CHAOS_THREADS_MAX ? config->threads
                                                           : CHAOS_THREADS_MAX;
    bool good = config->control == NULL || (chaos->control = control_create(chaos, config->control)) != NULL;
    while (good && chaos->thread_count < threads) {
        good = pthread_create(&chaos->threads[chaos->thread_count], NULL, queue_run, chaos) == 0;
        chaos->thread_count += good;
    }
    if (!good) {
        stop(chaos);
        free(chaos);
        return NULL;
    }
    return &chaos->engine;
}

rd_engine *chaos_wrap(rd_engine *inner)
{
    struct chaos_config config;
    chaos_config_read(&config);
    rd_engine *engine = chaos_create(inner, &config);
    if (engine == NULL) {
        rd_engine_destroy(inner);
        return NULL;
    }
    if (config.shut) {
        struct chaos *chaos = chaos_of(engine);
        pthread_mutex_lock(&chaos->lock);
        count_locked(chaos, CHAOS_SHUT, 1);
        while (chaos->counts[CHAOS_SHUT] > 0)
            pthread_cond_wait(&chaos->change, &chaos->lock);
        pthread_mutex_unlock(&chaos->lock);
    }
    return engine;
}
