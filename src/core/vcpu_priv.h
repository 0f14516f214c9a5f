/* SPDX-License-Identifier: Apache-2.0 */
/* Between vm.c and vcpu.c. */
#ifndef TRIVISOR_CORE_VCPU_PRIV_H
#define TRIVISOR_CORE_VCPU_PRIV_H

#include "core/vm.h"

/* Exit status of the program for failures that are not the guest's. */
#define VM_EXIT_FAILURE 125
/* Exit status when a vCPU shut down. */
#define VM_EXIT_TRIPLE_FAULT 122

/* On the vCPU's thread: the engine's debug exit, for the debugger. */
void vcpu_debug_stopped(struct vcpu *v, const struct debug_stop *stop);
/* The vCPU cannot go on: with a debugger, which has not been told yet, it is held for inspection
 * and this is true; run is called again when the debugger lets it go. */
bool vcpu_debug_dead(struct vcpu *v);

/* Body of a vCPU's thread; returns once the VM stops. */
void vcpu_thread(void *vcpu);

#endif
