/* SPDX-License-Identifier: Apache-2.0 */
/* Architectural registers: numbers, bits, vectors. Names are those of the Intel SDM and AMD APM. */
#ifndef TRIVISOR_X86_REGS_H
#define TRIVISOR_X86_REGS_H

#include "base/bits.h"

/* General registers in encoding order (SDM 2A table 2-2). */
enum {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R9,
    X86_R10,
    X86_R11,
    X86_R12,
    X86_R13,
    X86_R14,
    X86_R15
};

/* Segment registers in encoding order. */
enum { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_NSEG };

/* RFLAGS (SDM 1 3.4.3) */
#define RFLAGS_CF BIT64(0)
#define RFLAGS_FIXED BIT64(1)
#define RFLAGS_PF BIT64(2)
#define RFLAGS_AF BIT64(4)
#define RFLAGS_ZF BIT64(6)
#define RFLAGS_SF BIT64(7)
#define RFLAGS_TF BIT64(8)
#define RFLAGS_IF BIT64(9)
#define RFLAGS_DF BIT64(10)
#define RFLAGS_OF BIT64(11)
#define RFLAGS_IOPL MASK64(13, 12)
#define RFLAGS_IOPL_SHIFT 12
#define RFLAGS_NT BIT64(14)
#define RFLAGS_RF BIT64(16)
#define RFLAGS_VM BIT64(17)
#define RFLAGS_AC BIT64(18)
#define RFLAGS_VIF BIT64(19)
#define RFLAGS_VIP BIT64(20)
#define RFLAGS_ID BIT64(21)
#define RFLAGS_ARITH (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

/* Control registers (SDM 3A 2.5) */
#define CR0_PE BIT64(0)
#define CR0_MP BIT64(1)
#define CR0_EM BIT64(2)
#define CR0_TS BIT64(3)
#define CR0_ET BIT64(4)
#define CR0_NE BIT64(5)
#define CR0_WP BIT64(16)
#define CR0_AM BIT64(18)
#define CR0_NW BIT64(29)
#define CR0_CD BIT64(30)
#define CR0_PG BIT64(31)

#define CR3_PCID MASK64(11, 0)
#define CR3_NOFLUSH BIT64(63)

#define CR4_VME BIT64(0)
#define CR4_PVI BIT64(1)
#define CR4_TSD BIT64(2)
#define CR4_DE BIT64(3)
#define CR4_PSE BIT64(4)
#define CR4_PAE BIT64(5)
#define CR4_MCE BIT64(6)
#define CR4_PGE BIT64(7)
#define CR4_PCE BIT64(8)
#define CR4_OSFXSR BIT64(9)
#define CR4_OSXMMEXCPT BIT64(10)
#define CR4_UMIP BIT64(11)
#define CR4_LA57 BIT64(12)
#define CR4_VMXE BIT64(13)
#define CR4_FSGSBASE BIT64(16)
#define CR4_PCIDE BIT64(17)
#define CR4_OSXSAVE BIT64(18)
#define CR4_SMEP BIT64(20)
#define CR4_SMAP BIT64(21)
#define CR4_PKE BIT64(22)

#define EFER_SCE BIT64(0)
#define EFER_LME BIT64(8)
#define EFER_LMA BIT64(10)
#define EFER_NXE BIT64(11)
#define EFER_SVME BIT64(12)
#define EFER_FFXSR BIT64(14)

/* DR6/DR7 (SDM 3B 17.2) */
#define DR6_BS BIT64(14)
#define DR6_BT BIT64(15)
#define DR6_BD BIT64(13)
#define DR6_EVENTS 0xe00fu /* B0-B3, BD, BS, BT */
#define DR6_INIT 0xffff0ff0u
#define DR7_GD BIT64(13)
#define DR7_INIT 0x400u
#define DR7_KNOWN 0xffff27ffu
#define DR7_ENABLED 0xffu /* L0 G0 .. L3 G3 */

/* Exception vectors (SDM 3A table 6-1) */
enum {
    X86_DE = 0,
    X86_DB = 1,
    X86_NMI = 2,
    X86_BP = 3,
    X86_OF = 4,
    X86_BR = 5,
    X86_UD = 6,
    X86_NM = 7,
    X86_DF = 8,
    X86_TS = 10,
    X86_NP = 11,
    X86_SS_FAULT = 12,
    X86_GP = 13,
    X86_PF = 14,
    X86_MF = 16,
    X86_AC_FAULT = 17,
    X86_MC = 18,
    X86_XM = 19
};

/* Page-fault error code (SDM 3A 4.7) */
#define PFEC_P BIT32(0)
#define PFEC_W BIT32(1)
#define PFEC_U BIT32(2)
#define PFEC_RSVD BIT32(3)
#define PFEC_I BIT32(4)

/* MSRs kept in struct x86_vcpu_state or by the local APIC; the rest is in x86/msr.h. */
#define MSR_TSC 0x10u
#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_ADJUST 0x3bu
#define MSR_SYSENTER_CS 0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_MISC_ENABLE 0x1a0u
#define MSR_PAT 0x277u
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_BASE 0x800u
#define MSR_X2APIC_LAST 0x8ffu
#define MSR_XSS 0xda0u
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u

#endif
