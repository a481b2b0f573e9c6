#include "asyncop.h"

static void asyncop_done(rd_op *op)
{
    struct asyncop *a = (struct asyncop *)op;
    pthread_mutex_lock(&a->mutex);
    a->completed++;
    a->on_caller = pthread_equal(pthread_self(), a->caller) != 0;
    pthread_cond_broadcast(&a->cond); /* under the lock: the waiter may free all this right after */
    pthread_mutex_unlock(&a->mutex);
}

void asyncop_init(struct asyncop *a, rd_op_kind kind)
{
    *a = (struct asyncop){.op = {.kind = kind, .done = asyncop_done}};
    pthread_mutex_init(&a->mutex, NULL);
    pthread_cond_init(&a->cond, NULL);
}

static void asyncop_start(struct asyncop *a)
{
    pthread_mutex_lock(&a->mutex);
    a->started++;
    a->caller = pthread_self();
    pthread_mutex_unlock(&a->mutex);
}

void asyncop_submit(rd_engine *engine, struct asyncop *a)
{
    asyncop_start(a);
    rd_engine_submit(engine, &a->op);
}

void asyncop_next(rd_engine *engine, struct asyncop *a)
{
    asyncop_start(a);
    rd_engine_next(engine, &a->op);
}

void asyncop_wait(struct asyncop *a)
{
    pthread_mutex_lock(&a->mutex);
    while (a->completed < a->started)
        pthread_cond_wait(&a->cond, &a->mutex);
    pthread_mutex_unlock(&a->mutex);
}

rd_err asyncop_run(rd_engine *engine, struct asyncop *a)
{
    asyncop_submit(engine, a);
    asyncop_wait(a);
    return a->op.err;
}

bool asyncop_is_even(struct asyncop *a)
{
    pthread_mutex_lock(&a->mutex);
    bool even = a->completed == a->started;
    pthread_mutex_unlock(&a->mutex);
    return even;
}

void asyncop_fini(struct asyncop *a)
{
    pthread_cond_destroy(&a->cond);
    pthread_mutex_destroy(&a->mutex);
}

void asyncop_finish(rd_engine *engine, struct asyncop *a)
{
    rd_engine_finish(engine, &a->op);
    EXPECT(asyncop_is_even(a), "started %u times, completed %u times", a->started, a->completed);
    asyncop_fini(a);
}

rd_engine *asyncop_engine(void **state, const rd_open_options *options)
{
    rd_engine *engine = NULL;
    rd_store *store = store_open_ok(temp_path(state, "s"), options);
    rd_err err = rd_engine_create_local(store, 2, &engine);
    EXPECT(err == RD_OK, "%s", rd_err_text(err));
    return engine;
}

rd_err asyncop_read(rd_engine *engine, uint64_t hash, const void *payload, size_t len)
{
    rd_key key = {.hash = hash};
    rd_value value;
    struct asyncop a;
    asyncop_init(&a, RD_OP_READ);
    a.op.keys = &key;
    a.op.key_count = 1;
    a.op.values = &value;
    a.op.value_max = 1;
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    rd_err err = value.err;
    if (err == RD_OK)
        EXPECT(span_equal(value.payload, payload, len), "%zu bytes", value.payload.len);
    asyncop_finish(engine, &a);
    return err;
}

uint64_t asyncop_tail(rd_engine *engine)
{
    struct asyncop a;
    asyncop_init(&a, RD_OP_INFO);
    assert_int_equal(asyncop_run(engine, &a), RD_OK);
    uint64_t tail_off = a.op.info.tail_off;
    asyncop_finish(engine, &a);
    return tail_off;
}

void asyncop_write_init(struct asyncop *a, const rd_write_item *item)
{
    asyncop_init(a, RD_OP_WRITE);
    a->op.items = item;
    a->op.item_count = 1;
}
