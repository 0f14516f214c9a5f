/* SPDX-License-Identifier: Apache-2.0 */
/* MSRs, counters, CPUID, extended control registers, FS and GS base. */
#include <string.h>

#include "engine/interp/system_priv.h"
#include "x86/msr.h"

#define XSTATE_BV 512 /* offset in an XSAVE image */

static u64 host_tsc(void)
{
    u32 lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (u64)hi << 32 | lo;
}

static void set_edx_eax(struct interp *in, u64 val)
{
    in->s->gpr[X86_RAX] = (u32)val;
    in->s->gpr[X86_RDX] = val >> 32;
}

static u64 edx_eax(const struct interp *in)
{
    return in->s->gpr[X86_RDX] << 32 | (u32)in->s->gpr[X86_RAX];
}

enum interp_result isys_rdmsr(struct interp *in, const struct x86_insn *insn)
{
    u32 msr = (u32)in->s->gpr[X86_RCX];
    u64 val = 0;
    (void)insn;
    need_cpl0(in);
    enum x86_msr_result r = x86_msr_read(in->s, in->model, msr, host_tsc(), &val);
    if (r == X86_MSR_UNKNOWN && in->ops->rdmsr(in->opaque, msr, &val) == 0)
        r = X86_MSR_OK;
    if (r != X86_MSR_OK)
        interp_raise_err(in, X86_GP, 0);
    set_edx_eax(in, val);
    return INTERP_OK;
}

enum interp_result isys_wrmsr(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u32 msr = (u32)s->gpr[X86_RCX];
    u64 val = edx_eax(in), efer = s->efer;
    (void)insn;
    need_cpl0(in);
    enum x86_msr_result r = x86_msr_write(s, in->model, msr, val, host_tsc());
    if (r == X86_MSR_UNKNOWN && in->ops->wrmsr(in->opaque, msr, val) == 0)
        r = X86_MSR_OK;
    if (r != X86_MSR_OK)
        interp_raise_err(in, X86_GP, 0);
    if ((efer ^ s->efer) & EFER_NXE)
        in->ops->flush(in->opaque, INTERP_FLUSH_ALL, 0);
    return INTERP_OK;
}

static void need_tsc(struct interp *in)
{
    if ((in->s->cr4 & CR4_TSD) && in->s->cpl != 0)
        interp_raise_err(in, X86_GP, 0);
}

enum interp_result isys_rdtsc(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    need_tsc(in);
    set_edx_eax(in, host_tsc() + in->s->tsc_offset);
    return INTERP_OK;
}

enum interp_result isys_rdtscp(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    if (!in->model->rdtscp)
        interp_raise(in, X86_UD);
    need_tsc(in);
    set_edx_eax(in, host_tsc() + in->s->tsc_offset);
    in->s->gpr[X86_RCX] = (u32)in->s->tsc_aux;
    return INTERP_OK;
}

enum interp_result isys_rdpid(struct interp *in, const struct x86_insn *insn)
{
    if (!in->model->rdpid)
        interp_raise(in, X86_UD);
    io_set_gpr(in, insn->op[0].reg, insn->mode == 64 ? 8 : 4, (u32)in->s->tsc_aux);
    return INTERP_OK;
}

/* There are no counters: every index is invalid. */
enum interp_result isys_rdpmc(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    interp_raise_err(in, X86_GP, 0);
}

enum interp_result isys_cpuid(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u32 r[4];
    (void)insn;
    in->ops->cpuid(in->opaque, (u32)s->gpr[X86_RAX], (u32)s->gpr[X86_RCX], r);
    s->gpr[X86_RAX] = r[0];
    s->gpr[X86_RBX] = r[1];
    s->gpr[X86_RCX] = r[2];
    s->gpr[X86_RDX] = r[3];
    return INTERP_OK;
}

enum interp_result isys_xgetbv(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    (void)insn;
    if (!(s->cr4 & CR4_OSXSAVE))
        interp_raise(in, X86_UD);
    switch ((u32)s->gpr[X86_RCX]) {
    case 0:
        set_edx_eax(in, s->xcr0);
        return INTERP_OK;
    case 1: { /* components in use */
        u64 bv;
        in->ops->fpu_sync(in->opaque);
        memcpy(&bv, s->xsave + XSTATE_BV, sizeof(bv));
        set_edx_eax(in, bv & s->xcr0);
        return INTERP_OK;
    }
    default:
        interp_raise_err(in, X86_GP, 0);
    }
}

/* SDM 1 13.3: x87 always, AVX needs SSE, the three AVX-512 components come together with AVX. */
static bool xcr0_ok(const struct x86_cpu_model *m, u64 v)
{
    u64 avx512 = MASK64(7, 5);
    if ((v & ~m->xcr0_valid) || !(v & 1))
        return false;
    if ((v & 4) && !(v & 2))
        return false;
    return !(v & avx512) || ((v & avx512) == avx512 && (v & 4));
}

enum interp_result isys_xsetbv(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u64 val = edx_eax(in);
    (void)insn;
    if (!(s->cr4 & CR4_OSXSAVE))
        interp_raise(in, X86_UD);
    if (s->cpl != 0 || (u32)s->gpr[X86_RCX] != 0 || !xcr0_ok(in->model, val))
        interp_raise_err(in, X86_GP, 0);
    s->xcr0 = val;
    return INTERP_OK;
}

/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE */
enum interp_result isys_fsgsbase(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u16 m = insn->mnemonic;
    bool gs = m == ZYDIS_MNEMONIC_RDGSBASE || m == ZYDIS_MNEMONIC_WRGSBASE;
    bool write = m == ZYDIS_MNEMONIC_WRFSBASE || m == ZYDIS_MNEMONIC_WRGSBASE;
    u64 *base = &s->seg[gs ? X86_GS : X86_FS].base;
    unsigned size = insn->opsize == 8 ? 8 : 4;

    if (!x86_64bit(s) || !(s->cr4 & CR4_FSGSBASE))
        interp_raise(in, X86_UD);
    if (!write) {
        io_set_gpr(in, insn->op[0].reg, size, *base);
        return INTERP_OK;
    }
    u64 val = io_gpr(in, insn->op[0].reg, size);
    if (!im_canonical(in, val))
        interp_raise_err(in, X86_GP, 0);
    *base = val;
    return INTERP_OK;
}
