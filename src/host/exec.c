/* SPDX-License-Identifier: Apache-2.0 */
/* Generated code, aliased windows and vCPU-thread signals for engine bt. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/host.h"
#include "host/ram.h"

#define HUGE_FROM (4u << 20)
#define SPARSE_FROM (1u << 20)
#define ALT_STACK_SIZE (64 * 1024)
#define KICK_SIGNAL SIGUSR1

/* The size stands in the page before what the caller sees. */
void *host_zalloc(u64 size)
{
    u8 *p = mmap(NULL, size + 4096, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    /* Look-ups in large tables miss the TLB each time with small pages. Others are sparse: where
     * the kernel joins them with their neighbours it could give 2 MiB for a byte. */
    if (size >= HUGE_FROM)
        madvise(p, size + 4096, MADV_HUGEPAGE);
    else if (size >= SPARSE_FROM)
        madvise(p, size + 4096, MADV_NOHUGEPAGE);
    memcpy(p, &size, sizeof(size));
    return p + 4096;
}

void host_free(void *p)
{
    u64 size;

    memcpy(&size, (u8 *)p - 4096, sizeof(size));
    munmap((u8 *)p - 4096, size + 4096);
}

int host_code_alloc(struct host_code *c, u64 size)
{
    int fd = memfd_create("trivisor-code", MFD_CLOEXEC);
    int err;

    if (fd < 0)
        return -errno;
    c->size = size;
    c->rw = MAP_FAILED;
    c->rx = MAP_FAILED;
    if (ftruncate(fd, (off_t)size) == 0) {
        c->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        c->rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    err = errno;
    close(fd);
    if (c->rw == MAP_FAILED || c->rx == MAP_FAILED) {
        if (c->rw != MAP_FAILED)
            munmap(c->rw, size);
        if (c->rx != MAP_FAILED)
            munmap(c->rx, size);
        return -err;
    }
    /* A helper process must not be able to write our code. */
    if (madvise(c->rw, size, MADV_DONTFORK) || madvise(c->rx, size, MADV_DONTFORK)) {
        err = errno;
        host_code_free(c);
        return -err;
    }
    return 0;
}

void host_code_free(struct host_code *c)
{
    munmap(c->rw, c->size);
    munmap(c->rx, c->size);
}

u8 *host_windows_alloc(unsigned n, u64 stride, u64 shared_off, u64 shared_size)
{
    int fd = memfd_create("trivisor-vcpu", MFD_CLOEXEC);
    u8 *first;

    if (fd < 0)
        return NULL;
    first = mmap(NULL, n * stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (first == MAP_FAILED)
        goto fail;
    if (ftruncate(fd, (off_t)shared_size))
        goto unmap;
    for (unsigned i = 0; i < n; i++) {
        u8 *at = first + i * stride + shared_off;

        if (mmap(at, shared_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != at)
            goto unmap;
    }
    if (madvise(first, n * stride, MADV_DONTFORK)) /* as above */
        goto unmap;
    close(fd);
    return first;
unmap:
    munmap(first, n * stride);
fail:
    close(fd);
    return NULL;
}

void host_windows_free(u8 *first, unsigned n, u64 stride)
{
    munmap(first, n * stride);
}

static __thread host_signal_fn *signal_fn;
static __thread void *signal_opaque;
static __thread void *alt_stack;

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

static void on_signal(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    struct host_signal hs;
    int saved_errno = errno;

    /* First: to an engine an access of its guest's memory does not fault. */
    host_ram_check_signal(sig, info);
    for (unsigned i = 0; i < 16; i++)
        hs.gpr[i] = (u64 *)&uc->uc_mcontext.gregs[greg_of[i]];
    hs.rip = (u64 *)&uc->uc_mcontext.gregs[REG_RIP];
    hs.rflags = (u64 *)&uc->uc_mcontext.gregs[REG_EFL];
    hs.kind = sig == KICK_SIGNAL ? HOST_SIGNAL_KICK : HOST_SIGNAL_FAULT;
    hs.trapno = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
    hs.addr = (u64)info->si_addr;
    if (signal_fn && signal_fn(signal_opaque, &hs)) {
        errno = saved_errno;
        return;
    }
    if (sig == KICK_SIGNAL)
        return;
    /* Our own bug: let the default action end the process with the fault where it is. */
    host_end();
    signal(sig, SIG_DFL);
    if (info->si_code <= 0)
        raise(sig); /* sent by a process: returning would not bring it again (sigaction(2)) */
}

int host_vcpu_attach(host_signal_fn *fn, void *opaque)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction sa;
    stack_t ss;

    alt_stack = malloc(ALT_STACK_SIZE);
    if (!alt_stack)
        return -ENOMEM;
    signal_fn = fn;
    signal_opaque = opaque;
    memset(&ss, 0, sizeof(ss));
    ss.ss_sp = alt_stack;
    ss.ss_size = ALT_STACK_SIZE;
    if (sigaltstack(&ss, NULL))
        return -errno;
    memset(&sa, 0, sizeof(sa));
    sa.sa_sigaction = on_signal;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&sa.sa_mask);
    sigaddset(&sa.sa_mask, KICK_SIGNAL);
    if (sigaction(KICK_SIGNAL, &sa, NULL))
        return -errno;
    for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        if (sigaction(faults[i], &sa, NULL))
            return -errno;
    return 0;
}

void host_vcpu_detach(void)
{
    stack_t ss;

    signal_fn = NULL;
    memset(&ss, 0, sizeof(ss));
    ss.ss_flags = SS_DISABLE;
    sigaltstack(&ss, NULL);
    free(alt_stack);
    alt_stack = NULL;
}

int host_thread_self(void)
{
    return (int)syscall(SYS_gettid);
}

void host_kick(int thread)
{
    syscall(SYS_tgkill, getpid(), thread, KICK_SIGNAL);
}

void host_yield(void)
{
    sched_yield();
}
