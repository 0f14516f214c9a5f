/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APICs, which are KVM's (KVM_CAP_SPLIT_IRQCHIP): messages to them, and their registers
 * on the way to the device and back. Linux Documentation/virt/kvm/api.rst, KVM_GET_LAPIC,
 * KVM_SIGNAL_MSI.
 */
#include <errno.h>
#include <string.h>

#include "engine/kvm/kvm_priv.h"
#include "x86/msr.h"

static void msi(struct vm *vm, u64 addr, u32 data)
{
    struct kvm_machine *m = vm->engine_vm;
    struct kvm_msi msg = {.address_lo = (u32)addr, .address_hi = (u32)(addr >> 32), .data = data};

    m->msi_calls++;
    /* Nobody there to take it is an error, too: what the guest wrote is the guest's. */
    kvm_ioctl(m->fd, KVM_SIGNAL_MSI, &msg);
}

/* --- registers --- */

static int one_msr(struct kvm_cpu *c, unsigned long request, u32 msr, u64 *val)
{
    struct kvm_msr_values l = {.nmsrs = 1, .entry[0] = {.index = msr, .data = *val}};
    int r = kvm_ioctl(c->fd, request, &l);

    *val = l.entry[0].data;
    return r == 1 ? 0 : r < 0 ? r : -EIO;
}

static u32 get_reg(const struct kvm_lapic_state *l, unsigned n)
{
    u32 val;

    memcpy(&val, l->regs + 16 * n, sizeof(val));
    return val;
}

static int give_one(struct kvm_cpu *c)
{
    struct kvm_lapic_state l;
    struct kvm_mp_state mp;
    struct vcpu_apic a = {0};
    /* It lets an INIT happen, which the registers are to be those after. */
    int err = kvm_ioctl(c->fd, KVM_GET_MP_STATE, &mp);

    if (!err)
        err = kvm_ioctl(c->fd, KVM_GET_LAPIC, &l);
    if (!err)
        err = one_msr(c, KVM_GET_MSRS, MSR_APIC_BASE, &a.base);
    if (!err)
        err = one_msr(c, KVM_GET_MSRS, MSR_TSC_DEADLINE, &a.tsc_deadline);
    if (err)
        return err;
    for (unsigned i = 0; i < APIC_REGS; i++)
        a.reg[i] = get_reg(&l, i);
    c->v->irq->set_regs(c->v->irq_opaque, &a);
    return 0;
}

/* The mode comes first: what KVM takes for registers depends on it. The TSC deadline is last: its
 * timer is in the mode the registers say. Each of them starts the timer anew, so that what has
 * expired meanwhile is forgotten. */
static int take_one(struct kvm_cpu *c)
{
    struct kvm_lapic_state l = {{0}};
    struct vcpu_apic a;
    int err;

    c->v->irq->get_regs(c->v->irq_opaque, &a);
    for (unsigned i = 0; i < APIC_REGS; i++)
        memcpy(l.regs + 16 * i, &a.reg[i], sizeof(a.reg[i]));
    err = one_msr(c, KVM_SET_MSRS, MSR_APIC_BASE, &a.base);
    if (!err)
        err = kvm_ioctl(c->fd, KVM_SET_LAPIC, &l);
    if (!err)
        err = one_msr(c, KVM_SET_MSRS, MSR_TSC_DEADLINE, &a.tsc_deadline);
    return err;
}

/* Without an interrupt controller (freestanding tests of an engine) there is nothing to move. */
static int each(struct vm *vm, int (*fn)(struct kvm_cpu *c))
{
    struct kvm_machine *m = vm->engine_vm;
    int err = 0;

    for (unsigned i = 0; i < m->ncpus && !err; i++)
        if (m->cpu[i]->v->irq)
            err = fn(m->cpu[i]);
    return err;
}

/* What irqfds have brought is in the registers then. */
static int give(struct vm *vm)
{
    kvm_irqfds_stop(vm->engine_vm);
    return each(vm, give_one);
}

static int take(struct vm *vm)
{
    int err = each(vm, take_one);

    if (!err)
        kvm_irqfds_start(vm->engine_vm);
    return err;
}

bool kvm_lint1_is_nmi(struct kvm_cpu *c)
{
    struct kvm_lapic_state l;
    u32 lint1;

    if (kvm_ioctl(c->fd, KVM_GET_LAPIC, &l))
        return false;
    lint1 = get_reg(&l, 0x36);
    return !(lint1 & BIT32(16)) && (lint1 >> 8 & 7) == 4; /* not masked, NMI (SDM 3A 10.5.1) */
}

const struct engine_apic_ops kvm_apic_ops = {.msi = msi,
                                             .pin = kvm_pin,
                                             .get_irqfd = kvm_get_irqfd,
                                             .put_irqfd = kvm_put_irqfd,
                                             .route = kvm_route,
                                             .give = give,
                                             .take = take};
