/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small ports of the PC board: system control port A (92H: fast reset, A20), the POST code ports
 * 80H and EDH, the FPU error ports F0H and F1H.
 */
#ifndef TRIVISOR_DEV_CHIPSET_PORTS_H
#define TRIVISOR_DEV_CHIPSET_PORTS_H

#include "core/vm.h"

/* NULL: no memory, or the ports are taken. The device belongs to the VM. */
struct device *ports_create(struct vm *vm);

#endif
