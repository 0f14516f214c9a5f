/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptor-table registers, and the instructions that ask about selectors (SDM 2). */
#include <string.h>

#include "engine/interp/system_priv.h"

/* --- GDTR and IDTR */

static struct x86_dtr *table_register(struct interp *in, u16 mnemonic)
{
    bool gdt = mnemonic == ZYDIS_MNEMONIC_LGDT || mnemonic == ZYDIS_MNEMONIC_SGDT;
    return gdt ? &in->s->gdtr : &in->s->idtr;
}

enum interp_result isys_load_dt(struct interp *in, const struct x86_insn *insn)
{
    unsigned base_size = insn->mode == 64 ? 8 : 4;
    u8 buf[10] = {0};
    u16 limit;
    u64 base = 0;

    need_cpl0(in);
    u64 lin = im_linear(in, insn->mem.seg, im_ea(in, insn), 2 + base_size, false);
    im_lin_read_buf(in, lin, buf, 2 + base_size, im_access(in));
    memcpy(&limit, buf, 2);
    memcpy(&base, buf + 2, base_size);
    if (insn->mode == 64) {
        if (!im_canonical(in, base))
            interp_raise_err(in, X86_GP, 0);
    } else if (insn->opsize == 2) {
        base &= 0xffffff;
    }
    *table_register(in, insn->mnemonic) = (struct x86_dtr){.base = base, .limit = limit};
    return INTERP_OK;
}

enum interp_result isys_store_dt(struct interp *in, const struct x86_insn *insn)
{
    const struct x86_dtr *r = table_register(in, insn->mnemonic);
    unsigned base_size = insn->mode == 64 ? 8 : 4;
    u16 limit = (u16)r->limit;
    u8 buf[10];

    need_umip(in);
    memcpy(buf, &limit, 2);
    memcpy(buf + 2, &r->base, base_size);
    u64 lin = im_linear(in, insn->mem.seg, im_ea(in, insn), 2 + base_size, true);
    im_lin_write_buf(in, lin, buf, 2 + base_size, im_access(in));
    return INTERP_OK;
}

/* --- LDTR and TR */

enum interp_result isys_sldt(struct interp *in, const struct x86_insn *insn)
{
    need_protected(in);
    need_umip(in);
    io_write(in, insn, 0, in->s->ldtr.sel);
    return INTERP_OK;
}

enum interp_result isys_str(struct interp *in, const struct x86_insn *insn)
{
    need_protected(in);
    need_umip(in);
    io_write(in, insn, 0, in->s->tr.sel);
    return INTERP_OK;
}

enum interp_result isys_lldt(struct interp *in, const struct x86_insn *insn)
{
    need_protected(in);
    need_cpl0(in);
    iseg_load_ldt(in, (u16)io_read(in, insn, 0), X86_GP, X86_NP);
    return INTERP_OK;
}

enum interp_result isys_ltr(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    bool lma = x86_long_mode(s);
    struct idesc d;
    struct x86_seg tr;

    need_protected(in);
    need_cpl0(in);
    u16 sel = (u16)io_read(in, insn, 0);
    if (sel_null(sel))
        interp_raise_err(in, X86_GP, 0);
    if (sel & 4)
        interp_raise_err(in, X86_GP, sel_error(sel));
    idesc_need(in, sel, X86_GP, &d);
    int type = attr_system_type(d.attr);
    if (type != DESC_TSS32 && (lma || type != DESC_TSS16))
        interp_raise_err(in, X86_GP, sel_error(sel));
    if (!(d.attr & X86_SEG_P))
        interp_raise_err(in, X86_NP, sel_error(sel));
    if (lma)
        idesc_need_upper(in, X86_GP, &d);
    idesc_to_seg(&d, sel, &tr);
    if (lma && !im_canonical(in, tr.base))
        interp_raise_err(in, X86_GP, sel_error(sel));
    idesc_set_busy(in, sel, true);
    tr.attr |= 2;
    s->tr = tr;
    return INTERP_OK;
}

/* --- LAR, LSL, VERR, VERW, ARPL */

static void set_zf(struct interp *in, bool on)
{
    iflags_set(in, on ? RFLAGS_ZF : 0, RFLAGS_ZF);
}

/* Reads the descriptor of sel if CPL and RPL may see it. */
static bool visible(struct interp *in, u16 sel, struct idesc *d)
{
    if (sel_null(sel) || !idesc_read(in, sel, d))
        return false;
    if (attr_is_code(d->attr) && attr_is_conforming(d->attr))
        return true;
    unsigned dpl = attr_dpl(d->attr);
    return dpl >= in->s->cpl && dpl >= (sel & 3u);
}

/* System descriptor types LAR and LSL accept, as bit masks (SDM 2A LAR, LSL tables). */
static bool system_type_ok(const struct interp *in, const struct idesc *d, u16 legacy, u16 lma)
{
    int type = attr_system_type(d->attr);
    return type < 0 || ((x86_long_mode(in->s) ? lma : legacy) >> type & 1);
}

enum interp_result isys_lar(struct interp *in, const struct x86_insn *insn)
{
    struct idesc d;
    need_protected(in);
    u16 sel = (u16)io_read(in, insn, 1);
    bool ok = visible(in, sel, &d) && system_type_ok(in, &d, 0x1a3e, 0x1a04);
    if (ok)
        /* Bits 19:16, undefined in the manuals, are the limit's on CPUs. */
        io_write(in, insn, 0, d.raw >> 32 & (insn->op[0].size == 16 ? 0xff00 : 0xffff00));
    set_zf(in, ok);
    return INTERP_OK;
}

enum interp_result isys_lsl(struct interp *in, const struct x86_insn *insn)
{
    struct idesc d;
    struct x86_seg seg;
    need_protected(in);
    u16 sel = (u16)io_read(in, insn, 1);
    bool ok = visible(in, sel, &d) && system_type_ok(in, &d, 0x0a0e, 0x0a04);
    if (ok) {
        idesc_to_seg(&d, sel, &seg);
        io_write(in, insn, 0, seg.limit);
    }
    set_zf(in, ok);
    return INTERP_OK;
}

/* VERR and VERW */
enum interp_result isys_verr(struct interp *in, const struct x86_insn *insn)
{
    struct idesc d;
    need_protected(in);
    u16 sel = (u16)io_read(in, insn, 0);
    bool ok = visible(in, sel, &d) && (d.attr & X86_SEG_S);
    if (ok && insn->mnemonic == ZYDIS_MNEMONIC_VERW)
        ok = attr_is_writable_data(d.attr);
    else if (ok && attr_is_code(d.attr))
        ok = (d.attr & X86_SEG_RW) != 0;
    set_zf(in, ok);
    return INTERP_OK;
}

enum interp_result isys_arpl(struct interp *in, const struct x86_insn *insn)
{
    need_protected(in);
    u16 dst = (u16)io_read(in, insn, 0), src = (u16)io_read(in, insn, 1);
    bool raise = (dst & 3) < (src & 3);
    if (raise)
        io_write(in, insn, 0, (u16)((dst & ~3u) | (src & 3)));
    set_zf(in, raise);
    return INTERP_OK;
}
