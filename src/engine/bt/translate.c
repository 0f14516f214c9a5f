/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block: guest instructions of one page up to a branch, translated one after another. Three
 * kinds: copied with replaced operands (gen_op.c), stack operations and branches (gen_flow.c), and
 * the rest, which is a call of the interpreter in place.
 *
 * Flags: the probe of the soft TLB destroys them, so a backward pass finds where they are still
 * needed. Flags that a later instruction of the block overwrites unread may be garbage in an
 * exception or interrupt frame.
 */
#include <Zydis/MetaInfo.h>
#include <Zydis/SharedTypes.h>

#include "engine/bt/gen.h"

struct bt_interp_site *gen_new_site(struct gen *g)
{
    struct bt_interp_site *site = bt_arena_alloc(&g->bt->space[BT_TRANSLATIONS], sizeof(*site));
    struct x86_insn *insn = bt_arena_alloc(&g->bt->space[BT_TRANSLATIONS], sizeof(*insn));

    if (!site || !insn)
        return NULL;
    *insn = *g->insn;
    site->insn = insn;
    site->va = g->va;
    return site;
}

bool gen_site(struct gen *g, const u8 *stub)
{
    struct bt_interp_site *site = gen_new_site(g);

    if (!site)
        return false;
    gen_mov_record(g, H_R11, site, BT_RELOC_SITE, 0);
    gen_call_stub(g, stub);
    return true;
}

static bool is_branch(const struct x86_insn *in)
{
    switch (in->category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_INTERRUPT:
        return true;
    default:
        break;
    }
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_RSM:
        return true;
    default:
        return in->mnemonic == ZYDIS_MNEMONIC_MOV && in->op[0].kind == X86_OP_CR;
    }
}

/* Does it use x87, MMX, SSE or wider state? */
static bool uses_fpu(const struct x86_insn *in, bool *wide)
{
    bool fpu = in->category == ZYDIS_CATEGORY_X87_ALU || in->category == ZYDIS_CATEGORY_FCMOV;

    *wide = false;
    for (unsigned i = 0; i < in->nops; i++)
        switch (in->op[i].kind) {
        case X86_OP_VEC:
        case X86_OP_MMX:
        case X86_OP_ST:
            fpu = true;
            break;
        case X86_OP_MASK:
            fpu = *wide = true;
            break;
        default:
            break;
        }
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_EMMS:
        fpu = true;
        break;
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL:
        fpu = *wide = true;
        break;
    default:
        break;
    }
    if (fpu && (in->encoding == X86_ENC_VEX || in->encoding == X86_ENC_EVEX))
        *wide = true;
    return fpu;
}

static bool is_fast_string(const struct x86_insn *in)
{
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ:
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
        return in->category == ZYDIS_CATEGORY_STRINGOP && in->addrsize == in->mode / 8 &&
               (in->prefixes & (X86_PFX_REP | X86_PFX_REPNE)) && !(in->prefixes & X86_PFX_LOCK);
    default:
        return false;
    }
}

static u8 classify(const struct x86_insn *in, u32 mode)
{
    bool wide;

    if (in->mode == 32 && in->mem.present && !in->mem.agen &&
        (in->addrsize != 4 || in->mem.seg == X86_CS))
        return KIND_SITE;
    if (gen_sys_inline(in, mode))
        return KIND_SYS;
    if (in->category == ZYDIS_CATEGORY_STRINGOP)
        return is_fast_string(in)    ? KIND_STRING
               : gen_string_fits(in) ? KIND_STRING_ONCE
                                     : KIND_SITE;
    if (in->category == ZYDIS_CATEGORY_NOP || in->category == ZYDIS_CATEGORY_WIDENOP ||
        in->category == ZYDIS_CATEGORY_PREFETCH)
        return in->prefixes & X86_PFX_LOCK ? KIND_SITE : KIND_SKIP;
    if (in->mnemonic == ZYDIS_MNEMONIC_LEA)
        return in->opsize >= 4 && in->addrsize >= 4 ? KIND_LEA : KIND_SITE;
    if (in->mnemonic == ZYDIS_MNEMONIC_PREFETCH || in->mnemonic == ZYDIS_MNEMONIC_PREFETCHW)
        return in->prefixes & X86_PFX_LOCK ? KIND_SITE : KIND_SKIP;
    if (in->mem.present && in->mem.agen)
        return KIND_SITE;
    if (gen_bits_fits(in))
        return KIND_BITS;
    if (gen_flow_handles(in))
        return KIND_FLOW;
    if (is_branch(in))
        return KIND_SITE;
    if (!gen_may_copy(in))
        return KIND_SITE;
    if (uses_fpu(in, &wide)) {
        if (!(mode & BT_MODE_FPU) || (wide && !(mode & BT_MODE_AVX)))
            return KIND_SITE;
    }
    return gen_generic_fits(in) ? KIND_GENERIC : KIND_SITE;
}

/* Flags an instruction certainly overwrites. */
static u64 kills(const struct x86_insn *in)
{
    u64 written = in->flags_written & ~in->flags_undefined & RFLAGS_ARITH;

    if (in->category == ZYDIS_CATEGORY_SHIFT || in->category == ZYDIS_CATEGORY_ROTATE ||
        in->mnemonic == ZYDIS_MNEMONIC_SHLD || in->mnemonic == ZYDIS_MNEMONIC_SHRD) {
        /* A count of zero writes none. */
        const struct x86_op *count =
            &in->op[in->mnemonic == ZYDIS_MNEMONIC_SHLD || in->mnemonic == ZYDIS_MNEMONIC_SHRD ? 2
                                                                                               : 1];

        if (in->encoding != X86_ENC_LEGACY)
            return written;
        if (count->kind != X86_OP_IMM || !(in->imm[0] & (in->op[0].size == 64 ? 63 : 31)))
            return 0;
    }
    return written;
}

static u64 reads(const struct item *it)
{
    if (it->kind == KIND_SITE || it->kind == KIND_STRING)
        return RFLAGS_ARITH;
    if (it->kind == KIND_SYS &&
        (it->insn.mnemonic == ZYDIS_MNEMONIC_PUSHFQ || it->insn.mnemonic == ZYDIS_MNEMONIC_PUSHFD))
        return RFLAGS_ARITH;
    return it->insn.flags_read & RFLAGS_ARITH;
}

/* Flags needed at va in the same page, looked up a few instructions far; host: the page's bytes. */
static u64 flags_needed_at(u64 va, u64 page_va, const u8 *page, unsigned bits,
                           struct bt_range *seen)
{
    u64 unknown = RFLAGS_ARITH, needed = 0, start = va - page_va;

    for (unsigned i = 0; i < 4 && unknown; i++) {
        struct item it;
        u64 off = va - page_va;

        if (off >= PAGE_SIZE)
            break;
        if (x86_decode(&it.insn, page + off, PAGE_SIZE - off, bits, false) != X86_DECODE_OK)
            break;
        seen->off = (u16)start;
        seen->len = (u16)(off + it.insn.length - start);
        it.kind = classify(&it.insn, BT_MODE_CODE | BT_MODE_FPU | BT_MODE_AVX);
        needed |= reads(&it) & unknown;
        unknown &= ~(reads(&it) | kills(&it.insn));
        if (is_branch(&it.insn))
            break;
        va += it.insn.length;
    }
    return needed | unknown;
}

/* Does the instruction that a conditional branch at the end has its flags from write them all? Then
 * it does not matter who needs them later: they are kept up to the branch, and what is before is
 * overwritten. */
static bool fresh_flags(const struct item *items, unsigned n)
{
    for (unsigned i = n - 1; i-- > 0;) {
        if (kills(&items[i].insn) == RFLAGS_ARITH)
            return true;
        if (items[i].insn.flags_written & RFLAGS_ARITH)
            return false;
    }
    return false;
}

static u64 flags_live_out(const struct item *items, unsigned n, u64 end_va, u64 page_va,
                          const u8 *page, unsigned bits, struct bt_range seen[2])
{
    const struct item *last = &items[n - 1];
    u64 live;

    if (!last->last)
        return flags_needed_at(end_va, page_va, page, bits, &seen[0]);
    if (last->kind != KIND_FLOW || last->insn.op[0].kind != X86_OP_REL)
        return RFLAGS_ARITH;
    if (last->insn.category == ZYDIS_CATEGORY_COND_BR && fresh_flags(items, n))
        return RFLAGS_ARITH;
    live = flags_needed_at(end_va + last->insn.imm[0], page_va, page, bits, &seen[0]);
    if (last->insn.category == ZYDIS_CATEGORY_COND_BR)
        live |= flags_needed_at(end_va, page_va, page, bits, &seen[1]);
    return live;
}

/* A direct branch out of the canonical half: the fault is the branch's own. (47 bits are right
 * under LA57 too: slow there.) */
static bool beyond_canonical(const struct item *it)
{
    u64 target = it->va + it->insn.length + it->insn.imm[0];

    return it->kind == KIND_FLOW && it->insn.mode == 64 && it->insn.op[0].kind == X86_OP_REL &&
           (sign_extend(target, 48) != target ||
            sign_extend(it->va + it->insn.length, 48) != it->va + it->insn.length);
}

/* Can it be run twice with the same result, and be undone? */
static bool repeatable(const struct item *it)
{
    return it->kind != KIND_SITE && it->kind != KIND_STRING && it->kind != KIND_SYS;
}

/* The block of an instruction that crosses the page's end: itself. false: it does not, or cannot be
 * read. */
static bool decode_straddle(struct bt_vcpu *c, struct item *it, u64 lin, const u8 *host, u32 mode,
                            u64 *gpa2)
{
    unsigned n = (unsigned)(PAGE_SIZE - (lin & (PAGE_SIZE - 1)));
    u8 bytes[X86_INSN_MAX], *host2;

    if (n >= X86_INSN_MAX || !bt_fetch(c, lin + n, gpa2, &host2))
        return false;
    memcpy(bytes, host, n);
    memcpy(bytes + n, host2, X86_INSN_MAX - n);
    if (x86_decode(&it->insn, bytes, sizeof(bytes), mode & BT_MODE_64 ? 64 : 32, false) !=
            X86_DECODE_OK ||
        it->insn.length <= n)
        return false;
    it->va = lin;
    it->kind = classify(&it->insn, mode);
    if (beyond_canonical(it))
        it->kind = KIND_SITE;
    it->last = is_branch(&it->insn);
    it->in_group = it->grouped = it->check = false;
    it->keep_flags = true;
    return true;
}

/* Decodes up to a branch, the page's end or the limit. Returns how many. */
static unsigned decode_block(const struct bt_vm *bt, struct item *items, u64 lin, const u8 *page,
                             u32 mode, struct bt_range seen[2])
{
    u64 page_va = lin & PAGE_MASK;
    unsigned bits = mode & BT_MODE_64 ? 64 : 32;
    bool lockstep = bt->lockstep, at_break = false;
    unsigned n = 0;
    u64 live;

    while (n < BT_BLOCK_INSNS) {
        struct item *it = &items[n];
        u64 off = lin - page_va;

        if (off >= PAGE_SIZE)
            break;
        if (unlikely(bt->nbreaks) && bt_is_break(bt, lin)) {
            at_break = true;
            break;
        }
        if (x86_decode(&it->insn, page + off, PAGE_SIZE - off, bits, false) != X86_DECODE_OK)
            break;
        it->va = lin;
        it->in_group = it->grouped = it->check = false;
        it->kind = classify(&it->insn, mode);
        if (beyond_canonical(it))
            it->kind = KIND_SITE;
        if (lockstep && !repeatable(it))
            break;
        it->last = is_branch(&it->insn);
        lin += it->insn.length;
        n++;
        if (it->last)
            break;
    }
    if (!n)
        return 0;
    /* Compared in lockstep mode, or looked at by a debugger, flags must be right at the end. */
    live = lockstep || at_break ? RFLAGS_ARITH
                                : flags_live_out(items, n, lin, page_va, page, bits, seen);
    for (unsigned i = n; i-- > 0;) {
        live = (live & ~kills(&items[i].insn)) | reads(&items[i]);
        items[i].keep_flags = live != 0;
    }
    if (!(mode & BT_MODE_NOGROUP))
        gen_find_groups(items, n);
    return n;
}

/*
 * The entry that checks that r11 is this block's address; on a mismatch the table was stale or
 * shared, and the target may need the flags whatever this block does: they are kept.
 */
static void gen_ibl_entry(struct gen *g, u64 va)
{
    struct emit *e = &g->e;

    EMIT(e, 0x49, 0x89, 0xca); /* mov r10, rcx */
    EMIT(e, 0x48, 0xb9);       /* mov rcx, imm64 */
    emit64(e, -va);
    gen_reloc(g, e->p - 8, BT_RELOC_NEG_VA64, 0);
    EMIT(e, 0x4a, 0x8d, 0x0c, 0x19); /* lea rcx, [rcx + r11] */
    EMIT(e, 0xe3, 0x08);             /* jrcxz over mov and jmp */
    EMIT(e, 0x4c, 0x89, 0xd1);       /* mov rcx, r10 */
    gen_jmp_stub(g, g->bt->exit_ibl);
    EMIT(e, 0x4c, 0x89, 0xd1);
}

static bool gen_item(struct gen *g, const struct item *it, bool last)
{
    switch (it->kind) {
    case KIND_SKIP:
        return true;
    case KIND_LEA:
        gen_lea(g);
        return true;
    case KIND_FLOW:
        if (gen_flow(g))
            return true;
        CHECK(!it->in_group);
        return gen_site(g, g->bt->call_interp);
    case KIND_BITS:
        gen_bits(g);
        return true;
    case KIND_GENERIC:
        if (gen_generic(g))
            return true;
        CHECK(!it->in_group);
        return gen_site(g, g->bt->call_interp);
    case KIND_SYS:
        if (gen_sys(g, last))
            return true;
        CHECK(!it->in_group);
        return gen_site(g, g->bt->call_interp);
    case KIND_STRING:
        return gen_site(g, g->bt->call_string);
    case KIND_STRING_ONCE:
        gen_string(g);
        return true;
    default:
        /* There is nobody to give way to. */
        if (it->insn.mnemonic == ZYDIS_MNEMONIC_PAUSE && g->bt->nvcpus == 1)
            return true;
        return gen_site(g, g->bt->call_interp);
    }
}

/* After the hot code: misses, the ways out that are not chained yet, and the way out of a dead
 * block. */
static void gen_tail(struct gen *g)
{
    struct emit *e = &g->e;

    gen_cold_paths(g);
    for (unsigned i = 0; i < g->b->nlinks && !e->overflow; i++) {
        g->b->link[i].stub = gen_off(g);
        emit_patch32(g->entry + g->b->link[i].jmp, e->p);
        /* The link's address is not known yet: keep_block. */
        gen_mov_record(g, H_R11, NULL, BT_RELOC_LINK, i);
        gen_jmp_stub(g, g->bt->exit_link);
        if (g->b->link[i].far) {
            g->b->link[i].cold_start = gen_off(g);
            gen_branch_far_page(g, g->b->link[i].target);
            g->b->link[i].cold_end = gen_off(g);
        }
    }
    if (g->b->len2) {
        g->b->via_ibl = gen_off(g);
        gen_branch_far_page(g, g->b->va);
    }
    g->b->stale = gen_off(g);
    gen_mov_va(g, H_R11, g->b->va);
    gen_jmp_stub(g, g->bt->exit_ibl);
}

static bool gen_block(struct gen *g, const struct item *items, unsigned n)
{
    struct bt_block *b = g->b;
    unsigned i;
    u8 *start;

    while (((u64)(uintptr_t)g->e.p) & 15)
        emit8(&g->e, 0xcc);
    start = g->e.p;
    b->entry = g->bt->code.rx + (start - g->bt->code.rw) + BT_IBL_CHECK_LEN;
    gen_ibl_entry(g, b->va);
    g->entry = g->e.p;
    CHECK(g->e.overflow || g->entry - start == BT_IBL_CHECK_LEN);
    for (i = 0; i < n; i++) {
        const struct item *it = &items[i];

        g->insn = &it->insn;
        g->item = it;
        g->va = it->va;
        g->next = it->va + it->insn.length;
        if (g->word == 4)
            g->next = (u32)g->next;
        g->index = i;
        g->keep_flags = it->keep_flags;
        g->ended = false;
        g->map = &b->map[i];
        *g->map = (struct bt_map){.start = gen_off(g),
                                  .commit = 0xffff,
                                  .goff = (u16)(it->va - b->va),
                                  .len = it->insn.length,
                                  .shadow = g->shadow_next,
                                  .kind = BT_MAP_PLAIN};
        g->shadow_next = false;
        if (it->check)
            gen_stack_check(g);
        if (!gen_item(g, it, i + 1 == n))
            return false;
        /* Leave room for the cold paths. */
        if (g->e.p - start > BT_BLOCK_BYTES / 2 && !g->ended) {
            i++;
            break;
        }
    }
    if (!b->len2)
        b->guest_len = (u16)(g->next - b->va);
    if (!g->ended) {
        g->map = &b->map[i];
        *g->map =
            (struct bt_map){.start = gen_off(g), .commit = 0xffff, .goff = (u16)(g->next - b->va)};
        gen_goto(g, g->next);
        i++;
    }
    b->nmap = (u8)i;
    b->ninsns = (u8)(i - (b->map[i - 1].len ? 0 : 1));
    b->hot_size = gen_off(g);
    gen_tail(g);
    b->size = (u16)(g->e.p - start);
    return !g->e.overflow;
}

/* A page-crossing block counts in both pages. */
static bool add_twin(struct bt_vm *bt, struct bt_block *b, u64 gpa2)
{
    struct bt_block *t = bt_arena_alloc(&bt->space[BT_TRANSLATIONS], bt_block_size(0));

    if (!t || !bt_page_of(bt, gpa2, true))
        return false;
    memset(t, 0, bt_block_size(0));
    t->gpa = gpa2;
    t->guest_len = b->len2;
    t->twin = b;
    b->twin = t;
    return true;
}

/* Copies of 64-bit code of one page only: in 32-bit code addresses wrap, and a second page may be
 * another one at another address. */
static bool keep_relocs(struct gen *g, struct bt_block *b)
{
    size_t size = g->nrelocs * sizeof(*b->reloc);

    if (g->nrelocs > BT_RELOCS_MAX || g->word != 8 || b->len2 || !bt_clonable(b->va))
        return true;
    b->reloc = bt_arena_alloc(&g->bt->space[BT_TRANSLATIONS], size);
    if (!b->reloc)
        return false;
    memcpy(b->reloc, g->reloc, size);
    b->nrelocs = (u8)g->nrelocs;
    return true;
}

/* The generated block's record, at the size that it turned out to need; or NULL: no room. */
static struct bt_block *keep_block(struct gen *g, u64 gpa2)
{
    struct bt_space *sp = &g->bt->space[BT_TRANSLATIONS];
    size_t size = g->b->nmap * sizeof(struct bt_map);
    struct bt_block *b = bt_arena_alloc(sp, bt_block_size(g->b->nlinks));
    struct bt_map *map = bt_arena_alloc(sp, size);

    if (!b || !map)
        return NULL;
    memcpy(map, g->b->map, size);
    memcpy(b, g->b, bt_block_size(g->b->nlinks));
    b->map = map;
    for (unsigned i = 0; i < b->nlinks; i++) {
        struct bt_link *l = &b->link[i];

        memcpy(g->entry + l->stub + 2, &l, sizeof(l)); /* mov r11, imm64 */
    }
    return keep_relocs(g, b) && (!gpa2 || add_twin(g->bt, b, gpa2)) ? b : NULL;
}

/* Chains the jumps to blocks of the same page that are there already. */
static void chain_known(struct bt_vm *bt, struct bt_block *b)
{
    for (unsigned i = 0; i < b->nlinks; i++) {
        struct bt_link *l = &b->link[i];
        u32 mode = (b->mode & ~BT_MODE_NOGROUP) | (l->nogroup ? BT_MODE_NOGROUP : 0);
        struct bt_block *to =
            l->far ? NULL : bt_cache_peek(bt, l->target, b->gpa + (l->target - b->va), mode);

        if (to)
            bt_cache_chain(bt, l, to);
    }
}

struct bt_block *bt_translate_block(struct bt_vcpu *c, u64 lin, u64 gpa, const u8 *host, bool *full)
{
    struct item items[BT_BLOCK_INSNS];
    struct bt_map map[BT_BLOCK_INSNS + 1];
    struct bt_vm *bt = c->bt;
    struct bt_space *sp = &bt->space[BT_TRANSLATIONS];
    struct gen g;
    struct bt_block draft, *b;
    u32 mode = bt_block_mode(c);
    u64 gpa2 = 0;
    unsigned n;

    *full = false;
    memset(&draft, 0, sizeof(draft));
    n = decode_block(bt, items, lin, host - (lin & (PAGE_SIZE - 1)), mode, draft.seen);
    if (!n) {
        if (bt->lockstep || !decode_straddle(c, items, lin, host, mode, &gpa2))
            return NULL;
        n = 1;
        draft.guest_len = (u16)(PAGE_SIZE - (gpa & (PAGE_SIZE - 1)));
        draft.len2 = (u16)(items[0].insn.length - draft.guest_len);
    }
    if (!bt_space_ready(bt, sp) || !bt_page_of(bt, gpa, true))
        goto full;
    draft.va = lin;
    draft.gpa = gpa;
    draft.mode = (u16)mode;
    draft.map = map;
    g.e = (struct emit){.p = sp->code_pos, .end = sp->code_end};
    g.c = c;
    g.bt = bt;
    g.b = &draft;
    g.ncold = 0;
    g.nrelocs = 0;
    g.word = mode & BT_MODE_64 ? 8 : 4;
    g.shadow_next = false;
    if (!gen_block(&g, items, n))
        goto full;
    b = keep_block(&g, gpa2);
    if (!b || !bt_cache_insert(bt, sp, b))
        goto full;
    sp->code_pos = g.e.p;
    if (likely(!c->debugging && !bt->lockstep))
        chain_known(bt, b);
    c->stats.blocks++;
    c->stats.guest_insns += n;
    c->stats.code_bytes += b->size;
    return b;
full:
    *full = true;
    return NULL;
}
