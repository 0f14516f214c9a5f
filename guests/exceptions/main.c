// SPDX-License-Identifier: Apache-2.0
/* Every exception a program can cause in 64-bit mode, in ring 0 and in ring 3: vector, error code,
 * saved RIP and delivery (SDM 3A chapter 6). */
#include "exceptions.h"

u64 fault_at USER_DATA; /* address of the instruction that is to fault, or of the one after */
u64 scratch[4] USER_DATA ALIGNED(64);

void expect(const struct trap *t, int line, unsigned vector, u64 error)
{
    if (t->vector != vector)
        test_failed(line, "vector: got %x, want %x (error %llx rip %llx)", t->vector, vector,
                    (unsigned long long)t->error, (unsigned long long)t->regs.rip);
    else if (t->error != error)
        test_failed(line, "error code: got %llx, want %llx", (unsigned long long)t->error,
                    (unsigned long long)error);
}

static void both_rings(int line, void (*fn)(void), unsigned vector, u64 error)
{
    struct trap t;

    fault_at = 0;
    TRY (&t)
        fn();
    expect(&t, line, vector, error);
    if (t.vector == vector && t.regs.rip != fault_at)
        test_failed(line, "ring 0 rip: got %llx, want %llx", (unsigned long long)t.regs.rip,
                    (unsigned long long)fault_at);
    fault_at = 0;
    user_call(&t, fn, 0, 0);
    expect(&t, line, vector, error);
    if (t.vector == vector && t.regs.rip != fault_at)
        test_failed(line, "ring 3 rip: got %llx, want %llx", (unsigned long long)t.regs.rip,
                    (unsigned long long)fault_at);
    if (t.regs.cs != SEL_UCODE64 || t.regs.ss != SEL_UDATA)
        test_failed(line, "ring 3 cs:ss %llx:%llx", (unsigned long long)t.regs.cs,
                    (unsigned long long)t.regs.ss);
}
#define BOTH(fn, vector, error) both_rings(__LINE__, fn, vector, error)

static void ring3_only(int line, void (*fn)(void), unsigned vector, u64 error)
{
    struct trap t;

    user_call(&t, fn, 0, 0);
    expect(&t, line, vector, error);
    if (t.vector == vector && t.regs.rip != fault_at)
        test_failed(line, "rip: got %llx, want %llx", (unsigned long long)t.regs.rip,
                    (unsigned long long)fault_at);
}
#define RING3(fn, vector, error) ring3_only(__LINE__, fn, vector, error)

SNIPPET(div_zero, "xor %%ecx, %%ecx; xor %%edx, %%edx; 771: div %%ecx")
SNIPPET(div_overflow, "mov $1, %%edx; mov $1, %%ecx; 771: div %%ecx")
SNIPPET(idiv_min, "mov $0x80000000, %%eax; cltd; mov $-1, %%ecx; 771: idiv %%ecx")
SNIPPET(idiv64_min, "mov $1, %%eax; shl $63, %%rax; cqto; mov $-1, %%rcx; 771: idiv %%rcx")
SNIPPET(div8_overflow, "mov $0x1000, %%eax; mov $0x10, %%ecx; 771: div %%cl")

TEST(de__divide_by_zero_and_overflow)
{
    BOTH(div_zero, V_DE, 0);
    BOTH(div_overflow, V_DE, 0);
    BOTH(idiv_min, V_DE, 0);
    BOTH(idiv64_min, V_DE, 0);
    BOTH(div8_overflow, V_DE, 0);
}

TEST(de__leaves_registers_alone)
{
    struct trap t;
    struct regs r;

    user_regs(&r, (void *)(uptr)&scratch, 0, 0);
    ((u8 *)scratch)[0] = 0x48; /* div %rcx */
    ((u8 *)scratch)[1] = 0xf7;
    ((u8 *)scratch)[2] = 0xf1;
    r.rax = 0x1122334455667788;
    r.rdx = 0x99;
    r.rcx = 0x98;
    r.rflags = 0x8d7 & ~F_TF;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_DE);
    CHECK_EQ(t.regs.rax, r.rax);
    CHECK_EQ(t.regs.rdx, r.rdx);
    CHECK_EQ(t.regs.rcx, r.rcx);
    CHECK_EQ(t.regs.rsp, r.rsp);
}

SNIPPET(bp_int3, "int3; 771: nop")
SNIPPET(bp_cd03, ".byte 0xcd, 3; 771: nop")
SNIPPET(of_cd04, ".byte 0xcd, 4; 771: nop")

TEST(bp__and_of_are_traps)
{
    BOTH(bp_int3, V_BP, 0);
    BOTH(bp_cd03, V_BP, 0);
    BOTH(of_cd04, V_OF, 0);
}

SNIPPET(icebp, ".byte 0xf1; 771: nop")

TEST_QEMU_DEVIATES(db__icebp_is_a_trap, "raises #UD on opcode F1")
{
    BOTH(icebp, V_DB, 0);
}

SNIPPET(ud2, "771: ud2")
SNIPPET(ud_push_es, "771: .byte 0x06")
SNIPPET(ud_into, "771: .byte 0xce")
SNIPPET(ud_daa, "771: .byte 0x27")
SNIPPET(ud_pusha, "771: .byte 0x60")
SNIPPET(ud_ljmp_imm, "771: .byte 0xea, 0, 0, 0, 0, 0, 0")
SNIPPET(ud_lock_reg, "771: .byte 0xf0, 0x01, 0xc8")
SNIPPET(ud_lock_mov, "771: .byte 0xf0, 0x89, 0x00")
SNIPPET(ud_lock_nop, "771: .byte 0xf0, 0x90")
SNIPPET(ud_lea_reg, "771: .byte 0x8d, 0xc0")
SNIPPET(ud_mov_cs, "771: .byte 0x8e, 0xc8")
SNIPPET(ud_group4, "771: .byte 0xfe, 0xf8")
SNIPPET(ud_group5, "771: .byte 0xff, 0xf8")
SNIPPET(ud_0f04, "771: .byte 0x0f, 0x04")
SNIPPET(ud_bt_group, "771: .byte 0x0f, 0xba, 0xc0, 0")
SNIPPET(ud_cmpxchg8b_reg, "771: .byte 0x0f, 0xc7, 0xc8")

TEST(ud__invalid_opcodes)
{
    BOTH(ud2, V_UD, 0);
    BOTH(ud_push_es, V_UD, 0);
    BOTH(ud_into, V_UD, 0);
    BOTH(ud_daa, V_UD, 0);
    BOTH(ud_pusha, V_UD, 0);
    BOTH(ud_ljmp_imm, V_UD, 0);
    BOTH(ud_lea_reg, V_UD, 0);
    BOTH(ud_mov_cs, V_UD, 0);
    BOTH(ud_group4, V_UD, 0);
    BOTH(ud_group5, V_UD, 0);
    BOTH(ud_0f04, V_UD, 0);
    BOTH(ud_bt_group, V_UD, 0);
    BOTH(ud_cmpxchg8b_reg, V_UD, 0);
}

TEST_QEMU_DEVIATES(ud__lock_where_it_may_not_be, "runs LOCK MOV")
{
    BOTH(ud_lock_reg, V_UD, 0);
    BOTH(ud_lock_mov, V_UD, 0);
    BOTH(ud_lock_nop, V_UD, 0);
}

SNIPPET(fp_insn, "771: fnop")
SNIPPET(sse_insn, "771: xorps %%xmm0, %%xmm0")
SNIPPET(fwait_insn, "771: fwait")

TEST(nm__ts_em_mp)
{
    u32 cr0 = (u32)READ_CR(0);

    WRITE_CR(0, cr0 | CR0_TS);
    BOTH(fp_insn, V_NM, 0);
    BOTH(sse_insn, V_NM, 0);
    BOTH(fwait_insn, V_NM, 0); /* MP is set */
    WRITE_CR(0, (cr0 | CR0_TS) & ~CR0_MP);
    user_call(&(struct trap){0}, fwait_insn, 0, 0);
    {
        struct trap t;
        user_call(&t, fwait_insn, 0, 0);
        expect(&t, __LINE__, USER_EXIT_VECTOR, 0);
    }
    WRITE_CR(0, cr0 | CR0_EM);
    BOTH(fp_insn, V_NM, 0);
    BOTH(sse_insn, V_UD, 0);
    WRITE_CR(0, cr0);
}

SNIPPET(nc_load, "mov $1, %%eax; shl $62, %%rax; 771: mov (%%rax), %%ecx")
SNIPPET(nc_store, "mov $1, %%eax; shl $47, %%rax; 771: mov %%ecx, (%%rax)")
SNIPPET(nc_index,
        "mov $1, %%eax; shl $60, %%rax; xor %%ecx, %%ecx; 771: mov (%%rcx,%%rax,8), %%edx")
SNIPPET(nc_last_byte, "mov $1, %%eax; shl $47, %%rax; 771: mov -1(%%rax), %%cx")

USER_TEXT static void nc_rbp(void)
{
    __asm__ volatile(NOTE
                     "push %%rbp; mov $1, %%ebp; shl $62, %%rbp; 771: mov (%%rbp), %%ecx; pop %%rbp"
                     : NOTED::"rax", "rcx", "memory");
}
USER_TEXT static void nc_push(void)
{
    __asm__ volatile(NOTE "mov %%rsp, %%rcx; mov $1, %%esp; shl $62, %%rsp; 771: push %%rax; "
                          "mov %%rcx, %%rsp"
                     : NOTED::"rax", "rcx", "memory");
}

TEST(gp__non_canonical_address)
{
    BOTH(nc_load, V_GP, 0);
    BOTH(nc_store, V_GP, 0);
    BOTH(nc_index, V_GP, 0);
}

TEST_QEMU_DEVIATES(ss__non_canonical_stack_address, "raises #GP instead of #SS")
{
    BOTH(nc_rbp, V_SS, 0);
    RING3(nc_push, V_SS, 0); /* in ring 0 there would be no stack to deliver on */
}

TEST_QEMU_DEVIATES(gp__access_across_the_canonical_border,
                   "checks only the first byte's address, so #PF instead of #GP")
{
    BOTH(nc_last_byte, V_GP, 0);
}

SNIPPET(p_hlt, "771: hlt")
SNIPPET(p_cli, "771: cli")
SNIPPET(p_sti, "771: sti")
SNIPPET(p_mov_from_cr, "771: mov %%cr0, %%rax")
SNIPPET(p_mov_to_cr, "mov $0x80010033, %%eax; 771: mov %%rax, %%cr0")
SNIPPET(p_mov_cr8, "771: mov %%cr8, %%rax")
SNIPPET(p_mov_dr, "771: mov %%dr7, %%rax")
SNIPPET(p_lgdt, "771: lgdt (%%rsp)")
SNIPPET(p_lidt, "771: lidt (%%rsp)")
SNIPPET(p_lldt, "771: lldt %%ax")
SNIPPET(p_ltr, "771: ltr %%ax")
SNIPPET(p_lmsw, "771: lmsw %%ax")
SNIPPET(p_clts, "771: clts")
SNIPPET(p_invlpg, "771: invlpg (%%rsp)")
SNIPPET(p_invd, "771: invd")
SNIPPET(p_wbinvd, "771: wbinvd")
SNIPPET(p_rdmsr, "mov $0xc0000080, %%ecx; 771: rdmsr")
SNIPPET(p_wrmsr, "mov $0xc0000080, %%ecx; mov $0x901, %%eax; xor %%edx, %%edx; 771: wrmsr")
SNIPPET(p_swapgs, "771: swapgs")
SNIPPET(p_sysret, "771: sysretq")
SNIPPET(p_in, "771: in $0x80, %%al")
SNIPPET(p_out, "771: out %%al, $0x80")

TEST(gp__privileged_instructions_in_ring_3)
{
    RING3(p_hlt, V_GP, 0);
    RING3(p_cli, V_GP, 0);
    RING3(p_sti, V_GP, 0);
    RING3(p_mov_from_cr, V_GP, 0);
    RING3(p_mov_to_cr, V_GP, 0);
    RING3(p_mov_cr8, V_GP, 0);
    RING3(p_mov_dr, V_GP, 0);
    RING3(p_lgdt, V_GP, 0);
    RING3(p_lidt, V_GP, 0);
    RING3(p_lldt, V_GP, 0);
    RING3(p_ltr, V_GP, 0);
    RING3(p_lmsw, V_GP, 0);
    RING3(p_clts, V_GP, 0);
    RING3(p_invlpg, V_GP, 0);
    RING3(p_invd, V_GP, 0);
    RING3(p_wbinvd, V_GP, 0);
    RING3(p_rdmsr, V_GP, 0);
    RING3(p_wrmsr, V_GP, 0);
    RING3(p_swapgs, V_GP, 0);
    RING3(p_sysret, V_GP, 0);
    RING3(p_in, V_GP, 0);
    RING3(p_out, V_GP, 0);
}

USER_TEXT static void rdtsc_snippet(void)
{
    __asm__ volatile(NOTE "771: rdtsc" : NOTED::"rax", "rdx");
}
USER_TEXT static void smsw_snippet(void)
{
    __asm__ volatile(NOTE "771: smsw %%eax" : NOTED::"rax");
}
USER_TEXT static void sgdt_snippet(void)
{
    __asm__ volatile(NOTE "771: sgdt -32(%%rsp)" : NOTED::"rax", "memory");
}
USER_TEXT static void str_snippet(void)
{
    __asm__ volatile(NOTE "771: str %%eax" : NOTED::"rax");
}

TEST(gp__cr4_tsd_and_umip)
{
    struct trap t;

    user_call(&t, rdtsc_snippet, 0, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    WRITE_CR(4, READ_CR(4) | CR4_TSD);
    RING3(rdtsc_snippet, V_GP, 0);
    TRY (&t)
        rdtsc_snippet();
    CHECK_EQ(t.vector, V_NONE);
    WRITE_CR(4, READ_CR(4) & ~CR4_TSD);

    user_call(&t, smsw_snippet, 0, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    if (cpu_has(7, 0, 2, 2)) {
        WRITE_CR(4, READ_CR(4) | CR4_UMIP);
        RING3(smsw_snippet, V_GP, 0);
        RING3(sgdt_snippet, V_GP, 0);
        RING3(str_snippet, V_GP, 0);
        TRY (&t)
            smsw_snippet();
        CHECK_EQ(t.vector, V_NONE);
    }
}

/* The error code that names an IDT gate (SDM 3A 6.13): index times 8, whatever the gate's size.
 * QEMU multiplies by 16 in 64-bit mode; one test tells, the others allow for it. */
u64 idt_error(unsigned vector)
{
    return (u64)vector * (on_qemu_tcg() ? 16 : 8) + 2;
}

SNIPPET(int_41, "771: int $0x41")
SNIPPET(int_ff, "771: int $0xff")

TEST(gp__gate_with_dpl_0_from_ring_3)
{
    struct trap t;

    RING3(int_41, V_GP, idt_error(0x41));
    TRY (&t)
        int_41();
    CHECK_EQ(t.vector, 0x41);
}

TEST_QEMU_DEVIATES(gp__idt_error_code_is_vector_times_8, "multiplies by 16")
{
    RING3(int_41, V_GP, 0x41 * 8 + 2);
}

TEST(gp__vector_beyond_the_idt_limit)
{
    idt_limit(0xff * 16 - 1);
    BOTH(int_ff, V_GP, idt_error(0xff));
    idt_reset();
}

TEST(np__gate_not_present)
{
    idt_set(0x41, 0, SEL_CODE64, 0, 3, 14);
    /* clear P: type 14 without bit 7 */
    idt_set(0x41, trap_entry(0x41), SEL_CODE64, 0, 3, 14);
    {
        struct {
            u16 limit;
            u64 base;
        } __attribute__((packed)) p;
        __asm__ volatile("sidt %0" : "=m"(p));
        ((u8 *)p.base)[0x41 * 16 + 5] &= 0x7f;
    }
    BOTH(int_41, V_NP, idt_error(0x41));
}

TEST(gp__bad_gate_type_and_selector)
{
    struct trap t;

    idt_set(0x41, trap_entry(0x41), SEL_CODE64, 0, 3, 2); /* no gate type */
    BOTH(int_41, V_GP, idt_error(0x41));
    idt_set(0x41, trap_entry(0x41), 0, 0, 3, 14); /* null selector */
    BOTH(int_41, V_GP, 0);
    idt_set(0x41, trap_entry(0x41), SEL_DATA, 0, 3, 14); /* not code */
    BOTH(int_41, V_GP, SEL_DATA);
    idt_set(0x41, trap_entry(0x41), SEL_CODE32, 0, 3, 14); /* not 64-bit code */
    BOTH(int_41, V_GP, SEL_CODE32);
    idt_set(0x41, trap_entry(0x41), 0x7f8, 0, 3, 14); /* beyond the GDT */
    BOTH(int_41, V_GP, 0x7f8);
    gdt_set(SEL_SPARE, 0, 0xfffff, 0x1b, 0xa); /* code, not present */
    idt_set(0x41, trap_entry(0x41), SEL_SPARE, 0, 3, 14);
    BOTH(int_41, V_NP, SEL_SPARE);
    gdt_set(SEL_SPARE, 0, 0xfffff, 0xfb,
            0xa); /* code, DPL 3: from ring 0 that would lower privilege */
    TRY (&t)
        int_41();
    expect(&t, __LINE__, V_GP, SEL_SPARE);
}

TEST(segments__bad_selectors)
{
    struct trap t;

    gdt_set(SEL_SPARE, 0, 0xfffff, 0x13, 0xc);      /* data, not present */
    gdt_set(SEL_SPARE + 8, 0, 0xfffff, 0x99, 0xa);  /* execute-only code */
    gdt_set(SEL_SPARE + 16, 0, 0xfffff, 0x91, 0xc); /* read-only data */
    gdt_set(SEL_SPARE + 24, 0, 0xfffff, 0x92, 0xc); /* data, not yet accessed */
    TRY (&t)
        __asm__ volatile("mov %0, %%ds" ::"r"(SEL_SPARE));
    expect(&t, __LINE__, V_NP, SEL_SPARE);
    TRY (&t)
        __asm__ volatile("mov %0, %%ss" ::"r"(SEL_SPARE));
    expect(&t, __LINE__, V_SS, SEL_SPARE);
    TRY (&t)
        __asm__ volatile("mov %0, %%es" ::"r"(SEL_SPARE + 8));
    expect(&t, __LINE__, V_GP, SEL_SPARE + 8);
    TRY (&t)
        __asm__ volatile("mov %0, %%ss" ::"r"(SEL_SPARE + 16));
    expect(&t, __LINE__, V_GP, SEL_SPARE + 16);
    TRY (&t)
        __asm__ volatile("mov %0, %%ds" ::"r"(0x7f8));
    expect(&t, __LINE__, V_GP, 0x7f8);
    TRY (&t)
        __asm__ volatile("mov %0, %%ds" ::"r"(SEL_TSS)); /* a system descriptor */
    expect(&t, __LINE__, V_GP, SEL_TSS);
    TRY (&t)
        __asm__ volatile("mov %0, %%ss" ::"r"(SEL_UDATA)); /* DPL 3 in ring 0 */
    expect(&t, __LINE__, V_GP, SEL_UDATA & ~3U);
    TRY (&t)
        __asm__ volatile("mov %0, %%fs" ::"r"(0x44)); /* TI: there is no LDT */
    expect(&t, __LINE__, V_GP, 0x44);
    TRY (&t)
        __asm__ volatile("mov %0, %%ds" ::"r"(SEL_SPARE + 24));
    expect(&t, __LINE__, V_NONE, 0);
    CHECK_EQ(gdt[(SEL_SPARE + 24) / 8] >> 40 & 0xff, 0x93); /* the accessed bit was set */
    TRY (&t)
        __asm__ volatile("mov %0, %%ss" ::"r"(0)); /* null SS is fine in ring 0 of 64-bit mode */
    expect(&t, __LINE__, V_NONE, 0);
    __asm__ volatile("mov %0, %%ss" ::"r"(SEL_DATA));
}

static u8 code_page[64] ALIGNED(64);

SNIPPET(null_ss, "xor %%ecx, %%ecx; 771: mov %%ecx, %%ss")

TEST(segments__null_ss_in_ring_3)
{
    RING3(null_ss, V_GP, 0);
}

TEST(segments__far_transfers)
{
    struct trap t;
    struct {
        u32 off;
        u16 sel;
    } __attribute__((packed)) far;

    gdt_set(SEL_SPARE, 0, 0xfffff, 0x1b, 0xa);
    code_page[0] = 0xcc;
    far.off = (u32)(uptr)code_page; /* INT3, should one get there */
    far.sel = SEL_SPARE;
    TRY (&t)
        __asm__ volatile("ljmp *%0" ::"m"(far));
    expect(&t, __LINE__, V_NP, SEL_SPARE);
    far.sel = SEL_DATA;
    TRY (&t)
        __asm__ volatile("lcall *%0" ::"m"(far));
    expect(&t, __LINE__, V_GP, SEL_DATA);
    far.sel = 0;
    TRY (&t)
        __asm__ volatile("ljmp *%0" ::"m"(far));
    expect(&t, __LINE__, V_GP, 0);
    far.sel = SEL_UCODE64; /* non-conforming, DPL 3, from ring 0 */
    TRY (&t)
        __asm__ volatile("ljmp *%0" ::"m"(far));
    expect(&t, __LINE__, V_GP, SEL_UCODE64 & ~3U);
    TRY (&t)
        __asm__ volatile("pushq %0; pushq $0; lretq" ::"i"(SEL_DATA));
    expect(&t, __LINE__, V_GP, SEL_DATA);
}

TEST_QEMU_DEVIATES(segments__code_with_l_and_d, "does not check L and D together")
{
    struct trap t;
    struct {
        u32 off;
        u16 sel;
    } __attribute__((packed)) far;

    gdt_set(SEL_SPARE + 8, 0, 0xfffff, 0x9b, 0xe);
    code_page[0] = 0xcc;
    far.off = (u32)(uptr)code_page; /* INT3, should one get there */
    far.sel = SEL_SPARE + 8;
    TRY (&t)
        __asm__ volatile("ljmp *%0" ::"m"(far));
    expect(&t, __LINE__, V_GP, SEL_SPARE + 8);
}

TEST(iret__checks)
{
    struct trap t;
    struct regs r;

    user_regs(&r, bp_int3, 0, 0);
    r.cs = SEL_UDATA; /* data as code */
    run_until_trap(&t, &r);
    expect(&t, __LINE__, V_GP, SEL_UDATA & ~3U);
    CHECK_EQ(t.regs.cs, SEL_CODE64);

    user_regs(&r, bp_int3, 0, 0);
    r.ss = SEL_DATA | 3; /* DPL 0 in ring 3 */
    run_until_trap(&t, &r);
    expect(&t, __LINE__, V_GP, SEL_DATA);

    user_regs(&r, bp_int3, 0, 0);
    r.ss = 0;
    run_until_trap(&t, &r);
    expect(&t, __LINE__, V_GP, 0);

    user_regs(&r, bp_int3, 0, 0);
    r.cs = 0;
    run_until_trap(&t, &r);
    expect(&t, __LINE__, V_GP, 0);

    TRY (&t)
        __asm__ volatile("pushfq; orl $0x4000, (%%rsp); popfq; iretq" ::: "memory", "cc"); /* NT */
    expect(&t, __LINE__, V_GP, 0);
}

TEST(iret__to_a_non_canonical_address)
{
    struct trap t;
    struct regs r;

    user_regs(&r, bp_int3, 0, 0);
    r.rip = 1ULL << 47;
    run_until_trap(&t, &r);
    expect(&t, __LINE__, V_GP, 0);
}

TEST(iret__restores_flags_by_privilege)
{
    struct trap t;
    struct regs r;

    user_regs(&r, (void *)&scratch, 0, 0);
    *(u8 *)scratch = 0xcc;
    r.rflags = 0x8d7 & ~F_TF;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.rflags & 0xeff, 0x8d7);
    /* ring 3's IRET leaves IF and IOPL as they are, POPF too */
    ((u8 *)scratch)[0] = 0x9d; /* popf */
    ((u8 *)scratch)[1] = 0xcc;
    user_regs(&r, (void *)&scratch, 0, 0);
    *(u64 *)r.rsp = F_IF | F_IOPL | F_CF | F_AC;
    r.rflags = 2;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.rflags & (F_IF | F_IOPL | F_CF | F_AC), F_CF | F_AC);
}

SNIPPET(ac_load, "mov %%rsp, %%rcx; pushfq; orl $0x40000, (%%rsp); popfq; 771: mov 1(%%rcx), %%edx")
SNIPPET(ac_byte, "mov %%rsp, %%rcx; pushfq; orl $0x40000, (%%rsp); popfq; 771: mov 1(%%rcx), %%dl; "
                 "pushfq; andl $~0x40000, (%%rsp); popfq")

TEST_QEMU_DEVIATES(ac__misaligned_in_ring_3_only, "has no alignment checking")
{
    struct trap t;

    WRITE_CR(0, READ_CR(0) | CR0_AM);
    RING3(ac_load, V_AC, 0);
    user_call(&t, ac_byte, 0, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    TRY (&t)
        ac_load();
    CHECK_EQ(t.vector, V_NONE);
    WRITE_CR(0, READ_CR(0) & ~CR0_AM);
    user_call(&t, ac_load, 0, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
}

/* The exception is raised by the FWAIT, not by the division. */
SNIPPET(mf_fwait, "fninit; pushq $0x33b; fldcw (%%rsp); pop %%rcx; fld1; pushq $0; fdivs (%%rsp); "
                  "pop %%rcx; 771: fwait")
SNIPPET(mf_next, "fninit; pushq $0x33b; fldcw (%%rsp); pop %%rcx; fld1; pushq $0; fdivs (%%rsp); "
                 "pop %%rcx; nop; 771: fld1")
SNIPPET(mf_none, "fninit; pushq $0x33b; fldcw (%%rsp); pop %%rcx; fld1; pushq $0; fdivs (%%rsp); "
                 "pop %%rcx; 771: fnclex; fld1; fninit")

TEST(mf__comes_with_fwait)
{
    struct trap t;

    BOTH(mf_fwait, V_MF, 0);
    user_call(&t, mf_none, 0, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    __asm__ volatile("fninit");
}

SNIPPET(xm_div, "pushq $0x1d80; ldmxcsr (%%rsp); pop %%rcx; mov $1, %%ecx; cvtsi2ss %%ecx, %%xmm0; "
                "xorps %%xmm1, %%xmm1; 771: divss %%xmm1, %%xmm0")

TEST_QEMU_DEVIATES(mf__comes_with_any_waiting_instruction, "looks for it in FWAIT only")
{
    BOTH(mf_next, V_MF, 0);
    __asm__ volatile("fninit");
}

TEST_QEMU_DEVIATES(xm__unmasked_sse_exception, "raises no SIMD exceptions")
{
    u32 mxcsr = 0x1f80;

    BOTH(xm_div, V_XM, 0);
    WRITE_CR(4, READ_CR(4) & ~CR4_OSXMMEXCPT);
    BOTH(xm_div, V_UD, 0); /* SDM 3A 2.5, CR4.OSXMMEXCPT */
    __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
}

TEST(pf__error_code_and_cr2)
{
    volatile u32 *p = (volatile u32 *)TEST_VA;
    struct trap t;

    TRY (&t)
        (void)p[4];
    expect(&t, __LINE__, V_PF, 0);
    CHECK_EQ(t.cr2, TEST_VA + 16);
    TRY (&t)
        p[5] = 1;
    expect(&t, __LINE__, V_PF, PF_W);
    CHECK_EQ(t.cr2, TEST_VA + 20);
    TRY (&t)
        ((void (*)(void))TEST_VA)();
    expect(&t, __LINE__, V_PF, PF_I);
    CHECK_EQ(t.cr2, TEST_VA);
    CHECK_EQ(t.regs.rip, TEST_VA);
}
