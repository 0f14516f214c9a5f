/* SPDX-License-Identifier: Apache-2.0 */
/* Segment registers and descriptors (SDM 3A chapters 3 and 5; SDM 2 MOV, POP, LDS, LLDT). */
#include "engine/interp/system_priv.h"

#define RAW_ACCESSED BIT64(40)
#define RAW_TSS_BUSY BIT64(41)

/* --- descriptors in memory */

/* Linear address of entry sel in its table when its `size` bytes are within the limit. */
static bool table_entry(const struct interp *in, u16 sel, unsigned size, u64 *lin)
{
    const struct x86_vcpu_state *s = in->s;
    u64 base = s->gdtr.base;
    u32 limit = s->gdtr.limit;
    u32 off = sel & 0xfff8u;

    if (sel & 4) {
        if (!(s->ldtr.attr & X86_SEG_P))
            return false;
        base = s->ldtr.base;
        limit = s->ldtr.limit;
    }
    if ((u64)off + size - 1 > limit)
        return false;
    *lin = base + off;
    if (!x86_long_mode(s))
        *lin = (u32)*lin;
    return true;
}

bool idesc_read(struct interp *in, u16 sel, struct idesc *d)
{
    if (!table_entry(in, sel, 8, &d->lin))
        return false;
    d->raw = im_lin_read(in, d->lin, 8, im_system_access(in));
    d->upper = 0;
    d->sel = sel;
    d->attr = (u16)(d->raw >> 40 & 0xf0ff);
    return true;
}

void idesc_need(struct interp *in, u16 sel, u8 vector, struct idesc *d)
{
    if (!idesc_read(in, sel, d))
        interp_raise_err(in, vector, sel_error(sel));
}

void idesc_need_upper(struct interp *in, u8 vector, struct idesc *d)
{
    u64 lin;
    if (!table_entry(in, d->sel, 16, &lin))
        interp_raise_err(in, vector, sel_error(d->sel));
    u64 hi = im_lin_read(in, d->lin + 8, 8, im_system_access(in));
    if (hi >> 32 & 0x1f00)
        interp_raise_err(in, vector, sel_error(d->sel));
    d->upper = (u32)hi;
}

void idesc_mark_accessed(struct interp *in, struct idesc *d)
{
    if (d->raw & RAW_ACCESSED)
        return;
    d->raw |= RAW_ACCESSED;
    d->attr |= X86_SEG_ACCESSED;
    im_lin_write(in, d->lin + 5, 1, d->raw >> 40 & 0xff, im_system_access(in));
}

void idesc_set_busy(struct interp *in, u16 sel, bool busy)
{
    struct idesc d;
    if (!idesc_read(in, sel, &d))
        return;
    u64 raw = busy ? d.raw | RAW_TSS_BUSY : d.raw & ~RAW_TSS_BUSY;
    im_lin_write(in, d.lin + 5, 1, raw >> 40 & 0xff, im_system_access(in));
}

void idesc_to_seg(const struct idesc *d, u16 sel, struct x86_seg *seg)
{
    u64 raw = d->raw;
    u32 limit = (u32)(raw & 0xffff) | (u32)(raw >> 32 & 0xf0000);
    if (d->attr & X86_SEG_G)
        limit = limit << 12 | 0xfff;
    seg->base = (raw >> 16 & 0xffffff) | (raw >> 32 & 0xff000000) | d->upper << 32;
    seg->limit = limit;
    seg->sel = sel;
    seg->attr = d->attr;
}

/* --- register contents */

void iseg_set_null(struct x86_seg *seg, u16 sel)
{
    *seg = (struct x86_seg){.sel = sel};
}

void iseg_set_real(struct interp *in, unsigned seg, u16 sel)
{
    struct x86_seg *r = &in->s->seg[seg];
    r->sel = sel;
    r->base = (u64)sel << 4;
    if (in_v86(in->s)) {
        r->limit = 0xffff;
        r->attr = X86_SEG_P | X86_SEG_DPL | X86_SEG_S | X86_SEG_RW | X86_SEG_ACCESSED;
    } else if (!(r->attr & X86_SEG_P)) {
        /* Null when protected mode was left. Otherwise limit and attributes stay ("unreal mode").
         */
        r->limit = 0xffff;
        r->attr = X86_SEG_P | X86_SEG_S | X86_SEG_RW | X86_SEG_ACCESSED;
    }
}

void iseg_set_cpl(struct interp *in, u8 cpl)
{
    in->s->cpl = cpl;
}

void iseg_drop_inner(struct interp *in)
{
    struct x86_vcpu_state *s = in->s;
    static const u8 data[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        struct x86_seg *r = &s->seg[data[i]];
        bool conforming = attr_is_code(r->attr) && attr_is_conforming(r->attr);
        /* A null selector loses its RPL, too, and in long mode keeps its base. */
        if (sel_null(r->sel)) {
            r->sel = 0;
            continue;
        }
        if (!(r->attr & X86_SEG_P) || conforming || attr_dpl(r->attr) >= s->cpl)
            continue;
        u64 base = x86_long_mode(s) ? r->base : 0;
        iseg_set_null(r, 0);
        r->base = base;
    }
}

/* --- loads */

void iseg_need_stack(struct interp *in, u16 sel, unsigned dpl, u8 vector, struct idesc *d)
{
    if (sel_null(sel))
        interp_raise_err(in, vector, sel_error(sel));
    idesc_need(in, sel, vector, d);
    if ((sel & 3u) != dpl || attr_dpl(d->attr) != dpl || !attr_is_writable_data(d->attr))
        interp_raise_err(in, vector, sel_error(sel));
    if (!(d->attr & X86_SEG_P))
        interp_raise_err(in, X86_SS_FAULT, sel_error(sel));
}

static void load_null(struct interp *in, unsigned seg, u16 sel)
{
    struct x86_vcpu_state *s = in->s;
    if (seg != X86_SS) {
        iseg_set_null(&s->seg[seg], sel);
        return;
    }
    /* A null SS is legal in 64-bit mode inside the kernel only (SDM 2B MOV). */
    if (!x86_64bit(s) || s->cpl == 3 || (sel & 3) != s->cpl)
        interp_raise_err(in, X86_GP, 0);
    iseg_set_null(&s->seg[seg], sel);
    s->seg[seg].attr = (u16)(s->cpl << X86_SEG_DPL_SHIFT);
}

void iseg_load(struct interp *in, unsigned seg, u16 sel)
{
    struct x86_vcpu_state *s = in->s;
    struct idesc d;

    if (!x86_protected(s)) {
        iseg_set_real(in, seg, sel);
        return;
    }
    if (sel_null(sel)) {
        load_null(in, seg, sel);
        return;
    }
    if (seg == X86_SS) {
        iseg_need_stack(in, sel, s->cpl, X86_GP, &d);
    } else {
        idesc_need(in, sel, X86_GP, &d);
        bool code = attr_is_code(d.attr);
        if (!(d.attr & X86_SEG_S) || (code && !(d.attr & X86_SEG_RW)))
            interp_raise_err(in, X86_GP, sel_error(sel));
        unsigned dpl = attr_dpl(d.attr);
        if (!(code && attr_is_conforming(d.attr)) && ((sel & 3u) > dpl || s->cpl > dpl))
            interp_raise_err(in, X86_GP, sel_error(sel));
        if (!(d.attr & X86_SEG_P))
            interp_raise_err(in, X86_NP, sel_error(sel));
    }
    idesc_mark_accessed(in, &d);
    idesc_to_seg(&d, sel, &s->seg[seg]);
}

void iseg_load_ldt(struct interp *in, u16 sel, u8 vector, u8 missing)
{
    struct x86_vcpu_state *s = in->s;
    struct idesc d;

    if (sel_null(sel)) {
        iseg_set_null(&s->ldtr, sel);
        return;
    }
    if (sel & 4)
        interp_raise_err(in, vector, sel_error(sel));
    idesc_need(in, sel, vector, &d);
    if (attr_system_type(d.attr) != DESC_LDT)
        interp_raise_err(in, vector, sel_error(sel));
    if (!(d.attr & X86_SEG_P))
        interp_raise_err(in, missing, sel_error(sel));
    struct x86_seg seg;
    if (x86_long_mode(s))
        idesc_need_upper(in, vector, &d);
    idesc_to_seg(&d, sel, &seg);
    if (x86_long_mode(s) && !im_canonical(in, seg.base))
        interp_raise_err(in, vector, sel_error(sel));
    s->ldtr = seg;
}

/* --- instructions */

enum interp_result isys_push_seg(struct interp *in, const struct x86_insn *insn)
{
    struct istack st;
    istack_current(in, &st);
    istack_push(in, &st, insn->opsize, in->s->seg[insn->op[0].reg].sel);
    istack_commit(in, &st);
    return INTERP_OK;
}

enum interp_result isys_pop_seg(struct interp *in, const struct x86_insn *insn)
{
    unsigned seg = insn->op[0].reg;
    struct istack st;
    istack_current(in, &st);
    u16 sel = (u16)istack_pop(in, &st, insn->opsize);
    iseg_load(in, seg, sel);
    istack_commit(in, &st);
    if (seg == X86_SS)
        in->new_shadow = 2;
    return INTERP_OK;
}

enum interp_result isys_mov(struct interp *in, const struct x86_insn *insn)
{
    switch (insn->op[0].kind == X86_OP_GPR || insn->op[0].kind == X86_OP_MEM ? insn->op[1].kind
                                                                             : insn->op[0].kind) {
    case X86_OP_CR:
        return isys_movcr(in, insn);
    case X86_OP_DR:
        return isys_movdr(in, insn);
    default:
        break;
    }
    if (insn->op[0].kind != X86_OP_SEG) {
        io_write(in, insn, 0, in->s->seg[insn->op[1].reg].sel);
        return INTERP_OK;
    }
    unsigned seg = insn->op[0].reg;
    if (seg == X86_CS || seg >= X86_NSEG)
        interp_raise(in, X86_UD);
    iseg_load(in, seg, (u16)io_read(in, insn, 1));
    if (seg == X86_SS)
        in->new_shadow = 2;
    return INTERP_OK;
}

/* LDS, LES, LFS, LGS, LSS */
enum interp_result isys_lxs(struct interp *in, const struct x86_insn *insn)
{
    unsigned seg, size = insn->opsize;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_LDS:
        seg = X86_DS;
        break;
    case ZYDIS_MNEMONIC_LES:
        seg = X86_ES;
        break;
    case ZYDIS_MNEMONIC_LFS:
        seg = X86_FS;
        break;
    case ZYDIS_MNEMONIC_LGS:
        seg = X86_GS;
        break;
    default:
        seg = X86_SS;
        break;
    }
    u64 ea = im_ea(in, insn), wrap = size_mask(insn->addrsize);
    u64 off = im_read(in, insn->mem.seg, ea, size);
    u16 sel = (u16)im_read(in, insn->mem.seg, (ea + size) & wrap, 2);
    iseg_load(in, seg, sel);
    io_set_gpr(in, insn->op[0].reg, size, off);
    return INTERP_OK;
}
