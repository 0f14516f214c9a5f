/* SPDX-License-Identifier: Apache-2.0 */
/* Page-table walk as a pure function over a memory interface (SDM 3A chapter 4). */
#ifndef TRIVISOR_X86_PAGING_H
#define TRIVISOR_X86_PAGING_H

#include "x86/state.h"

enum x86_access { X86_ACC_READ = 0, X86_ACC_WRITE = 1, X86_ACC_EXEC = 2 };
#define X86_ACC_USER 4u /* at CPL 3, or otherwise user-mode access (not implicit supervisor) */
#define X86_ACC_SMAP                                                                               \
    8u /* supervisor access with SMAP in force: CR4.SMAP and (implicit or !EFLAGS.AC) */
#define X86_ACC_NO_SET_AD 16u /* a probe (debugger): leave accessed and dirty bits alone */
/* With X86_ACC_WRITE: the same access reads first. Says nothing to the walk; watchpoints ask. */
#define X86_ACC_ALSO_READ 32u

/* How the walk reaches guest-physical memory. Entries that are not RAM read as all ones. */
struct x86_walk_mem {
    /* Host address of the 8 bytes at gpa (8-aligned, within RAM) or NULL. */
    void *(*ptr)(void *opaque, u64 gpa);
    void *opaque;
    /* Called after a walk has set A or D in the entry at gpa; may be NULL. */
    void (*touched)(void *opaque, u64 gpa);
    u8 phys_bits;    /* MAXPHYADDR: address bits from here up to 51 are reserved; 0 counts as 52 */
    bool no_gbpages; /* PS is reserved in a PDPTE (CPUID.80000001H:EDX.Page1GB clear) */
};

struct x86_walk {
    u64 gpa;         /* of the byte asked for */
    u64 page_size;   /* 4 KiB, 2 MiB, 4 MiB or 1 GiB */
    bool user;       /* page is accessible in user mode */
    bool writable;   /* R/W in every level (before CR0.WP is considered) */
    bool executable; /* no XD in any level */
    bool global;
    bool dirty; /* D set in the leaf entry (after this walk) */
    u32 error;  /* on failure: page-fault error code (PFEC_*) */
};

/*
 * Translates gva under the paging mode of *s. access: enum x86_access or'ed with X86_ACC_* flags.
 * Sets A, and D for writes, with a locked compare-exchange. Returns true and fills *w, or false
 * with w->error set. With CR0.PG clear the address is identity mapped (page_size 4 GiB counts as 1
 * GiB), all rights. Canonicality is the caller's business. PAE mode uses s->pdpte.
 */
bool x86_walk(const struct x86_vcpu_state *s, const struct x86_walk_mem *m, u64 gva,
              unsigned access, struct x86_walk *w);

/* PAE paging (CR0.PG and CR4.PAE set, EFER.LMA clear) is in force for these register values. */
static inline bool x86_pae_paging(u64 cr0, u64 cr4, u64 efer)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

/*
 * Reads the four PDPTEs that cr3 points to, as MOV CR0/CR3/CR4 and task switches do under PAE
 * paging (SDM 3A 4.4.1). false: a present entry has a reserved bit set, the load is #GP(0) and out
 * is not to be used.
 */
bool x86_load_pdptes(const struct x86_walk_mem *m, u64 cr3, u64 out[4]);

#endif
