/* SPDX-License-Identifier: Apache-2.0 */
/* Control and debug registers, and the instructions that manage translations and caches. */
#include <string.h>

#include "engine/interp/system_priv.h"

#define CR0_WRITABLE                                                                               \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
/* Changes that invalidate cached translations (SDM 3A 4.10.4.1). */
#define CR0_PAGING (CR0_PE | CR0_WP | CR0_PG)
#define CR4_PAGING (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_LA57)
/* Writes that reload the PDPTEs (SDM 3A 4.4.1). */
#define CR0_PDPTE (CR0_CD | CR0_NW | CR0_PG)
#define CR4_PDPTE (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)
#define DR6_WRITABLE 0xe00full
#define DR7_WRITABLE 0xffff23ffull

static void gp(struct interp *in)
{
    interp_raise_err(in, X86_GP, 0);
}

void iload_pdptes(struct interp *in, u64 cr3, u64 pdpte[4])
{
    struct x86_walk_mem m;
    in->ops->walk_mem(in->opaque, &m);
    if (!x86_load_pdptes(&m, cr3, pdpte))
        gp(in);
}

/* Loads the PDPTEs of cr3 into *s or raises #GP(0). */
static void load_pdptes(struct interp *in, u64 cr3)
{
    u64 pdpte[4];
    iload_pdptes(in, cr3, pdpte);
    memcpy(in->s->pdpte, pdpte, sizeof(pdpte));
}

static void write_cr0(struct interp *in, u64 val)
{
    struct x86_vcpu_state *s = in->s;
    u64 old = s->cr0;

    if (val >> 32)
        gp(in);
    val = (val & CR0_WRITABLE) | CR0_ET;
    if ((val & CR0_PG) && !(val & CR0_PE))
        gp(in);
    if ((val & CR0_NW) && !(val & CR0_CD))
        gp(in);
    u64 changed = old ^ val;
    u64 efer = s->efer;
    if (changed & CR0_PG) {
        if (val & CR0_PG) {
            if (efer & EFER_LME) {
                if (!(s->cr4 & CR4_PAE) || (s->seg[X86_CS].attr & X86_SEG_L))
                    gp(in);
                efer |= EFER_LMA;
            }
        } else {
            if (x86_64bit(s) || (s->cr4 & CR4_PCIDE))
                gp(in);
            efer &= ~EFER_LMA;
        }
    }
    if ((changed & CR0_PDPTE) && x86_pae_paging(val, s->cr4, efer))
        load_pdptes(in, s->cr3);
    s->cr0 = val;
    s->efer = efer;
    if (changed & CR0_PAGING)
        in->ops->flush(in->opaque, INTERP_FLUSH_ALL, 0);
}

static void write_cr3(struct interp *in, u64 val)
{
    struct x86_vcpu_state *s = in->s;
    u64 old = s->cr3;
    bool noflush = false;

    if (x86_64bit(s)) {
        noflush = (s->cr4 & CR4_PCIDE) && (val & CR3_NOFLUSH);
        if (s->cr4 & CR4_PCIDE)
            val &= ~CR3_NOFLUSH;
        if (val & MASK64(63, in->model->phys_bits))
            gp(in);
    }
    if (x86_pae_paging(s->cr0, s->cr4, s->efer))
        load_pdptes(in, val);
    s->cr3 = val;
    in->ops->cr3_written(in->opaque, old, noflush);
}

static void write_cr4(struct interp *in, u64 val)
{
    struct x86_vcpu_state *s = in->s;
    u64 changed = s->cr4 ^ val;

    if (val & ~in->model->cr4_valid)
        gp(in);
    if (x86_long_mode(s) && ((changed & CR4_LA57) || !(val & CR4_PAE)))
        gp(in);
    if ((changed & val & CR4_PCIDE) && (!x86_long_mode(s) || (s->cr3 & CR3_PCID)))
        gp(in);
    if ((changed & CR4_PDPTE) && x86_pae_paging(s->cr0, val, s->efer))
        load_pdptes(in, s->cr3);
    s->cr4 = val;
    if (changed & CR4_PAGING)
        in->ops->flush(in->opaque, INTERP_FLUSH_ALL, 0);
}

static u64 read_cr(struct interp *in, unsigned n)
{
    const struct x86_vcpu_state *s = in->s;
    switch (n) {
    case 0:
        return s->cr0;
    case 2:
        return s->cr2;
    case 3:
        return s->cr3;
    case 4:
        return s->cr4;
    default:
        return in->ops->get_cr8(in->opaque) & 15;
    }
}

enum interp_result isys_movcr(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    bool write = insn->op[0].kind == X86_OP_CR;
    const struct x86_op *cr = &insn->op[write ? 0 : 1], *reg = &insn->op[write ? 1 : 0];
    unsigned size = insn->mode == 64 ? 8 : 4;

    if (cr->reg == 1 || (cr->reg > 4 && cr->reg != 8) || (insn->prefixes & X86_PFX_LOCK))
        interp_raise(in, X86_UD);
    need_cpl0(in);
    if (!write) {
        io_set_gpr(in, reg->reg, size, read_cr(in, cr->reg));
        return INTERP_OK;
    }
    u64 val = io_gpr(in, reg->reg, size);
    switch (cr->reg) {
    case 0:
        write_cr0(in, val);
        break;
    case 2:
        s->cr2 = val;
        break;
    case 3:
        write_cr3(in, val);
        break;
    case 4:
        write_cr4(in, val);
        break;
    default:
        if (val > 15)
            gp(in);
        in->ops->set_cr8(in->opaque, val);
        break;
    }
    return INTERP_OK;
}

enum interp_result isys_clts(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    need_cpl0(in);
    in->s->cr0 &= ~CR0_TS;
    return INTERP_OK;
}

enum interp_result isys_lmsw(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    need_cpl0(in);
    u64 low = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    u64 val = io_read(in, insn, 0) & low;
    write_cr0(in, (s->cr0 & ~(low & ~CR0_PE)) | val); /* PE can be set, not cleared */
    return INTERP_OK;
}

enum interp_result isys_smsw(struct interp *in, const struct x86_insn *insn)
{
    need_umip(in);
    io_write(in, insn, 0, in->s->cr0);
    return INTERP_OK;
}

/* --- debug registers */

static void write_dr7(struct interp *in, u64 val)
{
    struct x86_vcpu_state *s = in->s;
    u64 old = s->dr7;
    s->dr7 = (val & DR7_WRITABLE) | DR7_INIT;
    /* Accesses to watched pages have to take the slow path from now on. */
    if ((old | s->dr7) & DR7_ENABLED)
        in->ops->flush(in->opaque, INTERP_FLUSH_ALL, 0);
}

enum interp_result isys_movdr(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    bool write = insn->op[0].kind == X86_OP_DR;
    unsigned dr = insn->op[write ? 0 : 1].reg, reg = insn->op[write ? 1 : 0].reg;
    unsigned size = insn->mode == 64 ? 8 : 4;

    if (dr > 7 || ((dr == 4 || dr == 5) && (s->cr4 & CR4_DE)))
        interp_raise(in, X86_UD);
    need_cpl0(in);
    if (s->dr7 & DR7_GD) {
        s->dr6 |= DR6_BD;
        interp_raise(in, X86_DB);
    }
    if (dr == 4 || dr == 5)
        dr += 2;
    if (!write) {
        io_set_gpr(in, reg, size, dr < 4 ? s->dr[dr] : dr == 6 ? s->dr6 : s->dr7);
        return INTERP_OK;
    }
    u64 val = io_gpr(in, reg, size);
    if (dr >= 6 && val >> 32)
        gp(in);
    if (dr == 6) {
        s->dr6 = (val & DR6_WRITABLE) | DR6_INIT;
    } else if (dr == 7) {
        write_dr7(in, val);
    } else {
        s->dr[dr] = val;
        if (s->dr7 & DR7_ENABLED)
            in->ops->flush(in->opaque, INTERP_FLUSH_ALL, 0);
    }
    return INTERP_OK;
}

/* --- translations and caches */

static u16 current_pcid(const struct x86_vcpu_state *s)
{
    return s->cr4 & CR4_PCIDE ? (u16)(s->cr3 & CR3_PCID) : 0;
}

enum interp_result isys_invlpg(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    need_cpl0(in);
    u64 lin = im_ea(in, insn);
    if (!x86_64bit(s))
        lin = (u32)(lin + s->seg[insn->mem.seg].base);
    else if (insn->mem.seg >= X86_FS)
        lin += s->seg[insn->mem.seg].base;
    if (!x86_64bit(s) || im_canonical(in, lin))
        in->ops->invlpg(in->opaque, lin, current_pcid(s));
    return INTERP_OK;
}

enum interp_result isys_invpcid(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    if (!in->model->invpcid)
        interp_raise(in, X86_UD);
    need_cpl0(in);
    u64 type = io_gpr(in, insn->op[0].reg, insn->mode == 64 ? 8 : 4);
    u64 ea = im_ea(in, insn), desc[2];
    u64 lin = im_linear(in, insn->mem.seg, ea, 16, false);
    im_lin_read_buf(in, lin, desc, 16, im_access(in));
    u16 pcid = (u16)(desc[0] & CR3_PCID);
    if (type > 3)
        gp(in);
    /* Descriptors of types 2 and 3 are not looked at but for the reserved bits. */
    if (desc[0] >> 12)
        gp(in);
    if (type < 2 && pcid && !(s->cr4 & CR4_PCIDE))
        gp(in);
    switch (type) {
    case 0:
        if (!im_canonical(in, desc[1]))
            gp(in);
        in->ops->invlpg(in->opaque, desc[1], pcid);
        break;
    case 1:
        in->ops->flush(in->opaque, INTERP_FLUSH_PCID, pcid);
        break;
    case 2:
        in->ops->flush(in->opaque, INTERP_FLUSH_ALL, 0);
        break;
    default:
        in->ops->flush(in->opaque, INTERP_FLUSH_NONGLOBAL, 0);
        break;
    }
    return INTERP_OK;
}

/* WBINVD, INVD: the host keeps its caches coherent. */
enum interp_result isys_wbinvd(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    need_cpl0(in);
    return INTERP_OK;
}
