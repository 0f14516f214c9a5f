/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI's hot-plug of PCI devices (ACPI 6.4 6.3): the registers between the board, which puts
 * functions on bus 0 while the guest runs, and the methods of the DSDT, which tell the guest. Three
 * of 32 bits at a port, a bit a slot of the bus; those behind QEMU's machines work alike.
 *
 * UP and DOWN say in which slots something has come, and what is asked back, since they were last
 * read. A one written to EJECT takes the device out of its slot, asked for or not: the guest is the
 * one that knows when it is done with it.
 */
#ifndef TRIVISOR_DEV_PCI_HOTPLUG_H
#define TRIVISOR_DEV_PCI_HOTPLUG_H

#include "core/vm.h"

#define PCI_HOTPLUG_UP 0
#define PCI_HOTPLUG_DOWN 4
#define PCI_HOTPLUG_EJECT 8
#define PCI_HOTPLUG_SIZE 12
/* The event of acpi_pm's GPE block that makes the guest read them. */
#define PCI_HOTPLUG_GPE 1

struct pci_hotplug_config {
    u16 base;          /* of the ports */
    struct device *pm; /* acpi_pm */
    /* The guest has ejected what was in the slot: its device_ops.unplug was called, and nothing is
     * done with it here any more. On the event loop, VM lock not held. */
    void (*ejected)(void *opaque, unsigned slot);
    void *opaque;
};

/* NULL: no memory, or the ports are taken. The device belongs to the VM. */
struct device *pci_hotplug_create(struct vm *vm, const struct pci_hotplug_config *cfg);

/* What is in the slot (0 to 31), which was empty, may be ejected from now on. tell: the guest is
 * told; whether it has enabled the event: one without a driver for it has not, or not yet. VM lock
 * held. */
bool pci_hotplug_insert(struct device *d, unsigned slot, struct device *what, bool tell);
/* Asks the guest to eject what is in the slot. Likewise. */
bool pci_hotplug_ask(struct device *d, unsigned slot);
/* What was ejected until now has been told to cfg.ejected. Event loop, VM lock not held. */
void pci_hotplug_settle(struct device *d);

#endif
