/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt lines and message-signalled interrupts: what a device holds, not knowing who listens.
 */
#ifndef TRIVISOR_CORE_IRQ_H
#define TRIVISOR_CORE_IRQ_H

#include "base/types.h"

struct irq_line {
    void (*set)(void *opaque, unsigned n, bool level);
    void *opaque;
    unsigned n;
};

/* Called with the VM lock held. An unconnected line (set NULL) is allowed. */
static inline void irq_set(const struct irq_line *l, bool level)
{
    if (l->set)
        l->set(l->opaque, l->n, level);
}

/*
 * An eventfd that an engine with local APICs of its own listens to: whoever adds to it sends a
 * message, without a lock and from whatever process has the descriptor. What is added while nobody
 * listens is sent, once, when somebody does.
 */
struct irqfd {
    int fd;
    bool live; /* the engine listens; while it does not, send by msi_sink.send. VM lock */
    u64 sent;  /* messages its user sent with it; VM lock */
};

/* Where MSI writes go: the interrupt controllers of the board. */
struct msi_sink {
    void (*send)(void *opaque, u64 addr, u32 data);
    /* An I/O APIC's pin will send this from now on and wait for its EOI; data 0: it will not. May
     * be NULL: nobody needs to know beforehand. VM lock held. */
    void (*announce)(void *opaque, unsigned pin, u64 addr, u32 data);
    /* One that is the caller's until it gives it back, and not live; NULL: there is none left. The
     * three may be NULL: there are none. VM lock held, or before vCPUs run. */
    struct irqfd *(*get_irqfd)(void *opaque);
    void (*put_irqfd)(void *opaque, struct irqfd *e);
    /* on: e sends this message from now on, if it can (e->live); otherwise none any more: what was
     * sent has arrived. VM lock held. */
    void (*route)(void *opaque, struct irqfd *e, bool on, u64 addr, u32 data);
    void *opaque;
};

#endif
