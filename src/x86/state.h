/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The complete architectural state of one vCPU: what every engine can give and take (engine.h
 * get_state and set_state), and what `interp` and `bt` run on in place. The local APIC's own
 * registers live in the lapic device, not here.
 */
#ifndef TRIVISOR_X86_STATE_H
#define TRIVISOR_X86_STATE_H

#include "x86/regs.h"

/* Segment attributes: bits 8..15 and 20..23 of the descriptor's high dword, shifted right by 8
 * (SDM 3A figure 3-8). A null (unusable) register has X86_SEG_P clear. */
#define X86_SEG_TYPE 0x000fu
#define X86_SEG_ACCESSED 0x0001u
#define X86_SEG_RW 0x0002u /* writable data / readable code */
#define X86_SEG_DC 0x0004u /* expand-down data / conforming code */
#define X86_SEG_CODE 0x0008u
#define X86_SEG_S 0x0010u
#define X86_SEG_DPL_SHIFT 5
#define X86_SEG_DPL 0x0060u
#define X86_SEG_P 0x0080u
#define X86_SEG_AVL 0x1000u
#define X86_SEG_L 0x2000u
#define X86_SEG_DB 0x4000u
#define X86_SEG_G 0x8000u

struct x86_seg {
    u64 base;
    u32 limit; /* in bytes, granularity applied: offset of the last byte */
    u16 sel;
    u16 attr; /* X86_SEG_* */
};

struct x86_dtr {
    u64 base;
    u32 limit;
};

/* What an event is tells how it is delivered; the vector does not: any from 16 on may be a
 * device's. */
enum x86_event { X86_EV_NONE, X86_EV_EXTERNAL, X86_EV_NMI, X86_EV_EXCEPTION };

enum x86_activity { X86_RUNNING, X86_HALTED, X86_WAIT_SIPI, X86_SHUTDOWN };

/* Standard-format XSAVE image; 4 KiB holds x87, SSE, AVX and AVX-512 (2696 bytes) with room. */
#define X86_XSAVE_SIZE 4096

#define X86_MTRR_VAR 8   /* variable-range MTRR pairs */
#define X86_MC_BANKS 10  /* machine-check banks */
#define X86_MISC_MSRS 48 /* MSRs that merely hold what was written */

struct x86_vcpu_state {
    u64 gpr[16];
    u64 rip;
    u64 rflags; /* all architectural bits, bit 1 set */
    struct x86_seg seg[X86_NSEG];
    struct x86_seg ldtr, tr;
    struct x86_dtr gdtr, idtr;
    u64 cr0, cr2, cr3, cr4, xcr0, efer;
    u64 pdpte[4]; /* PAE paging only (SDM 3A 4.4.1) */
    u64 dr[4], dr6, dr7;
    u64 star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
    u64 sysenter_cs, sysenter_esp, sysenter_eip;
    u64 pat, misc_enable, spec_ctrl, xss;
    u64 tsc_offset; /* guest TSC = host TSC + tsc_offset */
    u64 tsc_adjust;
    u8 cpl;        /* SS.DPL, 0 in real mode, 3 in virtual-8086 mode */
    u8 activity;   /* enum x86_activity */
    u8 int_shadow; /* 1: by STI, 2: by MOV SS / POP SS; holds for the next instruction */
    u8 nmi_blocked;
    u8 nmi_pending; /* NMIs to come: 2 at most, and 1 while they are blocked */
    u8 db_pending;  /* a #DB trap (DR6 bits set already) is to be delivered before the next
                       instruction */
    /* An event whose delivery was cut short by a save and must be delivered again. Those of
     * instructions (INT n, INT3, INTO) are none: RIP is still there, and they are executed again.
     */
    u8 ev_kind; /* enum x86_event */
    u8 ev_vector, ev_has_error;
    u32 ev_error;
    /* MSRs with storage of their own; semantics in x86/msr.h. */
    u64 mtrr_def_type, mtrr_fixed[11], mtrr_base[X86_MTRR_VAR], mtrr_mask[X86_MTRR_VAR];
    u64 mcg_status, mcg_ctl, mc_bank[X86_MC_BANKS][4]; /* CTL, STATUS, ADDR, MISC */
    u64 debugctl;
    u64 misc_msr[X86_MISC_MSRS]; /* slots of the table in msr.c */
    u8 xsave[X86_XSAVE_SIZE] __attribute__((aligned(64)));
};

/* The state after RESET (SDM 3A table 9-1), with CS:IP at the reset vector; *s is overwritten. */
void x86_state_reset(struct x86_vcpu_state *s, u32 cpuid_1_eax, u64 host_tsc);

/* The changes INIT makes to *s (SDM 3A table 9-1): x87/vector state, MSRs and TSC survive. */
void x86_state_init(struct x86_vcpu_state *s, u32 cpuid_1_eax);

/* The changes a SIPI makes after that: real mode at vector * 4 KiB (SDM 3A 9.4.4). */
void x86_state_sipi(struct x86_vcpu_state *s, u8 vector);

/* n more NMIs arrive. Beyond one that can be taken now and one behind it they are lost (SDM 3A
 * 6.7.1). */
static inline void x86_state_nmis(struct x86_vcpu_state *s, unsigned n)
{
    unsigned max = s->nmi_blocked ? 1 : 2, sum = s->nmi_pending + n;

    s->nmi_pending = (u8)(sum < max ? sum : max);
}

static inline bool x86_long_mode(const struct x86_vcpu_state *s)
{
    return (s->efer & EFER_LMA) != 0;
}

/* In 64-bit mode (not compatibility mode). */
static inline bool x86_64bit(const struct x86_vcpu_state *s)
{
    return (s->efer & EFER_LMA) && (s->seg[X86_CS].attr & X86_SEG_L);
}

static inline bool x86_protected(const struct x86_vcpu_state *s)
{
    return (s->cr0 & CR0_PE) && !(s->rflags & RFLAGS_VM);
}

#endif
