/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of the PC and how they are wired. */
#include <errno.h>
#include <stdio.h>

#include "backend/char/char.h"
#include "board/layout.h"
#include "board/pc_priv.h"
#include "dev/chipset/debug_exit.h"
#include "dev/chipset/irqchip.h"
#include "dev/chipset/pvpanic.h"
#include "dev/chipset/uart.h"

_Static_assert(LAYOUT_IOAPIC_ID == IRQCHIP_IOAPIC_ID, "the MADT shows the I/O APIC's id");

/* A device could not be made: no memory, or a mistake in the layout. */
static int refuse(struct pc *pc, const char *name)
{
    snprintf(pc->err, pc->err_size, "cannot create the %s: out of memory or address space", name);
    return -ENOMEM;
}

int pc_create_devices(struct pc *pc)
{
    struct vm *vm = &pc->vm;
    struct device *irq = irqchip_create(vm);
    struct uart_config com1 = {.base = UART_COM1};

    if (!irq)
        return refuse(pc, "interrupt controllers");
    pc->console = char_open(vm, pc->cfg->serial, pc->err, pc->err_size);
    if (!pc->console)
        return -EINVAL;
    com1.irq = irqchip_isa_line(irq, UART_COM1_IRQ);
    com1.chr = pc->console;
    if (!uart_create(vm, &com1))
        return refuse(pc, "serial port");
    if (!debug_exit_create(vm, DEBUG_EXIT_PORT))
        return refuse(pc, "test exit device");
    if (!pvpanic_create(vm, PVPANIC_PORT))
        return refuse(pc, "panic device");
    return 0;
}
