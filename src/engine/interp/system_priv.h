/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the system half of the interpreter: descriptors, stacks that are not (yet) the current
 * one, and mode changes. Everything named raise unwinds by interp_raise*.
 */
#ifndef TRIVISOR_ENGINE_INTERP_SYSTEM_PRIV_H
#define TRIVISOR_ENGINE_INTERP_SYSTEM_PRIV_H

#include "engine/interp/interp_priv.h"

/* System descriptor types (SDM 3A table 3-2). */
enum {
    DESC_TSS16 = 1,
    DESC_LDT = 2,
    DESC_TSS16_BUSY = 3,
    DESC_CALL_GATE16 = 4,
    DESC_TASK_GATE = 5,
    DESC_INT_GATE16 = 6,
    DESC_TRAP_GATE16 = 7,
    DESC_TSS32 = 9, /* 64-bit TSS in long mode, as the gates below */
    DESC_TSS32_BUSY = 11,
    DESC_CALL_GATE32 = 12,
    DESC_INT_GATE32 = 14,
    DESC_TRAP_GATE32 = 15,
};

/* A descriptor as it lies in memory. */
struct idesc {
    u64 raw;   /* the first eight bytes */
    u64 upper; /* bits 63:32 of the base or offset of 16-byte descriptors, else 0 */
    u64 lin;   /* linear address of it */
    u16 sel;
    u16 attr; /* X86_SEG_* */
};

/* The error code for a selector (SDM 3A 6.13); EXT is added by interp_raise_err. */
static inline u32 sel_error(u16 sel)
{
    return sel & 0xfffcu;
}

static inline bool sel_null(u16 sel)
{
    return !(sel & 0xfffcu);
}

static inline unsigned attr_dpl(u16 attr)
{
    return (attr & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
}

static inline bool attr_is_code(u16 attr)
{
    return (attr & (X86_SEG_S | X86_SEG_CODE)) == (X86_SEG_S | X86_SEG_CODE);
}

static inline bool attr_is_writable_data(u16 attr)
{
    return (attr & (X86_SEG_S | X86_SEG_CODE | X86_SEG_RW)) == (X86_SEG_S | X86_SEG_RW);
}

static inline bool attr_is_conforming(u16 attr)
{
    return (attr & X86_SEG_DC) != 0;
}

/* Type field of a system descriptor, or -1 for code and data. */
static inline int attr_system_type(u16 attr)
{
    return attr & X86_SEG_S ? -1 : (int)(attr & X86_SEG_TYPE);
}

/* Offset, selector and parameter count of a gate. */
static inline u16 gate_sel(const struct idesc *d)
{
    return (u16)(d->raw >> 16);
}

static inline u64 gate_offset(const struct idesc *d)
{
    return (d->raw & 0xffff) | (d->raw >> 32 & 0xffff0000) | d->upper << 32;
}

/* --- descriptors (segment.c) */

/* Reads the descriptor of sel from the GDT or LDT; false when it lies beyond the table's limit. Not
 * for null selectors. */
bool idesc_read(struct interp *in, u16 sel, struct idesc *d);
/* Reads it or raises vector(sel). */
void idesc_need(struct interp *in, u16 sel, u8 vector, struct idesc *d);
/* Reads the second half of a 16-byte system descriptor; raises vector(sel) when it is beyond the
 * limit or its type field (bits 12:8 of the last dword) is not 0. */
void idesc_need_upper(struct interp *in, u8 vector, struct idesc *d);
/* Sets the accessed bit in memory when it is clear. */
void idesc_mark_accessed(struct interp *in, struct idesc *d);
/* Sets or clears the busy bit of a TSS descriptor in memory. */
void idesc_set_busy(struct interp *in, u16 sel, bool busy);
/* The hidden part for a code, data or system descriptor. */
void idesc_to_seg(const struct idesc *d, u16 sel, struct x86_seg *seg);
/* A null segment register. */
void iseg_set_null(struct x86_seg *seg, u16 sel);
/* Makes 0 of data segment registers that are null or that the new, outer CPL may not use (SDM 2A,
 * IRET, RETURN-TO-OUTER-PRIVILEGE-LEVEL). */
void iseg_drop_inner(struct interp *in);
/* SS for privilege level dpl: raises vector(sel) on wrong rights, #SS(sel) when not present. */
void iseg_need_stack(struct interp *in, u16 sel, unsigned dpl, u8 vector, struct idesc *d);
/* LDTR from the GDT with the checks of LLDT; vector is raised for all but a missing segment. */
void iseg_load_ldt(struct interp *in, u16 sel, u8 vector, u8 missing);

/* --- stacks (sysstack.c) */

/* A stack being pushed to or popped from before it is the current one. */
struct istack {
    struct x86_seg ss;
    u64 sp;
    u64 mask; /* stack address size */
    unsigned access;
    bool flat64; /* no segmentation, canonical checks */
    bool down;   /* expand-down */
    u16 err;     /* error code of #SS */
};

/* The current stack. */
void istack_current(const struct interp *in, struct istack *st);
/* A stack for cpl with ss:sp; ss and flat64 describe it. */
void istack_new(const struct interp *in, struct istack *st, const struct x86_seg *ss, u64 sp,
                unsigned cpl, bool flat64);
void istack_push(struct interp *in, struct istack *st, unsigned size, u64 val);
u64 istack_pop(struct interp *in, struct istack *st, unsigned size);
/* RSP := sp within the stack's address size. */
void istack_commit(struct interp *in, const struct istack *st);

/* Inner stack pointer from the TSS for privilege level dpl (SDM 3A 7.2.1, 7.7). Legacy: SS and ESP;
 * 64-bit: RSP only. Raises #TS. */
void itss_stack(struct interp *in, unsigned dpl, u16 *ss, u64 *sp);
/* RSP from IST entry 1..7. */
u64 itss_ist(struct interp *in, unsigned ist);

/* Raises #GP(0) unless off can be executed from code segment cs (limit, or canonical when 64-bit).
 */
void ifar_check_target(struct interp *in, const struct x86_seg *cs, u64 off);
/* True when a code segment with these attributes is 64-bit code now. */
bool ifar_is_64bit(const struct interp *in, u16 attr);
/* Reads the code segment a call, interrupt or trap gate names: present, DPL <= CPL, 64-bit code in
 * long mode. Raises #GP or #NP. */
void ifar_gate_code(struct interp *in, u16 sel, struct idesc *d);
/* Reads the code segment a far return or IRET goes to, for privilege level sel.RPL. */
void ifar_return_code(struct interp *in, u16 sel, struct idesc *d);
/* Reads the stack segment of a return to level rpl; a null one (only to 64-bit code inside the
 * kernel) gives a null register. Does not mark it accessed: *d is to be marked when *null is clear.
 */
void ifar_return_stack(struct interp *in, u16 sel, unsigned rpl, bool to64, struct idesc *d,
                       struct x86_seg *seg, bool *null);

/* Reads the PDPTEs cr3 points to; raises #GP(0) for reserved bits (syscr.c). */
void iload_pdptes(struct interp *in, u64 cr3, u64 pdpte[4]);

/* --- tasks (task.c) */
enum itask_cause { ITASK_JMP, ITASK_CALL, ITASK_IRET };
/* Switches to the TSS with selector sel, already read as d. has_error: push error on the new
 * stack. Leaves in->next_rip and s->rip at the new task. */
void itask_switch(struct interp *in, u16 sel, enum itask_cause cause, bool has_error, u32 error);

/* --- flags */
/* Writes the bits of mask in RFLAGS from val; bit 1 stays set. */
static inline void iflags_set(struct interp *in, u64 val, u64 mask)
{
    struct x86_vcpu_state *s = in->s;
    s->rflags = (s->rflags & ~mask) | (val & mask) | RFLAGS_FIXED;
}

static inline unsigned iopl(const struct x86_vcpu_state *s)
{
    return (unsigned)((s->rflags & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT);
}

static inline bool in_v86(const struct x86_vcpu_state *s)
{
    return (s->rflags & RFLAGS_VM) != 0;
}

/* Raises #GP(0) unless CPL is 0. */
static inline void need_cpl0(struct interp *in)
{
    if (in->s->cpl != 0)
        interp_raise_err(in, X86_GP, 0);
}

/* Raises #UD in real and virtual-8086 mode. */
static inline void need_protected(struct interp *in)
{
    if (!x86_protected(in->s))
        interp_raise(in, X86_UD);
}

/* --- handlers of the table in system.c */
interp_handler ifar_iret;                                                           /* iret.c */
interp_handler isys_syscall, isys_sysret, isys_sysenter, isys_sysexit, isys_swapgs; /* syscall.c */
interp_handler isys_rdmsr, isys_wrmsr, isys_rdtsc, isys_rdtscp, isys_rdpid, isys_rdpmc, isys_cpuid,
    isys_xgetbv, isys_xsetbv, isys_fsgsbase; /* sysmsr.c */
interp_handler isys_movcr, isys_movdr, isys_clts, isys_lmsw, isys_smsw, isys_invlpg, isys_invpcid,
    isys_wbinvd; /* syscr.c */
interp_handler isys_load_dt, isys_store_dt, isys_lldt, isys_ltr, isys_sldt, isys_str, isys_lar,
    isys_lsl, isys_verr, isys_arpl;                    /* sysdesc.c */
interp_handler isys_in, isys_out, isys_ins, isys_outs; /* sysio.c */
interp_handler isys_cli, isys_sti, isys_pushf, isys_popf, isys_clac, isys_int, isys_int3, isys_into,
    isys_int1;           /* sysflags.c */
interp_handler isys_lxs; /* segment.c */

/* True when the TSS's I/O permission bitmap allows size ports from port (sysio.c). */
bool iio_allowed(struct interp *in, u16 port, unsigned size);
/* Raises #GP(0) when UMIP hides descriptor-table and machine-status registers from this CPL. */
static inline void need_umip(struct interp *in)
{
    if ((in->s->cr4 & CR4_UMIP) && in->s->cpl == 3)
        interp_raise_err(in, X86_GP, 0);
}

#endif
