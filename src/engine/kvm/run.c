/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop of a vCPU. The interrupt controllers are the board's, so KVM asks for nothing: it is
 * given a vector (KVM_INTERRUPT) when it can take one, and is asked to stop when it can
 * (request_interrupt_window). Linux Documentation/virt/kvm/api.rst, section 5.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/kvm/kvm_priv.h"

bool kvm_signal(void *opaque, struct host_signal *sig)
{
    struct kvm_cpu *c = opaque;

    if (sig->kind == HOST_SIGNAL_FAULT)
        return interp_native_signal(&c->interp, sig->rip, sig->trapno);
    /* On the vCPU's thread: KVM_RUN is interrupted by the signal, or not yet begun and then returns
     * at once. */
    __atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    return true;
}

static bool unsupported(struct engine_exit *exit, const char *what, u64 a, u64 b)
{
    exit->kind = ENGINE_EXIT_UNSUPPORTED;
    snprintf(exit->text, sizeof(exit->text), "engine kvm: %s (%#llx, %#llx)", what,
             (unsigned long long)a, (unsigned long long)b);
    return false;
}

static bool failed(struct engine_exit *exit, const char *what, int err)
{
    exit->kind = ENGINE_EXIT_UNSUPPORTED;
    snprintf(exit->text, sizeof(exit->text), "engine kvm: %s: %s", what, strerror(-err));
    return false;
}

/* --- memory that is none --- */

static bool natural(unsigned len)
{
    return len == 1 || len == 2 || len == 4 || len == 8;
}

u64 kvm_mmio_read(struct kvm_cpu *c, u64 a, unsigned len)
{
    u64 val = 0;

    if (natural(len))
        return vcpu_mmio_read(c->v, a, len);
    for (unsigned i = 0; i < len; i++)
        val |= (vcpu_mmio_read(c->v, a + i, 1) & 0xff) << (8 * i);
    return val;
}

void kvm_mmio_write(struct kvm_cpu *c, u64 a, unsigned len, u64 val)
{
    if (guest_mem_slot(&c->m->vm->mem, gpa(a)))
        return; /* ROM */
    if (natural(len)) {
        vcpu_mmio_write(c->v, a, len, val);
        return;
    }
    for (unsigned i = 0; i < len; i++)
        vcpu_mmio_write(c->v, a + i, 1, val >> (8 * i) & 0xff);
}

/* --- before the guest runs --- */

/* Halted with NMIs blocked: KVM would let the vCPU go on after the HLT. */
static bool nmi_waits(struct kvm_cpu *c)
{
    struct kvm_vcpu_events e;

    return c->s.activity == X86_HALTED && !kvm_ioctl(c->fd, KVM_GET_VCPU_EVENTS, &e) &&
           e.nmi.masked;
}

static int inject(struct kvm_cpu *c)
{
    const struct vcpu_irq_ops *irq = c->v->irq;
    struct kvm_run *run = c->run;

    if (c->nmi && !nmi_waits(c)) {
        int err = kvm_ioctl_int(c->fd, KVM_NMI, 0);

        if (err)
            return err;
        c->nmi = false;
        c->s.activity = X86_RUNNING;
    }
    run->request_interrupt_window = 0;
    if (!c->irq_maybe || !irq)
        return 0;
    if (irq->pending(c->v->irq_opaque) < 0) {
        c->irq_maybe = false;
        return 0;
    }
    if (run->ready_for_interrupt_injection && run->if_flag) {
        struct kvm_interrupt i;
        int vector = irq->ack(c->v->irq_opaque), err;

        if (vector >= 0) {
            i.irq = (u32)vector;
            err = kvm_ioctl(c->fd, KVM_INTERRUPT, &i);
            if (err)
                return err;
            run->ready_for_interrupt_injection = 0;
            c->stats.interrupts++;
            c->s.activity = X86_RUNNING;
        }
        if (irq->pending(c->v->irq_opaque) < 0) {
            c->irq_maybe = false;
            return 0;
        }
    }
    run->request_interrupt_window = 1;
    return 0;
}

/* Events, interrupts. false: leave run with *exit filled. */
static bool look(struct kvm_cpu *c, struct engine_exit *exit)
{
    u32 ev = __atomic_load_n(&c->v->events, __ATOMIC_SEQ_CST);
    int err;

    if (ev & (VCPU_EV_STOP | VCPU_EV_INIT | VCPU_EV_SIPI)) {
        exit->kind = ENGINE_EXIT_KICKED;
        return false;
    }
    if (ev) {
        __atomic_fetch_and(&c->v->events, ~(VCPU_EV_NMI | VCPU_EV_IRQ | VCPU_EV_WORK),
                           __ATOMIC_SEQ_CST);
        c->nmi |= (ev & VCPU_EV_NMI) != 0;
        c->irq_maybe |= (ev & VCPU_EV_IRQ) != 0;
    }
    if (c->s.activity == X86_SHUTDOWN) {
        exit->kind = ENGINE_EXIT_SHUTDOWN;
        return false;
    }
    c->look = false;
    err = kvm_put_apic_on(c);
    if (!err)
        err = inject(c);
    if (err)
        return failed(exit, "an interrupt cannot be injected", err);
    if (c->s.activity == X86_HALTED) {
        exit->kind = ENGINE_EXIT_HLT;
        return false;
    }
    return true;
}

/* --- exits --- */

static void port_io(struct kvm_cpu *c)
{
    struct kvm_run *run = c->run;
    u8 *data = (u8 *)run + run->io.data_offset;

    for (u32 i = 0; i < run->io.count; i++, data += run->io.size) {
        u32 val = 0;

        if (run->io.direction == KVM_EXIT_IO_IN) {
            val = vm_pio_read(c->m->vm, run->io.port, run->io.size);
            memcpy(data, &val, run->io.size);
        } else {
            memcpy(&val, data, run->io.size);
            vm_pio_write(c->m->vm, run->io.port, run->io.size, val);
        }
    }
}

static void mmio(struct kvm_cpu *c)
{
    struct kvm_run *run = c->run;
    u64 val = 0;

    if (run->mmio.is_write) {
        memcpy(&val, run->mmio.data, sizeof(val));
        kvm_mmio_write(c, run->mmio.phys_addr, run->mmio.len, val);
    } else {
        val = kvm_mmio_read(c, run->mmio.phys_addr, run->mmio.len);
        memcpy(run->mmio.data, &val, sizeof(val));
    }
}

static void msr(struct kvm_cpu *c)
{
    struct kvm_run *run = c->run;
    u64 val = run->msr.data;
    int r;

    if (run->exit_reason == KVM_EXIT_X86_RDMSR) {
        r = kvm_rdmsr(c, run->msr.index, &val);
        run->msr.data = val;
    } else {
        r = kvm_wrmsr(c, run->msr.index, val);
        c->look |= run->msr.index == MSR_APIC_BASE;
    }
    run->msr.error = r != 0;
}

static bool internal_error(struct kvm_cpu *c, struct engine_exit *exit)
{
    struct kvm_run *run = c->run;

    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
        return kvm_interp_one(c, exit);
    return unsupported(exit, "internal error of KVM", run->internal.suberror,
                       run->internal.ndata ? run->internal.data[0] : 0);
}

/* What KVM stopped for. true: go on. */
static bool handle(struct kvm_cpu *c, struct engine_exit *exit)
{
    struct kvm_run *run = c->run;

    c->stats.exits++;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        c->stats.port_io++;
        port_io(c);
        c->incomplete = true;
        return true;
    case KVM_EXIT_MMIO:
        c->stats.mmio++;
        mmio(c);
        c->incomplete = true;
        return true;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        c->stats.msrs++;
        msr(c);
        c->incomplete = true;
        return true;
    case KVM_EXIT_HLT:
        c->stats.halts++;
        c->s.activity = X86_HALTED;
        return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        c->stats.windows++;
        return true;
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_INTR:
        return true;
    case KVM_EXIT_SHUTDOWN:
        c->s.activity = X86_SHUTDOWN;
        exit->kind = ENGINE_EXIT_SHUTDOWN;
        snprintf(exit->text, sizeof(exit->text),
                 "triple fault, as the CPU tells (on AMD CPUs the registers are lost with it)");
        return false;
    case KVM_EXIT_FAIL_ENTRY:
        return unsupported(exit, "the CPU refuses the guest's state",
                           run->fail_entry.hardware_entry_failure_reason, run->fail_entry.cpu);
    case KVM_EXIT_INTERNAL_ERROR:
        return internal_error(c, exit);
    default:
        return unsupported(exit, "KVM stopped for a reason this version does not know",
                           run->exit_reason, run->hw.hardware_exit_reason);
    }
}

/* 0: *run has the reason; -EINTR: none, and nothing is incomplete any more. */
static int enter(struct kvm_cpu *c)
{
    const struct vcpu_irq_ops *irq = c->v->irq;
    u64 cr8 = irq ? irq->get_tpr(c->v->irq_opaque) : 0;
    int r;

    c->run->cr8 = cr8;
    r = kvm_ioctl_int(c->fd, KVM_RUN, 0);
    c->incomplete = false;
    if (irq && c->run->cr8 != cr8) {
        irq->set_tpr(c->v->irq_opaque, c->run->cr8);
        c->irq_maybe = true;
    }
    return r;
}

static bool something_to_look_at(struct kvm_cpu *c)
{
    return __atomic_load_n(&c->v->events, __ATOMIC_SEQ_CST) || c->irq_maybe || c->nmi || c->look;
}

void kvm_engine_run(struct vcpu *v, struct engine_exit *exit)
{
    struct kvm_cpu *c = v->engine_vcpu;

    exit->text[0] = 0;
    if (!c->thread) {
        int err = host_vcpu_attach(kvm_signal, c);

        if (err) {
            failed(exit, "no signal stack for the vCPU thread", err);
            return;
        }
        c->thread = host_thread_self();
    }
    __atomic_store_n(&c->running, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        int r;

        /* Who kicks has set the event before: it is seen below, or the signal comes after this. */
        __atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        if (!c->incomplete) {
            if (!look(c, exit))
                break;
        } else if (something_to_look_at(c)) {
            c->run->immediate_exit = 1; /* only finishes the instruction */
        }
        r = enter(c);
        if (r == -EINTR || r == -EAGAIN)
            continue;
        if (r) {
            failed(exit, "KVM_RUN", r);
            break;
        }
        if (!handle(c, exit))
            break;
    }
    __atomic_store_n(&c->running, 0, __ATOMIC_SEQ_CST);
}
