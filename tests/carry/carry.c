/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs in a guest whose machine is saved and restored meanwhile, and checks that it cannot tell:
 * what is in registers and memory stays, clocks go forward and timers are not early, what was
 * written to the disk is there once and in order. Prints a numbered line all the while: whoever
 * reads them sees whether one is missing or comes twice. Usage: carry [DISK [SECONDS]]
 */
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;

#define BLOCK 4096
#define BLOCKS 1024 /* of the disk that are used */
#define MEMORY (8u << 20)

static volatile int done;
static int ncpus, disk = -1;
static u64 last_ns, last_tsc; /* atomic: no clock may read less than these afterwards */
static u64 rounds[4];         /* of compute, memory, disk, pipe: all must get on */

static void fail(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    printf("CARRY FAILED: ");
    vprintf(fmt, ap);
    printf("\n");
    fflush(stdout);
    va_end(ap);
    _exit(1);
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu % ncpus, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* --- clocks --- */

static u64 now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

static void forward(u64 *last, u64 (*read)(void), const char *what)
{
    u64 before = __atomic_load_n(last, __ATOMIC_SEQ_CST), t;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    t = read();
    if (t < before)
        fail("%s went back by %llu", what, (unsigned long long)(before - t));
    while (before < t && !__atomic_compare_exchange_n(last, &before, t, false, __ATOMIC_SEQ_CST,
                                                      __ATOMIC_SEQ_CST))
        ;
}

static u64 tsc(void)
{
    unsigned aux;

    /* Not before what comes before it in the program. */
    _mm_lfence();
    return __rdtscp(&aux);
}

static void check_clocks(void)
{
    forward(&last_ns, now, "CLOCK_MONOTONIC");
    forward(&last_tsc, tsc, "TSC");
}

static void *timers(void *arg)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec every = {{0, 7000000}, {0, 7000000}};
    u64 begin = now(), count, total = 0;

    pin((int)(intptr_t)arg);
    timerfd_settime(fd, 0, &every, NULL);
    while (!done) {
        struct timespec t = {0, 3000000};
        u64 a = now();

        nanosleep(&t, NULL);
        if (now() - a < 3000000)
            fail("a sleep was short");
        if (read(fd, &count, sizeof(count)) != sizeof(count))
            fail("timerfd");
        total += count;
        /* One period's worth of rounding at most. */
        if (total * 7000000 > now() - begin + 7000000)
            fail("a timer fired too often: %llu in %llu ns", (unsigned long long)total,
                 (unsigned long long)(now() - begin));
        check_clocks();
    }
    return NULL;
}

/* --- registers --- */

/* Holds values in all vector registers, and in x87's, while time goes by. */
static void hold_sse(u64 seed)
{
    u64 v[16][2], back[16][2];
    long double x = (long double)seed * 1.25L, y;
    u64 n = 200000;

    for (int i = 0; i < 16; i++)
        v[i][0] = seed * (u64)(2 * i + 1), v[i][1] = ~v[i][0] + (u64)i;
#define L(i) "movdqu " #i "*16(%[v]), %%xmm" #i "\n"
#define S(i) "movdqu %%xmm" #i ", " #i "*16(%[b])\n"
    __asm__ volatile(L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14)
                         L(15) "fldt %[x]\n"
                               "1: dec %[n]\n"
                               "jnz 1b\n"
                               "fstpt %[y]\n" S(0) S(1) S(2) S(3) S(4) S(5) S(6) S(7) S(8) S(9)
                                   S(10) S(11) S(12) S(13) S(14) S(15)
                     : [n] "+r"(n), [y] "=m"(y)
                     : [v] "r"(v), [b] "r"(back), [x] "m"(x)
                     : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "st");
    if (memcmp(v, back, sizeof(v)) != 0)
        fail("an XMM register changed");
    if (x != y)
        fail("an x87 register changed");
}

__attribute__((target("avx"))) static void hold_avx(u64 seed)
{
    u64 v[8][4], back[8][4], n = 200000;

    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 4; j++)
            v[i][j] = seed * (u64)(8 * i + j + 3);
#define LY(i) "vmovdqu " #i "*32(%[v]), %%ymm" #i "\n"
#define SY(i) "vmovdqu %%ymm" #i ", " #i "*32(%[b])\n"
    __asm__ volatile(LY(0) LY(1) LY(2) LY(3) LY(4) LY(5) LY(6) LY(7) "1: dec %[n]\n"
                                                                     "jnz 1b\n" SY(0) SY(1) SY(2)
                                                                         SY(3) SY(4) SY(5) SY(6)
                                                                             SY(7) "vzeroupper\n"
                     : [n] "+r"(n)
                     : [v] "r"(v), [b] "r"(back)
                     : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
    if (memcmp(v, back, sizeof(v)) != 0)
        fail("a YMM register changed");
}

/* The same chain of numbers twice: any instruction that was lost or repeated shows. */
static u64 chain(u64 seed)
{
    double d = (double)(seed & 0xffff) + 0.5;

    for (int i = 0; i < 100000; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        d = d * 0.999 + (double)(seed & 0xff);
    }
    return seed ^ (u64)(d * 1000);
}

static void *compute(void *arg)
{
    bool avx = __builtin_cpu_supports("avx");
    u64 seed = 0x9e3779b97f4a7c15 + (u64)(intptr_t)arg;

    pin((int)(intptr_t)arg);
    for (; !done; __atomic_fetch_add(&rounds[0], 1, __ATOMIC_RELAXED)) {
        u64 a = chain(seed), b = chain(seed);

        if (a != b)
            fail("a computation gave %llx and then %llx", (unsigned long long)a,
                 (unsigned long long)b);
        seed = a | 1;
        hold_sse(seed);
        if (avx)
            hold_avx(seed);
        check_clocks();
    }
    return NULL;
}

/* --- memory, page tables, the other CPU --- */

static void *memory(void *arg)
{
    u64 *p = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t n = MEMORY / sizeof(*p);

    pin((int)(intptr_t)arg);
    if (p == MAP_FAILED)
        fail("no memory");
    for (u64 round = 1; !done; round++, __atomic_fetch_add(&rounds[1], 1, __ATOMIC_RELAXED)) {
        for (size_t i = 0; i < n; i += 61)
            p[i] = round * 0x100000001b3 + i;
        mprotect(p, MEMORY, PROT_READ);
        for (size_t i = 0; i < n; i += 61)
            if (p[i] != round * 0x100000001b3 + i)
                fail("memory at %zu holds %llx in round %llu", i, (unsigned long long)p[i],
                     (unsigned long long)round);
        mprotect(p, MEMORY, PROT_READ | PROT_WRITE);
        if (round % 8 == 0)
            madvise(p, MEMORY, MADV_DONTNEED);
    }
    return NULL;
}

static int ping[2], pong[2];

static void *echo(void *arg)
{
    u64 v;

    pin((int)(intptr_t)arg);
    while (read(ping[0], &v, sizeof(v)) == sizeof(v)) {
        v = ~v;
        if (write(pong[1], &v, sizeof(v)) != sizeof(v))
            fail("pipe");
    }
    return NULL;
}

static void *pipes(void *arg)
{
    u64 v = 1, back;

    pin((int)(intptr_t)arg);
    for (; !done; v++, __atomic_fetch_add(&rounds[3], 1, __ATOMIC_RELAXED)) {
        if (write(ping[1], &v, sizeof(v)) != sizeof(v) ||
            read(pong[0], &back, sizeof(back)) != sizeof(back) || back != ~v)
            fail("the pipes brought %llx for %llx", (unsigned long long)back,
                 (unsigned long long)v);
        check_clocks();
    }
    close(ping[1]);
    return NULL;
}

/* --- disk --- */

static void fill(u64 *block, u64 seq)
{
    for (unsigned i = 0; i < BLOCK / sizeof(u64); i++)
        block[i] = seq * 0x9e3779b97f4a7c15 + i;
    block[0] = seq;
}

/* Block seq % BLOCKS holds seq, or what was there a turn earlier. */
static void check_block(u64 *block, u64 seq)
{
    static u64 want[BLOCK / sizeof(u64)];

    if (pread(disk, block, BLOCK, (off_t)(seq % BLOCKS * BLOCK)) != BLOCK)
        fail("the disk cannot be read: %s", strerror(errno));
    fill(want, seq);
    if (memcmp(block, want, BLOCK) != 0)
        fail("block %llu of the disk holds number %llu, not %llu",
             (unsigned long long)(seq % BLOCKS), (unsigned long long)block[0],
             (unsigned long long)seq);
}

static void *writer(void *arg)
{
    u64 *block = aligned_alloc(BLOCK, BLOCK);

    pin((int)(intptr_t)arg);
    for (u64 seq = 1; !done; seq++) {
        fill(block, seq);
        if (pwrite(disk, block, BLOCK, (off_t)(seq % BLOCKS * BLOCK)) != BLOCK)
            fail("the disk cannot be written: %s", strerror(errno));
        check_block(block, seq);
        if (seq > BLOCKS / 2)
            check_block(block, seq - BLOCKS / 2);
        if (seq % 64 == 0 && fdatasync(disk))
            fail("the disk cannot be flushed: %s", strerror(errno));
        __atomic_store_n(&rounds[2], seq, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* --- the whole --- */

static pthread_t threads[32];
static int nthreads;

static void start(void *(*fn)(void *), int cpu)
{
    if (pthread_create(&threads[nthreads++], NULL, fn, (void *)(intptr_t)cpu))
        fail("no thread");
}

int main(int argc, char **argv)
{
    u64 seconds = argc > 2 ? strtoull(argv[2], NULL, 10) : 3600, begin = now();
    u64 seen[4] = {0};

    ncpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (argc > 1 && strcmp(argv[1], "-") != 0) {
        disk = open(argv[1], O_RDWR | O_DIRECT);
        if (disk < 0)
            fail("%s: %s", argv[1], strerror(errno));
        start(writer, 0);
    }
    if (pipe(ping) || pipe(pong))
        fail("no pipes");
    for (int i = 0; i < ncpus; i++) {
        start(compute, i);
        start(timers, i);
    }
    start(memory, 0);
    start(echo, 0);
    start(pipes, 1);
    for (u64 n = 1; now() - begin < seconds * 1000000000; n++) {
        struct timespec t = {0, 100000000};

        nanosleep(&t, NULL);
        printf("carry %llu\n", (unsigned long long)n);
        fflush(stdout);
        if (n % 1000 == 0)
            for (int i = 0; i < 4; i++) {
                if (rounds[i] == seen[i] && (i != 2 || disk >= 0))
                    fail("part %d stands still", i);
                seen[i] = rounds[i];
            }
    }
    done = 1;
    for (int i = 0; i < nthreads; i++)
        pthread_join(threads[i], NULL);
    printf("CARRY DONE: %llu blocks, %llu rounds, %llu pipes\n", (unsigned long long)rounds[2],
           (unsigned long long)rounds[0], (unsigned long long)rounds[3]);
    return 0;
}
