/* SPDX-License-Identifier: Apache-2.0 */
/* Between vm.c and vcpu.c. */
#ifndef TRIVISOR_CORE_VCPU_PRIV_H
#define TRIVISOR_CORE_VCPU_PRIV_H

#include "core/vm.h"

/* Exit status of the program for failures that are not the guest's. */
#define VM_EXIT_FAILURE 125
/* Exit status when a vCPU shut down. */
#define VM_EXIT_TRIPLE_FAULT 122

/* Body of a vCPU's thread; returns once the VM stops. */
void vcpu_thread(void *vcpu);

#endif
