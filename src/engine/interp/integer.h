/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the integer half of the interpreter: the list of handlers and what they share. */
#ifndef TRIVISOR_ENGINE_INTERP_INTEGER_H
#define TRIVISOR_ENGINE_INTERP_INTEGER_H

#include "engine/interp/flags.h"
#include "engine/interp/interp_priv.h"

/* X(mnemonic, handler). clang-format does not come to rest on such lists. */
/* clang-format off */
#define INTEGER_ALU(X)                                                                             \
    X(ADD, i_add) X(OR, i_or) X(ADC, i_adc) X(SBB, i_sbb) X(AND, i_and) X(SUB, i_sub)              \
    X(XOR, i_xor) X(CMP, i_cmp) X(TEST, i_test) X(INC, i_inc) X(DEC, i_dec) X(NEG, i_neg)          \
    X(NOT, i_not) X(XADD, i_xadd) X(XCHG, i_xchg) X(CMPXCHG, i_cmpxchg) X(CMPXCHG8B, i_cmpxchg8b)  \
    X(CMPXCHG16B, i_cmpxchg8b)

#define INTEGER_ADX(X)                                                                             \
    X(ADCX, i_adcx) X(ADOX, i_adox)

#define INTEGER_SHIFT(X)                                                                           \
    X(ROL, i_rol) X(ROR, i_ror) X(RCL, i_rcl) X(RCR, i_rcr) X(SHL, i_shl) X(SHR, i_shr)            \
    X(SAR, i_sar) X(SHLD, i_shld) X(SHRD, i_shrd) X(RORX, i_rorx) X(SARX, i_sarx) X(SHLX, i_shlx)  \
    X(SHRX, i_shrx)

#define INTEGER_BITS(X)                                                                            \
    X(BT, i_bt) X(BTS, i_bts) X(BTR, i_btr) X(BTC, i_btc) X(BSF, i_bsf) X(BSR, i_bsr)              \
    X(LZCNT, i_lzcnt) X(TZCNT, i_tzcnt) X(POPCNT, i_popcnt) X(CRC32, i_crc32) X(ANDN, i_andn)      \
    X(BEXTR, i_bextr) X(BLSI, i_blsi) X(BLSMSK, i_blsmsk) X(BLSR, i_blsr) X(BZHI, i_bzhi)          \
    X(PDEP, i_pdep) X(PEXT, i_pext)

#define INTEGER_MULDIV(X)                                                                          \
    X(MUL, i_mul) X(IMUL, i_imul) X(DIV, i_div) X(IDIV, i_idiv) X(MULX, i_mulx) X(AAA, i_aaa)      \
    X(AAS, i_aas) X(AAD, i_aad) X(AAM, i_aam) X(DAA, i_daa) X(DAS, i_das)

#define INTEGER_STRING(X)                                                                          \
    X(MOVSB, i_movs) X(MOVSW, i_movs) X(MOVSD, i_movs) X(MOVSQ, i_movs) X(STOSB, i_stos)           \
    X(STOSW, i_stos) X(STOSD, i_stos) X(STOSQ, i_stos) X(LODSB, i_lods) X(LODSW, i_lods)           \
    X(LODSD, i_lods) X(LODSQ, i_lods) X(CMPSB, i_cmps) X(CMPSW, i_cmps) X(CMPSD, i_cmps)           \
    X(CMPSQ, i_cmps) X(SCASB, i_scas) X(SCASW, i_scas) X(SCASD, i_scas) X(SCASQ, i_scas)

#define INTEGER_STACK(X)                                                                           \
    X(PUSH, i_push) X(POP, i_pop) X(PUSHA, i_pusha) X(PUSHAD, i_pusha) X(POPA, i_popa)             \
    X(POPAD, i_popa) X(ENTER, i_enter) X(LEAVE, i_leave)

#define INTEGER_BRANCH(X)                                                                          \
    X(JB, i_jcc) X(JBE, i_jcc) X(JL, i_jcc) X(JLE, i_jcc) X(JNB, i_jcc) X(JNBE, i_jcc)             \
    X(JNL, i_jcc) X(JNLE, i_jcc) X(JNO, i_jcc) X(JNP, i_jcc) X(JNS, i_jcc) X(JNZ, i_jcc)           \
    X(JO, i_jcc) X(JP, i_jcc) X(JS, i_jcc) X(JZ, i_jcc) X(JCXZ, i_jcxz) X(JECXZ, i_jcxz)           \
    X(JRCXZ, i_jcxz) X(LOOP, i_loop) X(LOOPE, i_loop) X(LOOPNE, i_loop) X(JMP, i_jmp)              \
    X(CALL, i_call) X(RET, i_ret)

#define INTEGER_MOVE(X)                                                                            \
    X(MOV, i_mov) X(MOVZX, i_movzx) X(MOVSX, i_movsx) X(MOVSXD, i_movsx) X(MOVBE, i_movbe)         \
    X(MOVNTI, i_mov) X(MOVDIRI, i_movdiri) X(MOVDIR64B, i_movdir64b) X(LEA, i_lea)                 \
    X(BSWAP, i_bswap) X(XLAT, i_xlat) X(CBW, i_cbw) X(CWDE, i_cbw) X(CDQE, i_cbw) X(CWD, i_cwd)    \
    X(CDQ, i_cwd) X(CQO, i_cwd) X(CMOVB, i_cmov) X(CMOVBE, i_cmov) X(CMOVL, i_cmov)                \
    X(CMOVLE, i_cmov) X(CMOVNB, i_cmov) X(CMOVNBE, i_cmov) X(CMOVNL, i_cmov) X(CMOVNLE, i_cmov)    \
    X(CMOVNO, i_cmov) X(CMOVNP, i_cmov) X(CMOVNS, i_cmov) X(CMOVNZ, i_cmov) X(CMOVO, i_cmov)       \
    X(CMOVP, i_cmov) X(CMOVS, i_cmov) X(CMOVZ, i_cmov) X(SETB, i_setcc) X(SETBE, i_setcc)          \
    X(SETL, i_setcc) X(SETLE, i_setcc) X(SETNB, i_setcc) X(SETNBE, i_setcc) X(SETNL, i_setcc)      \
    X(SETNLE, i_setcc) X(SETNO, i_setcc) X(SETNP, i_setcc) X(SETNS, i_setcc) X(SETNZ, i_setcc)     \
    X(SETO, i_setcc) X(SETP, i_setcc) X(SETS, i_setcc) X(SETZ, i_setcc)

#define INTEGER_MISC(X)                                                                            \
    X(NOP, i_nop) X(PAUSE, i_pause) X(PREFETCH, i_nop) X(PREFETCHNTA, i_nop) X(PREFETCHT0, i_nop)  \
    X(PREFETCHT1, i_nop) X(PREFETCHT2, i_nop) X(PREFETCHW, i_nop) X(PREFETCHWT1, i_nop)            \
    X(LFENCE, i_fence) X(MFENCE, i_fence) X(SFENCE, i_fence) X(SERIALIZE, i_serialize)             \
    X(CLFLUSH, i_clflush) X(CLFLUSHOPT, i_clflush) X(CLWB, i_clflush) X(CLZERO, i_clzero)          \
    X(UD0, i_ud) X(UD1, i_ud) X(UD2, i_ud) X(CLC, i_clc) X(STC, i_stc) X(CMC, i_cmc)               \
    X(CLD, i_cld) X(STD, i_std) X(LAHF, i_lahf) X(SAHF, i_sahf) X(SALC, i_salc) X(BOUND, i_bound)  \
    X(RDRAND, i_rdrand) X(RDSEED, i_rdseed)

#define INTEGER_HANDLERS(X)                                                                        \
    INTEGER_ALU(X) INTEGER_ADX(X) INTEGER_SHIFT(X) INTEGER_BITS(X) INTEGER_MULDIV(X)               \
    INTEGER_STRING(X) INTEGER_STACK(X) INTEGER_BRANCH(X) INTEGER_MOVE(X) INTEGER_MISC(X)
/* clang-format on */

/* Declares every handler; those serving several mnemonics are declared as often. */
#define DECLARE(mnemonic, handler) interp_handler handler;
INTEGER_HANDLERS(DECLARE)
#undef DECLARE

/* Raises #UD unless all of the X86F_* features are shown to the guest. */
static inline void need_feature(struct interp *in, u64 features)
{
    if (unlikely((in->features & features) != features))
        interp_raise(in, X86_UD);
}

/* Linear address of the instruction's memory operand for an aligned-checked access. */
static inline u64 mem_linear(struct interp *in, const struct x86_insn *insn, unsigned size,
                             bool write)
{
    u64 lin = im_linear(in, insn->mem.seg, im_ea(in, insn), size, write);
    im_align(in, lin, size);
    return lin;
}

/*
 * Must the other vCPUs be stopped for a locked access? Where it crosses pages of RAM. Not for MMIO:
 * a device is reached only by a vCPU that is out of the guest, which is not let in again while
 * anybody stops the others, and which takes the VM lock, held by devices that stop vCPUs for DMA.
 */
static inline bool rmw_stops_others(bool locked, const struct im_rmw *m)
{
    return unlikely(locked && !m->single) && m->part[0].host &&
           (m->first == m->size || m->part[1].host);
}

/*
 * Opens the memory operand for read-modify-write and, for locked instructions that one host
 * instruction cannot do, stops the other vCPUs. rmw_end must follow.
 */
static inline void rmw_begin(struct interp *in, const struct x86_insn *insn, unsigned size,
                             bool locked, struct im_rmw *m)
{
    im_rmw(in, mem_linear(in, insn, size, true), size, im_access(in), m);
    if (rmw_stops_others(locked, m))
        in->ops->exclusive_begin(in->opaque);
}

static inline void rmw_end(struct interp *in, bool locked, const struct im_rmw *m)
{
    if (rmw_stops_others(locked, m))
        in->ops->exclusive_end(in->opaque);
}

/* Compare-and-swap on RAM; *old is what was found when it fails. */
bool rmw_cas(void *p, unsigned size, u64 *old, u64 val);

#endif
