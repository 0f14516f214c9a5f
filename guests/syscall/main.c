// SPDX-License-Identifier: Apache-2.0
/* The doors between ring 3 and ring 0: SYSCALL/SYSRET, SYSENTER/SYSEXIT, INT, SWAPGS
 * (SDM 3A 5.8.7, 5.8.8; APM 2 6.1). Intel's and AMD's rules differ; CPUID's vendor decides. */
#include "x64.h"

/* Landing places in ring 0: a trap right there shows the registers as the instruction left them. */
extern const char land64[], land32[], land_enter[], do_sysretq[], do_sysretl[], do_sysexitq[],
    do_sysexitl[];
__asm__(".text\n"
        "land64: int3\n"
        "land32: int3\n"
        "land_enter: int3\n"
        "do_sysretq: sysretq\n"
        "do_sysretl: sysretl\n"
        "do_sysexitq: sysexitq\n"
        "do_sysexitl: sysexitl\n");

static u8 user_code[256] USER_DATA ALIGNED(64);

static void setup(void)
{
    wrmsr(MSR_STAR, (u64)0x23 << 48 | (u64)SEL_CODE64 << 32);
    wrmsr(MSR_LSTAR, (uptr)land64);
    wrmsr(MSR_CSTAR, (uptr)land32);
    wrmsr(MSR_SFMASK, F_IF | F_TF | F_DF | F_AC | F_NT);
}

/* Registers for ring 3 at bytes copied to user_code. */
static void at_bytes(struct regs *r, const void *bytes, unsigned n)
{
    user_regs(r, user_code, 0, 0);
    memset(user_code, 0xcc, sizeof(user_code));
    memcpy(user_code, bytes, n);
}

static const u8 syscall_insn[] = {0x0f, 0x05};
static const u8 sysenter_insn[] = {0x0f, 0x34};
static const u8 int80[] = {0xcd, 0x80};

TEST(syscall__enters_at_lstar)
{
    struct trap t;
    struct regs r;

    setup();
    at_bytes(&r, syscall_insn, 2);
    r.rcx = r.r11 = 0x1234;
    r.rflags = 2 | F_CF | F_DF | F_ZF | F_AC;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.rip, (uptr)land64 + 1);
    CHECK_EQ(t.regs.cs, SEL_CODE64);
    CHECK_EQ(t.regs.ss, SEL_DATA);
    CHECK_EQ(t.regs.rcx, (uptr)user_code + 2);
    CHECK_EQ(t.regs.r11 & ~(u64)F_RF, 2 | F_CF | F_DF | F_ZF | F_AC);
    CHECK_EQ(t.regs.rflags & (F_DF | F_AC), 0); /* SFMASK took them */
    CHECK_EQ(t.regs.rsp, r.rsp);                /* RSP is the caller's business */
    CHECK_EQ(t.regs.rax, r.rax);
}

TEST_QEMU_DEVIATES(syscall__sfmask_takes_what_it_says, "clears the arithmetic flags")
{
    struct trap t;
    struct regs r;

    setup();
    wrmsr(MSR_SFMASK, F_CF | F_ZF | F_SF | F_OF);
    at_bytes(&r, syscall_insn, 2);
    r.rflags = 2 | F_CF | F_ZF | F_SF | F_OF | F_DF | F_AF;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.rflags & 0xfd7, 2 | F_DF | F_AF);
}

TEST(syscall__from_ring_0_too)
{
    u64 rcx, r11;
    struct trap t;

    setup();
    TRY (&t)
        __asm__ volatile("syscall" : "=c"(rcx) : : "r11", "memory");
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.cs, SEL_CODE64);
    (void)rcx;
    (void)r11;
}

TEST(syscall__is_undefined_without_sce)
{
    struct trap t;
    struct regs r;

    setup();
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE);
    at_bytes(&r, syscall_insn, 2);
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_UD);
    CHECK_EQ(t.regs.rip, (uptr)user_code);
    CHECK_EQ(t.regs.cs, SEL_UCODE64);
    TRY (&t)
        __asm__ volatile("sysretq");
    CHECK_EQ(t.vector, V_UD);
}

TEST(syscall__in_compatibility_mode)
{
    struct trap t;
    struct regs r;

    setup();
    at_bytes(&r, syscall_insn, 2);
    r.cs = SEL_UCODE32;
    run_until_trap(&t, &r);
    if (cpu_is_amd()) { /* AMD goes to CSTAR, in 64-bit mode */
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.regs.rip, (uptr)land32 + 1);
        CHECK_EQ(t.regs.cs, SEL_CODE64);
        CHECK_EQ(t.regs.rcx, (uptr)user_code + 2);
    } else {
        CHECK_EQ(t.vector, V_UD);
        CHECK_EQ(t.regs.cs, SEL_UCODE32);
    }
}

static void ring0_at(struct regs *r, const void *rip)
{
    memset(r, 0, sizeof(*r));
    r->rip = (uptr)rip;
    r->cs = SEL_CODE64;
    r->ss = SEL_DATA;
    r->rflags = 2;
    r->rsp = (uptr)user_stack[0] + USER_STACK_SIZE - 64;
}

TEST(sysret__to_64_bit_mode)
{
    struct trap t;
    struct regs r;

    setup();
    memset(user_code, 0xcc, sizeof(user_code));
    ring0_at(&r, do_sysretq);
    r.rcx = (uptr)user_code;
    r.r11 = F_CF | F_PF | F_DF | F_AC | F_RF | (on_qemu_tcg() ? 0 : F_VM) |
            8; /* QEMU lets VM through */
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.rip, (uptr)user_code + 1);
    CHECK_EQ(t.regs.cs, SEL_UCODE64);
    CHECK_EQ(t.regs.ss, SEL_UDATA);
    CHECK_EQ(t.regs.rflags & (F_CF | F_PF | F_DF | F_AC | F_VM | 10),
             F_CF | F_PF | F_DF | F_AC | 2);
    CHECK_EQ(t.regs.rsp, r.rsp);
}

TEST(sysret__to_compatibility_mode)
{
    struct trap t;
    struct regs r;

    setup();
    memset(user_code, 0xcc, sizeof(user_code));
    user_code[0] = 0x40; /* inc %eax in 32-bit mode, a prefix in 64-bit mode */
    ring0_at(&r, do_sysretl);
    r.rcx = (uptr)user_code;
    r.r11 = 2;
    r.rax = 41;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.cs, SEL_UCODE32);
    CHECK_EQ(t.regs.ss, SEL_UDATA);
    CHECK_EQ(t.regs.rax, 42);
}

TEST(sysret__non_canonical_rcx)
{
    struct trap t;
    struct regs r;

    setup();
    ring0_at(&r, do_sysretq);
    r.rcx = 1ULL << 47;
    r.r11 = 2;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.error, 0);
    if (cpu_is_amd()) { /* AMD arrives in ring 3 and faults on the fetch */
        CHECK_EQ(t.regs.cs & 3, 3);
        CHECK_EQ(t.regs.rip, 1ULL << 47);
    } else { /* Intel refuses, still in ring 0 */
        CHECK_EQ(t.regs.cs, SEL_CODE64);
        CHECK_EQ(t.regs.rip, (uptr)do_sysretq);
    }
}

USER_TEXT static u64 many_syscalls(u64 n)
{
    u64 sum = 0;

    for (u64 i = 0; i < n; i++) {
        u64 rax = i;
        __asm__ volatile("syscall" : "+a"(rax) : : "rcx", "r11", "memory");
        sum += rax;
    }
    return sum;
}

extern const char fast_entry[];
__asm__(".text\n"
        "fast_entry:\n"
        "    swapgs\n"
        "    mov %rsp, %gs:0\n"
        "    mov %gs:8, %rsp\n"
        "    push %rcx\n"
        "    push %r11\n"
        "    lea 1(%rax,%rax), %rax\n"
        "    pop %r11\n"
        "    pop %rcx\n"
        "    mov %gs:0, %rsp\n"
        "    swapgs\n"
        "    sysretq\n");

static u64 percpu[2];
static u8 syscall_stack[1024] ALIGNED(16);

TEST(syscall__many_round_trips)
{
    struct trap t;

    setup();
    percpu[1] = (uptr)syscall_stack + sizeof(syscall_stack);
    wrmsr(MSR_LSTAR, (uptr)fast_entry);
    wrmsr(MSR_KERNEL_GS_BASE, (uptr)percpu);
    wrmsr(MSR_GS_BASE, 0x1234);
    user_call(&t, many_syscalls, 20000, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    CHECK_EQ(t.regs.rax, 20000ULL * 19999 + 20000);
    CHECK_EQ(rdmsr(MSR_GS_BASE), 0x1234);
    CHECK_EQ(rdmsr(MSR_KERNEL_GS_BASE), (uptr)percpu);
}

TEST(swapgs__exchanges)
{
    u64 v;

    wrmsr(MSR_GS_BASE, 0x1000);
    wrmsr(MSR_KERNEL_GS_BASE, (uptr)percpu);
    percpu[0] = 0xfeed;
    for (unsigned i = 0; i < 100; i++) {
        __asm__ volatile("swapgs; mov %%gs:0, %0" : "=r"(v));
        CHECK_EQ(v, 0xfeed);
        CHECK_EQ(rdmsr(MSR_GS_BASE), (uptr)percpu);
        CHECK_EQ(rdmsr(MSR_KERNEL_GS_BASE), 0x1000);
        __asm__ volatile("swapgs");
        CHECK_EQ(rdmsr(MSR_GS_BASE), 0x1000);
    }
}

TEST(int80__from_64_bit_and_compatibility_mode)
{
    struct trap t;
    struct regs r;

    idt_set(0x80, trap_entry(0x80), SEL_CODE64, 0, 3, 15);
    at_bytes(&r, int80, 2);
    r.rax = 0x123456789abcdef0;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, 0x80);
    CHECK_EQ(t.regs.rip, (uptr)user_code + 2);
    CHECK_EQ(t.regs.cs, SEL_UCODE64);
    CHECK_EQ(t.regs.rax, 0x123456789abcdef0);
    r.cs = SEL_UCODE32;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, 0x80);
    CHECK_EQ(t.regs.cs, SEL_UCODE32);
    CHECK_EQ(t.regs.rip, (uptr)user_code + 2);
    CHECK_EQ(t.regs.rsp, r.rsp);
}

static unsigned int_count;
static bool count_int(struct regs *r)
{
    int_count++;
    r->rax += 3;
    return true;
}

USER_TEXT static u64 many_ints(u64 n)
{
    u64 rax = 0;

    for (u64 i = 0; i < n; i++)
        __asm__ volatile("int $0x80" : "+a"(rax) : : "memory");
    return rax;
}

TEST(int80__many_round_trips)
{
    struct trap t;

    idt_set(0x80, trap_entry(0x80), SEL_CODE64, 0, 3, 14);
    trap_set_hook(0x80, count_int);
    int_count = 0;
    user_call(&t, many_ints, 5000, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    CHECK_EQ(t.regs.rax, 15000);
    CHECK_EQ(int_count, 5000);
}

static void setup_enter(u64 cs)
{
    wrmsr(0x174, cs);
    wrmsr(0x175, (uptr)syscall_stack + sizeof(syscall_stack));
    wrmsr(0x176, (uptr)land_enter);
}

TEST(sysenter__vendor_rules)
{
    struct trap t;
    struct regs r;

    if (!cpu_has(1, 0, 3, 11))
        SKIP("no SYSENTER");
    setup_enter(SEL_CODE64);
    CHECK_EQ(rdmsr(0x174), SEL_CODE64);
    CHECK_EQ(rdmsr(0x176), (uptr)land_enter);
    at_bytes(&r, sysenter_insn, 2);
    r.rflags = 2 | F_CF;
    run_until_trap(&t, &r);
    if (cpu_is_amd()) { /* not in long mode: APM 3, SYSENTER */
        CHECK_EQ(t.vector, V_UD);
        return;
    }
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.rip, (uptr)land_enter + 1);
    CHECK_EQ(t.regs.cs, SEL_CODE64);
    CHECK_EQ(t.regs.ss, SEL_CODE64 + 8);
    CHECK_EQ(t.regs.rsp, (uptr)syscall_stack + sizeof(syscall_stack));
    CHECK_EQ(t.regs.rflags & (F_CF | F_IF), F_CF);
    setup_enter(0);
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.regs.rip, (uptr)user_code);
}

/* SYSEXIT takes CS+16 and CS+24 (32-bit) or CS+32 and CS+40 (64-bit) from SYSENTER_CS; the boot GDT
 * has 0x20 code32, 0x28 data, 0x30 code64: base 0x10 gives code32/data, base 0x10 + 0x20 gives
 * code64/none. */
TEST(sysexit__to_32_bit_code)
{
    struct trap t;
    struct regs r;

    if (!cpu_has(1, 0, 3, 11) || cpu_is_amd())
        SKIP("no SYSENTER in long mode");
    setup_enter(0x10);
    memset(user_code, 0xcc, sizeof(user_code));
    ring0_at(&r, do_sysexitl);
    r.rdx = (uptr)user_code;
    r.rcx = r.rsp - 128;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.cs, SEL_UCODE32);
    CHECK_EQ(t.regs.ss, SEL_UDATA);
    CHECK_EQ(t.regs.rsp, r.rcx);
    setup_enter(0);
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_GP);
}

TEST(farcall__through_a_64_bit_call_gate)
{
    struct trap t;
    struct regs r;
    /* lcall *(%rax) with m16:32 */
    static const u8 lcall[] = {0xff, 0x18};
    static struct {
        u32 off;
        u16 sel;
    } __attribute__((packed)) far USER_DATA;
    u64 target = (uptr)land64;

    far.sel = SEL_SPARE | 3;
    gdt[SEL_SPARE / 8] =
        (target & 0xffff) | SEL_CODE64 << 16 | 0xecULL << 40 | (target >> 16 & 0xffff) << 48;
    gdt[SEL_SPARE / 8 + 1] = target >> 32;
    at_bytes(&r, lcall, 2);
    r.rax = (uptr)&far;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.cs, SEL_CODE64);
    CHECK_EQ(t.regs.rip, (uptr)land64 + 1);
    CHECK_EQ(t.regs.rsp, cpu_self()->tss.rsp[0] - 32);
    CHECK_EQ(t.regs.ss, 0);
    {
        u64 *f = (u64 *)t.regs.rsp;
        CHECK_EQ(f[0], (uptr)user_code + 2);
        CHECK_EQ(f[1], SEL_UCODE64);
        CHECK_EQ(f[2], r.rsp);
        CHECK_EQ(f[3], SEL_UDATA);
    }
    /* DPL 0: not for ring 3 */
    gdt[SEL_SPARE / 8] = (gdt[SEL_SPARE / 8] & ~(0xffULL << 40)) | 0x8cULL << 40;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.error, SEL_SPARE);
}
