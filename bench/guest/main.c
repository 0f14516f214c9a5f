/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the tests and prints one line each:  bench NAME CLASS NS-PER-OP CHECKSUM
 *
 * A test's operation count grows until one repetition takes the target time; then the fastest of
 * several repetitions counts, which is the one least disturbed. Time is the TSC: under every
 * monitor compared here it is the host's own counter, while a guest's clock source differs from
 * monitor to monitor.
 */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

static double ticks_per_ns;

_Noreturn void bench_die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void calibrate_tsc(void)
{
    struct timespec a, b;
    uint64_t t0, t1;
    double ns;

    clock_gettime(CLOCK_MONOTONIC, &a);
    t0 = __rdtsc();
    do {
        clock_gettime(CLOCK_MONOTONIC, &b);
        t1 = __rdtsc();
        ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
    } while (ns < 200e6);
    ticks_per_ns = (double)(t1 - t0) / ns;
}

static double timed(const struct bench *b, uint64_t n)
{
    uint64_t t0 = __rdtsc();
    uint64_t sum = b->run(n);
    uint64_t t1 = __rdtsc();

    BENCH_OPAQUE(sum);
    return (double)(t1 - t0) / ticks_per_ns;
}

static void run_one(const struct bench *b, double target_ns, int repeats)
{
    uint64_t n = 1, check;
    double best, t;

    if (b->setup && b->setup()) {
        printf("skip %s %s\n", b->name, b->klass);
        fflush(stdout);
        return;
    }
    check = b->run(1);
    for (;;) {
        t = timed(b, n);
        if (t >= target_ns / 2 || n >= (UINT64_C(1) << 40))
            break;
        if (t < target_ns / 16)
            n *= 8;
        else
            n *= 2;
    }
    best = t / (double)n;
    for (int i = 0; i < repeats; i++) {
        t = timed(b, n) / (double)n;
        if (t < best)
            best = t;
    }
    if (b->teardown)
        b->teardown();
    printf("bench %s %s %.3f %016llx\n", b->name, b->klass, best, (unsigned long long)check);
    fflush(stdout);
}

static int wanted(const struct bench *b, int argc, char **argv)
{
    if (argc == 0)
        return 1;
    for (int i = 0; i < argc; i++)
        if (!strcmp(argv[i], b->name) || !strcmp(argv[i], b->klass))
            return 1;
    return 0;
}

static void usage(void)
{
    fputs("usage: bench [--list] [--tsc-khz N] [--target-ms N] [--repeats N] [test or class ...]\n",
          stderr);
    exit(2);
}

static double number(const char *s)
{
    char *end;
    double v = strtod(s, &end);

    if (*s == '\0' || *end != '\0' || !(v > 0))
        usage();
    return v;
}

int main(int argc, char **argv)
{
    const struct {
        const struct bench *rows;
        size_t count;
    } groups[] = {{bench_int, bench_int_count},
                  {bench_mem, bench_mem_count},
                  {bench_fp, bench_fp_count},
                  {bench_simd, bench_simd_count},
                  {bench_kernel, bench_kernel_count}};
    double target_ms = 40, repeats = 5;
    int i, list = 0;

    /* The exec test runs this very program. */
    if (argc == 2 && !strcmp(argv[1], "--true"))
        return 0;
    for (i = 1; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "--list"))
            list = 1;
        else if (i + 1 >= argc)
            usage();
        else if (!strcmp(argv[i], "--tsc-khz"))
            ticks_per_ns = number(argv[++i]) / 1e6;
        else if (!strcmp(argv[i], "--target-ms"))
            target_ms = number(argv[++i]);
        else if (!strcmp(argv[i], "--repeats"))
            repeats = number(argv[++i]);
        else
            usage();
    }
    if (ticks_per_ns == 0 && !list)
        calibrate_tsc();
    if (!list)
        printf("tsc-khz %.0f\n", ticks_per_ns * 1e6);
    for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
        for (size_t k = 0; k < groups[g].count; k++) {
            const struct bench *b = &groups[g].rows[k];

            if (!wanted(b, argc - i, argv + i))
                continue;
            if (list)
                printf("%s %s\n", b->name, b->klass);
            else
                run_one(b, target_ms * 1e6, (int)repeats);
        }
    }
    if (!list)
        puts("bench-done");
    return 0;
}
