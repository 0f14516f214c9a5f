/* SPDX-License-Identifier: Apache-2.0 */
/* Control and debug registers, flags, MSRs, port I/O and their protection. */
#include "interp/system_machine.h"
#include "x86/msr.h"

static void wrmsr(struct machine *m, u32 msr, u64 val)
{
    m->s.gpr[X86_RCX] = msr;
    m->s.gpr[X86_RAX] = (u32)val;
    m->s.gpr[X86_RDX] = val >> 32;
    assert_int_equal(RUN(m, 0x0f, 0x30), INTERP_OK);
}

static void cr__writes_that_fault(void **state)
{
    static const struct {
        u8 modrm;
        u64 val;
    } c[] = {
        {0xc0, CR0_PG},                      /* PG without PE */
        {0xc0, CR0_PE | CR0_PG | CR0_NW},    /* NW without CD */
        {0xc0, BIT64(32) | CR0_PE | CR0_PG}, /* reserved */
        {0xc0, CR0_PE},                      /* PG off in 64-bit mode */
        {0xd8, BIT64(45) | TABLES},          /* beyond MAXPHYADDR */
        {0xe0, 0},                           /* PAE off in long mode */
        {0xe0, CR4_PAE | CR4_VMXE},          /* hidden */
        {0xe0, CR4_PAE | BIT64(40)},         /* reserved */
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        struct machine *m = machine_long();
        m->s.gpr[X86_RAX] = c[i].val;
        assert_int_equal(RUN(m, 0x0f, 0x22, c[i].modrm), INTERP_OK);
        assert_vector(m, X86_GP);
        assert_int_equal(m->s.cr3, TABLES);
        assert_int_equal(m->s.cr4, CR4_PAE);
        machine_free(m);
    }
}

static void cr__pcid(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.gpr[X86_RAX] = CR4_PAE | CR4_PCIDE;
    assert_int_equal(RUN(m, 0x0f, 0x22, 0xe0), INTERP_OK);
    assert_int_equal(m->s.cr4, CR4_PAE | CR4_PCIDE);
    m->s.gpr[X86_RAX] = TABLES | 5 | CR3_NOFLUSH;
    assert_int_equal(RUN(m, 0x0f, 0x22, 0xd8), INTERP_OK);
    assert_int_equal(m->s.cr3, TABLES | 5);
    assert_true(m->noflush);
    /* invpcid: single context */
    put64(m, DATA, 7);
    put64(m, DATA + 8, 0);
    m->s.gpr[X86_RAX] = 1;
    m->s.gpr[X86_RBX] = DATA;
    assert_int_equal(RUN(m, 0x66, 0x0f, 0x38, 0x82, 0x03), INTERP_OK);
    assert_int_equal(m->flush_kind, INTERP_FLUSH_PCID);
    assert_int_equal(m->flush_pcid, 7);
    m->s.gpr[X86_RAX] = 4;
    assert_int_equal(RUN(m, 0x66, 0x0f, 0x38, 0x82, 0x03), INTERP_OK);
    assert_vector(m, X86_GP);
    machine_free(m);
}

static void cr__cr8(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.gpr[X86_RAX] = 9;
    assert_int_equal(RUN(m, 0x44, 0x0f, 0x22, 0xc0), INTERP_OK);
    assert_int_equal(m->cr8, 9);
    m->s.gpr[X86_RAX] = 16;
    assert_int_equal(RUN(m, 0x44, 0x0f, 0x22, 0xc0), INTERP_OK);
    assert_vector(m, X86_GP);
    machine_free(m);
}

static void cr__pdptes_are_checked(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    put64(m, TABLES, 0x100000 | 1);
    put64(m, TABLES + 8, 0x101000 | 1 | 2); /* reserved bit */
    m->s.cr4 = CR4_PAE;
    m->s.cr3 = TABLES;
    m->s.gpr[X86_RAX] = CR0_PE | CR0_PG;
    assert_int_equal(RUN(m, 0x0f, 0x22, 0xc0), INTERP_OK);
    assert_vector(m, X86_GP);
    assert_false(m->s.cr0 & CR0_PG);
    m->s.rip = CODE;
    put64(m, TABLES + 8, 0);
    assert_int_equal(RUN(m, 0x0f, 0x22, 0xc0), INTERP_OK);
    assert_true(m->s.cr0 & CR0_PG);
    assert_int_equal(m->s.pdpte[0], 0x100001);
    machine_free(m);
}

static void cr__invalid_numbers_are_ud(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    assert_int_equal(RUN(m, 0x0f, 0x22, 0xc8), INTERP_OK); /* cr1 */
    assert_vector(m, X86_UD);
    m->s.rip = CODE;
    m->s.cr4 |= CR4_DE;
    assert_int_equal(RUN(m, 0x0f, 0x21, 0xe0), INTERP_OK); /* dr4 */
    assert_vector(m, X86_UD);
    machine_free(m);
}

static void flags__popf_respects_privilege(void **state)
{
    struct machine *m = machine_long();
    u64 all = MASK64(21, 0);
    (void)state;
    machine_ring3(m);
    m->s.gpr[X86_RSP] = STACK3 - 8;
    put64(m, STACK3 - 8, all & ~RFLAGS_IF & ~RFLAGS_TF);
    assert_int_equal(RUN(m, 0x9d), INTERP_OK);
    assert_true(m->s.rflags & RFLAGS_IF);
    assert_false(m->s.rflags & (RFLAGS_IOPL | RFLAGS_VM | RFLAGS_RF | RFLAGS_VIF | RFLAGS_VIP));
    assert_true(m->s.rflags & RFLAGS_AC);
    machine_free(m);

    m = machine_long();
    put64(m, (u32)m->s.gpr[X86_RSP], all & ~RFLAGS_TF);
    assert_int_equal(RUN(m, 0x9d), INTERP_OK);
    assert_int_equal(m->s.rflags & (RFLAGS_IF | RFLAGS_IOPL), RFLAGS_IF | RFLAGS_IOPL);
    assert_false(m->s.rflags & (RFLAGS_VM | RFLAGS_RF | RFLAGS_VIF | RFLAGS_VIP));
    machine_free(m);
}

static void flags__sti_shadow(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    assert_int_equal(RUN(m, 0xfb), INTERP_OK);
    assert_int_equal(m->s.int_shadow, 1);
    assert_int_equal(RUN(m, 0xfb), INTERP_OK); /* already set: none */
    assert_int_equal(m->s.int_shadow, 0);
    machine_free(m);
}

static void msr__checks(void **state)
{
    static const struct {
        u32 msr;
        u64 val;
        bool ok;
    } c[] = {
        {MSR_LSTAR, 0x800000000000, false},
        {MSR_LSTAR, 0xffff800000000000, true},
        {MSR_FS_BASE, 0x7fffffffffff, true},
        {MSR_EFER, BIT64(1), false},
        {MSR_EFER, EFER_SCE | EFER_NXE, false}, /* LME cleared while paging */
        {MSR_EFER, EFER_SCE | EFER_LME, true},
        {MSR_PAT, 2, false},
        {MSR_PAT, 0x0407050600070106, true},
        {MSR_MTRR_DEF_TYPE, 2, false},
        {MSR_MTRR_DEF_TYPE, 0xc06, true},
        {MSR_ARCH_CAPABILITIES, 0, false},
        {MSR_PRED_CMD, 1, true},
        {MSR_SPEC_CTRL, BIT64(40), false},
        {0x12345, 0, false},
        {MSR_APIC_BASE, 0, true}, /* the engine's */
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        struct machine *m = machine_long();
        wrmsr(m, c[i].msr, c[i].val);
        if (c[i].ok)
            assert_int_equal(m->s.rip, CODE + 2);
        else
            assert_vector(m, X86_GP);
        machine_free(m);
    }
}

static void msr__tsc_adjust_follows_writes(void **state)
{
    struct machine *m = machine_long();
    u64 v;
    (void)state;
    assert_int_equal(x86_msr_write(&m->s, &m->model, MSR_TSC, 5000, 1000), X86_MSR_OK);
    assert_int_equal(x86_msr_read(&m->s, &m->model, MSR_TSC, 1100, &v), X86_MSR_OK);
    assert_int_equal(v, 5100);
    assert_int_equal(x86_msr_read(&m->s, &m->model, MSR_TSC_ADJUST, 0, &v), X86_MSR_OK);
    assert_int_equal(v, 4000);
    assert_int_equal(x86_msr_write(&m->s, &m->model, MSR_TSC_ADJUST, 0, 0), X86_MSR_OK);
    assert_int_equal(x86_msr_read(&m->s, &m->model, MSR_TSC, 1100, &v), X86_MSR_OK);
    assert_int_equal(v, 1100);
    machine_free(m);
}

static void privilege__ring3_faults(void **state)
{
    static const struct {
        u8 n, code[5];
        u32 vector;
    } c[] = {
        {1, {0xf4}, X86_GP},                         /* hlt */
        {2, {0x0f, 0x06}, X86_GP},                   /* clts */
        {3, {0x0f, 0x22, 0xc0}, X86_GP},             /* mov cr0 */
        {3, {0x0f, 0x21, 0xf8}, X86_GP},             /* mov rax, dr7 */
        {2, {0x0f, 0x32}, X86_GP},                   /* rdmsr */
        {2, {0x0f, 0x09}, X86_GP},                   /* wbinvd */
        {3, {0x0f, 0x01, 0x38}, X86_GP},             /* invlpg */
        {3, {0x0f, 0x01, 0xca}, X86_UD},             /* clac */
        {3, {0x0f, 0x01, 0xc1}, X86_UD},             /* vmcall */
        {3, {0x0f, 0x01, 0xd9}, X86_UD},             /* vmmcall */
        {3, {0x0f, 0x01, 0xc8}, X86_UD},             /* monitor */
        {2, {0x0f, 0xaa}, X86_UD},                   /* rsm */
        {3, {0x0f, 0x00, 0xd8}, X86_GP},             /* ltr */
        {3, {0x0f, 0x01, 0xe0}, X86_GP},             /* smsw under UMIP */
        {3, {0x0f, 0x01, 0x08}, X86_GP},             /* sidt under UMIP */
        {2, {0xe4, 0x60}, X86_GP},                   /* in */
        {5, {0xf3, 0x48, 0x0f, 0xae, 0xc0}, X86_UD}, /* rdfsbase with CR4.FSGSBASE clear */
        {3, {0x0f, 0x01, 0xd0}, X86_UD},             /* xgetbv with CR4.OSXSAVE clear */
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        struct machine *m = machine_long();
        machine_ring3(m);
        m->s.cr4 |= CR4_UMIP;
        m->s.gpr[X86_RAX] = DATA;
        assert_int_equal(run1(m, c[i].code, c[i].n), INTERP_OK);
        if (m->s.rip != HANDLER + 16 * c[i].vector)
            print_message("case %u\n", i);
        assert_vector(m, c[i].vector);
        machine_free(m);
    }
}

static void privilege__fsgsbase(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    machine_ring3(m);
    m->s.cr4 |= CR4_FSGSBASE;
    m->s.gpr[X86_RAX] = 0x123456789a;
    assert_int_equal(RUN(m, 0xf3, 0x48, 0x0f, 0xae, 0xd0), INTERP_OK); /* wrfsbase rax */
    assert_int_equal(m->s.seg[X86_FS].base, 0x123456789a);
    assert_int_equal(RUN(m, 0xf3, 0x0f, 0xae, 0xc3), INTERP_OK); /* rdfsbase ebx */
    assert_int_equal(m->s.gpr[X86_RBX], 0x3456789a);
    machine_free(m);
}

static void io__bitmap(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    machine_ring3(m);
    m->s.tr.limit = 0x67 + 0x20;
    memset(m->ram + TSS + 0x68, 0xff, 0x20);
    m->ram[TSS + 0x68 + 0x60 / 8] = 0xfe; /* port 60h only */
    m->pio_val = 0x5a;
    assert_int_equal(RUN(m, 0xe4, 0x60), INTERP_OK);
    assert_int_equal((u8)m->s.gpr[X86_RAX], 0x5a);
    assert_int_equal(m->pio_count, 1);
    assert_int_equal(RUN(m, 0xe5, 0x60), INTERP_OK); /* four ports: refused */
    assert_vector(m, X86_GP);
    assert_int_equal(m->pio_count, 1);
    machine_free(m);
}

static void io__rep_insb_stops_at_a_fault(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->pio_val = 0x77;
    m->s.gpr[X86_RCX] = 600;
    m->s.gpr[X86_RDI] = DATA;
    m->s.gpr[X86_RDX] = 0x1f0;
    assert_int_equal(RUN(m, 0xf3, 0x6c), INTERP_OK);
    assert_int_equal(m->s.rip, CODE); /* a look at interrupts in between */
    while (m->s.rip == CODE)
        assert_int_equal(interp_step(&m->in), INTERP_OK);
    assert_int_equal(m->s.gpr[X86_RCX], 0);
    assert_int_equal(m->s.gpr[X86_RDI], DATA + 600);
    assert_int_equal(m->ram[DATA + 599], 0x77);
    assert_int_equal(m->pio_count, 600);

    m->bad_page = DATA + 0x1000;
    m->s.gpr[X86_RCX] = 10;
    m->s.gpr[X86_RDI] = DATA + 0xffd;
    m->pio_count = 0;
    assert_int_equal(RUN(m, 0xf3, 0x6c), INTERP_OK);
    assert_vector(m, X86_PF);
    assert_int_equal(m->s.gpr[X86_RCX], 7);
    assert_int_equal(m->s.gpr[X86_RDI], DATA + 0x1000);
    assert_int_equal(m->pio_count, 3);
    machine_free(m);
}

static void io__outsb_and_breakpoint(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->ram[DATA] = 0x42;
    m->s.gpr[X86_RSI] = DATA;
    m->s.gpr[X86_RDX] = 0x3f8;
    m->s.cr4 |= CR4_DE;
    m->s.dr[2] = 0x3f8;
    m->s.dr7 = DR7_INIT | 0x20 | 2u << 24;
    assert_int_equal(RUN(m, 0x6e), INTERP_OK);
    assert_int_equal(m->pio_port, 0x3f8);
    assert_int_equal(m->pio_val, 0x42);
    assert_vector(m, X86_DB);
    assert_int_equal(m->s.dr6 & 0xf, 4);
    machine_free(m);
}

static void hlt__halts(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    assert_int_equal(RUN(m, 0xf4), INTERP_HLT);
    assert_int_equal(m->s.activity, X86_HALTED);
    assert_int_equal(m->s.rip, CODE + 1);
    assert_int_equal(interp_interrupt(&m->in, 0x40, false), INTERP_OK);
    assert_int_equal(m->s.activity, X86_RUNNING);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cr__writes_that_fault),
        cmocka_unit_test(cr__pcid),
        cmocka_unit_test(cr__cr8),
        cmocka_unit_test(cr__pdptes_are_checked),
        cmocka_unit_test(cr__invalid_numbers_are_ud),
        cmocka_unit_test(flags__popf_respects_privilege),
        cmocka_unit_test(flags__sti_shadow),
        cmocka_unit_test(msr__checks),
        cmocka_unit_test(msr__tsc_adjust_follows_writes),
        cmocka_unit_test(privilege__ring3_faults),
        cmocka_unit_test(privilege__fsgsbase),
        cmocka_unit_test(io__bitmap),
        cmocka_unit_test(io__rep_insb_stops_at_a_fault),
        cmocka_unit_test(io__outsb_and_breakpoint),
        cmocka_unit_test(hlt__halts),
    };
    return cmocka_run_group_tests_name("system_registers", tests, NULL, NULL);
}
