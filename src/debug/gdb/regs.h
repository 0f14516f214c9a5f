/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers gdb is shown: a table built from the CPU model, the target description made of it,
 * and reading and writing them in a vCPU's state.
 */
#ifndef TRIVISOR_DEBUG_GDB_REGS_H
#define TRIVISOR_DEBUG_GDB_REGS_H

#include "core/vm.h"

/* The layout does not follow the mode of the guest: gdb wants one for all of a session. */
enum gdb_arch { GDB_X86_64, GDB_I386 };

enum gdb_reg_kind {
    GDB_REG_GPR,
    GDB_REG_RIP,
    GDB_REG_FLAGS,
    GDB_REG_SEL,  /* selector of segment `index` */
    GDB_REG_ST,   /* x87 stack */
    GDB_REG_FPU,  /* x87 control register, enum gdb_fpu_reg in index */
    GDB_REG_XMM,  /* bits 127..0 of vector register `index` */
    GDB_REG_YMMH, /* bits 255..128 */
    GDB_REG_ZMMH, /* bits 511..256 */
    GDB_REG_MASK, /* AVX-512 mask */
    GDB_REG_MXCSR,
    GDB_REG_SYSTEM, /* enum gdb_system_reg in index */
};

enum gdb_fpu_reg {
    GDB_FCTRL,
    GDB_FSTAT,
    GDB_FTAG,
    GDB_FISEG,
    GDB_FIOFF,
    GDB_FOSEG,
    GDB_FOOFF,
    GDB_FOP,
};

enum gdb_system_reg {
    GDB_FS_BASE,
    GDB_GS_BASE,
    GDB_K_GS_BASE,
    GDB_CR0,
    GDB_CR2,
    GDB_CR3,
    GDB_CR4,
    GDB_CR8,
    GDB_EFER,
    GDB_DR0,
    GDB_DR1,
    GDB_DR2,
    GDB_DR3,
    GDB_DR6,
    GDB_DR7,
    GDB_XCR0,
    GDB_GDTR_BASE,
    GDB_GDTR_LIMIT,
    GDB_IDTR_BASE,
    GDB_IDTR_LIMIT,
    GDB_LDTR,
    GDB_TR,
    GDB_TR_BASE,
};

struct gdb_reg {
    char name[12];
    u8 kind, index;
    u8 size; /* bytes, as sent */
};

#define GDB_REGS_MAX 192
#define GDB_REG_SIZE_MAX 32
#define GDB_XML_MAX 24576

struct gdb_regs {
    enum gdb_arch arch;
    unsigned n;
    struct gdb_reg reg[GDB_REGS_MAX];
    /* Offsets of components in the XSAVE image by their number (SDM 1 13.5); 0: not there. */
    u32 xsave_off[8];
    u32 mxcsr_mask;
    size_t xml_len;
    char xml[GDB_XML_MAX]; /* target.xml */
};

/* Fills *r for a machine with this CPU model. */
void gdb_regs_init(struct gdb_regs *r, enum gdb_arch arch, const struct x86_cpu_model *m);

/* Register n of v, whose state is *s, little endian; its size is in the table. */
void gdb_reg_get(const struct gdb_regs *r, struct vcpu *v, const struct x86_vcpu_state *s,
                 unsigned n, u8 *buf);

/*
 * Changes register n in *s, which the caller gives back to the engine. 0; -EINVAL: the value is one
 * the CPU could not hold, or would change how the CPU runs (paging, protection, long mode, segments
 * of protected mode). What is there already can always be written.
 */
int gdb_reg_set(const struct gdb_regs *r, struct vcpu *v, struct x86_vcpu_state *s, unsigned n,
                const u8 *buf);

/* --- xstate.c: x87 and vector registers in the XSAVE image --- */
void gdb_xstate_get(const struct gdb_regs *r, const struct x86_vcpu_state *s,
                    const struct gdb_reg *reg, u8 *buf);
void gdb_xstate_set(const struct gdb_regs *r, struct x86_vcpu_state *s, const struct gdb_reg *reg,
                    const u8 *buf);

#endif
