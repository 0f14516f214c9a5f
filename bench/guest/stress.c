/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps a guest busy in the ways that break monitors, and checks every result: stress SECONDS
 * [CPUS]
 *
 *   shootdown   threads read a mapping while another unmaps, remaps and write-protects it
 *   atomics     locked increments and compare-exchange by all threads add up
 *   vector      vector registers keep their values across preemption
 *   pages       patterns written to much memory read back, through fork's copy on write too
 *   jit         code written, run, and rewritten
 *   ring        bytes through pipes between processes arrive in order
 *   signals     timers and signals interrupt all of it
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;
static uint64_t rounds[7], errors;

static void fail(const char *what, uint64_t got, uint64_t want)
{
    __atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED);
    fprintf(stderr, "stress: %s: got %llx, want %llx\n", what, (unsigned long long)got,
            (unsigned long long)want);
}

static void *map(size_t len, int prot)
{
    void *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        perror("stress: mmap");
        exit(1);
    }
    return p;
}

/* Pages of `shared` always hold `generation` or, between unmap and rewrite, zero. */
static uint8_t *shared;
static uint64_t generation;
#define SHARED_PAGES 16

static void *shootdown_writer(void *unused)
{
    while (!stopping) {
        uint64_t next = generation + 1;

        if (mmap(shared, SHARED_PAGES * 4096, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != shared)
            fail("remap", 0, 1);
        __atomic_store_n(&generation, next, __ATOMIC_SEQ_CST);
        for (int i = 0; i < SHARED_PAGES; i++)
            *(volatile uint64_t *)(void *)(shared + i * 4096) = next;
        if (mprotect(shared, SHARED_PAGES * 4096, PROT_READ))
            fail("mprotect", (uint64_t)errno, 0);
        rounds[0]++;
    }
    return unused;
}

static void *shootdown_reader(void *unused)
{
    while (!stopping) {
        for (int i = 0; i < SHARED_PAGES; i++) {
            uint64_t before = __atomic_load_n(&generation, __ATOMIC_SEQ_CST);
            uint64_t seen = *(volatile uint64_t *)(void *)(shared + i * 4096);

            /* Older than a generation that was complete before we looked: a stale translation. */
            if (seen != 0 && seen + 1 < before)
                fail("stale translation", seen, before);
        }
    }
    return unused;
}

static uint64_t counter_add, counter_cas;
static uint64_t added;

static void *atomics(void *unused)
{
    uint64_t mine = 0;

    while (!stopping) {
        for (int i = 0; i < 1000; i++) {
            uint64_t old = __atomic_load_n(&counter_cas, __ATOMIC_RELAXED);

            __atomic_fetch_add(&counter_add, 1, __ATOMIC_SEQ_CST);
            while (!__atomic_compare_exchange_n(&counter_cas, &old, old + 1, 0, __ATOMIC_SEQ_CST,
                                                __ATOMIC_RELAXED))
                continue;
        }
        mine += 1000;
    }
    __atomic_fetch_add(&added, mine, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&rounds[1], mine, __ATOMIC_RELAXED);
    return unused;
}

static void *vector(void *arg)
{
    uint64_t id = (uint64_t)(uintptr_t)arg;

    while (!stopping) {
        uint64_t pattern[2] = {id * 0x0101010101010101u, ~id}, out[2];
        double x = 1.0 + (double)id;

        __asm__ volatile("movdqu %2, %%xmm9\n\t"
                         "fldl %3\n\t"
                         "mov $200000, %%rcx\n"
                         "1:\tpause\n\tsub $100, %%rcx\n\tjnz 1b\n\t"
                         "movdqu %%xmm9, %0\n\t"
                         "fstpl %1"
                         : "=m"(out), "=m"(x)
                         : "m"(pattern), "m"(x)
                         : "rcx", "cc", "memory", "xmm9", "st");
        if (memcmp(out, pattern, sizeof(out)))
            fail("xmm9", out[0], pattern[0]);
        if (x != 1.0 + (double)id)
            fail("st0", (uint64_t)x, id + 1);
        __atomic_fetch_add(&rounds[2], 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void *pages(void *unused)
{
    const size_t count = 512;

    for (uint64_t round = 1; !stopping; round++) {
        uint64_t *p = map(count * 4096, PROT_READ | PROT_WRITE);
        pid_t pid;
        int status;

        for (size_t i = 0; i < count * 512; i += 64)
            p[i] = i * round;
        pid = fork();
        if (pid < 0) {
            fail("fork", (uint64_t)errno, 0);
            return unused;
        }
        if (pid == 0) {
            for (size_t i = 0; i < count * 512; i += 64) {
                if (p[i] != i * round)
                    _exit(1);
                p[i] = ~p[i];
            }
            _exit(0);
        }
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            continue;
        if (status != 0)
            fail("child's pages", (uint64_t)status, 0);
        for (size_t i = 0; i < count * 512; i += 64)
            if (p[i] != i * round)
                fail("page", p[i], i * round);
        munmap(p, count * 4096);
        rounds[3]++;
    }
    return unused;
}

static void *jit(void *unused)
{
    uint8_t *code = map(4096, PROT_READ | PROT_WRITE | PROT_EXEC);

    for (uint32_t value = 0; !stopping; value += 0x1234567) {
        uint32_t got;

        code[0] = 0xb8; /* mov eax, imm32; ret */
        memcpy(code + 1, &value, 4);
        code[5] = 0xc3;
        got = ((uint32_t(*)(void))(uintptr_t)code)();
        if (got != value)
            fail("stale code", got, value);
        rounds[4]++;
    }
    return unused;
}

static void *ring(void *unused)
{
    int fd[2];
    uint8_t buffer[1024];
    pid_t pid;
    int status;

    if (pipe(fd)) {
        fail("pipe", (uint64_t)errno, 0);
        return unused;
    }
    pid = fork();
    if (pid == 0) {
        uint8_t next = 0;

        close(fd[0]);
        signal(SIGPIPE, SIG_DFL);
        for (;;) {
            for (size_t i = 0; i < sizeof(buffer); i++)
                buffer[i] = next++;
            if (write(fd[1], buffer, sizeof(buffer)) < 0 && errno != EINTR)
                _exit(0);
        }
    }
    close(fd[1]);
    for (uint8_t next = 0; !stopping;) {
        ssize_t n = read(fd[0], buffer, sizeof(buffer));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            fail("pipe read", (uint64_t)n, 1);
            break;
        }
        for (ssize_t i = 0; i < n; i++, next++)
            if (buffer[i] != next)
                fail("pipe order", buffer[i], next);
        rounds[5]++;
    }
    close(fd[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return unused;
}

static void on_timer(int sig)
{
    rounds[6] += sig > 0;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"shootdown", "atomics", "vector", "pages",
                                        "jit",       "ring",    "signals"};
    int seconds = argc > 1 ? atoi(argv[1]) : 0, cpus = argc > 2 ? atoi(argv[2]) : 1;
    struct itimerval tick = {{0, 5000}, {0, 5000}};
    pthread_t threads[64];
    int count = 0;
    time_t end, shown;

    if (seconds <= 0 || cpus <= 0 || cpus > 8) {
        fputs("usage: stress SECONDS [CPUS]\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_timer);
    shared = map(SHARED_PAGES * 4096, PROT_READ | PROT_WRITE);

    pthread_create(&threads[count++], NULL, shootdown_writer, NULL);
    pthread_create(&threads[count++], NULL, pages, NULL);
    pthread_create(&threads[count++], NULL, jit, NULL);
    pthread_create(&threads[count++], NULL, ring, NULL);
    for (int i = 0; i < cpus; i++) {
        pthread_create(&threads[count++], NULL, shootdown_reader, NULL);
        pthread_create(&threads[count++], NULL, atomics, NULL);
        pthread_create(&threads[count++], NULL, vector, (void *)(uintptr_t)(i + 1));
    }
    setitimer(ITIMER_REAL, &tick, NULL);

    shown = time(NULL);
    end = shown + seconds;
    while (time(NULL) < end) {
        usleep(100000);
        if (time(NULL) >= shown + 10) {
            shown = time(NULL);
            printf("stress: %ld s left\n", (long)(end - shown));
            fflush(stdout);
        }
    }
    stopping = 1;
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    if (counter_add != added)
        fail("locked add", counter_add, added);
    if (counter_cas != added)
        fail("compare-exchange", counter_cas, added);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        printf("stress: %s %llu\n", names[i], (unsigned long long)rounds[i]);
        if (rounds[i] == 0)
            fail(names[i], 0, 1);
    }
    printf("stress-done errors=%llu\n", (unsigned long long)errors);
    return errors != 0;
}
