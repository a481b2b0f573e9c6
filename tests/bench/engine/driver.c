#include "driver.h"
#include "child.h"
#include "plan.h"
#include "report.h"
#include "shape.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SMOKE_DIVISOR     500u
#define CHILD_SECONDS_MAX 300u

static const char *const side_names[SIDES] = {"crate", "first", "always", "off", "bare"};

static struct bench {
    const struct bench_options *options;
    char folder[4096];
    struct figures *results;
    bool *wanted;        /* of tasks */
    bool *wanted_groups; /* of the table */
} bench;

/* ---- Files ------------------------------------------------------------------------------------------------------ */

static void folder_empty(const char *but_prefix)
{
    DIR *folder = opendir(bench.folder);
    if (folder == NULL)
        return;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
        if (entry->d_name[0] != '.' &&
            (but_prefix == NULL || strncmp(entry->d_name, but_prefix, strlen(but_prefix)) != 0))
            unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
}

static void folder_remove(void)
{
    folder_empty(NULL);
    rmdir(bench.folder);
}

static uint64_t scaled(uint64_t number)
{
    if (!bench.options->smoke || number == 0)
        return number;
    return number < SMOKE_DIVISOR ? 1 : number / SMOKE_DIVISOR;
}

static const char *file_path(const struct task *task)
{
    static char path[sizeof bench.folder + 64];
    if (task->source == SOURCE_NEW)
        snprintf(path, sizeof path, "%s/new", bench.folder);
    else
        snprintf(path, sizeof path, "%s/keys-%llu", bench.folder, (unsigned long long)scaled(task->keys));
    return path;
}

/* Which part of the file is in memory. */
static double resident(int file, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (len + page - 1) / page, count = 0;
    unsigned char *there = malloc(pages);
    void *bytes = mmap(NULL, len, PROT_READ, MAP_SHARED, file, 0);
    CHECK(there != NULL && bytes != MAP_FAILED && mincore(bytes, len, there) == 0);
    for (size_t i = 0; i < pages; i++)
        count += there[i] & 1;
    munmap(bytes, len);
    free(there);
    return (double)count / (double)pages;
}

/* What was not written yet can't be dropped. A file system in memory keeps everything. */
static void file_drop(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    CHECK(file >= 0 && fstat(file, &facts) == 0 && fdatasync(file) == 0);
    CHECK(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0);
    double left = resident(file, (size_t)facts.st_size);
    if (left > 0.01)
        fprintf(stderr, "bench_engine: cold is not cold here: %.0f %% of the file stay in memory\n", left * 100);
    close(file);
}

static void file_sync(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0 && fsync(file) == 0);
    close(file);
}

/* ---- Children --------------------------------------------------------------------------------------------------- */

static void child_exec(enum side side, const char *verb, const char *path, uint64_t keys, uint64_t count)
{
    char keys_text[24], count_text[24];
    snprintf(keys_text, sizeof keys_text, "%llu", (unsigned long long)keys);
    snprintf(count_text, sizeof count_text, "%llu", (unsigned long long)count);
    if (side == SIDE_CRATE)
        execl(bench.options->peer, bench.options->peer, verb, path, keys_text, count_text, (char *)NULL);
    else
        execl("/proc/self/exe", "bench_engine", "--child", side_names[side], verb, path, keys_text, count_text,
              (char *)NULL);
    die("%s: %s", side == SIDE_CRATE ? bench.options->peer : "/proc/self/exe", strerror(errno));
}

/* Runs one measurement and takes in what it prints. */
static void child_run(enum side side, const char *verb, const char *path, uint64_t keys, uint64_t count,
                      struct figures *figures)
{
    int pipes[2];
    CHECK(pipe2(pipes, O_CLOEXEC) == 0);
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        alarm(CHILD_SECONDS_MAX);
        child_exec(side, verb, path, keys, count);
    }
    close(pipes[1]);
    FILE *lines = fdopen(pipes[0], "r");
    CHECK(lines != NULL);
    char name[32];
    double number;
    while (fscanf(lines, "%31s %lf", name, &number) == 2)
        figures_add(figures, name, number);
    fclose(lines);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        die("%s %s failed, with %llu keys: wait status %#x", side_names[side], verb, (unsigned long long)keys,
            (unsigned)status);
}

/* ---- The run ---------------------------------------------------------------------------------------------------- */

static bool has_side(const struct task *task, enum side side)
{
    return (task->sides >> side & 1) != 0 && (side != SIDE_CRATE || bench.options->peer != NULL);
}

static void prepare(const struct task *task)
{
    const char *path = file_path(task);
    char index[sizeof bench.folder + 72];
    struct figures none = {0};
    snprintf(index, sizeof index, "%s" INDEX_SUFFIX, path);
    if (task->source != SOURCE_NEW && access(path, F_OK) != 0) {
        child_run(SIDE_FIRST, "make", path, scaled(task->keys), 0, &none);
        file_sync(path);
    }
    if (task->source == SOURCE_INDEX && access(index, F_OK) != 0)
        child_run(SIDE_FIRST, "save-index", path, scaled(task->keys), 0, &none);
}

/* Each side in turn; each round another begins. */
static void run_task(size_t index, size_t round)
{
    const struct task *task = &tasks[index];
    for (size_t i = 0; i < SIDES; i++) {
        enum side side = (enum side)((i + round) % SIDES);
        if (!has_side(task, side))
            continue;
        if (task->source == SOURCE_COLD)
            file_drop(file_path(task));
        child_run(side, task->verb, file_path(task), scaled(task->keys), scaled(task->count),
                  &bench.results[index * SIDES + side]);
        folder_empty("keys-");
    }
}

static void progress(const char *what, size_t round)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[Kround %zu of %zu: %s", round + 1, bench.options->rounds, what);
}

static void run_all(void)
{
    for (size_t i = 0; i < task_count; i++)
        if (bench.wanted[i])
            prepare(&tasks[i]);
    for (size_t round = 0; round < bench.options->rounds; round++) {
        for (size_t i = 0; i < task_count; i++) {
            if (!bench.wanted[i] || (tasks[i].once && round > 0))
                continue;
            progress(tasks[i].name, round);
            run_task(i, round);
        }
    }
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

/* Whether `word` is in a comma-separated list. */
static bool in_list(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; *at != '\0'; at += strcspn(at, ","), at += *at == ',')
        if (strcspn(at, ",") == len && strncmp(at, word, len) == 0)
            return true;
    return false;
}

bool bench_rows_known(const char *list)
{
    for (const char *at = list;; at++) {
        size_t len = strcspn(at, ","), group = 0;
        while (group < group_count && (strlen(groups[group].name) != len || strncmp(at, groups[group].name, len) != 0))
            group++;
        if (group == group_count)
            return false;
        at += len;
        if (*at == '\0')
            return true;
    }
}

static bool group_is_wanted(const char *name)
{
    return bench.options->rows == NULL || in_list(bench.options->rows, name);
}

/* A task is run if a row that was asked for needs it. */
static bool task_is_wanted(const struct task *task)
{
    if (task->full && !bench.options->full)
        return false;
    for (size_t i = 0; i < row_count; i++)
        if (strcmp(rows[i].task, task->name) == 0 && group_is_wanted(rows[i].group))
            return true;
    return false;
}

int bench_run(const struct bench_options *options)
{
    bench.options = options;
    bench.results = calloc(task_count * SIDES, sizeof *bench.results);
    bench.wanted = calloc(task_count, sizeof *bench.wanted);
    bench.wanted_groups = calloc(group_count, sizeof *bench.wanted_groups);
    CHECK(bench.results != NULL && bench.wanted != NULL && bench.wanted_groups != NULL);
    snprintf(bench.folder, sizeof bench.folder, "%s/bench-engine-XXXXXX", options->folder);
    if (mkdtemp(bench.folder) == NULL)
        die("%s: %s", bench.folder, strerror(errno));
    atexit(folder_remove);

    for (size_t i = 0; i < task_count; i++)
        bench.wanted[i] = task_is_wanted(&tasks[i]);
    for (size_t i = 0; i < group_count; i++)
        bench.wanted_groups[i] = group_is_wanted(groups[i].name);
    report_machine(bench.folder);
    printf("crate        %s\n", options->peer != NULL ? "simd-r-drive 0.16.3-alpha" : options->no_peer);
    printf("rounds       %zu, medians of them; keys formatted inside the clock on all sides\n", options->rounds);
    run_all();
    size_t missed = report_table(bench.results, bench.wanted_groups, !options->smoke);
    free(bench.results);
    free(bench.wanted);
    free(bench.wanted_groups);
    return missed == 0 ? 0 : 1;
}
