/* SPDX-License-Identifier: Apache-2.0 */
/* The pair of 8259A interrupt controllers: ports 20H, 21H, A0H, A1H and the ELCRs 4D0H, 4D1H. */
#ifndef TRIVISOR_DEV_CHIPSET_PIC_H
#define TRIVISOR_DEV_CHIPSET_PIC_H

#include "core/vm.h"

struct pic_config {
    struct irq_line intr; /* the first controller's INTR */
};

/* NULL: no memory, or the ports are taken. The device belongs to the VM. */
struct device *pic_create(struct vm *vm, const struct pic_config *cfg);
/* Input 0..15 (2 is the cascade and stays unconnected). */
struct irq_line pic_line(struct device *d, unsigned n);
/* The pair of INTA cycles: the vector to serve (a spurious one when nothing is left). VM lock held.
 * opaque: the struct device. */
int pic_ack(void *opaque);
/* Where INTR goes, when it is not known at creation. */
void pic_connect(struct device *d, struct irq_line intr);

#endif
