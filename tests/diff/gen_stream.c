/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: 2 to 30 instructions with jumps, loops, calls and stack traffic, on registers that have
 * roles (pointers, an index, loop counters), so that most of a stream runs before something faults.
 */
#include <string.h>

#include <Zydis/Zydis.h>

#include "gen_insn.h"

struct builder {
    struct rng *r;
    struct insn_stream *s;
    struct roles roles;
    unsigned mode;
    unsigned nfuncs;
    u16 func_call[8]; /* items that call function i */
    bool loop_rcx, smc;
    unsigned nloops;
    struct {
        u16 first, last; /* from loading the counter to the jump back */
    } loops[32];
};

static u8 pick(struct rng *r, unsigned mask)
{
    unsigned n = (unsigned)__builtin_popcount(mask), k = rnd_below(r, n ? n : 1);
    for (u8 i = 0; i < 16; i++)
        if (mask >> i & 1 && k-- == 0)
            return i;
    return 0;
}

static struct item *put(struct builder *b, const u8 *bytes, unsigned len)
{
    struct item *it = &b->s->item[b->s->n];
    if (b->s->n >= ITEMS_MAX)
        return NULL;
    b->s->n++;
    memset(it, 0, sizeof(*it));
    memcpy(it->bytes, bytes, len);
    it->len = (u8)len;
    it->rel_off = -1;
    return it;
}

static struct item *put_rel(struct builder *b, const u8 *bytes, unsigned len, unsigned off,
                            unsigned size, unsigned target)
{
    struct item *it = put(b, bytes, len);
    if (it) {
        it->rel_off = (s8)off;
        it->rel_size = (u8)size;
        it->target = (u16)target;
    }
    return it;
}

/* Forms a stream draws from freely; the rest is generated on purpose or belongs to single forms. */
static bool stream_form(const struct form *f)
{
    switch (f->category) {
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_GATHER:
    case ZYDIS_CATEGORY_SCATTER:
    case ZYDIS_CATEGORY_AVX2GATHER:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_SEGOP:
        return false;
    default:
        break;
    }
    switch (f->mnemonic) {
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_AAA: /* flags nobody defines */
    case ZYDIS_MNEMONIC_AAS:
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_XLAT:
        return false;
    default:
        return true;
    }
}

static bool integer_form(const struct form *f)
{
    switch (f->isa_ext) {
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_ADOX_ADCX:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
    case ZYDIS_ISA_EXT_LZCNT:
    case ZYDIS_ISA_EXT_MOVBE:
        return true;
    default:
        return f->mnemonic == ZYDIS_MNEMONIC_POPCNT || f->mnemonic == ZYDIS_MNEMONIC_CRC32;
    }
}

/* Numbers of the forms of each pool, made on first use. */
static u32 pools[2][2][40000];
static unsigned pools_n[2][2];
static u32 (*pool)[40000];
static unsigned *pool_n;

static void make_pools(unsigned mode)
{
    pool = pools[mode == 32];
    pool_n = pools_n[mode == 32];
    if (pool_n[0])
        return;
    for (u32 i = 0; i < nforms; i++) {
        if (!stream_form(&forms[i]))
            continue;
        unsigned p = integer_form(&forms[i]) ? 0 : 1;
        pool[p][pool_n[p]++] = i;
    }
}

static bool writes_kept(const struct builder *b, const struct x86_insn *in)
{
    if (b->loop_rcx &&
        (in->category == ZYDIS_CATEGORY_STTNI || /* PCMPxSTRI write ECX */
         in->mnemonic == ZYDIS_MNEMONIC_VPCMPESTRI || in->mnemonic == ZYDIS_MNEMONIC_VPCMPISTRI))
        return true;
    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_GPR && in->op[i].write) {
            unsigned reg = in->op[i].reg;
            if (b->roles.keep >> reg & 1)
                return true;
        }
    return false;
}

static bool uses_segment(const struct x86_insn *in)
{
    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_SEG)
            return true;
    return false;
}

/* One ordinary instruction. */
static void plain(struct builder *b)
{
    struct rng *r = b->r;

    for (unsigned attempt = 0; attempt < 50; attempt++) {
        unsigned p = rnd_percent(r, 82) ? 0 : 1;
        if (!pool_n[p])
            continue;
        const struct form *f = &forms[pool[p][rnd_below(r, pool_n[p])]];
        struct x86_insn in;

        if (!gen_insn(r, f, &b->roles, &in))
            continue;
        if (uses_segment(&in) || (writes_kept(b, &in) && !rnd_percent(r, 1)))
            continue;
        if (in.category == ZYDIS_CATEGORY_STRINGOP) {
            if (b->loop_rcx)
                continue;
            if (in.prefixes & (X86_PFX_REP | X86_PFX_REPNE)) {
                u8 mov[5] = {0xb9, (u8)rnd_below(r, 24)}; /* mov ecx, n */
                put(b, mov, 5);
            }
        } else if (in.mem.present && in.mem.base == X86_REG_RIP) {
            struct item *it = put(b, in.bytes, in.length);
            if (it) { /* target beyond ITEMS_MAX: a data address */
                it->rel_off = (s8)in.disp_off;
                it->rel_size = 4;
                it->target = (u16)(0x8000 + (rnd_below(r, 0x2000) & ~15u));
            }
            return;
        } else if (in.mem.present && in.mem.base == X86_NOREG && in.disp_size >= 4 &&
                   (in.mem.index == X86_NOREG || b->roles.index >> in.mem.index & 1)) {
            gen_patch(&in, in.disp_off, in.disp_size, DATA_VA + rnd_below(r, 0x1f00));
        } else if (in.mnemonic >= ZYDIS_MNEMONIC_BT && in.mnemonic <= ZYDIS_MNEMONIC_BTS &&
                   in.mem.present && in.op[1].kind == X86_OP_GPR && rnd_percent(r, 95)) {
            continue; /* a random bit offset leads anywhere */
        }
        put(b, in.bytes, in.length);
        return;
    }
}

/* push/pop of a register or flags, 16 to 64 bits. */
static void stack_op(struct builder *b)
{
    struct rng *r = b->r;
    u8 code[4];
    unsigned n = 0, reg;
    unsigned k = rnd_below(r, 10);

    if (k == 0) {
        code[n++] = 0x9c; /* pushf */
    } else if (k < 6) {
        reg = rnd_below(r, b->mode == 64 ? 16 : 8);
        if (rnd_percent(r, 5))
            code[n++] = 0x66;
        if (reg >= 8)
            code[n++] = 0x41;
        code[n++] = (u8)(0x50 | (reg & 7));
    } else {
        do
            reg = rnd_below(r, b->mode == 64 ? 16 : 8);
        while (b->roles.keep >> reg & 1 || (b->loop_rcx && reg == X86_RCX));
        if (rnd_percent(r, 5))
            code[n++] = 0x66;
        if (reg >= 8)
            code[n++] = 0x41;
        code[n++] = (u8)(0x58 | (reg & 7));
    }
    put(b, code, n);
}

static void jump_forward(struct builder *b)
{
    struct rng *r = b->r;
    unsigned target = b->s->n + 1 + rnd_below(r, 5);
    u8 code[6] = {0};

    switch (rnd_below(r, 6)) {
    case 0:
        code[0] = 0xeb;
        put_rel(b, code, 2, 1, 1, target);
        break;
    case 1:
        code[0] = 0xe9;
        put_rel(b, code, 5, 1, 4, target);
        break;
    case 2:
        code[0] = 0x0f;
        code[1] = (u8)(0x80 | rnd_below(r, 16));
        put_rel(b, code, 6, 2, 4, target);
        break;
    case 3:
        if (rnd_percent(r, 30)) {
            code[0] = 0xe3; /* jrcxz */
            put_rel(b, code, 2, 1, 1, target);
            break;
        }
        __attribute__((fallthrough));
    default:
        code[0] = (u8)(0x70 | rnd_below(r, 16));
        put_rel(b, code, 2, 1, 1, target);
        break;
    }
}

/* lea r, [rip + target]; jmp r */
static void jump_indirect(struct builder *b)
{
    struct rng *r = b->r;
    u8 lea[7] = {0x48, 0x8d, 0x05}, jmp[2] = {0xff, 0xe0};
    if (b->mode != 64 || b->nloops == ARRAY_SIZE(b->loops))
        return;
    unsigned reg = X86_RAX;
    b->loops[b->nloops].first = (u16)b->s->n; /* nor is the jump to be met without its address */
    b->loops[b->nloops++].last = (u16)(b->s->n + 1);
    lea[2] = (u8)(0x05 | reg << 3);
    put_rel(b, lea, 7, 3, 4, b->s->n + 2 + rnd_below(r, 4));
    jmp[1] = (u8)(0xe0 | reg);
    put(b, jmp, 2);
}

static void call_function(struct builder *b)
{
    u8 code[5] = {0xe8};
    if (b->nfuncs >= ARRAY_SIZE(b->func_call) || b->s->n >= ITEMS_MAX - 12)
        return;
    b->func_call[b->nfuncs++] = (u16)b->s->n;
    put_rel(b, code, 5, 1, 4, 0); /* target when the function is laid out */
}

/*
 * Self-modifying code: an instruction with an immediate, and somewhere near it stores to that
 * immediate, before or after it; in a loop it runs again and again with new values.
 */
static void victim(struct builder *b)
{
    struct rng *r = b->r;
    unsigned reg, n = 0;
    u8 code[8];

    do
        reg = rnd_below(r, 8);
    while (b->roles.keep >> reg & 1 || reg == X86_RCX);
    code[n++] = 0x81; /* op r32, imm32 */
    code[n++] = (u8)(0xc0 | rnd_below(r, 8) << 3 | reg);
    for (unsigned i = 0; i < 4; i++)
        code[n++] = (u8)rnd(r);
    struct item *it = put(b, code, n);
    if (it)
        it->victim = 1;
}

static void modify(struct builder *b, unsigned target)
{
    struct rng *r = b->r;
    unsigned off = 2 + rnd_below(r, 4);
    struct item *it;
    u8 code[10] = {0};

    if (b->mode != 64)
        return;
    switch (rnd_below(r, 3)) {
    case 0: /* mov [rip + d], al, cl, dl or bl */
        code[0] = 0x88;
        code[1] = (u8)(0x05 | rnd_below(r, 4) << 3);
        it = put_rel(b, code, 6, 2, 4, target);
        break;
    case 1: /* mov byte [rip + d], imm8 */
        code[0] = 0xc6;
        code[1] = 0x05;
        code[6] = (u8)rnd(r);
        it = put_rel(b, code, 7, 2, 4, target);
        break;
    default: /* mov dword [rip + d], imm32 */
        code[0] = 0xc7;
        code[1] = 0x05;
        off = 2;
        for (unsigned i = 6; i < 10; i++)
            code[i] = (u8)rnd(r);
        it = put_rel(b, code, 10, 2, 4, target);
        break;
    }
    if (it)
        it->target_off = (u8)off;
}

static void self_modify(struct builder *b)
{
    struct rng *r = b->r;
    unsigned gap = rnd_below(r, 3);

    if (b->mode != 64 || b->s->n > ITEMS_MAX - 10)
        return;
    if (rnd_percent(r, 50)) {
        modify(b, b->s->n + 1 + gap);
        for (unsigned i = 0; i < gap; i++)
            stack_op(b);
        victim(b);
    } else {
        unsigned v = b->s->n;
        victim(b);
        for (unsigned i = 0; i < gap; i++)
            stack_op(b);
        modify(b, v);
    }
}

static void simple(struct builder *b)
{
    unsigned k = rnd_below(b->r, 100);
    if (b->smc && k < 15)
        self_modify(b);
    else if (k < 12 + (b->smc ? 15 : 0))
        stack_op(b);
    else
        plain(b);
}

static void loop(struct builder *b)
{
    struct rng *r = b->r;
    unsigned candidates = 0xffffu & ~(unsigned)b->roles.keep & ~0x7u & ~(1u << X86_RSP);
    u16 keep = b->roles.keep;
    bool rcx = rnd_percent(r, 30);
    u8 reg, mov[6], dec[4], code[6] = {0};
    unsigned n = 0;

    if (b->mode != 64)
        candidates &= 0xff;
    if (b->nloops == ARRAY_SIZE(b->loops) || b->s->n > ITEMS_MAX - 12 || (!rcx && !candidates))
        return;
    unsigned first = b->s->n;
    reg = rcx ? X86_RCX : pick(r, candidates);
    if (reg >= 8)
        mov[n++] = 0x41;
    mov[n++] = (u8)(0xb8 | (reg & 7));
    mov[n++] = (u8)(1 + rnd_below(r, 5));
    mov[n++] = 0;
    mov[n++] = 0;
    mov[n++] = 0;
    put(b, mov, n);
    b->roles.keep |= (u16)(1u << reg);
    b->loop_rcx = rcx;
    unsigned top = b->s->n;
    for (unsigned i = 1 + rnd_below(r, 5); i > 0; i--)
        simple(b);
    b->roles.keep = keep;
    b->loop_rcx = false;
    if (rcx) {
        code[0] = 0xe2;
        put_rel(b, code, 2, 1, 1, top);
    } else {
        n = 0;
        if (reg >= 8)
            dec[n++] = 0x41;
        dec[n++] = 0xff;
        dec[n++] = (u8)(0xc8 | (reg & 7));
        put(b, dec, n);
        if (rnd_percent(r, 50)) {
            code[0] = 0x75;
            put_rel(b, code, 2, 1, 1, top);
        } else {
            code[0] = 0x0f;
            code[1] = 0x85;
            put_rel(b, code, 6, 2, 4, top);
        }
    }
    b->loops[b->nloops].first = (u16)first;
    b->loops[b->nloops++].last = (u16)(b->s->n - 1);
}

/* A jump into a loop from outside would miss the counter: it goes to the loop's start instead. */
static void fix_targets(struct builder *b, unsigned end)
{
    for (unsigned i = 0; i < end; i++) {
        struct item *it = &b->s->item[i];
        if (it->rel_off < 0 || it->target >= 0x8000 || it->target_off)
            continue;
        if (it->target > end)
            it->target = (u16)end;
        for (unsigned k = 0; k < b->nloops; k++) {
            u16 first = b->loops[k].first, last = b->loops[k].last;
            if (it->target > first && it->target <= last && (i < first || i > last))
                it->target = first;
        }
    }
}

bool stream_assemble(const struct insn_stream *s, struct diff_case *c)
{
    u32 at[ITEMS_MAX + 1];
    u32 pos = 0;

    for (unsigned i = 0; i < s->n; i++) {
        at[i] = pos;
        if (!s->item[i].dropped)
            pos += s->item[i].len;
    }
    at[s->n] = pos;
    if (pos > CODE_MAX || s->code_off + pos > CODE_SIZE)
        return false;
    for (unsigned i = 0; i < s->n; i++) {
        const struct item *it = &s->item[i];
        if (it->dropped)
            continue;
        u8 *p = c->code + at[i];
        memcpy(p, it->bytes, it->len);
        if (it->rel_off < 0)
            continue;
        if (it->target_off &&
            (it->target >= s->n || !s->item[it->target].victim || s->item[it->target].dropped))
            return false;
        s64 d;
        s64 next = (s64)CODE_VA + s->code_off + at[i] + it->len;
        if (it->target >= 0x8000)
            d = (s64)DATA_VA + (it->target - 0x8000) - next;
        else
            d = (s64)CODE_VA + s->code_off + at[it->target < s->n ? it->target : s->n] +
                it->target_off - next;
        if (it->rel_size == 1 && (d < -128 || d > 127))
            return false;
        memcpy(p + it->rel_off, &d, it->rel_size);
    }
    c->code_len = pos;
    c->code_off = s->code_off;
    c->init.rip = CODE_VA + s->code_off;
    return true;
}

static void set_roles(struct builder *b, struct diff_case *c)
{
    struct rng *r = b->r;
    u16 all = b->mode == 64 ? 0xffe8 : 0xe8; /* not RAX RCX RDX RSP: instructions write them */
    u16 left = all;
    unsigned n = 2 + rnd_below(r, 2);

    all &= (u16) ~(1u << X86_RSP);
    left = all;
    if (rnd_percent(r, 60)) {
        b->roles.pointers |= 1u << X86_RSI | 1u << X86_RDI;
        left &= (u16) ~(1u << X86_RSI | 1u << X86_RDI);
    }
    while (n--) {
        u8 p = pick(r, left);
        left &= (u16) ~(1u << p);
        b->roles.pointers |= (u16)(1u << p);
        if (b->mode == 32 && n == 1)
            break;
    }
    u8 idx = pick(r, left);
    b->roles.index = (u16)(1u << idx);
    b->roles.keep = (u16)(b->roles.pointers | b->roles.index | 1u << X86_RSP);
    for (unsigned i = 0; i < 16; i++) {
        if (b->roles.pointers >> i & 1)
            c->init.gpr[i] =
                DATA_VA + 0x200 + (rnd_below(r, 0x1a00) & ~(rnd_percent(r, 90) ? 63u : 0u));
    }
    c->init.gpr[idx] = rnd_below(r, 32) * (rnd_percent(r, 50) ? 8 : 1);
}

void gen_stream_case(u64 seed, unsigned mode, struct diff_case *c, struct insn_stream *s)
{
    struct rng rng = {seed};
    struct builder b = {.r = &rng, .s = s, .mode = mode};
    unsigned want;

    make_pools(mode);
    c->mode = (u8)mode;
    c->stream = 1;
    c->npokes = 0;
    c->seed = seed;
    do {
        memset(s, 0, sizeof(*s));
        memset(&b.roles, 0, sizeof(b.roles));
        b.nfuncs = b.nloops = 0;
        gen_state(&rng, c);
        if (!rnd_percent(&rng, 10))
            c->init.rflags &= ~RFLAGS_DF;
        s->code_off =
            rnd_percent(&rng, 80) ? 0x400 + rnd_below(&rng, 0x800) : 0x1000 - rnd_below(&rng, 100);
        set_roles(&b, c);
        b.smc = rnd_percent(&rng, 10);
        want = 2 + rnd_below(&rng, 29);
        while (s->n < want) {
            unsigned k = rnd_below(&rng, 100);
            if (k < 10)
                jump_forward(&b);
            else if (k < 12)
                jump_indirect(&b);
            else if (k < 16)
                call_function(&b);
            else if (k < 20)
                loop(&b);
            else
                simple(&b);
        }
        static const u8 int3 = 0xcc;
        u16 end = (u16)s->n;
        put(&b, &int3, 1);
        fix_targets(&b, end); /* jumps beyond the end of the main part meet the INT3 */
        for (unsigned i = 0; i < b.nfuncs; i++) {
            u8 ret = 0xc3;
            s->item[b.func_call[i]].target = (u16)s->n;
            for (unsigned j = rnd_below(&rng, 3); j > 0; j--)
                plain(&b);
            put(&b, &ret, 1);
        }
    } while (!stream_assemble(s, c));
}
