/* Loads from a file that is cut under its mapping. Each test runs in a child: a handler belongs to a process, and some
   of them are to die. */
#include "guard.h"
#include "thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <pthread.h>
#include <rdrive/upkeep.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 4

static size_t page;

/* In a child, where cmocka's checks would return into the wrong process. */
#define CHILD_EXPECT(cond)                                                                                             \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: expected: %s\n", __FILE__, __LINE__, #cond);                                       \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* How a child that does `run` ends. */
static int child_status(void (*run)(void))
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0};
        setrlimit(RLIMIT_CORE, &none);
        run();
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void expect_success(void (*run)(void))
{
    int status = child_status(run);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void expect_sigbus(void (*run)(void))
{
    int status = child_status(run);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
}

/* A mapped file of PAGES pages of `fill`. */
struct mapped {
    int fd;
    uint8_t *base;
    size_t len;
};

static struct mapped mapped_make(int fill)
{
    struct mapped mapped = {.fd = memfd_create("guard", MFD_CLOEXEC), .len = PAGES * page};
    CHILD_EXPECT(mapped.fd >= 0 && ftruncate(mapped.fd, (off_t)mapped.len) == 0);
    mapped.base = mmap(NULL, mapped.len, PROT_READ | PROT_WRITE, MAP_SHARED, mapped.fd, 0);
    CHILD_EXPECT(mapped.base != MAP_FAILED);
    memset(mapped.base, fill, mapped.len);
    return mapped;
}

static void mapped_cut(const struct mapped *mapped, size_t len)
{
    CHILD_EXPECT(ftruncate(mapped->fd, (off_t)len) == 0);
}

static void mapped_free(struct mapped *mapped)
{
    munmap(mapped->base, mapped->len);
    close(mapped->fd);
}

static void touch(const volatile uint8_t *at)
{
    (void)*at;
}

static void touch_leaf(void *at)
{
    touch(at);
}

/* A lost byte that no guard covers. */
static uint8_t *lost_byte(void)
{
    struct mapped mapped = mapped_make(1);
    mapped_cut(&mapped, 0);
    return mapped.base + page + 5;
}

static void default_first(void)
{
    signal(SIGBUS, SIG_DFL); /* a sanitizer may have its own */
    CHILD_EXPECT(rd_sigbus_install() == RD_OK);
}

/* ---- The guards ------------------------------------------------------------------------------------------------- */

static void run_intact(void)
{
    struct mapped mapped = mapped_make(7);
    uint8_t copy[100] = {0};
    uint32_t crc = 0;
    CHILD_EXPECT(guard_crc(0, mapped.base, mapped.len, &crc) && crc == crc_of(mapped.base, mapped.len));
    CHILD_EXPECT(rd_copy(copy, (rd_span){mapped.base + page, sizeof(copy)}) && copy[0] == 7 && copy[99] == 7);
    CHILD_EXPECT(rd_copy(NULL, (rd_span){NULL, 0}));
    struct raw_trailer *raw = (struct raw_trailer *)(mapped.base + 2 * page);
    store_le64(raw->key_hash, 42);
    store_le64(raw->prev_tail, 70);
    store_le32(raw->crc32, 9);
    struct entry entry = {0};
    CHILD_EXPECT(guard_parse(mapped.base, 2 * page, &entry) == RD_OK);
    CHILD_EXPECT(entry.key_hash == 42 && entry.prev_off == 70 && entry.start_off == 128 && entry.crc == 9);
    store_le64(raw->prev_tail, UINT64_MAX);
    CHILD_EXPECT(guard_parse(mapped.base, 2 * page, &entry) == RD_E_DAMAGED && entry.prev_off == 70);
    mapped_free(&mapped);
}

static void run_intact_installed(void)
{
    default_first();
    run_intact();
}

static void intact_bytes_are_read_with_the_handler_and_without(void **state)
{
    (void)state;
    expect_success(run_intact);
    expect_success(run_intact_installed);
}

static void run_cut(void)
{
    default_first();
    CHILD_EXPECT(rd_sigbus_install() == RD_OK); /* a second call changes nothing */
    struct mapped mapped = mapped_make(0);
    mapped_cut(&mapped, page);
    /* over and over: no signal stays blocked after a jump */
    for (int i = 0; i < 1000; i++) {
        uint32_t crc = 77;
        uint8_t copy[64];
        struct entry entry = {.key_hash = 77};
        CHILD_EXPECT(!guard_crc(0, mapped.base + 8, mapped.len - 8, &crc) && crc == 77);
        CHILD_EXPECT(!rd_copy(copy, (rd_span){mapped.base + page - 8, sizeof(copy)}));
        CHILD_EXPECT(!rd_copy(copy, (rd_span){mapped.base + mapped.len - 1, 1}));
        CHILD_EXPECT(guard_parse(mapped.base, 3 * page, &entry) == RD_E_TRUNCATED && entry.key_hash == 77);
        CHILD_EXPECT(guard_parse(mapped.base, page - 10, &entry) == RD_E_TRUNCATED);
        CHILD_EXPECT(rd_copy(copy, (rd_span){mapped.base, sizeof(copy)}));
        CHILD_EXPECT(guard_crc(0, mapped.base, page, &crc) && crc == crc_of(mapped.base, page));
    }
    mapped_free(&mapped);
}

static void bytes_that_vanished_fail_their_call_alone(void **state)
{
    (void)state;
    expect_success(run_cut);
}

static void run_alternate_stack(void)
{
    static uint8_t stack[1 << 16];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    CHILD_EXPECT(sigaltstack(&alternate, NULL) == 0);
    run_cut();
}

static void a_handler_on_an_alternate_stack_gets_back(void **state)
{
    (void)state;
    expect_success(run_alternate_stack);
}

static void run_not_installed(void)
{
    signal(SIGBUS, SIG_DFL);
    uint8_t *lost = lost_byte();
    CHILD_EXPECT(!guard_run(lost, 1, touch_leaf, lost));
}

static void without_the_handler_a_cut_file_ends_the_process(void **state)
{
    (void)state;
    expect_sigbus(run_not_installed);
}

struct nest {
    struct mapped outer, inner;
    uint8_t *touched;
    bool inner_done, inner_held;
};

static void nest_leaf(void *arg)
{
    struct nest *nest = arg;
    nest->inner_held = guard_run(nest->inner.base, nest->inner.len, touch_leaf, nest->touched);
    nest->inner_done = true;
    touch(nest->outer.base);
}

static void run_nested(void)
{
    default_first();
    struct nest nest = {.outer = mapped_make(1), .inner = mapped_make(2)};
    mapped_cut(&nest.inner, page);
    nest.touched = nest.inner.base + page;
    CHILD_EXPECT(guard_run(nest.outer.base, nest.outer.len, nest_leaf, &nest));
    CHILD_EXPECT(nest.inner_done && !nest.inner_held);
    /* the inner leaf loads what the outer one answers for: both end */
    nest.inner_done = false;
    mapped_cut(&nest.outer, 0);
    nest.touched = nest.outer.base;
    CHILD_EXPECT(!guard_run(nest.outer.base, nest.outer.len, nest_leaf, &nest));
    CHILD_EXPECT(!nest.inner_done);
    CHILD_EXPECT(!guard_run(nest.outer.base, nest.outer.len, touch_leaf, nest.outer.base));
}

static void run_disarmed(void)
{
    run_nested();
    touch(lost_byte());
}

static void guards_nest_and_leave_nothing_armed(void **state)
{
    (void)state;
    expect_success(run_nested);
    expect_sigbus(run_disarmed);
}

/* Of several threads, each with a file of its own, every second one cut. */
struct worker {
    pthread_t thread;
    struct mapped mapped;
    bool cut;
    bool wrong;
};

static void *work(void *arg)
{
    struct worker *worker = arg;
    for (int i = 0; i < 2000; i++) {
        uint32_t crc;
        bool held = guard_crc(0, worker->mapped.base, worker->mapped.len, &crc);
        if (held == worker->cut)
            worker->wrong = true;
    }
    return NULL;
}

static void run_threads(void)
{
    default_first();
    struct worker workers[8];
    for (size_t i = 0; i < 8; i++) {
        workers[i] = (struct worker){.mapped = mapped_make((int)i), .cut = i % 2 == 1};
        if (workers[i].cut)
            mapped_cut(&workers[i].mapped, (i - 1) / 2 * page);
    }
    for (size_t i = 0; i < 8; i++)
        CHILD_EXPECT(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    for (size_t i = 0; i < 8; i++) {
        CHILD_EXPECT(pthread_join(workers[i].thread, NULL) == 0);
        CHILD_EXPECT(!workers[i].wrong);
    }
}

static void *work_blocked(void *arg)
{
    struct worker *worker = arg;
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    worker->wrong = !sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGCHLD);
    return work(arg);
}

static void run_own_thread(void)
{
    default_first();
    struct worker worker = {.mapped = mapped_make(3), .cut = true};
    mapped_cut(&worker.mapped, 0);
    CHILD_EXPECT(thread_start(work_blocked, &worker, &worker.thread) == RD_OK);
    CHILD_EXPECT(pthread_join(worker.thread, NULL) == 0 && !worker.wrong);
}

static void the_engines_own_threads_block_signals_but_no_faults(void **state)
{
    (void)state;
    expect_success(run_own_thread);
}

static void each_thread_has_its_own_guard(void **state)
{
    (void)state;
    expect_success(run_threads);
}

/* ---- What goes on to the handler before ------------------------------------------------------------------------- */

static sigjmp_buf back;
static void *volatile seen_address;
static volatile sig_atomic_t seen_count;

static void old_handler(int number)
{
    (void)number;
    seen_count++;
    siglongjmp(back, 1);
}

static void old_action(int number, siginfo_t *info, void *context)
{
    CHILD_EXPECT(number == SIGBUS && context != NULL);
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    CHILD_EXPECT(sigismember(&blocked, SIGUSR1) && sigismember(&blocked, SIGBUS));
    seen_address = info->si_addr;
    seen_count++;
    siglongjmp(back, 1);
}

static void run_plain_handler(void)
{
    signal(SIGBUS, old_handler);
    CHILD_EXPECT(rd_sigbus_install() == RD_OK);
    for (int i = 1; i <= 3; i++) {
        if (sigsetjmp(back, 1) == 0)
            touch(lost_byte());
        CHILD_EXPECT(seen_count == i);
    }
}

static void run_siginfo_handler(void)
{
    struct sigaction action = {.sa_sigaction = old_action, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR1);
    CHILD_EXPECT(sigaction(SIGBUS, &action, NULL) == 0 && rd_sigbus_install() == RD_OK);
    uint8_t *lost = lost_byte();
    for (int i = 1; i <= 3; i++) {
        if (sigsetjmp(back, 1) == 0)
            touch(lost);
        CHILD_EXPECT(seen_count == i && seen_address == lost);
    }
}

/* Armed, but for other bytes than those that fault. */
static void run_outside_of_ours(void)
{
    signal(SIGBUS, old_handler);
    CHILD_EXPECT(rd_sigbus_install() == RD_OK);
    struct mapped mapped = mapped_make(1);
    if (sigsetjmp(back, 1) == 0) {
        bool held = guard_run(mapped.base, mapped.len, touch_leaf, lost_byte());
        CHILD_EXPECT(!held && false);
    }
    CHILD_EXPECT(seen_count == 1);
}

static void a_fault_outside_of_ours_reaches_the_handler_before(void **state)
{
    (void)state;
    expect_success(run_plain_handler);
    expect_success(run_siginfo_handler);
    expect_success(run_outside_of_ours);
}

static void note_once(int number)
{
    (void)number;
    CHILD_EXPECT(seen_count == 0);
    seen_count++;
}

static void run_one_shot(void)
{
    struct sigaction action = {.sa_handler = note_once, .sa_flags = (int)SA_RESETHAND};
    CHILD_EXPECT(sigaction(SIGBUS, &action, NULL) == 0 && rd_sigbus_install() == RD_OK);
    touch(lost_byte());
}

static void run_ignored_fault(void)
{
    signal(SIGBUS, SIG_IGN);
    CHILD_EXPECT(rd_sigbus_install() == RD_OK);
    touch(lost_byte());
}

static void run_fault(void)
{
    default_first();
    touch(lost_byte());
}

static void run_sent(void)
{
    default_first();
    raise(SIGBUS);
}

static void a_fault_that_nobody_handles_ends_the_process(void **state)
{
    (void)state;
    expect_sigbus(run_fault);
    expect_sigbus(run_sent);
    expect_sigbus(run_ignored_fault);
    expect_sigbus(run_one_shot);
}

static void run_ignored_sent(void)
{
    signal(SIGBUS, SIG_IGN);
    CHILD_EXPECT(rd_sigbus_install() == RD_OK);
    raise(SIGBUS);
    kill(getpid(), SIGBUS);
}

static void a_sent_signal_is_ignored_where_it_was_before(void **state)
{
    (void)state;
    expect_success(run_ignored_sent);
}

int main(void)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(intact_bytes_are_read_with_the_handler_and_without),
        cmocka_unit_test(bytes_that_vanished_fail_their_call_alone),
        cmocka_unit_test(a_handler_on_an_alternate_stack_gets_back),
        cmocka_unit_test(without_the_handler_a_cut_file_ends_the_process),
        cmocka_unit_test(guards_nest_and_leave_nothing_armed),
        cmocka_unit_test(each_thread_has_its_own_guard),
        cmocka_unit_test(the_engines_own_threads_block_signals_but_no_faults),
        cmocka_unit_test(a_fault_outside_of_ours_reaches_the_handler_before),
        cmocka_unit_test(a_fault_that_nobody_handles_ends_the_process),
        cmocka_unit_test(a_sent_signal_is_ignored_where_it_was_before),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
