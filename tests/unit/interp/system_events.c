/* SPDX-License-Identifier: Apache-2.0 */
/* Events: frames, stack switches, IST, nesting, virtual-8086 mode, IRET, debug traps. */
#include "interp/system_machine.h"

static void events__real_mode_frame(void **state)
{
    struct machine *m = machine_real();
    (void)state;
    put16(m, IVT + 4 * 0x21, 0x1234);
    put16(m, IVT + 4 * 0x21 + 2, 0x3000);
    m->s.rflags = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF | RFLAGS_TF * 0;
    assert_int_equal(RUN(m, 0xcd, 0x21), INTERP_OK);
    assert_int_equal(m->s.seg[X86_CS].sel, 0x3000);
    assert_int_equal(m->s.seg[X86_CS].base, 0x30000);
    assert_int_equal(m->s.rip, 0x1234);
    assert_int_equal(m->s.gpr[X86_RSP], 0xffa);
    assert_int_equal(get16(m, 0x40ffa), 2);
    assert_int_equal(get16(m, 0x40ffc), CODE >> 4);
    assert_int_equal(get16(m, 0x40ffe), 0x203);
    assert_int_equal(m->s.rflags & RFLAGS_IF, 0);
    /* and back */
    assert_int_equal(RUN(m, 0xcf), INTERP_OK);
    assert_int_equal(m->s.rip, 2);
    assert_int_equal(m->s.seg[X86_CS].base, CODE);
    assert_int_equal(m->s.rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_CF);
    assert_int_equal(m->s.gpr[X86_RSP], 0x1000);
    machine_free(m);
}

static void events__real_mode_short_ivt_shuts_down(void **state)
{
    struct machine *m = machine_real();
    (void)state;
    m->s.idtr.limit = 0;
    assert_int_equal(RUN(m, 0xcd, 0x21), INTERP_SHUTDOWN);
    assert_int_equal(m->s.activity, X86_SHUTDOWN);
    machine_free(m);
}

static void events__prot32_same_level_error_code(void **state)
{
    struct machine *m = machine_prot32();
    struct interp_fault f = {.vector = X86_GP, .has_error = true, .error = 0x1234};
    u64 sp = m->s.gpr[X86_RSP];
    (void)state;
    m->s.rflags |= RFLAGS_IF;
    assert_int_equal(interp_exception(&m->in, &f), INTERP_OK);
    assert_vector(m, X86_GP);
    assert_int_equal(m->s.gpr[X86_RSP], sp - 16);
    assert_int_equal(get32(m, sp - 16), 0x1234);
    assert_int_equal(get32(m, sp - 12), CODE);
    assert_int_equal(get32(m, sp - 8), SEL_CODE0);
    assert_int_equal(get32(m, sp - 4), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_RF);
    assert_int_equal(m->s.rflags, RFLAGS_FIXED);
    machine_free(m);
}

static void events__prot32_from_ring3_switches_stack(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    machine_ring3(m);
    assert_int_equal(interp_interrupt(&m->in, 0x40, false), INTERP_OK);
    assert_vector(m, 0x40);
    assert_int_equal(m->s.cpl, 0);
    assert_int_equal(m->s.seg[X86_SS].sel, SEL_DATA0);
    assert_int_equal(m->s.gpr[X86_RSP], STACK0 - 20);
    assert_int_equal(get32(m, STACK0 - 20), CODE);
    assert_int_equal(get32(m, STACK0 - 16), SEL_CODE3);
    assert_int_equal(get32(m, STACK0 - 12), RFLAGS_FIXED | RFLAGS_IF);
    assert_int_equal(get32(m, STACK0 - 8), STACK3);
    assert_int_equal(get32(m, STACK0 - 4), SEL_DATA3);
    /* IRET drops data segments the outer level may not use */
    m->s.seg[X86_DS] = m->s.seg[X86_SS];
    assert_int_equal(RUN(m, 0xcf), INTERP_OK);
    assert_int_equal(m->s.cpl, 3);
    assert_int_equal(m->s.rip, CODE);
    assert_int_equal(m->s.gpr[X86_RSP], STACK3);
    assert_int_equal(m->s.seg[X86_DS].sel, 0);
    assert_int_equal(m->s.seg[X86_ES].sel, SEL_DATA3);
    machine_free(m);
}

static void events__long_page_fault_from_ring3(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    machine_ring3(m);
    m->s.gpr[X86_RAX] = 0x12345678;                        /* not mapped */
    assert_int_equal(RUN(m, 0x48, 0x89, 0x18), INTERP_OK); /* mov [rax], rbx */
    assert_vector(m, X86_PF);
    assert_int_equal(m->s.cr2, 0x12345678);
    assert_int_equal(m->s.gpr[X86_RSP], STACK0 - 48);
    assert_int_equal(get64(m, STACK0 - 48), PFEC_W | PFEC_U);
    assert_int_equal(get64(m, STACK0 - 40), CODE);
    assert_int_equal(get64(m, STACK0 - 32), SEL_CODE3);
    assert_int_equal(get64(m, STACK0 - 24), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_RF);
    assert_int_equal(get64(m, STACK0 - 16), STACK3);
    assert_int_equal(get64(m, STACK0 - 8), SEL_DATA3);
    assert_int_equal(m->s.seg[X86_SS].sel, 0);
    assert_int_equal(m->s.cpl, 0);
    m->s.gpr[X86_RSP] += 8;
    assert_int_equal(RUN(m, 0x48, 0xcf), INTERP_OK); /* iretq */
    assert_int_equal(m->s.cpl, 3);
    assert_int_equal(m->s.rip, CODE);
    assert_int_equal(m->s.seg[X86_SS].sel, SEL_DATA3);
    assert_true(m->s.rflags & RFLAGS_RF);
    machine_free(m);
}

static void events__long_ist_and_alignment(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    set_idt(m, X86_NMI, 14, 0, 1);
    m->s.gpr[X86_RSP] = STACK0 - 0x105;
    assert_int_equal(interp_interrupt(&m->in, X86_NMI, true), INTERP_OK);
    assert_int_equal(m->s.gpr[X86_RSP], IST1 - 40);
    assert_int_equal(get64(m, IST1 - 8), SEL_DATA0);
    assert_int_equal(get64(m, IST1 - 16), STACK0 - 0x105);
    assert_int_equal(m->s.nmi_blocked, 1);
    assert_int_equal(m->s.seg[X86_SS].sel, SEL_DATA0);
    assert_int_equal(RUN(m, 0x48, 0xcf), INTERP_OK);
    assert_int_equal(m->s.nmi_blocked, 0);
    assert_int_equal(m->s.gpr[X86_RSP], STACK0 - 0x105);
    /* without IST the stack is aligned to 16 */
    assert_int_equal(interp_interrupt(&m->in, 0x80, false), INTERP_OK);
    assert_int_equal(m->s.gpr[X86_RSP], ((STACK0 - 0x105) & ~15u) - 40);
    machine_free(m);
}

/* What another engine had begun to deliver when its state was taken. */
static void events__begun_elsewhere(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    machine_ring3(m);
    m->s.ev_kind = X86_EV_EXCEPTION;
    m->s.ev_vector = X86_PF;
    m->s.ev_has_error = 1;
    m->s.ev_error = 6;
    m->s.cr2 = 0x1234;
    assert_int_equal(interp_event_again(&m->in), INTERP_OK);
    assert_vector(m, X86_PF);
    assert_int_equal(m->s.ev_kind, X86_EV_NONE);
    assert_int_equal(m->s.cr2, 0x1234);
    assert_int_equal(get64(m, STACK0 - 48), 6);
    assert_int_equal(get64(m, STACK0 - 40), CODE);
    machine_free(m);

    m = machine_long();
    machine_ring3(m);
    m->s.activity = X86_HALTED;
    m->s.ev_kind = X86_EV_EXTERNAL;
    m->s.ev_vector = 0x40;
    assert_int_equal(interp_event_again(&m->in), INTERP_OK);
    assert_vector(m, 0x40);
    assert_int_equal(m->s.activity, X86_RUNNING);
    assert_int_equal(get64(m, STACK0 - 40), CODE);
    machine_free(m);

    m = machine_long();
    machine_ring3(m);
    m->s.ev_kind = X86_EV_EXTERNAL; /* of a device whose vector looks like #AC: no error code */
    m->s.ev_vector = X86_AC_FAULT;
    assert_int_equal(interp_event_again(&m->in), INTERP_OK);
    assert_vector(m, X86_AC_FAULT);
    assert_int_equal(get64(m, STACK0 - 40), CODE);
    machine_free(m);
}

static void events__soft_int_needs_gate_dpl(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    machine_ring3(m);
    assert_int_equal(RUN(m, 0xcd, 0x80), INTERP_OK);
    assert_vector(m, X86_GP);
    assert_int_equal(get64(m, STACK0 - 48), 0x80 * 8 + 2);
    assert_int_equal(get64(m, STACK0 - 40), CODE); /* at the instruction */
    machine_free(m);

    m = machine_long();
    machine_ring3(m);
    set_idt(m, 0x80, 15, 3, 0); /* trap gate */
    assert_int_equal(RUN(m, 0xcd, 0x80), INTERP_OK);
    assert_vector(m, 0x80);
    assert_int_equal(get64(m, STACK0 - 40), CODE + 2);
    assert_true(m->s.rflags & RFLAGS_IF);
    machine_free(m);
}

static void events__missing_gate_reports_ext(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    put64(m, IDT + 16 * 0x40, gate(SEL_CODE0, 0, 14, 0) & ~BIT64(47));
    assert_int_equal(interp_interrupt(&m->in, 0x40, false), INTERP_OK);
    assert_vector(m, X86_NP);
    assert_int_equal(get64(m, m->s.gpr[X86_RSP]), 0x40 * 8 + 2 + 1);
    machine_free(m);
}

static void events__double_and_triple_fault(void **state)
{
    struct machine *m = machine_long();
    struct interp_fault f = {.vector = X86_GP, .has_error = true};
    (void)state;
    put64(m, IDT + 16 * X86_GP, 0);
    assert_int_equal(interp_exception(&m->in, &f), INTERP_OK);
    assert_vector(m, X86_DF);
    assert_int_equal(get64(m, m->s.gpr[X86_RSP]), 0);
    put64(m, IDT + 16 * X86_DF, 0);
    assert_int_equal(interp_exception(&m->in, &f), INTERP_SHUTDOWN);
    assert_int_equal(m->s.activity, X86_SHUTDOWN);
    assert_non_null(strstr(m->in.why, "triple fault"));
    machine_free(m);
}

static void events__fault_on_stack_is_serial(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    /* #UD whose frame cannot be pushed: #PF on its own, through IST here */
    set_idt(m, X86_PF, 14, 0, 1);
    m->s.gpr[X86_RSP] = 0x900000;
    assert_int_equal(RUN(m, 0x0f, 0x0b), INTERP_OK);
    assert_vector(m, X86_PF);
    assert_int_equal(m->s.cr2, 0x900000 - 8);
    assert_int_equal(get64(m, IST1 - 40), CODE);
    machine_free(m);
}

static void events__page_fault_in_page_fault_doubles(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    set_idt(m, X86_DF, 14, 0, 1);
    m->s.gpr[X86_RSP] = 0x900000;
    assert_int_equal(RUN(m, 0x50), INTERP_OK); /* push rax */
    assert_vector(m, X86_DF);
    machine_free(m);
}

static void events__non_canonical_stack_is_ss(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    set_idt(m, X86_SS_FAULT, 14, 0, 1);
    m->s.gpr[X86_RSP] = 0x800000000010;
    assert_int_equal(RUN(m, 0xcc), INTERP_OK);
    assert_vector(m, X86_SS_FAULT);
    machine_free(m);
}

static void v86(struct machine *m)
{
    static const u16 sel[] = {0x5000, CODE >> 4, 0x4000, 0x5100, 0x5200, 0x5300};
    for (unsigned i = 0; i < X86_NSEG; i++)
        m->s.seg[i] = (struct x86_seg){
            .base = (u64)sel[i] << 4, .limit = 0xffff, .sel = sel[i], .attr = 0xf3};
    m->s.rflags |= RFLAGS_VM | RFLAGS_IF;
    m->s.cpl = 3;
    m->s.rip = 0x10;
    m->s.gpr[X86_RSP] = 0x800;
}

static void events__v86_interrupt_and_return(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    v86(m);
    assert_int_equal(interp_interrupt(&m->in, 0x40, false), INTERP_OK);
    assert_vector(m, 0x40);
    assert_int_equal(m->s.cpl, 0);
    assert_int_equal(m->s.gpr[X86_RSP], STACK0 - 36);
    assert_int_equal(get32(m, STACK0 - 36), 0x10);
    assert_int_equal(get32(m, STACK0 - 32), CODE >> 4);
    assert_true(get32(m, STACK0 - 28) & RFLAGS_VM);
    assert_int_equal(get32(m, STACK0 - 24), 0x800);
    assert_int_equal(get32(m, STACK0 - 20), 0x4000);
    assert_int_equal(get32(m, STACK0 - 16), 0x5000);
    assert_int_equal(get32(m, STACK0 - 12), 0x5100);
    assert_int_equal(get32(m, STACK0 - 8), 0x5200);
    assert_int_equal(get32(m, STACK0 - 4), 0x5300);
    assert_int_equal(m->s.seg[X86_DS].sel, 0);
    assert_false(m->s.rflags & RFLAGS_VM);
    assert_int_equal(RUN(m, 0xcf), INTERP_OK);
    assert_int_equal(m->s.cpl, 3);
    assert_true(m->s.rflags & RFLAGS_VM);
    assert_int_equal(m->s.rip, 0x10);
    assert_int_equal(m->s.seg[X86_GS].base, 0x53000);
    assert_int_equal(m->s.seg[X86_SS].attr, 0xf3);
    machine_free(m);
}

static void events__v86_iopl_and_vme(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    v86(m);
    assert_int_equal(RUN(m, 0xfa), INTERP_OK); /* cli: IOPL 0, no VME */
    assert_vector(m, X86_GP);
    machine_free(m);

    m = machine_prot32();
    v86(m);
    m->s.cr4 |= CR4_VME;
    m->s.rflags |= RFLAGS_VIF;
    assert_int_equal(RUN(m, 0xfa), INTERP_OK);
    assert_int_equal(m->s.rip, 0x11);
    assert_false(m->s.rflags & RFLAGS_VIF);
    assert_true(m->s.rflags & RFLAGS_IF);
    assert_int_equal(RUN(m, 0xfb), INTERP_OK);
    assert_true(m->s.rflags & RFLAGS_VIF);
    /* pushf shows IF = VIF and IOPL 3 */
    assert_int_equal(RUN(m, 0x9c), INTERP_OK);
    assert_int_equal(get16(m, 0x40000 + 0x7fe), 0x3202);
    /* INT 21h with its redirection bit clear goes to the program's own vector table */
    m->s.tr.limit = 0xfff;
    put16(m, TSS + 0x66, 0x88);
    put16(m, IVT + 4 * 0x21, 0x500);
    put16(m, IVT + 4 * 0x21 + 2, CODE >> 4);
    assert_int_equal(RUN(m, 0xcd, 0x21), INTERP_OK);
    assert_int_equal(m->s.rip, 0x500);
    assert_true(m->s.rflags & RFLAGS_VM);
    assert_false(m->s.rflags & RFLAGS_VIF);
    assert_int_equal(get16(m, 0x40000 + 0x7fc) & 0x3200, 0x3200);
    /* with the bit set it is #GP below IOPL 3 */
    m->ram[TSS + 0x68 + 4] = 2;
    assert_int_equal(RUN(m, 0xcd, 0x21), INTERP_OK);
    assert_vector(m, X86_GP);
    machine_free(m);
}

static void events__sti_from_vip_faults(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    machine_ring3(m);
    m->s.cr4 |= CR4_PVI;
    m->s.rflags |= RFLAGS_VIP;
    assert_int_equal(RUN(m, 0xfb), INTERP_OK);
    assert_vector(m, X86_GP);
    machine_free(m);
}

static void events__iretq_to_16bit_stack_keeps_high_rsp(void **state)
{
    struct machine *m = machine_long();
    u64 sp = STACK0 - 0x200;
    (void)state;
    put64(m, (u32)sp, 0x100);
    put64(m, (u32)sp + 8, SEL_CODE32_3);
    put64(m, (u32)sp + 16, 0x202);
    put64(m, (u32)sp + 24, 0xdead1234);
    put64(m, (u32)sp + 32, SEL_DATA16_3);
    m->s.gpr[X86_RSP] = sp;
    assert_int_equal(RUN(m, 0x48, 0xcf), INTERP_OK);
    assert_int_equal(m->s.cpl, 3);
    assert_int_equal(m->s.rip, 0x100);
    assert_int_equal(m->s.gpr[X86_RSP], ((sp + 40) & ~0xffffull) | 0x1234);
    machine_free(m);
}

static void events__iretq_bad_frames_fault(void **state)
{
    static const struct {
        u64 rip, cs, ss;
        u32 vector, error;
    } c[] = {
        {0x800000000000, SEL_CODE0, SEL_DATA0, X86_GP, 0},
        {CODE, 0, SEL_DATA0, X86_GP, 0},
        {CODE, SEL_DATA0, SEL_DATA0, X86_GP, SEL_DATA0},
        {CODE, 0xf8 + 0x100, SEL_DATA0, X86_GP, 0x1f8},
        {CODE, SEL_CODE3, 0, X86_GP, 0},
        {CODE, SEL_CODE3, SEL_DATA0, X86_GP, SEL_DATA0},
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
        struct machine *m = machine_long();
        u32 sp = STACK0 - 0x200;
        put64(m, sp, c[i].rip);
        put64(m, sp + 8, c[i].cs);
        put64(m, sp + 16, 2);
        put64(m, sp + 24, STACK0);
        put64(m, sp + 32, c[i].ss);
        m->s.gpr[X86_RSP] = sp;
        assert_int_equal(RUN(m, 0x48, 0xcf), INTERP_OK);
        assert_vector(m, c[i].vector);
        assert_int_equal(get64(m, m->s.gpr[X86_RSP]), c[i].error);
        assert_int_equal(get64(m, m->s.gpr[X86_RSP] + 32), sp); /* nothing was popped */
        machine_free(m);
    }
}

static void events__iret_nt_in_long_mode_faults(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.rflags |= RFLAGS_NT;
    assert_int_equal(RUN(m, 0x48, 0xcf), INTERP_OK);
    assert_vector(m, X86_GP);
    machine_free(m);
}

static void events__single_step_and_mov_ss(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    m->s.rflags |= RFLAGS_TF;
    assert_int_equal(RUN(m, 0x90), INTERP_OK);
    assert_vector(m, X86_DB);
    assert_true(m->s.dr6 & DR6_BS);
    assert_int_equal(get32(m, m->s.gpr[X86_RSP]), CODE + 1);
    assert_false(m->s.rflags & RFLAGS_TF);
    machine_free(m);

    m = machine_prot32();
    m->s.rflags |= RFLAGS_TF;
    m->s.gpr[X86_RAX] = SEL_DATA0;
    assert_int_equal(RUN(m, 0x8e, 0xd0), INTERP_OK); /* mov ss, ax holds the trap back */
    assert_int_equal(m->s.rip, CODE + 2);
    assert_int_equal(m->s.int_shadow, 2);
    assert_int_equal(RUN(m, 0x90), INTERP_OK);
    assert_vector(m, X86_DB);
    assert_int_equal(get32(m, m->s.gpr[X86_RSP]), CODE + 3);
    machine_free(m);
}

static void events__branch_steps(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.rflags |= RFLAGS_TF;
    m->s.debugctl = 2; /* BTF */
    assert_int_equal(RUN(m, 0x90), INTERP_OK);
    assert_int_equal(m->s.rip, CODE + 1);
    assert_int_equal(RUN(m, 0xeb, 0x10), INTERP_OK); /* jmp */
    assert_vector(m, X86_DB);
    assert_int_equal(get64(m, m->s.gpr[X86_RSP]), CODE + 0x13);
    assert_int_equal(m->s.debugctl, 0);
    machine_free(m);
}

static void events__step_after_sysret(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.star = 0x0010000800000000ull;
    m->s.gpr[X86_RCX] = DATA;
    m->s.gpr[X86_R11] = RFLAGS_TF;
    assert_int_equal(RUN(m, 0x48, 0x0f, 0x07), INTERP_OK);
    assert_vector(m, X86_DB);
    assert_int_equal(get64(m, m->s.gpr[X86_RSP]), DATA);
    assert_int_equal(get64(m, m->s.gpr[X86_RSP] + 8), 0x23);
    machine_free(m);
}

static void events__breakpoints(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.dr[1] = CODE;
    m->s.dr7 = DR7_INIT | 8; /* G1, execute */
    assert_int_equal(RUN(m, 0x90), INTERP_OK);
    assert_vector(m, X86_DB);
    assert_int_equal(m->s.dr6 & 0xf, 2);
    assert_int_equal(get64(m, m->s.gpr[X86_RSP]), CODE);
    assert_false(get64(m, m->s.gpr[X86_RSP] + 16) & RFLAGS_RF);
    /* RF lets the instruction through once */
    m->s.rip = CODE;
    m->s.rflags |= RFLAGS_RF;
    assert_int_equal(RUN(m, 0x90), INTERP_OK);
    assert_int_equal(m->s.rip, CODE + 1);
    assert_false(m->s.rflags & RFLAGS_RF);

    /* write watchpoint, 4 bytes: traps after the instruction */
    m->s.dr6 = DR6_INIT;
    m->s.dr[0] = DATA;
    m->s.dr7 = DR7_INIT | 1 | 0xd0000;
    m->s.gpr[X86_RAX] = DATA + 3;
    assert_int_equal(RUN(m, 0x88, 0x18), INTERP_OK); /* mov [rax], bl */
    assert_vector(m, X86_DB);
    assert_int_equal(m->s.dr6 & 0xf, 1);
    assert_int_equal(get64(m, m->s.gpr[X86_RSP]), CODE + 3);
    machine_free(m);
}

static void events__general_detect(void **state)
{
    struct machine *m = machine_long();
    (void)state;
    m->s.dr7 = DR7_INIT | DR7_GD;
    assert_int_equal(RUN(m, 0x0f, 0x21, 0xf8), INTERP_OK); /* mov rax, dr7 */
    assert_vector(m, X86_DB);
    assert_true(m->s.dr6 & DR6_BD);
    assert_false(m->s.dr7 & DR7_GD);
    machine_free(m);
}

static void events__alignment_loop_ends(void **state)
{
    struct machine *m = machine_prot32();
    (void)state;
    /* ring 3 handlers of #AC on a misaligned ring 3 stack: would nest for ever */
    machine_ring3(m);
    m->s.cr0 |= CR0_AM;
    m->s.rflags |= RFLAGS_AC;
    m->s.gpr[X86_RSP] = STACK3 + 1;
    put64(m, IDT + 8 * X86_AC_FAULT, gate(SEL_CODE3, HANDLER, 14, 3));
    struct interp_fault f = {.vector = X86_AC_FAULT, .has_error = true};
    assert_int_equal(interp_exception(&m->in, &f), INTERP_SHUTDOWN);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events__real_mode_frame),
        cmocka_unit_test(events__real_mode_short_ivt_shuts_down),
        cmocka_unit_test(events__prot32_same_level_error_code),
        cmocka_unit_test(events__prot32_from_ring3_switches_stack),
        cmocka_unit_test(events__long_page_fault_from_ring3),
        cmocka_unit_test(events__long_ist_and_alignment),
        cmocka_unit_test(events__begun_elsewhere),
        cmocka_unit_test(events__soft_int_needs_gate_dpl),
        cmocka_unit_test(events__missing_gate_reports_ext),
        cmocka_unit_test(events__double_and_triple_fault),
        cmocka_unit_test(events__fault_on_stack_is_serial),
        cmocka_unit_test(events__page_fault_in_page_fault_doubles),
        cmocka_unit_test(events__non_canonical_stack_is_ss),
        cmocka_unit_test(events__v86_interrupt_and_return),
        cmocka_unit_test(events__v86_iopl_and_vme),
        cmocka_unit_test(events__sti_from_vip_faults),
        cmocka_unit_test(events__iretq_to_16bit_stack_keeps_high_rsp),
        cmocka_unit_test(events__iretq_bad_frames_fault),
        cmocka_unit_test(events__iret_nt_in_long_mode_faults),
        cmocka_unit_test(events__single_step_and_mov_ss),
        cmocka_unit_test(events__branch_steps),
        cmocka_unit_test(events__step_after_sysret),
        cmocka_unit_test(events__breakpoints),
        cmocka_unit_test(events__general_detect),
        cmocka_unit_test(events__alignment_loop_ends),
    };
    return cmocka_run_group_tests_name("system_events", tests, NULL, NULL);
}
