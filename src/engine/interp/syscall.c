/* SPDX-License-Identifier: Apache-2.0 */
/* SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS (SDM 2B; APM 3). The vendors differ; see each. */
#include "engine/interp/system_priv.h"

#define ATTR_FLAT (X86_SEG_P | X86_SEG_S | X86_SEG_RW | X86_SEG_ACCESSED | X86_SEG_G)
#define ATTR_CODE (ATTR_FLAT | X86_SEG_CODE)
#define ATTR_DATA (ATTR_FLAT | X86_SEG_DB)

/* The fixed flat segments these instructions load without looking at descriptors. */
static void flat(struct interp *in, unsigned seg, u16 sel, unsigned attr, unsigned dpl)
{
    in->s->seg[seg] = (struct x86_seg){
        .limit = 0xffffffff, .sel = sel, .attr = (u16)(attr | dpl << X86_SEG_DPL_SHIFT)};
}

/* SYSCALL and SYSRET trap when TF is set once they are done, whatever it was before. */
static void step_by_new_flags(struct interp *in)
{
    in->suppress_tf = true;
    if (in->s->rflags & RFLAGS_TF) {
        in->s->dr6 |= DR6_BS;
        in->s->db_pending = 1;
    }
}

enum interp_result isys_syscall(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    bool lma = x86_long_mode(s), long64 = x86_64bit(s);
    u16 sel = (u16)(s->star >> 32) & 0xfffc;

    (void)insn;
    /* AMD has it in legacy and compatibility mode too (APM 3 SYSCALL). */
    if (!(s->efer & EFER_SCE) || (!in->model->amd && !long64) || !(s->cr0 & CR0_PE) || in_v86(s))
        interp_raise(in, X86_UD);
    if (lma) {
        u64 target = long64 ? s->lstar : s->cstar;
        s->gpr[X86_RCX] = in->next_rip;
        s->gpr[X86_R11] = s->rflags;
        flat(in, X86_CS, sel, ATTR_CODE | X86_SEG_L, 0);
        flat(in, X86_SS, (u16)(sel + 8), ATTR_DATA, 0);
        iflags_set(in, 0, s->sfmask | RFLAGS_RF);
        in->next_rip = target;
    } else {
        s->gpr[X86_RCX] = (u32)in->next_rip;
        flat(in, X86_CS, sel, ATTR_CODE | X86_SEG_DB, 0);
        flat(in, X86_SS, (u16)(sel + 8), ATTR_DATA, 0);
        iflags_set(in, 0, RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
        in->next_rip = (u32)s->star;
    }
    iseg_set_cpl(in, 0);
    step_by_new_flags(in);
    return INTERP_OK;
}

enum interp_result isys_sysret(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    bool long64 = x86_64bit(s), to64 = insn->opsize == 8;
    u16 sel = (u16)((s->star >> 48) | 3);

    if (!(s->efer & EFER_SCE) || (!in->model->amd && !long64) || !(s->cr0 & CR0_PE) || in_v86(s))
        interp_raise(in, X86_UD);
    need_cpl0(in);
    /* Intel faults in ring 0 here, AMD on the fetch in ring 3 (SDM 2B SYSRET). */
    if (to64 && !im_canonical(in, s->gpr[X86_RCX]) && !in->model->amd)
        interp_raise_err(in, X86_GP, 0);

    if (to64) {
        flat(in, X86_CS, (u16)(sel + 16), ATTR_CODE | X86_SEG_L, 3);
        in->next_rip = s->gpr[X86_RCX];
    } else {
        flat(in, X86_CS, sel, ATTR_CODE | X86_SEG_DB, 3);
        in->next_rip = (u32)s->gpr[X86_RCX];
    }
    flat(in, X86_SS, (u16)(sel + 8), ATTR_DATA, 3);
    if (x86_long_mode(s)) {
        u64 keep = RFLAGS_VM | RFLAGS_RF;
        u64 all = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT |
                  RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID;
        iflags_set(in, s->gpr[X86_R11], all | keep);
        s->rflags &= ~keep;
    } else {
        s->rflags |= RFLAGS_IF;
    }
    iseg_set_cpl(in, 3);
    step_by_new_flags(in);
    return INTERP_OK;
}

enum interp_result isys_sysenter(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    bool lma = x86_long_mode(s);
    u16 sel = (u16)(s->sysenter_cs & 0xfffc);

    (void)insn;
    if (in->model->amd && lma) /* APM 3 SYSENTER: legacy mode only */
        interp_raise(in, X86_UD);
    if (!(s->cr0 & CR0_PE) || sel_null((u16)s->sysenter_cs))
        interp_raise_err(in, X86_GP, 0);
    iflags_set(in, 0, RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
    flat(in, X86_CS, sel, ATTR_CODE | (lma ? X86_SEG_L : X86_SEG_DB), 0);
    flat(in, X86_SS, (u16)(sel + 8), ATTR_DATA, 0);
    s->gpr[X86_RSP] = lma ? s->sysenter_esp : (u32)s->sysenter_esp;
    in->next_rip = lma ? s->sysenter_eip : (u32)s->sysenter_eip;
    iseg_set_cpl(in, 0);
    return INTERP_OK;
}

enum interp_result isys_sysexit(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    bool lma = x86_long_mode(s), to64 = insn->opsize == 8;
    u16 cs = (u16)s->sysenter_cs;

    if (in->model->amd && lma)
        interp_raise(in, X86_UD);
    if (!(s->cr0 & CR0_PE) || s->cpl != 0 || sel_null(cs))
        interp_raise_err(in, X86_GP, 0);
    u64 rip = s->gpr[X86_RDX], rsp = s->gpr[X86_RCX];
    if (to64) {
        if (!im_canonical(in, rip) || !im_canonical(in, rsp))
            interp_raise_err(in, X86_GP, 0);
        cs = (u16)((cs + 32) | 3);
        flat(in, X86_CS, cs, ATTR_CODE | X86_SEG_L, 3);
    } else {
        rip = (u32)rip;
        rsp = (u32)rsp;
        cs = (u16)((cs + 16) | 3);
        flat(in, X86_CS, cs, ATTR_CODE | X86_SEG_DB, 3);
    }
    flat(in, X86_SS, (u16)(cs + 8), ATTR_DATA, 3);
    s->gpr[X86_RSP] = rsp;
    in->next_rip = rip;
    iseg_set_cpl(in, 3);
    return INTERP_OK;
}

enum interp_result isys_swapgs(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    (void)insn;
    if (!x86_64bit(s))
        interp_raise(in, X86_UD);
    need_cpl0(in);
    u64 base = s->seg[X86_GS].base;
    s->seg[X86_GS].base = s->kernel_gs_base;
    s->kernel_gs_base = base;
    return INTERP_OK;
}
