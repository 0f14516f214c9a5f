/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual machine generation ID (Microsoft, "Virtual Machine Generation ID", 2012): 16 bytes in
 * guest memory that are other ones whenever a machine goes on from a state that may have been used
 * before. A guest that is notified draws new random numbers and identities.
 */
#ifndef TRIVISOR_DEV_CHIPSET_VMGENID_H
#define TRIVISOR_DEV_CHIPSET_VMGENID_H

#include "core/vm.h"

#define VMGENID_SIZE 16
/* The event of acpi_pm's GPE block; the DSDT's method turns it into a notification. */
#define VMGENID_GPE 5

struct vmgenid_config {
    u64 at;            /* guest-physical, 8-byte aligned, in memory the guest keeps off */
    struct device *pm; /* acpi_pm */
};

/* Draws the first one, too. NULL: no memory, no random numbers, or nothing at that address. The
 * device belongs to the VM. It has no state but the guest's memory. */
struct device *vmgenid_create(struct vm *vm, const struct vmgenid_config *cfg);
/* After memory and all devices are loaded: another one, and the guest is told once it runs. VM lock
 * held. 0 or -errno. */
int vmgenid_renew(struct device *d);

#endif
