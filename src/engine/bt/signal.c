/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals on a vCPU thread: a kick asks translated code to come back, a fault is the guest's own
 * (#DE, #MF, #XM, misaligned SSE, #UD). Both leave at a guest boundary: either the instruction is
 * undone (nothing it did before its commit counts) or its register write-backs are finished here.
 */
#include "engine/bt/bt_priv.h"

enum { R8 = 8, R9 = 9, R10 = 10, R11 = 11 };

u64 bt_guest_place(struct bt_vcpu *c, u64 ret, unsigned index, u64 *next, u64 *code)
{
    struct bt_block *b = bt_cache_find_pc(c->bt, ret);

    CHECK(b && index < b->nmap);
    if (b->map[index].shadow)
        c->env->s.int_shadow = 1;
    *next = *code = 0;
    if (index + 1u < b->nmap) {
        *next = b->va + b->map[index + 1].goff;
        *code = (u64)(uintptr_t)(b->entry + b->map[index + 1].start);
    }
    return b->va + b->map[index].goff;
}

u64 bt_guest_rip(struct bt_vcpu *c, u64 ret, unsigned index)
{
    u64 next, code;

    return bt_guest_place(c, ret, index, &next, &code);
}

static const struct bt_map *find_map(const struct bt_block *b, u32 off, const struct bt_map **next)
{
    unsigned lo = 0, hi = b->nmap;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (b->map[mid].start <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo)
        return NULL;
    *next = lo < b->nmap ? &b->map[lo] : NULL;
    return &b->map[lo - 1];
}

/* Flags and rax back from where gen_probe parked them. */
static void unpark(struct host_signal *sig, u32 since, u64 rax)
{
    u64 ax = *sig->gpr[X86_RAX], arith = *sig->rflags & RFLAGS_ARITH;

    if (since > 4 && since <= BT_PARK_LEN - 3)
        arith = ((ax >> 8) & (RFLAGS_ARITH & 0xff)) | (ax & 1) << 11;
    else if (since == BT_PARK_LEN - 1)
        arith = ((ax >> 8) & (RFLAGS_ARITH & 0xff)) | (arith & RFLAGS_OF);
    *sig->rflags = (*sig->rflags & ~RFLAGS_ARITH) | arith;
    *sig->gpr[X86_RAX] = rax;
}

/*
 * Runs the write-backs from pc to end: mov [rsp+disp8], r8/r10/r11; lea r9(d), [reg+disp]; mov reg,
 * r11; lea reg, [reg+r11*scale]. They are ours, so anything else is our bug.
 */
static void finish_tail(struct bt_env *env, struct host_signal *sig, const u8 *pc, const u8 *end)
{
    while (pc < end) {
        if ((pc[0] & 0xfb) == 0x48 && pc[1] == 0x89 && (pc[2] & 0xc7) == 0x44 && pc[3] == 0x24) {
            unsigned reg = ((pc[2] >> 3) & 7) | (pc[0] & 4) << 1;

            env->s.gpr[pc[4] / 8] = *sig->gpr[reg];
            pc += 5;
        } else if (pc[0] == 0x4c && pc[1] == 0x89 && pc[2] == 0x94 && pc[3] == 0x24) {
            s32 disp;

            memcpy(&disp, pc + 4, 4);
            memcpy((u8 *)env + disp, sig->gpr[R10], 8);
            pc += 8;
        } else if ((pc[0] & 0xf6) == 0x44 && pc[1] == 0x8d && (pc[2] & 0x38) == 0x08 &&
                   (pc[2] & 0xc0) == 0x40) {
            *sig->gpr[R9] = *sig->gpr[(pc[2] & 7) | (pc[0] & 1) << 3] + (u64)(s64)(s8)pc[3];
            if (!(pc[0] & 8))
                *sig->gpr[R9] = (u32)*sig->gpr[R9];
            pc += 4;
        } else if (pc[0] == 0x4c && pc[1] == 0x89 && (pc[2] & 0xf8) == 0xd8) {
            *sig->gpr[pc[2] & 7] = *sig->gpr[R11];
            pc += 3;
        } else if ((pc[0] & 0xf7) == 0x42 && pc[1] == 0x8d && (pc[2] & 0xc7) == 0x04 &&
                   (pc[3] & 0x38) == 0x18) {
            u64 *reg = sig->gpr[(pc[2] >> 3) & 7];

            *reg += *sig->gpr[R11] << (pc[3] >> 6);
            if (!(pc[0] & 8))
                *reg = (u32)*reg;
            pc += 4;
        } else {
            CHECK(!"unknown write-back in translated code");
        }
    }
}

/* Makes the thread leave by `stub` with everything of the guest in registers or env. PUSHFQ moves
 * rsp for a moment. */
static void leave_by(struct bt_vcpu *c, struct host_signal *sig, const u8 *stub)
{
    *sig->gpr[X86_RSP] = c->env->window;
    *sig->rip = (u64)(uintptr_t)stub;
}

/* Everything of the guest is in env already. */
static void leave_saved(struct bt_vcpu *c, struct host_signal *sig, enum bt_exit reason)
{
    c->env->exit_reason = reason;
    leave_by(c, sig, c->bt->exit_saved);
}

static bool within(const u8 *pc, const u8 *lo, const u8 *hi)
{
    return pc >= lo && pc < hi;
}

static void in_stubs(struct bt_vcpu *c, struct host_signal *sig, const u8 *pc)
{
    struct bt_vm *bt = c->bt;

    if (within(pc, bt->enter_check, bt->enter_end))
        leave_saved(c, sig, BT_EXIT_RESUME);
    else if (within(pc, bt->slow_ret, bt->slow_end) || within(pc, bt->stack_ret, bt->stack_end))
        leave_saved(c, sig, BT_EXIT_KICK);
    else if (within(pc, bt->interp_ret, bt->interp_end) ||
             within(pc, bt->string_ret, bt->string_end) || within(pc, bt->ibl_ret, bt->ibl_end))
        leave_saved(c, sig, BT_EXIT_RESUME);
}

static void in_block(struct bt_vcpu *c, struct host_signal *sig, const struct bt_block *b,
                     const u8 *pc, bool fault)
{
    struct bt_env *env = c->env;
    const struct bt_map *m, *next;
    const u8 *leave_stub = fault ? c->bt->exit_step : c->bt->exit_kick;
    u32 off;

    if (pc < b->entry) {
        /* The check of r11 at the table's entry. */
        /* The branch itself faults when its target is not canonical: bt_help_ibl is next. */
        if (!bt_canonical(c, *sig->gpr[R11]))
            return;
        env->s.rip = *sig->gpr[R11];
        if (pc >= bt_ibl_entry(b) + 3)
            *sig->gpr[X86_RCX] = *sig->gpr[R10];
        leave_by(c, sig, leave_stub);
        return;
    }
    off = (u32)(pc - b->entry);
    if (off >= b->hot_size) {
        s32 rel;

        for (unsigned i = 0; i < b->nlinks; i++)
            if (off >= b->link[i].cold_start && off < b->link[i].cold_end) {
                env->s.rip = b->link[i].target;
                leave_by(c, sig, leave_stub);
                return;
            }
        /* Through the branch-target table into the block itself. */
        if (b->len2 && off >= b->via_ibl && off < b->stale) {
            env->s.rip = b->va;
            leave_by(c, sig, leave_stub);
            return;
        }
        /* Cold code is on its way to a stub that looks at `pending`, unless it is on its way back.
         */
        if (*pc != 0xe9)
            return;
        memcpy(&rel, pc + 1, 4);
        pc += 5 + rel;
        if (pc < b->entry || pc >= b->entry + b->hot_size)
            return;
        off = (u32)(pc - b->entry);
        *sig->rip = (u64)(uintptr_t)pc;
    }
    m = find_map(b, off, &next);
    CHECK(m);
    if (off <= m->commit) {
        for (unsigned i = 0; i < ARRAY_SIZE(m->park); i++)
            if (m->park[i] && off >= m->park[i] && off <= (u32)m->park[i] + BT_PARK_LEN)
                unpark(sig, off - m->park[i], m->park_mem ? env->park : *sig->gpr[R8]);
        env->s.rip = b->va + m->goff;
        if (m->shadow)
            env->s.int_shadow = 1;
    } else if (m->kind == BT_MAP_INDIRECT) {
        if (!bt_canonical(c, *sig->gpr[R11]))
            return;
        env->s.rip = *sig->gpr[R11];
    } else if (m->kind == BT_MAP_DIRECT) {
        env->s.rip = b->target;
    } else {
        CHECK(next);
        finish_tail(env, sig, pc, b->entry + next->start);
        env->s.rip = b->va + next->goff;
        if (next->shadow)
            env->s.int_shadow = 1;
    }
    leave_by(c, sig, leave_stub);
}

bool bt_signal(void *opaque, struct host_signal *sig)
{
    struct bt_vcpu *c = opaque;
    const u8 *pc = (const u8 *)(uintptr_t)*sig->rip;
    bool fault = sig->kind == HOST_SIGNAL_FAULT;
    struct bt_block *b;

    if (!fault)
        __atomic_store_n(&c->env->pending, 1, __ATOMIC_SEQ_CST);
    if (fault && interp_native_signal(&c->interp, sig->rip, sig->trapno))
        return true;
    if (!within(pc, c->bt->code.rx, c->bt->code.rx + c->bt->code.size))
        return !fault;
    if (pc < c->bt->stubs_end) {
        if (fault)
            return false;
        in_stubs(c, sig, pc);
        return true;
    }
    b = bt_cache_find_pc(c->bt, *sig->rip);
    if (!b)
        return false;
    if (fault) {
        /* The soft TLB lets no page fault through but STI's probe: anything else is our bug. */
        if (sig->trapno == X86_PF && sig->addr)
            return false;
        c->stats.host_faults++;
        if ((u32)(pc - bt_ibl_entry(b)) >= b->size || pc < b->entry ||
            (u32)(pc - b->entry) >= b->hot_size)
            return false;
    } else {
        c->stats.kicks++;
    }
    in_block(c, sig, b, pc, fault);
    return true;
}
