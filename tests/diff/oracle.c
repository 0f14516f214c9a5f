/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The oracle: a child process that runs cases natively. Everything happens inside its signal
 * handler: a case's registers go into the signal frame, sigreturn loads them all at once (general
 * registers, flags, CS, the XSAVE image), the case runs until it traps, and the next signal's frame
 * holds its end. So the handler must not need anything a case may have changed: FS and GS bases
 * belong to the case, hence no libc, no thread-local data and no stack protector in here.
 *
 * A case can do what a ring-3 program can: it cannot make system calls (seccomp lets only calls
 * from above 4 GiB through, and cases live below), cannot loop for ever (SIGVTALRM), and what it
 * writes is put back for the next one. A case that breaks the process all the same costs a restart.
 *
 * What a Linux signal does not tell exactly: page faults on kernel addresses always report P=1
 * (compare.c ignores that bit there); a fault taken while the kernel writes the signal frame cannot
 * happen, the handler has its own stack.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "difftest.h"

#define TICK_US 4000
#define TICKS_MAX 2 /* a case may run this many whole ticks of CPU time */

struct shared {
    u32 go, done; /* futexes: batches asked for, batches finished */
    u32 first, n; /* cases to run */
    u32 cur;      /* the one in progress */
    struct diff_case c[BATCH_MAX];
    struct diff_result r[BATCH_MAX];
};

static struct shared *sh;
static pid_t child;
static u32 batches;

struct diff_case *oracle_cases(void)
{
    return sh->c;
}

struct diff_result *oracle_results(void)
{
    return sh->r;
}

/* --- the child: signal handler ------------------------------------------------------------------
 */

static u8 *code_alias; /* writable view of the code pages */
static bool running;
static u32 ticks;
static u32 idle_at;
static u64 idle_fs, idle_gs;
static u64 idle_gregs[NGREG];
static u8 idle_fp[8192];

static inline void copy(void *d, const void *s, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
}

static inline void fill(void *d, u8 v, size_t n)
{
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(v) : "memory");
}

static inline u64 rdfs(void)
{
    u64 v;
    __asm__ volatile("rdfsbase %0" : "=r"(v));
    return v;
}

static inline u64 rdgs(void)
{
    u64 v;
    __asm__ volatile("rdgsbase %0" : "=r"(v));
    return v;
}

static inline void set_bases(u64 fs, u64 gs)
{
    __asm__ volatile("wrfsbase %0; wrgsbase %1" : : "r"(fs), "r"(gs));
}

/* Signal frame register numbers in encoding order. */
static const u8 greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                               REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                               REG_R12, REG_R13, REG_R14, REG_R15};

/* _fpx_sw_bytes (Linux uapi sigcontext.h) at offset 464 of the FXSAVE image. */
#define FP_SW_BYTES 464
#define FP_SW_XFEATURES 8
#define FP_SW_SIZE 16

static u32 fp_size(const u8 *fp)
{
    u32 n;
    copy(&n, fp + FP_SW_BYTES + FP_SW_SIZE, 4);
    return n && n <= X86_XSAVE_SIZE ? n : 512;
}

static void collect(int sig, ucontext_t *uc, u64 fs, u64 gs)
{
    struct diff_result *r = &sh->r[sh->cur];
    const greg_t *g = uc->uc_mcontext.gregs;
    const u8 *fp = (const u8 *)uc->uc_mcontext.fpregs;

    r->outcome = sig == SIGVTALRM ? OUT_TIMEOUT : sig == SIGSYS ? OUT_SYSCALL : OUT_FAULT;
    r->vector = (u32)g[REG_TRAPNO];
    r->error = (u32)g[REG_ERR];
    r->cr2 = (u64)g[REG_CR2];
    r->text[0] = 0;
    for (unsigned i = 0; i < 16; i++)
        r->regs.gpr[i] = (u64)g[greg_of[i]];
    r->regs.rip = (u64)g[REG_RIP];
    r->regs.rflags = (u64)g[REG_EFL];
    r->regs.sel[X86_CS] = (u16)g[REG_CSGSFS];
    r->regs.sel[X86_SS] = (u16)((u64)g[REG_CSGSFS] >> 48);
    __asm__ volatile("mov %%ds, %0" : "=r"(r->regs.sel[X86_DS]));
    __asm__ volatile("mov %%es, %0" : "=r"(r->regs.sel[X86_ES]));
    __asm__ volatile("mov %%fs, %0" : "=r"(r->regs.sel[X86_FS]));
    __asm__ volatile("mov %%gs, %0" : "=r"(r->regs.sel[X86_GS]));
    r->regs.fs_base = fs;
    r->regs.gs_base = gs;
    copy(r->regs.xsave, fp, fp_size(fp));
    copy(r->mem + MEM_DATA, (void *)(u64)DATA_VA, 0x3000);
    copy(r->mem + MEM_DATA2, (void *)(u64)DATA2_VA, 0x1000);
    copy(r->mem + MEM_STACK, (void *)(u64)STACK_VA, STACK_SIZE);
}

static void install(ucontext_t *uc)
{
    const struct diff_case *c = &sh->c[sh->cur];
    greg_t *g = uc->uc_mcontext.gregs;
    u8 *fp = (u8 *)uc->uc_mcontext.fpregs;
    const u8 *img = mem_image[c->image];
    u64 feat;

    fill(code_alias, CODE_FILL, CODE_SIZE);
    copy(code_alias + c->code_off, c->code, c->code_len);
    copy((void *)(u64)DATA_VA, img + MEM_DATA, 0x2000); /* the third page is read-only */
    copy((void *)(u64)DATA2_VA, img + MEM_DATA2, 0x1000);
    copy((void *)(u64)STACK_VA, img + MEM_STACK, STACK_SIZE);
    for (unsigned i = 0; i < c->npokes; i++) {
        u64 va = c->poke[i].off >= MEM_STACK   ? STACK_VA + (c->poke[i].off - MEM_STACK)
                 : c->poke[i].off >= MEM_DATA2 ? DATA2_VA + (c->poke[i].off - MEM_DATA2)
                                               : DATA_VA + c->poke[i].off;
        copy((void *)va, &c->poke[i].val, 8);
    }

    for (unsigned i = 0; i < 16; i++)
        g[greg_of[i]] = (greg_t)c->init.gpr[i];
    g[REG_RIP] = (greg_t)c->init.rip;
    g[REG_EFL] = (greg_t)c->init.rflags;
    /* cs, gs, fs, ss: 16 bits each */
    g[REG_CSGSFS] = (greg_t)((u64)c->init.sel[X86_SS] << 48 | c->init.sel[X86_CS]);
    copy(fp, c->init.xsave, FP_SW_BYTES);
    if (fp_size(fp) > 512) {
        copy(fp + 512, c->init.xsave + 512, fp_size(fp) - 512);
        copy(&feat, fp + FP_SW_BYTES + FP_SW_XFEATURES, 8);
        feat &= xl.xcr0;
        copy(fp + 512, &feat, 8); /* XSTATE_BV: load everything */
    }
    __asm__ volatile("mov %0, %%ds" : : "r"(c->init.sel[X86_DS]));
    __asm__ volatile("mov %0, %%es" : : "r"(c->init.sel[X86_ES]));
    __asm__ volatile("mov %0, %%fs" : : "r"(c->init.sel[X86_FS]));
    __asm__ volatile("mov %0, %%gs" : : "r"(c->init.sel[X86_GS]));
    set_bases(c->init.fs_base, c->init.gs_base);
    /* sigreturn takes NT and ID from the flags at the time of the call, not from the frame. */
    __asm__ volatile("pushfq; andq %0, (%%rsp); orq %1, (%%rsp); popfq"
                     :
                     : "r"(~(RFLAGS_NT | RFLAGS_ID)), "r"(c->init.rflags & (RFLAGS_NT | RFLAGS_ID))
                     : "memory", "cc");
    ticks = 0;
}

static void handler(int sig, siginfo_t *si, void *ucv)
{
    ucontext_t *uc = ucv;
    u64 fs = rdfs(), gs = rdgs();

    (void)si;
    if (sig == SIGVTALRM && (!running || ++ticks < TICKS_MAX))
        return;
    if (!running) { /* the idle loop's UD2 asks for a batch */
        u8 *fp = (u8 *)uc->uc_mcontext.fpregs;
        copy(idle_gregs, uc->uc_mcontext.gregs, sizeof(idle_gregs));
        copy(idle_fp, fp, fp_size(fp));
        idle_fs = fs;
        idle_gs = gs;
        running = true;
        sh->cur = sh->first;
    } else {
        collect(sig, uc, fs, gs);
        sh->cur++;
    }
    if (sh->cur < sh->n) {
        install(uc);
        return;
    }
    running = false;
    u8 *fp = (u8 *)uc->uc_mcontext.fpregs;
    copy(uc->uc_mcontext.gregs, idle_gregs, sizeof(idle_gregs));
    copy(fp, idle_fp, fp_size(fp));
    uc->uc_mcontext.gregs[REG_RIP] += 2; /* past the UD2 */
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs" : : "r"(0));
    set_bases(idle_fs, idle_gs);
    __asm__ volatile("pushfq; andq %0, (%%rsp); popfq"
                     :
                     : "r"(~(RFLAGS_NT | RFLAGS_ID))
                     : "memory", "cc");
}

/* --- the child: set-up
 * ---------------------------------------------------------------------------- */

static bool map_at(u64 va, u64 size, int prot, int flags, int fd, const void *image)
{
    void *p = mmap((void *)va, size, prot | PROT_WRITE, flags | MAP_FIXED_NOREPLACE | MAP_POPULATE,
                   fd, 0);
    if (p != (void *)va)
        return false;
    if (image)
        memcpy(p, image, size);
    return mprotect(p, size, prot) == 0;
}

static bool confine(void)
{
    struct sock_filter prog[] = {
        /* Cases live below 4 GiB: no system call from there, whatever its number or ABI. */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_rt_sigreturn, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_futex, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_exit_group, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_restart_syscall, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog fprog = {sizeof(prog) / sizeof(prog[0]), prog};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &fprog) == 0;
}

static _Noreturn void child_main(void)
{
    static u8 altstack[65536] __attribute__((aligned(64)));
    stack_t ss = {.ss_sp = altstack, .ss_size = sizeof(altstack)};
    struct sigaction sa = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    struct itimerval it = {{0, TICK_US}, {0, TICK_US}};
    static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGVTALRM};
    int fd = memfd_create("code", 0);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fd < 0 || ftruncate(fd, CODE_SIZE) ||
        !map_at(CODE_VA, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, NULL) ||
        !map_at(DATA_VA, 0x2000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, NULL) ||
        !map_at(DATA_RO_VA, 0x1000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                mem_image[0] + MEM_DATA + 0x2000) ||
        !map_at(DATA2_VA, 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, NULL) ||
        !map_at(STACK_VA, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                NULL)) {
        perror("difftest: oracle: fixed mappings");
        _exit(2);
    }
    code_alias = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (code_alias == MAP_FAILED)
        _exit(2);
    memset(code_alias, CODE_FILL, CODE_SIZE);

    sigfillset(&sa.sa_mask);
    sa.sa_sigaction = handler;
    if (sigaltstack(&ss, NULL))
        _exit(2);
    for (size_t i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
        sigaction(sigs[i], &sa, NULL);
    setitimer(ITIMER_VIRTUAL, &it, NULL);
    if (!confine()) {
        perror("difftest: oracle: seccomp");
        _exit(2);
    }
    idle_at = __atomic_load_n(&sh->go, __ATOMIC_ACQUIRE);
    if (sh->done != idle_at) /* restarted in the middle of a batch */
        idle_at--;
    for (;;) {
        while (__atomic_load_n(&sh->go, __ATOMIC_ACQUIRE) == idle_at)
            syscall(__NR_futex, &sh->go, FUTEX_WAIT, idle_at, NULL, NULL, 0);
        idle_at++;
        __asm__ volatile("ud2" : : : "memory");
        __atomic_store_n(&sh->done, idle_at, __ATOMIC_RELEASE);
        syscall(__NR_futex, &sh->done, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

/* --- the parent
 * ------------------------------------------------------------------------------------ */

static bool spawn(void)
{
    fflush(NULL);
    child = fork();
    if (child == 0)
        child_main();
    return child > 0;
}

bool oracle_start(void)
{
    u32 eax, ebx, ecx, edx;

    __asm__("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(7), "c"(0));
    if (!(ebx & 1)) {
        fprintf(stderr, "difftest: the host CPU has no FSGSBASE\n");
        return false;
    }
    sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sh == MAP_FAILED || !spawn()) {
        perror("difftest: oracle");
        return false;
    }
    return true;
}

void oracle_stop(void)
{
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        child = 0;
    }
}

void oracle_run(unsigned n)
{
    const struct timespec wait = {0, 200000000};

    sh->first = 0;
    sh->n = n;
    sh->cur = 0;
    __atomic_store_n(&sh->go, ++batches, __ATOMIC_RELEASE);
    syscall(__NR_futex, &sh->go, FUTEX_WAKE, 1, NULL, NULL, 0);
    for (;;) {
        u32 d = __atomic_load_n(&sh->done, __ATOMIC_ACQUIRE);
        int status;

        if (d == batches)
            return;
        syscall(__NR_futex, &sh->done, FUTEX_WAIT, d, &wait, NULL, 0);
        if (__atomic_load_n(&sh->done, __ATOMIC_ACQUIRE) == batches)
            return;
        if (waitpid(child, &status, WNOHANG) != child)
            continue;
        if (WIFEXITED(status)) {
            fprintf(stderr, "difftest: the oracle could not run (exit %d)\n", WEXITSTATUS(status));
            exit(2);
        }
        /* The case in progress took the process with it: note it and go on behind it. */
        memset(&sh->r[sh->cur], 0, sizeof(sh->r[0]));
        sh->r[sh->cur].outcome = OUT_DIED;
        sh->first = sh->cur + 1;
        if (sh->first >= n) {
            sh->done = batches;
            if (!spawn())
                exit(2);
            return;
        }
        if (!spawn())
            exit(2);
    }
}
