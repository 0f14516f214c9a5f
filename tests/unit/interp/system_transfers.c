/* SPDX-License-Identifier: Apache-2.0 */
/* Segment loads, far transfers, gates, task switches, SYSCALL and its kin. */
#include "interp/system_machine.h"

/* --- segments */

static void segments__load_sets_hidden_part_and_accessed(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    put64(m, GDT + SEL_FREE, desc(0x12345678, 0x10, 0x8092));
    m->s.gpr[X86_RAX] = SEL_FREE;
    assert_int_equal(RUN(m, 0x8e, 0xd8), INTERP_OK); /* mov ds, eax */
    assert_int_equal(m->s.seg[X86_DS].base, 0x12345678);
    assert_int_equal(m->s.seg[X86_DS].limit, 0x10fff);
    assert_int_equal(m->s.seg[X86_DS].attr, 0x8093);
    assert_int_equal(m->ram[GDT + SEL_FREE + 5], 0x93);
    machine_free(m);
}

static void segments__faults(void **state)
{
    static const struct {
        u8 modrm;
        u16 sel;
        u64 desc;
        u32 vector, error;
    } c[] = {
        {0xd8, SEL_FREE, 0, X86_GP, SEL_FREE},                           /* system type 0 */
        {0xd8, 0x1000, 0, X86_GP, 0x1000},                               /* beyond the GDT */
        {0xd8, 0x0c, 0, X86_GP, 0x0c},                                   /* no LDT */
        {0xd8, SEL_FREE, 0x0000120000000000ull, X86_NP, SEL_FREE},       /* not present */
        {0xd8, SEL_FREE | 3, 0x0000920000000000ull, X86_GP, SEL_FREE},   /* RPL > DPL */
        {0xd8, SEL_FREE, 0x0000980000000000ull, X86_GP, SEL_FREE},       /* execute only */
        {0xd0, 0, 0, X86_GP, 0},                                         /* null SS */
        {0xd0, SEL_CODE0, 0, X86_GP, SEL_CODE0},                         /* SS: code */
        {0xd0, SEL_FREE, 0x0000120000000000ull, X86_SS_FAULT, SEL_FREE}, /* SS: not present */
        {0xd0, SEL_FREE, 0x0000900000000000ull, X86_GP, SEL_FREE},       /* SS: read only */
        {0xd0, SEL_FREE | 3, 0x0000f20000000000ull, X86_GP, SEL_FREE},   /* SS: RPL != CPL */
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        struct machine *m = machine_prot32();
        put64(m, GDT + SEL_FREE, c[i].desc);
        m->s.gpr[X86_RAX] = c[i].sel;
        assert_int_equal(RUN(m, 0x8e, c[i].modrm), INTERP_OK);
        assert_vector(m, c[i].vector);
        assert_int_equal(get32(m, m->s.gpr[X86_RSP]), c[i].error);
        assert_int_equal(get32(m, m->s.gpr[X86_RSP] + 4), CODE);
        machine_free(m);
    }
}

static void segments__null_ss_in_long_mode(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.gpr[X86_RAX] = 0;
    assert_int_equal(RUN(m, 0x8e, 0xd0), INTERP_OK);
    assert_int_equal(m->s.rip, CODE + 2);
    assert_int_equal(m->s.seg[X86_SS].sel, 0);
    assert_int_equal(m->s.int_shadow, 2);
    machine_free(m);
}

static void segments__unreal_mode_keeps_limit(void **state)
{
    struct machine *m = machine_real();
    (void)state;
    m->s.seg[X86_DS].limit = 0xffffffff;
    m->s.gpr[X86_RAX] = 0x1234;
    assert_int_equal(RUN(m, 0x8e, 0xd8), INTERP_OK);
    assert_int_equal(m->s.seg[X86_DS].base, 0x12340);
    assert_int_equal(m->s.seg[X86_DS].limit, 0xffffffff);
    machine_free(m);
}

static void segments__lss_loads_pointer(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    put32(m, DATA, 0x44444);
    put16(m, DATA + 4, SEL_DATA0);
    m->s.gpr[X86_RBX] = DATA;
    assert_int_equal(RUN(m, 0x0f, 0xb2, 0x23), INTERP_OK); /* lss esp, [ebx] */
    assert_int_equal(m->s.gpr[X86_RSP], 0x44444);
    machine_free(m);
}

static void segments__lar_lsl_verr(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    machine_ring3(m);
    m->s.gpr[X86_RAX] = SEL_CODE0; /* DPL 0: not visible from ring 3 */
    m->s.gpr[X86_RBX] = 7;
    m->s.rflags |= RFLAGS_ZF;
    assert_int_equal(RUN(m, 0x0f, 0x02, 0xd8), INTERP_OK); /* lar ebx, eax */
    assert_false(m->s.rflags & RFLAGS_ZF);
    assert_int_equal(m->s.gpr[X86_RBX], 7);
    m->s.gpr[X86_RAX] = SEL_DATA3;
    assert_int_equal(RUN(m, 0x0f, 0x02, 0xd8), INTERP_OK);
    assert_true(m->s.rflags & RFLAGS_ZF);
    assert_int_equal(m->s.gpr[X86_RBX], 0xcff300);
    assert_int_equal(RUN(m, 0x0f, 0x03, 0xd8), INTERP_OK); /* lsl */
    assert_int_equal(m->s.gpr[X86_RBX], 0xffffffff);
    assert_int_equal(RUN(m, 0x0f, 0x00, 0xe8), INTERP_OK); /* verw ax */
    assert_true(m->s.rflags & RFLAGS_ZF);
    m->s.gpr[X86_RAX] = SEL_CODE3;
    assert_int_equal(RUN(m, 0x0f, 0x00, 0xe8), INTERP_OK);
    assert_false(m->s.rflags & RFLAGS_ZF);
    machine_free(m);
}

static void segments__ltr_marks_busy_and_refuses_busy(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.gpr[X86_RAX] = SEL_TSS;
    assert_int_equal(RUN(m, 0x0f, 0x00, 0xd8), INTERP_OK);
    assert_int_equal(m->s.rip, CODE + 3);
    assert_int_equal(m->ram[GDT + SEL_TSS + 5], 0x8b);
    assert_int_equal(m->s.tr.attr, 0x8b);
    assert_int_equal(m->s.tr.base, TSS);
    assert_int_equal(RUN(m, 0x0f, 0x00, 0xd8), INTERP_OK);
    assert_vector(m, X86_GP);
    assert_int_equal(get64(m, m->s.gpr[X86_RSP]), SEL_TSS);
    machine_free(m);
}

/* --- far */

static void far__real_to_protected_to_long(void **state)
{
    struct machine *m = machine_long();
    struct x86_vcpu_state l = m->s;
    (void)state;
    /* The way an SMP trampoline goes: lgdt, PE, far jump, PAE, CR3, LME, PG, far jump. */
    x86_state_reset(&m->s, 0, 0);
    m->s.seg[X86_CS].base = CODE;
    m->s.seg[X86_CS].sel = CODE >> 4;
    m->s.seg[X86_DS].base = DATA;
    m->s.rip = 0;
    put16(m, DATA, 0xff);
    put32(m, DATA + 2, GDT);
    assert_int_equal(RUN(m, 0x0f, 0x01, 0x16, 0, 0), INTERP_OK); /* lgdt [0] */
    assert_int_equal(m->s.gdtr.base, GDT);
    m->s.gpr[X86_RAX] = 1;
    assert_int_equal(RUN(m, 0x0f, 0x01, 0xf0), INTERP_OK); /* lmsw ax */
    assert_true(m->s.cr0 & CR0_PE);
    put64(m, GDT + SEL_FREE, desc(0, 0xfffff, 0xc09a));
    assert_int_equal(RUN(m, 0x66, 0xea, 0, 1, 2, 0, SEL_FREE, 0), INTERP_OK);
    assert_int_equal(m->s.rip, CODE + 0x100);
    assert_int_equal(m->s.seg[X86_CS].attr, 0xc09b);
    m->s.gpr[X86_RAX] = CR4_PAE;
    assert_int_equal(RUN(m, 0x0f, 0x22, 0xe0), INTERP_OK); /* mov cr4, eax */
    m->s.gpr[X86_RAX] = TABLES;
    assert_int_equal(RUN(m, 0x0f, 0x22, 0xd8), INTERP_OK);
    m->s.gpr[X86_RCX] = MSR_EFER;
    m->s.gpr[X86_RAX] = EFER_LME;
    assert_int_equal(RUN(m, 0x0f, 0x30), INTERP_OK);
    m->s.gpr[X86_RAX] = 0x80000001;
    assert_int_equal(RUN(m, 0x0f, 0x22, 0xc0), INTERP_OK);
    assert_int_equal(m->s.efer, EFER_LME | EFER_LMA);
    assert_false(x86_64bit(&m->s));
    assert_int_equal(RUN(m, 0xea, 0, 2, 2, 0, SEL_CODE0, 0), INTERP_OK);
    assert_true(x86_64bit(&m->s));
    assert_int_equal(m->s.rip, CODE + 0x200);
    assert_true(m->flushes > 0);
    (void)l;
    machine_free(m);
}

static void far__real_call_and_return(void **state)
{
    struct machine *m = machine_real();
    (void)state;
    assert_int_equal(RUN(m, 0x9a, 0x34, 0x12, 0x00, 0x30), INTERP_OK);
    assert_int_equal(m->s.seg[X86_CS].base, 0x30000);
    assert_int_equal(m->s.rip, 0x1234);
    assert_int_equal(get16(m, 0x40ffc), 5);
    assert_int_equal(get16(m, 0x40ffe), CODE >> 4);
    assert_int_equal(RUN(m, 0xca, 2, 0), INTERP_OK); /* retf 2 */
    assert_int_equal(m->s.seg[X86_CS].base, CODE);
    assert_int_equal(m->s.rip, 5);
    assert_int_equal(m->s.gpr[X86_RSP], 0x1002);
    machine_free(m);
}

static void far__call_gate_copies_parameters(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    machine_ring3(m);
    put64(m, GDT + SEL_GATE, gate(SEL_CODE0, 0x31000, 12, 3) | 2ull << 32);
    put32(m, STACK3, 0x1111);
    put32(m, STACK3 + 4, 0x2222);
    assert_int_equal(RUN(m, 0x9a, 0, 0, 0, 0, SEL_GATE | 3, 0), INTERP_OK);
    assert_int_equal(m->s.cpl, 0);
    assert_int_equal(m->s.rip, 0x31000);
    assert_int_equal(m->s.gpr[X86_RSP], STACK0 - 24);
    assert_int_equal(get32(m, STACK0 - 24), CODE + 7);
    assert_int_equal(get32(m, STACK0 - 20), SEL_CODE3);
    assert_int_equal(get32(m, STACK0 - 16), 0x1111);
    assert_int_equal(get32(m, STACK0 - 12), 0x2222);
    assert_int_equal(get32(m, STACK0 - 8), STACK3);
    assert_int_equal(get32(m, STACK0 - 4), SEL_DATA3);
    assert_int_equal(RUN(m, 0xca, 8, 0), INTERP_OK);
    assert_int_equal(m->s.cpl, 3);
    assert_int_equal(m->s.rip, CODE + 7);
    assert_int_equal(m->s.gpr[X86_RSP], STACK3 + 8);
    machine_free(m);
}

static void far__long_mode_call_gate(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    machine_ring3(m);
    put64(m, GDT + SEL_GATE, gate(SEL_CODE0, 0x31000, 12, 3));
    put64(m, GDT + SEL_GATE + 8, 0);
    put32(m, DATA, 0);
    put16(m, DATA + 4, SEL_GATE | 3);
    m->s.gpr[X86_RBX] = DATA;
    assert_int_equal(RUN(m, 0xff, 0x1b), INTERP_OK); /* call far [rbx] */
    assert_int_equal(m->s.cpl, 0);
    assert_int_equal(m->s.rip, 0x31000);
    assert_int_equal(m->s.seg[X86_SS].sel, 0);
    assert_int_equal(m->s.gpr[X86_RSP], STACK0 - 32);
    assert_int_equal(get64(m, STACK0 - 32), CODE + 2);
    assert_int_equal(get64(m, STACK0 - 16), STACK3);
    assert_int_equal(RUN(m, 0x48, 0xcb), INTERP_OK); /* retfq */
    assert_int_equal(m->s.cpl, 3);
    assert_int_equal(m->s.rip, CODE + 2);
    assert_int_equal(m->s.gpr[X86_RSP], STACK3);
    machine_free(m);
}

static void far__jump_faults(void **state)
{
    static const struct {
        u16 sel;
        u32 off, vector, error;
    } c[] = {
        {0, 0, X86_GP, 0},
        {SEL_DATA0, 0, X86_GP, SEL_DATA0},
        {SEL_CODE3, 0, X86_GP, SEL_CODE3 & ~3},
        {SEL_CODE16, 0x10000, X86_GP, 0},
        {SEL_FREE, 0, X86_NP, SEL_FREE},
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        struct machine *m = machine_prot32();
        u8 code[7] = {0xea};
        put64(m, GDT + SEL_FREE, desc(0, 0xfffff, 0xc01b));
        memcpy(code + 1, &c[i].off, 4);
        memcpy(code + 5, &c[i].sel, 2);
        assert_int_equal(run1(m, code, 7), INTERP_OK);
        assert_vector(m, c[i].vector);
        assert_int_equal(get32(m, m->s.gpr[X86_RSP]), c[i].error);
        machine_free(m);
    }
}

/* --- tasks */

static void fill_tss_b(struct machine *m)
{
    put32(m, TSS_B + 0x1c, 0);
    put32(m, TSS_B + 0x20, 0x32000);
    put32(m, TSS_B + 0x24, 2);
    for (unsigned i = 0; i < 8; i++)
        put32(m, TSS_B + 0x28 + 4 * i, 0x100 + i);
    put32(m, TSS_B + 0x38, STACK0 - 0x400); /* ESP */
    for (unsigned i = 0; i < 6; i++)
        put32(m, TSS_B + 0x48 + 4 * i, i == X86_CS ? SEL_CODE0 : SEL_DATA0);
    put32(m, TSS_B + 0x60, 0);
    m->ram[GDT + SEL_TSS + 5] = 0x8b;
}

static void tasks__jump_saves_and_loads(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    fill_tss_b(m);
    m->s.gpr[X86_RBX] = 0xb0b;
    assert_int_equal(RUN(m, 0xea, 0, 0, 0, 0, SEL_TSS_B, 0), INTERP_OK);
    assert_int_equal(m->s.rip, 0x32000);
    assert_int_equal(m->s.gpr[X86_RCX], 0x101);
    assert_int_equal(m->s.gpr[X86_RSP], STACK0 - 0x400);
    assert_int_equal(m->s.tr.sel, SEL_TSS_B);
    assert_true(m->s.cr0 & CR0_TS);
    assert_int_equal(get32(m, TSS + 0x20), CODE + 7);
    assert_int_equal(get32(m, TSS + 0x34), 0xb0b);
    assert_int_equal(get32(m, TSS + 0x4c), SEL_CODE0);
    assert_int_equal(m->ram[GDT + SEL_TSS + 5], 0x89);
    assert_int_equal(m->ram[GDT + SEL_TSS_B + 5], 0x8b);
    assert_false(m->s.rflags & RFLAGS_NT);
    machine_free(m);
}

static void tasks__gate_nests_with_error_and_returns(void **state)
{
    struct machine *m = machine_prot32();
    struct interp_fault f = {.vector = X86_GP, .has_error = true, .error = 0x77};
    (void)state;
    fill_tss_b(m);
    put64(m, IDT + 8 * X86_GP, gate(SEL_TSS_B, 0, 5, 0));
    assert_int_equal(interp_exception(&m->in, &f), INTERP_OK);
    assert_int_equal(m->s.rip, 0x32000);
    assert_true(m->s.rflags & RFLAGS_NT);
    assert_int_equal(get16(m, TSS_B), SEL_TSS);
    assert_int_equal(get32(m, m->s.gpr[X86_RSP]), 0x77);
    assert_int_equal(m->ram[GDT + SEL_TSS + 5], 0x8b);
    m->s.gpr[X86_RSP] += 4;
    assert_int_equal(RUN(m, 0xcf), INTERP_OK);
    assert_int_equal(m->s.rip, CODE);
    assert_int_equal(m->s.tr.sel, SEL_TSS);
    assert_int_equal(m->ram[GDT + SEL_TSS_B + 5], 0x89);
    assert_int_equal(get32(m, TSS_B + 0x20), 0x32001);
    assert_false(get32(m, TSS_B + 0x24) & RFLAGS_NT);
    machine_free(m);
}

static void tasks__bad_ss_faults_in_new_task(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    fill_tss_b(m);
    put32(m, TSS_B + 0x48 + 4 * X86_DS, 0x1f0); /* beyond the GDT */
    assert_int_equal(RUN(m, 0xea, 0, 0, 0, 0, SEL_TSS_B, 0), INTERP_OK);
    assert_vector(m, X86_TS);
    assert_int_equal(m->s.tr.sel, SEL_TSS_B);
    assert_int_equal(get32(m, m->s.gpr[X86_RSP]), 0x1f0);
    assert_int_equal(get32(m, m->s.gpr[X86_RSP] + 4), 0x32000);
    machine_free(m);
}

static void tasks__sixteen_bit(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    fill_tss_b(m);
    put64(m, GDT + SEL_TSS_B, desc(TSS_B, 0x2b, 0x81));
    put16(m, TSS_B + 0x0e, 0x40);
    put16(m, TSS_B + 0x10, 2);
    for (unsigned i = 0; i < 8; i++)
        put16(m, TSS_B + 0x12 + 2 * i, (u16)(0x900 + i));
    put16(m, TSS_B + 0x22, SEL_DATA0);
    put16(m, TSS_B + 0x24, SEL_CODE16);
    put16(m, TSS_B + 0x26, SEL_DATA0);
    put16(m, TSS_B + 0x28, SEL_DATA0);
    put16(m, TSS_B + 0x2a, 0);
    assert_int_equal(RUN(m, 0xea, 0, 0, 0, 0, SEL_TSS_B, 0), INTERP_OK);
    assert_int_equal(m->s.rip, 0x40);
    assert_int_equal((u16)m->s.gpr[X86_RDX], 0x902);
    assert_int_equal(m->s.seg[X86_CS].base, CODE);
    assert_int_equal(m->s.tr.attr & 0xf, 3);
    machine_free(m);
}

/* --- SYSCALL and kin */

static void syscalls__syscall_and_sysret(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    machine_ring3(m);
    m->s.star = 0x0010000800000000ull;
    m->s.lstar = 0x33000;
    m->s.sfmask = RFLAGS_IF | RFLAGS_TF;
    m->s.rflags |= RFLAGS_CF;
    assert_int_equal(RUN(m, 0x0f, 0x05), INTERP_OK);
    assert_int_equal(m->s.rip, 0x33000);
    assert_int_equal(m->s.cpl, 0);
    assert_int_equal(m->s.seg[X86_CS].sel, 8);
    assert_int_equal(m->s.seg[X86_SS].sel, 16);
    assert_int_equal(m->s.gpr[X86_RCX], CODE + 2);
    assert_int_equal(m->s.gpr[X86_R11], RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF);
    assert_int_equal(m->s.rflags, RFLAGS_FIXED | RFLAGS_CF);
    assert_int_equal(RUN(m, 0x48, 0x0f, 0x07), INTERP_OK);
    assert_int_equal(m->s.cpl, 3);
    assert_int_equal(m->s.rip, CODE + 2);
    assert_int_equal(m->s.seg[X86_CS].sel, 0x23);
    assert_int_equal(m->s.seg[X86_SS].sel, 0x1b);
    assert_int_equal(m->s.rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF);
    machine_free(m);
}

static void syscalls__sysret_to_non_canonical(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.gpr[X86_RCX] = 0x800000000000;
    assert_int_equal(RUN(m, 0x48, 0x0f, 0x07), INTERP_OK);
    assert_vector(m, X86_GP); /* in ring 0 on Intel */
    assert_int_equal(get64(m, m->s.gpr[X86_RSP] + 16), SEL_CODE0);
    machine_free(m);

    m = machine_long();
    m->model.amd = true;
    m->s.gpr[X86_RCX] = 0x800000000000;
    assert_int_equal(RUN(m, 0x48, 0x0f, 0x07), INTERP_OK);
    assert_int_equal(m->s.cpl, 3); /* the fetch will fault, in ring 3 */
    assert_int_equal(interp_step(&m->in), INTERP_OK);
    assert_vector(m, X86_GP);
    machine_free(m);
}

static void syscalls__disabled_is_ud(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.efer &= ~EFER_SCE;
    assert_int_equal(RUN(m, 0x0f, 0x05), INTERP_OK);
    assert_vector(m, X86_UD);
    machine_free(m);
}

static void syscalls__sysenter_and_sysexit(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    machine_ring3(m);
    m->s.sysenter_cs = SEL_CODE0;
    m->s.sysenter_esp = STACK0;
    m->s.sysenter_eip = 0x34000;
    assert_int_equal(RUN(m, 0x0f, 0x34), INTERP_OK);
    assert_int_equal(m->s.rip, 0x34000);
    assert_int_equal(m->s.gpr[X86_RSP], STACK0);
    assert_false(m->s.rflags & RFLAGS_IF);
    m->s.gpr[X86_RDX] = 0x1000;
    m->s.gpr[X86_RCX] = STACK3;
    assert_int_equal(RUN(m, 0x0f, 0x35), INTERP_OK);
    assert_int_equal(m->s.cpl, 3);
    assert_int_equal(m->s.rip, 0x1000);
    assert_int_equal(m->s.seg[X86_CS].sel, 0x1b);
    assert_int_equal(m->s.seg[X86_SS].sel, 0x23);
    machine_free(m);
}

static void syscalls__swapgs(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.kernel_gs_base = 0x1000;
    m->s.seg[X86_GS].base = 0x2000;
    assert_int_equal(RUN(m, 0x0f, 0x01, 0xf8), INTERP_OK);
    assert_int_equal(m->s.seg[X86_GS].base, 0x1000);
    assert_int_equal(m->s.kernel_gs_base, 0x2000);
    machine_ring3(m);
    assert_int_equal(RUN(m, 0x0f, 0x01, 0xf8), INTERP_OK);
    assert_vector(m, X86_GP);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments__load_sets_hidden_part_and_accessed),
        cmocka_unit_test(segments__faults),
        cmocka_unit_test(segments__null_ss_in_long_mode),
        cmocka_unit_test(segments__unreal_mode_keeps_limit),
        cmocka_unit_test(segments__lss_loads_pointer),
        cmocka_unit_test(segments__lar_lsl_verr),
        cmocka_unit_test(segments__ltr_marks_busy_and_refuses_busy),
        cmocka_unit_test(far__real_to_protected_to_long),
        cmocka_unit_test(far__real_call_and_return),
        cmocka_unit_test(far__call_gate_copies_parameters),
        cmocka_unit_test(far__long_mode_call_gate),
        cmocka_unit_test(far__jump_faults),
        cmocka_unit_test(tasks__jump_saves_and_loads),
        cmocka_unit_test(tasks__gate_nests_with_error_and_returns),
        cmocka_unit_test(tasks__bad_ss_faults_in_new_task),
        cmocka_unit_test(tasks__sixteen_bit),
        cmocka_unit_test(syscalls__syscall_and_sysret),
        cmocka_unit_test(syscalls__sysret_to_non_canonical),
        cmocka_unit_test(syscalls__disabled_is_ud),
        cmocka_unit_test(syscalls__sysenter_and_sysexit),
        cmocka_unit_test(syscalls__swapgs),
    };
    return cmocka_run_group_tests_name("system_transfers", tests, NULL, NULL);
}
