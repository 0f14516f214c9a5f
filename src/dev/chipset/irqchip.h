/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC's interrupt controllers wired together: 8259 pair, local APICs, I/O APIC. A global system
 * interrupt (GSI) is an I/O APIC pin; ISA interrupt n reaches the 8259's input n and GSI n, but for
 * 0, which is GSI 2 (the MADT needs an override for it). A line may be shared: it is asserted while
 * any of its users asserts it.
 */
#ifndef TRIVISOR_DEV_CHIPSET_IRQCHIP_H
#define TRIVISOR_DEV_CHIPSET_IRQCHIP_H

#include "core/vm.h"

/* APIC id of the I/O APIC, beyond the vCPUs'. */
#define IRQCHIP_IOAPIC_ID VM_VCPUS_MAX

/* After the vCPUs are added. NULL: no memory, or addresses are taken. The device belongs to the VM.
 */
struct device *irqchip_create(struct vm *vm);
/* A new user of ISA interrupt 0..15; at most 32 users a line (more: an unconnected line). */
struct irq_line irqchip_isa_line(struct device *d, unsigned irq);
/* A new user of a GSI, 1..23 (pin 0 is the 8259's). GSIs below 16 reach the 8259 too. */
struct irq_line irqchip_gsi_line(struct device *d, unsigned gsi);
/* Where devices send MSIs. */
struct msi_sink irqchip_msi(struct device *d);
/* NMI at the boot processor's LINT1. */
struct irq_line irqchip_nmi(struct device *d);

#endif
