/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lockstep: every block runs twice from the same state, first by the interpreter, whose writes are
 * then undone, and then translated; registers, vector state and the memory written must be equal.
 * Blocks are entered one at a time and end before anything with effects that cannot be undone. One
 * vCPU only.
 */
#include "engine/bt/bt_priv.h"

#define UNDO_MAX 512

struct undo {
    u8 *host;
    u32 len;
    u8 before[64], after[64];
};

struct bt_lockstep {
    bool recording;
    bool hopeless; /* the interpreter's run cannot be undone: MMIO, or too much written */
    u32 comp_off[16],
        comp_size[16]; /* XSAVE components 2..15, standard format; size 0: not there */
    unsigned n;
    struct undo undo[UNDO_MAX];
    struct x86_vcpu_state start, wanted;
};

struct bt_lockstep *bt_lockstep_create(u64 xcr0)
{
    struct bt_lockstep *l = host_zalloc(sizeof(*l));

    for (unsigned bit = 2; l && bit < 16; bit++) {
        u32 r[4];

        if (!(xcr0 >> bit & 1))
            continue;
        bt_host_cpuid(13, bit, r);
        if (r[1] < X86_XSAVE_SIZE && r[0] <= X86_XSAVE_SIZE - r[1]) {
            l->comp_off[bit] = r[1];
            l->comp_size[bit] = r[0];
        }
    }
    return l;
}

void bt_lockstep_write(struct bt_lockstep *l, u8 *host, unsigned len)
{
    struct undo *u;

    if (!l->recording)
        return;
    if (l->n == UNDO_MAX || len > sizeof(u->before)) {
        l->hopeless = true;
        return;
    }
    u = &l->undo[l->n++];
    u->host = host;
    u->len = len;
    memcpy(u->before, host, len);
}

bool bt_lockstep_mmio(struct bt_lockstep *l)
{
    if (!l->recording)
        return false;
    l->hopeless = true;
    return true;
}

static void undo_writes(struct bt_lockstep *l)
{
    for (unsigned i = 0; i < l->n; i++)
        memcpy(l->undo[i].after, l->undo[i].host, l->undo[i].len);
    for (unsigned i = l->n; i-- > 0;)
        memcpy(l->undo[i].host, l->undo[i].before, l->undo[i].len);
}

/* The interpreter's run of the block's straight line. */
static void run_reference(struct bt_vcpu *c, const struct bt_block *b)
{
    struct bt_lockstep *l = c->lockstep;
    struct x86_vcpu_state *s = &c->env->s;

    l->n = 0;
    l->hopeless = false;
    l->recording = true;
    for (unsigned i = 0; i < b->ninsns && !l->hopeless; i++) {
        u64 next = i + 1 < b->ninsns ? b->va + b->map[i + 1].goff : 0;

        if (interp_step(&c->interp) != INTERP_OK)
            break;
        if (s->rip != next)
            break;
    }
    l->recording = false;
    l->hopeless |= c->ncode_writes != 0; /* it changed the code it ran */
    c->ncode_writes = 0;                 /* nothing has been written in the end */
    bt_fpu_save(c);
    memcpy(&l->wanted, s, sizeof(*s));
    undo_writes(l);
}

/* One component of two XSAVE images; one in its initial state counts as zeros. */
static bool component_equal(const u8 *a, const u8 *b, unsigned bit, u32 off, u32 size)
{
    u64 abv, bbv;

    memcpy(&abv, a + 512, 8);
    memcpy(&bbv, b + 512, 8);
    for (u32 i = 0; i < size; i++) {
        u8 x = abv >> bit & 1 ? a[off + i] : 0, y = bbv >> bit & 1 ? b[off + i] : 0;

        if (x != y)
            return false;
    }
    return true;
}

static bool vectors_equal(const struct bt_lockstep *l, const u8 *a, const u8 *b)
{
    /* x87 registers; XMM. FIP, FDP and FOP are the host's own (docs/design.md). */
    if (!component_equal(a, b, 0, 32, 128) || !component_equal(a, b, 1, 160, 256))
        return false;
    for (unsigned bit = 2; bit < 16; bit++)
        if (!component_equal(a, b, bit, l->comp_off[bit], l->comp_size[bit]))
            return false;
    return true;
}

static void report(struct bt_vcpu *c, const struct bt_block *b)
{
    static const char names[16][4] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    const struct x86_vcpu_state *w = &c->lockstep->wanted, *s = &c->env->s,
                                *o = &c->lockstep->start;
    u64 gpa, va = b->va;
    u8 *host;

    for (unsigned i = 0; i < b->ninsns && bt_fetch(c, va, &gpa, &host); i++) {
        struct x86_insn in;
        char text[96];

        if (x86_decode(&in, host, PAGE_SIZE - (va & (PAGE_SIZE - 1)),
                       c->mode & BT_MODE_64 ? 64 : 32, false) != X86_DECODE_OK)
            break;
        x86_format(&in, va, text, sizeof(text));
        log_error("lockstep: %llx %s", (unsigned long long)va, text);
        va += in.length;
    }
    for (unsigned i = 0; i < 16; i++)
        if (w->gpr[i] != s->gpr[i])
            log_error("lockstep: %s before %llx, interpreted %llx, translated %llx", names[i],
                      (unsigned long long)o->gpr[i], (unsigned long long)w->gpr[i],
                      (unsigned long long)s->gpr[i]);
    log_error("lockstep: rip interpreted %llx, translated %llx", (unsigned long long)w->rip,
              (unsigned long long)s->rip);
    log_error("lockstep: rflags before %llx, interpreted %llx, translated %llx",
              (unsigned long long)o->rflags, (unsigned long long)w->rflags,
              (unsigned long long)s->rflags);
}

static bool equal(struct bt_vcpu *c)
{
    const struct bt_lockstep *l = c->lockstep;
    const struct x86_vcpu_state *w = &l->wanted, *s = &c->env->s;

    if (memcmp(w->gpr, s->gpr, sizeof(w->gpr)) || w->rip != s->rip ||
        ((w->rflags ^ s->rflags) & ~RFLAGS_RF) || memcmp(w->seg, s->seg, sizeof(w->seg)) ||
        w->cr2 != s->cr2)
        return false;
    for (unsigned i = 0; i < l->n; i++) {
        /* The last write to a place is what must stand there. */
        bool later = false;

        for (unsigned k = i + 1; k < l->n && !later; k++)
            later = l->undo[k].host < l->undo[i].host + l->undo[i].len &&
                    l->undo[i].host < l->undo[k].host + l->undo[k].len;
        if (!later && memcmp(l->undo[i].host, l->undo[i].after, l->undo[i].len))
            return false;
    }
    return vectors_equal(l, w->xsave, s->xsave);
}

bool bt_lockstep_run(struct bt_vcpu *c, const struct bt_block *b)
{
    struct bt_lockstep *l = c->lockstep;
    struct bt_env *env = c->env;
    u32 reason;

    bt_fpu_save(c);
    memcpy(&l->start, &env->s, sizeof(env->s));
    run_reference(c, b);
    memcpy(&env->s, &l->start, sizeof(env->s));
    bt_update_mode(c);
    bt_fpu_load(c);
    bt_flags_out(env);
    bt_clip_rsp(c);
    c->bt->enter(env->window, b->entry);
    bt_flags_in(env);
    reason = env->exit_reason;
    if (reason == BT_EXIT_LINK) {
        const struct bt_link *link = (const struct bt_link *)(uintptr_t)env->exit_arg;

        env->s.rip = link->target;
        c->nogroup = link->nogroup;
        if (link->nogroup)
            return true; /* from where it is, the block without stack groups goes on */
    } else if (reason == BT_EXIT_KICK) {
        env->s.rip = bt_guest_rip(c, env->exit_arg, (u32)env->exit_info >> 16);
    } else if (reason == BT_EXIT_STEP || (reason == BT_EXIT_IBL && !bt_canonical(c, env->s.rip))) {
        return true; /* the interpreter itself does the next instruction */
    }
    bt_fpu_save(c);
    if (l->hopeless || reason == BT_EXIT_KICK || reason == BT_EXIT_RESUME)
        return true; /* interrupted half-way: nothing to compare with */
    c->stats.lockstep_blocks++;
    if (equal(c))
        return true;
    report(c, b);
    return false;
}
