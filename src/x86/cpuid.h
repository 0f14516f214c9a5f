/* SPDX-License-Identifier: Apache-2.0 */
/* The CPUID the guest sees: the host's, minus what cannot be kept, as a table fixed at VM creation.
 */
#ifndef TRIVISOR_X86_CPUID_H
#define TRIVISOR_X86_CPUID_H

#include "x86/state.h"

struct x86_cpuid_entry {
    u32 leaf, subleaf;
    bool has_subleaf;
    u32 eax, ebx, ecx, edx;
};

#define X86_CPUID_MAX 96
#define X86_PHYS_BITS_MIN 36
#define X86_PHYS_BITS_MAX 52

/* XCR0's components that exist here beside x87 and SSE. */
#define X86_XCR0_AVX BIT64(2)
#define X86_XCR0_AVX512 (BIT64(5) | BIT64(6) | BIT64(7))

/* The entries say it all but for tsc_khz and arch_caps; the rest is derived, for the executor asks
 * for it often. */
struct x86_cpu_model {
    struct x86_cpuid_entry entry[X86_CPUID_MAX];
    unsigned n;
    u32 max_basic, max_ext;
    bool amd;      /* AuthenticAMD or HygonGenuine: SYSCALL and segment rules differ */
    u8 phys_bits;  /* MAXPHYADDR shown */
    u8 lin_bits;   /* 48 (57 only if LA57 is shown) */
    u64 cr4_valid; /* CR4 bits the guest may set */
    u64 efer_valid;
    u64 xcr0_valid;
    u32 mxcsr_mask;
    bool gbpages, nx, pse36, smep, smap, umip, pcid, invpcid, fsgsbase, rdtscp, la57;
    u32 xsave_size; /* bytes for all of xcr0_valid, standard format */
    u32 signature;  /* CPUID.1:EAX, also EDX after RESET and INIT */
    u32 tsc_khz;
    bool rdpid, tsc_aux; /* tsc_aux: RDTSCP or RDPID is shown, the MSR exists */
    u64 arch_caps;       /* IA32_ARCH_CAPABILITIES; 0: the MSR does not exist */
};

/* Options that shape the model. */
struct x86_cpu_options {
    unsigned ncpus;
    bool hide_kvm; /* no paravirtual leaves at 0x40000000 */
    /* Show, too, what the guest has no use for on engine bt but may have been shown elsewhere: ways
     * to keep the CPU from speculating. */
    bool every;
    u64 tsc_khz;
};

/* Builds the model for engine bt from the host's CPUID (through host_cpuid, to be testable). */
typedef void x86_cpuid_fn(u32 leaf, u32 subleaf, u32 out[4]);
void x86_cpu_model_build(struct x86_cpu_model *m, x86_cpuid_fn *host, u64 host_xcr0,
                         const struct x86_cpu_options *opt);

/*
 * For engines that run guest code on the CPU itself: takes out of *m what `kept` does not give, the
 * bits of a leaf that the CPU and its hypervisor keep (zeroes for leaves they have not). What board
 * and engine supply by themselves stays; what the guest must know to protect itself against the
 * CPU's weaknesses is taken as `kept` has it. The caller sets m->arch_caps.
 */
typedef void x86_cpuid_kept_fn(void *opaque, u32 leaf, u32 subleaf, u32 out[4]);
void x86_cpu_model_restrict(struct x86_cpu_model *m, x86_cpuid_kept_fn *kept, void *opaque);

/* Sets the fields that follow from the entries, of which there are leaves 0, 1, 7, 80000000H,
 * 80000001H and 80000008H. */
void x86_cpu_model_derive(struct x86_cpu_model *m);

/* What CPUID returns on a vCPU: dynamic bits (OSXSAVE, OSPKE, APIC id, APIC enabled, XCR0-dependent
 * size) are filled from *s, apic_id and apic_on. Out-of-range leaves behave as on the vendor's
 * CPUs. */
void x86_cpuid(const struct x86_cpu_model *m, const struct x86_vcpu_state *s, u32 apic_id,
               bool apic_on, u32 leaf, u32 subleaf, u32 out[4]);

#endif
