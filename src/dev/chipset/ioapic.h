/* SPDX-License-Identifier: Apache-2.0 */
/* The I/O APIC: 24 pins at FEC00000H (82093AA data sheet 290566, version 20H with an EOI register).
 */
#ifndef TRIVISOR_DEV_CHIPSET_IOAPIC_H
#define TRIVISOR_DEV_CHIPSET_IOAPIC_H

#include "core/vm.h"

#define IOAPIC_DEFAULT_BASE 0xfec00000u
#define IOAPIC_PINS 24

struct ioapic_config {
    u64 base;
    u8 id; /* APIC id, shown in the MADT */
    struct msi_sink msi;
};

/* NULL: no memory, or the page is taken. The device belongs to the VM. */
struct device *ioapic_create(struct vm *vm, const struct ioapic_config *cfg);
struct irq_line ioapic_line(struct device *d, unsigned pin);
/* EOI message of a local APIC; opaque: the struct device. VM lock held. */
void ioapic_eoi(void *opaque, u8 vector);

#endif
