/* SPDX-License-Identifier: Apache-2.0 */
/* Model-specific registers (SDM 4 chapter 2; APM 2 appendix A). */
#include "x86/msr.h"

#define PAT_RESET 0x0007040600070406ull
#define MCG_CAP_CTL_P BIT64(8)
#define MTRRCAP_FIX BIT64(8)
#define MTRRCAP_WC BIT64(10)
#define MTRR_VALID BIT64(11)
#define HWCR_MC_STATUS_WR_EN BIT64(18)
#define HWCR_TSC_FREQ_SEL BIT64(24) /* the TSC counts at the P0 frequency */
#define DE_CFG_LFENCE_SERIALIZE BIT64(1)
#define MISC_ENABLE_BTS_UNAVAILABLE BIT64(11)
#define MISC_ENABLE_PEBS_UNAVAILABLE BIT64(12)
/* Thermal monitor, SpeedStep and xTPR may be switched as a BIOS would; the rest is fixed. */
#define MISC_ENABLE_WRITABLE (MISC_ENABLE_FAST_STRING | BIT64(3) | BIT64(16) | BIT64(23))
/* IBRS, STIBP, SSBD, PSFD, BHI_DIS_S: accepted and kept, there is nothing to restrict. */
#define SPEC_CTRL_VALID (MASK64(2, 0) | BIT64(7) | BIT64(10))

/*
 * MSRs that merely exist. STORE keeps what is written; CONST faults on writes; IGNORE reads as the
 * value and drops writes; WRITE_ONLY drops writes and faults on reads.
 */
enum kind { STORE, CONST, IGNORE, WRITE_ONLY };
enum vendor { INTEL = 1, AMD = 2, BOTH = 3 };

static const struct misc_msr {
    u32 first, last;
    u8 kind, vendor;
    u64 reset;
} misc_table[] = {
    {MSR_PLATFORM_ID, MSR_PLATFORM_ID, CONST, INTEL, 0},
    {MSR_EBL_CR_POWERON, MSR_EBL_CR_POWERON, CONST, INTEL, 0},
    {MSR_EBC_FREQUENCY_ID, MSR_EBC_FREQUENCY_ID, CONST, INTEL, BIT64(24)},
    {MSR_SMI_COUNT, MSR_SMI_COUNT, CONST, INTEL, 0},
    {MSR_FEATURE_CONTROL, MSR_FEATURE_CONTROL, CONST, INTEL, 1}, /* locked, VMX and SMX off */
    {MSR_BIOS_UPDT_TRIG, MSR_BIOS_UPDT_TRIG, WRITE_ONLY, INTEL, 0},
    {MSR_P6_PERFCTR0, MSR_P6_PERFCTR1, IGNORE, BOTH, 0}, /* no performance counters */
    {MSR_P6_EVNTSEL0, MSR_P6_EVNTSEL1, IGNORE, BOTH, 0},
    {MSR_FSB_FREQ, MSR_FSB_FREQ, CONST, INTEL, 3},
    {MSR_PERF_STATUS, MSR_PERF_STATUS, CONST, INTEL, 0x1000},
    {MSR_PERF_CTL, MSR_PERF_CTL, STORE, INTEL, 0},
    {MSR_LASTBRANCHFROMIP, MSR_LASTINTTOIP, IGNORE, BOTH, 0}, /* no last-branch records */
    {MSR_K7_EVNTSEL0, MSR_K7_PERFCTR3, IGNORE, AMD, 0},
    {MSR_AMD_SYSCFG, MSR_AMD_SYSCFG, STORE, AMD, 0},
    {MSR_AMD_HWCR, MSR_AMD_HWCR, STORE, AMD, HWCR_TSC_FREQ_SEL},
    {MSR_AMD_TOP_MEM, MSR_AMD_TOP_MEM, STORE, AMD, 0},
    {MSR_AMD_TOP_MEM2, MSR_AMD_TOP_MEM2, STORE, AMD, 0},
    {MSR_AMD_NB_CFG, MSR_AMD_NB_CFG, STORE, AMD, 0},
    {MSR_AMD_PATCH_LOADER, MSR_AMD_PATCH_LOADER, WRITE_ONLY, AMD, 0},
    {MSR_AMD_INT_PENDING, MSR_AMD_INT_PENDING, STORE, AMD, 0},
    {MSR_AMD_MMIO_CONF_BASE, MSR_AMD_MMIO_CONF_BASE, STORE, AMD, 0},
    {MSR_AMD_SMM_BASE, MSR_AMD_SMM_MASK, IGNORE, AMD, 0},
    {MSR_AMD_VM_CR, MSR_AMD_VM_CR, IGNORE, AMD, BIT64(3) | BIT64(4)}, /* SVM locked off */
    {MSR_AMD_LS_CFG, MSR_AMD_LS_CFG, STORE, AMD, 0},
    {MSR_AMD_IC_CFG, MSR_AMD_IC_CFG, STORE, AMD, 0},
    {MSR_AMD_DC_CFG, MSR_AMD_DC_CFG, STORE, AMD, 0},
    {MSR_AMD_BU_CFG, MSR_AMD_BU_CFG, STORE, AMD, 0},
    {MSR_AMD_FP_CFG, MSR_AMD_FP_CFG, STORE, AMD, 0},
    {MSR_AMD_DE_CFG, MSR_AMD_DE_CFG, STORE, AMD, DE_CFG_LFENCE_SERIALIZE},
    {MSR_AMD_BU_CFG2, MSR_AMD_BU_CFG2, STORE, AMD, 0},
    {MSR_AMD_EX_CFG, MSR_AMD_EX_CFG, STORE, AMD, 0},
    {MSR_AMD_LS_CFG2, MSR_AMD_LS_CFG2, STORE, AMD, 0},
    {MSR_AMD_BP_CFG, MSR_AMD_BP_CFG, STORE, AMD, 0},
    {MSR_AMD_SPECTRAL_CHICKEN, MSR_AMD_SPECTRAL_CHICKEN, STORE, AMD, 0},
    {MSR_AMD_VIRT_SPEC_CTRL, MSR_AMD_VIRT_SPEC_CTRL, STORE, AMD, 0},
};

/* Slot in misc_msr of each STORE row is its row number. */
_Static_assert(ARRAY_SIZE(misc_table) <= X86_MISC_MSRS, "X86_MISC_MSRS is too small");

static const struct misc_msr *find_misc(const struct x86_cpu_model *m, u32 msr, unsigned *slot)
{
    for (unsigned i = 0; i < ARRAY_SIZE(misc_table); i++) {
        const struct misc_msr *e = &misc_table[i];
        if (msr >= e->first && msr <= e->last && (e->vendor & (m->amd ? AMD : INTEL))) {
            *slot = i;
            return e;
        }
    }
    return NULL;
}

static unsigned misc_slot(u32 msr)
{
    for (unsigned i = 0; i < ARRAY_SIZE(misc_table); i++)
        if (misc_table[i].first == msr)
            return i;
    return 0;
}

u64 *x86_msr_virt_spec_ctrl(struct x86_vcpu_state *s)
{
    return &s->misc_msr[misc_slot(MSR_AMD_VIRT_SPEC_CTRL)];
}

void x86_msr_reset(struct x86_vcpu_state *s)
{
    s->pat = PAT_RESET;
    s->misc_enable =
        MISC_ENABLE_FAST_STRING | MISC_ENABLE_BTS_UNAVAILABLE | MISC_ENABLE_PEBS_UNAVAILABLE;
    for (unsigned i = 0; i < ARRAY_SIZE(misc_table); i++)
        s->misc_msr[i] = misc_table[i].reset;
}

void x86_mtrr_firmware(struct x86_vcpu_state *s)
{
    const u64 write_back = 6, all = 0x0101010101010101;
    for (unsigned i = 0; i < ARRAY_SIZE(s->mtrr_fixed); i++)
        s->mtrr_fixed[i] = write_back * all;
    s->mtrr_fixed[2] = 0; /* MSR_MTRR_FIX16K_A0000: the VGA window */
    s->mtrr_def_type = MTRR_DEF_TYPE_E | MTRR_DEF_TYPE_FE | write_back;
}

static bool memory_type_valid(u8 t)
{
    return t == 0 || t == 1 || (t >= 4 && t <= 6); /* UC WC WT WP WB (SDM 3A table 11-8) */
}

bool x86_pat_valid(u64 val)
{
    for (unsigned i = 0; i < 8; i++) {
        u8 t = (u8)(val >> (8 * i));
        if (!memory_type_valid(t) && t != 7)
            return false;
    }
    return true;
}

/* Index into mtrr_fixed, or -1. */
static int fixed_mtrr(u32 msr)
{
    switch (msr) {
    case MSR_MTRR_FIX64K_00000:
        return 0;
    case MSR_MTRR_FIX16K_80000:
    case MSR_MTRR_FIX16K_A0000:
        return 1 + (int)(msr - MSR_MTRR_FIX16K_80000);
    case MSR_MTRR_FIX4K_C0000 ... MSR_MTRR_FIX4K_F8000:
        return 3 + (int)(msr - MSR_MTRR_FIX4K_C0000);
    default:
        return -1;
    }
}

static u64 phys_rsvd(const struct x86_cpu_model *m)
{
    return MASK64(63, m->phys_bits);
}

static enum x86_msr_result mtrr_write(struct x86_vcpu_state *s, const struct x86_cpu_model *m,
                                      u32 msr, u64 val)
{
    int fixed = fixed_mtrr(msr);
    if (fixed >= 0) {
        for (unsigned i = 0; i < 8; i++)
            if (!memory_type_valid((u8)(val >> (8 * i))))
                return X86_MSR_GP;
        s->mtrr_fixed[fixed] = val;
        return X86_MSR_OK;
    }
    if (msr == MSR_MTRR_DEF_TYPE) {
        if ((val & ~(MASK64(7, 0) | MTRR_DEF_TYPE_FE | MTRR_DEF_TYPE_E)) ||
            !memory_type_valid((u8)val))
            return X86_MSR_GP;
        s->mtrr_def_type = val;
        return X86_MSR_OK;
    }
    unsigned n = (msr - MSR_MTRR_PHYSBASE0) / 2;
    if (msr & 1) {
        if (val & (phys_rsvd(m) | MASK64(10, 0)))
            return X86_MSR_GP;
        s->mtrr_mask[n] = val;
    } else {
        if ((val & (phys_rsvd(m) | MASK64(11, 8))) || !memory_type_valid((u8)val))
            return X86_MSR_GP;
        s->mtrr_base[n] = val;
    }
    return X86_MSR_OK;
}

/* The revision a current microcode would have, so that guests' errata checks are content. */
static u64 microcode_revision(const struct x86_cpu_model *m)
{
    u32 sig = m->signature;
    if (!m->amd)
        return 0xffffff00ull << 32;
    /* Extended family, extended model, model, stepping, revision (family 17H and later). */
    return (u64)(sig >> 20 & 0xff) << 24 | (sig >> 16 & 0xf) << 20 | (sig >> 4 & 0xf) << 12 |
           (sig & 0xf) << 8 | 0xff;
}

enum x86_msr_result x86_msr_read(const struct x86_vcpu_state *s, const struct x86_cpu_model *m,
                                 u32 msr, u64 host_tsc, u64 *val)
{
    unsigned slot;

    switch (msr) {
    case MSR_TSC:
        *val = host_tsc + s->tsc_offset;
        return X86_MSR_OK;
    case MSR_TSC_ADJUST:
        *val = s->tsc_adjust;
        return X86_MSR_OK;
    case MSR_SYSENTER_CS:
        *val = s->sysenter_cs;
        return X86_MSR_OK;
    case MSR_SYSENTER_ESP:
        *val = s->sysenter_esp;
        return X86_MSR_OK;
    case MSR_SYSENTER_EIP:
        *val = s->sysenter_eip;
        return X86_MSR_OK;
    case MSR_MISC_ENABLE:
        *val = s->misc_enable;
        return X86_MSR_OK;
    case MSR_PAT:
        *val = s->pat;
        return X86_MSR_OK;
    case MSR_EFER:
        *val = s->efer;
        return X86_MSR_OK;
    case MSR_STAR:
        *val = s->star;
        return X86_MSR_OK;
    case MSR_LSTAR:
        *val = s->lstar;
        return X86_MSR_OK;
    case MSR_CSTAR:
        *val = s->cstar;
        return X86_MSR_OK;
    case MSR_SFMASK:
        *val = s->sfmask;
        return X86_MSR_OK;
    case MSR_FS_BASE:
        *val = s->seg[X86_FS].base;
        return X86_MSR_OK;
    case MSR_GS_BASE:
        *val = s->seg[X86_GS].base;
        return X86_MSR_OK;
    case MSR_KERNEL_GS_BASE:
        *val = s->kernel_gs_base;
        return X86_MSR_OK;
    case MSR_TSC_AUX:
        *val = s->tsc_aux;
        return m->tsc_aux ? X86_MSR_OK : X86_MSR_GP;
    case MSR_SPEC_CTRL:
        *val = s->spec_ctrl;
        return X86_MSR_OK;
    case MSR_ARCH_CAPABILITIES:
        *val = m->arch_caps;
        return m->arch_caps ? X86_MSR_OK : X86_MSR_GP;
    case MSR_BIOS_SIGN_ID:
        *val = microcode_revision(m);
        return X86_MSR_OK;
    case MSR_PLATFORM_INFO:
        if (m->amd)
            return X86_MSR_GP;
        *val = (u64)(m->tsc_khz / 100000 & 0xff) << 8; /* maximum non-turbo ratio, of 100 MHz */
        return X86_MSR_OK;
    case MSR_DEBUGCTL:
        *val = s->debugctl;
        return X86_MSR_OK;
    case MSR_MTRRCAP:
        *val = X86_MTRR_VAR | MTRRCAP_FIX | MTRRCAP_WC;
        return X86_MSR_OK;
    case MSR_MTRR_DEF_TYPE:
        *val = s->mtrr_def_type;
        return X86_MSR_OK;
    case MSR_MTRR_PHYSBASE0 ... MSR_MTRR_PHYSBASE0 + 2 * X86_MTRR_VAR - 1:
        slot = (msr - MSR_MTRR_PHYSBASE0) / 2;
        *val = msr & 1 ? s->mtrr_mask[slot] : s->mtrr_base[slot];
        return X86_MSR_OK;
    case MSR_MCG_CAP:
        *val = X86_MC_BANKS | MCG_CAP_CTL_P;
        return X86_MSR_OK;
    case MSR_MCG_STATUS:
        *val = s->mcg_status;
        return X86_MSR_OK;
    case MSR_MCG_CTL:
        *val = s->mcg_ctl;
        return X86_MSR_OK;
    case MSR_MC0_CTL ... MSR_MC0_CTL + 4 * X86_MC_BANKS - 1:
        slot = msr - MSR_MC0_CTL;
        *val = s->mc_bank[slot / 4][slot % 4];
        return X86_MSR_OK;
    default:
        break;
    }

    int fixed = fixed_mtrr(msr);
    if (fixed >= 0) {
        *val = s->mtrr_fixed[fixed];
        return X86_MSR_OK;
    }
    const struct misc_msr *e = find_misc(m, msr, &slot);
    if (!e)
        return X86_MSR_UNKNOWN;
    if (e->kind == WRITE_ONLY)
        return X86_MSR_GP;
    *val = e->kind == STORE ? s->misc_msr[slot] : e->reset;
    return X86_MSR_OK;
}

/* IA32_EFER (SDM 4 table 2-2; APM 2 3.1.7): LMA follows CR0.PG and LME, it cannot be written. */
static enum x86_msr_result efer_write(struct x86_vcpu_state *s, const struct x86_cpu_model *m,
                                      u64 val)
{
    if (val & ~(m->efer_valid | EFER_LMA))
        return X86_MSR_GP;
    if (((val ^ s->efer) & EFER_LME) && (s->cr0 & CR0_PG))
        return X86_MSR_GP;
    s->efer = (val & ~EFER_LMA) | (s->efer & EFER_LMA);
    return X86_MSR_OK;
}

/* One canonical address MSR. */
static enum x86_msr_result address_write(const struct x86_cpu_model *m, u64 *field, u64 val)
{
    if (!x86_canonical(val, m->lin_bits))
        return X86_MSR_GP;
    *field = val;
    return X86_MSR_OK;
}

/*
 * MCi_CTL, _STATUS, _ADDR, _MISC (SDM 3B 15.3.2). CTL takes all ones or zeroes, but for the bits
 * old kernels clear against errata (10 in bank 4 of K8, 0 in bank 1 of P6). STATUS can only be
 * cleared unless HWCR allows more.
 */
static enum x86_msr_result mc_write(struct x86_vcpu_state *s, const struct x86_cpu_model *m,
                                    unsigned n, u64 val)
{
    bool any = m->amd && (s->misc_msr[misc_slot(MSR_AMD_HWCR)] & HWCR_MC_STATUS_WR_EN);
    if (n % 4 == 0 && val && (val | BIT64(10) | BIT64(0)) != ~(u64)0)
        return X86_MSR_GP;
    if (n % 4 == 1 && val && !any)
        return X86_MSR_GP;
    s->mc_bank[n / 4][n % 4] = val;
    return X86_MSR_OK;
}

enum x86_msr_result x86_msr_write(struct x86_vcpu_state *s, const struct x86_cpu_model *m, u32 msr,
                                  u64 val, u64 host_tsc)
{
    unsigned slot;
    u64 delta;

    switch (msr) {
    case MSR_TSC:
        /* A write moves IA32_TSC_ADJUST by as much as the counter (SDM 3B 17.17.3). */
        delta = val - (host_tsc + s->tsc_offset);
        s->tsc_offset += delta;
        s->tsc_adjust += delta;
        return X86_MSR_OK;
    case MSR_TSC_ADJUST:
        s->tsc_offset += val - s->tsc_adjust;
        s->tsc_adjust = val;
        return X86_MSR_OK;
    case MSR_SYSENTER_CS:
        s->sysenter_cs = (u32)val;
        return X86_MSR_OK;
    case MSR_SYSENTER_ESP:
        if (m->amd) /* 32 bits in legacy mode only; a full register on other vendors' CPUs */
            val = (u32)val;
        return address_write(m, &s->sysenter_esp, val);
    case MSR_SYSENTER_EIP:
        if (m->amd)
            val = (u32)val;
        return address_write(m, &s->sysenter_eip, val);
    case MSR_MISC_ENABLE:
        s->misc_enable = (s->misc_enable & ~MISC_ENABLE_WRITABLE) | (val & MISC_ENABLE_WRITABLE);
        return X86_MSR_OK;
    case MSR_PAT:
        if (!x86_pat_valid(val))
            return X86_MSR_GP;
        s->pat = val;
        return X86_MSR_OK;
    case MSR_EFER:
        return efer_write(s, m, val);
    case MSR_STAR:
        s->star = val;
        return X86_MSR_OK;
    case MSR_LSTAR:
        return address_write(m, &s->lstar, val);
    case MSR_CSTAR:
        return address_write(m, &s->cstar, val);
    case MSR_SFMASK:
        if (!m->amd && val >> 32) /* bits 63:32 are reserved (SDM 4), ignored by AMD */
            return X86_MSR_GP;
        s->sfmask = (u32)val;
        return X86_MSR_OK;
    case MSR_FS_BASE:
        return address_write(m, &s->seg[X86_FS].base, val);
    case MSR_GS_BASE:
        return address_write(m, &s->seg[X86_GS].base, val);
    case MSR_KERNEL_GS_BASE:
        return address_write(m, &s->kernel_gs_base, val);
    case MSR_TSC_AUX:
        if (!m->tsc_aux || (!m->amd && val >> 32))
            return X86_MSR_GP;
        s->tsc_aux = (u32)val;
        return X86_MSR_OK;
    case MSR_SPEC_CTRL:
        if (val & ~SPEC_CTRL_VALID)
            return X86_MSR_GP;
        s->spec_ctrl = val;
        return X86_MSR_OK;
    case MSR_PRED_CMD: /* IBPB and SBPB: prediction of the host is not the guest's */
        return val & ~(BIT64(0) | BIT64(7)) ? X86_MSR_GP : X86_MSR_OK;
    case MSR_BIOS_SIGN_ID:
        return X86_MSR_OK; /* written 0 before the revision is read (SDM 3A 9.11.7.1) */
    case MSR_ARCH_CAPABILITIES:
    case MSR_PLATFORM_INFO:
    case MSR_MTRRCAP:
    case MSR_MCG_CAP:
        return X86_MSR_GP;
    case MSR_DEBUGCTL:
        if (val & ~(DEBUGCTL_LBR | DEBUGCTL_BTF))
            return X86_MSR_GP;
        s->debugctl = val & DEBUGCTL_BTF; /* no last-branch records to enable */
        return X86_MSR_OK;
    case MSR_MTRR_DEF_TYPE:
    case MSR_MTRR_PHYSBASE0 ... MSR_MTRR_PHYSBASE0 + 2 * X86_MTRR_VAR - 1:
        return mtrr_write(s, m, msr, val);
    case MSR_MCG_STATUS:
        if (val & ~MASK64(2, 0))
            return X86_MSR_GP;
        s->mcg_status = val;
        return X86_MSR_OK;
    case MSR_MCG_CTL:
        if (val && val != ~(u64)0)
            return X86_MSR_GP;
        s->mcg_ctl = val;
        return X86_MSR_OK;
    case MSR_MC0_CTL ... MSR_MC0_CTL + 4 * X86_MC_BANKS - 1:
        return mc_write(s, m, msr - MSR_MC0_CTL, val);
    default:
        break;
    }

    if (fixed_mtrr(msr) >= 0)
        return mtrr_write(s, m, msr, val);
    const struct misc_msr *e = find_misc(m, msr, &slot);
    if (!e)
        return X86_MSR_UNKNOWN;
    if (e->kind == CONST)
        return X86_MSR_GP;
    if (e->kind == STORE)
        s->misc_msr[slot] = val;
    return X86_MSR_OK;
}
