/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the vector half of the interpreter. */
#ifndef TRIVISOR_ENGINE_INTERP_VECTOR_H
#define TRIVISOR_ENGINE_INTERP_VECTOR_H

#include <Zydis/Zydis.h>

#include "engine/interp/flags.h"
#include "engine/interp/interp_priv.h"

/* State components (SDM 1 13.1). */
enum { XC_X87, XC_SSE, XC_AVX, XC_OPMASK = 5, XC_ZMM_HI256 = 6, XC_HI16_ZMM = 7, XC_N };
#define XC_BIT(n) BIT64(n)
#define XC_AVX512 (XC_BIT(XC_OPMASK) | XC_BIT(XC_ZMM_HI256) | XC_BIT(XC_HI16_ZMM))
#define XC_KEPT (XC_BIT(XC_X87) | XC_BIT(XC_SSE) | XC_BIT(XC_AVX) | XC_AVX512)

/* Layout of the XSAVE image (SDM 1 13.4). */
enum {
    XS_FCW = 0,
    XS_FSW = 2,
    XS_FTW = 4,
    XS_FOP = 6,
    XS_FIP = 8,
    XS_FDP = 16,
    XS_MXCSR = 24,
    XS_MXCSR_MASK = 28,
    XS_ST = 32,
    XS_XMM = 160,
    XS_LEGACY = 512,
    XS_BV = 512,
    XS_XCOMP_BV = 520,
    XS_HEADER_END = 576
};

/* --- image (xstate.c) */
struct xc_place {
    u32 off, size;
    bool align64; /* in the compacted format */
};
/* Where the host's standard format keeps component n; size 0: it has none. */
const struct xc_place *xc_place(unsigned n);
/* Components the host can hold that we keep. */
u64 xc_host_mask(void);
/* Makes component n present in s->xsave, in its initial state if it was not, and returns it
 * (components 0 and 1: the image's start). NULL: the host has no such component. */
u8 *xc_use(struct x86_vcpu_state *s, unsigned n);
/* All 64 bytes of vector register `reg`, and the opmask registers. */
void xv_get(struct x86_vcpu_state *s, unsigned reg, u8 buf[64]);
/* Sets `size` bytes of it; the rest of the 64 becomes zero (VEX and EVEX destinations). */
void xv_set(struct x86_vcpu_state *s, unsigned reg, const u8 *buf, unsigned size);
u64 xv_get_mask(struct x86_vcpu_state *s, unsigned k);
void xv_set_mask(struct x86_vcpu_state *s, unsigned k, u64 val);

static inline u16 xs_get16(const struct x86_vcpu_state *s, unsigned off)
{
    return (u16)(s->xsave[off] | s->xsave[off + 1] << 8);
}

/* --- native execution (native.c) */
/*
 * Runs insn on the host with the guest's vector state. mem: what its memory operand is replaced by
 * (already holding the data to be read), NULL when it has none. Raises what the host raised.
 * Returns false when the engine gave no native page.
 */
bool native_exec(struct interp *in, const struct x86_insn *insn, void *mem);

/* --- masked memory operands (masked.c) */
/* True when the instruction needs it: lanes that are masked out must not be accessed. */
bool masked_operand(const struct x86_insn *insn);
enum interp_result masked_exec(struct interp *in, const struct x86_insn *insn);
/* Raises #GP where the instruction wants an aligned operand; comes before segmentation. */
void vector_align_gp(struct interp *in, const struct x86_insn *insn);
/* Raises #AC when alignment checks are on. */
void vector_align_ac(struct interp *in, const struct x86_insn *insn, u64 lin);
/* The instruction as it is, its memory operand through in->bounce. */
enum interp_result vector_plain(struct interp *in, const struct x86_insn *insn);

/* --- state save and restore (xsave.c): NULL when the mnemonic is none of it */
interp_handler *xsave_handler(u16 mnemonic);

/* --- gathers and scatters (gather.c) */
enum interp_result gather_exec(struct interp *in, const struct x86_insn *insn);

#endif
