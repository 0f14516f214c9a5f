/* SPDX-License-Identifier: Apache-2.0 */
/* The 8254 timer, ports 40H to 43H, and the speaker and NMI port 61H. */
#ifndef TRIVISOR_DEV_CHIPSET_PIT_H
#define TRIVISOR_DEV_CHIPSET_PIT_H

#include "core/vm.h"

#define PIT_HZ 1193182u

struct pit_config {
    struct irq_line irq; /* output of counter 0: ISA interrupt 0 */
};

/* NULL: no memory, or the ports are taken. The device belongs to the VM. */
struct device *pit_create(struct vm *vm, const struct pit_config *cfg);

#endif
