#include "readahead.h"
#include "base.h"
#include "thread.h"
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIECE_LEN  UINT64_C(0x800000) /* asked for at once; the system has at least that much under way */
#define GLANCE_LEN UINT64_C(0x400000)

struct readahead {
    const uint8_t *base;
    uint64_t floor_off, end_off; /* all there is to read */
    uint64_t asked_off;          /* what lies above was asked for */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    uint64_t want_off;
    bool ending;
};

static uintptr_t page_len(void)
{
    return (uintptr_t)sysconf(_SC_PAGESIZE);
}

/* madvise for whole pages around a range. Returns: whether the system did it; where not, it is only slower. */
static bool advise(const uint8_t *base, uint64_t begin_off, uint64_t end_off, int advice)
{
    uintptr_t begin = ((uintptr_t)base + begin_off) & ~(page_len() - 1);
    return madvise((void *)begin, (uintptr_t)base + end_off - begin, advice) == 0;
}

void populate_range(const uint8_t *base, uint64_t begin_off, uint64_t end_off)
{
#ifdef MADV_POPULATE_READ
    if (advise(base, begin_off, end_off, MADV_POPULATE_READ) || errno != EINVAL)
        return;
#endif
    (void)advise(base, begin_off, end_off, MADV_WILLNEED);
}

bool is_resident(const uint8_t *base, uint64_t begin_off, uint64_t end_off)
{
    static const uint64_t page_min = 4096;
    unsigned char pages[GLANCE_LEN / page_min + 1];
    for (uint64_t at = begin_off; at < end_off; at += GLANCE_LEN) {
        uint64_t to = end_off - at < GLANCE_LEN ? end_off : at + GLANCE_LEN;
        uintptr_t begin = ((uintptr_t)base + at) & ~(page_len() - 1);
        uintptr_t end = (uintptr_t)base + to;
        size_t count = (end - begin + page_len() - 1) / page_len();
        if (count > sizeof(pages) || mincore((void *)begin, end - begin, pages) != 0)
            return true;
        for (size_t i = 0; i < count; i++)
            if ((pages[i] & 1) == 0)
                return false;
    }
    return true;
}

static void *readahead_run(void *argument)
{
    struct readahead *readahead = argument;
    pthread_mutex_lock(&readahead->lock);
    while (!readahead->ending) {
        uint64_t end_off = readahead->asked_off;
        if (end_off <= readahead->want_off) {
            pthread_cond_wait(&readahead->wanted, &readahead->lock);
            continue;
        }
        pthread_mutex_unlock(&readahead->lock);
        uint64_t begin_off = (end_off - 1) / PIECE_LEN * PIECE_LEN;
        begin_off = begin_off > readahead->floor_off ? begin_off : readahead->floor_off;
        populate_range(readahead->base, begin_off, end_off);
        readahead->asked_off = begin_off;
        pthread_mutex_lock(&readahead->lock);
    }
    pthread_mutex_unlock(&readahead->lock);
    return NULL;
}

static void readahead_destroy(struct readahead *readahead)
{
#ifdef MADV_HUGEPAGE
    /* a single page that is read later must not cost a huge one */
    (void)advise(readahead->base, readahead->floor_off, readahead->end_off, MADV_NOHUGEPAGE);
#endif
    pthread_cond_destroy(&readahead->wanted);
    pthread_mutex_destroy(&readahead->lock);
    free(readahead);
}

rd_err readahead_start(const uint8_t *base, uint64_t floor_off, uint64_t end_off, struct readahead **out_readahead)
{
    struct readahead *readahead = malloc(sizeof(*readahead));
    if (readahead == NULL)
        return RD_E_NOMEM;
    *readahead = (struct readahead){
        .base = base, .floor_off = floor_off, .end_off = end_off, .asked_off = end_off, .want_off = end_off};
    pthread_mutex_init(&readahead->lock, NULL);
    pthread_cond_init(&readahead->wanted, NULL);
#ifdef MADV_HUGEPAGE
    (void)advise(base, floor_off, end_off, MADV_HUGEPAGE);
#endif
    if (thread_start(readahead_run, readahead, &readahead->thread) != RD_OK) {
        readahead_destroy(readahead);
        return RD_E_NOMEM;
    }
    *out_readahead = readahead;
    return RD_OK;
}

void readahead_want(struct readahead *readahead, uint64_t begin_off)
{
    pthread_mutex_lock(&readahead->lock);
    readahead->want_off = begin_off > readahead->floor_off ? begin_off : readahead->floor_off;
    pthread_cond_signal(&readahead->wanted);
    pthread_mutex_unlock(&readahead->lock);
}

void readahead_stop(struct readahead *readahead)
{
    if (readahead == NULL)
        return;
    pthread_mutex_lock(&readahead->lock);
    readahead->ending = true;
    pthread_cond_signal(&readahead->wanted);
    pthread_mutex_unlock(&readahead->lock);
    pthread_join(readahead->thread, NULL);
    readahead_destroy(readahead);
}
