/* SPDX-License-Identifier: Apache-2.0 */
/* Port I/O: IN, OUT, INS, OUTS with IOPL and the I/O permission bitmap (SDM 1 chapter 19). */
#include "engine/interp/system_priv.h"

#define TSS_IO_BASE 0x66u
#define REP_CHUNK 256u /* iterations before interrupts are looked at */

bool iio_allowed(struct interp *in, u16 port, unsigned size)
{
    const struct x86_vcpu_state *s = in->s;
    const struct x86_seg *tr = &s->tr;
    int type = attr_system_type(tr->attr);

    if (!(s->cr0 & CR0_PE) || (!in_v86(s) && s->cpl <= iopl(s)))
        return true;
    if ((type != DESC_TSS32 && type != DESC_TSS32_BUSY) || !(tr->attr & X86_SEG_P) ||
        tr->limit < TSS_IO_BASE + 1)
        return false;
    u64 lin = tr->base + TSS_IO_BASE;
    u64 wrap = x86_long_mode(s) ? ~(u64)0 : 0xffffffff;
    u32 off = (u32)im_lin_read(in, lin & wrap, 2, im_system_access(in)) + port / 8u;
    if (off + 1 > tr->limit) /* two bytes are always read */
        return false;
    u64 bits = im_lin_read(in, (tr->base + off) & wrap, 2, im_system_access(in));
    return !(bits >> (port & 7) & ((1u << size) - 1));
}

static void need_port(struct interp *in, u16 port, unsigned size)
{
    if (!iio_allowed(in, port, size))
        interp_raise_err(in, X86_GP, 0);
}

static unsigned io_size(const struct x86_insn *insn)
{
    if (!(insn->opcode & 1))
        return 1;
    return insn->opsize == 2 ? 2 : 4;
}

static u16 io_port(const struct interp *in, const struct x86_insn *insn)
{
    return insn->opcode & 8 ? (u16)in->s->gpr[X86_RDX] : (u8)insn->imm[0];
}

static void watch(struct interp *in, u16 port, unsigned size)
{
    if (unlikely(in->s->dr7 & DR7_ENABLED))
        idebug_io(in, port, size);
}

enum interp_result isys_in(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = io_size(insn);
    u16 port = io_port(in, insn);
    need_port(in, port, size);
    io_set_gpr(in, X86_RAX, size, in->ops->pio_read(in->opaque, port, size));
    watch(in, port, size);
    return INTERP_OK;
}

enum interp_result isys_out(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = io_size(insn);
    u16 port = io_port(in, insn);
    need_port(in, port, size);
    in->ops->pio_write(in->opaque, port, size, (u32)io_gpr(in, X86_RAX, size));
    watch(in, port, size);
    return INTERP_OK;
}

/* --- strings */

static void step_index(struct interp *in, unsigned reg, unsigned addrsize, unsigned size)
{
    u64 delta = in->s->rflags & RFLAGS_DF ? 0 - (u64)size : size;
    io_set_gpr(in, reg, addrsize, in->s->gpr[reg] + delta);
}

static void ins_once(struct interp *in, const struct x86_insn *insn, unsigned size, u16 port)
{
    u64 lin = im_linear(in, X86_ES, io_gpr(in, X86_RDI, insn->addrsize), size, true);
    im_lin_probe_write(in, lin, size, im_access(in)); /* before the port is read */
    u32 val = in->ops->pio_read(in->opaque, port, size);
    watch(in, port, size);
    im_lin_write(in, lin, size, val, im_access(in));
    step_index(in, X86_RDI, insn->addrsize, size);
}

static void outs_once(struct interp *in, const struct x86_insn *insn, unsigned size, u16 port)
{
    u64 val = im_read(in, insn->mem.seg, io_gpr(in, X86_RSI, insn->addrsize), size);
    in->ops->pio_write(in->opaque, port, size, (u32)val);
    watch(in, port, size);
    step_index(in, X86_RSI, insn->addrsize, size);
}

static enum interp_result string_io(struct interp *in, const struct x86_insn *insn,
                                    void (*once)(struct interp *, const struct x86_insn *, unsigned,
                                                 u16))
{
    struct x86_vcpu_state *s = in->s;
    unsigned size = io_size(insn), as = insn->addrsize;
    u16 port = (u16)s->gpr[X86_RDX];
    bool rep = (insn->prefixes & (X86_PFX_REP | X86_PFX_REPNE)) != 0;

    if (rep && !io_gpr(in, X86_RCX, as))
        return INTERP_OK;
    need_port(in, port, size);
    if (!rep) {
        once(in, insn, size, port);
        return INTERP_OK;
    }
    unsigned n = s->rflags & RFLAGS_TF ? 1 : REP_CHUNK;
    for (;;) {
        once(in, insn, size, port);
        u64 left = io_gpr(in, X86_RCX, as) - 1;
        io_set_gpr(in, X86_RCX, as, left);
        if (!(left & size_mask(as)))
            return INTERP_OK;
        if (!--n || s->db_pending)
            break;
    }
    in->next_rip = s->rip; /* goes on after a look at interrupts */
    s->rflags |= RFLAGS_RF;
    return INTERP_OK;
}

enum interp_result isys_ins(struct interp *in, const struct x86_insn *insn)
{
    return string_io(in, insn, ins_once);
}

enum interp_result isys_outs(struct interp *in, const struct x86_insn *insn)
{
    return string_io(in, insn, outs_once);
}
