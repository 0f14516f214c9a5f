/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC: accepting, prioritising and sending interrupts (SDM 3A 10.6 to 10.8). */
#include "dev/chipset/lapic_priv.h"

int lapic_highest_bit(const u32 *reg)
{
    for (int i = 7; i >= 0; i--) {
        u32 w = apic_get(&reg[i]);
        if (w)
            return i * 32 + 31 - __builtin_clz(w);
    }
    return -1;
}

static u32 bit_of(unsigned vector)
{
    return BIT32(vector & 31);
}

static bool globally_enabled(const struct lapic *l)
{
    return (apic_get(&l->base) & APIC_BASE_EN) != 0;
}

/* --- accepting ------------------------------------------------------------------------------ */

static void set_irr(struct lapic *l, u8 vector, bool level)
{
    if (level)
        __atomic_fetch_or(&l->tmr[vector / 32], bit_of(vector), __ATOMIC_SEQ_CST);
    else
        __atomic_fetch_and(&l->tmr[vector / 32], ~bit_of(vector), __ATOMIC_SEQ_CST);
    /* Order matters: highest_irr() clears irr_any before it looks again. */
    __atomic_fetch_or(&l->irr[vector / 32], bit_of(vector), __ATOMIC_SEQ_CST);
    __atomic_store_n(&l->irr_any, 1, __ATOMIC_SEQ_CST);
    vcpu_post(l->v, VCPU_EV_IRQ);
}

void lapic_error(struct lapic *l, u32 esr_bit)
{
    u32 lvt = apic_get(&l->lvt[LVT_ERROR]);

    __atomic_fetch_or(&l->esr_pending, esr_bit, __ATOMIC_SEQ_CST);
    if (lvt & LVT_MASKED || !(apic_get(&l->svr) & SVR_ENABLE))
        return;
    if ((lvt & 0xff) < 16) /* an error of its own: only recorded */
        __atomic_fetch_or(&l->esr_pending, ESR_RECV_ILLEGAL, __ATOMIC_SEQ_CST);
    else
        set_irr(l, (u8)lvt, false);
}

void lapic_accept(struct lapic *l, unsigned mode, u8 vector, bool level)
{
    switch (mode) {
    case DM_FIXED:
    case DM_LOWEST:
        if (!(apic_get(&l->svr) & SVR_ENABLE))
            break;
        if (vector < 16)
            lapic_error(l, ESR_RECV_ILLEGAL);
        else
            set_irr(l, vector, level);
        break;
    case DM_NMI:
        vcpu_post_nmi(l->v);
        break;
    case DM_INIT:
        /* A SIPI sent before this INIT is lost with it. */
        __atomic_fetch_and(&l->v->events, ~VCPU_EV_SIPI, __ATOMIC_SEQ_CST);
        vcpu_post(l->v, VCPU_EV_INIT);
        break;
    case DM_SIPI:
        apic_put(&l->v->sipi_vector, vector);
        vcpu_post(l->v, VCPU_EV_SIPI);
        break;
    case DM_EXTINT:
        __atomic_store_n(&l->ioapic_ext, 1, __ATOMIC_SEQ_CST);
        vcpu_post(l->v, VCPU_EV_IRQ);
        break;
    default: /* SMI: there is no system-management mode; reserved */
        break;
    }
}

void lapic_lvt_fire(struct lapic *l, unsigned row)
{
    u32 lvt = apic_get(&l->lvt[row]);

    if (lvt & LVT_MASKED || !globally_enabled(l))
        return;
    /* The timer and error rows have no delivery mode: fixed. */
    lapic_accept(l, row == LVT_TIMER || row == LVT_ERROR ? DM_FIXED : LVT_MODE(lvt), (u8)lvt,
                 false);
}

/* --- LINT pins ------------------------------------------------------------------------------- */

/* Does this vCPU take the 8259's INTR? Without an APIC it is the CPU's own pin (SDM 3A 10.4.3). */
static bool takes_extint(const struct lapic *l)
{
    u32 lvt = apic_get(&l->lvt[LVT_LINT0]);

    if (!globally_enabled(l))
        return l->v->bsp;
    return !(lvt & LVT_MASKED) && LVT_MODE(lvt) == DM_EXTINT;
}

static bool extint_ready(const struct lapic *l)
{
    return __atomic_load_n(&l->set->intr_level, __ATOMIC_SEQ_CST) &&
           (takes_extint(l) || __atomic_load_n(&l->ioapic_ext, __ATOMIC_SEQ_CST));
}

void lapic_set_intr(void *opaque, unsigned n, bool level)
{
    struct lapics *set = opaque;
    bool rising = level && !set->intr_level;

    (void)n;
    __atomic_store_n(&set->intr_level, level, __ATOMIC_SEQ_CST);
    if (!level)
        return;
    for (unsigned i = 0; i < set->n; i++) {
        struct lapic *l = &set->apic[i];
        u32 lvt = apic_get(&l->lvt[LVT_LINT0]);
        if (takes_extint(l))
            vcpu_post(l->v, VCPU_EV_IRQ);
        else if (rising && LVT_MODE(lvt) != DM_EXTINT)
            lapic_lvt_fire(l, LVT_LINT0);
    }
}

void lapic_set_nmi(void *opaque, unsigned n, bool level)
{
    struct lapics *set = opaque;
    bool rising = level && !set->nmi_level;

    (void)n;
    set->nmi_level = level;
    if (!rising)
        return;
    for (unsigned i = 0; i < set->n; i++) {
        struct lapic *l = &set->apic[i];
        if (!globally_enabled(l) && l->v->bsp)
            vcpu_post_nmi(l->v);
        else
            lapic_lvt_fire(l, LVT_LINT1);
    }
}

/* --- priorities: the vCPU's own thread only --------------------------------------------------- */

u8 lapic_ppr(const struct lapic *l)
{
    u8 isr = l->isr_high < 0 ? 0 : (u8)(l->isr_high & 0xf0);
    return (l->tpr & 0xf0) >= isr ? (u8)l->tpr : isr;
}

static int highest_irr(struct lapic *l)
{
    int vector;

    if (!__atomic_load_n(&l->irr_any, __ATOMIC_SEQ_CST))
        return -1;
    vector = lapic_highest_bit(l->irr);
    if (vector >= 0)
        return vector;
    __atomic_store_n(&l->irr_any, 0, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    vector = lapic_highest_bit(l->irr);
    if (vector >= 0)
        __atomic_store_n(&l->irr_any, 1, __ATOMIC_SEQ_CST);
    return vector;
}

static int deliverable(struct lapic *l)
{
    int vector = highest_irr(l);

    if (vector < 0 || !(l->svr & SVR_ENABLE) || (vector & 0xf0) <= (lapic_ppr(l) & 0xf0))
        return -1;
    return vector;
}

int lapic_pending(void *opaque)
{
    struct lapic *l = opaque;

    if (extint_ready(l))
        return PENDING_EXTINT;
    return deliverable(l);
}

int lapic_ack(void *opaque)
{
    struct lapic *l = opaque;
    int vector = -1;

    if (extint_ready(l)) {
        vm_lock(l->set->vm);
        if (extint_ready(l) && l->set->ack) {
            __atomic_store_n(&l->ioapic_ext, 0, __ATOMIC_SEQ_CST);
            vector = l->set->ack(l->set->ack_opaque);
        }
        vm_unlock(l->set->vm);
        if (vector >= 0)
            return vector;
    }
    vector = deliverable(l);
    if (vector < 0)
        return -1;
    __atomic_fetch_and(&l->irr[vector / 32], ~bit_of((unsigned)vector), __ATOMIC_SEQ_CST);
    l->isr[vector / 32] |= bit_of((unsigned)vector);
    l->isr_high = vector;
    return vector;
}

void lapic_recheck(struct lapic *l)
{
    if (lapic_pending(l) >= 0)
        vcpu_post(l->v, VCPU_EV_IRQ);
}

void lapic_eoi(struct lapic *l)
{
    struct lapics *set = l->set;
    int vector = l->isr_high;

    if (vector < 0)
        return;
    l->isr[vector / 32] &= ~bit_of((unsigned)vector);
    l->isr_high = lapic_highest_bit(l->isr);
    if (unlikely(apic_get(&l->tmr[vector / 32]) & bit_of((unsigned)vector)) && set->eoi) {
        vm_lock(set->vm);
        set->eoi(set->eoi_opaque, (u8)vector);
        vm_unlock(set->vm);
    }
    lapic_recheck(l);
}

/* --- messages ----------------------------------------------------------------------------------
 */

/*
 * Is l meant? wide: a 32-bit destination as x2APIC has; else 8 bits. An APIC in x2APIC mode has a
 * logical id made from its id (SDM 3A 10.12.10.2), one in xAPIC mode LDR and DFR (10.6.2.2).
 */
static bool matches(const struct lapic *l, u32 dest, bool logical, bool wide)
{
    if (!globally_enabled(l))
        return false;
    if (dest == (wide ? 0xffffffffu : 0xffu))
        return true;
    if (!logical)
        return dest == l->id;
    if (lapic_x2(l))
        return dest >> 16 == l->id >> 4 && (dest & BIT32(l->id & 15));
    if (dest > 0xff)
        return false;
    u32 mine = apic_get(&l->ldr) >> 24;
    if (apic_get(&l->dfr) >> 28 == 0xf)
        return (dest & mine) != 0;
    return dest >> 4 == mine >> 4 && (dest & mine & 0xf);
}

struct message {
    u32 dest;
    bool logical, wide, level;
    u8 mode, vector;
};

/* skip: an APIC that does not get it (all but self), or NULL. */
static void send(struct lapics *set, const struct message *m, bool everybody,
                 const struct lapic *skip)
{
    unsigned start = 0;

    if (m->mode == DM_LOWEST)
        start = __atomic_fetch_add(&set->lowest_next, 1, __ATOMIC_RELAXED) % set->n;
    for (unsigned i = 0; i < set->n; i++) {
        struct lapic *l = &set->apic[(start + i) % set->n];
        if (l == skip)
            continue;
        if (everybody ? !globally_enabled(l) : !matches(l, m->dest, m->logical, m->wide))
            continue;
        if (m->mode == DM_LOWEST) {
            if (!(apic_get(&l->svr) & SVR_ENABLE))
                continue;
            lapic_accept(l, DM_FIXED, m->vector, m->level);
            return;
        }
        lapic_accept(l, m->mode, m->vector, m->level);
    }
}

void lapic_send_ipi(struct lapic *l, u64 icr)
{
    bool x2 = lapic_x2(l);
    struct message m = {
        .dest = x2 ? (u32)(icr >> 32) : (u32)(icr >> 56),
        .logical = (icr & BIT64(11)) != 0,
        .wide = x2,
        .level = (icr & BIT64(15)) != 0,
        .mode = icr >> 8 & 7,
        .vector = (u8)icr,
    };

    if (m.mode == DM_INIT && (icr & (BIT64(14) | BIT64(15))) == BIT64(15))
        return; /* INIT level de-assert: no effect on these processors (SDM 3A 10.6.1) */
    if (m.mode == DM_RESERVED || m.mode == DM_EXTINT)
        return;
    if ((m.mode == DM_FIXED || m.mode == DM_LOWEST) && m.vector < 16) {
        lapic_error(l, ESR_SEND_ILLEGAL);
        return;
    }
    m.level = false; /* interprocessor interrupts are edges (SDM 3A 10.6.1, trigger mode) */
    switch (icr >> 18 & 3) {
    case 0:
        send(l->set, &m, false, NULL);
        break;
    case 1:
        if (m.mode == DM_FIXED)
            lapic_accept(l, DM_FIXED, m.vector, false);
        break;
    case 2:
        if (m.mode != DM_INIT && m.mode != DM_SIPI)
            send(l->set, &m, true, NULL);
        break;
    case 3:
        send(l->set, &m, true, l);
        break;
    }
}

void lapic_msi(void *opaque, u64 addr, u32 data)
{
    struct lapics *set = opaque;
    /* SDM 3A 10.11: destination in address bits 19:12, redirection hint 3, logical 2. */
    struct message m = {
        .dest = addr >> 12 & 0xff,
        .logical = (addr & BIT64(2)) != 0,
        .mode = data >> 8 & 7,
        .vector = (u8)data,
        .level = (data & BIT32(15)) != 0,
    };

    if (addr >> 20 != 0xfee)
        return;
    if ((addr & BIT64(3)) && m.logical && m.mode == DM_FIXED)
        m.mode = DM_LOWEST;
    if (m.mode == DM_SIPI || m.mode == DM_RESERVED)
        return;
    send(set, &m, false, NULL);
}
