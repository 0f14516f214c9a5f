/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction decoder: Zydis' answer boiled down to struct x86_insn.
 *
 * Extensions that reuse hint NOPs and that no guest is shown (MPX, CET, CLDEMOTE) are switched off
 * in the decoder, so that their encodings are what a CPU without them takes them for: NOPs.
 */
#include <string.h>

#include <Zydis/Zydis.h>

#include "x86/insn.h"

/* Decoder modes of every machine mode; WBNOINVD is WBINVD to us. */
#define DECODER(machine, stack, amd)                                                               \
    {                                                                                              \
        .machine_mode = ZYDIS_MACHINE_MODE_##machine, .stack_width = ZYDIS_STACK_WIDTH_##stack,    \
        .decoder_mode = {                                                                          \
            [ZYDIS_DECODER_MODE_AMD_BRANCHES] = (amd),                                             \
            [ZYDIS_DECODER_MODE_LZCNT] = ZYAN_TRUE,                                                \
            [ZYDIS_DECODER_MODE_TZCNT] = ZYAN_TRUE,                                                \
        }                                                                                          \
    }

enum { DEC_64, DEC_32, DEC_16, DEC_REAL, DEC_N };

static const ZydisDecoder decoders[2][DEC_N] = {
    {DECODER(LONG_64, 64, ZYAN_FALSE), DECODER(LEGACY_32, 32, ZYAN_FALSE),
     DECODER(LEGACY_16, 16, ZYAN_FALSE), DECODER(REAL_16, 16, ZYAN_FALSE)},
    {DECODER(LONG_64, 64, ZYAN_TRUE), DECODER(LEGACY_32, 32, ZYAN_TRUE),
     DECODER(LEGACY_16, 16, ZYAN_TRUE), DECODER(REAL_16, 16, ZYAN_TRUE)},
};

/*
 * An operand-size prefix on a near branch in 64-bit mode is ignored by Intel's CPUs and honoured by
 * AMD's (APM 3, "near branches in 64-bit mode"). The guest sees the host's vendor, so the host
 * decides. The answer never changes: racing threads store the same value.
 */
static bool amd_host(void)
{
    static u8 known; /* 0: not asked yet, 1: no, 2: yes */
    u8 k = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!k) {
        u32 a = 0, b, c = 0, d;
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        bool amd = (b == 0x68747541 && d == 0x69746e65 && c == 0x444d4163) || /* AuthenticAMD */
                   (b == 0x6f677948 && d == 0x6e65476e && c == 0x656e6975);   /* HygonGenuine */
        k = amd ? 2 : 1;
        __atomic_store_n(&known, k, __ATOMIC_RELAXED);
    }
    return k == 2;
}

static const ZydisDecoder *decoder_for(unsigned mode, bool real)
{
    const ZydisDecoder *d = decoders[amd_host()];
    if (mode == 64)
        return &d[DEC_64];
    if (mode == 32)
        return &d[DEC_32];
    return real ? &d[DEC_REAL] : &d[DEC_16];
}

/* Encoding number of a general register of any width; X86_NOREG when it is none. */
static u8 gpr_number(ZydisRegister r, u8 *high8)
{
    *high8 = 0;
    if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
        return (u8)(r - ZYDIS_REGISTER_AL);
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH) {
        *high8 = 1;
        return (u8)(r - ZYDIS_REGISTER_AH);
    }
    if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
        return (u8)(r - ZYDIS_REGISTER_SPL + X86_RSP);
    if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
        return (u8)(r - ZYDIS_REGISTER_AX);
    if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
        return (u8)(r - ZYDIS_REGISTER_EAX);
    if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
        return (u8)(r - ZYDIS_REGISTER_RAX);
    return X86_NOREG;
}

static void fill_reg(struct x86_op *op, ZydisRegister r)
{
    static const struct {
        u16 first, last;
        u8 kind;
    } range[] = {
        {ZYDIS_REGISTER_ES, ZYDIS_REGISTER_GS, X86_OP_SEG},
        {ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_CR15, X86_OP_CR},
        {ZYDIS_REGISTER_DR0, ZYDIS_REGISTER_DR15, X86_OP_DR},
        {ZYDIS_REGISTER_ST0, ZYDIS_REGISTER_ST7, X86_OP_ST},
        {ZYDIS_REGISTER_MM0, ZYDIS_REGISTER_MM7, X86_OP_MMX},
        {ZYDIS_REGISTER_XMM0, ZYDIS_REGISTER_XMM31, X86_OP_VEC},
        {ZYDIS_REGISTER_YMM0, ZYDIS_REGISTER_YMM31, X86_OP_VEC},
        {ZYDIS_REGISTER_ZMM0, ZYDIS_REGISTER_ZMM31, X86_OP_VEC},
        {ZYDIS_REGISTER_K0, ZYDIS_REGISTER_K7, X86_OP_MASK},
    };
    op->reg = gpr_number(r, &op->high8);
    if (op->reg != X86_NOREG) {
        op->kind = X86_OP_GPR;
        return;
    }
    op->kind = X86_OP_OTHER;
    for (size_t i = 0; i < ARRAY_SIZE(range); i++) {
        if (r >= range[i].first && r <= range[i].last) {
            op->kind = range[i].kind;
            op->reg = (u8)(r - range[i].first);
        }
    }
}

static void fill_mem(struct x86_insn *insn, const ZydisDecodedOperand *o)
{
    u8 high8;
    insn->mem.present = true;
    insn->mem.agen = o->mem.type == ZYDIS_MEMOP_TYPE_AGEN || o->mem.type == ZYDIS_MEMOP_TYPE_MIB;
    insn->mem.vsib = o->mem.type == ZYDIS_MEMOP_TYPE_VSIB;
    insn->mem.size = o->size;
    insn->mem.elem = o->element_size;
    insn->mem.disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
    insn->mem.scale = o->mem.scale ? o->mem.scale : 1;
    insn->mem.seg = X86_DS;
    if (o->mem.segment >= ZYDIS_REGISTER_ES && o->mem.segment <= ZYDIS_REGISTER_GS)
        insn->mem.seg = (u8)(o->mem.segment - ZYDIS_REGISTER_ES);
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
        insn->mem.base = X86_REG_RIP;
    else
        insn->mem.base = gpr_number(o->mem.base, &high8);
    insn->mem.index = X86_NOREG;
    if (insn->mem.vsib) {
        struct x86_op v;
        fill_reg(&v, o->mem.index);
        insn->mem.index = v.reg;
    } else if (!(o->mem.index >= ZYDIS_REGISTER_AL && o->mem.index <= ZYDIS_REGISTER_R15B)) {
        insn->mem.index = gpr_number(o->mem.index, &high8); /* XLAT's AL is left out */
    }
}

/*
 * With an address-size prefix in 64-bit mode Zydis 4.0 takes SIB.base 5 with REX.B and ModRM.mod 0
 * for R13D without a displacement; it means no base and a 32-bit displacement (SDM 2A table 2-3).
 */
static void fix_sib_base(struct x86_insn *insn, const ZydisDecodedInstruction *z)
{
    if (insn->mode != 64 || insn->addrsize != 4 || !(z->attributes & ZYDIS_ATTRIB_HAS_SIB) ||
        z->raw.modrm.mod != 0 || z->raw.sib.base != 5 || insn->mem.base != X86_R13)
        return;
    insn->mem.base = X86_NOREG;
    insn->mem.disp = z->raw.disp.value;
}

/* Instructions whose memory operand names an address they do not access. */
static bool address_only(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
        return true;
    default:
        return false;
    }
}

/*
 * A hidden memory operand is described when it is no stack access, ENTER's and LEAVE's included
 * (string instructions, XLAT, MASKMOVQ): of the two of MOVS and CMPS the one at rSI, whose segment
 * can be overridden.
 */
static void hidden_mem(struct x86_insn *insn, const ZydisDecodedOperand *o)
{
    u8 high8;
    u8 base = gpr_number(o->mem.base, &high8);
    if (base != X86_RSP && base != X86_RBP && base != X86_NOREG &&
        (!insn->mem.present || base == X86_RSI))
        fill_mem(insn, o);
}

static void fill_operands(struct x86_insn *insn, const ZydisDecodedInstruction *z,
                          const ZydisDecodedOperand *ops)
{
    unsigned nimm = 0;
    bool visible_mem = false;
    for (unsigned i = 0; i < z->operand_count; i++) {
        const ZydisDecodedOperand *o = &ops[i];
        if (i >= z->operand_count_visible) {
            insn->hidden_mem |= o->type == ZYDIS_OPERAND_TYPE_MEMORY;
            if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && !visible_mem)
                hidden_mem(insn, o);
            continue;
        }
        if (i >= ARRAY_SIZE(insn->op))
            break;
        struct x86_op *op = &insn->op[insn->nops++];
        op->size = o->size;
        op->enc = (u8)o->encoding;
        op->read = (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
        op->write = (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
        op->implicit = o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            fill_reg(op, o->reg.value);
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            op->kind = X86_OP_MEM;
            if (!visible_mem)
                fill_mem(insn, o);
            visible_mem = true;
            if (address_only(z->mnemonic))
                insn->mem.agen = true;
            break;
        case ZYDIS_OPERAND_TYPE_POINTER:
            op->kind = X86_OP_PTR;
            insn->imm[0] = o->ptr.offset;
            insn->imm[1] = o->ptr.segment;
            nimm = 2;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            op->kind = o->imm.is_relative ? X86_OP_REL : X86_OP_IMM;
            if (nimm < 2)
                insn->imm[nimm++] = o->imm.value.u;
            break;
        default:
            op->kind = X86_OP_NONE;
            break;
        }
    }
}

static bool string_insn(const ZydisDecodedInstruction *z)
{
    return z->meta.category == ZYDIS_CATEGORY_STRINGOP ||
           z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

/* CMPS and SCAS tell REPE from REPNE; on the others F2 repeats like F3. */
static bool compare_string(u16 mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ:
        return true;
    default:
        return false;
    }
}

static void fill_prefixes(struct x86_insn *insn, const ZydisDecodedInstruction *z)
{
    u8 rep = 0;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        u8 v = z->raw.prefixes[i].value;
        bool mandatory = z->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY;
        if (v == 0xf2 || v == 0xf3)
            rep = v; /* the last one counts */
        else if (v == 0x66 && !mandatory)
            insn->prefixes |= X86_PFX_OPSIZE;
        else if (v == 0x67)
            insn->prefixes |= X86_PFX_ADDRSIZE;
    }
    if (z->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        insn->prefixes |= X86_PFX_LOCK;
    if (rep && string_insn(z)) {
        bool repne = rep == 0xf2 && compare_string(insn->mnemonic);
        insn->prefixes |= repne ? X86_PFX_REPNE : X86_PFX_REP;
    }
    u64 segs = ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS;
    if (z->machine_mode != ZYDIS_MACHINE_MODE_LONG_64)
        segs |= ZYDIS_ATTRIB_HAS_SEGMENT_CS | ZYDIS_ATTRIB_HAS_SEGMENT_SS |
                ZYDIS_ATTRIB_HAS_SEGMENT_DS | ZYDIS_ATTRIB_HAS_SEGMENT_ES;
    if (insn->mem.present && (z->attributes & segs))
        insn->prefixes |= X86_PFX_SEG;
}

static bool near_branch(const struct x86_insn *insn)
{
    u8 op = insn->opcode;
    if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F)
        return op >= 0x80 && op <= 0x8f;
    if (insn->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || insn->encoding != X86_ENC_LEGACY)
        return false;
    if (op == 0xff) {
        unsigned reg = (insn->modrm >> 3) & 7;
        return reg == 2 || reg == 4;
    }
    return (op >= 0x70 && op <= 0x7f) || (op >= 0xe0 && op <= 0xe3) || op == 0xe8 || op == 0xe9 ||
           op == 0xeb || op == 0xc2 || op == 0xc3;
}

static u8 operand_size(const struct x86_insn *insn, const ZydisDecodedInstruction *z)
{
    if (z->operand_width > 8)
        return (u8)(z->operand_width / 8);
    /* Byte instructions: what the prefixes would select. */
    if (insn->mode == 64 && (insn->rex & 8))
        return 8;
    return (insn->mode == 16) != ((insn->prefixes & X86_PFX_OPSIZE) != 0) ? 2 : 4;
}

static void fill_raw(struct x86_insn *insn, const ZydisDecodedInstruction *z)
{
    if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
        insn->has_modrm = true;
        insn->modrm_off = z->raw.modrm.offset;
        insn->modrm = insn->bytes[insn->modrm_off];
    }
    if (z->attributes & ZYDIS_ATTRIB_HAS_SIB)
        insn->sib_off = z->raw.sib.offset;
    if (z->raw.disp.size) {
        insn->disp_off = z->raw.disp.offset;
        insn->disp_size = (u8)(z->raw.disp.size / 8);
    }
    if (z->raw.imm[0].size) {
        insn->imm_off = z->raw.imm[0].offset;
        insn->imm_size = (u8)(z->raw.imm[0].size / 8);
    }
    insn->vex_off = 0xff;
    switch (z->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_XOP:
        insn->vex_off = z->raw.xop.offset;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        insn->vex_off = z->raw.vex.offset;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        insn->vex_off = z->raw.evex.offset;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_MVEX:
        insn->vex_off = z->raw.mvex.offset;
        break;
    default:
        if (z->attributes & ZYDIS_ATTRIB_HAS_REX) {
            insn->vex_off = z->raw.rex.offset;
            insn->rex = insn->bytes[insn->vex_off];
        }
        break;
    }
}

/* Far pointers in memory have at most a 32-bit offset on AMD's CPUs: REX.W only widens
 * what CALL pushes (APM 3, CALL far, JMP far, LFS). */
static void amd_far_pointer(struct x86_insn *insn)
{
    unsigned reg = insn->modrm >> 3 & 7;
    bool branch = insn->opcode == 0xff && insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
                  (reg == 3 || reg == 5);
    bool load = insn->opcode_map == ZYDIS_OPCODE_MAP_0F &&
                (insn->opcode == 0xb2 || insn->opcode == 0xb4 || insn->opcode == 0xb5);
    if (insn->encoding != X86_ENC_LEGACY || !(branch || load) || !(insn->rex & 8))
        return;
    if (load)
        insn->opsize = 4;
    insn->mem.size = 48;
    for (unsigned i = 0; i < insn->nops; i++)
        if (insn->op[i].kind == X86_OP_MEM)
            insn->op[i].size = 48;
        else if (insn->op[i].kind == X86_OP_GPR)
            insn->op[i].size = 32;
}

/*
 * F3 90 with REX.B is no PAUSE but XCHG r8, rAX. Decoded with a segment prefix that does nothing in
 * 64-bit mode in place of F3, so that lengths and offsets stay.
 */
static enum x86_decode_result pause_with_rex_b(struct x86_insn *insn, const u8 *bytes, size_t n)
{
    u8 copy[X86_INSN_MAX] = {0};
    size_t len = n < sizeof copy ? n : sizeof copy;
    memcpy(copy, bytes, len);
    for (size_t i = 0; i < len && copy[i] != 0x90; i++)
        if (copy[i] == 0xf3)
            copy[i] = 0x2e;
    enum x86_decode_result r = x86_decode(insn, copy, len, 64, false);
    if (r == X86_DECODE_OK)
        memcpy(insn->bytes, bytes, insn->length);
    return r;
}

static u8 broadcast_lanes(ZydisBroadcastMode mode)
{
    switch (mode) {
    case ZYDIS_BROADCAST_MODE_1_TO_2:
        return 2;
    case ZYDIS_BROADCAST_MODE_1_TO_4:
        return 4;
    case ZYDIS_BROADCAST_MODE_1_TO_8:
        return 8;
    case ZYDIS_BROADCAST_MODE_1_TO_16:
        return 16;
    case ZYDIS_BROADCAST_MODE_1_TO_32:
        return 32;
    case ZYDIS_BROADCAST_MODE_1_TO_64:
        return 64;
    default:
        return 1;
    }
}

enum x86_decode_result x86_decode(struct x86_insn *insn, const u8 *memory, size_t n, unsigned mode,
                                  bool real)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    const ZydisDecoder *d = decoder_for(mode, real);
    u8 bytes[X86_INSN_MAX];

    /* Guest memory changes under our eyes: what is decoded must be what insn->bytes holds, which
     * the translator copies into host code. So it is read once. */
    if (n > sizeof bytes)
        n = sizeof bytes;
    for (size_t i = 0; i < n; i++)
        bytes[i] = ((const volatile u8 *)memory)[i];
    ZyanStatus st = ZydisDecoderDecodeFull(d, bytes, n, &z, ops);
    if (!ZYAN_SUCCESS(st)) {
        if (st == ZYDIS_STATUS_NO_MORE_DATA)
            return X86_DECODE_MORE;
        return st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? X86_DECODE_TOOLONG : X86_DECODE_INVALID;
    }
    if (z.mnemonic == ZYDIS_MNEMONIC_PAUSE && z.raw.rex.B)
        return pause_with_rex_b(insn, bytes, n);
    /* PREFETCH and PREFETCHW want memory on AMD's CPUs (APM 3); Intel's take 0F 0D for a hint NOP.
     */
    if (z.opcode_map == ZYDIS_OPCODE_MAP_0F && z.opcode == 0x0d &&
        z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && z.raw.modrm.mod == 3 && amd_host())
        return X86_DECODE_INVALID;
    memset(insn, 0, sizeof *insn);
    memcpy(insn->bytes, bytes, z.length);
    insn->mnemonic = (u16)z.mnemonic;
    insn->length = z.length;
    insn->mode = (u8)mode;
    insn->real_mode = real;
    insn->encoding = (u8)z.encoding; /* enum x86_encoding follows Zydis' order */
    insn->opcode_map = (u8)z.opcode_map;
    insn->opcode = z.opcode;
    insn->addrsize = (u8)(z.address_width / 8);
    insn->category = (u8)z.meta.category;
    insn->isa_ext = (u8)z.meta.isa_ext;
    insn->isa_set = (u16)z.meta.isa_set;
    insn->exc_class = (u8)z.meta.exception_class;
    if (z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
        insn->mask = z.raw.evex.aaa;
        if (z.raw.evex.b && insn->bytes[z.raw.modrm.offset] < 0xc0)
            insn->bcast = broadcast_lanes(z.avx.broadcast.mode);
    }
    if (z.cpu_flags) {
        insn->flags_read = z.cpu_flags->tested;
        insn->flags_written = z.cpu_flags->modified | z.cpu_flags->set_0 | z.cpu_flags->set_1 |
                              z.cpu_flags->undefined;
        insn->flags_undefined = z.cpu_flags->undefined;
    }
    insn->mem.base = insn->mem.index = X86_NOREG;
    insn->mem.scale = 1;
    insn->mem.seg = X86_DS;
    fill_raw(insn, &z);
    fill_operands(insn, &z, ops);
    fix_sib_base(insn, &z);
    fill_prefixes(insn, &z);
    insn->opsize = operand_size(insn, &z);
    if (mode == 64 && amd_host())
        amd_far_pointer(insn);
    if (mode == 64 && (insn->prefixes & X86_PFX_OPSIZE) && !(insn->rex & 8) && amd_host() &&
        near_branch(insn)) {
        /* Zydis knows this only of the branches with a 16- or 32-bit displacement. */
        insn->opsize = 2;
        if (insn->opcode == 0xff && insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) {
            insn->op[0].size = 16;
            insn->mem.size = 16;
        }
    }
    return X86_DECODE_OK;
}

void x86_format(const struct x86_insn *insn, u64 rip, char *buf, size_t size)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    ZydisFormatter f;
    if (!size)
        return;
    buf[0] = 0;
    const ZydisDecoder *d = decoder_for(insn->mode, insn->real_mode);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(d, insn->bytes, insn->length, &z, ops)) ||
        !ZYAN_SUCCESS(ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL)) ||
        !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&f, &z, ops, z.operand_count_visible, buf,
                                                      size, rip, NULL))) {
        static const char hex[] = "0123456789abcdef";
        size_t o = 0;
        for (unsigned i = 0; i < insn->length && o + 3 <= size; i++) {
            buf[o++] = hex[insn->bytes[i] >> 4];
            buf[o++] = hex[insn->bytes[i] & 15];
        }
        buf[o] = 0;
    }
}
