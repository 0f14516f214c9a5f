// SPDX-License-Identifier: Apache-2.0
/* How exceptions are delivered: stacks, gates, nesting, double faults, RF; and those that only
 * compatibility mode can cause (SDM 3A 6.12 to 6.15). */
#include "exceptions.h"

SNIPPET(div_zero, "xor %%ecx, %%ecx; xor %%edx, %%edx; 771: div %%ecx")
SNIPPET(bp_int3, "int3; 771: nop")
SNIPPET(icebp, ".byte 0xf1; 771: nop")
SNIPPET(ud2, "771: ud2")
SNIPPET(nc_load, "mov $1, %%eax; shl $62, %%rax; 771: mov (%%rax), %%ecx")

static u8 code_page[64] ALIGNED(64);

/* --- delivery --- */

static u64 seen_frame, seen_flags, seen_rsp_before;

static bool note_frame(struct regs *r)
{
    seen_frame = (uptr)r + sizeof(*r);
    seen_rsp_before = r->rsp;
    __asm__ volatile("pushfq; pop %0" : "=r"(seen_flags));
    return true;
}

TEST(delivery__aligns_the_stack)
{
    for (unsigned off = 0; off < 16; off += 1) {
        trap_set_hook(0x41, note_frame);
        __asm__ volatile(
            "mov %%rsp, %%rbx; lea -256(%%rsp), %%rsp; and $-16, %%rsp; sub %0, %%rsp; "
            "int $0x41; mov %%rbx, %%rsp" ::"r"((u64)off)
            : "rbx", "memory");
        CHECK_EQ(seen_frame, seen_rsp_before & ~15ULL);
    }
}

TEST(delivery__interrupt_gate_clears_if_trap_gate_keeps_it)
{
    trap_set_hook(0x41, note_frame);
    /* the PIC is still masked by nobody: keep IF's window to the INT itself */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    __asm__ volatile("sti; int $0x41; cli");
    CHECK(!(seen_flags & F_IF));
    idt_set(0x41, trap_entry(0x41), SEL_CODE64, 0, 0, 15);
    __asm__ volatile("sti; int $0x41; cli");
    CHECK(seen_flags & F_IF);
    __asm__ volatile("cli; int $0x41");
    CHECK(!(seen_flags & F_IF));
}

TEST(delivery__ist)
{
    struct cpu *c = cpu_self();
    u64 top = (uptr)c->ist_stack[2] + 4096;

    trap_set_hook(0x41, note_frame);
    idt_set(0x41, trap_entry(0x41), SEL_CODE64, 3, 0, 14);
    __asm__ volatile("int $0x41");
    CHECK_EQ(seen_frame, top);
    /* an IST of no alignment is aligned down */
    c->tss.ist[3] = top - 9;
    __asm__ volatile("int $0x41");
    CHECK_EQ(seen_frame, top - 16);
}

static u64 seen_ss;
static bool note_ss(struct regs *r)
{
    u16 ss;
    (void)r;
    __asm__ volatile("mov %%ss, %0" : "=r"(ss));
    seen_ss = ss;
    return false;
}

TEST(delivery__ring_3_uses_rsp0_and_a_null_ss)
{
    struct trap t;

    seen_ss = 1;
    trap_set_hook(V_BP, note_ss);
    user_call(&t, bp_int3, 0, 0);
    CHECK_EQ(seen_ss, 0);
    trap_set_hook(V_BP, note_frame);
    trap_set_hook(USER_EXIT_VECTOR, NULL);
    user_call(&t, bp_int3, 0, 0);
    CHECK_EQ(seen_frame, cpu_self()->tss.rsp[0]);
}

TEST(ts__ist_beyond_the_tss_limit)
{
    struct trap t;

    idt_set(0x41, trap_entry(0x41), SEL_CODE64, 7, 0, 14);
    gdt_set(SEL_TSS, (u32)(uptr)&cpu_self()->tss, 0x50, 0x89, 0);
    __asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
    TRY (&t)
        __asm__ volatile("int $0x41");
    expect(&t, __LINE__, V_TS, SEL_TSS);
}

static void clear_present(unsigned vector)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) p;

    __asm__ volatile("sidt %0" : "=m"(p));
    ((u8 *)p.base)[vector * 16 + 5] &= 0x7f;
}

TEST_QEMU_DEVIATES(nested__benign_then_contributory, "does not set EXT")
{
    struct trap t;

    /* #UD is benign: the #NP for its gate is delivered, EXT set */
    clear_present(V_UD);
    TRY (&t)
        ud2();
    expect(&t, __LINE__, V_NP, idt_error(V_UD) | 1);
}

TEST(df__contributory_twice)
{
    struct trap t;

    clear_present(V_DE); /* #DE, then #NP */
    TRY (&t)
        div_zero();
    expect(&t, __LINE__, V_DF, 0);
    user_call(&t, div_zero, 0, 0);
    expect(&t, __LINE__, V_DF, 0);
    idt_reset();
    clear_present(V_GP); /* #GP, then #NP */
    TRY (&t)
        nc_load();
    expect(&t, __LINE__, V_DF, 0);
}

TEST(df__page_fault_while_delivering_a_page_fault)
{
    struct trap t;

    cpu_self()->tss.ist[3] = TEST_VA + 0x1000;
    idt_set(V_PF, trap_entry(V_PF), SEL_CODE64, 3, 0, 14);
    TRY (&t)
        (void)*(volatile u8 *)TEST_VA;
    expect(&t, __LINE__, V_DF, 0);
    /* the second fault's address: the push below the IST stack */
    CHECK_EQ(t.cr2, TEST_VA + 0x1000 - 8);
}

TEST(df__page_fault_while_delivering_a_general_protection)
{
    struct trap t;

    /* a page fault after a contributory exception is no double fault: #PF is delivered */
    cpu_self()->tss.ist[3] = TEST_VA + 0x1000;
    idt_set(V_GP, trap_entry(V_GP), SEL_CODE64, 3, 0, 14);
    TRY (&t)
        nc_load();
    expect(&t, __LINE__, V_PF, PF_W);
    CHECK_EQ(t.cr2, TEST_VA + 0x1000 - 8);
}

TEST_QEMU_DEVIATES(rf__set_in_the_image_of_a_fault_only, "never sets RF in the saved flags")
{
    struct trap t;

    TRY (&t)
        ud2();
    CHECK(t.regs.rflags & F_RF);
    TRY (&t)
        div_zero();
    CHECK(t.regs.rflags & F_RF);
    TRY (&t)
        (void)*(volatile u8 *)TEST_VA;
    CHECK(t.regs.rflags & F_RF);
    TRY (&t)
        bp_int3();
    CHECK(!(t.regs.rflags & F_RF));
    TRY (&t)
        icebp();
    CHECK(!(t.regs.rflags & F_RF));
}

TEST(length__fifteen_bytes_and_no_more)
{
    struct trap t;

    memset(code_page, 0x66, sizeof(code_page));
    code_page[14] = 0x90;
    code_page[15] = 0xc3;
    TRY (&t)
        ((void (*)(void))(uptr)code_page)();
    CHECK_EQ(t.vector, V_NONE);
    code_page[14] = 0x66;
    code_page[15] = 0x90;
    code_page[16] = 0xc3;
    TRY (&t)
        ((void (*)(void))(uptr)code_page)();
    expect(&t, __LINE__, V_GP, 0);
    CHECK_EQ(t.regs.rip, (uptr)code_page);
}

/* --- compatibility mode --- */

/* Runs bytes in ring 3 as 32-bit code. */
static void run32(struct trap *t, const void *code, unsigned n, struct regs *r)
{
    struct regs mine;

    if (!r) {
        user_regs(&mine, NULL, 0, 0);
        r = &mine;
    }
    memcpy(scratch, code, n);
    ((u8 *)scratch)[n] = 0xcc;
    r->rip = (uptr)scratch;
    r->cs = SEL_UCODE32;
    run_until_trap(t, r);
}

TEST(compat__into_bound_and_friends)
{
    static const u8 into[] = {0xb0, 0x7f, 0x04, 0x01, 0xce}; /* mov $0x7f,%al; add $1,%al; into */
    static const u8 into_no[] = {0x30, 0xc0, 0xce};          /* xor %al,%al; into */
    static const u8 bound[] = {0x62, 0x04, 0x24};            /* bound %eax,(%esp) */
    static const u8 pusha[] = {0x60, 0x61};                  /* pusha; popa */
    static const u8 inc[] = {0x40, 0x40};                    /* inc %eax twice */
    static const u8 aam0[] = {0xd4, 0x00};                   /* aam $0 */
    static const u8 syscall_ud[] = {0x0f, 0x01, 0xf8};       /* swapgs */
    struct trap t;
    struct regs r;

    run32(&t, into, sizeof(into), NULL);
    expect(&t, __LINE__, V_OF, 0);
    CHECK_EQ(t.regs.rip, (uptr)scratch + 5);
    run32(&t, into_no, sizeof(into_no), NULL);
    expect(&t, __LINE__, V_BP, 0);
    user_regs(&r, NULL, 0, 0);
    ((s64 *)r.rsp)[0] = 5LL << 32 | 2; /* bounds 2 and 5 */
    r.rax = 6;
    run32(&t, bound, sizeof(bound), &r);
    expect(&t, __LINE__, V_BR, 0);
    CHECK_EQ(t.regs.rip, (uptr)scratch);
    r.rax = 5;
    run32(&t, bound, sizeof(bound), &r);
    expect(&t, __LINE__, V_BP, 0);
    r.rax = 1;
    run32(&t, bound, sizeof(bound), &r);
    expect(&t, __LINE__, V_BR, 0);
    run32(&t, pusha, sizeof(pusha), NULL);
    expect(&t, __LINE__, V_BP, 0);
    user_regs(&r, NULL, 0, 0);
    run32(&t, inc, sizeof(inc), &r);
    CHECK_EQ(t.regs.rax, 2);
    run32(&t, aam0, sizeof(aam0), NULL);
    expect(&t, __LINE__, V_DE, 0);
    run32(&t, syscall_ud, sizeof(syscall_ud), NULL);
    expect(&t, __LINE__, V_UD, 0);
}

TEST_QEMU_DEVIATES(compat__segment_limits_and_bases_count, "checks no segment limits")
{
    static const u8 load[] = {0x8e, 0xd9, 0xa1, 0x04,
                              0x00, 0x00, 0x00}; /* mov %ecx,%ds; mov 4,%eax */
    struct trap t;
    struct regs r;

    gdt_set(SEL_SPARE, (u32)(uptr)user_stack[0], 7, 0xf3, 4);
    ((u32 *)user_stack[0])[1] = 0xfeedbeef;
    user_regs(&r, NULL, 0, 0);
    r.rcx = SEL_SPARE | 3;
    run32(&t, load, sizeof(load), &r);
    expect(&t, __LINE__, V_BP, 0);
    CHECK_EQ(t.regs.rax, 0xfeedbeef);
    __asm__ volatile("mov %0, %%ds" ::"r"(SEL_DATA));
    gdt_set(SEL_SPARE, (u32)(uptr)user_stack[0], 6, 0xf3, 4);
    run32(&t, load, sizeof(load), &r);
    expect(&t, __LINE__, V_GP, 0);
    CHECK_EQ(t.regs.rip, (uptr)scratch + 2);
    __asm__ volatile("mov %0, %%ds" ::"r"(SEL_DATA));
}
