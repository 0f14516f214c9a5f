/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Are two outcomes the same? Compared: how it ended (vector, error code, CR2, RIP), general
 * registers, flags, selectors, FS and GS base, vector and mask registers, MXCSR, the x87 stack and
 * its control, status and tag words, and every byte of memory.
 *
 * Not compared: FIP, FDP and FOP (the translator runs x87 code elsewhere); CR2 when the end was no
 * page fault; the P bit of page faults beyond user addresses (Linux always sets it); what ENTER and
 * PUSHA had pushed and POPA popped when they faulted; which of two faults of RETF is first;
 * undefined flags of AAA and its like; registers and memory after a gather or scatter that faulted;
 * CR2's place in the page for wide accesses; and, unless policy.fault_flags is set, arithmetic
 * flags at a fault: the translator does not compute flags it has proven dead, and a fault makes
 * them visible.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "difftest.h"

struct compare_policy policy = {.rf = true};

struct text {
    char *buf;
    size_t size, n;
    bool differs;
};

__attribute__((format(printf, 2, 3))) static void diff(struct text *t, const char *fmt, ...)
{
    va_list ap;
    t->differs = true;
    if (!t->buf || t->n + 1 >= t->size)
        return;
    va_start(ap, fmt);
    int k = vsnprintf(t->buf + t->n, t->size - t->n, fmt, ap);
    va_end(ap);
    if (k > 0)
        t->n += (size_t)k < t->size - t->n ? (size_t)k : t->size - t->n - 1;
}

static void diff64(struct text *t, const char *name, u64 native, u64 subj)
{
    if (native != subj)
        diff(t, "  %-8s native %016llx  subject %016llx\n", name, (unsigned long long)native,
             (unsigned long long)subj);
}

static const char *const outcome_name[] = {"exception", "system call", "timeout", "died",
                                           "failure"};
const char *const gpr_name[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                  "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

static const char *const seg_name[X86_NSEG] = {"es", "cs", "ss", "ds", "fs", "gs"};

static void diff_xstate(struct text *t, const u8 *a, const u8 *b)
{
    struct x87_env ea = xstate_env(a), eb = xstate_env(b);

    diff64(t, "mxcsr", ea.mxcsr, eb.mxcsr);
    diff64(t, "fcw", ea.fcw, eb.fcw);
    diff64(t, "fsw", ea.fsw, eb.fsw);
    diff64(t, "ftw", ea.ftw, eb.ftw);
    for (unsigned i = 0; i < 8; i++) {
        u8 x[10], y[10];
        u64 mx, my;
        u16 sx, sy;
        xstate_get_st(a, i, x);
        xstate_get_st(b, i, y);
        if (!memcmp(x, y, 10))
            continue;
        memcpy(&mx, x, 8);
        memcpy(&my, y, 8);
        memcpy(&sx, x + 8, 2);
        memcpy(&sy, y + 8, 2);
        diff(t, "  st%u      native %04x:%016llx  subject %04x:%016llx\n", i, sx,
             (unsigned long long)mx, sy, (unsigned long long)my);
    }
    for (unsigned i = 0; i < xstate_nvec(); i++) {
        u64 x[8], y[8];
        xstate_get_vec(a, i, (u8 *)x);
        xstate_get_vec(b, i, (u8 *)y);
        for (int q = 7; q >= 0; q--)
            if (x[q] != y[q])
                diff(t, "  vec%-2u[%d] native %016llx  subject %016llx\n", i, q,
                     (unsigned long long)x[q], (unsigned long long)y[q]);
    }
    for (unsigned i = 0; i < 8; i++) {
        char name[4] = {'k', (char)('0' + i), 0};
        diff64(t, name, xstate_get_k(a, i), xstate_get_k(b, i));
    }
}

static void diff_mem(struct text *t, const u8 *a, const u8 *b)
{
    unsigned shown = 0;
    if (!memcmp(a, b, MEM_SIZE))
        return;
    for (unsigned i = 0; i < MEM_SIZE; i += 8) {
        u64 x, y;
        memcpy(&x, a + i, 8);
        memcpy(&y, b + i, 8);
        if (x != y && shown++ < 8)
            diff(t, "  [%08x] native %016llx  subject %016llx\n", mem_va(i), (unsigned long long)x,
                 (unsigned long long)y);
    }
    if (shown > 8)
        diff(t, "  ... %u more quadwords of memory differ\n", shown - 8);
}

static bool insn_at(const struct diff_case *c, u64 off, struct x86_insn *in)
{
    u8 b[X86_INSN_MAX];

    if (off >= c->code_len)
        return false;
    memset(b, CODE_FILL, sizeof(b));
    memcpy(b, c->code + off, c->code_len - off < sizeof(b) ? c->code_len - off : sizeof(b));
    return x86_decode(in, b, sizeof(b), c->mode, false) == X86_DECODE_OK;
}

/* The end is a fault of an instruction that pushes several times: how far it got is the CPU's. */
static bool partial_push(const struct diff_case *c, const struct diff_result *n)
{
    struct x86_insn in;

    if (n->vector == X86_BP || !insn_at(c, n->regs.rip - CODE_VA - c->code_off, &in))
        return false;
    if (in.mnemonic == ZYDIS_MNEMONIC_CALL) /* to a non-canonical address: #GP after the push */
        return n->vector == X86_GP;
    return in.mnemonic == ZYDIS_MNEMONIC_ENTER || in.mnemonic == ZYDIS_MNEMONIC_PUSHA ||
           in.mnemonic == ZYDIS_MNEMONIC_PUSHAD;
}

/* RETF reads selector, offset and outer stack in an order of the CPU's: which fault is first? The
 * same for a 16-byte operand that is misaligned and, relative to rBP or rSP, not canonical. */
static bool either_fault(const struct diff_case *c, const struct diff_result *n,
                         const struct diff_result *s)
{
    struct x86_insn in;

    if (n->vector == X86_BP || s->vector == X86_BP || n->regs.rip != s->regs.rip ||
        !insn_at(c, n->regs.rip - CODE_VA - c->code_off, &in))
        return false;
    if (in.mem.size >= 128 && n->vector == X86_GP && s->vector == X86_SS_FAULT)
        return true;
    if (in.mem.size > 128 && n->vector == X86_PF && s->vector == X86_GP && c->mode == 32)
        return true; /* x87 environments across the end of the segment */
    return in.mnemonic == ZYDIS_MNEMONIC_RET && (in.opcode == 0xca || in.opcode == 0xcb);
}

/*
 * The end is a fault of a gather or scatter: which elements beyond the faulting one are done, and
 * what of the destination is cleared early, is the CPU's (SDM 2C VPGATHERDD).
 */
static bool partial_vector(const struct diff_case *c, const struct diff_result *n)
{
    struct x86_insn in;

    return n->vector != X86_BP && insn_at(c, n->regs.rip - CODE_VA - c->code_off, &in) &&
           in.mem.vsib;
}

/* More than 16 bytes or several accesses: which byte of the page an access faults at depends on
 * masks and microcode. */
static bool wide_access(const struct diff_case *c, const struct diff_result *n)
{
    struct x86_insn in;

    return insn_at(c, n->regs.rip - CODE_VA - c->code_off, &in) &&
           (in.mem.size > 128 || in.encoding == X86_ENC_EVEX ||
            in.category == ZYDIS_CATEGORY_X87_ALU || in.mnemonic == ZYDIS_MNEMONIC_PUSHA ||
            in.mnemonic == ZYDIS_MNEMONIC_PUSHAD || in.mnemonic == ZYDIS_MNEMONIC_POPA ||
            in.mnemonic == ZYDIS_MNEMONIC_POPAD || in.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
            in.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU || in.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU);
}

/* FXRSTOR looks at its image's ends first, IRET at another slot than RIP's: CR2 is the CPU's. */
static bool any_cr2(const struct diff_case *c, const struct diff_result *n)
{
    struct x86_insn in;

    return insn_at(c, n->regs.rip - CODE_VA - c->code_off, &in) &&
           (in.mem.size >= 512 * 8 || in.mnemonic == ZYDIS_MNEMONIC_IRET ||
            in.mnemonic == ZYDIS_MNEMONIC_IRETD || in.mnemonic == ZYDIS_MNEMONIC_IRETQ);
}

/* POPA has filled some registers when it faults. */
static bool partial_pop(const struct diff_case *c, const struct diff_result *n)
{
    struct x86_insn in;

    return n->vector != X86_BP && insn_at(c, n->regs.rip - CODE_VA - c->code_off, &in) &&
           (in.mnemonic == ZYDIS_MNEMONIC_POPA || in.mnemonic == ZYDIS_MNEMONIC_POPAD);
}

/* Flags the manuals leave undefined after instructions that 64-bit code cannot run on the host. */
static u64 undefined_flags(const struct diff_case *c)
{
    struct x86_insn in;

    if (c->stream || !insn_at(c, 0, &in))
        return 0;
    switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
        return RFLAGS_OF | RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF;
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_AAM:
        return RFLAGS_OF | RFLAGS_AF | RFLAGS_CF;
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
        return RFLAGS_OF;
    default:
        return 0;
    }
}

bool compare(const struct diff_case *c, const struct diff_result *n, const struct diff_result *s,
             char *out, size_t size)
{
    struct text t = {out, size, 0, false};
    u64 mask = RFLAGS_ARITH | RFLAGS_DF | RFLAGS_TF | RFLAGS_IF | RFLAGS_IOPL | RFLAGS_NT |
               RFLAGS_AC | RFLAGS_ID;

    if (out && size)
        out[0] = 0;
    if (n->outcome != s->outcome) {
        diff(&t, "  outcome  native %s  subject %s%s%s\n", outcome_name[n->outcome],
             outcome_name[s->outcome], s->text[0] ? ": " : "", s->text);
        return false;
    }
    if (either_fault(c, n, s))
        return true;
    if (policy.paravirtual) {
        mask &= ~RFLAGS_NT;
        if (n->vector == X86_GP || s->vector == X86_GP)
            return true;
    }
    if (n->vector != s->vector) {
        diff(&t, "  vector   native %u  subject %u\n", n->vector, s->vector);
    } else {
        u32 ignore = n->vector == X86_PF && n->cr2 >= BIT64(47) - PAGE_SIZE ? PFEC_P : 0;
        diff64(&t, "error", n->error | ignore, s->error | ignore);
        if (n->vector == X86_PF && !any_cr2(c, n))
            diff64(&t, "cr2", n->cr2 & (wide_access(c, n) ? PAGE_MASK : ~(u64)0),
                   s->cr2 & (wide_access(c, n) ? PAGE_MASK : ~(u64)0));
    }
    diff64(&t, "rip", n->regs.rip, s->regs.rip);
    if (n->vector != X86_BP && !policy.fault_flags)
        mask &= ~RFLAGS_ARITH;
    mask &= ~undefined_flags(c);
    if (policy.rf &&
        n->vector != X86_DB) /* CPUs differ between iterations of a string instruction */
        mask |= RFLAGS_RF;
    diff64(&t, "rflags", n->regs.rflags & mask, s->regs.rflags & mask);
    unsigned bits = n->regs.sel[X86_CS] == USER_CS32 ? 32 : c->mode; /* where it ended */
    bool popa = partial_pop(c, n);
    for (unsigned i = 0; i < 16; i++)
        if (!popa || i == X86_RSP) /* upper halves are nobody's in 32-bit code (SDM 1 3.4.1.1) */
            diff64(&t, gpr_name[i], n->regs.gpr[i] & size_mask(bits / 8),
                   s->regs.gpr[i] & size_mask(bits / 8));
    for (unsigned i = 0; i < X86_NSEG; i++)
        /* IRET to user mode clears the RPL of null selectors (SDM 2A IRET). */
        if ((n->regs.sel[i] | s->regs.sel[i]) & ~3u)
            diff64(&t, seg_name[i], n->regs.sel[i], s->regs.sel[i]);
    if (!policy.paravirtual) {
        diff64(&t, "fs_base", n->regs.fs_base, s->regs.fs_base);
        diff64(&t, "gs_base", n->regs.gs_base, s->regs.gs_base);
    }
    bool partial = partial_vector(c, n);
    if (!partial)
        diff_xstate(&t, n->regs.xsave, s->regs.xsave);
    if (!partial && !partial_push(c, n))
        diff_mem(&t, n->mem, s->mem);
    return !t.differs;
}
