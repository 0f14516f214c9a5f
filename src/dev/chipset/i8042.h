/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 8042 keyboard controller, ports 60H and 64H, with nothing plugged in: it answers commands as
 * a controller does, its devices do not. Pulsing its output resets the machine.
 */
#ifndef TRIVISOR_DEV_CHIPSET_I8042_H
#define TRIVISOR_DEV_CHIPSET_I8042_H

#include "core/vm.h"

struct i8042_config {
    struct irq_line kbd_irq; /* ISA interrupt 1 */
    struct irq_line aux_irq; /* ISA interrupt 12 */
};

/* NULL: no memory, or the ports are taken. The device belongs to the VM. */
struct device *i8042_create(struct vm *vm, const struct i8042_config *cfg);

#endif
