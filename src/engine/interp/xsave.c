/* SPDX-License-Identifier: Apache-2.0 */
/* FXSAVE, FXRSTOR and the XSAVE family, in C on the image (SDM 1 chapter 13). */
#include <string.h>

#include "engine/interp/vector.h"

#define XCOMP_COMPACT BIT64(63)
#define MXCSR_INIT 0x1f80u

static u32 image_mxcsr(const struct x86_vcpu_state *s)
{
    u32 v;
    memcpy(&v, s->xsave + XS_MXCSR, 4);
    return v;
}

static u64 image_bv(const struct x86_vcpu_state *s)
{
    u64 v;
    memcpy(&v, s->xsave + XS_BV, 8);
    return v;
}

static u32 mxcsr_mask(const struct interp *in)
{
    return in->model && in->model->mxcsr_mask ? in->model->mxcsr_mask : 0xffff;
}

/* Outside 64-bit mode only registers 0 to 7 exist for these instructions. */
static unsigned vector_regs(const struct x86_insn *insn)
{
    return insn->mode == 64 ? 16 : 8;
}

static u64 save_area(struct interp *in, const struct x86_insn *insn, unsigned size, unsigned align,
                     bool write)
{
    u64 lin = im_linear(in, insn->mem.seg, im_ea(in, insn), size, write);
    if (lin & (align - 1))
        interp_raise_err(in, X86_GP, 0);
    return lin;
}

/* --- the legacy region, either way */

static void x87_out(struct interp *in, const struct x86_insn *insn, u8 *area)
{
    const u8 *x = xc_use(in->s, XC_X87);
    memcpy(area, x, 8);
    area[5] = 0;
    memcpy(area + XS_FIP, x + XS_FIP, 16);
    if (!(insn->rex & 8)) {
        /* 32-bit offsets; the selectors are not kept and read as zero, as on CPUs that deprecate
         * them (CPUID.7.EBX[13]). */
        memset(area + XS_FIP + 4, 0, 4);
        memset(area + XS_FDP + 4, 0, 4);
    }
    memcpy(area + XS_ST, x + XS_ST, 128);
}

static void x87_in(struct interp *in, const struct x86_insn *insn, const u8 *area)
{
    u8 *x = xc_use(in->s, XC_X87);
    u16 fcw, fsw;
    memcpy(x, area, 8);
    x[5] = 0;
    /* As the CPU loads them: reserved bits of FCW fixed, FSW.ES and B derived. */
    memcpy(&fcw, x + XS_FCW, 2);
    memcpy(&fsw, x + XS_FSW, 2);
    fcw = (u16)((fcw & 0x1f3f) | 0x40);
    fsw = (u16)((fsw & 0x7f7f) | (fsw & ~fcw & 0x3f ? 0x8080 : 0));
    memcpy(x + XS_FCW, &fcw, 2);
    memcpy(x + XS_FSW, &fsw, 2);
    memcpy(x + XS_FIP, area + XS_FIP, 16);
    if (!(insn->rex & 8)) {
        memset(x + XS_FIP + 4, 0, 4);
        memset(x + XS_FDP + 4, 0, 4);
    }
    memcpy(x + XS_ST, area + XS_ST, 128);
}

static void mxcsr_out(struct interp *in, u8 *area)
{
    u32 mask = mxcsr_mask(in);
    memcpy(area + XS_MXCSR, in->s->xsave + XS_MXCSR, 4);
    memcpy(area + XS_MXCSR_MASK, &mask, 4);
}

/* Raises #GP on reserved bits. */
static u32 mxcsr_checked(struct interp *in, const u8 *area)
{
    u32 v;
    memcpy(&v, area + XS_MXCSR, 4);
    if (v & ~mxcsr_mask(in))
        interp_raise_err(in, X86_GP, 0);
    return v;
}

static void set_mxcsr(struct interp *in, u32 v)
{
    memcpy(in->s->xsave + XS_MXCSR, &v, 4);
}

/* --- FXSAVE and FXRSTOR */

static void fx_checks(struct interp *in)
{
    if (in->s->cr0 & (CR0_EM | CR0_TS))
        interp_raise(in, X86_NM);
    in->ops->fpu_sync(in->opaque);
}

/* AMD's fast form leaves the XMM registers alone (APM 2 11.4.4). */
static bool fx_fast(const struct interp *in, const struct x86_insn *insn)
{
    return (in->s->efer & EFER_FFXSR) && insn->mode == 64 && in->s->cpl == 0;
}

static enum interp_result fxsave(struct interp *in, const struct x86_insn *insn)
{
    struct im_rmw m;
    u8 *area = in->bounce;
    fx_checks(in);
    u64 lin = save_area(in, insn, 512, 16, true);
    im_rmw(in, lin, 512, im_access(in), &m);
    im_rmw_get(in, &m, area);
    x87_out(in, insn, area);
    mxcsr_out(in, area);
    if (!fx_fast(in, insn))
        memcpy(area + XS_XMM, xc_use(in->s, XC_SSE) + XS_XMM, 16 * vector_regs(insn));
    im_rmw_put(in, &m, area);
    return INTERP_OK;
}

static enum interp_result fxrstor(struct interp *in, const struct x86_insn *insn)
{
    u8 *area = in->bounce;
    fx_checks(in);
    u64 lin = save_area(in, insn, 512, 16, false);
    im_lin_read_buf(in, lin, area, 512, im_access(in));
    u32 mxcsr = mxcsr_checked(in, area);
    x87_in(in, insn, area);
    set_mxcsr(in, mxcsr);
    if (!fx_fast(in, insn))
        memcpy(xc_use(in->s, XC_SSE) + XS_XMM, area + XS_XMM, 16 * vector_regs(insn));
    return INTERP_OK;
}

/* --- the XSAVE family */

static void xsave_checks(struct interp *in, u64 feature)
{
    struct x86_vcpu_state *s = in->s;
    if (!(s->cr4 & CR4_OSXSAVE) || (in->features & feature) != feature)
        interp_raise(in, X86_UD);
    if (s->cr0 & CR0_TS)
        interp_raise(in, X86_NM);
    in->ops->fpu_sync(in->opaque);
}

static u64 requested(const struct interp *in)
{
    const struct x86_vcpu_state *s = in->s;
    u64 edx_eax = s->gpr[X86_RDX] << 32 | (u32)s->gpr[X86_RAX];
    return edx_eax & s->xcr0 & xc_host_mask();
}

/* Offset of component n in the compacted format `xcomp`, or the end of it for n = XC_N. */
static unsigned compact_offset(u64 xcomp, unsigned n)
{
    unsigned off = XS_HEADER_END;
    for (unsigned i = XC_AVX; i < XC_N; i++) {
        const struct xc_place *p = xc_place(i);
        if (!(xcomp & XC_BIT(i)))
            continue;
        if (p->align64)
            off = (off + 63) & ~63u;
        if (i == n)
            return off;
        off += p->size;
    }
    return off;
}

static unsigned standard_end(u64 rfbm)
{
    unsigned end = XS_HEADER_END;
    for (unsigned i = XC_AVX; i < XC_N; i++)
        if ((rfbm & XC_BIT(i)) && xc_place(i)->off + xc_place(i)->size > end)
            end = xc_place(i)->off + xc_place(i)->size;
    return end;
}

/* Bytes of component n that instructions of this mode touch. */
static unsigned touched(const struct x86_insn *insn, unsigned n)
{
    unsigned size = xc_place(n)->size;
    if (insn->mode == 64)
        return size;
    switch (n) {
    case XC_SSE:
    case XC_AVX:
    case XC_ZMM_HI256:
        return size / 2;
    case XC_HI16_ZMM:
        return 0;
    default:
        return size;
    }
}

/* XSAVE XSAVEOPT XSAVEC XSAVES. optimize: components in their initial state are not written. */
static enum interp_result save(struct interp *in, const struct x86_insn *insn, bool compact,
                               bool optimize)
{
    struct x86_vcpu_state *s = in->s;
    struct im_rmw m;
    u8 *area = in->bounce;
    u64 rfbm = requested(in), inuse = image_bv(s) & xc_host_mask(), old_bv;
    u64 xcomp = rfbm | XCOMP_COMPACT;
    if (compact && image_mxcsr(s) != MXCSR_INIT)
        inuse |= XC_BIT(XC_SSE);
    unsigned size = compact ? compact_offset(xcomp, XC_N) : standard_end(rfbm);
    u64 lin = save_area(in, insn, size, 64, true);
    im_rmw(in, lin, size, im_access(in), &m);
    im_rmw_get(in, &m, area);
    memcpy(&old_bv, area + XS_BV, 8);
    u64 bv = compact ? rfbm & inuse : (old_bv & ~rfbm) | (rfbm & inuse);
    u64 write = optimize ? rfbm & inuse : rfbm;
    if (write & XC_BIT(XC_X87))
        x87_out(in, insn, area);
    if (write & XC_BIT(XC_SSE))
        memcpy(area + XS_XMM, xc_use(s, XC_SSE) + XS_XMM, touched(insn, XC_SSE));
    if (compact ? (write & XC_BIT(XC_SSE)) != 0 : (rfbm & (XC_BIT(XC_SSE) | XC_BIT(XC_AVX))) != 0)
        mxcsr_out(in, area);
    for (unsigned i = XC_AVX; i < XC_N; i++) {
        if (!(write & XC_BIT(i)))
            continue;
        unsigned off = compact ? compact_offset(xcomp, i) : xc_place(i)->off;
        bool was_init = !(image_bv(s) & XC_BIT(i));
        if (was_init)
            memset(area + off, 0, touched(insn, i));
        else
            memcpy(area + off, s->xsave + xc_place(i)->off, touched(insn, i));
    }
    memcpy(area + XS_BV, &bv, 8);
    if (compact)
        memcpy(area + XS_XCOMP_BV, &xcomp, 8);
    im_rmw_put(in, &m, area);
    return INTERP_OK;
}

static enum interp_result xsave(struct interp *in, const struct x86_insn *insn)
{
    xsave_checks(in, X86F_XSAVE);
    return save(in, insn, false, false);
}

static enum interp_result xsaveopt(struct interp *in, const struct x86_insn *insn)
{
    xsave_checks(in, X86F_XSAVEOPT);
    return save(in, insn, false, true);
}

static enum interp_result xsavec(struct interp *in, const struct x86_insn *insn)
{
    xsave_checks(in, X86F_XSAVEC);
    return save(in, insn, true, true);
}

static enum interp_result xsaves(struct interp *in, const struct x86_insn *insn)
{
    /* IA32_XSS holds no component we keep, so it adds nothing to XCR0. */
    if (!(in->s->cr4 & CR4_OSXSAVE) || !(in->features & X86F_XSAVES))
        interp_raise(in, X86_UD);
    if (in->s->cpl)
        interp_raise_err(in, X86_GP, 0);
    xsave_checks(in, X86F_XSAVES);
    return save(in, insn, true, true);
}

static void component_init(struct x86_vcpu_state *s, const struct x86_insn *insn, unsigned n)
{
    u64 bv = image_bv(s) & ~XC_BIT(n);
    if (touched(insn, n) != xc_place(n)->size) {
        u8 *x = xc_use(s, n);
        if (x)
            memset(n < XC_AVX ? x + xc_place(n)->off : x, 0, touched(insn, n));
        return;
    }
    memcpy(s->xsave + XS_BV, &bv, 8);
}

/* The checks of SDM 1 13.8.1 and 13.8.2 on the header; true: compacted format. */
static bool check_header(struct interp *in, const u8 *area, bool supervisor, u64 *bv, u64 *xcomp)
{
    u64 h[8];
    memcpy(h, area + XS_BV, 64);
    *bv = h[0];
    *xcomp = h[1];
    u64 rest = h[2] | h[3] | h[4] | h[5] | h[6] | h[7];
    if (*xcomp & XCOMP_COMPACT) {
        u64 comps = *xcomp & ~XCOMP_COMPACT;
        if (!(in->features & X86F_XSAVEC) || (comps & ~in->s->xcr0) || (*bv & ~comps) || rest)
            interp_raise_err(in, X86_GP, 0);
        return true;
    }
    if (supervisor || (*bv & ~in->s->xcr0) || h[1] || h[2])
        interp_raise_err(in, X86_GP, 0);
    return false;
}

static enum interp_result restore(struct interp *in, const struct x86_insn *insn, bool supervisor)
{
    struct x86_vcpu_state *s = in->s;
    u8 *area = in->bounce;
    u64 rfbm = requested(in), bv, xcomp;
    u64 lin = save_area(in, insn, XS_HEADER_END, 64, false);
    im_lin_read_buf(in, lin, area, XS_HEADER_END, im_access(in));
    bool compact = check_header(in, area, supervisor, &bv, &xcomp);
    u64 load = rfbm & bv;
    unsigned size = compact ? compact_offset(xcomp, XC_N) : standard_end(load);
    if (size > XS_HEADER_END) {
        lin = save_area(in, insn, size, 64, false);
        im_lin_read_buf(in, lin + XS_HEADER_END, area + XS_HEADER_END, size - XS_HEADER_END,
                        im_access(in));
    }
    u32 mxcsr = image_mxcsr(s);
    if (compact) {
        if (rfbm & XC_BIT(XC_SSE))
            mxcsr = bv & XC_BIT(XC_SSE) ? mxcsr_checked(in, area) : MXCSR_INIT;
    } else if (rfbm & (XC_BIT(XC_SSE) | XC_BIT(XC_AVX))) {
        mxcsr = mxcsr_checked(in, area);
    }
    for (unsigned i = 0; i < XC_N; i++) {
        if (!(rfbm & XC_BIT(i)))
            continue;
        if (!(load & XC_BIT(i))) {
            component_init(s, insn, i);
        } else if (i == XC_X87) {
            x87_in(in, insn, area);
        } else if (i == XC_SSE) {
            memcpy(xc_use(s, XC_SSE) + XS_XMM, area + XS_XMM, touched(insn, XC_SSE));
        } else {
            unsigned off = compact ? compact_offset(xcomp, i) : xc_place(i)->off;
            u8 *x = xc_use(s, i);
            if (x)
                memcpy(x, area + off, touched(insn, i));
        }
    }
    set_mxcsr(in, mxcsr);
    return INTERP_OK;
}

static enum interp_result xrstor(struct interp *in, const struct x86_insn *insn)
{
    xsave_checks(in, X86F_XSAVE);
    return restore(in, insn, false);
}

static enum interp_result xrstors(struct interp *in, const struct x86_insn *insn)
{
    if (!(in->s->cr4 & CR4_OSXSAVE) || !(in->features & X86F_XSAVES))
        interp_raise(in, X86_UD);
    if (in->s->cpl)
        interp_raise_err(in, X86_GP, 0);
    xsave_checks(in, X86F_XSAVES);
    return restore(in, insn, true);
}

interp_handler *xsave_handler(u16 mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
        return fxsave;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return fxrstor;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
        return xsave;
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
        return xsaveopt;
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        return xsavec;
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64:
        return xsaves;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return xrstor;
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
        return xrstors;
    default:
        return NULL;
    }
}
