/*
 * Random sequences of every operation of the engine, each answer compared with a plain model's: what each key's newest
 * value is, and which bytes the file holds. One seed decides everything; it is printed when something differs.
 */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OPS_DEFAULT 20000

static const struct {
    const char *name;
    unsigned weight; /* of 10,000 */
    operation *run;
} operations[] = {
    {"write", 1300, op_write},
    {"write_hash", 700, op_write_hash},
    {"write_batch", 100, op_write_batch},
    {"delete", 500, op_delete},
    {"delete_batch", 50, op_delete_batch},
    {"rename", 150, op_rename},
    {"copy", 150, op_copy},
    {"move", 4, op_move},
    {"stream", 150, op_stream},
    {"read", 2500, op_read},
    {"read_hash", 2500, op_read_hash},
    {"read_batch", 400, op_read_batch},
    {"read_hashed", 400, op_read_hashed},
    {"read_last", 300, op_read_last},
    {"hold", 400, op_hold},
    {"iterate", 30, op_iterate},
    {"info", 100, op_info},
    {"sync", 2, op_sync},
    {"shrink", 244, op_shrink},
    {"reopen", 10, op_reopen},
    {"read_only", 6, op_read_only},
    {"verify", 6, op_verify},
    {"compact", 3, op_compact},
    {"damage", 10, op_damage},
};
#define OPERATIONS (sizeof(operations) / sizeof(operations[0]))

static size_t any_operation(unsigned total)
{
    size_t pick = run_below(total), i = 0;
    while (pick >= operations[i].weight)
        pick -= operations[i++].weight;
    return i;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0') {
        fprintf(stderr, "%s is no number\n", text);
        exit(64);
    }
    return value;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, op_count = OPS_DEFAULT, counts[OPERATIONS] = {0};
    unsigned total = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seed") == 0)
            seed = number(argv[i + 1]);
        else if (strcmp(argv[i], "--ops") == 0)
            op_count = number(argv[i + 1]);
        else
            argc = 0;
    }
    if (argc % 2 == 0) {
        fprintf(stderr, "usage: test_model [--seed N] [--ops N]\n");
        return 64;
    }
    for (size_t i = 0; i < OPERATIONS; i++)
        total += operations[i].weight;
    run.op_count = op_count;
    run_init(seed);
    for (run.op_idx = 0; run.op_idx < op_count; run.op_idx++) {
        size_t i = any_operation(total);
        run.op_name = operations[i].name;
        counts[i]++;
        operations[i].run(&run.sides[run_below(8) == 0]);
    }
    run_fini();
    printf("seed %llu: %llu operations, each as the model has it:", (unsigned long long)seed,
           (unsigned long long)op_count);
    for (size_t i = 0; i < OPERATIONS; i++)
        printf(" %s %llu", operations[i].name, (unsigned long long)counts[i]);
    printf("\n%llu reopenings, %llu compactions, %llu times damaged and repaired\n", (unsigned long long)run.reopens,
           (unsigned long long)run.compactions, (unsigned long long)run.damaged_phases);
    return 0;
}
