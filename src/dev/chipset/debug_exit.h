/* SPDX-License-Identifier: Apache-2.0 */
/* isa-debug-exit, as QEMU has it: a write of v ends the VM with exit status (v << 1) | 1. */
#ifndef TRIVISOR_DEV_CHIPSET_DEBUG_EXIT_H
#define TRIVISOR_DEV_CHIPSET_DEBUG_EXIT_H

#include "core/vm.h"

#define DEBUG_EXIT_PORT 0xf4

/* Four ports from base. NULL: no memory, or the ports are taken. The device belongs to the VM. */
struct device *debug_exit_create(struct vm *vm, u16 base);

#endif
