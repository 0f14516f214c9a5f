/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic flags in and out of the host's own instructions. The operations of the interpreter are
 * the host's: flags, those the manuals leave undefined included, are then the host CPU's by
 * construction.
 *
 * The short form keeps SF ZF AF PF CF in AH (LAHF, SAHF) and OF in AL; both instructions are cheap
 * where PUSHF and POPF are not.
 */
#ifndef TRIVISOR_ENGINE_INTERP_FLAGS_H
#define TRIVISOR_ENGINE_INTERP_FLAGS_H

#include "x86/regs.h"

#define FLAGS_AH ((u64)0xd5)

/* AX as LAHF; SETO AL leave it, to RFLAGS bits. */
static inline u64 flags_from_ax(u64 ax)
{
    return ((ax >> 8) & FLAGS_AH) | (ax & 1) << 11;
}

/* RFLAGS to the AX that ADD AL,7Fh; SAHF loads. */
static inline u64 flags_to_ax(u64 rflags)
{
    return (rflags & FLAGS_AH) << 8 | ((rflags >> 11) & 1);
}

/* Asm text around an instruction that reads and writes flags, AX being "+a". */
#define FLAGS_IN "addb $0x7f, %%al\n\tsahf\n\t"
#define FLAGS_OUT "\n\tlahf\n\tseto %%al"

/* Replaces the arithmetic flags. */
static inline void flags_set(u64 *rflags, u64 arith)
{
    *rflags = (*rflags & ~RFLAGS_ARITH) | arith;
}

/* Condition codes as encoded in Jcc, SETcc and CMOVcc (SDM 1 appendix B). */
static inline bool flags_cond(u64 f, unsigned cc)
{
    bool r;
    bool sf_ne_of = ((f >> 7) ^ (f >> 11)) & 1;
    switch (cc >> 1) {
    case 0:
        r = (f & RFLAGS_OF) != 0;
        break;
    case 1:
        r = (f & RFLAGS_CF) != 0;
        break;
    case 2:
        r = (f & RFLAGS_ZF) != 0;
        break;
    case 3:
        r = (f & (RFLAGS_CF | RFLAGS_ZF)) != 0;
        break;
    case 4:
        r = (f & RFLAGS_SF) != 0;
        break;
    case 5:
        r = (f & RFLAGS_PF) != 0;
        break;
    case 6:
        r = sf_ne_of;
        break;
    default:
        r = (f & RFLAGS_ZF) || sf_ne_of;
        break;
    }
    return r != (cc & 1);
}

#endif
