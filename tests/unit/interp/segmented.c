/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16- and 32-bit code in small segments: random integer instructions run by the host in segments of
 * an LDT and by the interpreter on the same memory; registers, flags, memory and faults must agree.
 * The flat 32- and 64-bit worlds are tests/diff's.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <asm/ldt.h>
#include <cmocka.h>

#include "engine/interp/interp_priv.h"

#define SEG_SIZE 0x10000u
#define CASES 15000u         /* CASES and SEED in the environment for more */
#define IDT_BASE 0xfff00000u /* no memory: reading it tells the vector */

enum { W_CODE, W_DATA, W_EXTRA, W_STACK, WINDOWS };
enum { L_CODE16, L_CODE32, L_DATA, L_EXTRA, L_EXTRA_DOWN, L_STACK16, L_STACK32, L_N };

#define LDT_SEL(n) ((n) << 3 | 7)

static u8 *ram;   /* WINDOWS segments, one after the other, below 4 GiB */
static u8 *saved; /* what they held before the case */
static u8 *after; /* what the interpreter made of them */
static u32 limits[L_N];
static u64 host_stack; /* 64 KiB aligned */

struct native {
    u64 gpr[8];
    u64 ip, flags, sp;
    u64 cs, ss, ds, es;
    u64 host_sp; /* for the IRETQ: below 4 GiB, its upper half shows in ESP when SS is 16-bit */
};
static struct native now;
static sigjmp_buf out;
static volatile int vector;

void segmented_enter(struct native *n);
__asm__(".text\n"
        ".globl segmented_enter\n"
        ".type segmented_enter, @function\n"
        "segmented_enter:\n"
        "	movl 104(%rdi), %eax\n"
        "	movl %eax, %ds\n"
        "	movl 112(%rdi), %eax\n"
        "	movl %eax, %es\n"
        "	movq 120(%rdi), %rsp\n"
        "	pushq 96(%rdi)\n"
        "	pushq 80(%rdi)\n"
        "	pushq 72(%rdi)\n"
        "	pushq 88(%rdi)\n"
        "	pushq 64(%rdi)\n"
        "	movq (%rdi), %rax\n"
        "	movq 8(%rdi), %rcx\n"
        "	movq 16(%rdi), %rdx\n"
        "	movq 24(%rdi), %rbx\n"
        "	movq 40(%rdi), %rbp\n"
        "	movq 48(%rdi), %rsi\n"
        "	movq 56(%rdi), %rdi\n"
        "	iretq\n"
        ".size segmented_enter, . - segmented_enter\n");

static void on_signal(int sig, siginfo_t *si, void *ucv)
{
    static const int reg[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX,
                               REG_RSP, REG_RBP, REG_RSI, REG_RDI};
    const greg_t *g = ((ucontext_t *)ucv)->uc_mcontext.gregs;
    (void)si;
    vector = sig == SIGALRM ? -1 : (int)g[REG_TRAPNO];
    for (unsigned i = 0; i < 8; i++)
        now.gpr[i] = (u64)g[reg[i]];
    now.ip = (u64)g[REG_RIP];
    now.flags = (u64)g[REG_EFL];
    siglongjmp(out, 1);
}

static bool set_ldt(unsigned n, u32 base, u32 limit, unsigned contents, bool big)
{
    struct user_desc d = {.entry_number = n,
                          .base_addr = base,
                          .limit = limit,
                          .seg_32bit = big,
                          .contents = contents & 3,
                          .useable = 1};
    limits[n] = limit;
    return !syscall(SYS_modify_ldt, 0x11, &d, sizeof d);
}

static u32 window(unsigned w)
{
    return (u32)(uintptr_t)ram + w * SEG_SIZE;
}

/* Some hypervisors' guests take LDT entries and never load them. */
static bool ldt_works(void)
{
    bool readable;

    __asm__ volatile("verr %w1" : "=@ccz"(readable) : "r"(LDT_SEL(L_DATA)));
    return readable;
}

static bool host_ready(void)
{
    static const int sigs[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGALRM};
    static u8 stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction sa = {.sa_sigaction = on_signal,
                           .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    size_t size = WINDOWS * SEG_SIZE;
    ram = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    void *low =
        mmap(NULL, 0x20000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (ram == MAP_FAILED || low == MAP_FAILED)
        return false;
    host_stack = align_up((u64)(uintptr_t)low, 0x10000);
    saved = malloc(size);
    after = malloc(size);
    sigaltstack(&ss, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(sigs); i++)
        sigaction(sigs[i], &sa, NULL);
    return set_ldt(L_CODE16, window(W_CODE), 0xffff, 2, false) &&
           set_ldt(L_CODE32, window(W_CODE), 0xffff, 2, true) &&
           set_ldt(L_DATA, window(W_DATA), 0xffff, 0, true) &&
           set_ldt(L_EXTRA, window(W_EXTRA), 0x7fff, 0, true) &&
           set_ldt(L_EXTRA_DOWN, window(W_EXTRA), 0x3fff, 1, false) &&
           set_ldt(L_STACK16, window(W_STACK), 0xffff, 0, false) &&
           set_ldt(L_STACK32, window(W_STACK), 0xffff, 0, true) && ldt_works();
}

/* --- the interpreter's side */

static struct x86_vcpu_state state;
static struct x86_cpu_model model;
static struct interp in;
static int fault_vector;

static int translate(void *opaque, u64 gva, unsigned len, unsigned access, struct interp_ref *ref,
                     struct interp_fault *fault)
{
    (void)opaque, (void)access;
    if (gva - (uintptr_t)ram < WINDOWS * SEG_SIZE &&
        gva + len <= (uintptr_t)ram + WINDOWS * SEG_SIZE) {
        *ref = (struct interp_ref){(void *)(uintptr_t)gva, gva};
        return 0;
    }
    if (gva >= IDT_BASE && fault_vector < 0)
        fault_vector = (int)((gva - IDT_BASE) / 8);
    *fault = (struct interp_fault){.vector = X86_PF, .has_error = true, .cr2 = gva};
    return -1;
}

static u64 mmio_read(void *opaque, u64 gpa, unsigned len)
{
    (void)opaque, (void)gpa;
    return size_mask(len);
}

static void nothing(void *opaque)
{
    (void)opaque;
}

static const struct interp_ops ops = {
    .translate = translate,
    .mmio_read = mmio_read,
    .fpu_sync = nothing,
    .exclusive_begin = nothing,
    .exclusive_end = nothing,
};

static void set_seg(unsigned reg, unsigned ldt, u32 base, unsigned attr)
{
    state.seg[reg] = (struct x86_seg){
        .base = base,
        .limit = limits[ldt],
        .sel = (u16)LDT_SEL(ldt),
        .attr = (u16)(attr | X86_SEG_P | X86_SEG_S | X86_SEG_DPL | X86_SEG_RW | X86_SEG_ACCESSED)};
}

static void load_state(const struct native *n, bool down)
{
    memset(&state, 0, offsetof(struct x86_vcpu_state, xsave));
    state.cr0 = CR0_PE | CR0_NE;
    state.cpl = 3;
    state.dr6 = DR6_INIT;
    state.idtr = (struct x86_dtr){IDT_BASE, 0x7ff};
    memcpy(state.gpr, n->gpr, sizeof n->gpr);
    state.gpr[X86_RSP] = n->sp;
    state.rip = n->ip;
    state.rflags = n->flags;
    bool code32 = n->cs == LDT_SEL(L_CODE32), stack32 = n->ss == LDT_SEL(L_STACK32);
    set_seg(X86_CS, code32 ? L_CODE32 : L_CODE16, window(W_CODE),
            X86_SEG_CODE | (code32 ? X86_SEG_DB : 0));
    set_seg(X86_SS, stack32 ? L_STACK32 : L_STACK16, window(W_STACK), stack32 ? X86_SEG_DB : 0);
    set_seg(X86_DS, L_DATA, window(W_DATA), X86_SEG_DB);
    set_seg(X86_ES, down ? L_EXTRA_DOWN : L_EXTRA, window(W_EXTRA), down ? X86_SEG_DC : X86_SEG_DB);
}

/* --- cases */

static u64 seed;

static u64 rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1d >> 16;
}

static u32 value(void)
{
    switch (rnd() % 6) {
    case 0:
        return (u32)rnd();
    case 1:
        return (u32)rnd() & 0x1f;
    case 2:
        return 0xffff - ((u32)rnd() & 7);
    case 3:
        return 0u - ((u32)rnd() & 15);
    default:
        return (u32)rnd() & 0x7fff;
    }
}

/* One instruction of the integer half that stays within its segments. */
static bool make_insn(struct x86_insn *insn, unsigned mode)
{
    u8 b[X86_INSN_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < 3; i++) {
        static const u8 prefix[] = {0x66, 0x67, 0x26, 0x2e, 0x36, 0xf2, 0xf3, 0xf0};
        if (rnd() % 4 == 0)
            b[n++] = prefix[rnd() % sizeof prefix];
    }
    if (rnd() % 4 == 0)
        b[n++] = 0x0f;
    while (n < sizeof b)
        b[n++] = (u8)rnd();
    if (x86_decode(insn, b, sizeof b, mode, false) != X86_DECODE_OK)
        return false;
    if (!interp_integer_handler(insn->mnemonic) || insn->encoding != X86_ENC_LEGACY ||
        (insn->mnemonic == ZYDIS_MNEMONIC_CMPSD && insn->opcode_map) ||
        (insn->mnemonic == ZYDIS_MNEMONIC_MOVSD && insn->opcode_map))
        return false;
    if (insn->mem.present && insn->mem.seg >= X86_FS)
        return false; /* FS is the C library's */
    for (unsigned i = 0; i < insn->nops; i++)
        if (insn->op[i].kind == X86_OP_SEG || insn->op[i].kind == X86_OP_PTR ||
            insn->op[i].kind == X86_OP_CR || insn->op[i].kind == X86_OP_DR)
            return false;
    unsigned reg = insn->modrm >> 3 & 7;
    if (insn->opcode_map == 0 && ((insn->opcode == 0xff && (reg == 3 || reg == 5)) ||
                                  insn->opcode == 0xca || insn->opcode == 0xcb))
        return false; /* far */
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_CLZERO: /* the host may have what the model does not show */
    case ZYDIS_MNEMONIC_MOVDIRI:
    case ZYDIS_MNEMONIC_MOVDIR64B:
    case ZYDIS_MNEMONIC_SERIALIZE:
    case ZYDIS_MNEMONIC_UD0: /* of no interest, and differing in length */
    case ZYDIS_MNEMONIC_UD1:
        return false;
    default:
        return true;
    }
}

static void make_case(struct native *n, const struct x86_insn *insn, bool down)
{
    memset(n, 0, sizeof *n);
    for (unsigned i = 0; i < 8; i++)
        n->gpr[i] = value();
    if (insn->prefixes & (X86_PFX_REP | X86_PFX_REPNE))
        n->gpr[X86_RCX] &= insn->addrsize == 2 ? 0xffff001f : 0x1f;
    n->sp = rnd() % 8 ? (rnd() & 0x7ffc) + 0x100 : value() & 0xffff;
    n->flags = (rnd() & (RFLAGS_ARITH | RFLAGS_DF)) | RFLAGS_FIXED | RFLAGS_IF;
    n->ip = 0x4000 + (rnd() & 0xff);
    n->ds = LDT_SEL(L_DATA);
    n->es = down ? LDT_SEL(L_EXTRA_DOWN) : LDT_SEL(L_EXTRA);
    n->host_sp = host_stack + 0x8000;
    n->ss = rnd() % 2 ? LDT_SEL(L_STACK16) : LDT_SEL(L_STACK32);
    if (n->ss == LDT_SEL(L_STACK16))
        n->sp |= n->host_sp & 0xffff0000;
    n->cs = insn->mode == 32 ? LDT_SEL(L_CODE32) : LDT_SEL(L_CODE16);
}

/* Runs the instruction, and INT3 where it leads to. */
static int run_interp(const struct native *n, bool down)
{
    fault_vector = -1;
    load_state(n, down);
    for (unsigned i = 0; i < 100; i++) {
        if (interp_step(&in) != INTERP_OK)
            return fault_vector;
        if (state.rip != n->ip)
            return X86_BP;
    }
    return -2;
}

static void run_native(const struct native *n)
{
    static struct itimerval limit = {.it_value = {.tv_usec = 200000}}, off;
    vector = 0;
    now = *n;
    if (!sigsetjmp(out, 1)) {
        setitimer(ITIMER_REAL, &limit, NULL);
        segmented_enter(&now);
    }
    setitimer(ITIMER_REAL, &off, NULL);
}

/* CPUs differ in what PUSHA and POPA that fault half-way have done; here they have done nothing. */
static bool half_done(const struct x86_insn *insn, int vec)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_ENTER:
        return vec != X86_BP;
    default:
        return false;
    }
}

static bool agree(const struct native *n, const struct x86_insn *insn, int expected)
{
    bool stack16 = n->ss == LDT_SEL(L_STACK16);
    u64 ip = expected == X86_BP ? now.ip - 1 : now.ip;
    u32 bad = 0;
    char text[96];
    if (vector != expected)
        bad |= 1;
    if ((u32)ip != (u32)state.rip)
        bad |= 2;
    for (unsigned i = 0; i < 8; i++) {
        if ((u32)now.gpr[i] != (u32)state.gpr[i])
            bad |= 16u << i;
    }
    u64 flags = RFLAGS_ARITH | RFLAGS_DF;
    if (expected == X86_DE || ((now.flags ^ state.rflags) & flags) == 0)
        flags = 0; /* a division that faults leaves them undefined */
    if (flags)
        bad |= 4;
    if (memcmp(ram, after, WINDOWS * SEG_SIZE))
        bad |= 8;
    if (half_done(insn, expected))
        bad &= 7;
    if (!bad)
        return true;
    x86_format(insn, n->ip, text, sizeof text);
    print_error("mode %u %s ss%s: %s\n  vector %d, interp %d; ip %x, interp %x; flags %x, interp "
                "%x; memory %s; bad %x\n",
                insn->mode, text, stack16 ? "16" : "32", "native against interp", vector, expected,
                (u32)ip, (u32)state.rip, (u32)now.flags, (u32)state.rflags,
                bad & 8 ? "differs" : "same", bad);
    print_error("  bytes");
    for (unsigned i = 0; i < insn->length; i++)
        print_error(" %02x", insn->bytes[i]);
    print_error("\n");
    for (unsigned i = 0; i < 8; i++)
        print_error("  r%u before %08x native %08x interp %08x\n", i,
                    (u32)(i == X86_RSP ? n->sp : n->gpr[i]), (u32)now.gpr[i], (u32)state.gpr[i]);
    return false;
}

static void host_cpuid(u32 leaf, u32 subleaf, u32 r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(subleaf));
}

static void segmented__agrees_with_the_host(void **unused)
{
    (void)unused;
    if (!host_ready())
        skip();
    const char *s = getenv("SEED"), *c = getenv("CASES");
    unsigned cases = c ? (unsigned)strtoul(c, NULL, 0) : CASES;
    seed = s ? strtoull(s, NULL, 0) : 0x9e3779b97f4a7c15;
    void *cache = calloc(1, interp_cache_size());
    struct x86_cpu_options opt = {.ncpus = 1, .tsc_khz = 1000000};
    x86_cpu_model_build(&model, host_cpuid, 7, &opt);
    interp_init(&in, &state, &model, &ops, NULL, cache, NULL, NULL);
    size_t size = WINDOWS * SEG_SIZE;
    memset(ram, 0xcc, SEG_SIZE);
    for (u32 i = SEG_SIZE; i < size; i++)
        ram[i] = (u8)rnd();
    memcpy(saved, ram, size);
    unsigned done = 0, failed = 0;
    while (done < cases && failed < 10) {
        struct x86_insn insn;
        struct native n;
        bool down = rnd() % 4 == 0;
        if (!make_insn(&insn, rnd() % 3 ? 16 : 32))
            continue;
        make_case(&n, &insn, down);
        memcpy(ram + n.ip, insn.bytes, insn.length);
        memcpy(saved + n.ip, insn.bytes, insn.length);
        int expected = run_interp(&n, down);
        bool lands_inside = state.rip >= n.ip && state.rip < n.ip + insn.length;
        memcpy(after, ram, size);
        memcpy(ram, saved, size);
        if (expected != -2 && !(expected == X86_BP && lands_inside)) {
            run_native(&n);
            done++;
            if (vector == -1)
                fail_msg("the host did not come back");
            failed += !agree(&n, &insn, expected);
            memcpy(ram, saved, size);
        }
        memset(ram + n.ip, 0xcc, insn.length);
        memset(saved + n.ip, 0xcc, insn.length);
    }
    free(cache);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segmented__agrees_with_the_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
