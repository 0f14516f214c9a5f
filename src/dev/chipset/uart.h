/* SPDX-License-Identifier: Apache-2.0 */
/* A 16550A serial port: eight ports, FIFOs, every interrupt source, loop-back. */
#ifndef TRIVISOR_DEV_CHIPSET_UART_H
#define TRIVISOR_DEV_CHIPSET_UART_H

#include "core/backend.h"
#include "core/vm.h"

#define UART_COM1 0x3f8
#define UART_COM1_IRQ 4
#define UART_COM2 0x2f8
#define UART_COM2_IRQ 3

struct uart_config {
    u16 base;
    struct irq_line irq;
    struct chardev *chr; /* NULL: nothing connected. Must outlive the device. */
};

/* NULL: no memory, or the ports are taken. The device belongs to the VM. */
struct device *uart_create(struct vm *vm, const struct uart_config *cfg);

#endif
