// SPDX-License-Identifier: Apache-2.0
/* Virtual-8086 mode: addressing, what is sensitive to IOPL, interrupts out of it, VME
 * (SDM 3B chapter 20). */
#include "x32.h"

#define C(name) extern const char name[]
C(v_plain);
C(v_int);
C(v_cli);
C(v_sti);
C(v_pushf);
C(v_popf);
C(v_popf_noif);
C(v_iret);
C(v_hlt);
C(v_mov_cr);
C(v_lgdt);
C(v_sldt);
C(v_in);
C(v_div);
C(v_far);
C(v_top);
C(v_limit);
C(v_softint);
C(v_handler60);
C(v_loop);
C(v_icebp);
C(v_pm_load);

static void v86_regs(struct regs *r, const char *fn, u32 iopl)
{
    memset(r, 0, sizeof(*r));
    r->eip = (u32)fn;
    r->eflags = 2 | F_VM | iopl << 12;
    r->esp = 0x1e00;
    r->ves = r->vds = r->vfs = r->vgs = 0;
    r->fs = r->gs = r->ds = r->es = SEL_DATA;
}

static void v86(struct trap *t, const char *fn, u32 iopl)
{
    struct regs r;

    idt_set(V_BP, trap_entry(V_BP), SEL_CODE, 3, 14);
    v86_regs(&r, fn, iopl);
    run_until_trap(t, &r);
}

TEST(v86__addresses_like_an_8086)
{
    struct trap t;

    *(volatile u32 *)0x12360 = 0x31415926;
    v86(&t, v_plain, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK(t.regs.eflags & F_VM);
    CHECK_EQ(t.regs.ecx & 0xffff, 2);
    CHECK_EQ(t.regs.edx & 0xffff, 0);
    CHECK_EQ(t.regs.ves, 0x1234);
    CHECK_EQ(t.regs.esp, 0x1e00);
    v86(&t, v_top, 3);
    CHECK_EQ(t.regs.ebx, *(volatile u32 *)0x100000);
    v86(&t, v_pm_load, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.ebx & 0xffff, 0xb000); /* any value goes: selectors are not checked */
    CHECK_EQ(t.regs.vfs, 0xb000);
}

TEST(v86__traps_clear_the_segments)
{
    struct trap t;
    struct regs r;

    v86_regs(&r, v_int, 3);
    r.ves = 0x1111;
    r.vds = 0x2222;
    r.vfs = 0x3333;
    r.vgs = 0x4444;
    idt_set(0x55, trap_entry(0x55), SEL_CODE, 3, 14);
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, 0x55);
    CHECK_EQ(t.regs.ves, 0x1111);
    CHECK_EQ(t.regs.vds, 0x2222);
    CHECK_EQ(t.regs.vfs, 0x3333);
    CHECK_EQ(t.regs.vgs, 0x4444);
    CHECK_EQ(t.regs.ds & 0xffff, 0); /* as the handler found them */
    CHECK_EQ(t.regs.es & 0xffff, 0);
    CHECK_EQ(t.regs.fs & 0xffff, 0);
    CHECK_EQ(t.regs.gs & 0xffff, 0);
    CHECK_EQ(t.regs.eip, (u32)v_int + 2);
}

TEST(v86__far_calls)
{
    struct trap t;

    v86(&t, v_far, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.ebx & 0xffff, 0x10);
    CHECK_EQ(t.regs.cs & 0xffff, 0);
}

TEST(v86__faults_come_out)
{
    struct trap t;

    v86(&t, v_div, 0);
    CHECK_EQ(t.vector, V_DE);
    CHECK_EQ(t.regs.eip, (u32)v_div + 2);
    CHECK(t.regs.eflags & F_VM);
}

TEST(v86__privileged_instructions)
{
    struct trap t;

    v86(&t, v_hlt, 3);
    CHECK_EQ(t.vector, V_GP);
    v86(&t, v_mov_cr, 3);
    CHECK_EQ(t.vector, V_GP);
    v86(&t, v_lgdt, 3);
    CHECK_EQ(t.vector, V_GP);
    v86(&t, v_sldt, 3);
    CHECK_EQ(t.vector, V_UD);
}

TEST(v86__iopl_below_3)
{
    static const struct {
        const char *fn;
        const char *name;
    } sensitive[] = {{v_int, "int"},     {v_cli, "cli"},       {v_sti, "sti"},
                     {v_pushf, "pushf"}, {v_popf + 3, "popf"}, {v_iret + 8, "iret"}};
    struct trap t;

    for (u32 iopl = 0; iopl < 3; iopl++)
        for (unsigned i = 0; i < ARRAY_SIZE(sensitive); i++) {
            v86(&t, sensitive[i].fn, iopl);
            if (t.vector != V_GP || t.error != 0 || t.regs.eip != (u32)sensitive[i].fn)
                test_failed(__LINE__, "%s with IOPL %u: vector %x error %x eip %x",
                            sensitive[i].name, iopl, t.vector, t.error, t.regs.eip);
        }
    v86(&t, v_plain, 0); /* INT3 is not sensitive */
    CHECK_EQ(t.vector, V_BP);
}

TEST(v86__iopl_3)
{
    struct trap t;

    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    v86(&t, v_cli, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eflags & F_IF, 0);
    v86(&t, v_sti, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eflags & F_IF, F_IF);
    v86(&t, v_popf, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eax & 0xffff, 0x3246); /* IOPL stays 3 */
    CHECK_EQ(t.regs.eflags & F_IF, F_IF);
    v86(&t, v_popf_noif, 3);
    CHECK_EQ(t.regs.eax & 0xffff, 0x3002);
    v86(&t, v_iret, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eax & 0x203, 0x203);
    CHECK(t.regs.eflags & F_VM);
    /* INT with a gate of DPL 0 */
    idt_set(0x55, trap_entry(0x55), SEL_CODE, 0, 14);
    v86(&t, v_int, 3);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.error, 0x55 * 8 + 2);
}

TEST(v86__ports_go_by_the_map)
{
    struct trap t;

    v86(&t, v_in, 3); /* whatever IOPL says */
    CHECK_EQ(t.vector, V_GP);
    tss.bitmap[0x80 / 8] &= (u8) ~(1 << 0x80 % 8);
    v86(&t, v_in, 0);
    CHECK_EQ(t.vector, V_BP);
}

TEST_QEMU_DEVIATES(v86__limit_of_64_kib, "checks no segment limits")
{
    struct trap t;

    v86(&t, v_limit, 3);
    CHECK_EQ(t.vector, V_GP);
}

TEST(v86__loop)
{
    struct trap t;

    v86(&t, v_loop, 0);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eax, 300000);
    CHECK_EQ(t.regs.ecx, 0);
}

TEST(v86__entered_and_left_many_times)
{
    struct trap t;

    for (unsigned i = 0; i < 1000; i++) {
        v86(&t, v_plain, 3);
        if (t.vector != V_BP) {
            test_failed(__LINE__, "vector %x in round %u", t.vector, i);
            break;
        }
    }
}

static bool vme(void)
{
    if (!cpu_has(1, 0, 3, 1))
        return false;
    WRITE_CR(4, READ_CR(4) | CR4_VME);
    return true;
}

TEST(vme__software_interrupts_by_the_map)
{
    struct trap t;

    if (!vme())
        SKIP("no VME");
    *(volatile u32 *)(0x60 * 4) = (u32)v_handler60;  /* 0:handler */
    tss.redirect[0x60 / 8] &= (u8) ~(1 << 0x60 % 8); /* clear: to the program's own table */
    v86(&t, v_softint, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eax & 0xffff, 0x6060);
    v86(&t, v_softint, 0); /* with IOPL below 3 too */
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eax & 0xffff, 0x6060);
    tss.redirect[0x60 / 8] |= 1 << 0x60 % 8;
    v86(&t, v_softint, 0);
    CHECK_EQ(t.vector, V_GP);
    idt_set(0x60, trap_entry(0x60), SEL_CODE, 3, 14);
    v86(&t, v_softint, 3);
    CHECK_EQ(t.vector, 0x60);
}

TEST(vme__virtual_interrupt_flag)
{
    struct trap t;
    struct regs r;

    if (!vme())
        SKIP("no VME");
    v86_regs(&r, v_sti, 0);
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eflags & (F_VIF | F_IF), F_VIF); /* STI sets VIF alone */
    v86_regs(&r, v_cli, 0);
    r.eflags |= F_VIF | F_IF;
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eflags & (F_VIF | F_IF), F_IF);
    /* PUSHF shows VIF as IF, and IOPL as 3 */
    v86_regs(&r, v_pushf, 0);
    r.eflags |= F_VIF;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eax & 0x3200, 0x3200);
    v86_regs(&r, v_pushf, 0);
    run_until_trap(&t, &r);
    CHECK_EQ(t.regs.eax & 0x3200, 0x3000);
    v86_regs(&r, v_popf, 0);
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eflags & (F_VIF | F_IF), F_VIF);
    /* STI with an interrupt pending: #GP, so that the monitor can deliver it */
    v86_regs(&r, v_sti, 0);
    r.eflags |= F_VIP;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.regs.eip, (u32)v_sti);
}

static const u8 pvi_sti[] = {0xfb, 0x90, 0xcc};
static const u8 pvi_cli[] = {0xfa, 0x90, 0xcc};

TEST_QEMU_DEVIATES(pvi__in_ring_3, "knows no CR4.PVI")
{
    struct trap t;
    struct regs r;
    static u8 code[8];

    if (!cpu_has(1, 0, 3, 1))
        SKIP("no PVI");
    WRITE_CR(4, READ_CR(4) | CR4_PVI);
    memcpy(code, pvi_sti, 3);
    user_regs(&r, code);
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eflags & (F_VIF | F_IF), F_VIF);
    memcpy(code, pvi_cli, 3);
    user_regs(&r, code);
    r.eflags |= F_VIF;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eflags & F_VIF, 0);
    memcpy(code, pvi_sti, 3);
    user_regs(&r, code);
    r.eflags |= F_VIP;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_GP);
}

TEST(v86__debug_step)
{
    struct trap t;
    struct regs r;

    v86_regs(&r, v_plain, 0);
    r.eflags |= F_TF;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_DB);
    CHECK_EQ(t.regs.eip, (u32)v_plain + 3);
    CHECK(t.regs.eflags & F_VM);
}
