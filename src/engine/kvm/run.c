/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop of a vCPU. The local APIC is KVM's, and with it are halts, INIT and SIPI: what comes
 * here are accesses to devices, EOIs for the I/O APIC, and kicks. The 8259 is the board's: when it
 * has an interrupt, KVM is asked to stop once the vCPU can take it (request_interrupt_window).
 * Linux Documentation/virt/kvm/api.rst, section 5.
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

/* Whether the 8259's INTR reaches this vCPU. LINT0 KVM has looked at; without an APIC it is the
 * boot processor's own pin (SDM 3A 10.4.3). */
static bool has_intr(const struct kvm_cpu *c)
{
    return c->v->bsp || (c->run->apic_base & KVM_APIC_BASE_EN);
}

static int inject(struct kvm_cpu *c)
{
    const struct vcpu_irq_ops *irq = c->v->irq;
    struct kvm_run *run = c->run;

    run->request_interrupt_window = 0;
    if (!c->irq_maybe)
        return 0;
    if (!irq || !has_intr(c) || irq->pending(c->v->irq_opaque) < 0) {
        c->irq_maybe = false;
        return 0;
    }
    if (run->ready_for_interrupt_injection) {
        int vector = irq->ack(c->v->irq_opaque), err;

        if (vector >= 0) {
            err = kvm_put_extint(c, (u8)vector);
            if (err)
                return err;
            run->ready_for_interrupt_injection = 0;
            c->stats.interrupts++;
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
    const u32 ours = VCPU_EV_NMIS | VCPU_EV_IRQ | VCPU_EV_WORK;
    u32 ev = __atomic_load_n(&c->v->events, __ATOMIC_SEQ_CST);
    int err = 0;

    if (ev & VCPU_EV_STOP) {
        exit->kind = ENGINE_EXIT_KICKED;
        return false;
    }
    if (ev) {
        ev = __atomic_fetch_and(&c->v->events, ~ours, __ATOMIC_SEQ_CST);
        c->irq_maybe |= (ev & VCPU_EV_IRQ) != 0;
    }
    if (c->s.activity == X86_SHUTDOWN) {
        exit->kind = ENGINE_EXIT_SHUTDOWN;
        return false;
    }
    if ((ev & VCPU_EV_NMIS) && kvm_lint1_is_nmi(c))
        for (unsigned i = 0; i < vcpu_nmis(ev) && !err; i++)
            err = kvm_ioctl_int(c->fd, KVM_NMI, 0);
    if (!err)
        err = inject(c);
    return err ? failed(exit, "an interrupt cannot be injected", err) : true;
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
    case KVM_EXIT_IOAPIC_EOI:
        c->stats.eois++;
        if (c->v->irq)
            c->v->irq->eoi(c->v->irq_opaque, run->eoi.vector);
        return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        c->stats.windows++;
        return true;
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

static bool something_to_look_at(struct kvm_cpu *c)
{
    return __atomic_load_n(&c->v->events, __ATOMIC_SEQ_CST) || c->irq_maybe;
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
        r = kvm_ioctl_int(c->fd, KVM_RUN, 0);
        /* -EINTR: nothing has happened, and nothing is incomplete any more. */
        c->incomplete = false;
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
