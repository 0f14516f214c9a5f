/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one door to the instruction decoder (Zydis): a decoded instruction in the compact form the
 * interpreter and the translator share. Mnemonics are Zydis' own (ZYDIS_MNEMONIC_*).
 */
#ifndef TRIVISOR_X86_INSN_H
#define TRIVISOR_X86_INSN_H

#include <Zydis/Mnemonic.h>

#include "x86/regs.h"

#define X86_INSN_MAX 15

enum x86_op_kind {
    X86_OP_NONE,
    X86_OP_GPR, /* reg = encoding number 0..15; high8 for AH CH DH BH */
    X86_OP_MEM, /* described by x86_insn.mem */
    X86_OP_IMM, /* imm, sign- or zero-extended to 64 bits as the instruction defines; x86_insn.imm[]
                 */
    X86_OP_REL, /* branch target: absolute value = rip of next instruction + imm */
    X86_OP_PTR, /* far pointer: imm = offset, imm2 = selector */
    X86_OP_SEG, /* reg = X86_ES.. */
    X86_OP_CR,
    X86_OP_DR,
    X86_OP_ST, /* x87 stack register */
    X86_OP_MMX,
    X86_OP_VEC,   /* xmm, ymm, zmm: reg 0..31, size tells which */
    X86_OP_MASK,  /* k0..k7 */
    X86_OP_OTHER, /* bound registers, tile registers, flags, ip, table registers, ... */
};

struct x86_op {
    u8 kind; /* enum x86_op_kind */
    u8 reg;
    u8 high8;
    u8 read;     /* operand is read (may be conditional) */
    u8 write;    /* operand is written (may be conditional) */
    u8 implicit; /* not encoded in modrm/opcode/immediate */
    u16 size;    /* bits */
    u8 enc;      /* ZYDIS_OPERAND_ENCODING_*: which field of the instruction holds it */
};

enum x86_encoding {
    X86_ENC_LEGACY,
    X86_ENC_3DNOW,
    X86_ENC_XOP,
    X86_ENC_VEX,
    X86_ENC_EVEX,
    X86_ENC_MVEX
};

#define X86_NOREG 0xff
#define X86_REG_RIP 0x10 /* only as mem.base */

#define X86_PFX_LOCK 0x01
#define X86_PFX_REP 0x02   /* F3 acting as REP/REPE (not a mandatory prefix) */
#define X86_PFX_REPNE 0x04 /* F2 acting as REPNE (not a mandatory prefix) */
#define X86_PFX_OPSIZE 0x08
#define X86_PFX_ADDRSIZE 0x10
#define X86_PFX_SEG 0x20 /* an effective segment override */

struct x86_insn {
    u16 mnemonic; /* ZYDIS_MNEMONIC_* */
    u8 length;
    u8 mode;       /* code size it was decoded for: 16, 32 or 64 */
    u8 real_mode;  /* decoded for real or virtual-8086 mode */
    u8 encoding;   /* enum x86_encoding */
    u8 opcode_map; /* Zydis numbering: 0 one-byte, 1 0F, 2 0F38, 3 0F3A */
    u8 opcode;
    u8 opsize;           /* effective operand size in bytes: 1? never; 2, 4, 8 */
    u8 addrsize;         /* effective address size in bytes: 2, 4, 8 */
    u8 prefixes;         /* X86_PFX_* */
    u8 nops;             /* operands in op[], explicit first, then implicit; hidden ones left out */
    u8 category;         /* ZYDIS_CATEGORY_* */
    u8 isa_ext;          /* ZYDIS_ISA_EXT_* */
    u16 isa_set;         /* ZYDIS_ISA_SET_* */
    u32 flags_read;      /* RFLAGS bits tested */
    u32 flags_written;   /* RFLAGS bits set, cleared, changed or left undefined */
    u32 flags_undefined; /* of those, the ones the manual leaves undefined: a CPU may keep them */
    bool hidden_mem; /* accesses memory that no operand in op[] names: stack, string, XLAT, ... */
    bool has_modrm;
    u8 modrm;                                 /* raw byte */
    u8 modrm_off, sib_off, disp_off, imm_off; /* offsets in bytes[]; 0: absent */
    u8 disp_size, imm_size;                   /* bytes; imm_size is the first immediate's */
    u8 rex;                                   /* raw REX byte or 0 */
    u8 vex_off;                               /* offset of C4/C5/62/8F or of REX; 0xff: none */
    struct {
        u8 base;  /* GPR number, X86_REG_RIP or X86_NOREG */
        u8 index; /* GPR number, vector register number when vsib, or X86_NOREG */
        u8 scale; /* 1, 2, 4, 8 */
        u8 seg;   /* effective segment, default or override */
        bool vsib;
        bool present; /* there is an explicit or implicit memory operand described here */
        bool agen;    /* address only (LEA, NOP, prefetch, INVLPG): not an access */
        u16 size;     /* bits accessed */
        u16 elem;     /* bits of one element of it (vectors) */
        s64 disp;     /* for RIP base: to be added to the address of the next instruction */
    } mem;
    u8 mask;      /* EVEX: opmask register, 0: none */
    u8 bcast;     /* EVEX: the memory operand is broadcast to this many elements; 0: it is not */
    u8 exc_class; /* ZYDIS_EXCEPTION_CLASS_* */
    u64 imm[2];
    struct x86_op op[5];
    u8 bytes[X86_INSN_MAX];
};

enum x86_decode_result {
    X86_DECODE_OK,
    X86_DECODE_MORE,    /* needs more than the n bytes given */
    X86_DECODE_TOOLONG, /* over 15 bytes: #GP */
    X86_DECODE_INVALID, /* #UD */
};

/*
 * Conventions worth knowing: string instructions and XLAT have no operands in op[], but (as for
 * MASKMOV*) mem describes their memory operand (MOVS and CMPS: the overridable one at rSI); F2 on a
 * string instruction that does not compare counts as X86_PFX_REP. flags_written of shifts by CL
 * holds flags a zero count leaves alone. An operand-size prefix on near branches in 64-bit mode
 * follows the host's vendor (AMD: opsize 2).
 *
 * Decodes one instruction from bytes[0..n). mode: 16, 32 or 64 (CS.D/L); real: real or virtual-8086
 * mode. n of 15 always suffices. On failure *insn is undefined.
 */
enum x86_decode_result x86_decode(struct x86_insn *insn, const u8 *bytes, size_t n, unsigned mode,
                                  bool real);

/* Intel-syntax text for messages and traces; NUL-terminated within size. rip: of the instruction.
 */
void x86_format(const struct x86_insn *insn, u64 rip, char *buf, size_t size);

#endif
