/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of blocks for other guest addresses. Address-space randomization gives every process its
 * libraries at addresses of its own, while the code is the same pages of memory: a copy with its
 * addresses corrected costs a twentieth of a translation, and runs as fast, which code that finds
 * its address at run time would not.
 */
#include "engine/bt/gen.h"

/* --- while a block is translated
 * ------------------------------------------------------------------
 */

void gen_reloc(struct gen *g, const u8 *at, enum bt_reloc_kind kind, unsigned link)
{
    if (g->nrelocs < BT_RELOCS_MAX)
        g->reloc[g->nrelocs] =
            (struct bt_reloc){.off = (u16)(at - bt_rw(g->bt, bt_ibl_entry(g->b))),
                              .kind = (u8)kind,
                              .link = (u8)link};
    if (g->nrelocs <= BT_RELOCS_MAX)
        g->nrelocs++;
}

void gen_mov_va(struct gen *g, unsigned reg, u64 va)
{
    emit_mov_imm(&g->e, reg, va);
    if (va <= 0xffffffffu)
        gen_reloc(g, g->e.p - 4, BT_RELOC_VA32, 0);
    else if ((u64)(s64)(s32)va == va)
        gen_reloc(g, g->e.p - 4, BT_RELOC_VA32S, 0);
    else
        gen_reloc(g, g->e.p - 8, BT_RELOC_VA64, 0);
}

void gen_mov_record(struct gen *g, unsigned reg, const void *record, enum bt_reloc_kind kind,
                    unsigned link)
{
    struct emit *e = &g->e;

    /* Always the long form: the copy's record is elsewhere. */
    emit_rex(e, true, 0, 0, reg);
    emit8(e, 0xb8u | (reg & 7));
    emit64(e, (u64)(uintptr_t)record);
    gen_reloc(g, e->p - 8, kind, link);
}

void gen_jmp_stub(struct gen *g, const u8 *stub)
{
    u8 *at = emit_jmp(&g->e);

    emit_patch32(at, bt_rw(g->bt, stub));
    gen_reloc(g, at, BT_RELOC_STUB, 0);
}

void gen_call_stub(struct gen *g, const u8 *stub)
{
    u8 *at = emit_call(&g->e);

    emit_patch32(at, bt_rw(g->bt, stub));
    gen_reloc(g, at, BT_RELOC_STUB, 0);
}

/* Blocks copied at once at most. */
#define SPREAD_MAX 16

/* --- copying
 * --------------------------------------------------------------------------------------
 */

bool bt_clonable(u64 va)
{
    return va < BIT64(47) - BIT64(32);
}

static bool copy_site(struct bt_vm *bt, u8 *at, u64 delta)
{
    struct bt_interp_site *copy = bt_arena_alloc(&bt->space[BT_CLONES], sizeof(*copy));
    const struct bt_interp_site *site;

    if (!copy)
        return false;
    memcpy(&site, at, sizeof(site));
    *copy = *site;
    copy->va += delta;
    memcpy(at, &copy, sizeof(copy));
    return true;
}

enum fixed { FIXED, UNFIT, FULL };

/* Corrects one place of the copy; *va: the last guest address corrected. */
static enum fixed fix(struct bt_vm *bt, struct bt_block *b, const struct bt_reloc *r, u8 *at,
                      u64 delta, s64 moved, u64 *va)
{
    u64 v64;
    u32 v32;

    switch ((enum bt_reloc_kind)r->kind) {
    case BT_RELOC_VA64:
    case BT_RELOC_NEG_VA64:
        memcpy(&v64, at, 8);
        v64 += r->kind == BT_RELOC_VA64 ? delta : -delta;
        memcpy(at, &v64, 8);
        *va = v64;
        return FIXED;
    case BT_RELOC_VA32:
    case BT_RELOC_VA32S:
        memcpy(&v32, at, 4);
        v64 = (r->kind == BT_RELOC_VA32 ? v32 : (u64)(s64)(s32)v32) + delta;
        v32 = (u32)v64;
        memcpy(at, &v32, 4);
        *va = v64;
        return v64 == (r->kind == BT_RELOC_VA32 ? v32 : (u64)(s64)(s32)v32) ? FIXED : UNFIT;
    case BT_RELOC_IBL:
        v32 = BT_OFF_IBL + BT_IBL_INDEX(*va) * 8;
        memcpy(at, &v32, 4);
        return FIXED;
    case BT_RELOC_STUB:
        memcpy(&v32, at, 4);
        v32 -= (u32)moved;
        memcpy(at, &v32, 4);
        return FIXED;
    case BT_RELOC_LINK:
        v64 = (u64)(uintptr_t)&b->link[r->link];
        memcpy(at, &v64, 8);
        return FIXED;
    case BT_RELOC_SITE:
        return copy_site(bt, at, delta) ? FIXED : FULL;
    }
    return UNFIT;
}

static struct bt_block *copy_block(struct bt_vm *bt, const struct bt_block *from, u64 va,
                                   bool *full)
{
    u64 delta = va - from->va, last = 0;
    const u8 *src = bt_rw(bt, bt_ibl_entry(from));
    struct bt_space *sp = &bt->space[BT_CLONES];
    struct bt_block *b;
    u8 *dst, *entry;
    s64 moved;

    if (!from->reloc || !bt_clonable(va) || !bt_clonable(from->va))
        return NULL;
    *full = true;
    if (!bt_space_ready(bt, sp))
        return NULL;
    b = bt_arena_alloc(sp, bt_block_size(from->nlinks));
    if (!b)
        return NULL;
    dst = (u8 *)(uintptr_t)align_up((u64)(uintptr_t)sp->code_pos, 16);
    moved = dst - src;
    memset(sp->code_pos, 0xcc, (size_t)(dst - sp->code_pos));
    memcpy(dst, src, from->size);
    memcpy(b, from, bt_block_size(from->nlinks));
    b->va = va;
    b->target += delta;
    b->entry += moved;
    b->in_links = NULL;
    b->mixed = false;
    for (unsigned i = 0; i < from->nrelocs; i++) {
        const struct bt_reloc *r = &from->reloc[i];
        enum fixed f = fix(bt, b, r, dst + r->off, delta, moved, &last);

        if (f != FIXED) {
            *full = f == FULL;
            return NULL;
        }
    }
    entry = bt_rw(bt, b->entry);
    for (unsigned i = 0; i < b->nlinks; i++) {
        struct bt_link *l = &b->link[i];

        l->target += delta;
        l->chained = false;
        l->next_in = NULL;
        emit_patch32(entry + l->jmp, entry + l->stub);
    }
    if (!bt_cache_insert(bt, sp, b))
        return NULL;
    *full = false;
    sp->code_pos = dst + b->size;
    return b;
}

/*
 * The blocks that an original's jumps lead to will be wanted next to its copy: makes copies of
 * them, too, and chains the jumps. What has been cheap for one process is not asked for by every
 * other one at the price of an exit.
 */
static unsigned spread(struct bt_vm *bt, struct bt_block *b, const struct bt_block *from)
{
    struct {
        struct bt_block *b;
        const struct bt_block *from;
    } made[SPREAD_MAX];
    unsigned n = 1;
    bool full = false;

    made[0].b = b;
    made[0].from = from;
    for (unsigned k = 0; k < n; k++)
        for (unsigned i = 0; i < made[k].b->nlinks && !full; i++) {
            const struct bt_link *l = &made[k].from->link[i];
            const struct bt_block *target = l->chained ? bt_cache_target(bt, l) : NULL;
            struct bt_block *t;

            if (!target || !target->reloc || l->far)
                continue;
            t = bt_cache_peek(bt, made[k].b->link[i].target, target->gpa, target->mode);
            if (!t && n < SPREAD_MAX) {
                t = copy_block(bt, target, made[k].b->link[i].target, &full);
                if (t) {
                    made[n].b = t;
                    made[n++].from = target;
                }
            }
            if (t)
                bt_cache_chain(bt, &made[k].b->link[i], t);
        }
    return n;
}

struct bt_block *bt_clone_block(struct bt_vm *bt, const struct bt_block *from, u64 va, bool *full,
                                u64 *made)
{
    struct bt_block *b = copy_block(bt, from, va, full);

    if (b)
        *made += spread(bt, b, from);
    return b;
}
