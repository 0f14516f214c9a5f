/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MSRs whose value lives in struct x86_vcpu_state, with the checks of WRMSR, and constants that
 * stock kernels expect to be able to read (SDM 4, APM 2 appendix A). MSRs of devices (local APIC,
 * TSC deadline, paravirtual clock) are not here: the callers ask their owners first.
 */
#ifndef TRIVISOR_X86_MSR_H
#define TRIVISOR_X86_MSR_H

#include "x86/cpuid.h"
#include "x86/state.h"

#define MSR_PLATFORM_ID 0x17u
#define MSR_EBL_CR_POWERON 0x2au
#define MSR_EBC_FREQUENCY_ID 0x2cu
#define MSR_SMI_COUNT 0x34u
#define MSR_FEATURE_CONTROL 0x3au
#define MSR_SPEC_CTRL 0x48u
#define MSR_PRED_CMD 0x49u
#define MSR_BIOS_UPDT_TRIG 0x79u
#define MSR_BIOS_SIGN_ID 0x8bu /* AMD: PATCH_LEVEL */
#define MSR_P6_PERFCTR0 0xc1u
#define MSR_P6_PERFCTR1 0xc2u
#define MSR_FSB_FREQ 0xcdu
#define MSR_PLATFORM_INFO 0xceu
#define MSR_MTRRCAP 0xfeu
#define MSR_ARCH_CAPABILITIES 0x10au
#define MSR_MCG_CAP 0x179u
#define MSR_MCG_STATUS 0x17au
#define MSR_MCG_CTL 0x17bu
#define MSR_P6_EVNTSEL0 0x186u
#define MSR_P6_EVNTSEL1 0x187u
#define MSR_PERF_STATUS 0x198u
#define MSR_PERF_CTL 0x199u
#define MSR_DEBUGCTL 0x1d9u
#define MSR_LASTBRANCHFROMIP 0x1dbu
#define MSR_LASTINTTOIP 0x1deu
#define MSR_MTRR_PHYSBASE0 0x200u
#define MSR_MTRR_FIX64K_00000 0x250u
#define MSR_MTRR_FIX16K_80000 0x258u
#define MSR_MTRR_FIX16K_A0000 0x259u
#define MSR_MTRR_FIX4K_C0000 0x268u
#define MSR_MTRR_FIX4K_F8000 0x26fu
#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MSR_MC0_CTL 0x400u
#define MSR_K7_EVNTSEL0 0xc0010000u
#define MSR_K7_PERFCTR3 0xc0010007u
#define MSR_AMD_SYSCFG 0xc0010010u
#define MSR_AMD_HWCR 0xc0010015u
#define MSR_AMD_TOP_MEM 0xc001001au
#define MSR_AMD_TOP_MEM2 0xc001001du
#define MSR_AMD_NB_CFG 0xc001001fu
#define MSR_AMD_PATCH_LOADER 0xc0010020u
#define MSR_AMD_INT_PENDING 0xc0010055u
#define MSR_AMD_MMIO_CONF_BASE 0xc0010058u
#define MSR_AMD_SMM_BASE 0xc0010111u
#define MSR_AMD_SMM_ADDR 0xc0010112u
#define MSR_AMD_SMM_MASK 0xc0010113u
#define MSR_AMD_VM_CR 0xc0010114u
#define MSR_AMD_VIRT_SPEC_CTRL 0xc001011fu
#define MSR_AMD_LS_CFG 0xc0011020u
#define MSR_AMD_IC_CFG 0xc0011021u
#define MSR_AMD_DC_CFG 0xc0011022u
#define MSR_AMD_BU_CFG 0xc0011023u
#define MSR_AMD_FP_CFG 0xc0011028u
#define MSR_AMD_DE_CFG 0xc0011029u
#define MSR_AMD_BU_CFG2 0xc001102au
#define MSR_AMD_EX_CFG 0xc001102cu
#define MSR_AMD_LS_CFG2 0xc001102du
#define MSR_AMD_BP_CFG 0xc001102eu
#define MSR_AMD_SPECTRAL_CHICKEN 0xc00110e3u

#define MISC_ENABLE_FAST_STRING BIT64(0)
#define DEBUGCTL_LBR BIT64(0)
#define DEBUGCTL_BTF BIT64(1)
#define MTRR_DEF_TYPE_FE BIT64(10)
#define MTRR_DEF_TYPE_E BIT64(11)
#define EFER_AUTOIBRS BIT64(21)

enum x86_msr_result {
    X86_MSR_OK,
    X86_MSR_GP,      /* #GP(0) */
    X86_MSR_UNKNOWN, /* no such MSR in this table */
};

/* Power-on values; part of x86_state_reset. */
void x86_msr_reset(struct x86_vcpu_state *s);

/* The MTRRs as PC firmware leaves them: write-back by default, A0000-BFFFF uncached. For boards
 * that start a kernel without firmware; kernels take a CPU with MTRRs off for one without PAT. */
void x86_mtrr_firmware(struct x86_vcpu_state *s);

/* RDMSR and WRMSR on *s. host_tsc: the host's TSC now (IA32_TIME_STAMP_COUNTER and _ADJUST). The
 * caller acts on what a write to EFER means for cached translations. */
enum x86_msr_result x86_msr_read(const struct x86_vcpu_state *s, const struct x86_cpu_model *m,
                                 u32 msr, u64 host_tsc, u64 *val);
enum x86_msr_result x86_msr_write(struct x86_vcpu_state *s, const struct x86_cpu_model *m, u32 msr,
                                  u64 val, u64 host_tsc);

/* Where VIRT_SPEC_CTRL is kept, which an engine may have from its hypervisor (CPUID VIRT_SSBD). */
u64 *x86_msr_virt_spec_ctrl(struct x86_vcpu_state *s);

/* True when v is canonical for `bits` linear address bits (48 or 57). */
static inline bool x86_canonical(u64 v, unsigned bits)
{
    return sign_extend(v, bits) == v;
}

/* True when val is a legal IA32_PAT (SDM 3A table 11-10). */
bool x86_pat_valid(u64 val);

#endif
