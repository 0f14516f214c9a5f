/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark program that runs inside the guest (and natively on the host for comparison). Each
 * test is one row: its name, its class and a function that does n operations and returns a
 * checksum, so that a wrong result is seen as well as a slow one.
 */
#ifndef TRIVISOR_BENCH_H
#define TRIVISOR_BENCH_H

#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

struct bench {
    const char *name;
    const char *klass;           /* user-int, user-fp, user-simd, kernel */
    uint64_t (*run)(uint64_t n); /* does n operations */
    int (*setup)(void);          /* may be NULL; nonzero: not possible here, skip */
    void (*teardown)(void);      /* may be NULL */
};

extern const struct bench bench_int[], bench_mem[], bench_fp[], bench_simd[], bench_kernel[];
extern const size_t bench_int_count, bench_mem_count, bench_fp_count, bench_simd_count,
    bench_kernel_count;

/* A small xorshift generator: the same numbers everywhere. */
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* Makes the compiler believe that v is used and may have changed. */
#define BENCH_OPAQUE(v) __asm__ volatile("" : "+r"(v)::"memory")

/* Prints why and exits: a benchmark that cannot run must not yield a number. */
_Noreturn void bench_die(const char *what);

#endif
