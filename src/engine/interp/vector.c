/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87, MMX, SSE, AVX and AVX-512: the checks an instruction has to pass (SDM 3A 2.5, 13.1; SDM 2A
 * 2.4, 2.8), then the host executes it on the guest's registers.
 */
#include <string.h>

#include "base/log.h"
#include "engine/interp/vector.h"

enum vector_class { VC_NONE, VC_X87, VC_MMX, VC_SSE, VC_AVX, VC_AVX512, VC_STATE };

/* What each extension belongs to and which CPUID bits show it. */
static const struct {
    u8 ext; /* ZYDIS_ISA_EXT_* */
    u8 class;
    u64 features;
} extensions[] = {
    {ZYDIS_ISA_EXT_X87, VC_X87, 0},
    {ZYDIS_ISA_EXT_MMX, VC_MMX, X86F_MMX},
    {ZYDIS_ISA_EXT_AMD3DNOW, VC_MMX, X86F_3DNOW},
    {ZYDIS_ISA_EXT_SSE, VC_SSE, X86F_SSE},
    {ZYDIS_ISA_EXT_SSE2, VC_SSE, X86F_SSE2},
    {ZYDIS_ISA_EXT_SSE3, VC_SSE, X86F_SSE3},
    {ZYDIS_ISA_EXT_SSSE3, VC_SSE, X86F_SSSE3},
    {ZYDIS_ISA_EXT_SSE4, VC_SSE, X86F_SSE41},
    {ZYDIS_ISA_EXT_SSE4A, VC_SSE, X86F_SSE4A},
    {ZYDIS_ISA_EXT_AES, VC_SSE, X86F_AES},
    {ZYDIS_ISA_EXT_PCLMULQDQ, VC_SSE, X86F_PCLMUL},
    {ZYDIS_ISA_EXT_SHA, VC_SSE, X86F_SHA},
    {ZYDIS_ISA_EXT_GFNI, VC_SSE, X86F_GFNI},
    {ZYDIS_ISA_EXT_AVX, VC_AVX, X86F_AVX},
    {ZYDIS_ISA_EXT_AVXAES, VC_AVX, X86F_AVX | X86F_AES},
    {ZYDIS_ISA_EXT_AVX2, VC_AVX, X86F_AVX2},
    {ZYDIS_ISA_EXT_AVX2GATHER, VC_AVX, X86F_AVX2},
    {ZYDIS_ISA_EXT_AVX_VNNI, VC_AVX, X86F_AVXVNNI},
    {ZYDIS_ISA_EXT_FMA, VC_AVX, X86F_FMA},
    {ZYDIS_ISA_EXT_FMA4, VC_AVX, X86F_FMA4},
    {ZYDIS_ISA_EXT_F16C, VC_AVX, X86F_F16C},
    {ZYDIS_ISA_EXT_XOP, VC_AVX, X86F_XOP},
    {ZYDIS_ISA_EXT_VAES, VC_AVX, X86F_VAES},
    {ZYDIS_ISA_EXT_VPCLMULQDQ, VC_AVX, X86F_VPCLMUL},
    {ZYDIS_ISA_EXT_AVX512EVEX, VC_AVX512, X86F_AVX512},
    {ZYDIS_ISA_EXT_AVX512VEX, VC_AVX512, X86F_AVX512},
};

static enum vector_class classify(const struct x86_insn *insn, u64 *features)
{
    *features = 0;
    /* Lightweight profiling is listed with XOP: it works on the thread's own control block. */
    if (insn->isa_set == ZYDIS_ISA_SET_LWP)
        return VC_NONE;
    if (xsave_handler(insn->mnemonic))
        return VC_STATE;
    for (size_t i = 0; i < ARRAY_SIZE(extensions); i++) {
        if (extensions[i].ext != insn->isa_ext)
            continue;
        *features = extensions[i].features;
        if (insn->mnemonic == ZYDIS_MNEMONIC_FISTTP)
            return VC_X87; /* shown with SSE3 */
        if (insn->isa_ext == ZYDIS_ISA_EXT_SSE4 && insn->isa_set == ZYDIS_ISA_SET_SSE42)
            *features = X86F_SSE42;
        if (extensions[i].class == VC_AVX512)
            *features |= interp_avx512_features(insn->isa_set);
        if (insn->encoding == X86_ENC_EVEX)
            return VC_AVX512;
        if (insn->encoding == X86_ENC_VEX && extensions[i].class == VC_SSE)
            return VC_AVX;
        return extensions[i].class;
    }
    return VC_NONE;
}

bool interp_is_vector(const struct x86_insn *insn)
{
    u64 features;
    return classify(insn, &features) != VC_NONE;
}

static bool uses_mmx(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->nops; i++)
        if (insn->op[i].kind == X86_OP_MMX)
            return true;
    return false;
}

/* x87 instructions that do not wait for a pending exception (SDM 1 8.3.11). */
static bool no_wait(const struct x86_insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
        return true;
    default:
        return false;
    }
}

/*
 * An unmasked x87 exception is pending: #MF, or with CR0.NE clear FERR#, which a PC wires to IRQ
 * 13. That wire does not exist here; the exception is dropped as if its handler had cleared it.
 */
static void x87_pending(struct interp *in)
{
    struct x86_vcpu_state *s = in->s;
    u64 bv;
    memcpy(&bv, s->xsave + XS_BV, 8);
    if (!(bv & XC_BIT(XC_X87)) || !(xs_get16(s, XS_FSW) & ~xs_get16(s, XS_FCW) & 0x3f))
        return;
    if (s->cr0 & CR0_NE)
        interp_raise(in, X86_MF);
    if (!in->ferr_logged)
        log_warn("x87 exception with CR0.NE clear: IRQ 13 is not wired, dropped");
    in->ferr_logged = true;
    s->xsave[XS_FSW] &= 0x40;
    s->xsave[XS_FSW + 1] &= 0x7f;
}

/* #UD and #NM, in this order (SDM 2A 2.4.1 and the exception classes). */
static void check(struct interp *in, const struct x86_insn *insn, enum vector_class class,
                  u64 features)
{
    const struct x86_vcpu_state *s = in->s;
    bool ud = (in->features & features) != features;
    bool nm = (s->cr0 & CR0_TS) != 0;
    switch (class) {
    case VC_X87:
        nm = insn->mnemonic == ZYDIS_MNEMONIC_FWAIT
                 ? (s->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)
                 : (s->cr0 & (CR0_EM | CR0_TS)) != 0;
        break;
    case VC_MMX:
        ud = ud || (s->cr0 & CR0_EM);
        break;
    case VC_SSE:
        ud = ud || (s->cr0 & CR0_EM) || !(s->cr4 & CR4_OSFXSR);
        break;
    case VC_AVX: {
        u64 need = XC_BIT(XC_SSE) | XC_BIT(XC_AVX);
        ud = ud || !(s->cr4 & CR4_OSXSAVE) || (s->xcr0 & need) != need;
        break;
    }
    case VC_AVX512: {
        u64 need = XC_BIT(XC_SSE) | XC_BIT(XC_AVX) | XC_AVX512;
        ud = ud || !(s->cr4 & CR4_OSXSAVE) || (s->xcr0 & need) != need;
        break;
    }
    default:
        break;
    }
    if (ud)
        interp_raise(in, X86_UD);
    if (nm)
        interp_raise(in, X86_NM);
}

static enum interp_result no_native(struct interp *in, const struct x86_insn *insn)
{
    static const char text[] = "no native page for: ";
    memcpy(in->why, text, sizeof text);
    x86_format(insn, in->s->rip, in->why + sizeof text - 1, sizeof in->why - sizeof text);
    return INTERP_UNSUPPORTED;
}

static const struct x86_op *mem_operand(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->nops; i++)
        if (insn->op[i].kind == X86_OP_MEM)
            return &insn->op[i];
    return NULL;
}

/*
 * FNSTENV and FNSAVE in real and virtual-8086 mode have 20-bit linear pointers instead of selector
 * and offset (SDM 1 figures 8-11 and 8-12). The host wrote the protected form, with null selectors.
 */
static void real_environment(const struct x86_insn *insn, u8 *env)
{
    u32 w[7];
    if (insn->opsize == 2) {
        u16 h[7];
        memcpy(h, env, sizeof h);
        h[4] = 0; /* opcode and upper pointer bits: the pointers are offsets below 64 KiB */
        h[6] = 0;
        memcpy(env, h, sizeof h);
        return;
    }
    memcpy(w, env, sizeof w);
    u32 fip = w[3], fop = (w[4] >> 16) & 0x7ff, fdp = w[5];
    w[3] = (fip & 0xffff) | 0xffff0000u;
    w[4] = fop | (fip >> 16) << 12;
    w[5] = (fdp & 0xffff) | 0xffff0000u;
    w[6] = (fdp >> 16) << 12;
    memcpy(env, w, sizeof w);
}

/* Legacy SSE instructions of exception class 4 that allow any alignment (SDM 2A table 2-20). */
static bool unaligned_class4(u16 mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return true;
    default:
        return false;
    }
}

/* Must the operand be aligned to its size? */
static bool wants_aligned(const struct interp *in, const struct x86_insn *insn)
{
    switch (insn->exc_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF:
        return true;
    default:
        /* MXCSR.MM (AMD) lifts the rule; SHA instructions differ by vendor: left to the host. */
        return insn->encoding == X86_ENC_LEGACY && insn->mem.size == 128 &&
               !unaligned_class4(insn->mnemonic) && insn->isa_ext != ZYDIS_ISA_EXT_SHA &&
               !(in->s->xsave[XS_MXCSR + 2] & 2);
    }
}

void vector_align_gp(struct interp *in, const struct x86_insn *insn)
{
    u64 lin;
    unsigned size = insn->mem.size / 8u;
    im_linear_ok(in, insn->mem.seg, im_ea(in, insn), 1, false, &lin);
    if (wants_aligned(in, insn) && (lin & (size - 1)))
        interp_raise_err(in, X86_GP, 0);
}

void vector_align_ac(struct interp *in, const struct x86_insn *insn, u64 lin)
{
    unsigned size = insn->mem.size / 8u;
    switch (size) {
    case 10: /* m80 */
        im_align(in, lin, 8);
        break;
    case 28: /* x87 images */
    case 108:
        im_align(in, lin, 4);
        break;
    case 14:
    case 94:
        im_align(in, lin, 2);
        break;
    default:
        if (!(size & (size - 1)))
            im_align(in, lin, size);
        break;
    }
}

static bool is_x87(const struct x86_insn *insn)
{
    return insn->isa_ext == ZYDIS_ISA_EXT_X87 || insn->mnemonic == ZYDIS_MNEMONIC_FISTTP;
}

enum interp_result vector_plain(struct interp *in, const struct x86_insn *insn)
{
    const struct x86_op *op = mem_operand(insn);
    if (!op || insn->mem.agen)
        return native_exec(in, insn, NULL) ? INTERP_OK : no_native(in, insn);
    unsigned size = (insn->mem.size + 7u) / 8u;
    if (size == 0 || size > 512)
        return no_native(in, insn);
    vector_align_gp(in, insn);
    u64 lin = im_linear(in, insn->mem.seg, im_ea(in, insn), size, op->write);
    vector_align_ac(in, insn, lin);
    /* The copy sits at the same offset in a cache line, so that alignment faults are the host's. */
    u8 *buf = in->bounce + (lin & 63);
    if (!op->write) {
        im_lin_read_buf(in, lin, buf, size, im_access(in));
        return native_exec(in, insn, buf) ? INTERP_OK : no_native(in, insn);
    }
    struct im_rmw m;
    im_rmw(in, lin, size, im_access(in), &m);
    /* x87 stores are left out when they raise an unmasked exception. */
    if (op->read || is_x87(insn))
        im_rmw_get(in, &m, buf);
    if (!native_exec(in, insn, buf))
        return no_native(in, insn);
    if (insn->real_mode &&
        (insn->mnemonic == ZYDIS_MNEMONIC_FNSTENV || insn->mnemonic == ZYDIS_MNEMONIC_FNSAVE))
        real_environment(insn, buf);
    im_rmw_put(in, &m, buf);
    return INTERP_OK;
}

/* VEX forms of VPEXTRQ and VPINSRQ outside 64-bit mode: Intel's CPUs ignore VEX.W, AMD's do not
 * decode it. */
static bool wide_only(const struct interp *in, const struct x86_insn *insn)
{
    if (!in->model || !in->model->amd)
        return false;
    if (insn->mnemonic != ZYDIS_MNEMONIC_VPEXTRD && insn->mnemonic != ZYDIS_MNEMONIC_VPINSRD)
        return false;
    return insn->encoding == X86_ENC_VEX && insn->bytes[insn->vex_off] == 0xc4 &&
           (insn->bytes[insn->vex_off + 2] & 0x80);
}

/* VZEROALL and VZEROUPPER outside 64-bit mode reach registers 0 to 7 only. */
static enum interp_result zero_low_half(struct interp *in, const struct x86_insn *insn)
{
    u8 zero[64] = {0}, v[64];
    (void)insn;
    for (unsigned r = 0; r < 8; r++) {
        xv_get(in->s, r, v);
        if (insn->mnemonic == ZYDIS_MNEMONIC_VZEROALL)
            xv_set(in->s, r, zero, 64);
        else
            xv_set(in->s, r, v, 16);
    }
    return INTERP_OK;
}

enum interp_result ivector(struct interp *in, const struct x86_insn *insn)
{
    u64 features;
    enum vector_class class = classify(insn, &features);
    interp_handler *state = xsave_handler(insn->mnemonic);
    if (state)
        return state(in, insn);
    check(in, insn, class, features);
    in->ops->fpu_sync(in->opaque);
    if ((class == VC_X87 && !no_wait(insn)) || class == VC_MMX || uses_mmx(insn))
        x87_pending(in);
    if (insn->mnemonic == ZYDIS_MNEMONIC_FWAIT)
        return INTERP_OK;
    if (insn->mem.vsib)
        return gather_exec(in, insn);
    if (masked_operand(insn))
        return masked_exec(in, insn);
    if (insn->mode != 64) {
        if (wide_only(in, insn))
            interp_raise(in, X86_UD);
        if (insn->mnemonic == ZYDIS_MNEMONIC_VZEROALL ||
            insn->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER)
            return zero_low_half(in, insn);
    }
    return vector_plain(in, insn);
}
