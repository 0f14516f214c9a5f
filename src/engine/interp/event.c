/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delivery of exceptions and interrupts (SDM 3A chapter 6; SDM 2A INT n): interrupt vector table,
 * 16- and 32-bit gates, task gates, 64-bit gates with IST, and what happens when delivery itself
 * faults.
 */
#include <string.h>

#include "engine/interp/system_priv.h"

/* Benign exceptions met one within the other before the vCPU is given up. */
#define NESTED_MAX 16

struct event {
    enum interp_event kind;
    u8 vector;
    bool has_error;
    u32 error;
    u64 rip; /* pushed */
};

/* INT n, INT3 and INTO: gate privilege is checked, EXT stays clear in error codes. */
static bool is_software(const struct event *ev)
{
    return ev->kind == EV_SOFT_INT;
}

static u32 idt_error(u8 vector)
{
    return vector * 8u + 2;
}

/* RFLAGS as pushed: fault-class exceptions set RF, but for instruction breakpoints (SDM 3B
 * 17.3.1.1). */
static u64 flags_image(const struct interp *in, const struct event *ev)
{
    u64 f = in->s->rflags;
    if (ev->kind == EV_FAULT && ev->vector != X86_DB && ev->vector != X86_DF)
        f |= RFLAGS_RF;
    return f;
}

/* --- real mode */

static void deliver_real(struct interp *in, const struct event *ev)
{
    struct x86_vcpu_state *s = in->s;
    struct istack st;

    if (ev->vector * 4u + 3 > s->idtr.limit)
        interp_raise_err(in, X86_GP, idt_error(ev->vector));
    u32 entry = (u32)im_lin_read(in, (u32)(s->idtr.base + ev->vector * 4u), 4, im_access(in));
    istack_current(in, &st);
    istack_push(in, &st, 2, flags_image(in, ev));
    istack_push(in, &st, 2, s->seg[X86_CS].sel);
    istack_push(in, &st, 2, ev->rip);
    istack_commit(in, &st);
    iseg_set_real(in, X86_CS, (u16)(entry >> 16));
    iflags_set(in, 0, RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
    in->next_rip = (u16)entry;
}

/* --- protected mode */

/* Reads the gate of ev with the checks on it (SDM 3A 6.12, 6.14). */
static void read_gate(struct interp *in, const struct event *ev, struct idesc *gate)
{
    struct x86_vcpu_state *s = in->s;
    bool lma = x86_long_mode(s);
    u32 size = lma ? 16 : 8, off = ev->vector * size;

    if (off + size - 1 > s->idtr.limit)
        interp_raise_err(in, X86_GP, idt_error(ev->vector));
    gate->lin = s->idtr.base + off;
    if (!lma)
        gate->lin = (u32)gate->lin;
    gate->raw = im_lin_read(in, gate->lin, 8, im_system_access(in));
    gate->upper = lma ? (u32)im_lin_read(in, gate->lin + 8, 8, im_system_access(in)) : 0;
    gate->attr = (u16)(gate->raw >> 40 & 0xff);

    bool ok;
    switch (attr_system_type(gate->attr)) {
    case DESC_INT_GATE32:
    case DESC_TRAP_GATE32:
        ok = true;
        break;
    case DESC_INT_GATE16:
    case DESC_TRAP_GATE16:
    case DESC_TASK_GATE:
        ok = !lma;
        break;
    default:
        ok = false;
        break;
    }
    if (!ok || (is_software(ev) && attr_dpl(gate->attr) < s->cpl))
        interp_raise_err(in, X86_GP, idt_error(ev->vector));
    if (!(gate->attr & X86_SEG_P))
        interp_raise_err(in, X86_NP, idt_error(ev->vector));
}

static void deliver_task(struct interp *in, const struct event *ev, const struct idesc *gate)
{
    u16 sel = gate_sel(gate);
    struct idesc tss;
    if (sel & 4 || sel_null(sel))
        interp_raise_err(in, X86_GP, sel_error(sel));
    idesc_need(in, sel, X86_GP, &tss);
    int type = attr_system_type(tss.attr);
    if (type != DESC_TSS16 && type != DESC_TSS32)
        interp_raise_err(in, X86_GP, sel_error(sel));
    if (!(tss.attr & X86_SEG_P))
        interp_raise_err(in, X86_NP, sel_error(sel));
    in->next_rip = ev->rip; /* saved in the old TSS */
    itask_switch(in, sel, ITASK_CALL, ev->has_error, ev->error);
}

/* Flags, CS and RIP of the handler, once nothing can fault any more. */
static void enter_handler(struct interp *in, const struct idesc *gate, const struct idesc *code,
                          unsigned cpl, u64 off)
{
    struct x86_vcpu_state *s = in->s;
    u64 clear = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM;
    if (!(gate->attr & 1)) /* interrupt gate */
        clear |= RFLAGS_IF;
    iflags_set(in, 0, clear);
    idesc_to_seg(code, (u16)((code->sel & ~3u) | cpl), &s->seg[X86_CS]);
    s->seg[X86_CS].attr |= X86_SEG_ACCESSED;
    iseg_set_cpl(in, (u8)cpl);
    in->next_rip = off;
}

static void push_frame(struct interp *in, const struct event *ev, struct istack *st, unsigned size)
{
    istack_push(in, st, size, flags_image(in, ev));
    istack_push(in, st, size, in->s->seg[X86_CS].sel);
    istack_push(in, st, size, ev->rip);
    if (ev->has_error)
        istack_push(in, st, size, ev->error);
}

/* 64-bit gates (SDM 3A 6.14). */
static void deliver_long(struct interp *in, const struct event *ev, const struct idesc *gate,
                         struct idesc *code)
{
    struct x86_vcpu_state *s = in->s;
    unsigned ist = (unsigned)(gate->raw >> 32 & 7);
    bool inner = !attr_is_conforming(code->attr) && attr_dpl(code->attr) < s->cpl;
    unsigned cpl = inner ? attr_dpl(code->attr) : s->cpl;
    u64 off = gate_offset(gate), sp = s->gpr[X86_RSP];
    struct x86_seg ss = s->seg[X86_SS];
    struct istack st;
    u16 unused;

    if (inner) {
        iseg_set_null(&ss, (u16)cpl);
        ss.attr = (u16)(cpl << X86_SEG_DPL_SHIFT);
    }
    if (ist)
        sp = itss_ist(in, ist);
    else if (inner)
        itss_stack(in, cpl, &unused, &sp);
    if (!im_canonical(in, off))
        interp_raise_err(in, X86_GP, 0);
    istack_new(in, &st, &ss, sp & ~(u64)15, cpl, true);
    if (!inner)
        st.err = 0;
    istack_push(in, &st, 8, s->seg[X86_SS].sel);
    istack_push(in, &st, 8, s->gpr[X86_RSP]);
    push_frame(in, ev, &st, 8);
    idesc_mark_accessed(in, code);

    s->seg[X86_SS] = ss;
    istack_commit(in, &st);
    enter_handler(in, gate, code, cpl, off);
}

/* 16- and 32-bit gates to more privileged code, also out of virtual-8086 mode. */
static void deliver_inner(struct interp *in, const struct event *ev, const struct idesc *gate,
                          struct idesc *code, unsigned size, u64 off)
{
    struct x86_vcpu_state *s = in->s;
    static const u8 v86_segs[] = {X86_GS, X86_FS, X86_DS, X86_ES};
    unsigned cpl = attr_dpl(code->attr);
    bool v86 = in_v86(s);
    struct idesc ssd;
    struct x86_seg ss;
    struct istack st;
    u16 ss_sel;
    u64 sp;

    itss_stack(in, cpl, &ss_sel, &sp);
    iseg_need_stack(in, ss_sel, cpl, X86_TS, &ssd);
    idesc_to_seg(&ssd, ss_sel, &ss);
    ss.attr |= X86_SEG_ACCESSED;
    istack_new(in, &st, &ss, sp, cpl, false);
    if (v86)
        for (unsigned i = 0; i < ARRAY_SIZE(v86_segs); i++)
            istack_push(in, &st, size, s->seg[v86_segs[i]].sel);
    istack_push(in, &st, size, s->seg[X86_SS].sel);
    istack_push(in, &st, size, s->gpr[X86_RSP]);
    push_frame(in, ev, &st, size);
    idesc_mark_accessed(in, code);
    idesc_mark_accessed(in, &ssd);

    if (v86)
        for (unsigned i = 0; i < ARRAY_SIZE(v86_segs); i++)
            iseg_set_null(&s->seg[v86_segs[i]], 0);
    s->seg[X86_SS] = ss;
    istack_commit(in, &st);
    enter_handler(in, gate, code, cpl, off);
}

static void deliver_protected(struct interp *in, const struct event *ev)
{
    struct x86_vcpu_state *s = in->s;
    struct idesc gate, code;

    read_gate(in, ev, &gate);
    int type = attr_system_type(gate.attr);
    if (type == DESC_TASK_GATE) {
        deliver_task(in, ev, &gate);
        return;
    }
    ifar_gate_code(in, gate_sel(&gate), &code);
    if (x86_long_mode(s)) {
        deliver_long(in, ev, &gate, &code);
        return;
    }

    bool gate32 = type == DESC_INT_GATE32 || type == DESC_TRAP_GATE32;
    unsigned size = gate32 ? 4 : 2;
    u64 off = gate_offset(&gate) & size_mask(size);
    unsigned dpl = attr_dpl(code.attr);
    bool conforming = attr_is_conforming(code.attr);
    struct x86_seg cs;

    if (in_v86(s) && (conforming || dpl != 0))
        interp_raise_err(in, X86_GP, sel_error(code.sel));
    idesc_to_seg(&code, code.sel, &cs);
    ifar_check_target(in, &cs, off);
    if (!conforming && dpl < s->cpl) {
        deliver_inner(in, ev, &gate, &code, size, off);
        return;
    }
    struct istack st;
    istack_current(in, &st);
    push_frame(in, ev, &st, size);
    idesc_mark_accessed(in, &code);
    istack_commit(in, &st);
    enter_handler(in, &gate, &code, s->cpl, off);
}

/* --- nesting */

static void deliver_once(struct interp *in, const struct event *ev)
{
    struct x86_vcpu_state *s = in->s;
    in->ext = is_software(ev) ? 0 : 1;
    if (ev->vector == X86_DB && !is_software(ev)) {
        s->db_pending = 0; /* a trap held back by MOV SS is part of this one */
        s->dr7 &= ~DR7_GD; /* the handler may use the debug registers (SDM 3B 17.2.4) */
        s->debugctl = 0;   /* BTF (SDM 3B 17.4.3) */
    }
    if (s->cr0 & CR0_PE)
        deliver_protected(in, ev);
    else
        deliver_real(in, ev);
}

/* True when delivered; false with in->fault set and the state as before. The handler of the
 * instruction in progress has its own unwinding point, which comes back afterwards. */
static __attribute__((noinline, no_sanitize("address"))) bool try_deliver(struct interp *in,
                                                                          const struct event *ev)
{
    void *outer[ARRAY_SIZE(in->fault_jmp)];
    struct interp *volatile self = in; /* clang does not keep `in` for the second return */
    memcpy(outer, in->fault_jmp, sizeof(outer));
    if (__builtin_setjmp(in->fault_jmp)) {
        memcpy(self->fault_jmp, outer, sizeof(outer));
        return false;
    }
    deliver_once(in, ev);
    memcpy(in->fault_jmp, outer, sizeof(outer));
    return true;
}

/* SDM 3A table 6-4. */
static bool is_contributory(u8 vector)
{
    return vector == X86_DE || (vector >= X86_TS && vector <= X86_GP);
}

static bool makes_double_fault(const struct event *first, u8 second)
{
    if (first->kind != EV_FAULT)
        return false;
    if (is_contributory(first->vector))
        return is_contributory(second);
    return first->vector == X86_PF && (is_contributory(second) || second == X86_PF);
}

static enum interp_result shut_down(struct interp *in, u8 vector)
{
    static const char text[] = "triple fault: exception 0x?? while delivering an exception";
    static const char digit[] = "0123456789abcdef";
    memcpy(in->why, text, sizeof(text));
    char *at = in->why + sizeof("triple fault: exception 0x") - 1;
    at[0] = digit[vector >> 4];
    at[1] = digit[vector & 15];
    in->s->activity = X86_SHUTDOWN;
    in->ext = 0;
    in->next_rip = in->s->rip;
    return INTERP_SHUTDOWN;
}

enum interp_result ievent_deliver(struct interp *in, enum interp_event kind, u8 vector,
                                  bool has_error, u32 error, u64 rip)
{
    struct x86_vcpu_state *s = in->s;
    struct event ev = {
        .kind = kind, .vector = vector, .has_error = has_error, .error = error, .rip = rip};

    unsigned depth = 0;

    if (kind == EV_NMI)
        s->nmi_blocked = 1;
    while (!try_deliver(in, &ev)) {
        u8 second = in->fault.vector;
        if (second == X86_PF)
            s->cr2 = in->fault.cr2;
        /* #AC in the delivery of #AC would go on for ever on a CPU; a guest must not hang us. */
        if ((ev.kind == EV_FAULT && ev.vector == X86_DF) || ++depth > NESTED_MAX)
            return shut_down(in, second);
        bool df = makes_double_fault(&ev, second);
        ev = (struct event){.kind = EV_FAULT,
                            .vector = df ? X86_DF : second,
                            .has_error = df || in->fault.has_error,
                            .error = df ? 0 : in->fault.error,
                            .rip = s->rip};
    }
    in->ext = 0;
    in->suppress_tf = true;
    in->new_shadow = 0;
    s->int_shadow = 0;
    s->rip = in->next_rip;
    return INTERP_OK;
}
