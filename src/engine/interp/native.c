/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running one guest instruction on the host: it is re-encoded for 64-bit mode with [RBX] as its
 * memory operand (RDI where the address is implicit) and RSI as its general register, put on the
 * native page followed by RET, and called with the guest's vector state loaded. What the host's CPU
 * raises comes back through interp_native_signal.
 */
#include <string.h>

#include "engine/interp/vector.h"

#define SLOT_SIZE 64u
#define SLOTS 63u /* the last slot of the page is where signals resume: a RET */
#define RET 0xc3

#define REG_MEM 3u /* RBX */
#define REG_GPR 6u /* RSI */

struct native_frame {
    void *xsave;    /* 0 */
    u64 mask;       /* 8 */
    u64 rflags;     /* 16 */
    u64 rax;        /* 24 */
    u64 rcx;        /* 32 */
    u64 rdx;        /* 40 */
    u64 rsi;        /* 48 */
    void *mem;      /* 56 */
    void *code;     /* 64 */
    u64 serialize;  /* 72: the code was just written */
    u64 vzeroupper; /* 80: the host has AVX */
};

void native_enter(struct native_frame *f);

/*
 * The calling convention leaves all vector registers to the callee, but MXCSR and the x87 control
 * word are the caller's: they are put back, and the x87 stack is emptied. The IRET serializes
 * (SDM 3A 8.1.3): the code was written through another mapping.
 */
__asm__(".text\n"
        ".globl native_enter\n"
        ".hidden native_enter\n"
        ".type native_enter, @function\n"
        "native_enter:\n"
        "	endbr64\n"
        "	pushq %rbx\n"
        "	pushq %rbp\n"
        "	pushq %r12\n"
        "	subq $16, %rsp\n"
        "	movq %rdi, %rbp\n"
        "	stmxcsr (%rsp)\n"
        "	fnstcw 4(%rsp)\n"
        "	cmpq $0, 72(%rbp)\n"
        "	je 1f\n"
        "	movq %rsp, %rcx\n"
        "	movl %ss, %eax\n"
        "	pushq %rax\n"
        "	pushq %rcx\n"
        "	pushfq\n"
        "	movl %cs, %eax\n"
        "	pushq %rax\n"
        "	leaq 1f(%rip), %rax\n"
        "	pushq %rax\n"
        "	iretq\n"
        "1:	movq (%rbp), %r12\n"
        "	movl 8(%rbp), %eax\n"
        "	movl 12(%rbp), %edx\n"
        "	xrstor64 (%r12)\n"
        "	pushq 16(%rbp)\n"
        "	popfq\n"
        "	movq 24(%rbp), %rax\n"
        "	movq 32(%rbp), %rcx\n"
        "	movq 40(%rbp), %rdx\n"
        "	movq 48(%rbp), %rsi\n"
        "	movq 56(%rbp), %rbx\n"
        "	movq %rbx, %rdi\n"
        "	callq *64(%rbp)\n"
        "	movq %rax, 24(%rbp)\n"
        "	movq %rcx, 32(%rbp)\n"
        "	movq %rdx, 40(%rbp)\n"
        "	movq %rsi, 48(%rbp)\n"
        "	pushfq\n"
        "	popq 16(%rbp)\n"
        "	cld\n"
        "	movl 8(%rbp), %eax\n"
        "	movl 12(%rbp), %edx\n"
        "	xsave64 (%r12)\n"
        "	cmpq $0, 80(%rbp)\n"
        "	je 2f\n"
        "	vzeroupper\n"
        "2:	fninit\n"
        "	fldcw 4(%rsp)\n"
        "	ldmxcsr (%rsp)\n"
        "	addq $16, %rsp\n"
        "	popq %r12\n"
        "	popq %rbp\n"
        "	popq %rbx\n"
        "	ret\n"
        ".size native_enter, . - native_enter\n");

/* --- encoding */

struct enc {
    u8 b[SLOT_SIZE];
    unsigned n;
};

static void put(struct enc *e, u8 v)
{
    if (e->n < sizeof e->b - 1)
        e->b[e->n++] = v;
}

/* Index of the explicit general-register operand, or -1. */
static int gpr_operand(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->nops; i++)
        if (insn->op[i].kind == X86_OP_GPR && !insn->op[i].implicit)
            return (int)i;
    return -1;
}

enum gpr_field { GPR_NONE, GPR_REG, GPR_RM };

static enum gpr_field gpr_field(const struct x86_insn *insn)
{
    int i = gpr_operand(insn);
    if (i < 0)
        return GPR_NONE;
    return insn->op[i].enc == ZYDIS_OPERAND_ENCODING_MODRM_REG ? GPR_REG : GPR_RM;
}

/* FLDENV FNSTENV FRSTOR FNSAVE: the operand size selects the image's format. */
static bool x87_environment(const struct x86_insn *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSAVE:
        return true;
    default:
        return false;
    }
}

static bool legacy_prefix(u8 b)
{
    switch (b) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return false;
    }
}

/* Copies prefixes that select an instruction and returns the offset after all of them. */
static unsigned put_prefixes(struct enc *e, const struct x86_insn *insn)
{
    unsigned i = 0;
    bool env = x87_environment(insn);
    for (; i < insn->length; i++) {
        u8 b = insn->bytes[i];
        if (legacy_prefix(b)) {
            if (b == 0xf2 || b == 0xf3 || (b == 0x66 && !env))
                put(e, b);
        } else if (!(insn->mode == 64 && (b & 0xf0) == 0x40)) {
            break;
        }
    }
    if (env && insn->opsize == 2)
        put(e, 0x66);
    return i;
}

/* The memory operand is named by ModRM. */
static bool modrm_mem(const struct x86_insn *insn)
{
    return insn->mem.present && insn->has_modrm && insn->modrm < 0xc0;
}

static void put_rex(struct enc *e, const struct x86_insn *insn, enum gpr_field g, bool mem)
{
    u8 rex = insn->rex;
    if (!rex)
        return;
    if (g == GPR_REG)
        rex &= (u8)~4;
    if (mem)
        rex &= (u8)~3;
    else if (g == GPR_RM)
        rex &= (u8)~1;
    put(e, rex);
}

/* VEX.W is ignored outside 64-bit mode where it would select a 64-bit general register (SDM 2B
 * MOVD); KMOV uses it for something else. */
static bool drop_w(const struct x86_insn *insn, enum gpr_field g)
{
    if (insn->mode == 64)
        return false;
    if (insn->opcode_map == 1 && insn->opcode >= 0x90 && insn->opcode <= 0x93 &&
        insn->encoding == X86_ENC_VEX)
        return false;
    if (insn->mnemonic == ZYDIS_MNEMONIC_VPCMPESTRI || insn->mnemonic == ZYDIS_MNEMONIC_VPCMPESTRM)
        return true;
    return g != GPR_NONE || (insn->mem.present && insn->mem.size == 32);
}

/* The bits for registers above 7 are inverted: set is "no". Outside 64-bit mode there are none. */
static unsigned put_vex(struct enc *e, const struct x86_insn *insn, unsigned i, enum gpr_field g,
                        bool mem)
{
    u8 p0 = insn->bytes[i], p1 = insn->bytes[i + 1];
    bool wide = insn->mode == 64;
    put(e, p0);
    if (p0 == 0xc5) {
        if (g == GPR_REG)
            p1 |= 0x80;
        put(e, wide ? p1 : p1 | 0xc0);
        return i + 2;
    }
    u8 p2 = insn->bytes[i + 2];
    if (p0 == 0x62) {
        u8 p3 = insn->bytes[i + 3];
        if (mem || g == GPR_RM)
            p1 |= 0x60;
        if (g == GPR_REG)
            p1 |= 0x90;
        if (!wide) {
            p1 |= 0xf0;
            p2 |= 0x40;
            p3 |= 0x08;
        }
        if (drop_w(insn, g))
            p2 &= 0x7f;
        put(e, p1);
        put(e, p2);
        put(e, p3);
        return i + 4;
    }
    if (mem)
        p1 |= 0x60;
    else if (g == GPR_RM)
        p1 |= 0x20;
    if (g == GPR_REG)
        p1 |= 0x80;
    if (!wide) {
        p1 |= 0xe0;
        p2 |= 0x40;
    }
    if (drop_w(insn, g))
        p2 &= 0x7f;
    put(e, p1);
    put(e, p2);
    return i + 3;
}

static bool register_in_immediate(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->nops; i++)
        if (insn->op[i].enc == ZYDIS_OPERAND_ENCODING_IS4)
            return true;
    return false;
}

static void encode(struct enc *e, const struct x86_insn *insn, bool mem)
{
    enum gpr_field g = gpr_field(insn);
    e->n = 0;
    unsigned i = put_prefixes(e, insn);
    if (insn->encoding == X86_ENC_LEGACY || insn->encoding == X86_ENC_3DNOW)
        put_rex(e, insn, g, mem);
    else
        i = put_vex(e, insn, i, g, mem);
    unsigned opcode_end = insn->has_modrm ? insn->modrm_off : insn->length;
    while (i < opcode_end)
        put(e, insn->bytes[i++]);
    if (insn->has_modrm) {
        u8 m = insn->modrm;
        if (mem)
            m = (u8)((m & 0x38) | REG_MEM);
        else if (g == GPR_RM)
            m = (u8)((m & 0xf8) | REG_GPR);
        if (g == GPR_REG)
            m = (u8)((m & 0xc7) | REG_GPR << 3);
        put(e, m);
        i = insn->modrm_off + 1u;
        if (insn->sib_off)
            i = insn->sib_off + 1u;
        if (insn->disp_off)
            i = (unsigned)insn->disp_off + insn->disp_size;
        while (i < insn->length)
            put(e, insn->bytes[i++]);
        /* A register in an immediate has three bits outside 64-bit mode. */
        if (insn->mode != 64 && register_in_immediate(insn))
            e->b[e->n - 1] &= 0x7f;
    }
    put(e, RET);
}

/* Puts the code on the native page and returns where it can be called; *fresh when it was not
 * there already. */
static void *place(struct interp *in, const struct enc *e, bool *fresh)
{
    u64 h = 0;
    for (unsigned i = 0; i < e->n; i++)
        h = h * 31 + e->b[i];
    unsigned slot = (unsigned)(h % SLOTS);
    u8 *w = (u8 *)in->native + slot * SLOT_SIZE;
    u8 *landing = (u8 *)in->native + SLOTS * SLOT_SIZE;
    *fresh = memcmp(w, e->b, e->n) != 0;
    if (*fresh)
        memcpy(w, e->b, e->n);
    if (*landing != RET) {
        *landing = RET;
        *fresh = true;
    }
    return (u8 *)in->native_rx + slot * SLOT_SIZE;
}

/* --- execution */

/* The image must not make XRSTOR fault, whatever it was filled with. */
static void clean_image(struct interp *in)
{
    struct x86_vcpu_state *s = in->s;
    u64 *h = (u64 *)(void *)(s->xsave + XS_BV);
    u32 *mxcsr = (u32 *)(void *)(s->xsave + XS_MXCSR);
    h[0] &= xc_host_mask();
    for (unsigned i = 1; i < 8; i++)
        h[i] = 0;
    u32 valid = in->model && in->model->mxcsr_mask ? in->model->mxcsr_mask : 0xffff;
    *mxcsr &= valid;
}

/* The last x87 instruction and operand are the guest's, not the native page and the bounce buffer.
 */
static void fix_pointers(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    u64 *fip = (u64 *)(void *)(s->xsave + XS_FIP), *fdp = (u64 *)(void *)(s->xsave + XS_FDP);
    if (*fip - (u64)in->native_rx < PAGE_SIZE)
        *fip = s->rip;
    if (*fdp - (u64)in->bounce < sizeof in->bounce) {
        u64 ea = im_ea(in, insn);
        *fdp = ea;
        u16 fop = (u16)((insn->opcode & 7) << 8 | insn->modrm);
        memcpy(s->xsave + XS_FOP, &fop, 2);
    }
}

static void raise_host_fault(struct interp *in, u8 vector)
{
    switch (vector) {
    case X86_XM: /* SDM 3A 6.15 vector 19: without OSXMMEXCPT it is #UD */
        interp_raise(in, in->s->cr4 & CR4_OSXMMEXCPT ? X86_XM : X86_UD);
    case X86_MF:
    case X86_UD:
    case X86_NM:
    case X86_DE:
        interp_raise(in, vector);
    default: /* misaligned operands and reserved bits */
        interp_raise_err(in, X86_GP, 0);
    }
}

bool native_exec(struct interp *in, const struct x86_insn *insn, void *mem)
{
    struct x86_vcpu_state *s = in->s;
    struct enc e;
    bool fresh;
    if (!in->native)
        return false;
    encode(&e, insn, modrm_mem(insn));
    void *code = place(in, &e, &fresh);
    int gpr = gpr_operand(insn);
    struct native_frame f = {
        .xsave = s->xsave,
        .mask = xc_host_mask(),
        .rflags = (s->rflags & RFLAGS_ARITH) | RFLAGS_FIXED | RFLAGS_IF,
        .rax = s->gpr[X86_RAX],
        .rcx = s->gpr[X86_RCX],
        .rdx = s->gpr[X86_RDX],
        .rsi = gpr >= 0 ? s->gpr[insn->op[gpr].reg] : 0,
        .mem = mem,
        .code = code,
        .serialize = fresh,
        .vzeroupper = (xc_host_mask() & XC_BIT(XC_AVX)) != 0,
    };
    clean_image(in);
    in->native_fault = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    native_enter(&f);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    fix_pointers(in, insn);
    if (unlikely(in->native_fault))
        raise_host_fault(in, (u8)(in->native_fault - 1));
    s->gpr[X86_RAX] = f.rax;
    s->gpr[X86_RCX] = f.rcx;
    s->gpr[X86_RDX] = f.rdx;
    if (gpr >= 0 && insn->op[gpr].write)
        s->gpr[insn->op[gpr].reg] = insn->mode == 64 ? f.rsi : (u32)f.rsi; /* KMOV with W set */
    flags_set(&s->rflags, f.rflags & RFLAGS_ARITH);
    return true;
}

bool interp_native_signal(struct interp *in, u64 *pc, int host_trapno)
{
    u64 base = (u64)in->native_rx;
    if (!base || *pc - base >= PAGE_SIZE)
        return false;
    in->native_fault = (u16)(1 + (host_trapno & 0xff));
    *pc = base + SLOTS * SLOT_SIZE;
    return true;
}
