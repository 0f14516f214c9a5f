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

/* Where MSI writes go: the interrupt controllers of the board. */
struct msi_sink {
    void (*send)(void *opaque, u64 addr, u32 data);
    /* An I/O APIC's pin will send this from now on and wait for its EOI; data 0: it will not. May
     * be NULL: nobody needs to know beforehand. VM lock held. */
    void (*announce)(void *opaque, unsigned pin, u64 addr, u32 data);
    void *opaque;
};

#endif
