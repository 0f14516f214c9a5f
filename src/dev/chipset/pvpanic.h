/* SPDX-License-Identifier: Apache-2.0 */
/* pvpanic (QEMU docs/specs/pvpanic): a guest tells that its kernel has panicked. */
#ifndef TRIVISOR_DEV_CHIPSET_PVPANIC_H
#define TRIVISOR_DEV_CHIPSET_PVPANIC_H

#include "core/vm.h"

#define PVPANIC_PORT 0x505

#define PVPANIC_PANICKED 0x01    /* the VM stops: VM_CRASH */
#define PVPANIC_CRASHLOADED 0x02 /* a crash kernel takes over: only told in the log */

/* NULL: no memory, or the port is taken. The device belongs to the VM. */
struct device *pvpanic_create(struct vm *vm, u16 port);

#endif
