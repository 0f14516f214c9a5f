/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC beside an engine that has its own (engine.h, struct engine_apic_ops). Its
 * registers are here only while the VM is paused: then this APIC takes what devices send, and is
 * what is saved. What remains otherwise are the two pins and the 8259 behind them.
 */
#include "dev/chipset/lapic_priv.h"

static u64 guest_tsc(const struct lapic *l)
{
    return l->set->vm->tsc_stopped + vcpu_tsc_offset(l->v);
}

/* Counts of the timer until its deadline, rounded up. */
static u32 count_left(const struct lapic *l)
{
    u64 now = vm_clock_ns(l->set->vm), one = lapic_timer_count_ns(l);
    u64 n = l->timer.deadline > now ? (l->timer.deadline - now + one - 1) / one : 0;
    return n < l->timer_init ? (u32)n : l->timer_init;
}

/* Count 0 is a timer that is due: one that has fired for good shows no initial count, either. A
 * periodic one is never found between two counts. */
static void get_count(const struct lapic *l, struct vcpu_apic *to)
{
    bool periodic = LVT_TIMER_MODE(l->lvt[LVT_TIMER]) == TIMER_PERIODIC;

    if (!l->timer.armed)
        return;
    to->reg[APIC_TIMER_INIT] = l->timer_init;
    to->reg[APIC_TIMER_CURRENT] = count_left(l);
    if (periodic && !to->reg[APIC_TIMER_CURRENT])
        to->reg[APIC_TIMER_CURRENT] = 1;
}

/* The timer goes with them. */
static void get_regs(void *opaque, struct vcpu_apic *to)
{
    struct lapic *l = opaque;
    bool x2 = lapic_x2(l);

    *to = (struct vcpu_apic){.base = l->base, .tsc_deadline = l->tsc_deadline};
    to->reg[APIC_ID] = x2 ? l->id : l->id << 24;
    to->reg[APIC_TPR] = l->tpr;
    to->reg[APIC_PPR] = lapic_ppr(l);
    to->reg[APIC_LDR] = x2 ? lapic_x2_ldr(l) : l->ldr;
    to->reg[APIC_DFR] = l->dfr;
    to->reg[APIC_SVR] = l->svr;
    to->reg[APIC_ESR] = l->esr;
    to->reg[APIC_ICR] = (u32)l->icr;
    to->reg[APIC_ICR2] = (u32)(l->icr >> 32);
    for (unsigned i = 0; i < 8; i++) {
        to->reg[APIC_ISR + i] = l->isr[i];
        to->reg[APIC_TMR + i] = apic_get(&l->tmr[i]);
        to->reg[APIC_IRR + i] = apic_get(&l->irr[i]);
    }
    for (unsigned i = 0; i < LVT_N; i++)
        to->reg[APIC_LVT_TIMER + i] = l->lvt[i];
    to->reg[APIC_TIMER_DIVIDE] = l->timer_divide;
    if (LVT_TIMER_MODE(l->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE)
        get_count(l, to);
    vtimer_cancel(&l->timer);
}

/* The timer as the engine left it. Whether a one-shot timer that stands at 0 has fired already, the
 * registers do not tell unless its interrupt is still there: once too often is better than never.
 */
static void set_timer(struct lapic *l, const struct vcpu_apic *from)
{
    u32 lvt = l->lvt[LVT_TIMER], left = from->reg[APIC_TIMER_CURRENT];
    u64 now = vm_clock_ns(l->set->vm);
    bool there = l->irr[(lvt & 0xff) / 32] & BIT32(lvt & 31);

    vtimer_cancel(&l->timer);
    l->timer_init = from->reg[APIC_TIMER_INIT];
    l->timer_divide = from->reg[APIC_TIMER_DIVIDE] & 0xb;
    lapic_timer_set_period(l);
    l->tsc_deadline = 0;
    if (LVT_TIMER_MODE(lvt) == TIMER_TSC_DEADLINE) {
        l->tsc_deadline = from->tsc_deadline;
        if (l->tsc_deadline)
            lapic_timer_arm_deadline(l, guest_tsc(l));
    } else if (l->timer_init && (left || LVT_TIMER_MODE(lvt) == TIMER_PERIODIC || !there)) {
        vtimer_set(&l->timer, now + left * lapic_timer_count_ns(l));
    }
}

/* Only what this APIC's registers can hold (lapic_state.c checks it): KVM's have more bits. */
static void set_regs(void *opaque, const struct vcpu_apic *from)
{
    struct lapic *l = opaque;

    /* Which processor is the boot processor no guest can change, but in KVM's register. */
    l->base = (from->base & ~APIC_BASE_BSP) | (l->v->bsp ? APIC_BASE_BSP : 0);
    apic_put(&l->tpr, from->reg[APIC_TPR] & 0xff);
    apic_put(&l->ldr, from->reg[APIC_LDR] & 0xff000000u);
    apic_put(&l->dfr, from->reg[APIC_DFR] | 0x0fffffffu);
    apic_put(&l->svr, from->reg[APIC_SVR] & (SVR_FOCUS | SVR_ENABLE | 0xff));
    l->esr = from->reg[APIC_ESR] & 0xff;
    l->esr_pending = 0;
    l->icr = (from->reg[APIC_ICR] & 0x000ccfffu) | (u64)from->reg[APIC_ICR2] << 32;
    for (unsigned i = 0; i < 8; i++) {
        u32 valid = i ? ~0u : 0xffff0000u;

        l->isr[i] = from->reg[APIC_ISR + i] & valid;
        l->tmr[i] = from->reg[APIC_TMR + i] & valid;
        l->irr[i] = from->reg[APIC_IRR + i] & valid;
    }
    l->isr_high = lapic_highest_bit(l->isr);
    l->irr_any = 1;
    l->ioapic_ext = 0;
    for (unsigned i = 0; i < LVT_N; i++)
        l->lvt[i] = from->reg[APIC_LVT_TIMER + i] & lapic_lvt_writable[i];
    if (LVT_TIMER_MODE(l->lvt[LVT_TIMER]) == 3) /* reserved: does nothing in KVM */
        l->lvt[LVT_TIMER] &= ~(3u << 17);
    set_timer(l, from);
}

static int pending(void *opaque)
{
    const struct lapic *l = opaque;

    return __atomic_load_n(&l->set->intr_level, __ATOMIC_SEQ_CST) ? PENDING_EXTINT : -1;
}

static int ack(void *opaque)
{
    struct lapic *l = opaque;
    int vector = -1;

    vm_lock(l->set->vm);
    if (l->set->intr_level && l->set->ack)
        vector = l->set->ack(l->set->ack_opaque);
    vm_unlock(l->set->vm);
    return vector;
}

static void eoi(void *opaque, u8 vector)
{
    struct lapics *set = ((struct lapic *)opaque)->set;

    vm_lock(set->vm);
    if (set->eoi)
        set->eoi(set->eoi_opaque, vector);
    vm_unlock(set->vm);
}

const struct vcpu_irq_ops lapic_engine_ops = {
    .pending = pending,
    .ack = ack,
    .init = lapic_init,
    .get_regs = get_regs,
    .set_regs = set_regs,
    .eoi = eoi,
};

static bool is_message(u64 addr)
{
    return addr >> 20 == 0xfee;
}

void lapic_engine_msi(void *opaque, u64 addr, u32 data)
{
    struct lapics *set = opaque;
    unsigned mode = data >> 8 & 7;

    if (!is_message(addr))
        return;
    if (set->vm->apics_in_engine)
        set->vm->engine->apic->msi(set->vm, addr, data);
    else if (mode == DM_FIXED || mode == DM_LOWEST || mode == DM_NMI)
        lapic_msi(set, addr, data); /* INIT would be the engine's, too: a device has no business */
}

void lapic_engine_announce(void *opaque, unsigned pin, u64 addr, u32 data)
{
    struct lapics *set = opaque;

    set->vm->engine->apic->pin(set->vm, pin, addr, data);
}

struct irqfd *lapic_engine_get_irqfd(void *opaque)
{
    struct lapics *set = opaque;

    return set->vm->engine->apic->get_irqfd(set->vm);
}

void lapic_engine_put_irqfd(void *opaque, struct irqfd *e)
{
    struct lapics *set = opaque;

    set->vm->engine->apic->put_irqfd(set->vm, e);
}

/* What is no message comes to lapic_engine_msi, which drops it. */
void lapic_engine_route(void *opaque, struct irqfd *e, bool on, u64 addr, u32 data)
{
    struct lapics *set = opaque;

    set->vm->engine->apic->route(set->vm, e, on && is_message(addr), addr, data);
}

/* Whether LINT0 takes it, the engine knows. */
void lapic_engine_intr(void *opaque, unsigned n, bool level)
{
    struct lapics *set = opaque;

    (void)n;
    __atomic_store_n(&set->intr_level, level, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; level && i < set->n; i++)
        vcpu_post(set->apic[i].v, VCPU_EV_IRQ);
}

/* LINT1 likewise. */
void lapic_engine_nmi(void *opaque, unsigned n, bool level)
{
    struct lapics *set = opaque;
    bool rising = level && !set->nmi_level;

    (void)n;
    set->nmi_level = level;
    for (unsigned i = 0; rising && i < set->n; i++)
        vcpu_post_nmi(set->apic[i].v);
}
