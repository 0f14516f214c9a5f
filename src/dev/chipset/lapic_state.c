/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and loading the local APICs. vCPUs are parked: nobody else writes meanwhile. */
#include <errno.h>

#include "dev/chipset/lapic_priv.h"

#define STATE_VERSION 1

#define ESR_ALL 0xffu

/* What was sent to a vCPU and has not reached it: the bits of vcpu->events, in this order. */
static const u32 sent[] = {VCPU_EV_NMI, VCPU_EV_INIT, VCPU_EV_SIPI};

static void save_one(const struct lapic *l, struct stream *out)
{
    stream_put_u64(out, l->base);
    stream_put_u32(out, l->id);
    stream_put_u32(out, l->tpr);
    stream_put_u32(out, l->ldr);
    stream_put_u32(out, l->dfr);
    stream_put_u32(out, l->svr);
    stream_put_u32(out, l->esr);
    stream_put_u32(out, l->esr_pending);
    for (unsigned i = 0; i < LVT_N; i++)
        stream_put_u32(out, l->lvt[i]);
    stream_put_u64(out, l->icr);
    for (unsigned i = 0; i < 8; i++) {
        stream_put_u32(out, l->isr[i]);
        stream_put_u32(out, l->irr[i]);
        stream_put_u32(out, l->tmr[i]);
    }
    stream_put_u8(out, l->ioapic_ext != 0);
    vtimer_save(&l->timer, out);
    stream_put_u32(out, l->timer_init);
    stream_put_u32(out, l->timer_divide);
    stream_put_u64(out, l->tsc_deadline);
    for (unsigned i = 0; i < ARRAY_SIZE(sent); i++)
        stream_put_u8(out, (__atomic_load_n(&l->v->events, __ATOMIC_SEQ_CST) & sent[i]) != 0);
    stream_put_u8(out, apic_get(&l->v->sipi_vector));
}

int lapic_save(const struct device *d, struct stream *out, const char **why)
{
    const struct lapics *set = container_of(d, struct lapics, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put_u8(out, (u8)set->n);
    stream_put_u8(out, set->intr_level != 0);
    stream_put_u8(out, set->nmi_level != 0);
    stream_put_u32(out, set->lowest_next);
    for (unsigned i = 0; i < set->n; i++)
        save_one(&set->apic[i], out);
    return out->error;
}

/* A register none of whose other bits can be set. */
static u32 get(struct stream *in, u32 valid)
{
    u32 v = stream_get_u32(in);

    stream_expect(in, !(v & ~valid));
    return v;
}

static void load_registers(struct lapic *l, struct stream *in)
{
    u64 base = stream_get_u64(in);

    stream_expect(in, lapic_base_ok(l, base & ~APIC_BASE_BSP) &&
                          ((base & APIC_BASE_BSP) != 0) == l->v->bsp);
    stream_expect(in, stream_get_u32(in) == l->id);
    apic_put(&l->tpr, get(in, 0xff));
    apic_put(&l->ldr, get(in, 0xff000000));
    apic_put(&l->dfr, stream_get_u32(in));
    stream_expect(in, (l->dfr & 0x0fffffff) == 0x0fffffff);
    apic_put(&l->svr, get(in, SVR_FOCUS | SVR_ENABLE | 0xff));
    l->esr = get(in, ESR_ALL);
    l->esr_pending = get(in, ESR_ALL);
    for (unsigned i = 0; i < LVT_N; i++) {
        apic_put(&l->lvt[i], get(in, lapic_lvt_writable[i]));
        stream_expect(in, i != LVT_TIMER || LVT_TIMER_MODE(l->lvt[i]) != 3);
    }
    l->icr = stream_get_u64(in);
    stream_expect(in, !(l->icr & ~(MASK64(63, 32) | 0x000ccfffu)));
    if (!in->error)
        lapic_set_base(l, base);
}

/* Vectors 0 to 15 are never accepted (SDM 3A 10.5.2). */
static void load_vectors(struct lapic *l, struct stream *in)
{
    for (unsigned i = 0; i < 8; i++) {
        u32 valid = i ? ~0u : 0xffff0000u;
        l->isr[i] = get(in, valid);
        __atomic_store_n(&l->irr[i], get(in, valid), __ATOMIC_SEQ_CST);
        __atomic_store_n(&l->tmr[i], get(in, valid), __ATOMIC_SEQ_CST);
    }
    l->isr_high = lapic_highest_bit(l->isr);
    __atomic_store_n(&l->irr_any, 1, __ATOMIC_SEQ_CST); /* somebody may be: they will look */
    __atomic_store_n(&l->ioapic_ext, stream_get_bool(in), __ATOMIC_SEQ_CST);
}

static void load_timer(struct lapic *l, struct stream *in)
{
    vtimer_load(&l->timer, in);
    l->timer_init = stream_get_u32(in);
    l->timer_divide = get(in, 0xb);
    l->tsc_deadline = stream_get_u64(in);
    lapic_timer_set_period(l);
}

static void load_sent(struct lapic *l, struct stream *in)
{
    u32 events = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(sent); i++)
        if (stream_get_bool(in))
            events |= sent[i];
    apic_put(&l->v->sipi_vector, stream_get_u8(in));
    if (!in->error)
        __atomic_fetch_or(&l->v->events, events, __ATOMIC_SEQ_CST);
}

int lapic_load(struct device *d, struct stream *in)
{
    struct lapics *set = container_of(d, struct lapics, dev);

    stream_expect(in, stream_get_u16(in) == STATE_VERSION && stream_get_u8(in) == set->n);
    __atomic_store_n(&set->intr_level, stream_get_bool(in), __ATOMIC_SEQ_CST);
    set->nmi_level = stream_get_bool(in);
    set->lowest_next = stream_get_u32(in);
    for (unsigned i = 0; i < set->n && !in->error; i++) {
        load_registers(&set->apic[i], in);
        load_vectors(&set->apic[i], in);
        load_timer(&set->apic[i], in);
        load_sent(&set->apic[i], in);
    }
    return in->error;
}

static bool anybody_has(const struct lapics *set, unsigned vector)
{
    for (unsigned i = 0; i < set->n; i++)
        if ((set->apic[i].irr[vector / 32] | set->apic[i].isr[vector / 32]) & BIT32(vector % 32))
            return true;
    return false;
}

/*
 * An engine with APICs of its own tells of an EOI a moment after it has happened, and the machine
 * may have been saved in between. The I/O APIC would wait for it forever, with its interrupt in no
 * APIC any more. To be told twice does it no harm.
 */
static void tell_eois(const struct lapics *set)
{
    for (unsigned vector = 16; vector < 256 && set->eoi; vector++)
        if (!anybody_has(set, vector))
            set->eoi(set->eoi_opaque, (u8)vector);
}

/* Whoever has something pending finds it when asked. */
void lapic_loaded(struct device *d)
{
    struct lapics *set = container_of(d, struct lapics, dev);

    tell_eois(set);
    for (unsigned i = 0; i < set->n; i++)
        vcpu_post(set->apic[i].v, VCPU_EV_IRQ);
}
