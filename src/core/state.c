/* SPDX-License-Identifier: Apache-2.0 */
#include "core/state.h"

#include <errno.h>

#include "core/cpu_state.h"

#define VERSION 2
/* What a vCPU that is not running may have been sent and not seen yet. Interrupts are the interrupt
 * controller's to know. */
#define SAVED_EVENTS (VCPU_EV_NMIS | VCPU_EV_INIT | VCPU_EV_SIPI)

void vcpu_save(struct vcpu *v, struct x86_vcpu_state *s, struct stream *out)
{
    /* An engine may leave this to the vCPU's thread. */
    if (v->wait_sipi)
        s->activity = X86_WAIT_SIPI;
    stream_put_u16(out, VERSION);
    stream_put_u32(out, __atomic_load_n(&v->events, __ATOMIC_SEQ_CST) & SAVED_EVENTS);
    stream_put_u8(out, __atomic_load_n(&v->sipi_vector, __ATOMIC_RELAXED));
    x86_vcpu_state_save(s, &v->vm->cpu_model, v->vm->tsc_stopped, out);
}

static int read_state(const struct vcpu *v, struct x86_vcpu_state *s, u32 *events, u8 *vector,
                      struct stream *in)
{
    if (stream_get_u16(in) != VERSION)
        return -EINVAL;
    *events = stream_get_u32(in);
    *vector = stream_get_u8(in);
    if (*events & ~SAVED_EVENTS)
        return -EINVAL;
    return x86_vcpu_state_load(s, &v->vm->cpu_model, v->vm->tsc_stopped, in);
}

bool vcpu_can_load(const struct vcpu *v, struct stream *in)
{
    struct x86_vcpu_state s;
    u32 events;
    u8 vector;

    return !read_state(v, &s, &events, &vector, in) && in->pos == in->cap;
}

/*
 * An engine with APICs of its own gets INIT, SIPI and NMIs from those. What was sent under another
 * one and has not arrived does so here. The events that are left: an INIT of the boot processor
 * ends the machine.
 */
static u32 arrive(struct vcpu *v, struct x86_vcpu_state *s, u32 events, u8 vector)
{
    if ((events & VCPU_EV_INIT) && !v->bsp) {
        x86_state_init(s, v->vm->cpu_model.signature);
        s->activity = X86_WAIT_SIPI;
        if (v->irq)
            v->irq->init(v->irq_opaque);
        events &= ~(VCPU_EV_INIT | VCPU_EV_NMIS);
    }
    if (s->activity == X86_WAIT_SIPI) {
        events &= ~VCPU_EV_NMIS; /* blocked (SDM 3A 9.4.3) */
        if (events & VCPU_EV_SIPI)
            x86_state_sipi(s, vector);
    }
    x86_state_nmis(s, vcpu_nmis(events));
    return events & VCPU_EV_INIT;
}

int vcpu_load(struct vcpu *v, struct x86_vcpu_state *s, struct stream *in)
{
    u32 events;
    u8 vector;

    if (read_state(v, s, &events, &vector, in))
        return -EINVAL;
    if (v->vm->engine->apic)
        events = arrive(v, s, events, vector);
    __atomic_store_n(&v->sipi_vector, vector, __ATOMIC_RELAXED);
    /* The interrupt controller was loaded without a word. */
    __atomic_store_n(&v->events, events | VCPU_EV_IRQ, __ATOMIC_SEQ_CST);
    return 0;
}
