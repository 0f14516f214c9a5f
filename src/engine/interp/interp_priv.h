/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the interpreter. Rules:
 *  - interp_exec sets next_rip = rip + length (wrapped to the code size) and calls the handler of
 * the mnemonic; branches overwrite next_rip; when the handler returns INTERP_OK, rip becomes
 * next_rip.
 *  - A handler faults by interp_raise*, which unwinds to interp_exec (__builtin_longjmp) and never
 * returns; so it commits registers, flags and memory only after everything that can fault has been
 * done.
 *  - Everything is compiled for general registers only.
 */
#ifndef TRIVISOR_ENGINE_INTERP_PRIV_H
#define TRIVISOR_ENGINE_INTERP_PRIV_H

#include "engine/interp/interp.h"

/* --- features (features.c): instruction set extensions shown to the guest, in interp.features */
#define X86F_SSE3 BIT64(0)
#define X86F_PCLMUL BIT64(1)
#define X86F_SSSE3 BIT64(2)
#define X86F_FMA BIT64(3)
#define X86F_CX16 BIT64(4)
#define X86F_SSE41 BIT64(5)
#define X86F_SSE42 BIT64(6)
#define X86F_MOVBE BIT64(7)
#define X86F_POPCNT BIT64(8)
#define X86F_AES BIT64(9)
#define X86F_XSAVE BIT64(10)
#define X86F_AVX BIT64(11)
#define X86F_F16C BIT64(12)
#define X86F_RDRAND BIT64(13)
#define X86F_MMX BIT64(14)
#define X86F_FXSR BIT64(15)
#define X86F_SSE BIT64(16)
#define X86F_SSE2 BIT64(17)
#define X86F_BMI1 BIT64(18)
#define X86F_AVX2 BIT64(19)
#define X86F_BMI2 BIT64(20)
#define X86F_AVX512 BIT64(21)
#define X86F_RDSEED BIT64(22)
#define X86F_ADX BIT64(23)
#define X86F_CLFLUSHOPT BIT64(24)
#define X86F_CLWB BIT64(25)
#define X86F_SHA BIT64(26)
#define X86F_GFNI BIT64(27)
#define X86F_VAES BIT64(28)
#define X86F_VPCLMUL BIT64(29)
#define X86F_MOVDIRI BIT64(30)
#define X86F_MOVDIR64B BIT64(31)
#define X86F_SERIALIZE BIT64(32)
#define X86F_AVXVNNI BIT64(33)
#define X86F_XSAVEOPT BIT64(34)
#define X86F_XSAVEC BIT64(35)
#define X86F_XSAVES BIT64(36)
#define X86F_LAHF64 BIT64(37)
#define X86F_LZCNT BIT64(38)
#define X86F_SSE4A BIT64(39)
#define X86F_XOP BIT64(40)
#define X86F_FMA4 BIT64(41)
#define X86F_TBM BIT64(42)
#define X86F_3DNOW BIT64(43)
#define X86F_CLZERO BIT64(44)
#define X86F_AVX512DQ BIT64(45)
#define X86F_IFMA BIT64(46)
#define X86F_AVX512PF BIT64(47)
#define X86F_AVX512ER BIT64(48)
#define X86F_AVX512CD BIT64(49)
#define X86F_AVX512BW BIT64(50)
#define X86F_AVX512VL BIT64(51)
#define X86F_VBMI BIT64(52)
#define X86F_VBMI2 BIT64(53)
#define X86F_VNNI BIT64(54)
#define X86F_BITALG BIT64(55)
#define X86F_VPOPCNT BIT64(56)
#define X86F_4VNNIW BIT64(57)
#define X86F_4FMAPS BIT64(58)
#define X86F_VP2INTERSECT BIT64(59)
#define X86F_FP16 BIT64(60)
#define X86F_BF16 BIT64(61)
u64 interp_features(const struct x86_cpu_model *model);
/* Those an AVX-512 instruction needs besides AVX512F. */
u64 interp_avx512_features(u16 isa_set);

typedef enum interp_result interp_handler(struct interp *in, const struct x86_insn *insn);

/* --- faults (interp.c)
 * ---------------------------------------------------------------------------------- */
_Noreturn void interp_raise(struct interp *in, u8 vector); /* no error code */
_Noreturn void interp_raise_err(struct interp *in, u8 vector,
                                u32 error);           /* error gets in->ext or'ed in for
                                                         #TS #NP #SS #GP */
_Noreturn void interp_raise_fault(struct interp *in); /* in->fault is filled */

/* --- memory (mem.c): raise #PF, #GP, #SS as the access requires; sizes 1..64 bytes
 * ----------------------- */
unsigned
im_access(const struct interp *in); /* X86_ACC_USER / X86_ACC_SMAP for data accesses at this CPL */
unsigned im_system_access(
    const struct interp *in); /* implicit supervisor accesses: descriptor tables, TSS */
/* Effective address of insn->mem without segment (wrapped to the address size). */
u64 im_ea(const struct interp *in, const struct x86_insn *insn);
/* Linear address of seg:off for an access of size bytes: limit, type, canonical checks (SDM
 * 3A 5.3). */
u64 im_linear(struct interp *in, unsigned seg, u64 off, unsigned size, bool write);
u64 im_read(struct interp *in, unsigned seg, u64 off, unsigned size); /* size 1,2,4,8 */
void im_write(struct interp *in, unsigned seg, u64 off, unsigned size, u64 val);
/* On linear addresses with explicit access flags (im_access(in) or im_system_access(in)). */
u64 im_lin_read(struct interp *in, u64 lin, unsigned size, unsigned access);
void im_lin_write(struct interp *in, u64 lin, unsigned size, u64 val, unsigned access);
void im_lin_read_buf(struct interp *in, u64 lin, void *buf, unsigned n, unsigned access);
void im_lin_write_buf(struct interp *in, u64 lin, const void *buf, unsigned n, unsigned access);
/* Raises what a write of n bytes would raise, writing nothing (A and D may be set). */
void im_lin_probe_write(struct interp *in, u64 lin, unsigned n, unsigned access);

/* Seg:off to linear without raising: false when the access of size bytes is outside the segment. */
bool im_linear_ok(const struct interp *in, unsigned seg, u64 off, u64 size, bool write, u64 *lin);
/* True when a linear address is canonical under the paging mode in force. */
static inline bool im_canonical(const struct interp *in, u64 lin)
{
    return sign_extend(lin, in->s->cr4 & CR4_LA57 ? 57 : 48) == lin;
}
/* The memory at lin, up to 64 bytes over at most two pages, held for a read-modify-write: both
 * pieces are translated for writing, so get and put cannot fault. */
struct im_rmw {
    struct interp_ref part[2];
    unsigned size, first; /* bytes in all and in part[0] */
    bool single;          /* one piece of RAM: part[0].host can be used directly */
};
void im_rmw(struct interp *in, u64 lin, unsigned size, unsigned access, struct im_rmw *m);
void im_rmw_get(struct interp *in, const struct im_rmw *m, void *buf);
void im_rmw_put(struct interp *in, const struct im_rmw *m, const void *buf);
/* Raises #AC(0) for a misaligned user access of a power-of-two size when alignment checks are on
 * (SDM 3A 6.15, vector 17). */
void im_align(struct interp *in, u64 lin, unsigned size);

/* --- operands (operand.c)
 * ------------------------------------------------------------------------------- */
u64 io_read(struct interp *in, const struct x86_insn *insn,
            unsigned n); /* operand n, zero-extended */
void io_write(struct interp *in, const struct x86_insn *insn, unsigned n,
              u64 val); /* 32-bit GPR writes clear
                           the upper half */
u64 io_gpr(const struct interp *in, unsigned reg, unsigned size);
void io_set_gpr(struct interp *in, unsigned reg, unsigned size, u64 val);

/* --- stack (stack.c): width from SS.B / 64-bit mode
 * ------------------------------------------------------ */
void is_push(struct interp *in, unsigned size,
             u64 val); /* commits RSP; raise before any other commit */
u64 is_pop(struct interp *in, unsigned size);
u64 is_mask(const struct interp *in);      /* of the stack address size */
u64 is_sp(const struct interp *in);        /* RSP masked to the stack address size */
void is_set_sp(struct interp *in, u64 sp); /* writes only the stack-address-size part */

/* --- segments and far control (segment.c, far.c, task.c)
 * -------------------------------------------------- */
/* MOV/POP/LxS to a segment register other than CS, with all checks (SDM 2B MOV). */
void iseg_load(struct interp *in, unsigned seg, u16 sel);
void iseg_set_real(struct interp *in, unsigned seg, u16 sel); /* real and V86: base = sel << 4 */
void iseg_set_cpl(struct interp *in, u8 cpl);
enum interp_result ifar_jmp(struct interp *in, u16 sel, u64 off, unsigned opsize);
enum interp_result ifar_call(struct interp *in, u16 sel, u64 off, unsigned opsize);
enum interp_result ifar_ret(struct interp *in, unsigned opsize, unsigned imm);

/* --- events (event.c)
 * ------------------------------------------------------------------------------------- */
enum interp_event {
    EV_FAULT,
    EV_TRAP,
    EV_SOFT_INT /* INT n, INT3, INTO */,
    EV_ICEBP,
    EV_EXTERNAL,
    EV_NMI
};
/* Delivers through IVT or IDT, handling nested faults up to shutdown; rip pushed is `rip`. */
enum interp_result ievent_deliver(struct interp *in, enum interp_event kind, u8 vector,
                                  bool has_error, u32 error, u64 rip);

/* --- debug (debug.c)
 * ---------------------------------------------------------------------------------------- */
/* Data and I/O watchpoints hit by the instruction in progress collect here and trap after it (SDM
 * 3B 17.2). */
void idebug_data(struct interp *in, u64 lin, unsigned len, bool write);
void idebug_io(struct interp *in, u16 port, unsigned len);
/* Instruction breakpoint at rip: raises #DB (fault) unless RF. */
void idebug_fetch(struct interp *in, u64 lin);

/* --- shared mnemonics: the integer half's MOV, PUSH, POP, JMP, CALL and RET handlers pass these on
 * ---- */
interp_handler isys_mov;      /* MOV with an X86_OP_SEG, X86_OP_CR or X86_OP_DR operand */
interp_handler isys_push_seg; /* PUSH sreg */
interp_handler isys_pop_seg;  /* POP sreg */
interp_handler ifar_branch;   /* far JMP, CALL (9A, EA, FF /3, FF /5) and RET (CA, CB) */

/* --- handlers
 * --------------------------------------------------------------------------------------------- */
/* Looks up the handler; NULL: not implemented. Integer: alu, shift, bits, muldiv, string, stack,
 * branch, misc. System: system, far, event, msr. The rest (x87, MMX, SSE, AVX, AVX-512, AES, ...)
 * is ivector. */
interp_handler *interp_integer_handler(u16 mnemonic); /* table in integer.c */
interp_handler *interp_system_handler(u16 mnemonic);  /* table in system.c */
/* True for the instructions ivector is for: x87, MMX, SSE, AVX and state save. */
bool interp_is_vector(const struct x86_insn *insn);
interp_handler ivector; /* vector.c: runs it natively on state.xsave */

#endif
