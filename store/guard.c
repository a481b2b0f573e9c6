#include "guard.h"
#include <rdrive/upkeep.h>
#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

/* One leaf at work: where to jump if a load from [begin, end) faults. */
struct record {
    sigjmp_buf env;
    uintptr_t begin, end; /* whole pages: a load may reach past its span, and a fault may name its page */
    struct record *outer;
};

/* The innermost leaf of this thread. initial-exec: the handler may not allocate, which another model might. */
static __attribute__((tls_model("initial-exec"))) _Thread_local struct record *volatile armed;

static atomic_flag taken = ATOMIC_FLAG_INIT;
atomic_bool guard_installed;        /* set once what follows is */
static struct sigaction previous;   /* what there was before */
static uintptr_t page_mask = 0xfff; /* a page's size, less one */

/* Whether the instruction that faulted runs again once the handler returns; else the signal was sent from elsewhere. */
static bool is_fault(const siginfo_t *info)
{
    return info->si_code == BUS_ADRALN || info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR ||
           info->si_code == BUS_MCEERR_AR;
}

/* End as without a handler: a fault comes again by itself, with its address in the core file; a sent signal does not.
 */
static void fall_back(int number, const siginfo_t *info)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(number, &action, NULL);
    if (!is_fault(info))
        raise(number);
}

static void call_previous(int number, siginfo_t *info, void *context)
{
    if ((previous.sa_flags & (int)SA_RESETHAND) != 0) { /* its owner wants the second fault to be the end */
        struct sigaction action = {.sa_handler = SIG_DFL};
        sigaction(number, &action, NULL);
    }
    sigset_t blocked = previous.sa_mask;
    sigset_t before;
    if ((previous.sa_flags & SA_NODEFER) == 0)
        sigaddset(&blocked, number);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    if ((previous.sa_flags & SA_SIGINFO) != 0)
        previous.sa_sigaction(number, info, context);
    else
        previous.sa_handler(number);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Leave the handler for the leaf that failed. Whoever called us (a handler put in later, a sanitizer) may have blocked
   more signals than we asked for: what the fault interrupted knows which were. */
static void jump(struct record *record, const ucontext_t *interrupted)
{
    pthread_sigmask(SIG_SETMASK, &interrupted->uc_sigmask, NULL);
    siglongjmp(record->env, 1);
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    if (info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR)
        for (struct record *record = armed; record != NULL; record = record->outer)
            if (at >= record->begin && at < record->end)
                jump(record, context);
    bool has_handler =
        (previous.sa_flags & SA_SIGINFO) != 0 || (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN);
    if (has_handler)
        call_previous(number, info, context);
    else if (previous.sa_handler == SIG_DFL || is_fault(info)) /* the kernel lets nobody ignore a fault */
        fall_back(number, info);
}

rd_err rd_sigbus_install(void)
{
    if (atomic_flag_test_and_set(&taken))
        return RD_OK;
    page_mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
    /* not deferred: leaving by a jump then has no mask to restore, so sigsetjmp needs no system call */
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    /* `previous` first: a fault may come as soon as the handler is in */
    if (sigaction(SIGBUS, NULL, &previous) != 0 || sigaction(SIGBUS, &action, NULL) != 0) {
        atomic_flag_clear(&taken);
        return RD_E_IO;
    }
    atomic_store_explicit(&guard_installed, true, memory_order_release);
    return RD_OK;
}

bool guard_run(const void *base, size_t len, void (*leaf)(void *arg), void *arg)
{
    if (!atomic_load_explicit(&guard_installed, memory_order_acquire)) { /* embedders without it pay nothing */
        leaf(arg);
        return true;
    }
    struct record record;
    record.begin = (uintptr_t)base & ~page_mask;
    record.end = ((uintptr_t)base + len + page_mask) & ~page_mask;
    record.outer = armed;
    if (sigsetjmp(record.env, 0) != 0) {
        armed = record.outer;
        return false;
    }
    armed = &record;
    atomic_signal_fence(memory_order_seq_cst); /* no load of the leaf's moves out of the armed stretch */
    leaf(arg);
    atomic_signal_fence(memory_order_seq_cst);
    armed = record.outer;
    return true;
}

struct crc_job {
    const uint8_t *data;
    size_t len;
    uint32_t crc;
};

static void crc_leaf(void *arg)
{
    struct crc_job *job = arg;
    job->crc = crc_extend(job->crc, job->data, job->len);
}

bool guard_crc(uint32_t crc, const uint8_t *data, size_t len, uint32_t *out_crc)
{
    struct crc_job job = {.data = data, .len = len, .crc = crc};
    if (!guard_run(data, len, crc_leaf, &job))
        return false;
    *out_crc = job.crc;
    return true;
}

struct parse_job {
    const uint8_t *base;
    uint64_t trailer_off;
    struct entry entry;
    bool parsed;
};

static void parse_leaf(void *arg)
{
    struct parse_job *job = arg;
    job->parsed = entry_parse(job->base, job->trailer_off, &job->entry);
}

rd_err guard_parse_armed(const uint8_t *base, uint64_t trailer_off, struct entry *out_entry)
{
    struct parse_job job = {.base = base, .trailer_off = trailer_off};
    /* all below the trailer too: whether an entry is a tombstone is read where its link points (F-05) */
    if (!guard_run(base, (size_t)(trailer_off + RD_TRAILER_SIZE), parse_leaf, &job))
        return RD_E_TRUNCATED;
    if (!job.parsed)
        return RD_E_DAMAGED;
    *out_entry = job.entry;
    return RD_OK;
}

struct copy_job {
    void *to;
    rd_span bytes;
};

static void copy_leaf(void *arg)
{
    const struct copy_job *job = arg;
    memcpy(job->to, job->bytes.data, job->bytes.len);
}

bool rd_copy(void *to, rd_span bytes)
{
    struct copy_job job = {.to = to, .bytes = bytes};
    return bytes.len == 0 || guard_run(bytes.data, bytes.len, copy_leaf, &job);
}
