/* SPDX-License-Identifier: Apache-2.0 */
/* What makes the guest's kernel work: system calls, processes, faults, switches, files. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t run_getppid(uint64_t n)
{
    long sum = 0;

    for (uint64_t i = 0; i < n; i++)
        sum |= syscall(SYS_getppid);
    return sum < 0;
}

static void reap(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bench_die("child");
}

static uint64_t run_fork(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        pid_t pid = fork();

        if (pid < 0)
            bench_die("fork");
        if (pid == 0)
            _exit(0);
        reap(pid);
    }
    return 0;
}

static uint64_t run_exec(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        pid_t pid = fork();

        if (pid < 0)
            bench_die("fork");
        if (pid == 0) {
            execl("/proc/self/exe", "bench", "--true", (char *)NULL);
            _exit(127);
        }
        reap(pid);
    }
    return 0;
}

/* One operation: map 64 pages, touch each (64 page faults), unmap. */
static uint64_t run_fault(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        char *p = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
            bench_die("mmap");
        for (size_t k = 0; k < 64; k++)
            *(volatile char *)(p + k * 4096) = 1;
        munmap(p, 64 * 4096);
    }
    return 0;
}

static uint64_t run_mmap(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        void *p = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
            bench_die("mmap");
        munmap(p, 65536);
    }
    return 0;
}

static int pair[2], back[2];
static pid_t peer;

static void pin(void)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_setaffinity(0, sizeof(one), &one); /* best effort: hosts may forbid it */
}

static void unpin(void)
{
    cpu_set_t all;

    memset(&all, 0xff, sizeof(all));
    sched_setaffinity(0, sizeof(all), &all);
}

static int setup_pipe(void)
{
    if (pipe(pair))
        bench_die("pipe");
    return 0;
}

static void drop_pipe(void)
{
    close(pair[0]);
    close(pair[1]);
}

static uint64_t run_pipe(uint64_t n)
{
    char c = 'x';

    for (uint64_t i = 0; i < n; i++)
        if (write(pair[1], &c, 1) != 1 || read(pair[0], &c, 1) != 1)
            bench_die("pipe");
    return (uint64_t)c;
}

/* Two processes on one CPU: each round is two context switches. */
static int setup_ping(void)
{
    char c;

    pin();
    if (pipe(pair) || pipe(back))
        bench_die("pipe");
    peer = fork();
    if (peer < 0)
        bench_die("fork");
    if (peer == 0) {
        close(pair[1]);
        close(back[0]);
        while (read(pair[0], &c, 1) == 1)
            if (write(back[1], &c, 1) != 1)
                break;
        _exit(0);
    }
    close(pair[0]);
    close(back[1]);
    return 0;
}

static uint64_t run_ping(uint64_t n)
{
    char c = 'y';

    for (uint64_t i = 0; i < n; i++)
        if (write(pair[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
            bench_die("ping");
    return (uint64_t)c;
}

static void drop_ping(void)
{
    close(pair[1]);
    close(back[0]);
    reap(peer);
    unpin();
}

/* Two threads hand a word back and forth through futexes. */
static uint32_t turn;
static pthread_t partner;

static void futex_wait(uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *futex_partner(void *unused)
{
    for (;;) {
        uint32_t t = __atomic_load_n(&turn, __ATOMIC_ACQUIRE);

        if (t == 2)
            return unused;
        if (t == 0) {
            futex_wait(&turn, 0);
            continue;
        }
        __atomic_store_n(&turn, 0, __ATOMIC_RELEASE);
        futex_wake(&turn);
    }
}

static int setup_futex(void)
{
    turn = 0;
    pin();
    errno = pthread_create(&partner, NULL, futex_partner, NULL);
    if (errno)
        bench_die("pthread_create");
    return 0;
}

static uint64_t run_futex(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        __atomic_store_n(&turn, 1, __ATOMIC_RELEASE);
        futex_wake(&turn);
        while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) == 1)
            futex_wait(&turn, 1);
    }
    return 0;
}

static void drop_futex(void)
{
    __atomic_store_n(&turn, 2, __ATOMIC_RELEASE);
    futex_wake(&turn);
    pthread_join(partner, NULL);
    unpin();
}

static int zero_fd;
static char *zero_buffer;

static int setup_zero(void)
{
    zero_fd = open("/dev/zero", O_RDONLY);
    zero_buffer = malloc(1 << 20);
    if (zero_fd < 0 || !zero_buffer)
        bench_die("/dev/zero");
    memset(zero_buffer, 1, 1 << 20);
    return 0;
}

static uint64_t run_zero(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (read(zero_fd, zero_buffer, 1 << 20) != 1 << 20)
            bench_die("read");
    return (uint64_t)zero_buffer[12345];
}

static void drop_zero(void)
{
    close(zero_fd);
    free(zero_buffer);
}

static uint64_t run_create(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        int fd = open("/tmp/bench-file", O_CREAT | O_WRONLY | O_TRUNC, 0600);

        if (fd < 0 || write(fd, "hello", 5) != 5)
            bench_die("/tmp/bench-file");
        close(fd);
        unlink("/tmp/bench-file");
    }
    return 0;
}

static uint64_t run_stat(uint64_t n)
{
    struct stat st;

    for (uint64_t i = 0; i < n; i++)
        if (stat("/proc/self/../self/status", &st))
            bench_die("stat");
    return 0;
}

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
    signals += sig > 0;
}

static uint64_t run_signal(uint64_t n)
{
    signal(SIGUSR1, on_signal);
    for (uint64_t i = 0; i < n; i++)
        raise(SIGUSR1);
    signal(SIGUSR1, SIG_DFL);
    return signals > 0;
}

static int setup_socket(void)
{
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return 1;
    return 0;
}

static uint64_t run_socket(uint64_t n)
{
    char buffer[256] = "hello";

    for (uint64_t i = 0; i < n; i++)
        if (send(pair[0], buffer, sizeof(buffer), 0) != sizeof(buffer) ||
            recv(pair[1], buffer, sizeof(buffer), 0) != sizeof(buffer))
            bench_die("socket");
    return (uint64_t)buffer[4];
}

const struct bench bench_kernel[] = {
    {"getppid", "kernel", run_getppid, NULL, NULL},
    {"fork", "kernel", run_fork, NULL, NULL},
    {"exec", "kernel", run_exec, NULL, NULL},
    {"fault", "kernel", run_fault, NULL, NULL},
    {"mmap", "kernel", run_mmap, NULL, NULL},
    {"pipe", "kernel", run_pipe, setup_pipe, drop_pipe},
    {"ping", "kernel", run_ping, setup_ping, drop_ping},
    {"futex", "kernel", run_futex, setup_futex, drop_futex},
    {"zero-1m", "kernel", run_zero, setup_zero, drop_zero},
    {"create", "kernel", run_create, NULL, NULL},
    {"stat", "kernel", run_stat, NULL, NULL},
    {"signal", "kernel", run_signal, NULL, NULL},
    {"socket", "kernel", run_socket, setup_socket, drop_pipe},
};
const size_t bench_kernel_count = ARRAY_SIZE(bench_kernel);
