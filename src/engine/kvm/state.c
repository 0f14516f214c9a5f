/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's state between the interpreter's form and KVM's. Fields KVM does not hold (MTRRs, machine
 * checks, the TSC's offset, activity...) are at home in c->s.
 */
#include <errno.h>
#include <string.h>

#include "engine/kvm/kvm_priv.h"
#include "x86/msr.h"

/* Of an XSAVE image (SDM 1 13.4). */
#define XSAVE_MXCSR 24
#define XSAVE_XMM 160
#define XSAVE_XMM_SIZE 256
#define XSAVE_BV 512
#define XSAVE_SSE 2u
#define MXCSR_RESET 0x1f80u

static u64 *msr_field(struct x86_vcpu_state *s, u32 msr)
{
    switch (msr) {
    case MSR_STAR:
        return &s->star;
    case MSR_LSTAR:
        return &s->lstar;
    case MSR_CSTAR:
        return &s->cstar;
    case MSR_SFMASK:
        return &s->sfmask;
    case MSR_KERNEL_GS_BASE:
        return &s->kernel_gs_base;
    case MSR_SYSENTER_CS:
        return &s->sysenter_cs;
    case MSR_SYSENTER_ESP:
        return &s->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &s->sysenter_eip;
    case MSR_PAT:
        return &s->pat;
    case MSR_TSC_AUX:
        return &s->tsc_aux;
    case MSR_SPEC_CTRL:
        return &s->spec_ctrl;
    case MSR_AMD_VIRT_SPEC_CTRL:
        return x86_msr_virt_spec_ctrl(s);
    default:
        return &s->debugctl;
    }
}

static void seg_from(struct x86_seg *to, const struct kvm_segment *k)
{
    *to = (struct x86_seg){.base = k->base, .limit = k->limit, .sel = k->selector};
    to->attr = (u16)((k->type & 0xf) | (k->s ? X86_SEG_S : 0) | (k->dpl & 3) << X86_SEG_DPL_SHIFT |
                     (k->present && !k->unusable ? X86_SEG_P : 0) | (k->avl ? X86_SEG_AVL : 0) |
                     (k->l ? X86_SEG_L : 0) | (k->db ? X86_SEG_DB : 0) | (k->g ? X86_SEG_G : 0));
}

/* L counts in long mode only, and KVM refuses it elsewhere, even what it gave itself. */
static void seg_to(struct kvm_segment *k, const struct x86_seg *from, bool lma)
{
    *k = (struct kvm_segment){
        .base = from->base,
        .limit = from->limit,
        .selector = from->sel,
        .type = from->attr & X86_SEG_TYPE,
        .s = (from->attr & X86_SEG_S) != 0,
        .dpl = (from->attr & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT,
        .present = (from->attr & X86_SEG_P) != 0,
        .avl = (from->attr & X86_SEG_AVL) != 0,
        .l = lma && (from->attr & X86_SEG_L) != 0,
        .db = (from->attr & X86_SEG_DB) != 0,
        .g = (from->attr & X86_SEG_G) != 0,
        .unusable = !(from->attr & X86_SEG_P),
    };
}

/* Where struct kvm_regs has the general registers, in encoding order. */
static __u64 *gpr(struct kvm_regs *r, unsigned i)
{
    __u64 *const at[16] = {&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi,
                           &r->r8,  &r->r9,  &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15};
    return at[i];
}

/* Where struct kvm_sregs2 has the segments, in encoding order. */
static struct kvm_segment *segment(struct kvm_sregs2 *r, unsigned i)
{
    struct kvm_segment *const at[X86_NSEG] = {&r->es, &r->cs, &r->ss, &r->ds, &r->fs, &r->gs};
    return at[i];
}

int kvm_put_tsc_offset(struct kvm_cpu *c)
{
    u64 offset = c->s.tsc_offset;
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (u64)(uintptr_t)&offset};

    return kvm_ioctl(c->fd, KVM_SET_DEVICE_ATTR, &attr);
}

/* --- from KVM --- */

int kvm_fetch_sregs(struct kvm_cpu *c)
{
    struct x86_vcpu_state *s = &c->s;
    struct kvm_sregs2 r;
    int err = kvm_ioctl(c->fd, KVM_GET_SREGS2, &r);

    if (err)
        return err;
    for (unsigned i = 0; i < X86_NSEG; i++)
        seg_from(&s->seg[i], segment(&r, i));
    seg_from(&s->ldtr, &r.ldt);
    seg_from(&s->tr, &r.tr);
    s->gdtr = (struct x86_dtr){.base = r.gdt.base, .limit = r.gdt.limit};
    s->idtr = (struct x86_dtr){.base = r.idt.base, .limit = r.idt.limit};
    s->cr0 = r.cr0;
    s->cr2 = r.cr2;
    s->cr3 = r.cr3;
    s->cr4 = r.cr4;
    s->efer = r.efer;
    c->cr8 = r.cr8;
    c->apic_base = r.apic_base;
    memset(s->pdpte, 0, sizeof(s->pdpte));
    if (r.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
        memcpy(s->pdpte, r.pdptrs, sizeof(s->pdpte));
    s->cpl = !(s->cr0 & CR0_PE)      ? 0
             : s->rflags & RFLAGS_VM ? 3
                                     : (s->seg[X86_SS].attr & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
    return 0;
}

static int fetch_events(struct kvm_cpu *c)
{
    struct x86_vcpu_state *s = &c->s;
    struct kvm_vcpu_events e;
    int err = kvm_ioctl(c->fd, KVM_GET_VCPU_EVENTS, &e);

    if (err)
        return err;
    s->int_shadow = (e.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? 1 : 0) |
                    (e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2 : 0);
    s->nmi_blocked = e.nmi.masked != 0;
    s->nmi_pending = 0;
    x86_state_nmis(s, e.nmi.pending);
    s->db_pending = 0;
    s->ev_kind = X86_EV_NONE;
    s->ev_vector = s->ev_has_error = 0;
    s->ev_error = 0;
    if (e.exception.injected || e.exception.pending) {
        s->ev_kind = X86_EV_EXCEPTION;
        s->ev_vector = e.exception.nr;
        s->ev_has_error = e.exception.has_error_code;
        s->ev_error = e.exception.error_code;
    } else if (e.nmi.injected) {
        s->ev_kind = X86_EV_NMI;
        s->ev_vector = X86_NMI;
    } else if (e.interrupt.injected && !e.interrupt.soft) {
        s->ev_kind = X86_EV_EXTERNAL;
        s->ev_vector = e.interrupt.nr;
    }
    return 0;
}

/* KVM knows more states than we do: those between INIT and SIPI are one. */
static int fetch_activity(struct kvm_cpu *c)
{
    struct kvm_mp_state mp;
    int err = kvm_ioctl(c->fd, KVM_GET_MP_STATE, &mp);

    if (err || c->s.activity == X86_SHUTDOWN)
        return err;
    c->s.activity = mp.mp_state == KVM_MP_STATE_RUNNABLE ? X86_RUNNING
                    : mp.mp_state == KVM_MP_STATE_HALTED ? X86_HALTED
                                                         : X86_WAIT_SIPI;
    return 0;
}

static int read_msrs(struct kvm_cpu *c, struct kvm_msr_values *l)
{
    int r;

    l->nmsrs = c->m->nhw_msrs;
    for (unsigned i = 0; i < c->m->nhw_msrs; i++)
        l->entry[i].index = c->m->hw_msr[i];
    r = kvm_ioctl(c->fd, KVM_GET_MSRS, l);
    return r == (int)c->m->nhw_msrs ? 0 : r < 0 ? r : -EIO;
}

static int fetch_msrs(struct kvm_cpu *c)
{
    struct kvm_msr_values l = {0};
    int err = read_msrs(c, &l);

    for (unsigned i = 0; !err && i < c->m->nhw_msrs; i++)
        *msr_field(&c->s, l.entry[i].index) = l.entry[i].data;
    return err;
}

/* The CPU model has no component that begins beyond X86_XSAVE_SIZE (tile data): what is there is in
 * its initial state and need not be kept. */
static int fetch_xsave(struct kvm_cpu *c)
{
    int err;

    if (!c->xsave)
        return kvm_ioctl(c->fd, KVM_GET_XSAVE, c->s.xsave);
    err = kvm_ioctl(c->fd, KVM_GET_XSAVE2, c->xsave);
    if (!err)
        memcpy(c->s.xsave, c->xsave, sizeof(c->s.xsave));
    return err;
}

int kvm_fetch_state(struct kvm_cpu *c)
{
    struct x86_vcpu_state *s = &c->s;
    struct kvm_regs regs;
    struct kvm_debugregs dr;
    struct kvm_xcrs x;
    /* First: it lets what INIT and SIPI do happen. */
    int err = fetch_activity(c);

    /* Before registers: of an exception that is not injected yet KVM sets CR2 and DR6 now
     * (kvm_deliver_exception_payload). */
    if (!err)
        err = fetch_events(c);
    if (!err)
        err = kvm_ioctl(c->fd, KVM_GET_REGS, &regs);
    if (!err) {
        for (unsigned i = 0; i < 16; i++)
            s->gpr[i] = *gpr(&regs, i);
        s->rip = regs.rip;
        s->rflags = regs.rflags;
        err = kvm_fetch_sregs(c);
    }
    if (!err)
        err = fetch_msrs(c);
    if (!err)
        err = kvm_ioctl(c->fd, KVM_GET_DEBUGREGS, &dr);
    if (!err) {
        memcpy(s->dr, dr.db, sizeof(s->dr));
        /* KVM keeps, and the CPU too, what belongs to transactions and bus locks (SDM 3B 17.2),
         * which no guest of ours is shown. */
        s->dr6 = (dr.dr6 & DR6_EVENTS) | DR6_INIT;
        s->dr7 = (dr.dr7 & DR7_KNOWN) | DR7_INIT;
        err = fetch_xsave(c);
    }
    if (!err && c->m->vm->cpu_model.xcr0_valid) {
        err = kvm_ioctl(c->fd, KVM_GET_XCRS, &x);
        for (unsigned i = 0; !err && i < x.nr_xcrs; i++)
            if (x.xcrs[i].xcr == 0)
                s->xcr0 = x.xcrs[i].value;
    }
    return err;
}

/* --- to KVM --- */

static int put_sregs(struct kvm_cpu *c)
{
    const struct x86_vcpu_state *s = &c->s;
    struct kvm_sregs2 r = {
        .gdt = {.base = s->gdtr.base, .limit = (u16)s->gdtr.limit},
        .idt = {.base = s->idtr.base, .limit = (u16)s->idtr.limit},
        .cr0 = s->cr0,
        .cr2 = s->cr2,
        .cr3 = s->cr3,
        .cr4 = s->cr4,
        .efer = s->efer,
        .cr8 = c->cr8,
        .apic_base = c->apic_base,
    };

    for (unsigned i = 0; i < X86_NSEG; i++)
        seg_to(segment(&r, i), &s->seg[i], x86_long_mode(s));
    seg_to(&r.ldt, &s->ldtr, x86_long_mode(s));
    seg_to(&r.tr, &s->tr, x86_long_mode(s));
    if (x86_pae_paging(s->cr0, s->cr4, s->efer)) {
        r.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        memcpy(r.pdptrs, s->pdpte, sizeof(s->pdpte));
    }
    return kvm_ioctl(c->fd, KVM_SET_SREGS2, &r);
}

static int put_events(struct kvm_cpu *c, bool nmis)
{
    const struct x86_vcpu_state *s = &c->s;
    struct kvm_vcpu_events e = {
        .flags = KVM_VCPUEVENT_VALID_SHADOW | (nmis ? KVM_VCPUEVENT_VALID_NMI_PENDING : 0),
        .interrupt.shadow = (s->int_shadow & 1 ? KVM_X86_SHADOW_INT_STI : 0) |
                            (s->int_shadow & 2 ? KVM_X86_SHADOW_INT_MOV_SS : 0),
        .nmi.masked = s->nmi_blocked,
        .nmi.pending = s->nmi_pending,
    };

    if (s->ev_kind == X86_EV_NMI) {
        e.nmi.injected = 1;
    } else if (s->ev_kind == X86_EV_EXCEPTION) {
        e.exception.injected = 1;
        e.exception.nr = s->ev_vector;
        e.exception.has_error_code = s->ev_has_error;
        e.exception.error_code = s->ev_error;
    } else if (s->ev_kind == X86_EV_EXTERNAL) {
        e.interrupt.injected = 1;
        e.interrupt.nr = s->ev_vector;
    } else if (s->db_pending) {
        e.exception.injected = 1;
        e.exception.nr = X86_DB;
    }
    return kvm_ioctl(c->fd, KVM_SET_VCPU_EVENTS, &e);
}

/* A vCPU that waits for its SIPI takes one without an INIT, too, as with the other engines. One
 * that shut down is never run again. */
static int put_activity(struct kvm_cpu *c)
{
    struct kvm_mp_state mp = {.mp_state = c->s.activity == X86_HALTED ? KVM_MP_STATE_HALTED
                                          : c->s.activity == X86_WAIT_SIPI
                                              ? KVM_MP_STATE_INIT_RECEIVED
                                              : KVM_MP_STATE_RUNNABLE};

    return kvm_ioctl(c->fd, KVM_SET_MP_STATE, &mp);
}

/*
 * KVM_INTERRUPT would leave the vector where nobody can read it back until the vCPU has run again,
 * and the 8259 has been told that it was taken.
 */
int kvm_put_extint(struct kvm_cpu *c, u8 vector)
{
    struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};
    struct kvm_vcpu_events e;
    int err = kvm_ioctl(c->fd, KVM_GET_VCPU_EVENTS, &e);

    if (err)
        return err;
    /* The rest as it was; an NMI that comes meanwhile is not to be lost. */
    e.flags = 0;
    e.interrupt.injected = 1;
    e.interrupt.nr = vector;
    e.interrupt.soft = 0;
    err = kvm_ioctl(c->fd, KVM_SET_VCPU_EVENTS, &e);
    return err ? err : kvm_ioctl(c->fd, KVM_SET_MP_STATE, &runnable);
}

/* Only what differs: KVM writes a line into the host's log for registers it has without effect. */
static int put_msrs(struct kvm_cpu *c)
{
    struct kvm_msr_values l = {0};
    int err = read_msrs(c, &l), r;
    unsigned n = 0;

    if (err)
        return err;
    for (unsigned i = 0; i < c->m->nhw_msrs; i++) {
        u64 val = *msr_field(&c->s, l.entry[i].index);

        if (l.entry[i].data == val)
            continue;
        l.entry[n].index = l.entry[i].index;
        l.entry[n++].data = val;
    }
    l.nmsrs = n;
    r = n ? kvm_ioctl(c->fd, KVM_SET_MSRS, &l) : 0;
    return r == (int)n ? 0 : r < 0 ? r : -EINVAL;
}

/*
 * XSAVE stores MXCSR also of an SSE state that is else in its initial configuration (SDM 1 13.7),
 * and XRSTOR loads it. KVM does not take it without the state's bit (copy_uabi_to_xstate).
 */
static void show_mxcsr(u8 *image)
{
    u32 mxcsr;
    u64 bv;

    memcpy(&mxcsr, image + XSAVE_MXCSR, sizeof(mxcsr));
    memcpy(&bv, image + XSAVE_BV, sizeof(bv));
    if ((bv & XSAVE_SSE) || mxcsr == MXCSR_RESET)
        return;
    memset(image + XSAVE_XMM, 0, XSAVE_XMM_SIZE);
    bv |= XSAVE_SSE;
    memcpy(image + XSAVE_BV, &bv, sizeof(bv));
}

/* KVM reads as much as KVM_CAP_XSAVE2 says. */
static int put_xsave(struct kvm_cpu *c)
{
    show_mxcsr(c->s.xsave);
    if (!c->xsave)
        return kvm_ioctl(c->fd, KVM_SET_XSAVE, c->s.xsave);
    memcpy(c->xsave, c->s.xsave, sizeof(c->s.xsave));
    return kvm_ioctl(c->fd, KVM_SET_XSAVE, c->xsave);
}

static int put_state(struct kvm_cpu *c, bool nmis)
{
    struct x86_vcpu_state *s = &c->s;
    struct kvm_regs regs = {.rip = s->rip, .rflags = s->rflags};
    struct kvm_debugregs dr = {.dr6 = s->dr6, .dr7 = s->dr7};
    struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = s->xcr0}}};
    int err = put_sregs(c);

    for (unsigned i = 0; i < 16; i++)
        *gpr(&regs, i) = s->gpr[i];
    memcpy(dr.db, s->dr, sizeof(s->dr));
    if (!err)
        err = kvm_ioctl(c->fd, KVM_SET_REGS, &regs);
    if (!err && c->m->vm->cpu_model.xcr0_valid)
        err = kvm_ioctl(c->fd, KVM_SET_XCRS, &x);
    if (!err)
        err = put_xsave(c);
    if (!err)
        err = kvm_ioctl(c->fd, KVM_SET_DEBUGREGS, &dr);
    if (!err)
        err = put_msrs(c);
    if (!err)
        err = kvm_put_tsc_offset(c);
    if (!err)
        err = put_activity(c);
    /* Last: SET_REGS forgets a pending exception. */
    if (!err)
        err = put_events(c, nmis);
    /* What KVM last said is stale: it is asked again. */
    c->run->ready_for_interrupt_injection = 0;
    c->irq_maybe = true;
    return err;
}

int kvm_put_state(struct kvm_cpu *c)
{
    return put_state(c, true);
}

int kvm_put_back(struct kvm_cpu *c)
{
    return put_state(c, false);
}
